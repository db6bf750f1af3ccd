"""Readers of object bodies, which `Trove.get` returns."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import warnings
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from ._concurrency import OwnedTask, in_thread
from ._engine.opening import Decode, OpenBody
from ._engine.upload import Progress
from ._engine.verified import WholeBody
from .driver import DriverReader, FileSpan
from .errors import BodyConsumedError, ClosedError
from .models import MiB
from .options import GetOptions

_CHUNK = 1 * MiB
"""Bytes per chunk. Chunks of 64 KiB take five times the CPU time, and larger chunks save none."""


class ObjectReader:
    """The open body of an object. It is read once, by one task; ``async with`` closes it.

    Attributes:
        info: The metadata of the version that is being read. It does not change when the object
            is replaced.
        range: The absolute ``(start, end)`` of the body.
    """

    __slots__ = (
        "_body",
        "_check_usable",
        "_context",
        "_emit",
        "_loop",
        "_partly_read",
        "_progress",
        "_total",
        "_unreturned",
        "info",
        "range",
    )

    def __init__(self, opened: OpenBody, progress: Progress | None) -> None:
        self._check_usable = opened.check_usable
        self._context: AbstractAsyncContextManager[DriverReader] | None = opened.context
        self._body = body = opened.body
        # Bytes read by a call that was cancelled, or failed, before it returned them.
        self._unreturned: list[bytes] = []
        self._partly_read = False  # a save or a put failed after it had read some of the body
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._emit = opened.emit
        self._total = body.remaining
        self.info = opened.info
        self.range = body.range

    def __repr__(self) -> str:
        if not hasattr(self, "_context"):
            return "<ObjectReader, not initialised>"  # its constructor raised
        state = "closed" if self._context is None else f"{self.remaining} bytes remaining"
        return f"<ObjectReader {self.info.bucket}/{self.info.key}: {state}>"

    @property
    def remaining(self) -> int:
        """The number of bytes that have not been read yet."""
        return self._body.remaining + sum(map(len, self._unreturned))

    async def read(self, n: int | None = -1) -> bytes:
        """Return up to `n` bytes, or all remaining bytes.

        ``b""`` means the end, unless `n` is 0. A cancelled read loses no bytes: read again to continue.

        Args:
            n: The maximum number of bytes. None or a negative number: all, which takes as much
                memory as the object has bytes.

        Raises:
            ClosedError: The reader or the store is closed.
            BodyConsumedError: A failed save or put has read some of the body.
            IntegrityError: The bytes differ from those that were stored. It is raised before the
                last chunk is returned.
            ObjectChangedError: The connection broke, and the version no longer exists.
            UnavailableError: The connection broke more often than the store's RetryPolicy allows.
        """
        if n is not None and n >= 0:
            return await self._next(n) if n else b""
        # The pieces are attributes of the reader, not of this call, so that a cancel loses none.
        self._check_open()
        self._check_usable()
        while self._body.remaining:
            self._unreturned.append(await self._pull(_CHUNK))
        pieces, self._unreturned = self._unreturned, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read up to ``len(buffer)`` bytes into the start of `buffer`.

        Returns:
            The number of bytes; 0 means the end, unless the buffer is empty.

        Raises:
            TypeError: The buffer is read-only.
            TroveError: As `read`.
        """
        view = memoryview(buffer).cast("B")
        if view.readonly:  # before any byte of the body is consumed
            raise TypeError(
                "the buffer must be writable, such as a bytearray, got a read-only buffer"
            )
        data = await self.read(len(view))
        view[: len(data)] = data
        return len(data)

    async def save(self, path: str | os.PathLike[str]) -> None:
        """Write the remaining bytes to a file, atomically. An existing file is replaced.

        After an error or a cancel, the old file is unchanged and no temporary file remains. If bytes
        had been read, they are lost and the reader can only be closed. One exception: a cancel
        during the final rename is raised, but the file is replaced.

        Raises:
            BodyConsumedError: An earlier save, or a put of this body, failed midway.
            FileExistsError: The path exists and is neither a regular file nor a symbolic link.
            OSError: The file cannot be written.
            TroveError: As `read`.
        """
        target = os.fsdecode(path)
        # 1. Choose a random name. The file's own name may be too long to append a suffix to it.
        partial = os.path.join(os.path.dirname(target), f".{os.urandom(8).hex()}.part")  # noqa: PTH118, PTH120
        opened: list[BinaryIO] = []
        await in_thread(_check_replaceable, target)
        remaining_before = self.remaining
        # 2. Write the temporary file, and rename it.
        try:
            try:
                # The call in the thread ends even if this task is cancelled, so it stores its result in
                # `opened`.
                await in_thread(lambda: opened.append(_create_partial(partial, target)))
                while chunk := await self._next(_CHUNK):
                    await in_thread(opened[0].write, chunk)
            finally:
                for file in opened:
                    await in_thread(file.close)
            await in_thread(os.replace, partial, target)
        # 3. After a failure, remove the temporary file.
        except BaseException:
            if self.remaining < remaining_before:
                self._mark_partly_read()
            with suppress(FileNotFoundError):
                await in_thread(os.unlink, partial)
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # The first condition is false at the end. The others make `_next` raise.
        while (
            self._body.remaining or self._unreturned or self._context is None or self._partly_read
        ):
            yield await self._next(_CHUNK)
        self._check_usable()

    async def _next(self, size: int) -> bytes:
        if not self._unreturned or self._context is None:
            return await self._pull(size)
        piece = self._unreturned.pop(0)
        if len(piece) > size:
            self._unreturned.insert(0, piece[size:])
        return piece[:size]

    async def _pull(self, size: int) -> bytes:
        if self._context is None or self._partly_read:
            self._check_open()
        self._check_usable()
        data = await self._body.read(size)
        if self._progress is not None and data:
            try:
                self._progress(self._total - self._body.remaining, self._total)
            except BaseException:
                self._unreturned.append(data)  # the callback raised: the next read returns it
                raise
        return data

    async def _next_file_span(self, size: int) -> FileSpan | None:
        """Return the next bytes as a range of an open file, which the caller closes. None: call `read`.

        They are verified and counted as those of `read`. The last bytes must be read.
        """
        file_span = getattr(self._body, "file_span", None)
        if file_span is None or self._unreturned or self._progress is not None:
            return None
        self._check_open()
        self._check_usable()
        span: FileSpan | None = await file_span(size)
        return span

    def _check_body(self) -> None:
        """Raise if the reader is closed, at its end, or unusable after a failed save or put."""
        self._check_open()
        if self._total and not self.remaining:
            raise BodyConsumedError(
                "this body has been read to its end: open the object again with store.get"
            )

    def _mark_partly_read(self) -> None:
        """Record that a failed save or put has read some of the body."""
        self._partly_read = True
        self._unreturned.clear()

    def _check_open(self) -> None:
        if self._context is None:
            raise ClosedError("this reader is closed: open the object again with store.get")
        if self._partly_read:
            raise BodyConsumedError(
                "a failed save or put has read some of this body: open the object again with"
                " store.get"
            )

    async def aclose(self) -> None:
        """Release the connection, even before the end of the body. Idempotent. Any task may call this."""
        # Detach the context before the await, so that a concurrent call does not close it again.
        context, self._context = self._context, None
        self._unreturned.clear()
        if context is None:
            return
        if not isinstance(self._body, WholeBody):  # it holds no connection
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
        # The garbage collector may run in any thread, so the event loop closes the connection.
        context, self._context = self._context, None
        if context is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_close_later, context)


def _check_replaceable(path: str) -> None:
    with suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise FileExistsError(errno.EEXIST, "only a regular file can be replaced", path)


def _create_partial(partial: str, target: str) -> BinaryIO:
    """Create the file that will replace `target`. Errors name `target`."""
    try:
        return open(partial, "xb")  # noqa: PTH123
    except OSError as error:
        error.filename = target
        raise


def _close_later(context: AbstractAsyncContextManager[DriverReader]) -> None:
    async def close() -> None:
        await context.__aexit__(None, None, None)

    OwnedTask(close())


class OpenObject(Protocol):
    """Opens the body of an object."""

    def __call__(
        self,
        bucket: str,
        key: str,
        options: GetOptions,
        decode: Decode,
        progress: Progress | None,
        /,
    ) -> Coroutine[Any, Any, ObjectReader]:
        """Return a coroutine that returns the reader."""
        ...


class OpeningReader:
    """A get whose request has not been sent yet.

    ``async with store.get(…) as obj`` opens and closes the reader. ``obj = await store.get(…)`` opens
    it, and you close it. If this is the body of a put, the put opens and closes the reader.
    """

    __slots__ = ("_arguments", "_open", "_reader", "_used")

    def __init__(  # noqa: PLR0917 - the arguments of `open`
        self,
        open: OpenObject,
        bucket: str,
        key: str,
        options: GetOptions,
        decode: Decode,
        progress: Progress | None,
    ) -> None:
        self._open = open
        self._arguments = (bucket, key, options, decode, progress)
        self._reader: ObjectReader | None = None
        self._used = False

    def __await__(self) -> Generator[None, None, ObjectReader]:
        self._check_body()
        self._used = True
        return self._open(*self._arguments).__await__()

    def _check_body(self) -> None:
        """Raise if this get was opened before."""
        if self._used:
            raise BodyConsumedError("this get was opened before: call store.get again")

    def _mark_partly_read(self) -> None:
        """Do nothing, because this get cannot be opened again anyway."""

    async def __aenter__(self) -> ObjectReader:
        if self._used:
            self._check_body()
        self._used = True
        self._reader = await self._open(*self._arguments)
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
            bucket, key = self._arguments[:2]
            warnings.warn(
                f"store.get({bucket!r}, {key!r}) was never opened: use async with, or await it",
                ResourceWarning,
                stacklevel=2,
            )
