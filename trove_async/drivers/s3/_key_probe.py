"""Tests how a service treats unusual keys before the driver sends it one.

An unrecognised service may be MinIO, or SeaweedFS behind a proxy. The first write to an unusual key of
each kind costs a few more requests, and later writes cost none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trove_async.errors import (
    InvalidNameError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    UnavailableError,
)
from trove_async.options import ListOptions, PutOptions

from ._trials import TrialObjects, Trials, trial_denied, trial_name
from ._unusual_keys import Oddity, folded, oddities_of, sample

if TYPE_CHECKING:
    from ._data_plane import DataPlane
    from ._dialects import Dialect, Service


async def recognised_dialect(service: Service) -> Dialect:
    """Return the dialect of a service, after recognising it if necessary.

    Raises:
        UnavailableError: The service does not respond.
    """
    if not await service.recognise():
        raise UnavailableError(
            "the service must be recognised before this request, because some services alter keys or"
            " ignore tags, conditions or encryption, but it did not respond: try again, or pass its"
            " dialect"
        )
    return service.dialect


class KeyProbe:
    """Tests how a service treats unusual keys and records the outcome in its dialect.

    Args:
        service: The service.
        plane: Sends the requests.
        trials: The driver's trials.
    """

    def __init__(self, service: Service, plane: DataPlane, trials: Trials) -> None:
        self._service = service
        self._plane = plane
        self._trials = trials

    async def dialect_for_writing(self, bucket: str, key: str) -> Dialect:
        """Return a dialect that knows every oddity of a key to write or delete.

        An unknown oddity is tested with a one-byte object. The object is deleted if the credentials
        permit it.

        Raises:
            PermissionDeniedError: The credentials do not permit putting or reading that object.
            UnavailableError: The service does not respond.
        """
        dialect = await recognised_dialect(self._service)
        for oddity in oddities_of(key):
            if not dialect.knows(oddity):
                dialect = await self._ensure_known(bucket, key, oddity)
        return dialect

    async def dialect_for_reading(self, bucket: str, key: str) -> Dialect:
        """Return a dialect that knows whether the key addresses another key's object.

        Nothing is written if the key has no object, or if existing objects show the outcome.
        """
        dialect = await recognised_dialect(self._service)
        # A key with a trailing slash never addresses another key's object.
        unknown = [
            oddity
            for oddity in oddities_of(key)
            if oddity is not Oddity.TRAILING and not dialect.knows(oddity)
        ]
        fingerprint = await self._fingerprint(bucket, key) if unknown else None
        if fingerprint is None:
            return dialect
        for oddity in unknown:
            # A service that folds the oddity has one object under both names.
            folded_fingerprint = await self._fingerprint(bucket, folded(key, oddity))
            # The second HEAD shows that the object was not replaced or deleted in between.
            if fingerprint != folded_fingerprint and fingerprint == await self._fingerprint(
                bucket, key
            ):
                dialect = self._record(oddity, keeps=True)
            else:
                dialect = await self._ensure_known(bucket, key, oddity)
        return dialect

    async def has_exactly(self, bucket: str, key: str) -> bool:
        """Return whether an object has exactly this key, which ends in a slash.

        SeaweedFS responds to a GET of any directory as if it were an object. Its listings contain
        only the keys that were put.
        """
        page = await self._plane.list_objects(bucket, ListOptions(prefix=key, limit=1))
        return any(entry.key == key for entry in page.entries)

    async def _fingerprint(self, bucket: str, key: str) -> tuple[object, ...] | None:
        """Return values that identify an object's content, or None if there is no object."""
        try:
            info = await self._plane.head_object(bucket, key, None)
        except NotFoundError:
            return None
        return info.etag, info.size, info.last_modified, info.version_id, info.write_id

    async def _ensure_known(self, bucket: str, key: str, oddity: Oddity) -> Dialect:
        async def run_trial() -> None:
            try:
                keeps = await self._test(bucket, key, oddity)
            except PermissionDeniedError as error:
                raise trial_denied(f"keeps keys with {oddity.value}", error) from error
            self._record(oddity, keeps=keeps)

        await self._trials.run_once(oddity, lambda: self._service.dialect.knows(oddity), run_trial)
        return self._service.dialect

    async def _test(self, bucket: str, key: str, oddity: Oddity) -> bool:
        trial_key = sample(key, oddity, trial_name())
        async with TrialObjects(self._plane, bucket) as trial:
            try:
                await trial.put(trial_key, PutOptions(size=1))
            except (InvalidNameError, NotSupportedError):
                return True  # it rejects such keys, so it never alters one
            if await self._is_unchanged(bucket, trial_key, oddity):
                return True
            trial.delete_on_exit(folded(trial_key, oddity))
            return False

    async def _is_unchanged(self, bucket: str, trial_key: str, oddity: Oddity) -> bool:
        try:
            info = await self._plane.head_object(bucket, trial_key, None)
        except NotFoundError:
            return False
        if info.size != 1:
            return False
        return await self._fingerprint(bucket, folded(trial_key, oddity)) is None

    def _record(self, oddity: Oddity, *, keeps: bool) -> Dialect:
        dialect = self._service.dialect
        if keeps:
            dialect = replace(dialect, keeps=dialect.keeps | {oddity})
        else:
            dialect = replace(dialect, folds=dialect.folds | {oddity})
        self._service.dialect = dialect
        return dialect
