"""`ReadOnly`: refuses every write to a backend."""

# ruff: noqa: ARG002 - the contract names the arguments, and a refusal needs none of them

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from trove_async.driver import AsyncDriver, Capabilities, Origin, Upload
from trove_async.errors import NotSupportedError
from trove_async.models import DeleteResult, ObjectInfo
from trove_async.options import CopyOptions, DeleteOptions, PresignOptions, PutOptions, Repaired

from ._forwarding import Forwarding
from ._urls import as_driver


class ReadOnly(Forwarding):
    """A layer that refuses every write with NotSupportedError, before any I/O.

    Puts, uploads, deletes, copies to this backend, moves from it, the creation and deletion of buckets,
    and presigned URLs for PUT are refused. The body of a put is not read. Everything else is
    forwarded.

    A LocalDriver below this layer creates and changes nothing when it is opened, even if this process
    may write to its root. So a directory that is mounted read-only, or that belongs to another program,
    can be a backend. This does not apply to a driver that the store also reaches without `ReadOnly`, or
    below a layer with several drivers, such as one with a cache.

    The layer protects from writes through this backend. Other clients of the service can still write,
    and so can another backend of the store with the same driver.

    Args:
        driver: The driver to read, or its URL. It may be a layer.

    Raises:
        TypeError: `driver` is not a driver.
        ConfigError: The URL is not valid.

    Example:
        >>> from trove_async.drivers import LocalDriver
        >>> dataset = ReadOnly(LocalDriver("/mnt/dataset"))
    """

    def __init__(self, driver: AsyncDriver | str) -> None:
        super().__init__("ReadOnly", as_driver(driver))

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the wrapped driver, with `Capabilities.writable` False."""
        return replace(super().capabilities, writable=False)

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Raise NotSupportedError."""
        raise _refusal("store an object")

    def unwrap(self, bucket: str, key: str) -> Origin:
        """Return the wrapped driver, and the same names. See `Unwrapping`."""
        return Origin(self._driver, bucket, key)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Raise NotSupportedError."""
        raise _refusal("delete an object")

    async def create_bucket(self, bucket: str) -> None:
        """Raise NotSupportedError."""
        raise _refusal("create a bucket")

    async def delete_bucket(self, bucket: str) -> None:
        """Raise NotSupportedError."""
        raise _refusal("delete a bucket")

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Raise NotSupportedError."""
        raise _refusal("store an object")

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Raise NotSupportedError."""
        raise _refusal("store a copy")

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Raise NotSupportedError."""
        raise _refusal("delete objects")

    async def repair(self, bucket: str, key: str) -> Repaired:
        """Raise NotSupportedError."""
        raise _refusal("repair replicas")

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Return a presigned URL for a read. Raise NotSupportedError for a PUT."""
        if method != "GET":
            raise _refusal("presign a write")
        return await super().presign(method, bucket, key, expires, options)


def _refusal(action: str) -> NotSupportedError:
    return NotSupportedError(f"a read-only backend (ReadOnly) cannot {action}; nothing was done")
