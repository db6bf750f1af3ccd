"""Deletes many objects: grouped by backend, in bulk where supported, with one result per key."""

from __future__ import annotations

import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Protocol, TypeAlias, cast

from trove_async._concurrency import for_each, task_group
from trove_async.driver import BulkDeleting
from trove_async.errors import (
    BackendError,
    BodyConsumedError,
    BucketNotFoundError,
    InvalidNameError,
    NotSupportedError,
    TroveError,
    UnavailableError,
)
from trove_async.models import DeleteResult
from trove_async.options import DeleteOptions

from .backend_checks import check_writable
from .backends import Backend
from .placement import Placement

_Groups: TypeAlias = dict[str, tuple[Backend, list[str]]]
"""Keys by the name of a backend."""

_BATCH = 1000
"""Number of keys taken at a time: the maximum of one S3 request (API Reference, DeleteObjects)."""

_MAX_REQUESTS = 16
"""Maximum number of concurrent requests to a backend that deletes one key per request."""


class Run(Protocol):
    """Runs work as one operation of the store. See `Runtime.run`."""

    def __call__(
        self, work: Callable[[], Awaitable[Sequence[DeleteResult]]], /
    ) -> Awaitable[Sequence[DeleteResult]]:
        """Return what `work` returns."""
        ...


class Deletion:
    """The deletion of many objects. Iterate over it for one result per key, or await it to raise errors.

    Either starts the deletion, which runs only once. It takes and deletes a thousand keys at a time.
    Objects that it has not reached when it is cancelled are not deleted.

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
        resolve: Callable[[str], Awaitable[Sequence[Backend]]],
        bucket_exists: Callable[[str], Awaitable[bool]],
        run: Run,
        *,
        guard: Callable[[Sequence[str]], AbstractAsyncContextManager[None]],
        placement: Placement | None = None,
    ) -> None:
        self._started = True  # do not warn if the constructor raises
        check_keys(keys)
        self._bucket = bucket
        self._keys = keys
        self._resolve = resolve
        self._bucket_exists = bucket_exists
        self._run = run
        self._guard = guard
        self._placement = placement
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
                " await it, or iterate over it",
                ResourceWarning,
                stacklevel=2,
            )

    def _start(self) -> None:
        if self._started:
            raise BodyConsumedError("this deletion has already started: call delete_many again")
        self._started = True

    async def _all(self) -> None:
        # All keys of a failed bulk request share one error: raise it once.
        failures: dict[int, Exception] = {}
        async with aclosing(self._results()) as results:
            async for result in results:
                if result.error is not None:
                    failures[id(result.error)] = result.error
        raise_failures(failures.values())

    async def _results(self) -> AsyncGenerator[DeleteResult, None]:
        async with aclosing(_batches(self._keys)) as batches:
            async for batch in batches:
                results = await self._run(partial(self._delete, batch))
                for result in results:
                    yield result

    async def _delete(self, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete one batch and return the results in the order of the keys."""
        async with self._guard(keys):
            if self._placement is None:
                return await self._delete_now(keys)
            async with self._placement.hold(self._bucket, keys):
                return await self._delete_now(keys)

    async def _delete_now(self, keys: Sequence[str]) -> Sequence[DeleteResult]:
        errors: dict[str, Exception | None] = {}
        rounds: list[_Groups] = []
        for key in dict.fromkeys(keys):
            try:
                *others, last = await self._resolve(key)
            except (InvalidNameError, NotSupportedError, UnavailableError) as error:
                errors[key] = self._located(error, None, key)
                continue
            # The object that a get returns is deleted last: the routed backend's or, if that has none, the
            # first one of the others. A deletion that fails ends those of the key, so it reveals no object.
            for position, backend in enumerate((*reversed(others), last)):
                if position == len(rounds):
                    rounds.append({})
                rounds[position].setdefault(backend.name, (backend, []))[1].append(key)
        for groups in rounds:
            remaining = {
                name: (backend, [key for key in group if errors.get(key) is None])
                for name, (backend, group) in groups.items()
            }
            await self._delete_groups(remaining, errors)
        return [DeleteResult(key=key, error=errors[key]) for key in keys]

    async def _delete_groups(self, groups: _Groups, errors: dict[str, Exception | None]) -> None:
        """Delete the keys of all groups, and add the first error of each key."""
        results: list[dict[str, Exception | None]] = []
        async with task_group() as group:
            for backend, keys in groups.values():
                results.append({})
                group.start_soon(self._delete_on, backend, keys, results[-1])
        for result in results:
            for key, error in result.items():
                errors[key] = errors.get(key) or error

    async def _delete_on(
        self, backend: Backend, keys: Sequence[str], errors: dict[str, Exception | None]
    ) -> None:
        max_keys = backend.capabilities.bulk_delete
        try:
            check_writable(backend, "delete objects")
        except NotSupportedError as refusal:
            errors.update(dict.fromkeys(keys, self._located(refusal, backend, None)))
            return

        # 1. Define how to delete a batch of keys, and a single one.
        async def delete_in_bulk(batch: Sequence[str]) -> None:
            driver = cast("BulkDeleting", backend.driver)
            try:
                results = await driver.delete_many(self._bucket, batch)
            except TroveError as error:
                failure = await self._failure_of(error, backend)
                errors.update((key, failure) for key in batch)
                return
            reported = {result.key: result.error for result in results}
            for key in batch:
                error_of_key = reported[key] if key in reported else _unreported_error()
                errors[key] = self._located(error_of_key, backend, key)

        async def delete_one(key: str) -> None:
            try:
                await backend.driver.delete(self._bucket, key, DeleteOptions())
            except TroveError as error:
                errors[key] = self._located(await self._failure_of(error, backend), backend, key)
            else:
                errors[key] = None

        # 2. Delete in bulk, one request after another, if the backend supports it.
        if max_keys:
            for start in range(0, len(keys), max_keys):
                await delete_in_bulk(keys[start : start + max_keys])
        else:
            await for_each(keys, delete_one, limit=_MAX_REQUESTS)

    async def _failure_of(self, error: TroveError, backend: Backend) -> TroveError | None:
        """Return the error of a request, or None if it proves that the object does not exist.

        A missing bucket proves it if another backend has the bucket.
        """
        if isinstance(error, BucketNotFoundError) and await self._bucket_exists(self._bucket):
            return None
        return error.located(operation="delete_many", backend=backend.name, bucket=self._bucket)

    def _located(
        self, error: Exception | None, backend: Backend | None, key: str | None
    ) -> Exception | None:
        if isinstance(error, TroveError):
            name = None if backend is None else backend.name
            error.located(operation="delete_many", backend=name, bucket=self._bucket, key=key)
        return error


def _unreported_error() -> BackendError:
    return BackendError("the service reported no result for this object: delete it again")


def check_keys(keys: object) -> None:
    """Raise TypeError if `keys` is not an iterable of keys."""
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable | AsyncIterable):
        raise TypeError(
            f"keys must be an iterable of keys, got {type(keys).__name__}: pass [key] for a single one"
        )


def raise_failures(failures: Collection[Exception]) -> None:
    """Raise the errors of a deletion: a single one itself, several as an ExceptionGroup."""
    if len(failures) == 1:
        raise next(iter(failures))
    if failures:
        raise ExceptionGroup("some objects could not be deleted", list(failures))


async def _batches(
    keys: Iterable[str] | AsyncIterable[str],
) -> AsyncGenerator[Sequence[str], None]:
    batch: list[str] = []
    async with aclosing(_as_async(keys)) as iterator:
        async for key in iterator:
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
        iterator = aiter(keys)
        try:
            async for key in iterator:
                yield key
        finally:
            # Close a generator even if not all of its keys were taken.
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
    else:
        for key in keys:
            yield key
