"""The file objects of the filesystem.

They are fsspec's `AbstractBufferedFile`, because its users rely on its attributes and on its caches
(`cache_type`, such as ``"parts"`` and ``"all"``). Below it, a file of the store (`Trove.open_file`) reads and
writes, so read-ahead and atomic writes exist once. By default, there is no cache above its read-ahead, so a
random read requests exactly its bytes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any, Final, Protocol, Self

from fsspec.caching import BaseCache, register_cache
from fsspec.spec import AbstractBufferedFile

from trove_async.errors import ClosedError
from trove_async.file import FileReader, FileWriter
from trove_async.models import KiB

from . import calls, paths
from .errors import translated

_logger = logging.getLogger("trove_async.integrations")

_PIECE: Final = 256 * KiB
"""Bytes taken at a time by small reads in a row, because each call to the event loop takes 100 µs. The reader
requests as many anyway."""


class StreamCache(BaseCache):  # type: ignore[misc]  # fsspec has no types
    """The last piece of a file. It makes small reads in a row cheap, and requests nothing more."""

    name = "trove"

    def __init__(self, blocksize: int, fetcher: Any, size: int) -> None:  # noqa: ANN401
        super().__init__(blocksize, fetcher, size)
        self._start = 0
        self._data = b""

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = start or 0
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        held_end = self._start + len(self._data)
        if self._start <= start and stop <= held_end:
            return self._data[start - self._start : stop - self._start]
        held = self._data[start - self._start :] if self._start <= start < held_end else b""
        position = start + len(held)
        is_in_a_row = position == held_end and position > 0
        end = min(max(stop, position + _PIECE), self.size) if is_in_a_row else stop
        fetched: bytes = self.fetcher(position, end)
        wanted = stop - position
        self._start, self._data = position, fetched
        if not held and wanted >= len(fetched):
            return fetched
        return held + fetched[:wanted]


register_cache(StreamCache, clobber=True)


class OpeningFiles(Protocol):
    """The methods of `TroveFileSystem` that its files use."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the store."""
        ...

    def _open_reader(self, path: str, **options: Any) -> Coroutine[Any, Any, FileReader]:  # noqa: ANN401
        """Open an object for reading."""
        ...

    def _open_writer(
        self,
        path: str,
        mode: str,
        **options: Any,  # noqa: ANN401
    ) -> Coroutine[Any, Any, tuple[FileWriter, int]]:
        """Open an object for writing. Return its size so far as well."""
        ...


class TroveFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """An object, open for reading one version of it, or for writing a new one.

    If a ``with`` block is left by an exception, or a file is never closed, nothing is stored. Wrappers, such as
    those of the text mode, of `fsspec.open` and of pandas, close this file without passing the exception. So
    nothing is stored either if the file is closed while an exception is handled that was not handled when it was
    opened. To store a file in an ``except`` block, open it there, or write it within ``with``. A wrapper that is
    dropped unclosed does not close this file.

    `commit` stores the object of a file with ``autocommit=False``, after `close`. `TroveFileSystem.transaction`
    uses this, and stores nothing if any exception ends it.

    Args:
        fs: The filesystem.
        path: The path, without protocol.
        mode: ``rb``, ``wb``, ``xb``, or ``ab``, which stores the old content again.
        block_size: Bytes that a write buffers, and the block size of fsspec's caches.
        autocommit: Whether `close` stores the object.
        cache_type: The name of one of fsspec's caches. The default is ``"trove"``.
        cache_options: The arguments of that cache.
        size: Accepted for other filesystems' users. The response to the first request has the size.
        options: The arguments of `Trove.open_file` for this mode.
    """

    fs: OpeningFiles

    def __init__(
        self,
        fs: OpeningFiles,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        *,
        autocommit: bool = True,
        cache_type: str = "trove",
        cache_options: dict[str, Any] | None = None,
        size: int | None = None,
        **options: Any,  # noqa: ANN401 - passed on
    ) -> None:
        del size
        self._reader: FileReader | None = None
        self._writer: FileWriter | None = None
        self._failure: BaseException | None = None  # of a write
        self._pid = os.getpid()
        self._handled_outside = sys.exception()
        self._wrapper_is_dropped = False
        self._closed = True  # until the constructor has succeeded
        if mode not in {"rb", "wb", "xb", "ab"}:
            raise ValueError(f"mode must be 'rb', 'wb', 'xb' or 'ab', got {mode!r}")
        self.path, self.fs = path, fs
        known_size: int | None = None
        written = 0
        if mode == "rb":
            self._reader = self._run(fs._open_reader(path, **options))  # noqa: SLF001 - same package
            known_size = self._reader.size
            self._details = paths.file(self._reader.info)
        else:
            self._writer, written = self._run(fs._open_writer(path, mode, **options))  # noqa: SLF001
        super().__init__(
            fs,
            path,
            mode,
            block_size or "default",
            autocommit,
            cache_type,
            cache_options,
            known_size,
            **options,
        )
        self.loc = written

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - the result of `work`
        if self._is_inherited:
            work.close()
            raise ClosedError(
                f"{self.path!r} was opened before a fork: open it again in this process"
            )
        if sys.is_finalizing():  # the thread of the loop no longer runs, so this would hang
            work.close()
            raise RuntimeError(f"{self.path!r} was not closed before the end of the process")
        with translated(self.path):
            return calls.run(self.fs.loop, work)

    @property
    def _is_inherited(self) -> bool:
        """Whether the file was opened in another process, of which this one is a fork."""
        return self._pid != os.getpid()

    # -- reading -----------------------------------------------------------------------------------

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self._run(self._read(start, end))
        return data

    async def _read(self, start: int, end: int) -> bytes:
        assert self._reader is not None  # noqa: S101 - the base class has checked the mode
        await self._reader.seek(start)
        return await self._reader.read(end - start)

    # -- writing -----------------------------------------------------------------------------------

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        """Write `data`. It is sent once a block is complete."""
        self._check_complete()
        written: int = super().write(data)
        return written

    def _upload_chunk(self, final: bool = False) -> bool:  # noqa: FBT001, FBT002 - as called
        self._check_complete()
        try:
            self._run(self._write(self.buffer.getvalue(), is_last=final and self.autocommit))
        except BaseException as error:
            # It is not known whether an interrupted write has written its data.
            self._failure = error
            raise
        return True

    def _check_complete(self) -> None:
        if self._failure is not None:
            raise ClosedError(
                "a write of this file has failed, so nothing is stored: write the object again"
            ) from self._failure

    async def _write(self, data: bytes, *, is_last: bool) -> None:
        assert self._writer is not None  # noqa: S101 - the base class has checked the mode
        await self._writer.write(data)
        if is_last:
            await self._writer.aclose()

    def commit(self) -> None:
        """Store the object, if ``autocommit=False`` has delayed that.

        A discarded file stays so.

        Raises:
            ClosedError: A write has failed, or the file was opened before a fork. Nothing is stored.
        """
        if not self.closed:
            self.close()
        if self._writer is not None and not self._writer.closed:
            self._run(self._writer.aclose())

    def discard(self) -> None:
        """Store nothing. Does nothing once the object is stored, and in a fork of the process that opened it."""
        self._closed = True
        self._handled_outside = None  # its traceback may refer to this file
        if self._writer is not None and not self._is_inherited:
            self._run(self._writer.abort())

    # -- closing -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Store the object, or release the connection. Idempotent. Does nothing in a fork of the process.

        Nothing is stored if this is called due to an exception. See the class.
        """
        if self._wrapper_is_dropped:
            self._wrapper_is_dropped = False
            return
        if self._is_inherited:
            self._closed = True
            return
        try:
            if self._writer is not None and sys.exception() is not self._handled_outside:
                self._discard_due_to(sys.exception())
            super().close()
        except BaseException:
            self.discard()
            raise
        finally:
            self._handled_outside = None
            reader, self._reader = self._reader, None
            if reader is not None:
                self._submit(reader.aclose())

    def _discard_due_to(self, error: BaseException | None) -> None:
        if not self.closed:
            _logger.info(
                "%s was closed while %s is handled, so nothing is stored",
                self.path,
                type(error).__name__,
            )
            self.discard()

    def _dealloc_warn(self, _wrapper: object) -> None:
        """Ignore the next `close`. The wrappers of `io` call this when they are dropped unclosed, and then `close`.

        Nothing is known about their data then. `io.FileIO` has this method too, to warn.
        """
        self._wrapper_is_dropped = True

    def __del__(self) -> None:
        """Release the connection. What was written is dropped, with a warning of `FileWriter`."""
        self._closed = True
        reader = getattr(self, "_reader", None)
        if reader is not None:
            self._submit(reader.aclose())

    def _submit(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine without waiting: the garbage collector may close a file on the loop itself."""
        is_lost = sys.is_finalizing() or self._is_inherited
        loop = None if is_lost else self.fs.loop
        if loop is None or not loop.is_running():
            work.close()
        else:
            asyncio.run_coroutine_threadsafe(work, loop)

    def __enter__(self) -> Self:
        self._handled_outside = sys.exception()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None and self.mode != "rb":
            self.discard()
        self.close()
