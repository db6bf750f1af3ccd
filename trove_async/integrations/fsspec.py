"""A filesystem for fsspec, so that pandas, pyarrow, dask, zarr and others read and write a store.

Example::

    import pandas

    options = {"config": "trove.toml"}
    frame = pandas.read_parquet("trove://data/table.parquet", storage_options=options)

Paths are ``trove://bucket/key``. Objects are routed, compressed and encrypted as the store does it.
"""

from __future__ import annotations

try:
    from fsspec.asyn import AsyncFileSystem, get_loop, sync, sync_wrapper
    from fsspec.callbacks import DEFAULT_CALLBACK
    from fsspec.core import has_magic
    from fsspec.utils import other_paths
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} requires an extra: pip install 'trove-async[fsspec]'", name=error.name
    ) from error

import asyncio
import errno
import os
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from trove_async import ObjectExistsError, ObjectNotFoundError, Trove
from trove_async._concurrency import for_each, in_thread
from trove_async.errors import BucketNotFoundError, InvalidNameError, NotSupportedError
from trove_async.file import FileReader, FileWriter, OpeningFile

from ._fsspec import listings, paths
from ._fsspec.async_files import AsyncReadableFile, AsyncWritableFile
from ._fsspec.deletions import delete_tree
from ._fsspec.errors import is_directory_error, translated
from ._fsspec.files import TroveFile
from ._fsspec.moves import check_targets
from ._fsspec.paths import Entry
from ._fsspec.reads import Slice, collect, group_slices, read_slice, read_slices
from ._fsspec.stores import GivenStore, Stores, checked_options, factory_of

_CONCURRENCY: Final = 64
"""Maximum number of concurrent operations of one call: the connections of a driver."""


class _CheckedOptions(type(AsyncFileSystem)):  # type: ignore[misc]  # fsspec has no types
    """Completes the options before fsspec looks for an existing filesystem with the same ones."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return super().__call__(*args, **checked_options(options))


class TroveFileSystem(AsyncFileSystem, metaclass=_CheckedOptions):  # type: ignore[misc]  # no types
    """A store as a filesystem: ``fsspec.filesystem("trove", backend="s3://…")``.

    The store is opened on first use, in the event loop that uses it: that of fsspec, or the running one if
    ``asynchronous=True``. Each process has its own, also after a fork. It is closed with the process, or once
    the filesystem is no longer used; close that of a loop that ends before by `aclose`.

    Buckets are the directories below the root. Within a bucket, a directory exists as long as a key starts
    with its path and a slash. Listings are not cached, unless ``use_listings_cache=True``.

    Errors are OSErrors as fsspec's users expect them (FileNotFoundError, FileExistsError, PermissionError,
    and others with an `errno`). The error of the store is the ``__cause__``, or the error itself.

    Args:
        config: The configuration of the store: the path of a TOML file, or a mapping. See
            `Trove.from_config`. The default is the path in the environment variable ``TROVE_CONFIG``.
        store: A function that returns a new `Trove`, or its name as ``"package.module:name"``. A `Trove`
            is possible too, but belongs to one event loop, and the filesystem cannot be pickled.
        backend: The URL of a single backend, such as ``"s3://bucket?region=eu-west-1"``.
        asynchronous: Whether the coroutine methods are called in the caller's event loop.
        loop: The event loop of the blocking methods. It must run in another thread. None: fsspec's.
        batch_size: Maximum number of concurrent operations of one call.
        use_listings_cache: Whether `ls` returns earlier results. Writes through this filesystem
            invalidate them, others do not.
        options: fsspec's options, such as `skip_instance_cache` and `listings_expiry_time`.

    Raises:
        ConfigError: Not exactly one of `config`, `store` and `backend` is passed.
        TypeError: An option is unknown or has the wrong type.
    """

    protocol = "trove"
    cachable = True
    root_marker = ""

    _pid: int  # of the process that the loop runs in
    _FSSPEC_OPTIONS: ClassVar = frozenset({"listings_expiry_time", "max_paths"})

    def __init__(
        self,
        *,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        store: Trove | Callable[[], Trove] | str | None = None,
        backend: str | None = None,
        asynchronous: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        batch_size: int | None = None,
        use_listings_cache: bool = False,
        **options: Any,
    ) -> None:
        if unknown := options.keys() - self._FSSPEC_OPTIONS:
            raise TypeError(f"unknown options of a trove filesystem: {', '.join(sorted(unknown))}")
        assert not isinstance(store, Trove)  # noqa: S101 - the metaclass has wrapped it
        stores = Stores(factory_of(config, store, backend), is_given=isinstance(store, GivenStore))
        # As if asynchronous: otherwise the base class starts the thread of fsspec's loop.
        super().__init__(
            asynchronous=True,
            batch_size=batch_size or _CONCURRENCY,
            use_listings_cache=use_listings_cache,
            **options,
        )
        self.asynchronous = asynchronous
        self._loop = loop
        self._stores = stores
        weakref.finalize(self, stores.close_soon).atexit = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the blocking methods. None if the filesystem is asynchronous."""
        if self._pid != os.getpid():  # the thread of the loop does not run in a forked child
            self._pid, self._loop = os.getpid(), None
        if self.asynchronous:
            return None
        return get_loop() if self._loop is None else self._loop

    @property
    def fsid(self) -> str:
        """The identity of the store, for comparisons of filesystems."""
        return f"trove_{self._fs_token}"

    async def aclose(self) -> None:
        """Close the store of the running event loop. The next use opens a new one."""
        await self._stores.aclose()

    def close(self) -> None:
        """Close the store of the blocking methods. The next use opens a new one."""
        sync(self.loop, self.aclose)

    # -- paths -------------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped.lstrip("/") if isinstance(stripped, str) else stripped

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget the listings of a path and of the directories that contain it. None: all."""
        if path is None:
            self.dircache.clear()
        elif self.dircache.use_listings_cache:
            path = self._strip_protocol(path)
            while path:
                self.dircache.pop(path, None)
                path = self._parent(path)
            self.dircache.pop("", None)
        super().invalidate_cache(path)

    # -- information -------------------------------------------------------------------------------

    async def _info(self, path: str, **_options: object) -> Entry:
        path = self._strip_protocol(path)
        bucket, key = paths.split(path)
        if not bucket:
            return paths.directory("")
        store = await self._stores.get()
        with translated(path):
            if key:
                with suppress(ObjectNotFoundError, BucketNotFoundError):
                    return paths.file(await store.head(bucket, key))
            if await listings.has_children(store, path):
                return paths.directory(path)
        raise FileNotFoundError(path)

    async def _exists(self, path: str, **_options: object) -> bool:
        try:
            await self._info(path)
        except (FileNotFoundError, InvalidNameError):
            return False
        return True

    async def _isfile(self, path: str) -> bool:
        bucket, key = paths.split(self._strip_protocol(path))
        if not key:
            return False
        store = await self._stores.get()
        with translated(path), suppress(BucketNotFoundError, InvalidNameError):
            return await store.exists(bucket, key)
        return False

    async def _isdir(self, path: str) -> bool:
        path = self._strip_protocol(path)
        if not path:
            return True
        store = await self._stores.get()
        with translated(path), suppress(InvalidNameError):
            return await listings.has_children(store, path)
        return False

    async def _modified(self, path: str) -> datetime:
        """Return the time of the last write of an object."""
        info = await self._info(path)
        if info["type"] == "directory":
            raise is_directory_error(path)
        modified: datetime = info["last_modified"]
        return modified

    async def _created(self, path: str) -> datetime:
        """Return the time at which an object was written, because each write creates it anew."""
        return await self._modified(path)

    async def _ukey(self, path: str) -> str:
        """Return a text that changes with the content of an object."""
        info = await self._info(path)
        version = info.get("etag") or (info["size"], info.get("last_modified"))
        return sha256(repr((info["name"], version)).encode()).hexdigest()

    async def _checksum(self, path: str) -> int:
        """Return a number that changes with the content of an object."""
        return int(await self._ukey(path), 16)

    # -- listings ----------------------------------------------------------------------------------

    async def _ls(
        self,
        path: str,
        detail: bool = True,
        refresh: bool = False,
        **_options: object,
    ) -> list[Any]:
        path = self._strip_protocol(path)
        entries = None if refresh else self.dircache.get(path)
        if entries is None:
            store = await self._stores.get()
            with translated(path):
                entries = await listings.children(store, path, exact_sizes=detail)
                bucket, key = paths.split(path)
                if not entries and key:
                    entries = [paths.file(await store.head(bucket, key))]
            if detail:
                self.dircache[path] = entries
        return list(entries) if detail else sorted(entry["name"] for entry in entries)

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        *,
        detail: bool = False,
        prefix: str = "",
        exact_sizes: bool = True,
        **_options: object,
    ) -> Any:
        if maxdepth is not None and maxdepth < 1:
            raise ValueError(f"maxdepth must be at least 1, got {maxdepth}")
        path = self._strip_protocol(path)
        store = await self._stores.get()
        with translated(path):
            found = await listings.find(
                store,
                path,
                maxdepth=maxdepth,
                withdirs=withdirs,
                prefix=prefix,
                exact_sizes=exact_sizes and detail,
            )
        return found if detail else list(found)

    async def _glob(self, path: str, maxdepth: int | None = None, **options: Any) -> Any:
        # The base class always requests details from `_find`.
        exact_sizes = bool(options.get("detail"))
        return await super()._glob(path, maxdepth, exact_sizes=exact_sizes, **options)

    async def _expand_path(
        self,
        path: str | list[str],
        recursive: bool = False,
        maxdepth: int | None = None,
        **options: Any,
    ) -> list[str]:
        """Return the paths that wildcards match. A path that exists as it is stands for itself alone."""
        patterns, literal = [], set()
        for each in [path] if isinstance(path, str) else path:
            stripped = self._strip_protocol(each)
            if not await self._is_literal(stripped):
                patterns.append(each)
                continue
            literal.add(stripped)
            if recursive:
                literal |= set(await self._find(stripped, maxdepth=maxdepth, withdirs=True))
        if literal and not patterns:
            return sorted(literal)
        found = await super()._expand_path(patterns, recursive, maxdepth, **options)
        return sorted(literal.union(found))

    async def _is_literal(self, path: str) -> bool:
        """Return whether a path has wildcards, and is nevertheless that of an object."""
        return has_magic(path) and await self._isfile(path)

    async def _du(
        self,
        path: str,
        total: bool = True,
        maxdepth: int | None = None,
        **options: Any,
    ) -> int | dict[str, int]:
        found = await self._find(path, maxdepth, detail=True, **options)
        sizes = {name: entry["size"] for name, entry in found.items()}
        return sum(sizes.values()) if total else sizes

    # -- reading -----------------------------------------------------------------------------------

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_options: object
    ) -> bytes:
        path = self._strip_protocol(path)
        bucket, key = paths.address(path)
        store = await self._stores.get()
        with translated(path):
            return await read_slice(store, bucket, key, start, end)

    async def _cat(
        self,
        path: str | list[str],
        recursive: bool = False,
        on_error: Literal["raise", "omit", "return"] = "raise",
        batch_size: int | None = None,
        **options: Any,
    ) -> Any:
        found = await self._expand_path(path)
        if recursive:
            found = sorted({file for each in found for file in await self._find(each)})
        contents = await collect(
            found,
            lambda each: self._cat_file(each, **options),
            raises=on_error == "raise",
            limit=batch_size or self.batch_size,
        )
        if isinstance(path, str) and found == [self._strip_protocol(path)]:
            if isinstance(contents[0], Exception):
                return {} if on_error == "omit" else contents[0]
            return contents[0]
        return {
            name: content
            for name, content in zip(found, contents, strict=True)
            if on_error != "omit" or not isinstance(content, Exception)
        }

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: Literal["return", "raise"] = "return",
        **options: Any,
    ) -> list[bytes | Exception]:
        if max_gap is not None:
            raise NotImplementedError("max_gap: the store joins neighbouring ranges itself")
        raises = on_error == "raise"
        limit = batch_size or self.batch_size
        slices_by_path = group_slices(paths, starts, ends)
        results: list[bytes | Exception] = [b""] * len(paths)

        async def read(path: str) -> None:
            positions, slices = zip(*slices_by_path[path], strict=True)
            contents = await self._read_slices(path, slices, raises=raises, **options)
            for position, content in zip(positions, contents, strict=True):
                results[position] = content

        await for_each(list(slices_by_path), read, limit=limit)
        return results

    async def _read_slices(
        self, path: str, slices: Sequence[Slice], *, raises: bool, **options: Any
    ) -> Sequence[bytes | Exception]:
        """Return slices of one object. Exceptions take the place of bytes, unless `raises`."""
        if len(slices) > 1:
            try:
                stripped = self._strip_protocol(path)
                store = await self._stores.get()
                with translated(stripped):
                    contents = await read_slices(store, *paths.address(stripped), slices)
            except Exception as error:
                if raises:
                    raise
                return [error] * len(slices)
            if contents is not None:
                return contents
        return await collect(
            slices,
            lambda bounds: self._cat_file(path, *bounds, **options),
            raises=raises,
            limit=self.batch_size,
        )

    async def _get_file(
        self,
        rpath: str,
        lpath: Any,
        callback: Any = DEFAULT_CALLBACK,
        **options: Any,
    ) -> None:
        """Save an object to a local file, atomically, or write it to a file object. One request."""
        rpath = self._strip_protocol(rpath)
        bucket, key = paths.split(rpath)
        store = await self._stores.get()

        def show(done: int, total: int | None) -> None:
            callback.set_size(total)
            callback.absolute_update(done)

        with translated(rpath):
            try:
                if not key:
                    raise is_directory_error(rpath)
                async with store.get(bucket, key, progress=show, **options) as reader:
                    if not hasattr(lpath, "write"):
                        await reader.save(lpath)
                        return
                    async for chunk in reader:
                        await in_thread(lpath.write, chunk)
            except (FileNotFoundError, IsADirectoryError):
                # A recursive get asks for the directories as well, which it has made here.
                if hasattr(lpath, "write") or not await in_thread(os.path.isdir, lpath):
                    raise

    # -- writing -----------------------------------------------------------------------------------

    async def _pipe_file(
        self,
        path: str,
        value: bytes,
        mode: Literal["overwrite", "create"] = "overwrite",
        **options: Any,
    ) -> None:
        path = self._strip_protocol(path)
        bucket, key = paths.address(path)
        store = await self._stores.get()
        with translated(path):
            await store.put(bucket, key, value, if_none_match=_condition(mode), **options)
        self.invalidate_cache(path)

    async def _put_file(
        self,
        lpath: str | os.PathLike[str],
        rpath: str,
        mode: Literal["overwrite", "create"] = "overwrite",
        callback: Any = DEFAULT_CALLBACK,
        **options: Any,
    ) -> None:
        """Store a local file. A local directory is none in a bucket."""
        if await in_thread(os.path.isdir, lpath):
            return
        rpath = self._strip_protocol(rpath)
        bucket, key = paths.address(rpath)
        store = await self._stores.get()

        def show(done: int, total: int | None) -> None:
            callback.set_size(total)
            callback.absolute_update(done)

        with translated(rpath):
            await store.put(
                bucket, key, Path(lpath), progress=show, if_none_match=_condition(mode), **options
            )
        self.invalidate_cache(rpath)

    async def _touch(self, path: str, truncate: bool = True, **options: Any) -> None:
        """Store an empty object, or renew the time of an existing one with ``truncate=False``."""
        path = self._strip_protocol(path)
        bucket, key = paths.address(path)
        store = await self._stores.get()
        with translated(path):
            if truncate:
                await store.put(bucket, key, b"", **options)
            else:
                try:
                    await store.copy(bucket, key, bucket, key, **options)
                except ObjectNotFoundError:
                    with suppress(ObjectExistsError):  # another writer was faster
                        await store.put(bucket, key, b"", if_none_match="*", **options)
        self.invalidate_cache(path)

    async def _cp_file(self, path1: str, path2: str, *, move: bool = False, **options: Any) -> None:
        """Copy or move an object, within the service where it can."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        bucket, key = paths.split(path1)
        store = await self._stores.get()
        if not key:
            raise FileNotFoundError(path1)  # a recursive copy ignores it, because it is a directory
        transfer = store.move if move else store.copy
        with translated(path1):
            await transfer(bucket, key, *paths.address(path2), **options)
        self.invalidate_cache(path1)
        self.invalidate_cache(path2)

    async def _mv_file(self, path1: str, path2: str, **options: Any) -> None:
        await self._cp_file(path1, path2, move=True, **options)

    async def _mv(
        self,
        path1: str | list[str],
        path2: str | list[str],
        recursive: bool = False,
        maxdepth: int | None = None,
        **options: Any,
    ) -> None:
        """Move files. Each is copied, verified and then deleted.

        Raises:
            ValueError: Several files would be moved to one path. Nothing is moved.
        """
        if path1 == path2:
            return
        if not isinstance(path1, str):
            if isinstance(path2, str):
                path1 = await self._expand_path(path1, recursive=recursive, maxdepth=maxdepth)
                path2 = other_paths(path1, path2, flatten=True)
            check_targets(path1, [self._strip_protocol(each) for each in path2])
        await self._copy(path1, path2, recursive=recursive, maxdepth=maxdepth, move=True, **options)

    async def _copy(
        self,
        path1: str | list[str],
        path2: str | list[str],
        recursive: bool = False,
        **options: Any,
    ) -> None:
        if isinstance(path1, str) and isinstance(path2, str) and not recursive:
            source: str = self._strip_protocol(path1)
            if await self._is_literal(source):
                into = path2.endswith("/") or await self._isdir(path2)
                path1 = [source]
                path2 = [f"{path2.rstrip('/')}/{source.rpartition('/')[2]}" if into else path2]
        await super()._copy(path1, path2, recursive=recursive, **options)

    async def _rm_file(self, path: str, **_options: object) -> None:
        path = self._strip_protocol(path)
        bucket, key = paths.address(path)
        store = await self._stores.get()
        with translated(path):
            await store.delete(bucket, key)
        self.invalidate_cache(path)

    async def _rm(
        self,
        path: str | list[str],
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **_options: object,
    ) -> None:
        """Delete objects in bulk, beside the listing if `recursive`."""
        del batch_size  # the store chooses it
        found = await self._expand_path(
            path, recursive=recursive and maxdepth is not None, maxdepth=maxdepth
        )
        store = await self._stores.get()
        if recursive and maxdepth is None:
            for each in found:
                with translated(each):
                    await delete_tree(store, each)
        else:
            by_bucket: dict[str, list[str]] = {}
            for each in found:
                bucket, key = paths.address(each)
                by_bucket.setdefault(bucket, []).append(key)
            for bucket, keys in by_bucket.items():
                with translated(bucket):
                    await store.delete_many(bucket, keys)
        for each in found:
            self.invalidate_cache(each)

    async def _mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        """Create a bucket. Below it, directories need not be created, so nothing is."""
        del create_parents
        path = self._strip_protocol(path)
        bucket, key = paths.split(path)
        store = await self._stores.get()
        if key or not bucket:
            if await self._exists(path):
                raise FileExistsError(path)
            return
        with translated(path):
            await store.create_bucket(bucket, **options)
        self.invalidate_cache(path)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        bucket, key = paths.split(self._strip_protocol(path))
        # A service may refuse to create a bucket that exists, for lack of a permission.
        if not (exist_ok and (key or await self._isdir(bucket))):
            await self._mkdir(path)

    async def _rmdir(self, path: str) -> None:
        """Delete an empty bucket. A directory below it does not exist once it is empty."""
        path = self._strip_protocol(path)
        bucket, key = paths.split(path)
        store = await self._stores.get()
        with translated(path):
            if key or not bucket:
                raise await self._not_removable(path)
            await store.delete_bucket(bucket)
        self.invalidate_cache(path)

    async def _not_removable(self, path: str) -> OSError:
        if await self._isfile(path):
            return NotADirectoryError(path)
        if await self._isdir(path):
            return OSError(errno.ENOTEMPTY, "the directory is not empty", path)
        return FileNotFoundError(path)

    async def _sign(
        self,
        path: str,
        expiration: float = 100,
        method: Literal["GET", "PUT"] = "GET",
        **options: Any,
    ) -> str:
        """Return a URL that allows anyone to get or put the object for `expiration` seconds."""
        path = self._strip_protocol(path)
        bucket, key = paths.address(path)
        store = await self._stores.get()
        presign: Callable[..., Awaitable[str]]
        if method == "GET":
            presign = store.presign_get
        elif method == "PUT":
            presign = store.presign_put
        else:
            raise ValueError(f"method must be 'GET' or 'PUT', got {method!r}")
        with translated(path):
            try:
                return await presign(bucket, key, expires=expiration, **options)
            except NotSupportedError as error:
                raise NotImplementedError(str(error)) from error

    mv = sync_wrapper(_mv)
    rmdir = sync_wrapper(_rmdir)
    touch = sync_wrapper(_touch)
    sign = sync_wrapper(_sign)
    created = sync_wrapper(_created)
    modified = sync_wrapper(_modified)
    ukey = sync_wrapper(_ukey)
    checksum = sync_wrapper(_checksum)

    # -- files -------------------------------------------------------------------------------------

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any
    ) -> TroveFile:
        return TroveFile(self, path, mode, block_size, **options)

    async def open_async(
        self, path: str, mode: str = "rb", **options: Any
    ) -> AsyncReadableFile | AsyncWritableFile:
        """Open a file whose `read`, `write` and `close` are coroutines.

        Args:
            path: The path.
            mode: ``rb``, ``wb``, ``xb``, or ``ab``, which stores the old content again.
            options: The arguments of `Trove.open_file` for this mode.
        """
        if mode not in {"rb", "wb", "xb", "ab"}:
            raise ValueError(f"mode must be 'rb', 'wb', 'xb' or 'ab', got {mode!r}")
        path = self._strip_protocol(path)
        with translated(path):
            if mode == "rb":
                return AsyncReadableFile(path, await self._open_reader(path, **options))
            writer, written = await self._open_writer(path, mode, **options)
            return AsyncWritableFile(path, mode, writer, written)

    async def _open_reader(self, path: str, **options: Any) -> FileReader:
        bucket, key = paths.address(path)
        opening: OpeningFile[FileReader] = (await self._stores.get()).open_file(
            bucket, key, "rb", **options
        )
        return await opening

    async def _open_writer(self, path: str, mode: str, **options: Any) -> tuple[FileWriter, int]:
        """Return a file that is open for writing, and the number of bytes that it begins with."""
        bucket, key = paths.address(path)
        store = await self._stores.get()
        if mode == "ab":
            with suppress(ObjectNotFoundError):
                return await self._open_copy(store, bucket, key, **options)
        # The store itself refuses to replace an object that is created before the file is closed.
        elif mode == "xb" and await store.exists(bucket, key):
            raise FileExistsError(path)
        writer = await store.open_file(bucket, key, "wb" if mode == "wb" else "xb", **options)
        self._stores.add_writer(writer)
        return writer, 0

    async def _open_copy(
        self, store: Trove, bucket: str, key: str, **options: Any
    ) -> tuple[FileWriter, int]:
        """Return a file that replaces an object, and begins with its content."""
        async with store.get(bucket, key) as reader:
            options.setdefault("content_type", reader.info.content_type)
            writer = await store.open_file(bucket, key, "wb", if_match=reader.info, **options)
            self._stores.add_writer(writer)
            try:
                async for chunk in reader:
                    await writer.write(chunk)
            except BaseException:
                await writer.abort()
                raise
            return writer, reader.info.size


def _condition(mode: str) -> str | None:
    """Return the `if_none_match` of `Trove.put` for fsspec's mode of a write."""
    if mode not in {"overwrite", "create"}:
        raise ValueError(f"mode must be 'overwrite' or 'create', got {mode!r}")
    return "*" if mode == "create" else None
