"""Many deletions: grouped by backend, in bulk where the backend can, told key by key."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING

import anyio

from ._concurrency import task_group
from .errors import BucketNotFoundError, TroveError
from .models import DeleteOptions, DeleteResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable

    from ._backends import Backend

_BATCH = 1000
"""Keys taken at a time; the most that S3 deletes in one request (API Reference, DeleteObjects)."""

_LIMIT = 16
"""Deletions under way at once, on a backend that takes one key a request."""


class Deletion:
    """The deletion of many objects: iterate it for a result a key, or await it to raise failures.

    Either way it starts then, and can be done once. Keys are taken, and deleted, a thousand at a
    time; a cancel leaves those that were not reached.

    Example:
        >>> async with Trove(MemoryDriver()) as store:
        ...     await store.create_bucket("data")
        ...     await store.delete_many("data", ["a", "b"])
        ...     async for result in store.delete_many("data", ["c"]):
        ...         print(result.key, result.error or "gone")
        c gone
    """

    def __init__(
        self,
        bucket: str,
        keys: Iterable[str] | AsyncIterable[str],
        resolve: Callable[[str], Awaitable[Backend]],
        bucket_exists: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._bucket = bucket
        self._keys = keys
        self._resolve = resolve
        self._bucket_exists = bucket_exists

    def __aiter__(self) -> AsyncIterator[DeleteResult]:
        return self._results()

    def __await__(self) -> Generator[None, None, None]:
        return self._all().__await__()

    async def _all(self) -> None:
        failures = [result.error async for result in self if result.error is not None]
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup(f"{len(failures)} objects could not be deleted", failures)

    async def _results(self) -> AsyncIterator[DeleteResult]:
        batch: list[str] = []
        async for key in _as_async(self._keys):
            batch.append(key)
            if len(batch) == _BATCH:
                for result in await self._delete(batch):
                    yield result
                batch = []
        for result in await self._delete(batch):
            yield result

    async def _delete(self, keys: list[str]) -> list[DeleteResult]:
        """Delete one batch; return the results in the order of the keys."""
        results: dict[str, DeleteResult] = {}
        groups: dict[str, tuple[Backend, list[str]]] = {}
        for key in dict.fromkeys(keys):
            try:
                backend = await self._resolve(key)
            except (TroveError, TypeError) as error:
                results[key] = DeleteResult(key=key, error=error)
            else:
                groups.setdefault(backend.name, (backend, []))[1].append(key)
        async with task_group() as group:
            for backend, chosen in groups.values():
                group.start_soon(self._delete_on, backend, chosen, results)
        return [results[key] for key in keys]

    async def _delete_on(
        self, backend: Backend, keys: list[str], results: dict[str, DeleteResult]
    ) -> None:
        try:
            await backend.driver.head_bucket(self._bucket)
        except BucketNotFoundError as error:
            # If the bucket exists elsewhere, this backend has had no object of it yet.
            failure = None if await self._bucket_exists(self._bucket) else error
            results.update((key, DeleteResult(key=key, error=failure)) for key in keys)
            return
        size = backend.capabilities.bulk_delete
        if size:
            for start in range(0, len(keys), size):
                await self._in_bulk(backend, keys[start : start + size], results)
            return
        limiter = anyio.CapacityLimiter(_LIMIT)
        async with task_group() as group:
            for key in keys:
                await limiter.acquire_on_behalf_of(key)
                group.start_soon(self._one, backend, key, results, limiter)

    async def _in_bulk(
        self, backend: Backend, keys: list[str], results: dict[str, DeleteResult]
    ) -> None:
        try:
            answers = await backend.driver.delete_many(self._bucket, keys)  # type: ignore[attr-defined]  # announced
        except TroveError as error:
            answers = [DeleteResult(key=key, error=error) for key in keys]
        results.update((answer.key, answer) for answer in answers)

    async def _one(
        self,
        backend: Backend,
        key: str,
        results: dict[str, DeleteResult],
        limiter: anyio.CapacityLimiter,
    ) -> None:
        try:
            await backend.driver.delete(self._bucket, key, DeleteOptions())
        except TroveError as error:
            results[key] = DeleteResult(key=key, error=error)
        else:
            results[key] = DeleteResult(key=key)
        finally:
            limiter.release_on_behalf_of(key)


async def _as_async(keys: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    if isinstance(keys, AsyncIterable):
        async for key in keys:
            yield key
    else:
        for key in keys:
            yield key
