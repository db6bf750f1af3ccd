"""Tests whether a service honours a feature before the driver relies on it.

Several S3-compatible services accept an unknown header and ignore it: they store the object without
its tags, replace an object that a condition should protect, or do not encrypt. In each bucket, the
first write that needs a feature costs a few more requests, and later writes cost none. The buckets
are tested separately, because Ceph 16.2 honours conditions only in unversioned buckets.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from trove_async.errors import (
    BucketNotFoundError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.options import PutOptions

from ._features import ENCRYPTION, TAGS, Feature
from ._key_probe import recognised_dialect
from ._trials import TrialObjects, Trials, trial_denied, trial_name
from ._unusual_keys import sibling

if TYPE_CHECKING:
    from ._data_plane import DataPlane
    from ._dialects import Service
    from ._object_settings import ObjectSettings

_TAGS: Final = {"trove-probe": "1"}
_NO_ETAG: Final = "0" * 32
"""An ETag that no object has: no body with an MD5 of zero is known."""

_KINDS: Final = {
    feature: kind for features in (TAGS, ENCRYPTION) for kind, feature in features.items()
}
"""The kind of write that tests each feature other than a condition."""

_MAX_OUTCOMES: Final = 4096
"""Maximum number of cached outcomes. Each bucket has one for each feature that was tested there."""


class FeatureProbe:
    """Tests and caches which features a service honours in a bucket.

    Args:
        service: The service.
        plane: Sends the requests.
        object_settings: The encryption that the driver requests.
        trials: The driver's trials.
    """

    def __init__(
        self, service: Service, plane: DataPlane, object_settings: ObjectSettings, trials: Trials
    ) -> None:
        self._service = service
        self._plane = plane
        self._object_settings = object_settings
        self._trials = trials
        self._honours: dict[tuple[str, Feature], bool] = {}
        self._running: set[tuple[str, Feature]] = set()

    async def check(self, bucket: str, key: str, features: Collection[Feature]) -> None:
        """Raise unless the service honours the features.

        An unknown feature is tested with one-byte objects, next to the key if possible. They are
        deleted if the credentials permit it.

        Raises:
            NotSupportedError: The service ignores one of them, or rejects the trial.
            PermissionDeniedError: The credentials do not permit putting or reading those objects.
            BucketNotFoundError: The bucket does not exist.
            UnavailableError: The service does not respond.
        """
        for feature in features:
            dialect = await recognised_dialect(self._service)
            if feature in dialect.honours:
                continue
            if feature not in dialect.ignores:
                await self._ensure_known(bucket, key, feature)
                if self._honours[bucket, feature]:
                    continue
            raise NotSupportedError(
                f"the service ignores {feature.value}, so nothing was written",
                bucket=bucket,
                key=key,
            )

    def forget(self, bucket: str) -> None:
        """Discard the outcomes of a bucket that was created or deleted, or whose versioning changed."""
        for feature in Feature:
            self._honours.pop((bucket, feature), None)
            self._running.discard((bucket, feature))

    async def _ensure_known(self, bucket: str, key: str, feature: Feature) -> None:
        """Run the trial of a feature unless its outcome is cached."""
        trial = bucket, feature

        async def run_trial() -> None:
            self._running.add(trial)
            try:
                await self._run_trial(bucket, key, feature)
            finally:
                self._running.discard(trial)

        while trial not in self._honours:  # repeats if the bucket was forgotten during the trial
            await self._trials.run_once(trial, lambda: trial in self._honours, run_trial)

    def _record(self, bucket: str, feature: Feature, *, honours: bool) -> None:
        """Cache the outcome of a trial, unless the bucket was forgotten since it began."""
        if (bucket, feature) in self._running:
            if len(self._honours) >= _MAX_OUTCOMES:
                self._honours.clear()
            self._honours[bucket, feature] = honours

    async def _run_trial(self, bucket: str, key: str, feature: Feature) -> None:
        """Test a feature. Explain the errors, which come from a request that the user did not send."""
        try:
            await self._test(bucket, key, feature)
        except PermissionDeniedError as error:
            raise trial_denied(f"honours {feature.value}", error) from error
        except NotSupportedError as error:
            raise NotSupportedError(
                f"the service rejected a request that tests whether it honours {feature.value}, so"
                f" nothing was written. If it does, pass dialect='s3' ({error.message})"
            ) from error
        except BucketNotFoundError:
            raise
        except NotFoundError as error:
            raise UnavailableError(
                f"the object that tests {feature.value} is missing: {error.message}"
            ) from error

    async def _test(self, bucket: str, key: str, feature: Feature) -> None:
        # SeaweedFS keeps the directories of deleted objects, so its trial keys have no slash.
        leaves_directories = self._service.dialect.directories
        async with TrialObjects(self._plane, bucket) as trial:
            name = trial_name() if leaves_directories else sibling(key, trial_name())
            honours = await self._is_honoured(trial, bucket, name, feature)
            # Recorded before the objects are deleted, because a deadline may interrupt the deletion.
            self._record(bucket, feature, honours=honours)

    async def _is_honoured(
        self, trial: TrialObjects, bucket: str, key: str, feature: Feature
    ) -> bool:
        if feature is Feature.IF_NONE_MATCH:
            await trial.put(key, PutOptions(size=1))
            return await _is_rejected(trial, key, PutOptions(size=1, if_none_match="*"))
        if feature is Feature.IF_MATCH:
            return await self._honours_if_match(trial, bucket, key)
        await self._store_with(trial, bucket, key, feature)
        if feature in ENCRYPTION.values():
            return self._object_settings.encryption_matches(
                await self._plane.encryption(bucket, key)
            )
        return (await self._plane.head_object(bucket, key, None)).tags == _TAGS

    async def _honours_if_match(self, trial: TrialObjects, bucket: str, key: str) -> bool:
        """Return whether a put with `if_match` replaces the version with that ETag and no other."""
        info = await trial.put(key, PutOptions(size=1))
        if info.etag is None:
            info = await self._plane.head_object(bucket, key, None)
        if not await _is_rejected(trial, key, PutOptions(size=1, if_match=_NO_ETAG)):
            return False
        return not await _is_rejected(trial, key, PutOptions(size=1, if_match=info.etag))

    async def _store_with(
        self, trial: TrialObjects, bucket: str, key: str, feature: Feature
    ) -> None:
        """Store an object with the feature."""
        kind = _KINDS[feature]
        options = PutOptions(size=1, tags=_TAGS if feature is TAGS[kind] else {})
        if kind == "put":
            await trial.put(key, options)
        elif kind == "upload":
            await trial.upload(key, options)
        else:
            stored = await trial.put(f"{key}-source", PutOptions(size=1))
            source = await self._plane.head_object(bucket, stored.key, None)
            await trial.copy(source, key, options)


async def _is_rejected(trial: TrialObjects, key: str, options: PutOptions) -> bool:
    """Return whether the service rejects a conditional put to the key of a trial object."""
    try:
        await trial.put(key, options)
    except PreconditionFailedError:
        return True
    return False
