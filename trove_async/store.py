"""The store: what users hold. It checks, decides where, and delegates."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, overload

from . import _names
from ._engine import validation
from ._engine.backends import BackendInfo
from ._engine.buckets import CreateMissing
from ._engine.bulk_delete import Deletion
from ._engine.health import health
from ._engine.listing import ObjectIterator, VersionIterator
from ._engine.media_types import type_of
from ._engine.operations import Objects, OpenBody
from ._engine.runtime import Core
from ._engine.sources import BodySource, source_of
from ._engine.upload import Progress
from .bucket import Bucket
from .driver import AsyncDriver
from .errors import ObjectNotFoundError, TroveError
from .events import Events
from .layers import driver_from_url
from .models import BucketInfo, ByteRange, Health, ObjectInfo, Prefix, RouteDecision, Timeout
from .pool import BufferPool
from .reader import ObjectReader, OpeningReader
from .retry import RetryPolicy
from .router import DEFAULT, Pinned, Route, RouteFunction, Router


class Trove:
    """Buckets of objects over one default backend and any number of named ones.

    Every object is sent to a backend by the first rule that answers: the route functions, then the
    patterns, then the default. `backend` pins one instead. Use it inside ``async with``; a store
    belongs to the event loop and the process that opened it.

    Example:
        >>> async with Trove(MemoryDriver(), backends={"cold": MemoryDriver()},
        ...                  routes=[("*.log", "cold")]) as store:
        ...     await store.create_bucket("data")
        ...     info = await store.put("data", "app.log", b"started")
        >>> info.backend
        'cold'

    Args:
        default: The primary backend: a driver, or a URL such as ``"file:///srv/objects"``.
        backends: The named ones; routes may name them whatever the order of the arguments.
        routes: Patterns, first match wins: `Route` or ``(pattern, backend)``.
        route_functions: Asked before the patterns, in order, once an operation: they take the
            bucket and the key, and return a backend's name, or None or ``""`` for no answer.
        pool: The memory that all transfers share; None: a `BufferPool` of 128 MiB.
        retry: How failed requests are tried again, on every backend with a budget of its own.
        timeout: How long a transfer may go without progress.
        create_missing_buckets: Whether a put makes a bucket that the default backend has and the
            object's backend lacks. ``"auto"``: where that backend's bucket names are its own, as on
            disk and in memory, not on the public clouds.

    Raises:
        BackendNotFoundError: A route names a backend that is not given.
        PatternError: A pattern is malformed.
        ConfigError: A URL, or a name, that cannot be used.
    """

    def __init__(
        self,
        default: AsyncDriver | str,
        *,
        backends: Mapping[str, AsyncDriver | str] | None = None,
        routes: Sequence[Route | tuple[str, str]] = (),
        route_functions: Sequence[RouteFunction] = (),
        pool: BufferPool | None = None,
        retry: RetryPolicy | None = None,
        timeout: Timeout | None = None,
        create_missing_buckets: CreateMissing = "auto",
    ) -> None:
        backends = validation.store_backends(backends)
        validation.store_options(pool, retry, timeout, create_missing_buckets)
        drivers = {
            name: _driver_of(name, given) if isinstance(given, str) else given
            for name, given in {DEFAULT: default, **backends}.items()
        }
        router = Router(routes, route_functions, backends=tuple(drivers), default=DEFAULT)
        self._core = Core(
            drivers,
            router=router,
            pool=pool or BufferPool(),
            retry=retry or RetryPolicy(),
            timeout=timeout or Timeout(),
            create_missing=create_missing_buckets,
        )
        self._routing: Router | Pinned = router
        self._objects = Objects(self._core, router)

    def __repr__(self) -> str:
        if not hasattr(self, "_core"):
            return "<Trove, never made>"  # its constructor raised
        pinned = (
            f" pinned to {self._routing.backend!r}" if isinstance(self._routing, Pinned) else ""
        )
        return f"<Trove of {', '.join(self._core.names)}{pinned}>"

    # -- life --------------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Open every driver, and return the store: ``async with`` for where it does not fit.

        Close it with `aclose`. On a pinned handle it does nothing: the store opens its drivers.

        Raises:
            ClosedError: It was opened before.
            ConfigError: A driver's settings cannot work.
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
        """Close every distinct driver once. Idempotent. On a pinned handle it does nothing.

        Raises:
            ExceptionGroup: Of all failures, where several drivers could not be closed; a single
                one is raised as it is. All have been tried.
        """
        if not isinstance(self._routing, Pinned):
            await self._core.aclose()

    @property
    def pool(self) -> BufferPool:
        """The memory that all transfers share; its `BufferPool.statistics` tell how full it is."""
        return self._core.pool

    @property
    def events(self) -> Events:
        """What happens, as it happens: `Events.subscribe` to log, trace or count it."""
        return self._core.events

    @property
    def backends(self) -> Mapping[str, BackendInfo]:
        """The backends by their names, the default first; of a pinned handle, its own.

        Capabilities that depend on what a driver finds out are settled once the store is open.
        """
        return {backend.name: backend for backend in self._objects.described}

    def bucket(self, name: str) -> Bucket:
        """Return a handle on one bucket: the object methods, without their first argument.

        Of a pinned handle it is pinned too. The bucket need not exist yet, nor the store be open.

        Raises:
            InvalidNameError: No bucket may have this name.
        """
        return Bucket(self, name)

    def backend(self, name: str) -> Trove:
        """Return a handle on one backend, by its name: everything goes there, nothing is routed.

        It shares the store's drivers and pool, opens and closes with it, and may be made before.

        Raises:
            BackendNotFoundError: There is no such backend.
        """
        self._core.check_backend(name)
        handle = copy(self)  # whatever a subclass has added included
        handle._routing = routing = Pinned(name)  # noqa: SLF001 - of this very class
        handle._objects = Objects(self._core, routing)  # noqa: SLF001 - likewise
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
        """Store an object, atomically: readers see the old one or the new one, whole.

        After an error or a cancel, at whatever point, nothing of it is visible and nothing is held.

        Args:
            bucket: An existing bucket, or one that may be made (see `create_missing_buckets`).
            key: 1 to 1,024 bytes of UTF-8, without a ``.`` or ``..`` segment.
            body: Bytes, a path, a binary file, an async reader, an iterable of bytes (sync or
                async), or what `get` returns. A file, or a reader that was read in part, is stored
                from where it stands. A put that fails leaves a file where it was found, if the file
                can seek. Never held whole. Read once, unless its parts must be
                larger than half of the pool (on S3: from 625 GiB on, with a pool of 128 MiB): such
                a body is bytes, a path or a file opened by `open`, and its parts are read while
                they are sent, anew for each try. A file that is changed meanwhile is then an error.
            size: Its bytes, where you know them and the body cannot tell; held to it. Lets larger
                parts be planned: one that tells no size ends at `BufferPool.part_size` times the
                parts that the backend takes (on S3: 78 GiB, with parts of 8 MiB).
            content_type: Its media type; None: the one that the key's extension stands for, where
                the backend keeps it (``.csv.gz`` is ``application/gzip``). ``""``: none.
            metadata: Your own names and values; names are kept in lower case.
            tags: Tags, where the backend has them.
            storage_class: The backend's own name of a class.
            cache_control: For HTTP clients that are handed the object.
            content_disposition: Likewise.
            content_encoding: Likewise; the body is stored as it is.
            content_language: Likewise: the language of its readers, such as ``"de-CH"``.
            expires: Likewise: an aware datetime, kept in UTC and whole seconds. The object itself
                is not deleted then.
            if_none_match: ``"*"``: create only.
            if_match: Replace only this version: its etag, or its ObjectInfo.
            progress: Called with the bytes that the backend has taken so far, and those in all
                (None: not known). What it raises ends the put; from its last call, when all is
                stored, that comes too late.

        Returns:
            The object as stored.

        Raises:
            InvalidNameError: No backend may be given such a name or value.
            BodyConsumedError: The body was read to its end before, by an earlier put or by
                whoever opened it with `get`; or an earlier put that failed has read some of it.
            ClosedError: The body is a reader that is closed; or the store is.
            NotSupportedError: The object's backend cannot honour an option, or a body so large; the
                message says what can be sent, and what to do.
            BucketNotFoundError: There is no such bucket; the message says what to do.
            ObjectExistsError: ``if_none_match="*"`` and it exists.
            PreconditionFailedError: ``if_match`` and another version, or none, is there.
            IntegrityError: The body has another size than promised, was changed meanwhile, or was
                stored wrong.
            StorageFullError: The backend has no room.
            TypeError: The body is none: a str, or a response of an HTTP client; the message names
                what to pass instead.
        """
        validation.progress(progress)
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
            write_id=self._core.new_write_id(),
        )
        guessed = content_type is None
        return await self._objects.put(
            bucket, key, source_of(body), options, progress, guessed=guessed
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
        progress: Progress | None = None,
    ) -> OpeningReader:
        """Open an object's body: ``async with store.get(…) as obj``, or ``obj = await store.get(…)``.

        A connection that breaks is resumed at its offset, with the same version.

        Args:
            bucket: Its bucket.
            key: Its key.
            range: ``(start, end)``, the end exclusive and clamped; ``(start, None)``: to the end;
                ``ByteRange.last(n)``.
            version_id: One version, where the backend keeps them.
            if_match: Only this version: its etag, or its ObjectInfo.
            if_none_match: Only another version than this.
            progress: Called with the bytes read so far and in all. What it raises ends that read, and
                loses nothing: read on.

        Raises:
            ObjectNotFoundError: There is no such object.
            BucketNotFoundError: There is no such bucket.
            RangeError: The range selects nothing.
            PreconditionFailedError: A condition does not hold.
            NotSupportedError: The object's backend cannot honour an option.
        """
        validation.progress(progress)
        _names.check_address(bucket, key)
        options = validation.get_options(
            range=range, version_id=version_id, if_match=if_match, if_none_match=if_none_match
        )

        def make(opened: OpenBody) -> ObjectReader:
            return ObjectReader(opened, progress)

        return OpeningReader(
            lambda: self._objects.open(bucket, key, options, make).__await__(),
            f"{bucket!r}, {key!r}",
        )

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
    ) -> bytes:
        """Return a small object's bytes in one call.

        Args:
            bucket: Its bucket.
            key: Its key.
            range: As in `get`.
            limit: Refuse to hold more bytes than this.
            version_id: As in `get`.
            if_match: As in `get`.
            if_none_match: As in `get`.

        Raises:
            RangeError: The range selects nothing, or there are more bytes than `limit`.
            ValueError: `limit` is negative.
            Otherwise as `get`.
        """
        _names.check_address(bucket, key)
        options = validation.get_options(
            range=range, version_id=version_id, if_match=if_match, if_none_match=if_none_match
        )
        validation.read_limit(limit)
        return await self._objects.read(bucket, key, options, limit)

    async def get_ranges(
        self, bucket: str, key: str, ranges: Iterable[ByteRange | tuple[int, int | None]]
    ) -> Sequence[bytes]:
        """Return the bytes of many ranges, in the order asked, all of one version.

        Neighbours are fetched together, and up to 8 requests run at once.

        Raises:
            RangeError: One of them selects nothing; nothing is returned.
            ObjectChangedError: The object was replaced between two of the requests.
            Otherwise as `get`.
        """
        _names.check_address(bucket, key)
        wanted = [ByteRange.of(one) for one in ranges]
        return await self._objects.get_ranges(bucket, key, wanted)

    async def head(self, bucket: str, key: str, *, version_id: str | None = None) -> ObjectInfo:
        """Return what is known of an object.

        Args:
            bucket: Its bucket.
            key: Its key.
            version_id: One version, where the backend keeps them.

        Raises:
            ObjectNotFoundError: There is no such object, or no such version.
            BucketNotFoundError: There is no such bucket.
            NotSupportedError: The object's backend keeps no versions.
        """
        _names.check_address(bucket, key)
        _names.check_header("version_id", version_id)
        return await self._objects.head(bucket, key, version_id)

    async def exists(self, bucket: str, key: str, *, version_id: str | None = None) -> bool:
        """Return whether there is such an object, or such a version of it.

        Raises:
            BucketNotFoundError: There is no such bucket.
            NotSupportedError: The object's backend keeps no versions.
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
        """Delete an object. One that is not there is no error, unless `if_match` is set.

        Raises:
            BucketNotFoundError: There is no such bucket.
            PreconditionFailedError: ``if_match`` and another version, or none, is there.
            NotSupportedError: The object's backend cannot honour an option.
        """
        _names.check_address(bucket, key)
        options = validation.delete_options(
            version_id=version_id, if_match=if_match, write_id=self._core.new_write_id()
        )

        await self._objects.delete(bucket, key, options)

    def delete_many(self, bucket: str, keys: Iterable[str] | AsyncIterable[str]) -> Deletion:
        """Delete many objects: iterate what this returns for results, or await it to raise failures.

        Raises:
            TypeError: `keys` is a single str.
        """
        _names.check_bucket(bucket)
        if isinstance(keys, str):
            raise TypeError("keys is an iterable of keys: [key], not key")
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
        """Copy one version of an object; on the server's side within a backend, else through here.

        Source and destination are routed each on its own. Onto itself it changes the metadata. What
        the copy is to have besides its content is the source's unless it is given here; an empty
        value (``""``, ``{}``) leaves the copy without. Within Google Cloud Storage it has the
        source's custom time, too.

        What `head` does not tell is not copied, also onto itself; there the destination's defaults
        hold: on S3 for the ACL, encryption settings, object lock and website redirect location, on
        GCS for the ACL, holds and customer-supplied keys.

        Args:
            src_bucket: The source's bucket.
            src_key: The source's key.
            dst_bucket: The destination's bucket.
            dst_key: The destination's key.
            source_backend: The backend to read the source from; None: the routed one.
            source_version_id: Copy this version of the source, where its backend keeps versions.
                Onto the source itself, that makes it the latest version again.
            metadata: In place of the source's, all of it.
            tags: Likewise.
            content_type: In place of the source's.
            cache_control: Likewise.
            content_disposition: Likewise.
            content_encoding: Likewise; the content is copied as it is.
            content_language: Likewise.
            expires: Likewise.
            storage_class: The destination's class; None: its backend's default.
            if_match: Replace only this version of the destination.
            if_none_match: ``"*"``: never replace the destination.
            progress: Called with the bytes copied so far and in all.

        Returns:
            The copy as stored.

        Raises:
            ObjectNotFoundError: There is no such source.
            ObjectChangedError: The source was replaced meanwhile.
            IntegrityError: What arrived is not what was read; nothing was stored.
            NotSupportedError: The destination's backend cannot keep what is given here or what the
                source has; nothing was stored.
            BackendNotFoundError: There is no backend `source_backend`.
            InvalidNameError: The destination cannot keep metadata, a tag or a header of the source
                exactly (a name that is no HTTP token, say); nothing was stored.
            Otherwise as `put`.
        """
        validation.progress(progress)
        changes = validation.changes(
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
            write_id=self._core.new_write_id(),
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
        """Copy an object, verify the copy, then delete the version that was copied, and only it.

        Onto itself it changes what is given here, if anything. After an error or a cancel the object is at its source, at its
        destination, or at both: never nowhere.

        Before the source is deleted, the copy is proved: by a checksum or an etag in the response,
        else by heading the destination. Where the service may take two names for one object, the
        source is headed, too; if the copy was written over it, it stays. Within one bucket of
        Amazon S3 or Google Cloud Storage, and between the two, this takes no further request;
        elsewhere it takes one, or two where a service reports no checksums or the source was not
        written by this library.

        Args and Raises:
            As `copy`. ObjectChangedError or IntegrityError after the copy means that both are there:
            the source was replaced meanwhile, it is the destination under another name, or the copy
            could not be proved.
        """
        validation.progress(progress)
        changes = validation.changes(
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
            write_id=self._core.new_write_id(),
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
        """List a bucket: exactly the objects that `get` through this handle can reach.

        Args:
            bucket: The bucket.
            prefix: Only keys that begin so.
            delimiter: Keys that hold it after the prefix are told as one `Prefix`.
            start_after: Only entries greater than this, bytewise.
            cursor: Go on where a listing with the same arguments stood (`ObjectIterator.cursor`);
                its ``start_after`` is not given again.
            page_size: Entries fetched at a time from each backend.
            details: Look every object up whose page did not tell all (`ObjectInfo.complete`).
            include_shadowed: Also show objects that the routes hide, of every backend.

        Returns:
            An iterator: ``async for obj in store.list(bucket)``. Nothing is asked before that.

        Raises:
            BucketNotFoundError: No backend has the bucket (when iterated).
            CursorError: The cursor belongs to another listing (when iterated).
        """
        _names.check_bucket(bucket)
        options = validation.list_options(
            prefix=prefix,
            delimiter=delimiter,
            start_after=start_after,
            cursor=cursor,
            page_size=page_size,
        )

        return self._objects.list(
            bucket, options, cursor=cursor, details=details, include_shadowed=include_shadowed
        )

    def list_versions(
        self, bucket: str, *, prefix: str = "", page_size: int = 1000
    ) -> VersionIterator:
        """List every version of a bucket's objects, delete markers included, where `list` would.

        Keys come in the order of `list`, and only where `get` through this handle reaches them; of
        one key the newest version comes first. A bucket that keeps no versions has one of each.

        Args:
            bucket: The bucket.
            prefix: Only keys that begin so.
            page_size: Versions fetched at a time from each backend.

        Returns:
            An iterator: ``async for version in store.list_versions(bucket)``. Nothing is asked
            before that.

        Raises:
            BucketNotFoundError: No backend has the bucket (when iterated).
            NotSupportedError: A backend that keys may be sent to keeps no versions (when iterated,
                before any I/O): `backend` pins one that does.
        """
        _names.check_bucket(bucket)
        options = validation.list_options(
            prefix=prefix, delimiter=None, start_after=None, cursor=None, page_size=page_size
        )
        return self._objects.list_versions(bucket, options)

    # -- buckets -----------------------------------------------------------------------------------

    async def create_bucket(
        self,
        name: str,
        *,
        exist_ok: bool = False,
        backends: Iterable[str] | Literal["all"] | None = None,
    ) -> None:
        """Make a bucket on the default backend, or on those named.

        Args:
            name: 1 to 222 bytes, without a slash; clouds allow less.
            exist_ok: One that exists is no error.
            backends: On which backends instead, or ``"all"``.

        Raises:
            BucketExistsError: It exists, whoever owns it.
            BackendNotFoundError: There is no such backend.
        """
        _names.check_bucket(name)
        await self._objects.create_bucket(name, exist_ok=exist_ok, on=backends)

    async def delete_bucket(self, name: str) -> None:
        """Delete a bucket wherever it is, once it is seen to be empty everywhere.

        Raises:
            BucketNotFoundError: No backend has it.
            BucketNotEmptyError: It has objects; nothing was deleted.
        """
        _names.check_bucket(name)
        await self._objects.delete_bucket(name)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets of all backends, each name once, sorted."""
        return await self._objects.list_buckets()

    # -- the rest ----------------------------------------------------------------------------------

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
        """Return a URL with which anybody can get the object for `expires` seconds.

        Args:
            bucket: Its bucket.
            key: Its key.
            expires: Seconds, 1 to 604,800 (seven days).
            version_id: One version, where the backend keeps them.
            response_content_type: The Content-Type of the response, in place of the object's.
            response_content_disposition: The Content-Disposition of the response, likewise:
                ``'attachment; filename="report.pdf"'`` names the download.

        Raises:
            NotSupportedError: The object's backend has no such URLs.
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
        """Return a URL with which anybody can put the object for `expires` seconds.

        Defaults of the driver, such as a storage class, are not part of the URL.

        Args:
            bucket: Its bucket.
            key: Its key.
            expires: Seconds, 1 to 604,800 (seven days).
            content_type: The Content-Type that the request must have: with another one, or none,
                the service refuses it. None: the request may have any.

        Raises:
            NotSupportedError: The object's backend has no such URLs.
            ValueError: `expires` is not between 1 second and 7 days.
        """
        _names.check(bucket, key)
        options = validation.presign_options(expires, content_type=content_type)
        return await self._objects.presign("PUT", bucket, key, expires, options)

    async def explain(self, bucket: str, key: str) -> RouteDecision:
        """Tell where a key goes, by which rule, and why. No I/O but that of route functions."""
        _names.check_address(bucket, key)
        return await self._routing.explain(bucket, key)

    async def health(self) -> Mapping[str, Health]:
        """Ping every backend, all at once, and tell how each answered. Never raises for a failure.

        Raises:
            ClosedError: The store itself is not open.
        """
        self._core.check_usable()
        return await health(
            self._objects.backends, self._core.deadlines, self._core.timeout.first_byte
        )


def _driver_of(name: str, url: str) -> AsyncDriver:
    """Make a backend's driver from its URL.

    Raises:
        ConfigError: As `driver_from_url`; it names the backend.
    """
    try:
        return driver_from_url(url)
    except TroveError as error:
        error.located(backend=name)
        raise
