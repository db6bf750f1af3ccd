"""Chooses the backends and the keys of a listing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from trove_async.options import ListOptions
from trove_async.router import Pinned, Router

from . import backend_checks
from .backends import Backend
from .buckets import homes
from .first_copies import FirstCopies
from .listing import Query
from .page_stream import RequestPage, request_objects, request_versions
from .runtime import Runtime
from .search import Search


class Queries:
    """The queries of one handle.

    Args:
        runtime: The state that all handles of the store share.
        routing: Resolves keys to backends: the store's router, or the pinned backend.
        bucket_exists: Returns whether any backend of the handle has a bucket.

    Attributes:
        search: Looks for objects on all backends, which are then all listed. None: only the backends that
            the routes can reach are.
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
        self.search: Search | None = None

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
        if self.search is not None and not include_shadowed:
            by_name = self._homes(bucket)
            first_copies = FirstCopies(self.search, bucket, by_name)
            names = tuple(backend.name for backend in dict.fromkeys(by_name.values()))
            query = self._query(
                bucket, options, names, None, request_objects, cursor=cursor, details=details
            )
            return replace(query, first_copies=first_copies)
        names = await self._routing.reaches(bucket, options.prefix)
        if include_shadowed and not isinstance(self._routing, Pinned):
            names = self._runtime.names
        router = None if include_shadowed else self._router_among(names)
        return self._query(
            bucket, options, names, router, request_objects, cursor=cursor, details=details
        )

    async def of_everything(self, bucket: str, options: ListOptions) -> Query:
        """Return the query of all objects on all backends, each physical place once."""
        names = [backend.name for backend in dict.fromkeys(self._homes(bucket).values())]
        return self._query(bucket, options, names, None, request_objects)

    async def of_versions(self, bucket: str, options: ListOptions) -> Query:
        """Return the query of a listing of versions. All its backends must support versions."""
        names = await self._routing.reaches(bucket, options.prefix)
        router = self._router_among(names)
        query = self._query(bucket, options, names, router, request_versions)
        others = [] if isinstance(self._routing, Pinned) else self._runtime.names
        for backend in query.backends:
            backend_checks.check_versions(
                backend, [self._runtime.backends[name] for name in others]
            )
        return query

    def _homes(self, bucket: str) -> Mapping[str, Backend]:
        return homes([self._runtime.backends[name] for name in self._runtime.names], bucket)

    def _query(
        self,
        bucket: str,
        options: ListOptions,
        names: Sequence[str],
        router: Router | None,
        request_page: RequestPage,
        *,
        cursor: str | None = None,
        details: bool = False,
    ) -> Query:
        return Query(
            bucket=bucket,
            options=options,
            backends=[self._runtime.backends[name] for name in names],
            router=router,
            routes_fingerprint=self._routing.fingerprint,
            details=details,
            exists=lambda: self._bucket_exists(bucket),
            cursor=cursor,
            transforms=self._runtime.transforms,
            request_page=request_page,
        )

    def _router_among(self, names: Sequence[str]) -> Router | None:
        """Return the router, or None if only one backend is listed."""
        return self._routing if isinstance(self._routing, Router) and len(names) > 1 else None
