"""Blocking iterators over listings. A thread waits for the loop once a page, and not for each entry.

The loop only loads entries. The caller takes them, so that an interrupt of the waiting caller loses none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, Self, TypedDict, TypeVar

import trove_async as aio
from trove_async._engine.iterators import Entries as AsyncEntries

from ._mirror import Facade

E = TypeVar("E")


class ListArguments(TypedDict, total=False):
    """The keyword arguments of `trove_async.Trove.list` that do not change the type of its entries."""

    prefix: str
    start_after: str | None
    cursor: str | None
    page_size: int
    details: bool
    include_shadowed: bool


class Entries(Facade[AsyncEntries[E]], Generic[E]):
    """An iterator over the entries of one listing.

    It can be iterated over once, and dropped at any point. After an error or an interrupt, the next call resumes
    after the last entry returned.
    """

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> E:
        """Return the next entry.

        Raises:
            BucketNotFoundError: No backend has the bucket.
            TroveError: A backend failed. The listing has not ended and can be resumed.
        """
        entry = self._async._next_nowait()  # noqa: SLF001 - the facade is part of the library
        if entry is not None:
            return entry
        self._session.run(self._async._load(1))  # noqa: SLF001 - the facade is part of the library
        entry = self._async._next_nowait()  # noqa: SLF001 - the facade is part of the library
        if entry is None:
            raise StopIteration
        return entry

    def pages(self) -> Iterator[Sequence[E]]:
        """Iterate over pages of ``page_size`` entries. Only the last page may be smaller."""
        size = self._async.page_size
        while True:
            self._session.run(self._async._load(size))  # noqa: SLF001 - the facade is part of the library
            page = self._async._take_nowait(size)  # noqa: SLF001 - the facade is part of the library
            if not page:
                return
            yield page

    def all(self) -> Sequence[E]:
        """Return all remaining entries."""
        self._session.run(self._async._load(None))  # noqa: SLF001 - the facade is part of the library
        return self._async._take_nowait(None)  # noqa: SLF001 - the facade is part of the library

    @property
    def ordered(self) -> bool | None:
        """Whether entries are in bytewise order of UTF-8 keys. None before the first page."""
        return self._async.ordered


class ObjectIterator(Entries[E]):
    """Iterates over the objects of a bucket: use ``for``, `pages` or `all`."""

    __slots__ = ()

    _async: aio.ObjectIterator[E]

    @property
    def cursor(self) -> str | None:
        """The position after the last entry returned. See `trove_async.ObjectIterator.cursor`."""
        return self._async.cursor


class VersionIterator(Entries[aio.VersionInfo]):
    """Iterates over the versions of a bucket's objects: use ``for``, `pages` or `all`."""

    __slots__ = ()


class MisplacedIterator(Entries[aio.Misplaced]):
    """Iterates over the misplaced objects of a bucket: use ``for``, `pages` or `all`."""

    __slots__ = ()
