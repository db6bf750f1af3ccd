"""SIEVE, the order in which a cache evicts its entries.

SIEVE (Zhang et al., NSDI 2024) is a queue with one bit an entry, and a hand. A new entry goes to the head with
its bit unset, and a hit sets the bit. To evict, the hand moves from the tail towards the head: it unsets
the bits that are set, and evicts the first entry whose bit is not. The hand stays there for the next
eviction.

Entries do not move when they are hit, so those that were hit again stay behind the hand. New entries, such as
those of a scan, are ahead of the hand, which evicts them in their order. Each entry that is added moves the
head as far away as each eviction moves the hand, so a scan of any length does not make the hand start again at
the tail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar


class Entry:
    """An entry of a `Sieve`. Subclasses add what the cache needs.

    Attributes:
        visited: Whether the entry was hit since it was added, or since the hand passed it.
    """

    __slots__ = ("_newer", "_older", "_queued", "visited")

    def __init__(self) -> None:
        self.visited = False
        self._newer: Entry | None = None
        self._older: Entry | None = None
        self._queued = False


E = TypeVar("E", bound=Entry)


class Sieve(Generic[E]):
    """A queue of entries."""

    __slots__ = ("_count", "_hand", "_head", "_tail")

    def __init__(self) -> None:
        self._head: Entry | None = None
        self._tail: Entry | None = None
        self._hand: Entry | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, entry: object) -> bool:
        return isinstance(entry, Entry) and entry._queued  # noqa: SLF001 - same module

    def __iter__(self) -> Iterator[E]:
        """Iterate over the entries, from the newest to the oldest."""
        entry = self._head
        while entry is not None:
            yield entry  # type: ignore[misc]  # only entries of the type E are added
            entry = entry._older  # noqa: SLF001 - same module

    def add(self, entry: E) -> None:
        """Add an entry that is not in the queue, at the head."""
        entry._queued = True  # noqa: SLF001 - same module
        entry._newer, entry._older = None, self._head  # noqa: SLF001 - same module
        if self._head is None:
            self._tail = entry
        else:
            self._head._newer = entry  # noqa: SLF001 - same module
        self._head = entry
        self._count += 1

    def remove(self, entry: E) -> None:
        """Remove an entry. Do nothing if it is not in the queue."""
        self._unlink(entry)

    def evict(self) -> E | None:
        """Remove and return the next entry to evict; None if the queue is empty."""
        candidate = self._hand or self._tail
        while candidate is not None and candidate.visited:
            candidate.visited = False
            candidate = candidate._newer or self._tail  # noqa: SLF001 - same module
        if candidate is None:
            return None
        self._hand = candidate
        self._unlink(candidate)  # moves the hand on
        return candidate  # type: ignore[return-value]  # only entries of the type E are added

    def _unlink(self, entry: Entry) -> None:
        if not entry._queued:  # noqa: SLF001 - same module
            return
        newer, older = entry._newer, entry._older  # noqa: SLF001 - same module
        if self._hand is entry:
            self._hand = newer
        if newer is None:
            self._head = older
        else:
            newer._older = older  # noqa: SLF001 - same module
        if older is None:
            self._tail = newer
        else:
            older._newer = newer  # noqa: SLF001 - same module
        entry._newer = entry._older = None  # noqa: SLF001 - same module
        entry._queued = False  # noqa: SLF001 - same module
        self._count -= 1
