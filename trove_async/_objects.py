"""What a handle does with objects once its user's arguments were checked: find the backend, and act."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from . import _checks, _names
from ._buckets import Buckets
from ._concurrency import shielded
from ._copy import Place, copy, remove_source
from ._deletion import Deletion
from ._download import Verified
from ._listing import Query
from ._pages import objects, versions
from ._ranges import get_ranges
from ._upload import Put
from .errors import BucketNotFoundError, NotSupportedError, PreconditionFailedError, RangeError
from .models import MiB
from .reader import ObjectReader
from .router import Pinned

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence

    from ._backends import Backend
    from ._copy import Changes
    from ._core import Core
    from ._pages import Ask
    from ._sources import Source
    from ._upload import Progress
    from .driver import Presigning
    from .models import ByteRange, DeleteOptions, GetOptions, ListOptions, ObjectInfo, PutOptions
    from .router import Router

T = TypeVar("T")


class Objects:
    """The objects that one handle sees.

    Args:
        core: What all handles of the store share.
        routing: Which backend a key belongs to, for this handle.
    """

    def __init__(self, core: Core, routing: Router | Pinned) -> None:
        self._core = core
        self._routing = routing

    @property
    def backends(self) -> Sequence[Backend]:
        """The backends that the handle reaches, the default or the pinned one first."""
        if isinstance(self._routing, Pinned):
            return [self._core.backends[self._routing.backend]]
        return [self._core.backends[name] for name in self._core.names]

    @property
    def buckets(self) -> Buckets:
        """The buckets on them."""
        return Buckets(self.backends, self._core.create_missing)

    async def put(
        self, bucket: str, key: str, source: Source, options: PutOptions, progress: Progress | None
    ) -> ObjectInfo:
        """Store a body."""

        async def work() -> ObjectInfo:
            backend = await self._resolve(bucket, key)
            _checks.check_put(backend, key, options)
            put = self._put(Place(backend=backend, bucket=bucket, key=key), options, progress)
            return (await put.run(source)).located(backend=backend.name)

        try:
            return await self._core.run("put", bucket, key, work)
        except BaseException:
            with shielded():  # one that was refused has not even been begun
                await source.aclose()
            raise

    async def open(
        self, bucket: str, key: str, options: GetOptions, progress: Progress | None
    ) -> ObjectReader:
        """Open a body."""
        reader: ObjectReader | None = None

        async def work() -> ObjectReader:
            nonlocal reader
            backend = await self._resolve(bucket, key)
            _checks.check_get(backend, options)
            context = backend.driver.get(bucket, key, options)
            told = self._core.told_body("get", bucket, key)
            body = Verified(await context.__aenter__())
            reader = ObjectReader(
                context,
                body,
                body.info.located(backend=backend.name),
                progress,
                self._core.check_usable,
                told=told,
            )
            return reader

        try:
            return await self._reading("get", bucket, key, work)
        except BaseException:
            if reader is not None:  # a listener has raised
                with shielded():
                    await reader.aclose()
            raise

    async def read(self, bucket: str, key: str, options: GetOptions, limit: int | None) -> bytes:
        """Return a body, of at most `limit` bytes."""

        async def work() -> bytes:
            backend = await self._resolve(bucket, key)
            _checks.check_get(backend, options)
            told = self._core.told_body("read", bucket, key)
            async with backend.driver.get(bucket, key, options) as reader:
                body = Verified(reader)
                if limit is not None and body.remaining > limit:
                    raise RangeError(
                        f"there are {body.remaining} bytes, more than the limit of {limit}:"
                        " stream them with get"
                    )
                data = await body.read(MiB)
                if body.remaining:
                    pieces = [data]
                    while body.remaining:
                        pieces.append(await body.read(MiB))
                    data = b"".join(pieces)
                if told is not None:
                    told(backend.name, len(data))
                return data

        return await self._reading("read", bucket, key, work)

    async def get_ranges(
        self, bucket: str, key: str, ranges: Sequence[ByteRange]
    ) -> Sequence[bytes]:
        """Return many ranges of one version."""

        async def work() -> Sequence[bytes]:
            backend = await self._resolve(bucket, key)
            if not backend.capabilities.ranges:
                raise NotSupportedError(
                    f"{backend.driver.name} cannot read a range", backend=backend.name
                )
            told = self._core.told_body("get_ranges", bucket, key)
            found = await get_ranges(backend, bucket, key, ranges)
            if told is not None:
                told(backend.name, sum(map(len, found)))
            return found

        return await self._reading("get_ranges", bucket, key, work)

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        """Return what is known of an object."""

        async def work() -> ObjectInfo:
            backend = await self._resolve(bucket, key)
            info = await backend.driver.head(bucket, key)
            return info.located(backend=backend.name)

        return await self._reading("head", bucket, key, work)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete an object."""

        async def work() -> None:
            backend = await self._resolve(bucket, key)
            _checks.check_delete(backend, options)
            try:
                await backend.driver.delete(bucket, key, options)
            except BucketNotFoundError as error:
                if not await self.buckets.exists_anywhere(bucket):
                    raise
                # The bucket exists, and this backend has had no object of it yet.
                if options.if_match is not None:
                    raise PreconditionFailedError(
                        "if_match: no object is there", backend=backend.name
                    ) from error

        await self._core.run("delete", bucket, key, work)

    def delete_many(self, bucket: str, keys: Iterable[str] | AsyncIterable[str]) -> Deletion:
        """Prepare to delete many objects."""
        self._core.check_usable()

        async def resolve(key: str) -> Backend:
            _names.check_addressed_key(bucket, key)
            return await self._resolve(bucket, key)

        return Deletion(
            bucket,
            keys,
            resolve,
            self.buckets.exists_anywhere,
            lambda work: self._core.run("delete_many", bucket, None, work),
        )

    async def copy(
        self,
        source: tuple[str, str],
        target: tuple[str, str],
        changes: Changes,
        progress: Progress | None,
    ) -> ObjectInfo:
        """Copy one version of an object."""

        async def work() -> ObjectInfo:
            start, end = await self._place(*source), await self._place(*target)
            return (await self._copied(start, end, changes, progress))[1]

        return await self._core.run("copy", *source, work)

    async def move(
        self,
        source: tuple[str, str],
        target: tuple[str, str],
        changes: Changes,
        progress: Progress | None,
    ) -> ObjectInfo:
        """Copy one version of an object, then delete that version."""

        async def work() -> ObjectInfo:
            start, end = await self._place(*source), await self._place(*target)
            info, moved = await self._copied(start, end, changes, progress)
            if not start.is_same(end):
                await remove_source(start, info)
            return moved

        return await self._core.run("move", *source, work)

    async def query(
        self,
        bucket: str,
        options: ListOptions,
        *,
        cursor: str | None,
        details: bool,
        include_shadowed: bool,
        ask: Ask = objects,
    ) -> Query:
        """Decide which backends a listing asks, and what it shows of them."""
        names = await self._routing.reaches(bucket, options.prefix)
        if include_shadowed and not isinstance(self._routing, Pinned):
            names = self._core.names
        return Query(
            bucket=bucket,
            options=options,
            backends=[self._core.backends[name] for name in names],
            sees=None if include_shadowed or len(names) == 1 else self._sees(bucket),
            rules=self._routing.fingerprint,
            details=details,
            exists=lambda: self.buckets.exists_anywhere(bucket),
            cursor=cursor,
            ask=ask,
        )

    async def version_query(self, bucket: str, options: ListOptions) -> Query:
        """Decide the same of a listing of versions, which every backend that is asked must keep."""
        query = await self.query(
            bucket, options, cursor=None, details=False, include_shadowed=False, ask=versions
        )
        for backend in query.backends:
            others = () if isinstance(self._routing, Pinned) else self.backends
            _checks.check_versions(backend, others)
        return query

    async def presign(self, method: str, bucket: str, key: str, expires: float) -> str:
        """Return a signed URL."""

        async def work() -> str:
            backend = await self._resolve(bucket, key)
            if not backend.capabilities.presign:
                raise NotSupportedError(
                    f"{backend.driver.name} has no presigned URLs", backend=backend.name
                )
            driver = cast("Presigning", backend.driver)
            return await driver.presign(method, bucket, key, expires)

        return await self._core.run("presign", bucket, key, work)

    # -- between the handle and the engine -------------------------------------------------------------

    async def _resolve(self, bucket: str, key: str) -> Backend:
        name = self._routing.resolve(bucket, key)
        if not isinstance(name, str):
            name = await name
        backend = self._core.backends[name]
        if "." in key:
            _checks.check_addressable(backend, key)
        return backend

    async def _place(self, bucket: str, key: str) -> Place:
        return Place(backend=await self._resolve(bucket, key), bucket=bucket, key=key)

    def _sees(self, bucket: str) -> Callable[[str, str], bool | Awaitable[bool]]:
        resolve = self._routing.resolve

        def sees(key: str, backend: str) -> bool | Awaitable[bool]:
            name = resolve(bucket, key)
            return name == backend if isinstance(name, str) else later(name, backend)

        async def later(name: Awaitable[str], backend: str) -> bool:
            return await name == backend

        return sees

    def _put(self, target: Place, options: PutOptions, progress: Progress | None) -> Put:
        return Put(
            target.backend,
            target.bucket,
            target.key,
            options,
            pool=self._core.pool,
            events=self._core.events,
            progress=progress,
            missing=lambda error: self.buckets.make_missing(target.backend, target.bucket, error),
        )

    async def _copied(
        self, source: Place, target: Place, changes: Changes, progress: Progress | None
    ) -> tuple[ObjectInfo, ObjectInfo]:
        info, copied = await copy(
            source,
            target,
            changes,
            look=self._looked,
            check=lambda options: _checks.check_put(target.backend, target.key, options),
            put=lambda options: self._put(target, options, progress),
            missing=lambda error: self.buckets.make_missing(target.backend, target.bucket, error),
            progress=progress,
        )
        return info, copied.located(backend=target.backend.name)

    async def _reading(
        self, operation: str, bucket: str, key: str, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Run an operation that needs an object to exist."""
        return await self._core.run(
            operation, bucket, key, lambda: self.buckets.found(bucket, key, work)
        )

    async def _looked(self, place: Place) -> ObjectInfo:
        bucket, key = place.bucket, place.key
        return await self.buckets.found(bucket, key, lambda: place.backend.driver.head(bucket, key))
