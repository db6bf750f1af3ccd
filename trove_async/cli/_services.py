"""The services below a store's backends, for what only some services have: unfinished uploads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from trove_async.driver import AsyncDriver, Layer
from trove_async.errors import BucketNotFoundError
from trove_async.layers import Mapped
from trove_async.store import Trove


@runtime_checkable
class KeepsUploads(Protocol):
    """A driver whose service keeps uploads that were neither completed nor aborted."""

    async def gc_uploads(self, bucket: str, *, older_than: float) -> int:
        """Abort unfinished uploads. Return their number."""
        ...

    async def unfinished_uploads(self, bucket: str) -> Sequence[datetime]:
        """Return when unfinished uploads began."""
        ...


@dataclass(frozen=True, slots=True)
class UploadBucket:
    """A bucket of a service that keeps unfinished uploads.

    Attributes:
        backend: The name of the backend.
        driver: The driver of the service.
        name: The name of the bucket in the service.
    """

    backend: str
    driver: KeepsUploads
    name: str


def upload_buckets(store: Trove, bucket: str) -> Sequence[UploadBucket]:
    """Return the buckets of services that hold a bucket of a store, as far as they keep unfinished uploads."""
    drivers = store._core.backends  # noqa: SLF001 - the command line is part of the library
    return [
        UploadBucket(backend, driver, name)
        for backend in store.backends
        for driver, name in _below(drivers.driver(backend), bucket)
    ]


def _below(driver: AsyncDriver, bucket: str) -> Iterator[tuple[KeepsUploads, str]]:
    if isinstance(driver, KeepsUploads):
        yield driver, bucket
    if not isinstance(driver, Layer):
        return
    if isinstance(driver, Mapped):
        try:
            bucket = driver.physical_bucket(bucket)
        except BucketNotFoundError:
            return
    for inner in driver.inner:
        yield from _below(inner, bucket)
