"""Remembers the records, indexes and sizes of transformed objects, which saves requests for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from trove_async.models import KiB, MiB, ObjectInfo

Address: TypeAlias = tuple[str, str, str]
"""A backend's name, a bucket and a key."""

_MAX_BYTES: Final = 4 * MiB
"""The maximum size of the cache. The index of an object of 1 GiB has 8 KiB."""

_ENTRY_BYTES: Final = 2 * KiB
"""Estimated size of an entry without its index."""


class KnownObject(NamedTuple):
    """A transformed object that was read recently.

    Attributes:
        info: The version, as its backend described it.
        indexes: The loaded indexes of each decoder, in the order of decoding. One that was not needed may
            be missing.
        decoded_size: The size of the decoded object in bytes.
    """

    info: ObjectInfo
    indexes: Sequence[Sequence[bytes]]
    decoded_size: int

    @property
    def size(self) -> int:
        """The memory that the entry takes, in bytes."""
        return _ENTRY_BYTES + sum(len(data) for pieces in self.indexes for data in pieces)


class IndexCache:
    """The transformed objects that were read most recently. It contains no keys and no bodies.

    An entry may be outdated: a read verifies that the version is still the same.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Address, KnownObject] = OrderedDict()
        self._bytes = 0

    def get(self, address: Address) -> KnownObject | None:
        """Return the entry of an object, or None."""
        entry = self._entries.get(address)
        if entry is not None:
            self._entries.move_to_end(address)
        return entry

    def put(self, address: Address, entry: KnownObject) -> None:
        """Remember an object. The entries that were used least recently are dropped.

        An entry that is larger than the cache is not kept, so that it does not displace all others.
        """
        self.drop(address)
        if entry.size > self._max_bytes:
            return
        self._entries[address] = entry
        self._bytes += entry.size
        while self._bytes > self._max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= dropped.size

    def drop(self, address: Address) -> None:
        """Forget an object."""
        entry = self._entries.pop(address, None)
        if entry is not None:
            self._bytes -= entry.size
