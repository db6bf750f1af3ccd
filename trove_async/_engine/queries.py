"""Chooses the backends and the keys of a listing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from trove_async.options import ListOptions
from trove_async.router import Pinned, Router

from . import backend_checks
from .buckets import distinct
from .listing import IsVisible, Query
from .page_stream import RequestPage, request_objects, request_versions
from .runtime import Runtime


class Queries:
    """The queries of one handle.

    Args:
        runtime: The state that all handles of the store share.
        routing: Resolves keys to backends: the store's router, or the pinned backend.
        bucket_exists: Returns whether any backend of the handle has a bucket.
    """

    def __init__(
        self,
        runtime: Runtime,
        routing: Router | Pinned,
        bucket_exists: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._runtime = runtime
        self._routing = routing
        self._bucket_exists = bucket_exists

    async def of_objects(
        self,
        bucket: str,
        options: ListOptions,
        *,
        cursor: str | None,
        details: bool,
        include_shadowed: bool,
    ) -> Query:
        """Return the query of a listing of objects."""
        names = await self._routing.reaches(bucket, options.prefix)
        if include_shadowed and not isinstance(self._routing, Pinned):
            names = self._runtime.names
        is_visible = None if include_shadowed or len(names) == 1 else self._is_visible(bucket)
        return self._query(
            bucket, options, names, is_visible, request_objects, cursor=cursor, details=details
        )

    async def of_everything(self, bucket: str, options: ListOptions) -> Query:
        """Return the query of all objects on all backends, each physical place once."""
        backends = [self._runtime.backends[name] for name in self._runtime.names]
        names = [backend.name for backend in distinct(backends, bucket)]
        return self._query(bucket, options, names, None, request_objects)

    async def of_versions(self, bucket: str, options: ListOptions) -> Query:
        """Return the query of a listing of versions. All its backends must support versions."""
        names = await self._routing.reaches(bucket, options.prefix)
        is_visible = None if len(names) == 1 else self._is_visible(bucket)
        query = self._query(bucket, options, names, is_visible, request_versions)
        others = [] if isinstance(self._routing, Pinned) else self._runtime.names
        for backend in query.backends:
            backend_checks.check_versions(
                backend, [self._runtime.backends[name] for name in others]
            )
        return query

    def _query(
        self,
        bucket: str,
        options: ListOptions,
        names: Sequence[str],
        is_visible: IsVisible | None,
        request_page: RequestPage,
        *,
        cursor: str | None = None,
        details: bool = False,
    ) -> Query:
        return Query(
            bucket=bucket,
            options=options,
            backends=[self._runtime.backends[name] for name in names],
            is_visible=is_visible,
            routes_fingerprint=self._routing.fingerprint,
            details=details,
            exists=lambda: self._bucket_exists(bucket),
            cursor=cursor,
            transforms=self._runtime.transforms,
            request_page=request_page,
        )

    def _is_visible(self, bucket: str) -> IsVisible:
        """Return a predicate for the keys of the bucket that are routed to a backend."""
        resolve = self._routing.resolve

        def is_visible(key: str, backend: str) -> bool | Awaitable[bool]:
            name = resolve(bucket, key)
            return name == backend if isinstance(name, str) else await_and_compare(name, backend)

        async def await_and_compare(name: Awaitable[str], backend: str) -> bool:
            return await name == backend

        return is_visible
