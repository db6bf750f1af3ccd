"""The blocking store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, Unpack, cast, overload

import trove_async as aio

from ._bucket import Bucket
from ._deletion import Deletion
from ._files import BUFFER_SIZE, FileReader, FileWriter, buffered
from ._iterators import ListArguments, MisplacedIterator, ObjectIterator, VersionIterator
from ._mirror import (
    Facade,
    Session,
    constructed_by,
    direct,
    documented_by,
    opening,
    waits_for,
    wrapping,
)
from ._reader import ObjectReader


class Trove(Facade[aio.Trove]):
    """A blocking store, with the arguments and methods of `trove_async.Trove`. Use it in ``with``.

    Three methods have other names: `start` and `close` open and close the store, and `open` opens an object as a
    file. `get` opens the object at once. `delete_many` returns a `Deletion`, to iterate over or to `Deletion.run`.

    Example:
        >>> from trove_async import blocking
        >>> with blocking.Trove("mem://") as store:
        ...     store.create_bucket("data")
        ...     info = store.put("data", "report.csv", b"a,b")
        ...     with store.get("data", "report.csv") as obj:
        ...         print(obj.read())
        b'a,b'
    """

    __slots__ = ()

    @constructed_by(aio.Trove)
    def __init__(self, wrapped: aio.Trove) -> None:
        super().__init__(wrapped, Session())

    @classmethod
    def _of(cls, wrapped: aio.Trove, session: Session) -> Self:
        store = cls.__new__(cls)
        Facade.__init__(store, wrapped, session)
        return store

    # -- opening and closing -----------------------------------------------------------------------

    def start(self) -> Self:
        """Open every driver, and return the store. Use this where ``with`` does not fit.

        Close the store with `close`. A store that is never closed does not delay the exit of the process.

        Raises:
            ClosedError: The store has been started before.
            ConfigError: The settings of a driver or of the pool are not valid.
        """
        self._session.start(self._async.open())
        return self

    def close(self) -> None:
        """Close every driver once. Idempotent. In a fork of the process that started the store, do nothing.

        Raises:
            ExceptionGroup: As `trove_async.Trove.aclose`.
        """
        if self._session.is_started and not self._session.is_lost:
            self._session.run(self._async.aclose())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def started(self) -> bool:
        """Whether `start` was called in this process, or before a fork of it."""
        return self._session.is_started

    @property
    def pool(self) -> aio.BufferPool:
        """The memory that all transfers share. `BufferPool.statistics` returns its current use."""
        return self._async.pool

    @property
    def events(self) -> aio.Events:
        """The events of this store. Listeners run on the thread of the event loop."""
        return self._async.events

    @property
    def backends(self) -> Mapping[str, aio.BackendInfo]:
        """The backends by name, the default first. A pinned handle has only one."""
        return self._async.backends

    bucket = wrapping(aio.Trove.bucket, Bucket)

    @documented_by(aio.Trove.backend)
    def backend(self, name: str) -> Trove:
        return self._of(self._async.backend(name), self._session)

    # -- objects -----------------------------------------------------------------------------------

    put = waits_for(aio.Trove.put)
    read = waits_for(aio.Trove.read)
    get_ranges = waits_for(aio.Trove.get_ranges)
    head = waits_for(aio.Trove.head)
    exists = waits_for(aio.Trove.exists)
    delete = waits_for(aio.Trove.delete)
    copy = waits_for(aio.Trove.copy)
    move = waits_for(aio.Trove.move)
    presign_get = waits_for(aio.Trove.presign_get)
    presign_put = waits_for(aio.Trove.presign_put)
    explain = waits_for(aio.Trove.explain)

    get = opening(aio.Trove.get, ObjectReader)
    list_versions = wrapping(aio.Trove.list_versions, VersionIterator)
    misplaced = wrapping(aio.Trove.misplaced, MisplacedIterator)

    @documented_by(aio.Trove.delete_many)
    def delete_many(self, bucket: str, keys: Iterable[str]) -> Deletion:
        return Deletion(self._session, partial(self._async.delete_many, bucket), keys)

    @overload
    def list(
        self, bucket: str, *, delimiter: None = None, **arguments: Unpack[ListArguments]
    ) -> ObjectIterator[aio.ObjectInfo]: ...

    @overload
    def list(
        self, bucket: str, *, delimiter: str | None, **arguments: Unpack[ListArguments]
    ) -> ObjectIterator[aio.ObjectInfo | aio.Prefix]: ...

    @documented_by(aio.Trove.list)
    def list(
        self, bucket: str, *, delimiter: str | None = None, **arguments: Unpack[ListArguments]
    ) -> ObjectIterator[Any]:
        return ObjectIterator(
            self._async.list(bucket, delimiter=delimiter, **arguments), self._session
        )

    @overload
    def open(
        self,
        bucket: str,
        key: str,
        mode: Literal["rb"] = "rb",
        *,
        buffer_size: int = BUFFER_SIZE,
        version_id: str | None = None,
        if_match: str | aio.ObjectInfo | None = None,
    ) -> FileReader: ...

    @overload
    def open(
        self,
        bucket: str,
        key: str,
        mode: Literal["wb", "xb"],
        *,
        buffer_size: int = BUFFER_SIZE,
        if_match: str | aio.ObjectInfo | None = None,
        **arguments: Unpack[aio.WriteArguments],
    ) -> FileWriter: ...

    def open(
        self,
        bucket: str,
        key: str,
        mode: Literal["rb", "wb", "xb"] = "rb",
        *,
        buffer_size: int = BUFFER_SIZE,
        version_id: str | None = None,
        if_match: str | aio.ObjectInfo | None = None,
        **arguments: Unpack[aio.WriteArguments],
    ) -> FileReader | FileWriter:
        """Open an object as a buffered file: ``with store.open(…) as file``.

        A file opened for reading is an `io.BufferedReader`, seekable, over `trove_async.FileReader`: it reads one
        version, and reads that continue one another share requests. A file opened for writing is an
        `io.BufferedWriter`. It stores the object when it is closed, and nothing if ``with`` is left by an
        exception. For text, wrap it: ``with store.open(…) as file, io.TextIOWrapper(file) as text``.

        Args:
            bucket: The bucket.
            key: The key.
            mode: As `trove_async.Trove.open_file`.
            buffer_size: Bytes of the buffer. A random read smaller than this reads as many bytes.
            version_id: As `trove_async.Trove.open_file`.
            if_match: As `trove_async.Trove.open_file`.
            arguments: For writing: the arguments of `put`.

        Raises:
            As `trove_async.Trove.open_file`.
        """
        unopened = partial(
            cast("Any", self._async.open_file),  # its overloads need a literal mode
            bucket,
            key,
            mode,
            version_id=version_id,
            if_match=if_match,
            **arguments,
        )
        return buffered(self._session, unopened, key, mode, buffer_size)

    # -- buckets, routing and health ---------------------------------------------------------------

    create_bucket = waits_for(aio.Trove.create_bucket)
    delete_bucket = waits_for(aio.Trove.delete_bucket)
    list_buckets = waits_for(aio.Trove.list_buckets)
    lint_routes = direct(aio.Trove.lint_routes)
    health = waits_for(aio.Trove.health)
