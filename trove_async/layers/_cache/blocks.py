"""The blocks in the cache of `ReadThrough`: their names, their index and their sizes. Does no I/O."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from .sieve import Entry, Sieve
from .versions import Version

_NAME: Final = re.compile(
    r"([0-9a-z]+)/([0-9a-f]{16})([0-9a-f]{32})-([0-9a-f]{1,8})-([0-9a-f]{1,8})-([0-9a-f]{8})"
).fullmatch


class Block(Entry):
    """A block in the cache.

    The name has everything that the index needs, so the index can be rebuilt from a listing of the cache::

        <owner>/<object id><version's id>-<number>-<size>-<crc32c>

    Attributes:
        name: The key of the block in the cache.
        owner: The id of the member of the ledger that wrote it.
        object_id: See `Version.object_id`.
        block_id: See `Version.block_id`.
        number: The position of the block in the object, from 0.
        size: Its bytes.
        crc32c: Its checksum.
        is_verified: Whether the bytes in the cache had this checksum when this process wrote or first read
            them.
        read_to: The end of the bytes that were read in the first pass over the block. See `hit`.
    """

    __slots__ = (
        "block_id",
        "crc32c",
        "is_verified",
        "name",
        "number",
        "object_id",
        "owner",
        "read_to",
        "size",
    )

    def __init__(  # noqa: PLR0917 - the parts of a name, in their order
        self,
        name: str,
        owner: str,
        object_id: str,
        block_id: str,
        number: int,
        size: int,
        crc32c: int,
    ) -> None:
        super().__init__()
        self.name = name
        self.owner = owner
        self.object_id = object_id
        self.block_id = block_id
        self.number = number
        self.size = size
        self.crc32c = crc32c
        self.is_verified = False
        self.read_to = 0

    @classmethod
    def of(cls, owner: str, version: Version, number: int, size: int, crc32c: int) -> Block:
        """Return a block of a version, which is to be written."""
        object_id, block_id = version.object_id, version.block_id
        name = f"{owner}/{object_id}{block_id}-{number:x}-{size:x}-{crc32c:08x}"
        return cls(name, owner, object_id, block_id, number, size, crc32c)

    @classmethod
    def parse(cls, name: str) -> Block | None:
        """Return the block with a name; None if it is not the name of a block."""
        match = _NAME(name)
        if match is None:
            return None
        owner, object_id, block_id, number, size, crc32c = match.groups()
        return cls(
            name, owner, object_id, block_id, int(number, 16), int(size, 16), int(crc32c, 16)
        )

    def hit(self, start: int, end: int) -> None:
        """Record a read of some of its bytes.

        A block is visited once bytes of it are read again. Reads that continue where the last one ended
        belong to one pass. Otherwise a scan in small ranges would look like a block in demand.
        """
        if start < self.read_to:
            self.visited = True
        else:
            self.read_to = end


class BlockIndex:
    """The blocks in the cache: those that this process owns, and those that other processes own.

    Only owned blocks count and are evicted. The others can be read as long as they exist.

    Attributes:
        used: Bytes of the owned blocks, including those that are being written or deleted.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], Block] = {}
        self._objects: dict[str, int] = {}
        self._owned: Sieve[Block] = Sieve()
        self._stored = 0
        self.used = 0

    @property
    def stored_bytes(self) -> int:
        """Bytes of the owned blocks that can be read."""
        return self._stored

    @property
    def owned_count(self) -> int:
        """The number of owned blocks."""
        return len(self._owned)

    def find(self, block_id: str, number: int) -> Block | None:
        """Return a block of a version, or None."""
        return self._blocks.get((block_id, number))

    def has_blocks_of(self, object_id: str) -> bool:
        """Return whether there are blocks of any version of an object."""
        return object_id in self._objects

    def is_owned(self, block: Block) -> bool:
        """Return whether this process owns the block."""
        return block in self._owned

    def add_owned(self, block: Block, *, is_counted: bool = False) -> None:
        """Add an owned block. `is_counted`: its bytes are in `used` already, because it was reserved."""
        if not is_counted:
            self.used += block.size
        self._stored += block.size
        self._owned.add(block)
        key = block.block_id, block.number
        known = self._blocks.get(key)
        if known is None or known not in self._owned:
            self._insert(block)
        # Otherwise two processes wrote the same block, and this one was adopted. It counts until it
        # is evicted.

    def add_foreign(self, block: Block) -> None:
        """Add a block of another process, unless a block with the same content is known."""
        if (block.block_id, block.number) not in self._blocks:
            self._insert(block)

    def remove(self, block: Block) -> None:
        """Remove a block that no longer exists in the cache. Idempotent."""
        if block in self._owned:
            self._owned.remove(block)
            self._stored -= block.size
            self.used -= block.size
        self._drop(block)

    def take_victim(self) -> Block | None:
        """Remove and return the next owned block to evict. It counts in `used` until it is deleted."""
        victim = self._owned.evict()
        if victim is not None:
            self._stored -= victim.size
            self._drop(victim)
        return victim

    def disown(self, owners: Collection[str]) -> None:
        """Count the owned blocks of these owners as those of another process."""
        for block in [block for block in self._owned if block.owner in owners]:
            self._owned.remove(block)
            self._stored -= block.size
            self.used -= block.size

    def drop_owner(self, owner: str) -> None:
        """Remove the blocks of another process, which is about to be listed again."""
        for block in [block for block in self._blocks.values() if block.owner == owner]:
            self._drop(block)

    def _insert(self, block: Block) -> None:
        key = block.block_id, block.number
        if key not in self._blocks:
            self._objects[block.object_id] = self._objects.get(block.object_id, 0) + 1
        self._blocks[key] = block

    def _drop(self, block: Block) -> None:
        key = block.block_id, block.number
        if self._blocks.get(key) is not block:
            return
        del self._blocks[key]
        count = self._objects[block.object_id] - 1
        if count:
            self._objects[block.object_id] = count
        else:
            del self._objects[block.object_id]
