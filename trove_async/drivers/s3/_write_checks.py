"""Checks before a request: unusual keys, and features that some services ignore without an error.

Unknown behaviour of the service is tested with trial objects. Most requests need no check: they have
a usual key and no condition, tags or encryption.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from trove_async.errors import (
    BucketNotFoundError,
    InvalidNameError,
    ObjectNotFoundError,
    PreconditionFailedError,
)

from ._directories import excludes_all
from ._feature_probe import FeatureProbe
from ._features import Feature, WriteKind, features_of
from ._key_probe import KeyProbe
from ._trials import Trials
from ._unusual_keys import find_oddity, is_usual

if TYPE_CHECKING:
    from trove_async.driver import Upload
    from trove_async.models import ObjectInfo
    from trove_async.options import GetOptions, PutOptions

    from ._data_plane import DataPlane
    from ._dialects import Dialect, Service
    from ._multipart import MultipartUpload
    from ._object_settings import ObjectSettings


class WriteChecks:
    """The checks of one open driver. They cache what they learn about the service.

    Args:
        service: The service.
        plane: Sends the requests of the probes.
        object_settings: The encryption that the driver requests.
        bucket_exists: Returns whether a bucket exists.
    """

    def __init__(
        self,
        service: Service,
        plane: DataPlane,
        object_settings: ObjectSettings,
        bucket_exists: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._service = service
        self._encrypts = bool(object_settings.create_headers)
        self._bucket_exists = bucket_exists
        self._trials = Trials()
        self._key_probe = KeyProbe(service, plane, self._trials)
        self._feature_probe = FeatureProbe(service, plane, object_settings, self._trials)

    async def aclose(self) -> None:
        """Cancel running probes and delete their objects."""
        await self._trials.end()

    def forget(self, bucket: str) -> None:
        """Discard the cached features of a bucket that was created, deleted or reconfigured."""
        self._feature_probe.forget(bucket)

    # -- writes ----------------------------------------------------------------------------------------

    def key_needs_check(self, key: str) -> bool:
        """Return whether the key is unusual, or the service is known not to store it unchanged."""
        dialect = self._service.dialect
        return find_oddity(key) is not None or (
            dialect.directories and dialect.unwritable_reason(key) is not None
        )

    def write_needs_check(self, kind: WriteKind, key: str, options: PutOptions) -> bool:
        """Return whether a write needs `check_write`. Most writes do not, which saves a coroutine."""
        is_doubtful = find_oddity(key) is not None or self._service.dialect.directories
        if is_doubtful and self.key_needs_check(key):
            return True
        conditional = options.if_match is not None or options.if_none_match is not None
        if not (conditional or self._encrypts or options.tags):
            return False
        return bool(self._uncertain_features(kind, options))

    async def check_write(
        self, kind: WriteKind, bucket: str, key: str, options: PutOptions
    ) -> None:
        """Check a key and the features that a write to it needs.

        Raises:
            InvalidNameError: The service does not store the key unchanged.
            NotSupportedError: The service ignores a feature.
        """
        if self.key_needs_check(key):
            await self.check_key(bucket, key)
        await self.check_features(kind, bucket, key, options)

    async def check_key(self, bucket: str, key: str) -> None:
        """Raise InvalidNameError for a key that the service cannot store unchanged."""
        check_storable(await self._key_probe.dialect_for_writing(bucket, key), bucket, key)

    async def check_features(
        self, kind: WriteKind, bucket: str, key: str, options: PutOptions
    ) -> None:
        """Raise NotSupportedError for a feature that a write needs and the service ignores."""
        await self._feature_probe.check(bucket, key, self._uncertain_features(kind, options))

    @asynccontextmanager
    async def checked_upload(
        self, upload: MultipartUpload, bucket: str, key: str, options: PutOptions
    ) -> AsyncIterator[Upload]:
        """Check a multipart upload, then open it."""
        await self.check_write("upload", bucket, key, options)
        async with upload as opened:
            yield opened

    def _uncertain_features(self, kind: WriteKind, options: PutOptions) -> Collection[Feature]:
        """Return the features that a write needs and that the service is not known to honour."""
        needed = features_of(kind, options, encrypts=self._encrypts)
        return needed - self._service.dialect.honours

    # -- existing objects ------------------------------------------------------------------------------

    async def storable_keys(self, bucket: str, keys: Sequence[str]) -> Sequence[str]:
        """Return the keys under which the service can store an object."""
        for key in keys:
            if not is_usual(key):
                await self._key_probe.dialect_for_writing(bucket, key)
        return [key for key in keys if self._service.dialect.absent_reason(key) is None]

    async def check_existing_key(self, bucket: str, key: str, *, deletes: bool = False) -> None:
        """Raise ObjectNotFoundError for a key under which the service cannot have an object."""
        if deletes:
            dialect = await self._key_probe.dialect_for_writing(bucket, key)
        else:
            dialect = await self._key_probe.dialect_for_reading(bucket, key)
        reason = dialect.absent_reason(key)
        maybe_directory = dialect.directories and key.endswith("/") and not deletes
        if (
            reason is None
            and maybe_directory
            and not await self._key_probe.has_exactly(bucket, key)
        ):
            reason = "only a directory has that name"
        if reason is not None:
            await self.check_bucket(bucket)
            raise ObjectNotFoundError(f"the service has no object with this key: {reason}")

    async def excludes_prefix(self, bucket: str, prefix: str) -> bool:
        """Recognise the service. Return whether it cannot store any key with the prefix.

        Raises:
            BucketNotFoundError: It cannot store any, and the bucket does not exist.
        """
        await self._service.recognise()
        if not (self._service.dialect.directories and excludes_all(prefix)):
            return False
        await self.check_bucket(bucket)
        return True

    async def check_bucket(self, bucket: str) -> None:
        """Raise BucketNotFoundError if the bucket does not exist."""
        if not await self._bucket_exists(bucket):
            raise BucketNotFoundError("the bucket does not exist", bucket=bucket)


def check_storable(dialect: Dialect, bucket: str, key: str) -> None:
    """Raise InvalidNameError for a key that a service of this dialect cannot store."""
    reason = dialect.unwritable_reason(key)
    if reason is not None:
        raise InvalidNameError(
            f"the service cannot store an object with this key: {reason}", bucket=bucket, key=key
        )


def check_get_conditions(info: ObjectInfo, options: GetOptions) -> None:
    """Raise PreconditionFailedError if the service ignored a condition on a GET."""
    if info.etag is None:
        return
    if options.if_match not in {None, info.etag}:
        raise PreconditionFailedError("if_match: the current version has a different etag")
    if options.if_none_match == info.etag:
        raise PreconditionFailedError("if_none_match: the current version has this etag")
