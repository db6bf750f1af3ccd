"""The two mappings of `Mapped`: a physical bucket for each logical bucket, or one for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal, Protocol

from trove_async._names import MAX_BUCKET_BYTES, MAX_KEY_BYTES, check_bucket, check_key
from trove_async.driver import AsyncDriver, Capabilities
from trove_async.errors import (
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    ConfigError,
    InvalidNameError,
    NotSupportedError,
    ObjectExistsError,
    ObjectNotFoundError,
)
from trove_async.models import BucketInfo, ObjectInfo, Prefix
from trove_async.options import DeleteOptions, ListOptions, PutOptions
from trove_async.paging import TokenCycle

_MARKERS = ".trove"
"""The folder of all markers, on a service that cannot store a marker in the folder of its bucket."""

_MAX_CACHED = 1024
"""Maximum number of cached names of existing buckets."""


class Namespace(Protocol):
    """A mapping of logical buckets to physical ones."""

    @property
    def inside(self) -> str | None:
        """The physical bucket that holds all logical buckets, or None if each has its own."""
        ...

    def locate(self, bucket: str) -> tuple[str, str]:
        """Return the physical bucket, and the prefix of the bucket's keys in it. Does no I/O.

        Raises:
            BucketNotFoundError: The bucket is not mapped.
            InvalidNameError: The name is reserved.
        """
        ...

    def capabilities(self, inner: Capabilities) -> Capabilities:
        """Return the capabilities of a driver behind this mapping."""
        ...

    def forget(self) -> None:
        """Clear the cache of existing buckets."""
        ...

    async def require(self, driver: AsyncDriver, bucket: str) -> None:
        """Raise BucketNotFoundError if the bucket does not exist.

        A cached result may be used. A mapping skips the check if the calls of the driver raise the
        error themselves.
        """
        ...

    async def create(self, driver: AsyncDriver, bucket: str) -> None:
        """Create the bucket, as `AsyncDriver.create_bucket`."""
        ...

    async def delete(self, driver: AsyncDriver, bucket: str) -> None:
        """Delete the empty bucket, as `AsyncDriver.delete_bucket`."""
        ...

    async def head(self, driver: AsyncDriver, bucket: str) -> BucketInfo:
        """Return the bucket's info, as `AsyncDriver.head_bucket`."""
        ...

    async def list(self, driver: AsyncDriver) -> Sequence[BucketInfo]:
        """Return the buckets sorted by name, as `AsyncDriver.list_buckets`."""
        ...


class RenamedBuckets:
    """Each logical bucket is a physical bucket with a different name."""

    inside = None

    def __init__(self, names: Mapping[str, str]) -> None:
        if not isinstance(names, Mapping):
            raise TypeError(f"buckets must map names to names, got {type(names).__name__}")
        self._physical = dict(names)
        for logical, physical in self._physical.items():
            _check_bucket_setting(logical)
            _check_bucket_setting(physical)
        self._logical = {physical: logical for logical, physical in self._physical.items()}
        if len(self._logical) < len(self._physical):
            raise ConfigError(
                "each bucket must have its own physical bucket, got the same one for two buckets: to"
                " share one, use into="
            )

    def locate(self, bucket: str) -> tuple[str, str]:
        physical = self._physical.get(bucket)
        if physical is None:
            error = BucketNotFoundError(_not_mapped(bucket), bucket=bucket)
            error.creatable = False
            raise error
        return physical, ""

    def capabilities(self, inner: Capabilities) -> Capabilities:
        return inner

    def forget(self) -> None:
        """Do nothing: nothing is cached."""

    async def require(self, driver: AsyncDriver, bucket: str) -> None:
        """Do nothing: the driver raises the error itself."""

    async def create(self, driver: AsyncDriver, bucket: str) -> None:
        if bucket not in self._physical:
            raise InvalidNameError(_not_mapped(bucket), bucket=bucket)
        await driver.create_bucket(self._physical[bucket])

    async def delete(self, driver: AsyncDriver, bucket: str) -> None:
        await driver.delete_bucket(self.locate(bucket)[0])

    async def head(self, driver: AsyncDriver, bucket: str) -> BucketInfo:
        return replace(await driver.head_bucket(self.locate(bucket)[0]), name=bucket)

    async def list(self, driver: AsyncDriver) -> Sequence[BucketInfo]:
        found = [
            replace(info, name=self._logical[info.name])
            for info in await driver.list_buckets()
            if info.name in self._logical
        ]
        return sorted(found, key=lambda info: info.name)


class Folders:
    """Each logical bucket is a folder of one physical bucket: the keys that start with its name and "/".

    A bucket exists if its folder contains an object. So that a bucket can be empty, create_bucket stores
    a *marker* in it: an empty object under the name of the folder with its slash. No key of a user maps
    to the marker. A folder that other tools filled is a bucket without a marker. An object that is put
    while delete_bucket deletes the marker is not lost, because it keeps the bucket in existence.

    Services that store keys as file paths (SeaweedFS) cannot store such a key. There, the marker is
    in a separate folder of markers, whose name is not allowed for buckets.
    """

    def __init__(self, into: str, prefix: str) -> None:
        _check_bucket_setting(into)
        self._into = into
        self._prefix = prefix if not prefix or prefix.endswith("/") else prefix + "/"
        self._prefix_bytes = len(self._prefix.encode())
        if prefix:
            _check_prefix_setting(into, self._prefix)
        # Existing buckets, cached so that a put takes no extra request. If another process has deleted
        # a cached bucket, a put creates it again.
        self._existing: set[str] = set()

    @property
    def inside(self) -> str:
        return self._into

    def locate(self, bucket: str) -> tuple[str, str]:
        if bucket == _MARKERS:
            raise InvalidNameError(
                f"{_MARKERS!r} is reserved for markers: choose a different name", bucket=bucket
            )
        return self._into, f"{self._prefix}{bucket}/"

    def _marker_keys(self, bucket: str) -> tuple[str, str]:
        """Return the possible keys of the bucket's marker: in its folder, and in the folder of markers."""
        return self.locate(bucket)[1], f"{self._prefix}{_MARKERS}/{bucket}"

    def capabilities(self, inner: Capabilities) -> Capabilities:
        # A key must fit behind the longest bucket name.
        max_key_bytes = inner.max_key_bytes - self._prefix_bytes - MAX_BUCKET_BYTES - len("/")
        if max_key_bytes < 1:
            raise ConfigError(
                f"the prefix must leave room for keys, which have at most {inner.max_key_bytes} bytes on the backend"
            )
        return replace(inner, private_namespace=True, max_key_bytes=max_key_bytes)

    def forget(self) -> None:
        self._existing.clear()

    async def require(self, driver: AsyncDriver, bucket: str) -> None:
        if bucket not in self._existing:
            await self.head(driver, bucket)

    async def create(self, driver: AsyncDriver, bucket: str) -> None:
        # 1. A folder that other tools filled is a bucket, although it has no marker.
        try:
            await self.head(driver, bucket)
        except BucketNotFoundError:
            pass
        else:
            raise BucketExistsError("the bucket already exists", bucket=bucket)
        # 2. Create the marker. If the physical bucket is missing, create that first.
        try:
            await self._create_marker(driver, bucket)
        except ObjectExistsError as error:
            raise BucketExistsError("the bucket already exists", bucket=bucket) from error
        except BucketNotFoundError as error:
            if not driver.capabilities.private_namespace:
                raise BucketNotFoundError(
                    f"the bucket {self._into!r} that buckets are mapped into does not exist:"
                    " create it first, because bucket names are global on this service",
                    bucket=bucket,
                ) from error
            await self._create_physical(driver)
            await self._create_marker(driver, bucket)
        self._cache(bucket)

    async def _create_marker(self, driver: AsyncDriver, bucket: str) -> None:
        if driver.capabilities.put_if_none_match:
            with suppress(NotSupportedError):  # the service does not support conditions
                return await self._put_marker(driver, bucket, if_none_match="*")
        return await self._put_marker(driver, bucket, if_none_match=None)

    async def _put_marker(
        self, driver: AsyncDriver, bucket: str, if_none_match: Literal["*"] | None
    ) -> None:
        options = PutOptions(size=0, if_none_match=if_none_match)
        folder_key, marker_key = self._marker_keys(bucket)
        try:
            await driver.put(self._into, folder_key, [], options)
        except InvalidNameError:
            await driver.put(self._into, marker_key, [], options)

    async def _head_marker(self, driver: AsyncDriver, bucket: str) -> ObjectInfo:
        for key in self._marker_keys(bucket):
            with suppress(ObjectNotFoundError, InvalidNameError):
                return await driver.head(self._into, key)
        raise BucketNotFoundError(
            "the bucket does not exist: create it with create_bucket", bucket=bucket
        )

    async def _create_physical(self, driver: AsyncDriver) -> None:
        try:
            await driver.create_bucket(self._into)
        except BucketExistsError:
            return  # another process has just created it

    async def delete(self, driver: AsyncDriver, bucket: str) -> None:
        physical, folder = self.locate(bucket)
        # Uncache the bucket first, so that every put from now on checks that it exists.
        self._existing.discard(bucket)
        options = ListOptions(prefix=folder, start_after=folder, limit=1)
        if (await driver.list_page(physical, options)).entries:
            raise BucketNotEmptyError("the bucket must be empty, but has objects", bucket=bucket)
        marker = await self._head_marker(driver, bucket)
        await driver.delete(physical, marker.key, DeleteOptions())
        # Discard it again: a concurrent call may have cached it before the marker was deleted.
        self._existing.discard(bucket)

    async def head(self, driver: AsyncDriver, bucket: str) -> BucketInfo:
        physical, folder = self.locate(bucket)
        page = await driver.list_page(physical, ListOptions(prefix=folder, limit=1))
        if not page.entries:
            marker = await self._head_marker(driver, bucket)
            self._cache(bucket)
            return BucketInfo(name=bucket, created=marker.last_modified)
        self._cache(bucket)
        first = page.entries[0]
        # Only a marker has the date of the bucket's creation.
        if isinstance(first, Prefix) or first.key != folder:
            return BucketInfo(name=bucket)
        return BucketInfo(name=bucket, created=first.last_modified)

    async def list(self, driver: AsyncDriver) -> Sequence[BucketInfo]:
        names = await self._names_below(driver, self._prefix)
        folders = {name.removesuffix("/") for name in names} - {_MARKERS}
        if f"{_MARKERS}/" in names:
            marked = await self._names_below(driver, f"{self._prefix}{_MARKERS}/")
            # A service that needs this folder also lists folders that are empty.
            nonempty = {name for name in folders - marked if await self._exists(driver, name)}
            folders = marked | nonempty
        return [BucketInfo(name=name) for name in sorted(filter(_is_bucket_name, folders))]

    async def _exists(self, driver: AsyncDriver, bucket: str) -> bool:
        try:
            await self.head(driver, bucket)
        except (BucketNotFoundError, InvalidNameError):
            return False
        return True

    async def _names_below(self, driver: AsyncDriver, prefix: str) -> set[str]:
        """Return the names directly below the prefix: folders, each with its slash, or else markers."""
        names: set[str] = set()
        options = ListOptions(prefix=prefix, delimiter="/")
        cycle = TokenCycle()
        while True:
            try:
                page = await driver.list_page(self._into, options)
            except BucketNotFoundError:
                if driver.capabilities.private_namespace:
                    return names  # the first create_bucket creates the physical bucket
                raise
            for entry in page.entries:
                name = entry.prefix if isinstance(entry, Prefix) else entry.key
                if isinstance(entry, Prefix) or prefix != self._prefix:
                    names.add(name[len(prefix) :])
            if page.token is None:
                return names
            cycle.check(page.token, empty=not page.entries)
            options = replace(options, token=page.token)

    def _cache(self, bucket: str) -> None:
        # Clearing is simpler than evicting the oldest, and costs only one request per bucket.
        if len(self._existing) >= _MAX_CACHED:
            self._existing.clear()
        self._existing.add(bucket)


def _not_mapped(bucket: str) -> str:
    return f"the bucket is not mapped: add it to Mapped(buckets={{{bucket!r}: …}})"


def _is_bucket_name(name: str) -> bool:
    """Return whether a folder's name is a valid bucket name."""
    try:
        check_bucket(name)
    except InvalidNameError:
        return False
    return True


def _check_bucket_setting(bucket: str) -> None:
    try:
        check_bucket(bucket)
    except InvalidNameError as error:
        raise ConfigError(f"Mapped: {error}") from error


def _check_prefix_setting(into: str, prefix: str) -> None:
    try:
        check_key(into, prefix, MAX_KEY_BYTES)
    except InvalidNameError as error:
        raise ConfigError(f"Mapped: invalid prefix: {error.message}") from error
