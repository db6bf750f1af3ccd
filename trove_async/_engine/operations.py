"""One method for each public operation: resolve the backend, check its capabilities, and act.

`put_memory`, `open`, `read`, `head` and `delete` are what services do most of the time. The store awaits them
directly if `Runtime.is_direct`, and otherwise passes them to `Runtime.run`. Their common case takes few calls:
each has one coroutine, and what is unusual happens in ``except`` or in other functions. All of them look up the
backend of the key in the same lines; keep these alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeVar, cast

from crc32c import crc32c

from trove_async import _names
from trove_async._checksums import CRC32C, crc32c_text
from trove_async._concurrency import shielded
from trove_async._settings import check_switches
from trove_async._version_identity import NULL_VERSION_ID
from trove_async.driver import Presigning
from trove_async.errors import (
    BucketNotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RangeError,
    TroveError,
)
from trove_async.models import BucketInfo, ByteRange, ObjectInfo, RouteDecision
from trove_async.options import (
    LATEST,
    DeleteOptions,
    GetOptions,
    ListOptions,
    PresignOptions,
    PutOptions,
)
from trove_async.router import Pinned, RouteIssue, Router

from . import backend_checks, validation
from .backends import Backend, BackendInfo
from .buckets import Buckets, homes
from .bulk_delete import Deletion
from .copy import CopyResult, copy
from .copy_overrides import CopyOverrides
from .decoded_objects import describe, read_all
from .decoding import Body
from .iterators import ObjectIterator, VersionIterator
from .job_steps import JobSteps
from .key_guard import ObjectName
from .locations import Location, ObjectAddress, add_operation, context_of, object_context
from .media_types import type_of
from .misplaced import MisplacedIterator
from .move import remove_source
from .move_checks import check_copy_writable, check_source_deletable
from .opening import Decode, OpenBody, open_body
from .puts import Puts
from .queries import Queries
from .ranges import get_ranges
from .route_lint import lint_routes
from .runtime import Runtime
from .sources import Source, source_of
from .transforms import decoded_info
from .upload import Progress, check_stored
from .verified import WholeBody

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class Work(Protocol[R_co]):
    """Does an operation on the backend that is passed, or on the one that the key is routed to."""

    def __call__(self, backend: Backend | None = None, /) -> Awaitable[R_co]:
        """Return the result of the operation."""
        ...


class Operations:
    """The operations of one handle.

    Args:
        runtime: The state that all handles of the store share.
        routing: Resolves keys to backends: the store's router, or the pinned backend.
    """

    def __init__(self, runtime: Runtime, routing: Router | Pinned) -> None:
        self._runtime = runtime
        self._routing = routing
        self._backends = runtime.backends.by_name
        self._has_transforms = bool(runtime.transforms)
        self._buckets = Buckets(lambda: self.backends, runtime.create_missing)
        self._queries = Queries(runtime, routing, self._bucket_exists)
        self._puts = Puts(
            runtime,
            lambda target, error: self.buckets.create_if_missing(
                target.backend, target.bucket, error
            ),
        )

    @property
    def backends(self) -> Sequence[Backend]:
        """The backends of the handle: all, the default first, or the pinned one."""
        if isinstance(self._routing, Pinned):
            return [self._runtime.backends[self._routing.backend]]
        return [self._runtime.backends[name] for name in self._runtime.names]

    def address(
        self, bucket: str, key: str, backend: str | None = None, version_id: str | None = None
    ) -> ObjectAddress:
        """Check an address for a read or a deletion, and return it. See `_names.check_address`."""
        _names.check_address(bucket, key)
        _names.check_header("version_id", version_id)
        if backend is not None:
            self._runtime.check_backend(backend)
        return ObjectAddress(bucket, key, backend, version_id)

    @property
    def backend_infos(self) -> Sequence[BackendInfo]:
        """The public descriptions of `backends`. The store need not be open."""
        names = (
            (self._routing.backend,) if isinstance(self._routing, Pinned) else self._runtime.names
        )
        return [self._runtime.backends.info(name) for name in names]

    @property
    def buckets(self) -> Buckets:
        """The buckets of the handle."""
        return self._buckets

    async def put(
        self,
        bucket: str,
        key: str,
        source: Source,
        options: PutOptions,
        progress: Progress | None,
        *,
        type_guessed: bool = False,
    ) -> ObjectInfo:
        """Store a body.

        With `type_guessed` the content type is dropped if the backend cannot store one.
        """

        async def guarded() -> ObjectInfo:
            async with self._runtime.key_guard.writing([(bucket, key)]):
                backend = await self._resolve(bucket, key)
                return await self._put_on(
                    backend, bucket, key, source, options, progress, type_guessed=type_guessed
                )

        try:
            return await self._runtime.run("put", bucket, key, guarded)
        except BaseException:
            try:
                with shielded():  # also closes a source that was never started
                    await source.aclose()
            finally:
                await source.rewind()
            raise

    async def put_memory(
        self,
        bucket: str,
        key: str,
        memory: memoryview,
        options: PutOptions,
        *,
        type_guessed: bool = False,
    ) -> ObjectInfo:
        """Store a body that is in memory, as `put` does. Sets the size and the checksums in `options`."""
        runtime, address = self._runtime, (bucket, key)
        guard = runtime.key_guard
        if guard.moves:
            await guard.interrupt((address,))
        guard.begin(address)
        try:
            # 1. Large bodies, transforms and unusual options take more steps.
            name = self._routing.resolve(bucket, key)
            backend = self._backends[name if isinstance(name, str) else await name]
            if "." in key and not backend.capabilities.dot_segments:
                backend_checks.check_addressable(backend, key)
            size = len(memory)
            if (
                self._has_transforms
                or size > backend.small_put
                or options.size is not None
                or (type_guessed and not backend.capabilities.headers)
            ):
                source = source_of(memory)
                return await self._put_on(
                    backend, bucket, key, source, options, None, type_guessed=type_guessed
                )
            # 2. Put the body in one request.
            backend_checks.check_put(backend, key, options)
            checksum = crc32c_text(crc32c(memory))
            options.complete(size, {CRC32C: checksum})
            views = [memory] if size else []
            try:
                info = await backend.driver.put(bucket, key, views, options)
            except BucketNotFoundError as error:
                await self.buckets.create_if_missing(backend, bucket, error)
                info = await backend.driver.put(bucket, key, views, options)
            # 3. Compare what was stored.
            if info.stored_size != size or info.checksums.get(CRC32C, checksum) != checksum:
                target = Location(backend=backend, bucket=bucket, key=key)
                await check_stored(target, info, size, {CRC32C: checksum})
        except TroveError as error:
            add_operation(error, "put", bucket, key)
            raise
        finally:
            guard.end(address)
        return info if info.backend == backend.name else info.located(backend=backend.name)

    async def _put_on(  # noqa: PLR0917 - as `put`
        self,
        backend: Backend,
        bucket: str,
        key: str,
        source: Source,
        options: PutOptions,
        progress: Progress | None,
        *,
        type_guessed: bool,
    ) -> ObjectInfo:
        """Store a body on a backend. A source that was started must be closed after an error."""
        drop_type = type_guessed and not backend.capabilities.headers
        put_options = replace(options, content_type=None) if drop_type else options
        backend_checks.check_put(backend, key, put_options)
        target = Location(backend=backend, bucket=bucket, key=key)
        if put_options.conditional:
            put_options = await self._conditions(target, put_options)
        transforms = self._runtime.transforms
        if self._has_transforms:
            context = context_of(target, options.content_type)
            inspections = await transforms.select_inspections(context)
            middlewares = await transforms.select(context)
            result = await self._puts.put_inspected(
                target,
                source,
                put_options,
                context=context,
                inspections=inspections,
                middlewares=middlewares,
                progress=progress,
            )
            info = result.public
        else:
            info = await self._puts.put(target, put_options, progress).run(source)
        return info.located(backend=backend.name)

    async def open(
        self,
        bucket: str,
        key: str,
        options: GetOptions,
        *,
        decode: Decode,
        backend: Backend | None = None,
    ) -> OpenBody:
        """Open a body, which the caller closes. `backend` replaces the one that the key is routed to."""
        runtime, is_routed = self._runtime, backend is None
        try:
            if backend is None:
                name = self._routing.resolve(bucket, key)
                backend = self._backends[name if isinstance(name, str) else await name]
                if "." in key and not backend.capabilities.dot_segments:
                    backend_checks.check_addressable(backend, key)
            if options is not LATEST:
                backend_checks.check_get(backend, options)
            emit = (
                runtime.body_event_emitter("get", bucket, key) if runtime.events.listeners else None
            )
            opened = await open_body(
                runtime.transforms, backend, bucket, key, options, decode=decode
            )
        except TroveError as error:
            if is_routed:
                await self._add_context(error, "get", bucket, key)
            raise
        info = opened.info
        if info.backend != backend.name:
            info = info.located(backend=backend.name)
        return OpenBody(opened, opened.body, info, runtime.check_usable, emit)

    async def read(
        self,
        bucket: str,
        key: str,
        options: GetOptions,
        limit: int | None,
        *,
        decode: bool,
        backend: Backend | None = None,
    ) -> bytes:
        """Return a whole body, which must have at most `limit` bytes. None: no limit.

        `backend` replaces the one that the key is routed to.
        """
        runtime, is_routed = self._runtime, backend is None
        try:
            if backend is None:
                name = self._routing.resolve(bucket, key)
                backend = self._backends[name if isinstance(name, str) else await name]
                if "." in key and not backend.capabilities.dot_segments:
                    backend_checks.check_addressable(backend, key)
            if options is not LATEST:
                backend_checks.check_get(backend, options)
            emit = (
                runtime.body_event_emitter("read", bucket, key)
                if runtime.events.listeners
                else None
            )
            opened = await open_body(
                runtime.transforms, backend, bucket, key, options, decode=decode
            )
            body = opened.body
            if isinstance(body, WholeBody):  # it holds nothing
                if limit is not None:
                    _check_limit(body, limit)
                data = body.data
            else:
                async with opened:
                    if limit is not None:
                        _check_limit(body, limit)
                    data = await read_all(body)
        except TroveError as error:
            if is_routed:
                await self._add_context(error, "read", bucket, key)
            raise
        if emit is not None:
            emit(backend.name, len(data))
        return data

    async def get_ranges(
        self, bucket: str, key: str, ranges: Sequence[ByteRange]
    ) -> Sequence[bytes]:
        """Return many ranges of one version."""

        async def work(backend: Backend | None = None) -> Sequence[bytes]:
            if backend is None:
                backend = await self._resolve(bucket, key)
            if not backend.capabilities.ranges:
                raise NotSupportedError(
                    f"{backend.driver.name} cannot read a range: read the whole object",
                    backend=backend.name,
                )
            emit = self._runtime.body_event_emitter("get_ranges", bucket, key)
            pieces = await get_ranges(self._runtime.transforms, backend, bucket, key, ranges)
            if emit is not None:
                emit(backend.name, sum(map(len, pieces)))
            return pieces

        return await self._run_on_object("get_ranges", bucket, key, work)

    async def head(
        self,
        bucket: str,
        key: str,
        version_id: str | None = None,
        backend: Backend | None = None,
    ) -> ObjectInfo:
        """Return the metadata of an object. `backend` replaces the one that the key is routed to."""
        is_routed = backend is None
        try:
            if backend is None:
                name = self._routing.resolve(bucket, key)
                backend = self._backends[name if isinstance(name, str) else await name]
                if "." in key and not backend.capabilities.dot_segments:
                    backend_checks.check_addressable(backend, key)
            if version_id is not None:
                backend_checks.check_version(backend, version_id)
            info = await backend.driver.head(bucket, key, version_id)
            if info.records is not None:
                info = await describe(self._runtime.transforms, backend, info, version_id)
        except TroveError as error:
            if is_routed:
                await self._add_context(error, "head", bucket, key)
            raise
        return info if info.backend == backend.name else info.located(backend=backend.name)

    async def _add_context(self, error: TroveError, operation: str, bucket: str, key: str) -> None:
        """Add the operation and the object to the error of a read, which the caller raises.

        Raises:
            ObjectNotFoundError: The error is that the backend lacks the bucket, but another one has it. A
                logical bucket exists if any backend has it.
            TroveError: Another backend failed, and none has the bucket.
        """
        add_operation(error, operation, bucket, key)
        if isinstance(error, BucketNotFoundError):
            try:
                exists = await self._bucket_exists(bucket)
            except TroveError as failure:
                add_operation(failure, operation, bucket, key)
                raise
            if exists:
                raise ObjectNotFoundError(
                    "no such object",
                    operation=operation,
                    backend=error.backend,
                    bucket=bucket,
                    key=key,
                ) from error

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete an object."""
        address, guard = (bucket, key), self._runtime.key_guard
        if guard.moves:
            await guard.interrupt((address,))
        guard.begin(address)
        try:
            name = self._routing.resolve(bucket, key)
            backend = self._backends[name if isinstance(name, str) else await name]
            if "." in key and not backend.capabilities.dot_segments:
                backend_checks.check_addressable(backend, key)
            backend_checks.check_delete(backend, options)
            try:
                await backend.driver.delete(bucket, key, options)
            except BucketNotFoundError as error:
                if not await self.buckets.exists_anywhere(bucket):
                    raise
                # The bucket exists on another backend; this one has no objects in it yet.
                if options.if_match is not None:
                    raise PreconditionFailedError(
                        "the object does not exist, so if_match does not hold", backend=backend.name
                    ) from error
        except TroveError as error:
            add_operation(error, "delete", bucket, key)
            raise
        finally:
            guard.end(address)

    def delete_many(self, bucket: str, keys: Iterable[str] | AsyncIterable[str]) -> Deletion:
        """Return a deletion of many objects, which has not started."""
        self._runtime.check_usable()

        async def resolve(key: str) -> Sequence[Backend]:
            _names.check_addressed_key(bucket, key)
            return await self._holders(bucket, key)

        return Deletion(
            bucket,
            keys,
            resolve,
            self.buckets.exists_anywhere,
            lambda work: self._runtime.run("delete_many", bucket, None, work),
            guard=lambda keys: self._runtime.key_guard.writing([(bucket, key) for key in keys]),
            placement=self._runtime.placement,
        )

    async def copy(
        self,
        source: ObjectAddress,
        target: ObjectAddress,
        overrides: CopyOverrides,
        progress: Progress | None,
    ) -> ObjectInfo:
        """Copy one version of an object."""

        async def work() -> ObjectInfo:
            _, destination, copied = await self._copied(
                source, target, overrides, progress, moves=False
            )
            return self._public(copied, destination)

        exclusive = source.has_key_of(target)
        names = [(target.bucket, target.key)]
        return await self._run_on_source("copy", source, work, names, exclusive=exclusive)

    async def move(
        self,
        source: ObjectAddress,
        target: ObjectAddress,
        overrides: CopyOverrides,
        progress: Progress | None,
    ) -> ObjectInfo:
        """Copy one version of an object, then delete that version."""

        async def work() -> ObjectInfo:
            origin, destination, copied = await self._copied(
                source, target, overrides, progress, moves=True
            )
            if origin.version_id == NULL_VERSION_ID:
                origin = replace(origin, version_id=None)  # the copy may have the same id
            if origin.version_id is not None or not origin.is_same(destination):
                await self._remove_source(source, origin, destination, copied)
            return self._public(copied, destination)

        names = {(source.bucket, source.key), (target.bucket, target.key)}
        return await self._run_on_source("move", source, work, names, exclusive=True)

    @property
    def job_steps(self) -> JobSteps:
        """What jobs do with single objects."""
        return JobSteps(self._runtime, self._location, self._head, self._copy)

    def list(
        self,
        bucket: str,
        options: ListOptions,
        *,
        cursor: str | None,
        details: bool,
        include_shadowed: bool,
    ) -> ObjectIterator[Any]:
        """Return a listing of objects, which has not started."""
        return ObjectIterator(
            lambda: self._queries.of_objects(
                bucket, options, cursor=cursor, details=details, include_shadowed=include_shadowed
            ),
            lambda work: self._runtime.run("list", bucket, None, work),
            page_size=options.limit,
            cursor=cursor,
        )

    def misplaced(self, bucket: str, options: ListOptions) -> MisplacedIterator:
        """Return a listing of misplaced objects, which has not started."""
        if isinstance(self._routing, Pinned):
            raise _pinned_error("misplaced", self._routing)
        return MisplacedIterator(
            lambda: self._queries.of_everything(bucket, options),
            lambda work: self._runtime.run("misplaced", bucket, None, work),
            lambda key: self._routing.resolve(bucket, key),
            lambda: homes(self.backends, bucket),
            page_size=options.limit,
        )

    def list_versions(self, bucket: str, options: ListOptions) -> VersionIterator:
        """Return a listing of versions, which has not started."""
        return VersionIterator(
            lambda: self._queries.of_versions(bucket, options),
            lambda work: self._runtime.run("list_versions", bucket, None, work),
            page_size=options.limit,
        )

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Return a signed URL."""

        async def work() -> str:
            backend = await self._signer(method, bucket, key, options)
            if method != "GET":
                backend_checks.check_writable(backend, "presign a write")
            if not backend.capabilities.presign:
                required = backend.capabilities.presign_requires
                advice = f"this requires {required}" if required else "use get and put"
                raise NotSupportedError(
                    f"{backend.driver.name} cannot presign URLs: {advice}", backend=backend.name
                )
            backend_checks.check_version(backend, options.version_id)
            target = Location(backend=backend, bucket=bucket, key=key)
            context = context_of(target, options.content_type or type_of(key))
            await self._runtime.transforms.check_presign(context, method)
            driver = cast("Presigning", backend.driver)
            return await driver.presign(method, bucket, key, expires, options)

        return await self._runtime.run("presign", bucket, key, work)

    async def explain(self, bucket: str, key: str) -> RouteDecision:
        """Return the backend of a key, why it was chosen, and the middlewares that apply to a put."""
        decision = await self._routing.explain(bucket, key)
        # The store need not be open, so there may be no backend yet.
        context = object_context(bucket, key, decision.backend, type_of(key))
        middlewares = await self._runtime.transforms.explain(context)
        return replace(decision, middleware=tuple(middlewares))

    def lint_routes(self) -> Sequence[RouteIssue]:
        """Return the probable mistakes in the routes. The store need not be open."""
        if isinstance(self._routing, Pinned):
            raise _pinned_error("lint_routes", self._routing)
        return lint_routes(
            self._routing.routes,
            {info.name: info for info in self.backend_infos},
            self._routing.default,
            transforms=self._runtime.transforms,
            create_missing=self._runtime.create_missing,
        )

    # -- buckets ---------------------------------------------------------------------------------------

    async def create_bucket(
        self, name: str, *, exist_ok: bool, on: Iterable[str] | Literal["all"] | None
    ) -> None:
        """Create a bucket."""
        check_switches(exist_ok=exist_ok)

        async def work() -> None:
            await self.buckets.create(name, exist_ok=exist_ok, on=on)

        await self._runtime.run("create_bucket", name, None, work)

    async def delete_bucket(self, name: str) -> None:
        """Delete a bucket on all backends of the handle."""
        await self._runtime.run("delete_bucket", name, None, lambda: self.buckets.delete(name))

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets of all backends of the handle."""

        async def work() -> Sequence[BucketInfo]:
            return await self.buckets.list()

        return await self._runtime.run("list_buckets", None, None, work)

    async def _bucket_exists(self, name: str) -> bool:
        return await self.buckets.exists_anywhere(name)

    # -- helpers ---------------------------------------------------------------------------------------

    async def _resolve(self, bucket: str, key: str) -> Backend:
        name = self._routing.resolve(bucket, key)
        backend = self._backends[name if isinstance(name, str) else await name]
        if "." in key:
            backend_checks.check_addressable(backend, key)
        return backend

    async def _holders(self, bucket: str, key: str) -> Sequence[Backend]:
        """Return the backends that a deletion of many objects deletes a key on, one after another."""
        return (await self._resolve(bucket, key),)

    async def _signer(
        self,
        method: str,  # noqa: ARG002 - used where objects are looked for
        bucket: str,
        key: str,
        options: PresignOptions,  # noqa: ARG002 - as above
    ) -> Backend:
        """Return the backend of a signed URL."""
        return await self._resolve(bucket, key)

    async def _conditions(self, target: Location, options: PutOptions) -> PutOptions:  # noqa: ARG002
        """Return the options of a conditional put: its backend evaluates the condition."""
        return options

    async def _location(
        self, bucket: str, key: str, backend: str | None = None, version_id: str | None = None
    ) -> Location:
        if backend is None:
            resolved = await self._resolve(bucket, key)
        else:
            resolved = self._runtime.backends[backend]
            backend_checks.check_addressable(resolved, key)
        backend_checks.check_version(resolved, version_id)
        return Location(backend=resolved, bucket=bucket, key=key, version_id=version_id)

    async def _without_latest_id(self, source: Location) -> Location:
        """Return the source. Remove its version id if that is the id of the latest version.

        Copying an older version onto its own key restores it. Copying the latest one is a no-op.
        """
        try:
            current = await source.backend.driver.head(source.bucket, source.key)
        except ObjectNotFoundError:
            return source  # deleted: only older versions exist
        return (
            replace(source, version_id=None) if current.version_id == source.version_id else source
        )

    async def _copied(
        self,
        source: ObjectAddress,
        target: ObjectAddress,
        overrides: CopyOverrides,
        progress: Progress | None,
        *,
        moves: bool,
    ) -> tuple[Location, Location, CopyResult]:
        """Copy an object. Return the locations of the copied version and of the copy, and the result.

        If it `moves`, its source must be writable as well.
        """
        origin = await self._location(*source)
        destination = await self._location(*target)
        check_copy_writable(origin, destination, moves=moves)
        if moves and not origin.is_same(destination):
            await check_source_deletable(origin)
        if origin.version_id is not None and origin.is_same(destination):
            origin = await self._without_latest_id(origin)
        copied = await self._copy(origin, destination, overrides, progress, self._head)
        return origin, destination, copied

    async def _remove_source(
        self, source: ObjectAddress, origin: Location, target: Location, copied: CopyResult
    ) -> None:
        """Delete the source of a move."""
        try:
            await remove_source(origin, target, copied)
        finally:  # it may have been deleted although the response was lost
            if self._runtime.placement is not None and source.has_key_of(target):
                self._runtime.placement.moved(source.bucket, source.key)

    async def _copy(
        self,
        source: Location,
        target: Location,
        overrides: CopyOverrides,
        progress: Progress | None,
        head: Callable[[Location], Awaitable[ObjectInfo]],
    ) -> CopyResult:
        return await copy(
            source,
            target,
            overrides,
            head=head,
            check=lambda options: backend_checks.check_put(target.backend, target.key, options),
            normalize=validation.checked_inherited,
            put=lambda options: self._puts.put(target, options, progress),
            put_encoded=self._puts.put_body,
            transforms=self._runtime.transforms,
            create_bucket=lambda error: self.buckets.create_if_missing(
                target.backend, target.bucket, error
            ),
            progress=progress,
        )

    def _public(self, copied: CopyResult, destination: Location) -> ObjectInfo:
        if copied.body_size is None:
            info = self._runtime.transforms.public(copied.stored)
        else:
            info = decoded_info(copied.stored, copied.body_size)
        return info.located(backend=destination.backend.name)

    async def _run_on_object(
        self,
        operation: str,
        bucket: str,
        key: str,
        work: Work[T],
        version_id: str | None = None,  # noqa: ARG002 - used where objects are looked for
    ) -> T:
        """Run an operation on an object that must exist, on the backend that its key is routed to."""
        return await self._runtime.run(
            operation, bucket, key, lambda: self.buckets.distinguish_missing(bucket, key, work)
        )

    async def _run_on_source(
        self,
        operation: str,
        source: ObjectAddress,
        work: Callable[[], Awaitable[T]],
        names: Iterable[ObjectName],
        *,
        exclusive: bool,
    ) -> T:
        """Run a copy or a move that writes to the keys `names`.

        An exclusive one excludes deletions and other moves of the source.
        """
        placement, guard = self._runtime.placement, self._runtime.key_guard
        if placement is not None and exclusive:
            work = placement.exclusive(source.bucket, source.key, work)
        return await self._runtime.run(
            operation, source.bucket, source.key, lambda: guard.write(names, work)
        )

    async def _head(self, location: Location) -> ObjectInfo:
        bucket, key = location.bucket, location.key
        driver, version_id = location.backend.driver, location.version_id
        return await self.buckets.distinguish_missing(
            bucket, key, lambda: driver.head(bucket, key, version_id)
        )


def _check_limit(body: Body, limit: int) -> None:
    if body.remaining > limit:
        raise RangeError(
            f"the body must have at most {limit} bytes (limit), got {body.remaining}: stream it with get"
        )


def _pinned_error(operation: str, routing: Pinned) -> NotSupportedError:
    return NotSupportedError(
        f"{operation} requires a handle that routes keys, but this one is pinned to"
        f" {routing.backend!r}: call it on the store"
    )
