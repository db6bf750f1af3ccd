"""Objects as files of the standard library: buffered, over the async files."""

from __future__ import annotations

import atexit
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from weakref import WeakSet

import trove_async as aio
from trove_async.errors import ClosedError
from trove_async.models import KiB

from ._mirror import Session, opened

T = TypeVar("T")

BUFFER_SIZE: Final = 128 * KiB
"""Bytes of the buffer of a file. A thread waits for the loop once for each buffer, and not for each read."""

_EXIT_SECONDS: Final = 2.0
"""Seconds that the end of the process waits until open files are aborted."""


class _RawReader(io.RawIOBase):
    """The unbuffered file of an object that is read."""

    mode = "rb"

    def __init__(self, session: Session, file: aio.FileReader) -> None:
        self._session = session
        self._file = file
        self.name = file.info.key

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any writable buffer
        return self._session.run(self._file.readinto(memoryview(buffer)))

    def readall(self) -> bytes:
        return self._session.run(self._file.read())

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return _immediate(self._file.seek(offset, whence))

    def tell(self) -> int:
        return _immediate(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            super().close()
            if not self._session.is_lost:  # the connection is one of the parent process
                self._session.run(self._file.aclose())

    def __del__(self) -> None:
        """Do not wait for the loop, as `close` does. The async reader closes its connection itself."""


class FileReader(io.BufferedReader):
    """The file of an object that is read, from any position. See `trove_async.FileReader`."""

    def __init__(
        self, session: Session, file: aio.FileReader, *, buffer_size: int = BUFFER_SIZE
    ) -> None:
        super().__init__(_RawReader(session, file), buffer_size)
        self._file = file

    @property
    def info(self) -> aio.ObjectInfo:
        """The metadata of the version that is being read."""
        return self._file.info

    def __del__(self) -> None:
        """Do not wait for the loop, as `_RawReader`."""


class _RawWriter(io.RawIOBase):
    """The unbuffered file of an object that is written. Closing it stores the object."""

    def __init__(self, session: Session, file: aio.FileWriter, name: str, mode: str) -> None:
        self._session = session
        self._file = file
        self._discarded = False
        self._failure: BaseException | None = None
        self.name = name
        self.mode = mode
        _writers.add(self)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return _immediate(self._file.tell())

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer
        """Write all of `data`. Once the file is discarded, drop it."""
        view = memoryview(data)
        if self._discarded:
            return view.nbytes
        self._check_complete()
        try:
            return self._session.run(self._file.write(view))
        except BaseException as error:
            # It is not known whether an interrupted write has written its data.
            self._failure = error
            raise

    def discard(self) -> None:
        """Store nothing when the file is closed."""
        self._discarded = True

    def abort_soon(self) -> Future[None] | None:
        """Close the async file and store nothing, without waiting. Return None if there is nothing to do."""
        if self.closed or self._session.is_lost or self._file.closed:
            return None
        self._discarded = True
        return self._session.submit(self._file.abort())

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self._session.is_lost:
            return  # the object is one of the parent process
        complete = not self._discarded and self._failure is None
        self._session.run(self._file.aclose() if complete else self._file.abort())
        if not self._discarded:
            self._check_complete()

    def _check_complete(self) -> None:
        if self._failure is not None:
            raise ClosedError(
                "a write of this file has failed, so nothing is stored: write the object again"
            ) from self._failure

    def __del__(self) -> None:
        """Do not store an object that may lack bytes, as `close` does. The async writer discards it."""


_writers: Final[WeakSet[_RawWriter]] = WeakSet()


@atexit.register
def _abort_all() -> None:
    """Abort the files that are still open while the loop, in a daemon thread, is still running."""
    aborting = [(writer, writer.abort_soon()) for writer in list(_writers)]
    deadline = time.monotonic() + _EXIT_SECONDS
    unclosed = []
    for writer, aborted in aborting:
        if aborted is not None:
            unclosed.append(writer.name)
            with suppress(Exception):  # there is no caller to raise it to
                aborted.result(max(0.0, deadline - time.monotonic()))
    for name in unclosed:
        warnings.warn(
            f"the file {name!r} was not closed before the end of the process, so nothing is stored: use with",
            ResourceWarning,
            stacklevel=2,
        )


class FileWriter(io.BufferedWriter):
    """The file of an object that is written. Closing it stores the object.

    If ``with`` is left by an exception, nothing is stored, and an existing object stays as it was. This also holds
    if a wrapper inside the block, such as `io.TextIOWrapper`, closes the file because of the exception::

        with store.open("data", "key", "wb") as file, io.TextIOWrapper(file) as text:
            text.write("…")

    Without the block, the wrapper cannot tell, and closing it stores the object. A file that is dropped unclosed
    stores nothing, and warns. A wrapper that is dropped unclosed does not close this file.
    """

    def __init__(
        self,
        session: Session,
        file: aio.FileWriter,
        name: str,
        mode: str,
        *,
        buffer_size: int = BUFFER_SIZE,
    ) -> None:
        self._unbuffered = _RawWriter(session, file, name, mode)
        super().__init__(self._unbuffered, buffer_size)
        self._file = file
        self._is_entered = False
        self._handled_outside: BaseException | None = None  # while the block was entered
        self._wrapper_is_dropped = False
        self._close_is_delayed = False

    @property
    def info(self) -> aio.ObjectInfo | None:
        """The object as stored, once the file is closed. None before, and if nothing was stored."""
        return self._file.info

    def discard(self) -> None:
        """Close the file, and store nothing."""
        self._unbuffered.discard()
        super().close()

    def close(self) -> None:
        """Store the object. Idempotent.

        Inside ``with``, while an exception is handled, the object is stored when the block ends, because a
        wrapper may be closing this file due to an exception that ends the block. Writing to it is an error then.

        Raises:
            TroveError: The put failed, as `trove_async.Trove.put`. Nothing was stored.
        """
        if self._wrapper_is_dropped:
            self._wrapper_is_dropped = False
            return
        if self.closed:
            return
        try:
            self.flush()
        except BaseException:
            self.discard()
            raise
        if not self._is_entered or sys.exception() is self._handled_outside:
            super().close()
        else:
            self._close_is_delayed = True

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer
        """Write all of `data`, and return its size in bytes.

        Raises:
            ValueError: The file is closed.
            TroveError: As `trove_async.FileWriter.write`.
        """
        if self._close_is_delayed:
            raise ValueError("write to closed file")
        return super().write(data)

    def flush(self) -> None:
        """Send the buffered bytes to the store."""
        if not self._wrapper_is_dropped:
            super().flush()

    def _dealloc_warn(self, _wrapper: object) -> None:
        """Ignore the next `close`. The wrappers of `io` call this when they are dropped unclosed, and then `close`.

        Nothing is known about their data then. `io.FileIO` has this method too, to warn.
        """
        self._wrapper_is_dropped = True

    def __enter__(self) -> Self:
        super().__enter__()
        self._is_entered = True
        self._handled_outside = sys.exception()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_entered = False
        if error is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        """Do not store an object that may lack bytes, as `_RawWriter`."""


def buffered(
    session: Session,
    unopened: Callable[[], aio.OpeningFile[aio.FileReader | aio.FileWriter]],
    key: str,
    mode: str,
    buffer_size: int,
) -> FileReader | FileWriter:
    """Open a file on the loop, and return a buffered file over it."""
    file = session.run(opened(unopened))
    if isinstance(file, aio.FileReader):
        return FileReader(session, file, buffer_size=buffer_size)
    return FileWriter(session, file, key, mode, buffer_size=buffer_size)


def _immediate(call: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that does not wait, without the loop."""
    try:
        call.send(None)
    except StopIteration as result:
        value: T = result.value
        return value
    raise AssertionError("the call must not wait")
