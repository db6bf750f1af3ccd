"""The two ways in which `Mapped` keeps logical buckets: each in a physical one, or all in one."""

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
"""The folder of the markers that do not fit their own."""

_REMEMBERED = 1024
"""Buckets known to exist that are remembered at once."""


class Namespace(Protocol):
    """Where logical buckets lie, and what making and deleting one means."""

    @property
    def inside(self) -> str | None:
        """The physical bucket that holds all of them; None: each has one of its own."""
        ...

    def locate(self, bucket: str) -> tuple[str, str]:
        """Return the physical bucket, and what every key has in front there. No I/O."""
        ...

    def capabilities(self, inner: Capabilities) -> Capabilities:
        """Return what can be honoured through the mapping."""
        ...

    def forget(self) -> None:
        """Take nothing for known any more."""
        ...

    async def require(self, driver: AsyncDriver, bucket: str) -> None:
        """Raise BucketNotFoundError if the bucket is known to be missing.

        A bucket that was there before may be taken to be there still; one whose absence the
        driver itself notices in any call need not be looked for.
        """
        ...

    async def create(self, driver: AsyncDriver, bucket: str) -> None:
        """Make the bucket, as `AsyncDriver.create_bucket`."""
        ...

    async def delete(self, driver: AsyncDriver, bucket: str) -> None:
        """Delete the empty bucket, as `AsyncDriver.delete_bucket`."""
        ...

    async def head(self, driver: AsyncDriver, bucket: str) -> BucketInfo:
        """Return what is known of the bucket, as `AsyncDriver.head_bucket`."""
        ...

    async def list(self, driver: AsyncDriver) -> Sequence[BucketInfo]:
        """Return the buckets sorted by name, as `AsyncDriver.list_buckets`."""
        ...


class Renamed:
    """Each logical bucket is a physical one of another name; there are no others."""

    inside = None

    def __init__(self, names: Mapping[str, str]) -> None:
        self._physical = dict(names)
        for logical, physical in self._physical.items():
            _check_configured(logical)
            _check_configured(physical)
        self._logical = {physical: logical for logical, physical in self._physical.items()}
        if len(self._logical) < len(self._physical):
            raise ConfigError("two buckets are mapped to one: give each its own, or use into=")

    def locate(self, bucket: str) -> tuple[str, str]:
        physical = self._physical.get(bucket)
        if physical is None:
            raise BucketNotFoundError("the bucket is not among the mapped ones", bucket=bucket)
        return physical, ""

    def capabilities(self, inner: Capabilities) -> Capabilities:
        return inner

    def forget(self) -> None:
        """Do nothing: nothing was looked up."""

    async def require(self, driver: AsyncDriver, bucket: str) -> None:
        """Do nothing: the driver notices."""

    async def create(self, driver: AsyncDriver, bucket: str) -> None:
        if bucket not in self._physical:
            raise InvalidNameError(
                f"the bucket has no physical name here: add it to Mapped(buckets={{{bucket!r}: …}})",
                bucket=bucket,
            )
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
    """Every logical bucket is a folder of one physical bucket: what begins with its name and "/".

    The folder's own key, with nothing after the slash, is no key that a user can name: an empty
    object there marks a bucket that may have no others. A folder with objects and no such marker,
    filled by other hands, is a bucket as well; so a put that meets a concurrent delete_bucket
    loses nothing, it keeps the bucket.

    Services that keep keys as paths of files (SeaweedFS) hold no such key. There the marker lies in
    a folder of markers, whose name no bucket may have.
    """

    def __init__(self, into: str, prefix: str) -> None:
        _check_configured(into)
        self._into = into
        self._prefix = prefix if not prefix or prefix.endswith("/") else prefix + "/"
        self._before = len(self._prefix.encode())
        if prefix:
            _check_configured_prefix(into, self._prefix)
        # Buckets seen to exist: a put must not cost a look-up. One that another process deletes
        # meanwhile comes back by such a put, as it would by one that was a moment earlier.
        self._known: set[str] = set()

    @property
    def inside(self) -> str:
        return self._into

    def locate(self, bucket: str) -> tuple[str, str]:
        if bucket == _MARKERS:
            raise InvalidNameError(
                f"{_MARKERS!r} is kept for markers: choose another", bucket=bucket
            )
        return self._into, f"{self._prefix}{bucket}/"

    def _markers_of(self, bucket: str) -> tuple[str, str]:
        """Return where the bucket's marker may be: in its folder, or else among the markers."""
        return self.locate(bucket)[1], f"{self._prefix}{_MARKERS}/{bucket}"

    def capabilities(self, inner: Capabilities) -> Capabilities:
        # What fits behind the longest name of a bucket fits behind any.
        left = inner.max_key_bytes - self._before - MAX_BUCKET_BYTES - len("/")
        if left < 1:
            raise ConfigError(
                f"the prefix leaves no room for keys: {inner.max_key_bytes} bytes are all there is"
            )
        return replace(inner, private_namespace=True, max_key_bytes=left)

    def forget(self) -> None:
        self._known.clear()

    async def require(self, driver: AsyncDriver, bucket: str) -> None:
        if bucket not in self._known:
            await self.head(driver, bucket)

    async def create(self, driver: AsyncDriver, bucket: str) -> None:
        try:
            await self.head(driver, bucket)
        except BucketNotFoundError:
            pass
        else:
            raise BucketExistsError("the bucket exists", bucket=bucket)
        try:
            await self._mark(driver, bucket)
        except ObjectExistsError as error:
            raise BucketExistsError("the bucket exists", bucket=bucket) from error
        except BucketNotFoundError as error:
            if not driver.capabilities.private_namespace:
                raise BucketNotFoundError(
                    f"the bucket {self._into!r} that buckets are mapped into does not exist, and"
                    " its name is not ours to take: make it first",
                    bucket=bucket,
                ) from error
            await self._make_physical(driver)
            await self._mark(driver, bucket)
        self._remember(bucket)

    async def _mark(self, driver: AsyncDriver, bucket: str) -> None:
        if driver.capabilities.put_if_none_match:
            with suppress(NotSupportedError):  # the service turned out to ignore conditions
                return await self._put_marker(driver, bucket, if_none_match="*")
        return await self._put_marker(driver, bucket, if_none_match=None)

    async def _put_marker(
        self, driver: AsyncDriver, bucket: str, if_none_match: Literal["*"] | None
    ) -> None:
        options = PutOptions(size=0, if_none_match=if_none_match)
        inside, aside = self._markers_of(bucket)
        try:
            await driver.put(self._into, inside, [], options)
        except InvalidNameError:
            await driver.put(self._into, aside, [], options)

    async def _marker(self, driver: AsyncDriver, bucket: str) -> ObjectInfo:
        for key in self._markers_of(bucket):
            with suppress(ObjectNotFoundError, InvalidNameError):
                return await driver.head(self._into, key)
        raise BucketNotFoundError("no such bucket: create_bucket makes it", bucket=bucket)

    async def _make_physical(self, driver: AsyncDriver) -> None:
        try:
            await driver.create_bucket(self._into)
        except BucketExistsError:
            return  # somebody made it meanwhile

    async def delete(self, driver: AsyncDriver, bucket: str) -> None:
        physical, folder = self.locate(bucket)
        self._known.discard(bucket)
        content = ListOptions(prefix=folder, start_after=folder, limit=1)
        if (await driver.list_page(physical, content)).entries:
            raise BucketNotEmptyError("the bucket has objects", bucket=bucket)
        marker = await self._marker(driver, bucket)
        await driver.delete(physical, marker.key, DeleteOptions())
        self._known.discard(bucket)  # who asked before the marker was gone may have noted it

    async def head(self, driver: AsyncDriver, bucket: str) -> BucketInfo:
        physical, folder = self.locate(bucket)
        page = await driver.list_page(physical, ListOptions(prefix=folder, limit=1))
        if not page.entries:
            marker = await self._marker(driver, bucket)
            self._remember(bucket)
            return BucketInfo(name=bucket, created=marker.last_modified)
        self._remember(bucket)
        first = page.entries[0]
        if isinstance(first, Prefix) or first.key != folder:
            return BucketInfo(name=bucket)
        return BucketInfo(name=bucket, created=first.last_modified)

    async def list(self, driver: AsyncDriver) -> Sequence[BucketInfo]:
        names = await self._below(driver, self._prefix)
        folders = {name.removesuffix("/") for name in names} - {_MARKERS}
        if f"{_MARKERS}/" in names:
            marked = await self._below(driver, f"{self._prefix}{_MARKERS}/")
            # Such a service tells of folders, too, of which nothing is left.
            left = {name for name in folders - marked if await self._is(driver, name)}
            folders = marked | left
        return [BucketInfo(name=name) for name in sorted(filter(_is_bucket, folders))]

    async def _is(self, driver: AsyncDriver, bucket: str) -> bool:
        try:
            await self.head(driver, bucket)
        except (BucketNotFoundError, InvalidNameError):
            return False
        return True

    async def _below(self, driver: AsyncDriver, prefix: str) -> set[str]:
        """Return what comes next behind the prefix: names of folders, and of markers."""
        names: set[str] = set()
        options = ListOptions(prefix=prefix, delimiter="/")
        cycle = TokenCycle()
        while True:
            try:
                page = await driver.list_page(self._into, options)
            except BucketNotFoundError:
                if driver.capabilities.private_namespace:
                    return names  # it comes with the first bucket that is made
                raise
            for entry in page.entries:
                name = entry.prefix if isinstance(entry, Prefix) else entry.key
                if isinstance(entry, Prefix) or prefix != self._prefix:
                    names.add(name[len(prefix) :])
            if page.token is None:
                return names
            cycle.check(page.token, empty=not page.entries)
            options = replace(options, token=page.token)

    def _remember(self, bucket: str) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known.add(bucket)


def _is_bucket(name: str) -> bool:
    """Tell whether a folder that others may have made has a name that a bucket can have."""
    try:
        check_bucket(name)
    except InvalidNameError:
        return False
    return True


def _check_configured(bucket: str) -> None:
    try:
        check_bucket(bucket)
    except InvalidNameError as error:
        raise ConfigError(f"Mapped: {error}") from error


def _check_configured_prefix(into: str, prefix: str) -> None:
    try:
        check_key(into, prefix, MAX_KEY_BYTES)
    except InvalidNameError as error:
        raise ConfigError(f"Mapped, prefix: {error.message}") from error
