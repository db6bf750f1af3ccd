"""`LocalDriver`, which implements the driver contract on the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from trove_async._settings import check_counts, check_ints, check_switches
from trove_async.driver import (
    AsyncDriver,
    CannotCopyError,
    Capabilities,
    DriverContext,
    DriverInUseError,
    DriverReader,
    Origin,
    Upload,
)
from trove_async.errors import (
    ClosedError,
    ConfigError,
    NotSupportedError,
    TimedOutError,
    TroveError,
)
from trove_async.models import BucketInfo, DeleteResult, ObjectInfo, TiB
from trove_async.options import (
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    PutOptions,
)
from trove_async.pool import BufferPool

from . import _buckets, _objects
from ._borrowing import Borrowing
from ._copy import copy
from ._copy_between import copy_between
from ._errors import translate_error, translate_opening_error, translated
from ._layout import Layout
from ._listing import BucketWalk
from ._metadata import describe
from ._readers import (
    SMALL_BODY,
    BufferedBody,
    FileBody,
    open_body,
    open_body_nowait,
    read_now,
)
from ._root import Root, Settings
from ._threads import CancelFlag, Threads
from ._upload import FileUpload

if TYPE_CHECKING:
    from ._layout import Location
    from ._objects import ObjectFile

T = TypeVar("T")

_BULK_DELETE: Final = 1000
_MAX_MODE: Final = 0o7777
_MAX_METADATA = 64 * 1024
_MAX_PARTS: Final = 1_000_000
"""Maximum number of parts. It limits the memory of an upload, which keeps a record of each part. With parts
of 8 MiB, a stream of unknown size can have up to 7.6 TiB."""


class LocalDriver:
    """Objects as files under a directory.

    A key is a path below the bucket's directory. Other tools see its object as a file, and files that
    they create are objects. Keys that cannot be such paths (``dir/``) are files in ``.trove``. Puts
    are atomic and, by default, durable when they return. Several processes can use one root
    concurrently, with conditional writes. No key leads out of the root.

    Args:
        root: The root directory. The driver keeps its own files in ``.trove`` in this directory. If
            this process may not write to it, or only `ReadOnly` layers use the driver, objects can be
            read, nothing is created, and every write raises PermissionDeniedError.
        fsync: Whether writes and deletes survive a power cut once the call returns. If False,
            killing the process loses nothing, but a power cut may lose the effects of the latest
            calls, or leave their files empty or incomplete.
        mkdir: Whether to create the root if it is missing.
        file_mode: Permissions of new files, less the process's umask. By default only this user
            can read them. ``0o640`` also lets the group read them, ``0o644`` all users. In a setgid
            directory, files get its group if this process is a member of that group.
        dir_mode: Permissions of new directories, less the process's umask. Use ``0o750`` with
            ``0o640``, and ``0o755`` with ``0o644``.
        threads: Number of worker threads. Each makes one call to the file system at a time.
        max_reads: Maximum number of open readers. A reader of a large body holds its file open. So does each
            download that the kernel sends (`trove_async.integrations.aiohttp`), which does not count.
        max_writes: Maximum number of concurrent writes.

    Raises:
        ConfigError: A value is out of range.
        TypeError: A value has the wrong type.
    """

    name = "local"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        fsync: bool = True,
        mkdir: bool = True,
        file_mode: int = 0o600,
        dir_mode: int = 0o700,
        threads: int = 8,
        max_reads: int = 64,
        max_writes: int = 64,
    ) -> None:
        path = os.fspath(root) if isinstance(root, os.PathLike) else root
        if not isinstance(path, str):
            raise TypeError(f"root must be a str or a path of str, got {type(path).__name__}")
        if not path or "\0" in path:
            raise ConfigError("root must name a directory, got an empty path or a path with NUL")
        check_switches(fsync=fsync, mkdir=mkdir)
        check_counts(threads=threads, max_reads=max_reads, max_writes=max_writes)
        check_ints(file_mode=file_mode, dir_mode=dir_mode)
        for name, mode, required in (
            ("file_mode", file_mode, 0o600),
            ("dir_mode", dir_mode, 0o700),
        ):
            if not 0 <= mode <= _MAX_MODE or mode & required != required:
                raise ConfigError(
                    f"{name} must give the owner access (at least {required:#o}), got {mode:#o}"
                )
        self._settings = Settings(
            root=path, fsync=fsync, mkdir=mkdir, file_mode=file_mode, dir_mode=dir_mode
        )
        self._thread_count = threads
        # With fsync, a write waits for the disk, so it must not share a thread with other writes.
        self._writes_are_brief = not fsync
        self._threads: Threads | None = None
        self._pool: BufferPool | None = None
        self._root: Root | None = None
        self._borrowing = Borrowing()
        self._layout = Layout()
        self._capabilities = Capabilities(
            put_if_none_match=True,
            put_if_match=True,
            get_conditions=True,
            delete_if_match=True,
            ranges=True,
            checksums=frozenset({"crc32c"}),
            metadata=True,
            headers=True,
            expires=True,
            tags=True,
            upload=True,
            parallel_parts=2,
            uneven_parts=True,
            max_parts=_MAX_PARTS,
            max_object=8 * 1024 * 1024 * TiB,
            server_copy=True,
            bulk_delete=_BULK_DELETE,
            private_namespace=True,
            embedded=True,
            max_reads=max_reads,
            max_writes=max_writes,
            max_metadata_bytes=_MAX_METADATA,
        )

    @property
    def root(self) -> str:
        """The root directory, as it was passed."""
        return self._settings.root

    def __repr__(self) -> str:
        settings = getattr(self, "_settings", None)  # None if the constructor raised
        return f"LocalDriver({settings.root!r})" if settings else "<LocalDriver, not initialised>"

    def _simulating(self, **settings: bool) -> Self:
        """Simulate a different system (see `Settings`), and return the driver. For tests."""
        self._settings = replace(self._settings, **settings)  # type: ignore[arg-type] # they are bools
        return self

    @property
    def capabilities(self) -> Capabilities:
        """The features and limits of the backend."""
        return self._capabilities

    async def open(self, context: DriverContext) -> None:
        """Open the root, create missing directories, and remove files of killed processes.

        Raises:
            DriverInUseError: The driver was opened before.
            ConfigError: The root is not a directory, or this system cannot confine paths to it.
            PermissionDeniedError: This process may not read the root or the driver's area in it.
        """
        if self._threads is not None:
            raise DriverInUseError("a driver can be opened only once: create a new one")
        self._threads = Threads(self._thread_count)
        self._pool = context.pool
        try:
            self._root = await self._threads.run(
                lambda: Root(self._settings, context.backend, writable=context.writable),
                undo=Root.close,
            )
        except TroveError:  # some are OSErrors as well
            raise
        except OSError as error:
            raise translate_opening_error(error, self._settings.root) from error
        self._layout = self._root.layout

    async def aclose(self) -> None:
        """Wait for the threads, remove the staging directory, and close the root. Idempotent.

        Raises:
            TimedOutError: The file system has not answered a call for 30 s.
        """
        root, self._root = self._root, None
        threads = self._threads
        if threads is None:
            return
        # 1. Wait for the threads of other drivers that are reading from this root (`copy_from`).
        failure: BaseException | None = None
        try:
            await self._borrowing.wait_returned()
        except (TimedOutError, asyncio.CancelledError) as error:
            failure = error
        # 2. End the threads. The root is closed after the last call that uses it. Otherwise that could use a
        # closed descriptor, whose number may by then refer to a different file.
        close = None if root is None else root.close
        if close is not None and isinstance(failure, TimedOutError):
            self._borrowing.close_when_returned(close)
            close = None
        with translated():
            await threads.aclose(final_work=close)
        if failure is not None:
            raise failure

    async def ping(self) -> None:
        """Check that the root exists and its file system responds."""
        root, threads = self._require_open()
        with translated():
            await threads.run(root.ping)

    def place(self, bucket: str, key: str) -> Hashable:
        """Return the object's path. It is equal for all drivers whose roots contain the same file.

        For a plain key, this is the plain path, even if the object is in the overflow. Symbolic links
        in the root's path are resolved when the driver is opened.
        """
        layout = self._layout
        root = self._settings.root if self._root is None else self._root.path
        location = layout.locate(bucket, key)
        path = location.overflow if location.plain is None else location.plain
        return ("file", f"{root.rstrip('/')}/{path}")

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store the object, in one call to a thread.

        After a cancel, the object is stored if its file was already renamed. Otherwise nothing is
        left behind.
        """
        return await self._on_object(
            bucket,
            key,
            lambda root, location, cancel: _objects.put(root, location, views, options, cancel),
            brief=self._writes_are_brief and sum(map(len, views)) <= SMALL_BODY,
        )

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the object's body: on the event loop if it is small and cached, else in a thread."""
        root, threads = self._require_open()
        assert self._pool is not None  # noqa: S101 - set before the root
        return _Get(root, threads, self._pool, root.layout.locate(bucket, key), options)

    def read_now(
        self, bucket: str, key: str, start: int, end: int, if_match: str | None = None
    ) -> bytes | None:
        """Return a range that is in the kernel's cache. See `ReadsNow`."""
        root, _ = self._require_open()
        return read_now(root, root.layout.locate(bucket, key), start, end, if_match)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the object's info."""
        _reject_version_id(version_id)
        root, _ = self._require_open()
        with translated(bucket, key):
            location = root.layout.locate(bucket, key)
            object_file = _objects.find_nowait(root, location)
        if object_file is not None:
            object_file.close()
            return describe(location, object_file.status, object_file.metadata, root.backend)
        return await self._on_object(
            bucket, key, lambda root, location, _: _objects.head(root, location)
        )

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object, and directories that become empty."""
        _reject_version_id(options.version_id)
        await self._on_object(
            bucket,
            key,
            lambda root, location, cancel: _objects.delete(
                root, location, options.if_match, cancel
            ),
            brief=self._writes_are_brief,
        )

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page. Only directories that may contain keys with the prefix are read."""

        def read_page(root: Root, cancel: CancelFlag) -> Page:
            walk = BucketWalk(root, bucket, cancel, prefix=options.prefix)
            try:
                return walk.page(options)
            finally:
                walk.close()

        return await self._on_bucket(bucket, read_page)

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket's directory."""
        await self._on_bucket(
            bucket, lambda root, cancel: _buckets.create_bucket(root, bucket, cancel)
        )

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket's directory if it has no objects."""
        await self._on_bucket(
            bucket, lambda root, cancel: _buckets.delete_bucket(root, bucket, cancel)
        )

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's info."""
        return await self._on_bucket(bucket, lambda root, _: _buckets.head_bucket(root, bucket))

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets, sorted by name."""
        return await self._on_bucket(None, lambda root, _: _buckets.list_buckets(root))

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload. Each part is written at its offset, in one call to a thread."""
        root, threads = self._require_open()
        return FileUpload(root, root.layout.locate(bucket, key), options, threads)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy the object within the file system, which shares the blocks if it supports this."""
        return await self._on_object(
            dst_bucket,
            dst_key,
            lambda root, location, cancel: copy(
                root, root.layout.locate(src_bucket, src_key), location, options, cancel
            ),
        )

    def copies_from(self, source: AsyncDriver) -> bool:
        """Return whether the source is another local driver that is open on the same event loop.

        A subclass may store bodies in a different form, so its objects are copied by its get and put.
        """
        if type(self) is not LocalDriver or type(source) is not LocalDriver:
            return False
        return self._loop is not None and self._loop is source._loop  # noqa: SLF001 - of this class

    @property
    def _loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop on which the driver is open, or None."""
        return None if self._root is None or self._threads is None else self._threads.loop

    async def copy_from(
        self, source: Origin, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy the object from another root, and verify its bytes, in one call to a thread."""
        _reject_version_id(options.version_id)
        driver = source.driver
        if not isinstance(driver, LocalDriver) or not self.copies_from(driver):
            raise CannotCopyError(
                "the source is not a local driver that is open on this event loop"
            )
        with driver._borrowed() as source_root:  # noqa: SLF001 - of this class
            origin = (source_root, source_root.layout.locate(source.bucket, source.key))
            return await self._on_object(
                bucket,
                key,
                lambda root, location, cancel: copy_between(
                    origin, root, location, options, cancel
                ),
                brief=self._writes_are_brief and options.source.stored_size <= SMALL_BODY,
            )

    @contextmanager
    def _borrowed(self) -> Iterator[Root]:
        """Return the root, and keep it open during the block."""
        root, _ = self._require_open()
        with self._borrowing.borrowed():
            yield root

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete the keys in one call to a thread. A cancel takes effect between two keys."""

        def delete(root: Root, cancel: CancelFlag) -> Sequence[DeleteResult]:
            _buckets.head_bucket(root, bucket)
            return [_delete_one(root, root.layout.locate(bucket, key), cancel) for key in keys]

        return await self._on_bucket(bucket, delete)

    async def _on_object(
        self,
        bucket: str,
        key: str,
        work: Callable[[Root, Location, CancelFlag], T],
        *,
        brief: bool = False,
    ) -> T:
        root, threads = self._require_open()
        cancel = CancelFlag()
        try:
            location = root.layout.locate(bucket, key)
            return await threads.run(
                lambda: work(root, location, cancel), cancel=cancel, brief=brief
            )
        except TroveError as error:  # some are OSErrors as well
            error.located(bucket=bucket, key=key)
            raise
        except OSError as error:
            raise translate_error(error, bucket, key) from error

    async def _on_bucket(self, bucket: str | None, work: Callable[[Root, CancelFlag], T]) -> T:
        root, threads = self._require_open()
        cancel = CancelFlag()
        with translated(bucket):
            return await threads.run(lambda: work(root, cancel), cancel=cancel)

    def _require_open(self) -> tuple[Root, Threads]:
        if self._root is None or self._threads is None:
            raise ClosedError("the driver must be open: use it through an open store")
        return self._root, self._threads


class _Get:
    """The context manager of one get, which opens and closes the body."""

    __slots__ = ("_body", "_location", "_options", "_pool", "_root", "_threads")

    def __init__(
        self,
        root: Root,
        threads: Threads,
        pool: BufferPool,
        location: Location,
        options: GetOptions,
    ) -> None:
        self._root = root
        self._threads = threads
        self._pool = pool
        self._location = location
        self._options = options
        self._body: BufferedBody | FileBody | None = None

    async def __aenter__(self) -> BufferedBody | FileBody:
        location = self._location
        _reject_version_id(self._options.version_id)
        try:
            body = open_body_nowait(self._root, location, self._options)
            self._body = await self._open_in_thread() if body is None else body
        except TroveError as error:  # some are OSErrors as well
            error.located(bucket=location.bucket, key=location.key)
            raise
        except OSError as error:
            raise translate_error(error, location.bucket, location.key) from error
        return self._body

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._body is not None:
            await self._body.aclose()

    async def _open_in_thread(self) -> BufferedBody | FileBody:
        result = await self._threads.run(
            lambda: open_body(self._root, self._location, self._options), undo=_close_body
        )
        if isinstance(result, BufferedBody):
            return result
        object_file, span, info = result
        return FileBody(object_file, info, span, self._threads, self._pool)


def _close_body(result: BufferedBody | tuple[ObjectFile, tuple[int, int], ObjectInfo]) -> None:
    if not isinstance(result, BufferedBody):
        result[0].close()


def _reject_version_id(version_id: str | None) -> None:
    if version_id is not None:
        raise NotSupportedError("the local driver does not support versions: omit version_id")


def _delete_one(root: Root, location: Location, cancel: CancelFlag) -> DeleteResult:
    error: TroveError | None = None
    try:
        _objects.delete(root, location, None, cancel)
    except TroveError as trove_error:
        error = trove_error.located(bucket=location.bucket, key=location.key)
    except OSError as os_error:
        error = translate_error(os_error, location.bucket, location.key)
        error.__cause__ = os_error
    return DeleteResult(key=location.key, error=error)
