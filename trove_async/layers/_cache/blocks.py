"""The blocks in the cache of `ReadThrough`: their names, their index and their sizes. Does no I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from trove_async._concurrency import Turns

from .sieve import Entry, Sieve
from .versions import Version

_NAME: Final = re.compile(
    r"([0-9a-z]+)/([0-9a-f]{16})([0-9a-f]{32})-([0-9a-f]{1,8})-([0-9a-f]{1,8})-([0-9a-f]{8})"
).fullmatch

SLICE: Final = 100
"""Entries of a listing that are processed between two checks whether other tasks should run."""

LISTED: Final = re.compile(
    r"([0-9a-z]+)/([0-9a-f]{16})([0-9a-f]{32}-[0-9a-f]{1,8})-([0-9a-f]{1,8})-[0-9a-f]{8}"
).fullmatch
"""Matches the name of a block: its owner, object id, *ident* (``<version's id>-<number>``) and size."""


_SHARDS: Final = 64
"""Dictionaries that share many entries. When one of 100,000 entries grows, the event loop stops for 5 ms."""


class ListedBlocks:
    """Blocks that are known from a listing and were not looked up, as names.

    A cache may have a million blocks when it is opened, and most of them may never be read. A name takes less
    memory than a `Block`, and the garbage collector does not traverse strings. For 100,000 objects,
    that takes it 40 ms.

    Attributes:
        count: The number of blocks.
        size: Their bytes.
    """

    __slots__ = ("_names", "_objects", "count", "size")

    def __init__(self) -> None:
        self._names: list[dict[str, str]] = [{} for _ in range(_SHARDS)]  # by ident
        self._objects: list[dict[str, int]] = [{} for _ in range(_SHARDS)]  # numbers of blocks
        self.count = 0
        self.size = 0

    def __contains__(self, ident: str) -> bool:
        return ident in self._names[hash(ident) % _SHARDS]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Iterate over the idents and the names."""
        for names in self._names:
            yield from names.items()

    def has_object(self, object_id: str) -> bool:
        """Return whether there are blocks of any version of an object."""
        return object_id in self._objects[hash(object_id) % _SHARDS]

    def add(self, ident: str, name: str, object_id: str, size: int) -> bool:
        """Add a block. Return False if one with the same ident is known."""
        names = self._names[hash(ident) % _SHARDS]
        if ident in names:
            return False
        names[ident] = name
        counts = self._objects[hash(object_id) % _SHARDS]
        counts[object_id] = counts.get(object_id, 0) + 1
        self.count += 1
        self.size += size
        return True

    def take(self, ident: str) -> Block | None:
        """Remove and return a block; None if it is unknown."""
        name = self._names[hash(ident) % _SHARDS].pop(ident, None)
        return None if name is None else self._removed(name)

    def take_any(self) -> Block | None:
        """Remove and return some block; None if there is none."""
        for names in self._names:
            if names:
                return self._removed(names.popitem()[1])
        return None

    def take_owners(self, owners: Collection[str]) -> list[Block]:
        """Remove and return the blocks of some owners."""
        found = [ident for ident, name in self if name[: name.index("/")] in owners]
        return [block for ident in found if (block := self.take(ident)) is not None]

    def _removed(self, name: str) -> Block:
        block = _parsed(name)
        _subtract(self._objects[hash(block.object_id) % _SHARDS], block.object_id)
        self.count -= 1
        self.size -= block.size
        return block


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
        is_verified: Whether the bytes in the cache had this checksum when this process wrote or verified them.
        etag: The etag of the object in the cache at that time; None if it has none, or if it is not verified.
        read_to: The end of the bytes that were read in the first pass over the block. See `hit`.
    """

    __slots__ = (
        "block_id",
        "crc32c",
        "etag",
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
        self.etag: str | None = None
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

    Blocks from a listing are in a `ListedBlocks` until they are looked up. Those are evicted first.

    Attributes:
        used: Bytes of the owned blocks, including those that are being written or deleted.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], Block] = {}
        self._objects: dict[str, int] = {}  # the number of these blocks of each object
        self._owned: Sieve[Block] = Sieve()
        self._stored = 0  # of the blocks in `_owned`
        self._listed = ListedBlocks()
        self._foreign = ListedBlocks()
        self.used = 0

    @property
    def stored_bytes(self) -> int:
        """Bytes of the owned blocks that can be read."""
        return self._stored + self._listed.size

    @property
    def owned_count(self) -> int:
        """The number of owned blocks."""
        return len(self._owned) + self._listed.count

    def find(self, block_id: str, number: int) -> Block | None:
        """Return a block of a version, or None."""
        block = self._blocks.get((block_id, number))
        if block is not None or not (self._listed.count or self._foreign.count):
            return block
        ident = f"{block_id}-{number:x}"
        if (block := self._listed.take(ident)) is not None:
            self._stored += block.size
            self._owned.add(block)
            self._insert(block)
        elif (block := self._foreign.take(ident)) is not None:
            self._insert(block)
        return block

    def has_blocks_of(self, object_id: str) -> bool:
        """Return whether there are blocks of any version of an object."""
        return (
            object_id in self._objects
            or self._listed.has_object(object_id)
            or self._foreign.has_object(object_id)
        )

    def is_owned(self, block: Block) -> bool:
        """Return whether this process owns the block."""
        return block in self._owned

    def add_owned(self, block: Block, *, is_counted: bool = False) -> None:
        """Add an owned block. `is_counted`: its bytes are in `used` already, because it was reserved."""
        if not is_counted:
            self.used += block.size
        known = self.find(block.block_id, block.number)
        self._stored += block.size
        self._owned.add(block)
        if known is None or known not in self._owned:
            self._insert(block)
        # Otherwise two processes wrote the same block, and this one was adopted. It counts until it
        # is evicted.

    async def add_listed(self, found: ListedBlocks, *, is_owned: bool) -> None:
        """Add the blocks of one owner from a listing, which this call may keep."""
        # 1. The usual case: one owner has all blocks.
        target = self._listed if is_owned else self._foreign
        if is_owned and not (target.count or self._foreign.count or self._blocks):
            self._listed = found
            self.used += found.size
            return
        # 2. Otherwise some blocks may be known, because two processes wrote the same ones.
        turns = Turns()
        for count, (ident, name) in enumerate(found):
            if ident in self._listed or ident in self._foreign or self._has(ident):
                if is_owned:
                    self.add_owned(_parsed(name))
            else:
                size = int(name.rsplit("-", 2)[1], 16)
                start = name.index("/") + 1
                target.add(ident, name, name[start : start + 16], size)
                self.used += size if is_owned else 0
            if count % SLICE == 0 and turns.is_due:
                await turns.give()

    def remove(self, block: Block) -> None:
        """Remove a block that no longer exists in the cache. Idempotent."""
        if block in self._owned:
            self._owned.remove(block)
            self._stored -= block.size
            self.used -= block.size
        self._drop(block)

    def take_victim(self) -> Block | None:
        """Remove and return the next owned block to evict. It counts in `used` until it is deleted."""
        victim = self._listed.take_any()
        if victim is not None:
            return victim
        victim = self._owned.evict()
        if victim is not None:
            self._stored -= victim.size
            self._drop(victim)
        return victim

    async def clear(self) -> None:
        """Remove all blocks, which no longer exist. Those that are being written or deleted still count."""
        self.used -= self._listed.size
        self._listed, self._foreign = ListedBlocks(), ListedBlocks()
        turns = Turns()
        while (victim := self.take_victim()) is not None:
            self.used -= victim.size
            if turns.is_due:
                await turns.give()
        for block in list(self._blocks.values()):  # those of other processes
            self._drop(block)

    def disown(self, owners: Collection[str]) -> None:
        """Count the owned blocks of these owners as those of another process."""
        for block in [block for block in self._owned if block.owner in owners]:
            self._owned.remove(block)
            self._stored -= block.size
            self.used -= block.size
        for block in self._listed.take_owners(owners):
            self.used -= block.size
            self._insert(block)

    def drop_owner(self, owner: str) -> None:
        """Remove the blocks of another process, which is about to be listed again."""
        for block in [block for block in self._blocks.values() if block.owner == owner]:
            self._drop(block)
        self._foreign.take_owners({owner})

    def _has(self, ident: str) -> bool:
        if not self._blocks:
            return False
        block_id, _, number = ident.partition("-")
        return (block_id, int(number, 16)) in self._blocks

    def _insert(self, block: Block) -> None:
        key = block.block_id, block.number
        if key not in self._blocks:
            self._objects[block.object_id] = self._objects.get(block.object_id, 0) + 1
        self._blocks[key] = block

    def _drop(self, block: Block) -> None:
        key = block.block_id, block.number
        if self._blocks.get(key) is block:
            del self._blocks[key]
            _subtract(self._objects, block.object_id)


def _parsed(name: str) -> Block:
    block = Block.parse(name)
    assert block is not None  # noqa: S101 - only names of blocks are listed
    return block


def _subtract(counts: dict[str, int], object_id: str) -> None:
    if counts[object_id] > 1:
        counts[object_id] -= 1
    else:
        del counts[object_id]
