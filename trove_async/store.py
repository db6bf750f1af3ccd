"""The store: it checks arguments, routes objects to backends, and delegates to the engine."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from . import _names
from ._engine import validation
from ._engine.anywhere import OperationsAnywhere
from ._engine.backends import BackendInfo, driver_of
from ._engine.buckets import CreateMissing
from ._engine.bulk_delete import Deletion
from ._engine.health import health
from ._engine.iterators import ObjectIterator, VersionIterator
from ._engine.media_types import type_of
from ._engine.misplaced import MisplacedIterator
from ._engine.opening import Decode
from ._engine.operations import Operations
from ._engine.placement import Placement
from ._engine.runtime import Runtime
from ._engine.sources import BodySource, source_of
from ._engine.transforms import Transforms
from ._engine.upload import Progress
from .bucket import Bucket
from .driver import AsyncDriver
from .errors import ObjectNotFoundError
from .events import Events
from .file import FileReader, FileWriter, OpeningFile, WriteArguments, open_reader, open_writer
from .middleware import Inspecting, Middleware
from .models import BucketInfo, ByteRange, Health, ObjectInfo, Prefix, RouteDecision, Timeout
from .options import LATEST, GetOptions
from .pool import BufferPool
from .reader import ObjectReader, OpeningReader
from .retry import RetryPolicy
from .router import DEFAULT, Pinned, Route, RouteFunction, RouteIssue, Router
from .scope import Scope


class Trove:
    """An object store over one default backend and any number of named ones.

    Every object is routed to one backend. The first route function that returns a name decides, else
    the first route that matches, else the object belongs to the default backend. `backend` returns a
    handle without routing. Use a store in ``async with``. It belongs to the event loop and process
    that opened it.

    A store with ``locate="anywhere"`` also finds objects that are not where their keys are routed to, so that
    rules may change, and objects may be moved, while every object stays readable:

    * get, read, get_ranges, head, exists, presign_get, and the source of copy and move look for the object:
      first on the routed backend, then on the others in the order of the store, one request each. An
      object may be moved from one backend to another in the meantime, so after the last backend all but
      that one are asked again: with n backends, an object that does not exist takes 2n - 1 requests, and
      one on the third backend or a later one takes twice the requests for those before it, plus one.
      presign_get sends a request, which it does not do otherwise.
    * If the routed backend is unavailable, its error is raised. If a different one is unavailable, its
      error is raised unless a later one has the object; a copy and a move raise it in either case. An
      object is never reported as missing while a backend is unavailable.
    * put, and the destination of copy and move, are routed, and hide an object of the same key on a
      different backend. ``if_none_match="*"`` requires that no backend has the object, and `if_match`
      applies to the object that a get returns. The other backends are headed before the body is read:
      an object that is stored on one of them, or moved there, after that is not noticed.
    * ``move(bucket, key, bucket, key)`` moves an object to its routed backend, and never replaces an
      object that is put there meanwhile, if that backend supports `if_none_match`.
    * delete and delete_many delete the object on all backends, the one that a get returns last, which
      is kept if another backend fails. Within one store they wait for a move of the same object. An
      object that another process moves meanwhile may exist again after the deletion.
    * list asks all backends, and lists each key once. Objects that are not on their routed backends are
      headed only if a backend of the store does not list in key order. An object that is moved while a
      listing runs may be missing from it.
    * list_versions and handles that are pinned to a backend do not look elsewhere.

    Example:
        >>> async with Trove(MemoryDriver(), backends={"cold": MemoryDriver()},
        ...                  routes=[("*.log", "cold")]) as store:
        ...     await store.create_bucket("data")
        ...     info = await store.put("data", "app.log", b"started")
        >>> info.backend
        'cold'

    Args:
        default: The default backend: a driver, or a URL such as ``"file:///srv/objects"``.
        backends: The named backends.
        routes: The routes, as `Route` or ``(pattern, backend)``. The first match wins.
        route_functions: Called with bucket and key, in order and before the routes: once for each
            object of an operation, and for each key of a listing over several backends. Each returns
            the name of a backend, or None or ``""`` to pass.
        middleware: Transforms of bodies, such as `trove_async.middlewares.Compression`, in the order in
            which a put applies them, and inspections of bodies. ``(middleware, scope)`` limits one to the
            objects in a `Scope`, which is evaluated for every put and copy. How an object was encoded is
            recorded in its metadata, and a get decodes it by that record, whatever this list contains
            later.
        pool: The memory that all transfers share. The default is a `BufferPool` of 128 MiB.
        retry: The retry policy. Every driver has its own retry budget.
        timeout: The time limits.
        create_missing_buckets: Whether a put or copy creates a bucket that the default backend has
            and the object's backend lacks. ``"auto"``: only where bucket names are not shared with other
            accounts. This excludes Amazon S3 and Google Cloud Storage, unless all buckets are in one
            physical bucket (`Mapped` with `into`, or a URL that names a bucket).
        locate: Where to look for an object. ``"routed"``: only on the backend that its key is routed to.
            ``"anywhere"``: then on the others as well, in the order of the store. See above.

    Raises:
        BackendNotFoundError: A route or a scope names an unknown backend.
        PatternError: A pattern is malformed.
        ConfigError: A URL, a backend's name or `locate` is not valid.
        TypeError: An argument has the wrong type.
    """

    def __init__(
        self,
        default: AsyncDriver | str,
        *,
        backends: Mapping[str, AsyncDriver | str] | None = None,
        routes: Sequence[Route | tuple[str, str]] = (),
        route_functions: Sequence[RouteFunction] = (),
        middleware: Sequence[Middleware | Inspecting | tuple[Middleware | Inspecting, Scope]] = (),
        pool: BufferPool | None = None,
        retry: RetryPolicy | None = None,
        timeout: Timeout | None = None,
        create_missing_buckets: CreateMissing = "auto",
        locate: Literal["routed", "anywhere"] = "routed",
    ) -> None:
        backends = validation.checked_backends(backends)
        validation.check_store_options(pool, retry, timeout, create_missing_buckets)
        validation.check_locate(locate)
        drivers = {
            name: driver_of(name, backend) if isinstance(backend, str) else backend
            for name, backend in {DEFAULT: default, **backends}.items()
        }
        router = Router(routes, route_functions, backends=tuple(drivers), default=DEFAULT)
        configured = validation.checked_middleware(middleware, tuple(drivers))
        self._core = Runtime(
            drivers,
            router=router,
            pool=pool or BufferPool(),
            retry=retry or RetryPolicy(),
            timeout=timeout or Timeout(),
            create_missing=create_missing_buckets,
            transforms=Transforms(configured),
            placement=Placement() if locate == "anywhere" else None,
        )
        self._routing: Router | Pinned = router
        placement = self._core.placement
        self._objects = (
            Operations(self._core, router)
            if placement is None
            else OperationsAnywhere(self._core, router, placement)
        )

    def __repr__(self) -> str:
        if not hasattr(self, "_core"):
            return "<Trove, not initialised>"  # its constructor raised
        pinned = (
            f" pinned to {self._routing.backend!r}" if isinstance(self._routing, Pinned) else ""
        )
        return f"<Trove of {', '.join(self._core.names)}{pinned}>"

    @classmethod
    def from_config(cls, config: str | os.PathLike[str] | Mapping[str, Any]) -> Self:
        """Return a new store that a TOML file or a mapping configures. It is not open.

        `trove_async.config` describes the configuration.

        Args:
            config: The path of a TOML file, or a mapping with the same structure.

        Raises:
            ConfigError: The file cannot be read, or the configuration is not valid. The message names the
                path of each problem and the values that are allowed, and shows no value.
            BackendNotFoundError: A route or a scope names an unknown backend.
            TypeError: `config` is neither a path nor a mapping.
            ImportError: The extra ``[config]``, or that of a driver or middleware, is missing.
        """
        try:
            from .config import load  # noqa: PLC0415 - pydantic is an extra, and slow to import
        except ModuleNotFoundError as error:
            raise ImportError(
                "Trove.from_config needs pydantic: install trove_async[config]", name=error.name
            ) from error
        return cls(**load(config).arguments())

    # -- opening and closing -----------------------------------------------------------------------

    async def open(self) -> Self:
        """Open every driver, and return the store. Use this where ``async with`` does not fit.

        Close the store with `aclose`. On a pinned handle, this does nothing.

        Raises:
            ClosedError: The store has been opened before.
            ConfigError: The settings of a driver or of the pool are not valid.
        """
        if not isinstance(self._routing, Pinned):
            await self._core.open()
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every driver once. Idempotent. On a pinned handle, this does nothing.

        Raises:
            ClosedError: The store belongs to another event loop or process.
            ExceptionGroup: Several drivers failed to close; the group contains all their errors. The
                error of a single driver is raised itself. Every driver is closed in either case.
        """
        if not isinstance(self._routing, Pinned):
            await self._core.aclose()

    @property
    def pool(self) -> BufferPool:
        """The memory that all transfers share. `BufferPool.statistics` returns its current use."""
        return self._core.pool

    @property
    def events(self) -> Events:
        """The events of this store. Use `Events.subscribe` to log, trace or count them."""
        return self._core.events

    @property
    def backends(self) -> Mapping[str, BackendInfo]:
        """The backends by name, the default first. A pinned handle has only one.

        Some capabilities are known only once the store is open.
        """
        return {info.name: info for info in self._objects.backend_infos}

    def bucket(self, name: str) -> Bucket:
        """Return a handle on one bucket: the object methods without their bucket argument.

        The bucket of a pinned handle is pinned as well. The bucket need not exist, and the store
        need not be open.

        Raises:
            InvalidNameError: The name is not allowed.
        """
        return Bucket(self, name)

    def backend(self, name: str) -> Trove:
        """Return a handle that is pinned to one backend: nothing is routed.

        The handle shares the store's drivers, pool and middlewares, and is usable while the store is
        open.

        Raises:
            BackendNotFoundError: The store has no such backend.
        """
        self._core.check_backend(name)
        handle = copy(self)  # includes attributes of subclasses
        handle._routing = routing = Pinned(name)  # noqa: SLF001 - same class
        handle._objects = Operations(self._core, routing)  # noqa: SLF001 - same class
        return handle

    # -- objects -----------------------------------------------------------------------------------

    async def put(
        self,
        bucket: str,
        key: str,
        body: BodySource,
        *,
        size: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        storage_class: str | None = None,
        cache_control: str | None = None,
        content_disposition: str | None = None,
        content_encoding: str | None = None,
        content_language: str | None = None,
        expires: datetime | None = None,
        if_none_match: str | None = None,
        if_match: str | ObjectInfo | None = None,
        progress: Progress | None = None,
    ) -> ObjectInfo:
        """Store an object, atomically: readers see the old object or the new one.

        After an error or a cancel, no part of the new object is visible, and no memory, temporary file,
        task or connection is held. A cancel that arrives while the put completes may leave the new
        object, which is whole then.

        Args:
            bucket: An existing bucket, or one that may be created (see `create_missing_buckets`).
            key: 1 to 1,024 bytes of UTF-8, without a ``.`` or ``..`` segment.
            body: Bytes, a path, a binary file, an async reader, an iterable of bytes (sync or
                async), or the result of `get`. A large body is buffered in parts, not as a whole, and
                is read once. Files and readers are stored from their current position; if the put
                fails, a seekable file is set back to it. Very large bodies, with parts larger than half
                of the pool (on S3: over 625 GiB with a pool of 128 MiB), must be bytes, a path or a
                file opened by `open`: their parts are read while they are sent, and again by each
                attempt. Encoded bodies cannot be that large.
            size: Size of the body in bytes, for a body that does not report its own. A body of a
                different size raises IntegrityError. A known size allows larger parts: a body of
                unknown size can have at most `BufferPool.part_size` times the backend's maximum
                number of parts (on S3: 78 GiB with parts of 8 MiB). The same limit applies to the
                compressed form of any body, because its size is not known beforehand.
            content_type: Media type. None: guessed from the key's extension, if the backend stores
                it (``.csv.gz`` is ``application/gzip``). ``""``: none.
            metadata: User metadata. Names are stored in lower case. The records of middlewares count
                against the backend's limit on metadata as well: about 200 bytes for both built-in
                ones.
            tags: Tags, if the backend supports them.
            storage_class: The backend's name for a storage class.
            cache_control: The Cache-Control header of responses to HTTP clients.
            content_disposition: The Content-Disposition header.
            content_encoding: The Content-Encoding header, which does not change how the body is stored.
            content_language: The Content-Language header, such as ``"de-CH"``.
            expires: The Expires header: an aware datetime, stored in UTC and whole seconds. The
                object is not deleted at that time.
            if_none_match: ``"*"``: create the object, but never replace an existing one.
            if_match: Replace only this version: an etag or an ObjectInfo.
            progress: Called with the number of bytes that the backend has received, and the total
                (None if unknown). Both count encoded bytes if a middleware encodes the body. An
                exception that it raises is raised by the put. If the body is sent in parts, it is then
                not stored; if it is sent in one request, it already is.

        Returns:
            The object as stored.

        Raises:
            InvalidNameError: A name or header value is not allowed.
            BodyConsumedError: The body has been read to its end, or partly by a put that failed.
            ClosedError: The store, or the reader that is the body, is closed.
            NotSupportedError: The backend cannot honour an option or the size of the body, or a
                middleware applies and the backend stores no metadata.
            BucketNotFoundError: The bucket does not exist.
            ObjectExistsError: ``if_none_match="*"`` is passed, and the object exists.
            PreconditionFailedError: `if_match` is passed, and the object is a different version or
                does not exist.
            IntegrityError: The body does not have the given size, a file changed while it was sent,
                or the backend stored other bytes.
            StorageFullError: The backend is full.
            ContentBlockedError: An inspection has rejected the body. Nothing was stored.
            TypeError: The body is a str, a mapping, a set or the response of an HTTP client, for
                example. The message names what to pass instead.
        """
        if progress is not None:
            validation.check_progress(progress)
        _names.check(bucket, key)
        options = validation.put_options(
            size=size,
            content_type=type_of(key) if content_type is None else content_type,
            metadata=metadata,
            tags=tags,
            storage_class=storage_class,
            cache_control=cache_control,
            content_disposition=content_disposition,
            content_encoding=content_encoding,
            content_language=content_language,
            expires=expires,
            if_none_match=if_none_match,
            if_match=if_match,
            write_id=next(self._core.write_ids),
        )
        # A guessed type is dropped if the backend stores none. A type that the user passed would raise.
        type_guessed = content_type is None
        if type(body) is bytes and progress is None and self._core.is_direct():
            return await self._objects.put_memory(
                bucket, key, memoryview(body), options, type_guessed=type_guessed
            )
        return await self._objects.put(
            bucket, key, source_of(body), options, progress, type_guessed=type_guessed
        )

    def get(
        self,
        bucket: str,
        key: str,
        *,
        range: ByteRange | tuple[int, int | None] | None = None,
        version_id: str | None = None,
        if_match: str | ObjectInfo | None = None,
        if_none_match: str | ObjectInfo | None = None,
        decode: bool | Callable[[ObjectInfo], bool] = True,
        progress: Progress | None = None,
    ) -> OpeningReader:
        """Open an object's body: ``async with store.get(…) as obj``, or ``obj = await store.get(…)``.

        After a broken connection, the download resumes at its offset with the same version, or raises.

        The body of an object that a middleware has encoded is decoded while it is read. A range of it
        fetches only the blocks that overlap it. The first range of an object may take two more requests
        than that of a plain object, or three if the object is compressed in more than 2,000 frames and its
        size was unknown to the put.

        Args:
            bucket: The bucket.
            key: The key.
            range: ``(start, end)`` of the decoded body, with an exclusive end, clamped to the size;
                ``(start, None)`` to the end; or ``ByteRange.last(n)``.
            version_id: The id of a version, if the backend keeps versions.
            if_match: Read only this version: an etag or an ObjectInfo.
            if_none_match: Read only a version other than this one.
            decode: False: return the bytes as the backend stores them, for example compressed.
                `range` then selects stored bytes, and the reader's `info` has their `size` and
                `checksums`; `info.transforms` names the transforms that were applied to them. A function
                decides it for each transformed object from its stored metadata, without another
                request. A middleware that requires objects to be encoded, such as
                ``Encryption(require=True)``, still raises for objects that are not.
            progress: Called with the number of bytes read so far and the total. An exception that
                it raises ends the read without losing bytes: read again to continue.

        Raises:
            ObjectNotFoundError: The object does not exist.
            BucketNotFoundError: The bucket does not exist.
            RangeError: The range selects no bytes.
            PreconditionFailedError: A condition does not hold.
            NotSupportedError: The backend cannot honour an option, or the object was encoded by a
                middleware that this store does not have, or whose extra is not installed.
            DecryptionError: The store does not have the key of the object, or `Encryption` requires
                encryption and the object is not encrypted.
            IntegrityError: The stored bytes were altered. Reading the body raises it as well.
        """
        if progress is not None:
            validation.check_progress(progress)
        if decode is not True:
            validation.check_decode(decode, functions=True)
        _names.check_address(bucket, key)
        options = LATEST
        if not (
            range is None and version_id is None and if_match is None and if_none_match is None
        ):
            options = validation.get_options(
                range=range, version_id=version_id, if_match=if_match, if_none_match=if_none_match
            )
        return OpeningReader(self._open, bucket, key, options, decode, progress)

    async def _open(
        self,
        bucket: str,
        key: str,
        options: GetOptions,
        decode: Decode,
        progress: Progress | None,
    ) -> ObjectReader:
        objects = self._objects
        opened = (
            await objects.open(bucket, key, options, decode=decode)
            if self._core.is_direct()
            else await self._core.run(
                "get", bucket, key, partial(objects.open, bucket, key, options, decode=decode)
            )
        )
        return ObjectReader(opened, progress)

    @overload
    def open_file(
        self,
        bucket: str,
        key: str,
        mode: Literal["rb"] = "rb",
        *,
        version_id: str | None = None,
        if_match: str | ObjectInfo | None = None,
    ) -> OpeningFile[FileReader]: ...

    @overload
    def open_file(
        self,
        bucket: str,
        key: str,
        mode: Literal["wb", "xb"],
        *,
        if_match: str | ObjectInfo | None = None,
        **arguments: Unpack[WriteArguments],
    ) -> OpeningFile[FileWriter]: ...

    def open_file(
        self,
        bucket: str,
        key: str,
        mode: Literal["rb", "wb", "xb"] = "rb",
        *,
        version_id: str | None = None,
        if_match: str | ObjectInfo | None = None,
        **arguments: Unpack[WriteArguments],
    ) -> OpeningFile[Any]:
        """Open an object as a file: ``async with store.open_file(…) as file``, or ``await`` it.

        A file opened for reading can be read from any position. It reads one version: if the object is
        replaced, reads raise ObjectChangedError once they need another request. A read after a seek
        requests exactly its bytes. Reads that continue one another share requests, of growing ranges.

        A file opened for writing stores the object when it is closed. If ``async with`` is left by an
        exception or a cancel, an existing object stays as it was.

        Args:
            bucket: The bucket.
            key: The key.
            mode: ``"rb"``: read. ``"wb"``: create or replace the object. ``"xb"``: create it, but never
                replace an existing one.
            version_id: For reading: the id of a version, if the backend keeps versions.
            if_match: Read or replace only this version: an etag or an ObjectInfo. If it is the complete
                ObjectInfo of this object, opening it for reading sends no request. Otherwise opening
                sends one, for the first 64 KiB.
            arguments: For writing: the arguments of `put`.

        Raises:
            ValueError: The mode is unknown.
            TypeError: An argument does not apply to the mode.
            ObjectExistsError: The mode is ``"xb"``, and the object exists. It is raised by a write or
                by ``aclose``.
            NotSupportedError: The backend cannot read ranges, or cannot honour an argument.
            Otherwise as `get` and `put`.
        """
        _names.check_address(bucket, key)
        address = f"{bucket!r}, {key!r}, {mode!r}"
        if mode == "rb":
            validation.get_options(
                range=None, version_id=version_id, if_match=if_match, if_none_match=None
            )
            if arguments:
                raise TypeError(
                    f"{', '.join(arguments)}: only for files that are opened for writing"
                )
            return OpeningFile(
                lambda: open_reader(self, bucket, key, version_id=version_id, if_match=if_match),
                address,
            )
        if mode not in {"wb", "xb"}:
            raise ValueError(f"mode must be 'rb', 'wb' or 'xb', got {mode!r}")
        if version_id is not None:
            raise TypeError("version_id: only for files that are opened for reading")
        condition = "*" if mode == "xb" else None
        put = partial(
            self.put, bucket, key, if_match=if_match, if_none_match=condition, **arguments
        )
        return OpeningFile(lambda: open_writer(put, self._core.check_usable), address)

    async def read(
        self,
        bucket: str,
        key: str,
        *,
        range: ByteRange | tuple[int, int | None] | None = None,
        limit: int | None = None,
        version_id: str | None = None,
        if_match: str | ObjectInfo | None = None,
        if_none_match: str | ObjectInfo | None = None,
        decode: bool = True,
    ) -> bytes:
        """Return the bytes of a small object.

        Args:
            bucket: The bucket.
            key: The key.
            range: As in `get`.
            limit: The maximum number of bytes to return.
            version_id: As in `get`.
            if_match: As in `get`.
            if_none_match: As in `get`.
            decode: False: return the bytes as the backend stores them, as in `get`.

        Raises:
            RangeError: The range selects no bytes, or more than `limit`.
            ValueError: `limit` is negative.
            Otherwise as `get`.
        """
        _names.check_address(bucket, key)
        options = LATEST
        if not (
            range is None and version_id is None and if_match is None and if_none_match is None
        ):
            options = validation.get_options(
                range=range, version_id=version_id, if_match=if_match, if_none_match=if_none_match
            )
        if limit is not None:
            validation.check_read_limit(limit)
        if decode is not True:
            validation.check_decode(decode, functions=False)
        objects = self._objects
        if self._core.is_direct():
            return await objects.read(bucket, key, options, limit, decode=decode)
        read = partial(objects.read, bucket, key, options, limit, decode=decode)
        return await self._core.run("read", bucket, key, read)

    async def get_ranges(
        self, bucket: str, key: str, ranges: Iterable[ByteRange | tuple[int, int | None]]
    ) -> Sequence[bytes]:
        """Return the bytes of many ranges of one version, in the order of the ranges.

        Ranges that are close together are fetched by one request. Up to 8 requests run concurrently.
        Ranges of an object that a middleware has encoded select bytes of the decoded body.

        Raises:
            RangeError: A range selects no bytes.
            ObjectChangedError: The object was replaced or deleted between two requests, or the
                responses do not prove that they describe one version.
            Otherwise as `get`.
        """
        _names.check_address(bucket, key)
        return await self._objects.get_ranges(bucket, key, validation.byte_ranges(ranges))

    async def head(self, bucket: str, key: str, *, version_id: str | None = None) -> ObjectInfo:
        """Return the metadata of an object.

        `ObjectInfo.size` is the size of the body, and `ObjectInfo.stored_size` that of its encoded form.
        If a compressed body of unknown size was put in parts, its size takes one more request, or two if
        it has more than 2,000 frames. If it cannot be determined (without the key, for example), both
        sizes are the stored one, and `ObjectInfo.complete` is False.

        Args:
            bucket: The bucket.
            key: The key.
            version_id: The id of a version, if the backend keeps versions.

        Raises:
            ObjectNotFoundError: The object, or the version, does not exist.
            BucketNotFoundError: The bucket does not exist.
            NotSupportedError: `version_id` is passed, and the backend does not support versions.
        """
        _names.check_address(bucket, key)
        if version_id is not None:
            _names.check_header("version_id", version_id)
        if self._core.is_direct():
            return await self._objects.head(bucket, key, version_id)
        head = partial(self._objects.head, bucket, key, version_id)
        return await self._core.run("head", bucket, key, head)

    async def exists(self, bucket: str, key: str, *, version_id: str | None = None) -> bool:
        """Return whether the object, or the version, exists.

        Raises:
            BucketNotFoundError: The bucket does not exist.
            NotSupportedError: `version_id` is passed, and the backend does not support versions.
        """
        try:
            await self.head(bucket, key, version_id=version_id)
        except ObjectNotFoundError:
            return False
        return True

    async def delete(
        self,
        bucket: str,
        key: str,
        *,
        version_id: str | None = None,
        if_match: str | ObjectInfo | None = None,
    ) -> None:
        """Delete an object. A missing object is not an error, unless `if_match` is passed.

        Raises:
            BucketNotFoundError: The bucket does not exist.
            PreconditionFailedError: `if_match` is passed, and the object is a different version or
                does not exist.
            NotSupportedError: The backend cannot honour an option.
        """
        _names.check_address(bucket, key)
        options = validation.delete_options(
            version_id=version_id, if_match=if_match, write_id=next(self._core.write_ids)
        )
        if self._core.is_direct():
            await self._objects.delete(bucket, key, options)
        else:
            delete = partial(self._objects.delete, bucket, key, options)
            await self._core.run("delete", bucket, key, delete)

    def delete_many(self, bucket: str, keys: Iterable[str] | AsyncIterable[str]) -> Deletion:
        """Delete many objects. Iterate over the result, or await it to raise errors.

        The iteration yields one `DeleteResult` per key. Nothing is deleted before you iterate or await.

        Raises:
            TypeError: `keys` is a str, or not an iterable.
        """
        _names.check_bucket(bucket)
        if isinstance(keys, str):
            raise TypeError("keys must be an iterable of keys, got a str: pass [key]")
        return self._objects.delete_many(bucket, keys)

    async def copy(
        self,
        src_bucket: str,
        src_key: str,
        dst_bucket: str,
        dst_key: str,
        *,
        source_backend: str | None = None,
        source_version_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        content_type: str | None = None,
        cache_control: str | None = None,
        content_disposition: str | None = None,
        content_encoding: str | None = None,
        content_language: str | None = None,
        expires: datetime | Literal[""] | None = None,
        storage_class: str | None = None,
        if_match: str | ObjectInfo | None = None,
        if_none_match: str | None = None,
        progress: Progress | None = None,
    ) -> ObjectInfo:
        """Copy one version of an object.

        The source and the destination are routed independently. Within one backend, the service
        copies the object if it can; otherwise the body streams through this process. Copying an
        object onto itself changes its metadata.

        The copy is encoded as a put to the destination would be. If the source is encoded so already,
        its stored bytes are copied; otherwise the body is decoded and encoded again in this process. So
        copying an object onto itself encrypts it with the current key, and compresses or encrypts an
        object that was stored before the middleware was configured. A store without `Encryption` copies
        encrypted objects as they are.

        The copy has the source's metadata, tags and headers, except those that are passed here. An
        empty argument (``""``, ``{}``) removes the source's value. Within Google Cloud Storage the copy also has the
        source's custom time. Settings that `head` does not return are not copied, and take the
        destination's defaults: on S3 the ACL, encryption, object lock and website redirect
        location; on GCS the ACL, holds and customer-supplied keys.

        Args:
            src_bucket: The source's bucket.
            src_key: The source's key.
            dst_bucket: The destination's bucket.
            dst_key: The destination's key.
            source_backend: The backend of the source. None: the one that the source is routed to.
            source_version_id: The id of a version of the source, if its backend keeps versions. Copying
                an old version onto its own key makes it the latest again.
            metadata: All metadata of the copy, instead of the source's.
            tags: All tags, instead of the source's.
            content_type: The media type, instead of the source's.
            cache_control: The Cache-Control header, instead of the source's.
            content_disposition: The Content-Disposition header, instead of the source's.
            content_encoding: The Content-Encoding header, instead of the source's, which does not change
                the body.
            content_language: The Content-Language header, instead of the source's.
            expires: The Expires header, instead of the source's.
            storage_class: The destination's storage class. None: its backend's default.
            if_match: Replace only this version of the destination.
            if_none_match: ``"*"``: never replace the destination.
            progress: Called with the number of bytes stored so far and the total.

        Returns:
            The copy as stored.

        Raises:
            ObjectNotFoundError: The source does not exist.
            ObjectChangedError: The source was replaced while it was copied.
            IntegrityError: The bytes that arrived differ from those that were read. Nothing was
                stored.
            DecryptionError: The source must be encoded again, and the store does not have its key.
                Nothing was stored.
            NotSupportedError: The destination's backend cannot store an option passed here, or a
                property of the source. Nothing was stored.
            BackendNotFoundError: `source_backend` is unknown.
            InvalidNameError: The destination cannot store metadata, a tag or a header of the source
                exactly, for example a name that is not an HTTP token. Nothing was stored.
            Otherwise as `put`.
        """
        validation.check_progress(progress)
        changes = validation.copy_overrides(
            metadata=metadata,
            tags=tags,
            content_type=content_type,
            cache_control=cache_control,
            content_disposition=content_disposition,
            content_encoding=content_encoding,
            content_language=content_language,
            expires=expires,
            storage_class=storage_class,
            if_match=if_match,
            if_none_match=if_none_match,
            write_id=next(self._core.write_ids),
        )
        source = self._objects.address(src_bucket, src_key, source_backend, source_version_id)
        _names.check(dst_bucket, dst_key)
        target = self._objects.address(dst_bucket, dst_key)
        return await self._objects.copy(source, target, changes, progress)

    async def move(
        self,
        src_bucket: str,
        src_key: str,
        dst_bucket: str,
        dst_key: str,
        *,
        source_backend: str | None = None,
        source_version_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        content_type: str | None = None,
        cache_control: str | None = None,
        content_disposition: str | None = None,
        content_encoding: str | None = None,
        content_language: str | None = None,
        expires: datetime | Literal[""] | None = None,
        storage_class: str | None = None,
        if_match: str | ObjectInfo | None = None,
        if_none_match: str | None = None,
        progress: Progress | None = None,
    ) -> ObjectInfo:
        """Copy an object, verify the copy, then delete the version that was copied.

        Moving an object onto itself changes the values that are passed. After an error or a cancel,
        the object exists at its source, at its destination, or at both.

        The source is deleted only once the copy is verified: by a checksum or an etag in the
        response, else by a head of the destination. Where a service may store two keys as one
        object, the source is headed as well, and is not deleted if the copy has replaced it. Within
        a bucket of Amazon S3 or Google Cloud Storage, and between the two services, the verification
        takes no extra request. Elsewhere it takes one, or two if the service reports no checksums or
        the source was not written by this library.

        Args and Raises:
            As `copy`. ObjectChangedError or IntegrityError after the copy means that nothing was
            deleted: the source was replaced, it is the destination under a different key, or the
            copy could not be verified.
        """
        validation.check_progress(progress)
        changes = validation.copy_overrides(
            metadata=metadata,
            tags=tags,
            content_type=content_type,
            cache_control=cache_control,
            content_disposition=content_disposition,
            content_encoding=content_encoding,
            content_language=content_language,
            expires=expires,
            storage_class=storage_class,
            if_match=if_match,
            if_none_match=if_none_match,
            write_id=next(self._core.write_ids),
        )
        source = self._objects.address(src_bucket, src_key, source_backend, source_version_id)
        _names.check(dst_bucket, dst_key)
        target = self._objects.address(dst_bucket, dst_key)
        return await self._objects.move(source, target, changes, progress)

    @overload
    def list(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: None = None,
        start_after: str | None = None,
        cursor: str | None = None,
        page_size: int = 1000,
        details: bool = False,
        include_shadowed: bool = False,
    ) -> ObjectIterator[ObjectInfo]: ...

    @overload
    def list(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str | None,
        start_after: str | None = None,
        cursor: str | None = None,
        page_size: int = 1000,
        details: bool = False,
        include_shadowed: bool = False,
    ) -> ObjectIterator[ObjectInfo | Prefix]: ...

    def list(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str | None = None,
        start_after: str | None = None,
        cursor: str | None = None,
        page_size: int = 1000,
        details: bool = False,
        include_shadowed: bool = False,
    ) -> ObjectIterator[Any]:
        """List the objects of a bucket: exactly those that `get` through this handle can reach.

        Args:
            bucket: The bucket.
            prefix: List only keys that start with this.
            delimiter: Keys that contain this after the prefix are grouped into one `Prefix`.
            start_after: List only keys after this one, in bytewise order.
            cursor: Resume a listing with the same arguments at its `ObjectIterator.cursor`. Do not
                pass ``start_after`` again.
            page_size: The maximum number of entries per page and backend.
            details: Head every object whose metadata is not complete (`ObjectInfo.complete`). Pages of
                S3 and of the local backend contain no metadata: without `details`, the `size` of an
                object that a middleware has encoded is the stored one.
            include_shadowed: Also list objects that the routes hide.

        Returns:
            An iterator: ``async for obj in store.list(bucket)``. The first request is sent when the
            iteration starts.

        Raises:
            BucketNotFoundError: No backend has the bucket (on iteration).
            CursorError: The cursor is malformed or belongs to a different listing (on iteration).
        """
        _names.check_bucket(bucket)
        options = validation.list_options(
            prefix=prefix,
            delimiter=delimiter,
            start_after=start_after,
            cursor=cursor,
            page_size=page_size,
            details=details,
            include_shadowed=include_shadowed,
        )

        return self._objects.list(
            bucket, options, cursor=cursor, details=details, include_shadowed=include_shadowed
        )

    def list_versions(
        self, bucket: str, *, prefix: str = "", page_size: int = 1000
    ) -> VersionIterator:
        """List all versions of a bucket's objects, including delete markers.

        The keys are those of `list`, in the same order. The versions of a key are listed newest
        first. A bucket without versioning has one version per key.

        Args:
            bucket: The bucket.
            prefix: List only keys that start with this.
            page_size: The maximum number of versions per page and backend.

        Returns:
            An iterator: ``async for version in store.list_versions(bucket)``. The first request is
            sent when the iteration starts.

        Raises:
            BucketNotFoundError: No backend has the bucket (on iteration).
            NotSupportedError: A backend that the routes can reach does not support versions (on
                iteration, before any I/O). Use `backend` to list one that does.
        """
        _names.check_bucket(bucket)
        options = validation.list_options(
            prefix=prefix, delimiter=None, start_after=None, cursor=None, page_size=page_size
        )
        return self._objects.list_versions(bucket, options)

    def misplaced(
        self,
        bucket: str,
        *,
        prefix: str = "",
        start_after: str | None = None,
        page_size: int = 1000,
    ) -> MisplacedIterator:
        """List the objects that are not on the backend that their keys are routed to.

        A rule that changes leaves objects where the old rule sent them. They are found by listing all
        backends: no object is headed, and at most two pages per backend are in memory. A backend that
        lacks the bucket has no such objects. Two backends that are names of one physical place count as
        one. The replica of a layer is listed only if it is a backend of its own as well; its objects are
        then misplaced.

        If several backends list in key order, their objects come first, in that order, and those of one
        key follow one another. The objects of each other backend come after them.

        Args:
            bucket: The bucket.
            prefix: List only keys that start with this.
            start_after: List only keys after this one, in bytewise order.
            page_size: The maximum number of entries per page and backend.

        Returns:
            An iterator: ``async for misplaced in store.misplaced(bucket)``. The first request is sent
            when the iteration starts.

        Raises:
            NotSupportedError: The handle is pinned to a backend, so it routes no keys.
            BucketNotFoundError: No backend has the bucket (on iteration).
        """
        _names.check_bucket(bucket)
        options = validation.list_options(
            prefix=prefix,
            delimiter=None,
            start_after=start_after,
            cursor=None,
            page_size=page_size,
        )
        return self._objects.misplaced(bucket, options)

    # -- buckets -----------------------------------------------------------------------------------

    async def create_bucket(
        self,
        name: str,
        *,
        exist_ok: bool = False,
        backends: Iterable[str] | Literal["all"] | None = None,
    ) -> None:
        """Create a bucket on the default (or pinned) backend, or on those in `backends`.

        Args:
            name: 1 to 222 bytes, without a slash. Cloud services allow fewer names.
            exist_ok: Whether to succeed if the bucket already exists.
            backends: The backends to create the bucket on, instead of the default, or ``"all"``.

        Raises:
            BucketExistsError: The bucket exists. It may belong to another account.
            BackendNotFoundError: `backends` names an unknown backend.
            ValueError: `backends` is empty.
            TypeError: An argument has the wrong type.
        """
        _names.check_bucket(name)
        await self._objects.create_bucket(name, exist_ok=exist_ok, on=backends)

    async def delete_bucket(self, name: str) -> None:
        """Delete a bucket on all backends (or the pinned one), after checking that it is empty on each.

        Raises:
            BucketNotFoundError: No backend has the bucket.
            BucketNotEmptyError: The bucket has objects. Nothing was deleted.
        """
        _names.check_bucket(name)
        await self._objects.delete_bucket(name)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets of all backends (or the pinned one), sorted by name, each name once."""
        return await self._objects.list_buckets()

    # -- presigned URLs, routing and health --------------------------------------------------------

    async def presign_get(
        self,
        bucket: str,
        key: str,
        *,
        expires: float = 3600,
        version_id: str | None = None,
        response_content_type: str | None = None,
        response_content_disposition: str | None = None,
    ) -> str:
        """Return a URL that allows anyone to get the object for `expires` seconds.

        The URL returns the stored bytes. It is refused if a middleware applies to a put of this key, with
        the media type that is guessed from the key. No request is sent, so an object that is encoded for
        another reason, such as a media type that was passed to put, is not noticed.

        Args:
            bucket: The bucket.
            key: The key.
            expires: Seconds, 1 to 604,800 (seven days).
            version_id: The id of a version, if the backend keeps versions.
            response_content_type: The response's Content-Type, instead of the object's.
            response_content_disposition: The response's Content-Disposition, instead of the
                object's: ``'attachment; filename="report.pdf"'`` names the download.

        Raises:
            NotSupportedError: The backend cannot presign URLs, or cannot honour an option, or a
                middleware applies to the key.
            ValueError: `expires` is not between 1 second and 7 days.
        """
        _names.check_address(bucket, key)
        options = validation.presign_options(
            expires,
            version_id=version_id,
            response_content_type=response_content_type,
            response_content_disposition=response_content_disposition,
        )
        return await self._objects.presign("GET", bucket, key, expires, options)

    async def presign_put(
        self, bucket: str, key: str, *, expires: float = 3600, content_type: str | None = None
    ) -> str:
        """Return a URL that allows anyone to put the object for `expires` seconds.

        The driver's defaults, such as a storage class, are not part of the URL. The object is stored as
        the client sends it, so the URL is refused if a middleware applies to a put of this key.

        Args:
            bucket: The bucket.
            key: The key.
            expires: Seconds, 1 to 604,800 (seven days).
            content_type: The Content-Type that the request must have. The service rejects any
                other. None: any is accepted, and scopes are evaluated with the type that is guessed from
                the key.

        Raises:
            NotSupportedError: The backend cannot presign URLs, or cannot honour an option, or a
                middleware applies to the key.
            ValueError: `expires` is not between 1 second and 7 days.
        """
        _names.check(bucket, key)
        options = validation.presign_options(expires, content_type=content_type)
        return await self._objects.presign("PUT", bucket, key, expires, options)

    async def explain(self, bucket: str, key: str) -> RouteDecision:
        """Return the backend of a key, the rule that chose it, the reason, and the middlewares of a put.

        The middlewares are those for the media type that is guessed from the key. One of them may still
        store a body as it is, for example if it does not become smaller. Only route functions and the
        functions of scopes do I/O.
        """
        _names.check_address(bucket, key)
        return await self._objects.explain(bucket, key)

    def lint_routes(self) -> Sequence[RouteIssue]:
        """Return the probable mistakes in the routes, in their order. Does no I/O.

        It reports a route that never wins because an earlier one matches all its keys; a pattern such as
        ``tmp/*`` or ``*.log``, which misses keys in deeper folders, unless another route is for those; a
        route to a backend that refuses what is sent there, because a middleware applies to all its
        objects and it stores no metadata; a route to a service with shared bucket names, if
        `create_missing_buckets` is True; and a route for a bucket whose name is not valid. Route functions
        are not called.

        The capabilities of some backends are known only once the store is open.

        Raises:
            NotSupportedError: The handle is pinned to a backend, so it has no routes.
        """
        return self._objects.lint_routes()

    async def health(self) -> Mapping[str, Health]:
        """Ping all backends concurrently, and return the result of each. Failures are not raised.

        Raises:
            ClosedError: The store is not open.
        """
        self._core.check_usable()
        return await health(
            self._objects.backends, self._core.deadlines, self._core.timeout.first_byte
        )
