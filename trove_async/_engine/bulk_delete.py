"""Many deletions: grouped by backend, in bulk where the backend can, told key by key."""

from __future__ import annotations

import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from functools import partial
from typing import Protocol, cast

from trove_async._concurrency import for_each, task_group
from trove_async.driver import BulkDeleting
from trove_async.errors import (
    BackendError,
    BodyConsumedError,
    BucketNotFoundError,
    InvalidNameError,
    TroveError,
)
from trove_async.models import DeleteResult
from trove_async.options import DeleteOptions

from .backends import Backend

_BATCH = 1000
"""Keys taken at a time; the most that S3 deletes in one request (API Reference, DeleteObjects)."""

_LIMIT = 16
"""Deletions under way at once, on a backend that takes one key a request."""


class Run(Protocol):
    """Does a piece of work as one operation of the store's: usable, told, its errors located."""

    def __call__(
        self, work: Callable[[], Awaitable[Sequence[DeleteResult]]], /
    ) -> Awaitable[Sequence[DeleteResult]]:
        """Return what `work` returns."""
        ...


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
        run: Run,
    ) -> None:
        self._started = True  # nothing to warn of if what follows raises
        if isinstance(keys, str | bytes) or not isinstance(keys, Iterable | AsyncIterable):
            raise TypeError(
                f"keys is an iterable of keys, [key] for a single one, not {type(keys).__name__}"
            )
        self._bucket = bucket
        self._keys = keys
        self._resolve = resolve
        self._bucket_exists = bucket_exists
        self._run = run
        self._started = False

    def __aiter__(self) -> AsyncGenerator[DeleteResult, None]:
        self._start()
        return self._results()

    def __await__(self) -> Generator[None, None, None]:
        self._start()
        return self._all().__await__()

    def __del__(self) -> None:
        if not self._started:
            warnings.warn(
                f"store.delete_many({self._bucket!r}, …) was never started, nothing was deleted:"
                " await it, or iterate it",
                ResourceWarning,
                stacklevel=2,
            )

    def _start(self) -> None:
        if self._started:
            raise BodyConsumedError("these deletions were done before: call delete_many again")
        self._started = True

    async def _all(self) -> None:
        # One request's failure is the error of all its keys: it is raised once.
        failures: dict[int, Exception] = {}
        async with aclosing(self._results()) as results:
            async for result in results:
                if result.error is not None:
                    failures[id(result.error)] = result.error
        if len(failures) == 1:
            raise next(iter(failures.values()))
        if failures:
            raise ExceptionGroup("some objects could not be deleted", list(failures.values()))

    async def _results(self) -> AsyncGenerator[DeleteResult, None]:
        async with aclosing(_batches(self._keys)) as batches:
            async for batch in batches:
                for result in await self._run(partial(self._delete, batch)):
                    yield result

    async def _delete(self, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete one batch; return the results in the order of the keys."""
        errors: dict[str, Exception | None] = {}
        groups: dict[str, tuple[Backend, list[str]]] = {}
        for key in dict.fromkeys(keys):
            try:
                backend = await self._resolve(key)
            except InvalidNameError as error:
                errors[key] = self._told(error, None, key)
            else:
                groups.setdefault(backend.name, (backend, []))[1].append(key)
        async with task_group() as group:
            for backend, chosen in groups.values():
                group.start_soon(self._delete_on, backend, chosen, errors)
        return [DeleteResult(key=key, error=errors[key]) for key in keys]

    async def _delete_on(
        self, backend: Backend, keys: Sequence[str], errors: dict[str, Exception | None]
    ) -> None:
        size = backend.capabilities.bulk_delete

        async def in_bulk(chunk: Sequence[str]) -> None:
            driver = cast("BulkDeleting", backend.driver)
            silent = BackendError("the backend did not tell what became of the object")
            found: dict[str, Exception | None] = dict.fromkeys(chunk, silent)
            try:
                results = await driver.delete_many(self._bucket, chunk)
            except TroveError as error:
                failure = await self._missing_or(error, backend)
                errors.update((key, failure) for key in chunk)
                return
            found.update((result.key, result.error) for result in results)
            errors.update((key, self._told(found[key], backend, key)) for key in chunk)

        async def single(key: str) -> None:
            try:
                await backend.driver.delete(self._bucket, key, DeleteOptions())
            except TroveError as error:
                errors[key] = self._told(await self._missing_or(error, backend), backend, key)
            else:
                errors[key] = None

        if size:
            for start in range(0, len(keys), size):
                await in_bulk(keys[start : start + size])
        else:
            await for_each(keys, single, limit=_LIMIT)

    async def _missing_or(self, error: TroveError, backend: Backend) -> TroveError | None:
        """Return the error; None where only this backend's bucket is missing, so the object is."""
        if isinstance(error, BucketNotFoundError) and await self._bucket_exists(self._bucket):
            return None
        return error.located(operation="delete_many", backend=backend.name, bucket=self._bucket)

    def _told(self, error: Exception | None, backend: Backend | None, key: str) -> Exception | None:
        if isinstance(error, TroveError):
            name = None if backend is None else backend.name
            error.located(operation="delete_many", backend=name, bucket=self._bucket, key=key)
        return error


async def _batches(
    keys: Iterable[str] | AsyncIterable[str],
) -> AsyncGenerator[Sequence[str], None]:
    batch: list[str] = []
    async with aclosing(_as_async(keys)) as given:
        async for key in given:
            batch.append(key)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


async def _as_async(
    keys: Iterable[str] | AsyncIterable[str],
) -> AsyncGenerator[str, None]:
    if isinstance(keys, AsyncIterable):
        given = aiter(keys)
        try:
            async for key in given:
                yield key
        finally:
            # A generator that was begun here is closed here, as a body's is.
            if isinstance(given, AsyncGenerator):
                await given.aclose()
    else:
        for key in keys:
            yield key
