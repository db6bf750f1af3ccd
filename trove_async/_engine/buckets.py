"""Logical buckets: one name, and a bucket of that name on each backend that needs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

from trove_async._concurrency import task_group
from trove_async.driver import places_of
from trove_async.errors import (
    BackendNotFoundError,
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    ObjectNotFoundError,
    TroveError,
)
from trove_async.models import BucketInfo
from trove_async.options import ListOptions
from trove_async.router import DEFAULT

from .backend_checks import check_writable
from .backends import Backend

T = TypeVar("T")

CreateMissing: TypeAlias = bool | Literal["auto"]

_ANY_KEY = "-"
"""An arbitrary key. Two buckets are physically the same if this key has the same place in both."""


class Buckets:
    """The buckets that one handle of a store sees.

    Args:
        find_backends: Returns the backends of the handle, the default (or the pinned one) first. It is called
            only where they are needed, because there may be many.
        create_missing: Whether a put creates a bucket that the default backend has and the object's
            backend lacks. ``"auto"``: only if the object's backend has the capability
            `private_namespace`.
    """

    def __init__(
        self, find_backends: Callable[[], Sequence[Backend]], create_missing: CreateMissing
    ) -> None:
        self._find_backends = find_backends
        self._create_missing = create_missing

    @property
    def _backends(self) -> Sequence[Backend]:
        return self._find_backends()

    async def create(
        self, bucket: str, *, exist_ok: bool, on: Iterable[str] | Literal["all"] | None
    ) -> None:
        """Create the bucket on the first backend, on all, or on the named ones, one after another."""
        created: list[str] = []
        backends = distinct(self._select(on), bucket)
        for backend in backends:
            check_writable(backend, "create a bucket")
        for backend in backends:
            try:
                await backend.driver.create_bucket(bucket)
            except TroveError as error:
                if exist_ok and isinstance(error, BucketExistsError):
                    continue
                if isinstance(error, BucketExistsError):
                    error.message = "the bucket already exists: pass exist_ok=True to accept that"
                if created:
                    error.message += f" (it was created on {', '.join(created)})"
                error.located(backend=backend.name, bucket=bucket)
                raise
            created.append(repr(backend.name))

    def _select(self, on: Iterable[str] | Literal["all"] | None) -> Sequence[Backend]:
        if on is None:
            return self._backends[:1]
        if on == "all":
            return self._backends
        by_name = {backend.name: backend for backend in self._backends}
        if isinstance(on, bytes) or not isinstance(on, Iterable):
            raise TypeError(f"backends must be names of backends, got {type(on).__name__}")
        names = [on] if isinstance(on, str) else list(on)
        if not names:
            raise ValueError(
                "backends must name at least one backend: omit it to create the bucket on the default one"
            )
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"a backend's name must be a str, got {type(name).__name__}")
            if name not in by_name:
                raise BackendNotFoundError(
                    f"no backend {name!r} to create the bucket on: there are {', '.join(map(repr, by_name))}"
                )
        return [by_name[name] for name in names]

    async def delete(self, bucket: str) -> None:
        """Delete the bucket on every backend, after checking that it is empty on all of them."""
        missing = BucketNotFoundError(
            "no backend has this bucket", operation="delete_bucket", bucket=bucket
        )
        # 1. Check all backends before the first deletion, so that an error leaves every bucket. A
        # read-only backend may lack the bucket, unless it is the only one.
        holders: list[Backend] = []
        backends = distinct(self._backends, bucket)
        if not any(backend.capabilities.writable for backend in backends):
            check_writable(backends[0], "delete a bucket")
        for backend in backends:
            try:
                await _check_deletable(backend, bucket)
            except BucketNotFoundError as error:
                missing.inside = missing.inside or error.inside
            else:
                holders.append(backend)
        if not holders:
            raise missing
        # 2. Delete. An error names the backends on which the bucket was already deleted.
        deleted: list[str] = []
        for backend in holders:
            try:
                await backend.driver.delete_bucket(bucket)
            except BucketNotFoundError:
                continue  # deleted concurrently: the result is the same
            except TroveError as error:
                if deleted:
                    error.message += f" (it was already deleted on {', '.join(deleted)})"
                error.located(backend=backend.name, bucket=bucket)
                raise
            deleted.append(repr(backend.name))

    async def list(self) -> Sequence[BucketInfo]:
        """Return the union of all backends' buckets, sorted by name."""
        infos_by_backend: dict[str, Sequence[BucketInfo]] = {}

        async def request(backend: Backend) -> None:
            infos_by_backend[backend.name] = await backend.driver.list_buckets()

        async with task_group() as group:
            for backend in self._backends:
                group.start_soon(request, backend)
        merged: dict[str, BucketInfo] = {}
        for backend in self._backends:
            for info in infos_by_backend[backend.name]:
                earlier = merged.get(info.name, info)
                merged[info.name] = BucketInfo(
                    name=info.name,
                    created=earlier.created or info.created,
                    backends=(*earlier.backends, backend.name),
                )
        return [merged[name] for name in sorted(merged)]

    async def exists_anywhere(self, bucket: str) -> bool:
        """Return whether any backend has the bucket.

        Raises:
            TroveError: A backend failed, and no other one has the bucket.
        """
        failure: TroveError | None = None
        for backend in self._backends:
            try:
                if await _has_bucket(backend, bucket):
                    return True
            except TroveError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return False

    async def distinguish_missing(
        self, bucket: str, key: str, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Run `work`. If its backend lacks the bucket but another has it, raise ObjectNotFoundError.

        A logical bucket exists if any backend has it: the other backends have no objects in it yet.
        """
        try:
            return await work()
        except BucketNotFoundError as error:
            if not await self.exists_anywhere(bucket):
                raise
            raise ObjectNotFoundError(
                "no such object", backend=error.backend, bucket=bucket, key=key
            ) from error

    async def create_if_missing(
        self, backend: Backend, bucket: str, error: BucketNotFoundError
    ) -> None:
        """Create the bucket that a put found missing on `backend`, or raise with advice.

        It is created only if the default backend has a bucket of that name, which shows that the
        user created the logical bucket, and only if `create_missing` allows it on this backend.
        """
        # 1. The logical bucket must exist.
        error.located(backend=backend.name, bucket=bucket)
        if not error.creatable:
            raise error
        default = self._backends[0]
        handle = "store" if default.name == DEFAULT else f"store.backend({default.name!r})"
        advice = f"await {handle}.create_bucket({bucket!r}) first"
        if backend is default:
            error.message = f"no such bucket: {advice}"
            raise error
        if not await _has_bucket(default, bucket):
            error.message = f"no such bucket on this backend or on the default one: {advice}"
            raise error
        # 2. `create_missing` must allow it on this backend.
        allowed = self._create_missing
        if allowed == "auto":
            allowed = backend.capabilities.private_namespace
        if not allowed:
            error.message = (
                f"no such bucket on this backend: create it there (create_bucket({bucket!r},"
                f" backends=[{backend.name!r}])), map it to an existing one (Mapped), or create the store with"
                " create_missing_buckets=True"
            )
            raise error
        # 3. Create it.
        try:
            await backend.driver.create_bucket(bucket)
        except BucketExistsError:
            return  # created by a concurrent put: the result is the same


def distinct(backends: Iterable[Backend], bucket: str) -> Sequence[Backend]:
    """Return one backend, the first, for each physically distinct bucket."""
    by_place: dict[Hashable, Backend] = {}
    for backend in backends:
        by_place.setdefault(backend.driver.place(bucket, _ANY_KEY), backend)
    return list(by_place.values())


def homes(backends: Iterable[Backend], bucket: str) -> Mapping[str, Backend]:
    """Return for each backend's name the first backend that has the bucket at the same physical places.

    A layer of several drivers is not the same as its primary: it may list what only another member has.
    """
    by_places: dict[Hashable, Backend] = {}
    return {
        backend.name: by_places.setdefault(
            tuple(places_of(backend.driver, bucket, _ANY_KEY)), backend
        )
        for backend in backends
    }


async def _has_bucket(backend: Backend, bucket: str) -> bool:
    try:
        await backend.driver.head_bucket(bucket)
    except BucketNotFoundError:
        return False
    return True


async def _check_deletable(backend: Backend, bucket: str) -> None:
    """Raise if the backend lacks the bucket or is read-only, or the bucket is not empty."""
    if not backend.capabilities.writable:
        await backend.driver.head_bucket(bucket)
        check_writable(backend, "delete a bucket")
    page = await backend.driver.list_page(bucket, ListOptions(limit=1))
    if page.entries:
        raise BucketNotEmptyError(
            f"the bucket must be empty, but contains {page.entries[0].key!r}; nothing was deleted",
            operation="delete_bucket",
            backend=backend.name,
            bucket=bucket,
        )
