"""The blocking reader of one object."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import trove_async as aio
from trove_async.models import MiB

from ._mirror import Facade, documented_by, waits_for


class ObjectReader(Facade[aio.ObjectReader]):
    """The open body of an object, which ``with`` closes. Iterate over it for chunks of up to 1 MiB.

    It is read once, by one thread. As the body of a put, it is streamed from one backend to the other.
    """

    __slots__ = ()

    @property
    def info(self) -> aio.ObjectInfo:
        """The metadata of the version that is being read."""
        return self._async.info

    @property
    def range(self) -> tuple[int, int]:
        """The absolute ``(start, end)`` of the body."""
        return self._async.range

    @property
    def remaining(self) -> int:
        """The number of bytes that have not been read yet."""
        return self._async.remaining

    read = waits_for(aio.ObjectReader.read)
    readinto = waits_for(aio.ObjectReader.readinto)
    save = waits_for(aio.ObjectReader.save)

    @documented_by(aio.ObjectReader.aclose)
    def close(self) -> None:
        if not self._session.is_lost:  # the connection is one of the parent process
            self._session.run(self._async.aclose())

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(MiB):
            yield chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
