"""What `Trove.get` gives: a body to be read once, in whichever way suits."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import warnings
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import BinaryIO, Self

from ._concurrency import OwnedTask, in_thread
from ._engine.operations import OpenBody
from ._engine.upload import Progress
from .driver import DriverReader
from .errors import BodyConsumedError, ClosedError
from .models import MiB

_CHUNK = 1 * MiB
"""Bytes of a chunk: pieces of 64 KiB cost five times the CPU, larger ones gain nothing."""


class ObjectReader:
    """An object's body, open. Read it once, by one task, then close it; ``async with`` does both.

    Attributes:
        info: The object: the version that the bytes belong to, whatever happens to it meanwhile.
        range: The absolute ``(start, end)`` that the body covers.
    """

    __slots__ = (
        "_body",
        "_check_usable",
        "_context",
        "_emit",
        "_held",
        "_loop",
        "_progress",
        "_torn",
        "_total",
        "info",
        "range",
    )

    def __init__(self, opened: OpenBody, progress: Progress | None) -> None:
        self._check_usable = opened.check_usable
        self._context: AbstractAsyncContextManager[DriverReader] | None = opened.context
        self._body = body = opened.body
        # Read by a call that was cancelled, or failed, before it could return it.
        self._held: list[bytes] = []
        self._torn = False  # some of it was read for a file, or a put, that failed
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._emit = opened.emit
        self._total = body.remaining
        self.info = opened.info
        self.range = body.range

    def __repr__(self) -> str:
        if not hasattr(self, "_context"):
            return "<ObjectReader, never made>"  # its constructor raised
        state = "closed" if self._context is None else f"{self.remaining} bytes left"
        return f"<ObjectReader {self.info.bucket}/{self.info.key}: {state}>"

    @property
    def remaining(self) -> int:
        """Bytes that were not read yet."""
        return self._body.remaining + sum(map(len, self._held))

    async def read(self, n: int | None = -1) -> bytes:
        """Return the next bytes: up to `n` of them, or all that are left.

        ``b""`` is the end, and only the end. After a cancel nothing is lost: read on.

        Args:
            n: At most so many bytes; None or a negative number: all, which is up to the object's
                size of memory.

        Raises:
            ClosedError: The reader is closed.
            IntegrityError: The bytes are not those that were stored; raised before the last chunk.
            ObjectChangedError: The connection broke, and the version is no longer there.
            UnavailableError: It broke more often than the store's RetryPolicy allows.
        """
        if n is not None and n >= 0:
            return await self._next(n) if n else b""
        while piece := await self._pull(_CHUNK):
            self._held.append(piece)
        pieces, self._held = self._held, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill `buffer` from its start with the next bytes; return how many, 0 at the end."""
        view = memoryview(buffer).cast("B")
        if view.readonly:  # refused while no byte of the body is lost by it
            raise TypeError("readinto fills a buffer that can be written, such as a bytearray")
        data = await self.read(len(view))
        view[: len(data)] = data
        return len(data)

    async def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rest of the body to a file, which appears whole or not at all.

        A file of that name is replaced. After an error or a cancel the old one is untouched, and
        nothing lies beside it; a cancel while the new one takes its place is too late. What was
        read for it by then is lost, so that the reader can only be closed.

        Raises:
            BodyConsumedError: An earlier save, or a put of this body, failed midway.
            FileExistsError: Something is there that is no file: a device, a pipe, a directory.
            OSError: The file could not be written.
            TroveError: As `read` does.
        """
        target = os.fsdecode(path)
        # Named after nothing: any name that the file may have is short enough.
        partial = os.path.join(os.path.dirname(target), f".{os.urandom(8).hex()}.part")  # noqa: PTH118, PTH120
        opened: list[BinaryIO] = []
        await in_thread(_check_replaceable, target)
        before = self.remaining
        try:
            try:
                # A thread's call ends even if the task is cancelled: so it opens into what we see.
                await in_thread(lambda: opened.append(_created(partial, target)))
                while chunk := await self._next(_CHUNK):
                    await in_thread(opened[0].write, chunk)
            finally:
                for file in opened:
                    await in_thread(file.close)
            await in_thread(os.replace, partial, target)
        except BaseException:
            if self.remaining < before:
                self._tear()
            with suppress(FileNotFoundError):
                await in_thread(os.unlink, partial)
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self._next(_CHUNK):
            yield chunk

    async def _next(self, size: int) -> bytes:
        if not self._held or self._context is None:
            return await self._pull(size)
        piece = self._held.pop(0)
        if len(piece) > size:
            self._held.insert(0, piece[size:])
        return piece[:size]

    async def _pull(self, size: int) -> bytes:
        self._check_open()
        self._check_usable()
        data = await self._body.read(size)
        if self._progress is not None and data:
            try:
                self._progress(self._total - self._body.remaining, self._total)
            except BaseException:
                self._held.append(data)
                raise
        return data

    def _check_body(self) -> None:
        """Raise if this cannot be the body of a put. What is left of it is, if that is anything."""
        self._check_open()
        if self._total and not self.remaining:
            raise BodyConsumedError(
                "this body was read to its end: open the object again with store.get"
            )

    def _tear(self) -> None:
        """Note that some of the body was read for what did not come to be."""
        self._torn = True
        self._held.clear()

    def _check_open(self) -> None:
        if self._context is None:
            raise ClosedError("this reader is closed: open the object again with store.get")
        if self._torn:
            raise BodyConsumedError(
                "a save or a put that failed has read some of this body: open the object again with"
                " store.get"
            )

    async def aclose(self) -> None:
        """Give the connection back, however much was read. Idempotent; any task may call it."""
        context, self._context = self._context, None
        self._held.clear()
        if context is None:
            return
        await context.__aexit__(None, None, None)
        if self._emit is not None:
            self._emit(self.info.backend, self._total - self._body.remaining)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_context", None) is None:
            return
        warnings.warn(f"{self!r} was never closed: use async with", ResourceWarning, stacklevel=2)
        context, self._context = self._context, None
        if context is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_close_later, context)


def _check_replaceable(path: str) -> None:
    with suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise FileExistsError(errno.EEXIST, "what is there is no file, and stays", path)


def _created(partial: str, target: str) -> BinaryIO:
    """Create the file that will replace `target`, which is what an error names."""
    try:
        return open(partial, "xb")  # noqa: PTH123
    except OSError as error:
        error.filename = target
        raise


def _close_later(context: AbstractAsyncContextManager[DriverReader]) -> None:
    async def close() -> None:
        await context.__aexit__(None, None, None)

    OwnedTask(close())


class OpeningReader:
    """A get that has not been sent yet.

    ``async with store.get(…) as obj`` opens and closes it; ``obj = await store.get(…)`` opens it,
    and closing is up to you. As the body of a put it opens and closes itself.
    """

    __slots__ = ("_open", "_reader", "_used", "_what")

    def __init__(self, open: Callable[[], Generator[None, None, ObjectReader]], what: str) -> None:
        self._open = open
        self._what = what
        self._reader: ObjectReader | None = None
        self._used = False

    def __await__(self) -> Generator[None, None, ObjectReader]:
        self._check_body()
        self._used = True
        return self._open()

    def _check_body(self) -> None:
        """Raise if this cannot be the body of a put."""
        if self._used:
            raise BodyConsumedError("this get was opened before: call store.get again")

    def _tear(self) -> None:
        """Do nothing: it opens only once."""

    async def __aenter__(self) -> ObjectReader:
        self._reader = await self
        return self._reader

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._used = True
        if self._reader is not None:
            await self._reader.aclose()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with self as reader:
            async for chunk in reader:
                yield chunk

    def __del__(self) -> None:
        if not getattr(self, "_used", True):
            warnings.warn(
                f"store.get({self._what}) was never opened: use async with, or await it",
                ResourceWarning,
                stacklevel=2,
            )
