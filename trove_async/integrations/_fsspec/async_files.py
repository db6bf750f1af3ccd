"""The file objects that `open_async` returns: those of fsspec, over the files of the store."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from fsspec.asyn import AbstractAsyncStreamedFile

from trove_async.file import FileReader, FileWriter

from . import paths
from .errors import translated


class _AsyncTroveFile(AbstractAsyncStreamedFile):  # type: ignore[misc]  # fsspec has no types
    """What a file for reading and one for writing have in common."""

    def __init__(self, path: str, mode: str, position: int) -> None:
        # Not that of the base class, which blocks.
        self.path = path
        self.mode = mode
        self.loc = position
        self.closed = False

    def __repr__(self) -> str:
        if not hasattr(self, "path"):
            return f"<{type(self).__name__}, not initialised>"  # its constructor raised
        return f"<{type(self).__name__} {self.path}>"

    __str__ = __repr__

    async def __aenter__(self) -> Self:
        return self

    def __del__(self) -> None:
        """Do nothing: the file of the store releases what it holds."""


class AsyncReadableFile(_AsyncTroveFile):
    """One version of an object, open for reading. `seek` and `tell` are no coroutines.

    Args:
        path: The path, without protocol.
        reader: The file of the store.
    """

    def __init__(self, path: str, reader: FileReader) -> None:
        super().__init__(path, "rb", 0)
        self._reader = reader
        self.details = paths.file(reader.info)  # sets the size as well

    async def read(self, length: int | None = -1) -> bytes:
        """Return up to `length` bytes; None or a negative number: all that remain."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        with translated(self.path):
            await self._reader.seek(self.loc)
            data = await self._reader.read(length)
        self.loc += len(data)
        return data

    async def close(self) -> None:
        """Release the connection. Idempotent."""
        self.closed = True
        await self._reader.aclose()


class AsyncWritableFile(_AsyncTroveFile):
    """A new object, which `close` stores. An exception in ``async with`` discards it.

    Args:
        path: The path, without protocol.
        mode: ``wb``, ``xb`` or ``ab``.
        writer: The file of the store.
        written: The number of bytes that it begins with.
    """

    def __init__(self, path: str, mode: str, writer: FileWriter, written: int) -> None:
        super().__init__(path, mode, written)
        self._writer = writer

    async def write(self, data: bytes) -> int:
        """Write all of `data`, and return its size."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        with translated(self.path):
            self.loc += await self._writer.write(data)
        return len(data)

    async def flush(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - as in fsspec
        """Do nothing: a written piece is on its way already, and is visible once the file is closed."""

    async def close(self) -> None:
        """Store the object. Idempotent."""
        self.closed = True
        with translated(self.path):
            await self._writer.aclose()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:
            self.closed = True
            await self._writer.abort()
