"""The driver: the contract, on the event loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from trove_async._settings import check_counts, check_ints, check_switches
from trove_async.driver import Capabilities, DriverContext, DriverReader, Upload
from trove_async.errors import ClosedError, ConfigError, NotSupportedError, TroveError
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
from ._copy import copy
from ._errors import failure, translated, unopened
from ._layout import Layout
from ._listing import Walks
from ._metadata import describe
from ._readers import WHOLE, HeldBody, OpenBody, open_body, open_body_nowait
from ._root import Root, Settings
from ._threads import Stop, Threads
from ._upload import FileUpload

if TYPE_CHECKING:
    from ._layout import Spot
    from ._objects import Found

T = TypeVar("T")

_BULK = 1000
_MAX_MODE: Final = 0o7777
_MAX_METADATA = 64 * 1024
_MAX_PARTS: Final = 1_000_000
"""No file system counts them, but an upload remembers each: a stream that tells no size may be of
7.6 TiB in parts of 8 MiB."""


class LocalDriver:
    """Objects as files under a directory.

    A key is a path: other tools see the objects as files of their names, and files that they put
    there are objects. Puts are atomic and, by default, durable when they return; many processes may
    use one root at once, conditions included. Nothing outside the root can be reached through it.

    Args:
        root: The directory. It gets a directory ``.trove`` for the driver's own files. Where this
            process may not write, the objects can be read, nothing is created, and every write
            raises PermissionDeniedError.
        fsync: Whether what a call has stored or deleted must outlive a power cut when it returns.
            Without, a kill of the process loses nothing, and a power cut at most the latest
            calls: never half of one.
        mkdir: Whether to make the root where it is missing.
        file_mode: Permissions of new files, less the process's umask. By default only this user
            can read them: ``0o640`` lets the group read, ``0o644`` everybody. In a setgid
            directory, files get its group if this process is a member of it.
        dir_mode: Permissions of new directories, less the process's umask: ``0o750`` goes with
            ``0o640``, ``0o755`` with ``0o644``.
        threads: How many calls may be in the file system at once.
        max_reads: Readers that may be open at once, each of which holds a file open.
        max_writes: Writes that may be under way at once.

    Raises:
        ConfigError: A value that can never work.
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
        path = os.fspath(root)
        if not isinstance(path, str):
            raise TypeError(f"the root is a str or a path of str, not {type(path).__name__}")
        if not path or "\0" in path:
            raise ConfigError("the root is empty or holds a NUL: name a directory")
        check_switches(fsync=fsync, mkdir=mkdir)
        check_counts(threads=threads, max_reads=max_reads, max_writes=max_writes)
        check_ints(file_mode=file_mode, dir_mode=dir_mode)
        for what, mode, least in (("file_mode", file_mode, 0o600), ("dir_mode", dir_mode, 0o700)):
            if not 0 <= mode <= _MAX_MODE or mode & least != least:
                raise ConfigError(f"{what} lets at least the owner in ({least:#o}), not {mode:#o}")
        self._settings = Settings(
            root=path, fsync=fsync, mkdir=mkdir, file_mode=file_mode, dir_mode=dir_mode
        )
        self._count = threads
        self._brief = not fsync  # else a call waits for the disk, and more threads wait better
        self._threads: Threads | None = None
        self._pool: BufferPool | None = None
        self._root: Root | None = None
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
            max_parts=_MAX_PARTS,
            max_object=8 * 1024 * 1024 * TiB,
            server_copy=True,
            bulk_delete=_BULK,
            private_namespace=True,
            embedded=True,
            max_reads=max_reads,
            max_writes=max_writes,
            max_metadata_bytes=_MAX_METADATA,
        )

    def __repr__(self) -> str:
        settings = getattr(self, "_settings", None)  # None: its constructor raised
        return f"LocalDriver({settings.root!r})" if settings else "<LocalDriver, never made>"

    def _lacking(self, **features: bool) -> Self:
        """Do without some of what the system has (`Settings`), and return itself: for tests."""
        self._settings = replace(self._settings, **features)  # type: ignore[arg-type] # they are bools
        return self

    @property
    def capabilities(self) -> Capabilities:
        """What it can honour."""
        return self._capabilities

    async def open(self, context: DriverContext) -> None:
        """Open the root, making what is missing, and sweep what killed processes left in it.

        Raises:
            ConfigError: The root is no directory, or this system cannot confine paths to it.
            PermissionDeniedError: This process may not read the root or the driver's area in it.
        """
        if self._threads is not None:
            raise ClosedError("this driver was opened before: make another")
        self._threads = Threads(self._count)
        self._pool = context.pool
        try:
            self._root = await self._threads.run(
                lambda: Root(self._settings, context.backend), undo=Root.close
            )
        except TroveError:  # some are OSErrors as well
            raise
        except OSError as error:
            raise unopened(error, self._settings.root) from error
        self._layout = self._root.layout

    async def aclose(self) -> None:
        """Wait for the threads, remove the staging directory, and close everything. Idempotent."""
        root, self._root = self._root, None
        threads = self._threads
        if threads is None:
            return
        with translated():
            # Not before the threads are done: what a call under way thinks is its directory may by
            # then be another's, the number of its descriptor having been given out again.
            if root is None:
                await threads.aclose()
            else:
                await threads.aclose(last=root.close)

    async def ping(self) -> None:
        """Return if the root is there and its file system answers."""
        root, threads = self._opened()
        with translated():
            await threads.run(root.ping)

    def place(self, bucket: str, key: str) -> Hashable:
        """Tell the object's path: the same for two drivers of one directory, or one in another.

        Links on the way to the root are seen through once the driver is open.
        """
        layout = self._layout
        root = self._settings.root if self._root is None else self._root.path
        spot = layout.spot(bucket, key)
        path = spot.overflow if spot.plain is None else spot.plain
        return ("file", f"{root.rstrip('/')}/{path}")

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store the object, in one hop.

        A cancel that comes before the file has taken its place leaves nothing; one that comes
        after is too late, and the object stays.
        """
        return await self._on_object(
            bucket,
            key,
            lambda root, spot, stop: _objects.put(root, spot, views, options, stop),
            brief=self._brief and sum(map(len, views)) <= WHOLE,
        )

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the object's body: on the event loop if it is small and cached, else in one hop."""
        root, threads = self._opened()
        assert self._pool is not None  # noqa: S101 - set with the others
        return _Opening(root, threads, self._pool, root.layout.spot(bucket, key), options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return what is known of the object."""
        _no_versions(version_id)
        root, _ = self._opened()
        with translated(bucket, key):
            spot = root.layout.spot(bucket, key)
            found = _objects.find_nowait(root, spot)
        if found is not None:
            found.close()
            return describe(spot, found.status, found.record, root.backend)
        return await self._on_object(bucket, key, lambda root, spot, _: _objects.head(root, spot))

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object, and the directories that it leaves empty."""
        _no_versions(options.version_id)
        await self._on_object(
            bucket,
            key,
            lambda root, spot, stop: _objects.delete(root, spot, options.if_match, stop),
            brief=self._brief,
        )

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page, in one hop: only the directories on its way are read."""

        def make(root: Root, stop: Stop) -> Page:
            walks = Walks(root, bucket, stop, prefix=options.prefix)
            try:
                return walks.page(options)
            finally:
                walks.close()

        return await self._on_bucket(bucket, make)

    async def create_bucket(self, bucket: str) -> None:
        """Make the bucket's directory."""
        await self._on_bucket(bucket, lambda root, stop: _buckets.create_bucket(root, bucket, stop))

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket's directory, if no object is in it."""
        await self._on_bucket(bucket, lambda root, stop: _buckets.delete_bucket(root, bucket, stop))

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return what is known of the bucket."""
        return await self._on_bucket(bucket, lambda root, _: _buckets.head_bucket(root, bucket))

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the directories of the root that are buckets."""
        return await self._on_bucket(None, lambda root, _: _buckets.list_buckets(root))

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload: parts are written where they belong, in one hop each."""
        root, threads = self._opened()
        return FileUpload(root, root.layout.spot(bucket, key), options, threads)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy within the file system, sharing blocks where it can."""
        return await self._on_object(
            dst_bucket,
            dst_key,
            lambda root, spot, stop: copy(
                root, root.layout.spot(src_bucket, src_key), spot, options, stop
            ),
        )

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete the keys in one hop; a cancel leaves those that were not come to."""

        def delete(root: Root, stop: Stop) -> Sequence[DeleteResult]:
            _buckets.head_bucket(root, bucket)
            return [_delete_one(root, root.layout.spot(bucket, key), stop) for key in keys]

        return await self._on_bucket(bucket, delete)

    async def _on_object(
        self, bucket: str, key: str, work: Callable[[Root, Spot, Stop], T], *, brief: bool = False
    ) -> T:
        root, threads = self._opened()
        stop = Stop()
        try:
            spot = root.layout.spot(bucket, key)
            return await threads.run(lambda: work(root, spot, stop), stop=stop, brief=brief)
        except TroveError as error:  # some are OSErrors as well
            error.located(bucket=bucket, key=key)
            raise
        except OSError as error:
            raise failure(error, bucket, key) from error

    async def _on_bucket(self, bucket: str | None, work: Callable[[Root, Stop], T]) -> T:
        root, threads = self._opened()
        stop = Stop()
        with translated(bucket):
            return await threads.run(lambda: work(root, stop), stop=stop)

    def _opened(self) -> tuple[Root, Threads]:
        if self._root is None or self._threads is None:
            raise ClosedError("this driver is not open: use it within the store that opens it")
        return self._root, self._threads


class _Opening:
    """A get: entered, a body; left, nothing."""

    __slots__ = ("_body", "_options", "_pool", "_root", "_spot", "_threads")

    def __init__(
        self, root: Root, threads: Threads, pool: BufferPool, spot: Spot, options: GetOptions
    ) -> None:
        self._root = root
        self._threads = threads
        self._pool = pool
        self._spot = spot
        self._options = options
        self._body: HeldBody | OpenBody | None = None

    async def __aenter__(self) -> HeldBody | OpenBody:
        spot = self._spot
        _no_versions(self._options.version_id)
        try:
            body = open_body_nowait(self._root, spot, self._options)
            self._body = await self._open_in_thread() if body is None else body
        except TroveError as error:  # some are OSErrors as well
            error.located(bucket=spot.bucket, key=spot.key)
            raise
        except OSError as error:
            raise failure(error, spot.bucket, spot.key) from error
        return self._body

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._body is not None:
            await self._body.aclose()

    async def _open_in_thread(self) -> HeldBody | OpenBody:
        opened = await self._threads.run(
            lambda: open_body(self._root, self._spot, self._options), undo=_abandon
        )
        if isinstance(opened, HeldBody):
            return opened
        found, span, info = opened
        return OpenBody(found, info, span, self._threads, self._pool)


def _abandon(opened: HeldBody | tuple[Found, tuple[int, int], ObjectInfo]) -> None:
    if not isinstance(opened, HeldBody):
        opened[0].close()


def _no_versions(version_id: str | None) -> None:
    if version_id is not None:
        raise NotSupportedError("files have no versions: leave version_id out")


def _delete_one(root: Root, spot: Spot, stop: Stop) -> DeleteResult:
    error: TroveError | None = None
    try:
        _objects.delete(root, spot, None, stop)
    except TroveError as ours:
        error = ours.located(bucket=spot.bucket, key=spot.key)
    except OSError as system:
        error = failure(system, spot.bucket, spot.key)
        error.__cause__ = system
    return DeleteResult(key=spot.key, error=error)
