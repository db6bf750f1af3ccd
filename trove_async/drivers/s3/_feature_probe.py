"""Tests whether a service honours a feature before the driver relies on it.

Several S3-compatible services accept an unknown header and ignore it: they store the object without
its tags, replace an object that a condition should protect, or do not encrypt. The first write to a
bucket that needs a feature costs some requests, and later ones none. Each bucket is tested
separately: Ceph 16.2 honours conditions only in buckets that keep no versions.
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
from ._key_probe import recognised
from ._trials import TrialObjects, Trials, denied, trial_name
from ._unusual_keys import sibling

if TYPE_CHECKING:
    from ._data_plane import DataPlane
    from ._defaults import Defaults
    from ._dialects import Service

_TAGS: Final = {"trove-probe": "1"}
_NO_ETAG: Final = "0" * 32
"""An ETag that no object has: no body with an MD5 of zero is known."""

_WAY: Final = {feature: way for kind in (TAGS, ENCRYPTION) for way, feature in kind.items()}

_REMEMBERED: Final = 4096
"""Maximum number of cached outcomes, one per bucket and feature."""


class FeatureProbe:
    """Tests and caches which features a service honours in a bucket.

    Args:
        service: The service.
        plane: Sends the requests.
        defaults: The driver's defaults, for their encryption.
        trials: The driver's trials.
    """

    def __init__(
        self, service: Service, plane: DataPlane, defaults: Defaults, trials: Trials
    ) -> None:
        self._service = service
        self._plane = plane
        self._defaults = defaults
        self._trials = trials
        self._honours: dict[tuple[str, Feature], bool] = {}
        self._trying: set[tuple[str, Feature]] = set()

    async def check(self, bucket: str, key: str, features: Collection[Feature]) -> None:
        """Raise unless the service honours the features.

        An unknown feature is tested with one-byte objects next to the key. They are deleted if the
        credentials permit it.

        Raises:
            NotSupportedError: The service ignores one of them, or does not reveal the outcome.
            PermissionDeniedError: The credentials do not permit putting or reading those objects.
            BucketNotFoundError: The bucket does not exist.
            UnavailableError: The service does not respond.
        """
        for feature in features:
            dialect = await recognised(self._service)
            if feature in dialect.honours:
                continue
            if feature not in dialect.ignores:
                await self._learn(bucket, key, feature)
                if self._honours[bucket, feature]:
                    continue
            raise NotSupportedError(
                f"the service does not honour {feature.value}, so nothing was written",
                bucket=bucket,
                key=key,
            )

    def forget(self, bucket: str) -> None:
        """Discard the outcomes of a bucket that was created, deleted or changed its versioning."""
        for feature in Feature:
            self._honours.pop((bucket, feature), None)
            self._trying.discard((bucket, feature))

    async def _learn(self, bucket: str, key: str, feature: Feature) -> None:
        what = bucket, feature

        async def learn() -> None:
            self._trying.add(what)
            try:
                await self._explained(bucket, key, feature)
            finally:
                self._trying.discard(what)

        while what not in self._honours:  # repeats if the bucket was forgotten during the trial
            await self._trials.learn_once(what, lambda: what in self._honours, learn)

    def _note(self, bucket: str, feature: Feature, *, honours: bool) -> None:
        """Cache the outcome of a trial, unless the bucket was forgotten since it began."""
        if (bucket, feature) in self._trying:
            if len(self._honours) >= _REMEMBERED:
                self._honours.clear()
            self._honours[bucket, feature] = honours

    async def _explained(self, bucket: str, key: str, feature: Feature) -> None:
        try:
            await self._try(bucket, key, feature)
        except PermissionDeniedError as error:
            raise denied(f"honours {feature.value}", error) from error
        except NotSupportedError as error:
            raise NotSupportedError(
                f"the service refuses to show whether it honours {feature.value}, so nothing was"
                f" written. If it does, give the driver dialect='s3' ({error.message})"
            ) from error
        except BucketNotFoundError:
            raise
        except NotFoundError as error:
            raise UnavailableError(
                f"an object to try {feature.value} on is not there: {error.message}"
            ) from error

    async def _try(self, bucket: str, key: str, feature: Feature) -> None:
        # SeaweedFS keeps the directories of deleted objects.
        flat = self._service.dialect.directories
        async with TrialObjects(self._plane, bucket) as trial:
            name = trial_name() if flat else sibling(key, trial_name())
            honours = await self._is_honoured(trial, bucket, name, feature)
            # Record it before the deletion of the objects, which may outlast the write.
            self._note(bucket, feature, honours=honours)

    async def _is_honoured(
        self, trial: TrialObjects, bucket: str, key: str, feature: Feature
    ) -> bool:
        if feature is Feature.IF_NONE_MATCH:
            await trial.put(key, PutOptions(size=1))
            return await _is_refused(trial, key, PutOptions(size=1, if_none_match="*"))
        if feature is Feature.IF_MATCH:
            return await self._compares(trial, bucket, key)
        await self._make(trial, bucket, key, feature)
        if feature in ENCRYPTION.values():
            return self._defaults.are_met(await self._plane.encryption(bucket, key))
        return (await self._plane.head_object(bucket, key, None)).tags == _TAGS

    async def _compares(self, trial: TrialObjects, bucket: str, key: str) -> bool:
        """Return whether a put replaces the version that it names, and no other."""
        info = await trial.put(key, PutOptions(size=1))
        if info.etag is None:
            info = await self._plane.head_object(bucket, key, None)
        if not await _is_refused(trial, key, PutOptions(size=1, if_match=_NO_ETAG)):
            return False
        return not await _is_refused(trial, key, PutOptions(size=1, if_match=info.etag))

    async def _make(self, trial: TrialObjects, bucket: str, key: str, feature: Feature) -> None:
        """Store an object with the feature."""
        way = _WAY[feature]
        options = PutOptions(size=1, tags=_TAGS if feature is TAGS[way] else {})
        if way == "put":
            await trial.put(key, options)
        elif way == "upload":
            await trial.upload(key, options)
        else:
            stored = await trial.put(f"{key}-source", PutOptions(size=1))
            source = await self._plane.head_object(bucket, stored.key, None)
            await trial.copy(source, key, options)


async def _is_refused(trial: TrialObjects, key: str, options: PutOptions) -> bool:
    """Return whether the service refuses to overwrite an object of the trial."""
    try:
        await trial.put(key, options)
    except PreconditionFailedError:
        return True
    return False
