"""Tests how a service treats unusual keys before the driver sends it one.

An unrecognised service may be MinIO, or SeaweedFS behind a proxy. The first unusual key of a kind
costs some requests, and later ones none.
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

from ._trials import TrialObjects, Trials, denied, trial_name
from ._unusual_keys import Oddity, folded, oddities_of, sample

if TYPE_CHECKING:
    from ._data_plane import DataPlane
    from ._dialects import Dialect, Service


async def recognised(service: Service) -> Dialect:
    """Return the dialect of a service, after recognising it if necessary.

    Raises:
        UnavailableError: The service does not respond.
    """
    if not await service.recognise():
        raise UnavailableError(
            "the service did not respond when it was asked what it is, and some services do not store"
            " all keys, or ignore tags, conditions or encryption: give the driver its dialect, or try"
            " again"
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
        dialect = await recognised(self._service)
        for oddity in oddities_of(key):
            if not dialect.knows(oddity):
                dialect = await self._tried(bucket, key, oddity)
        return dialect

    async def dialect_for_reading(self, bucket: str, key: str) -> Dialect:
        """Return a dialect that knows whether the key addresses another key's object.

        Nothing is written if the key has no object, or if existing objects prove the outcome.
        """
        dialect = await recognised(self._service)
        # A key with a trailing slash never addresses another key's object.
        unknown = [
            oddity
            for oddity in oddities_of(key)
            if oddity is not Oddity.TRAILING and not dialect.knows(oddity)
        ]
        seen = await self._seen(bucket, key) if unknown else None
        if seen is None:
            return dialect
        for oddity in unknown:
            # A service that folds the oddity has one object under both names.
            other = await self._seen(bucket, folded(key, oddity))
            # The second HEAD proves that the object was not replaced or deleted in between.
            if seen != other and seen == await self._seen(bucket, key):
                dialect = self._learn(oddity, keeps=True)
            else:
                dialect = await self._tried(bucket, key, oddity)
        return dialect

    async def has_exactly(self, bucket: str, key: str) -> bool:
        """Return whether an object has exactly this key, which ends in a slash.

        SeaweedFS responds to a GET of any directory as if it were an object. Its listings contain
        only the keys that were put.
        """
        page = await self._plane.list_objects(bucket, ListOptions(prefix=key, limit=1))
        return any(entry.key == key for entry in page.entries)

    async def _seen(self, bucket: str, key: str) -> tuple[object, ...] | None:
        """Return what identifies the object, or None if there is none."""
        try:
            info = await self._plane.head_object(bucket, key, None)
        except NotFoundError:
            return None
        return info.etag, info.size, info.last_modified, info.version_id, info.write_id

    async def _tried(self, bucket: str, key: str, oddity: Oddity) -> Dialect:
        async def learn() -> None:
            try:
                keeps = await self._keeps(bucket, key, oddity)
            except PermissionDeniedError as error:
                raise denied(f"keeps keys with {oddity.value}", error) from error
            self._learn(oddity, keeps=keeps)

        await self._trials.learn_once(oddity, lambda: self._service.dialect.knows(oddity), learn)
        return self._service.dialect

    async def _keeps(self, bucket: str, key: str, oddity: Oddity) -> bool:
        name = sample(key, oddity, trial_name())
        async with TrialObjects(self._plane, bucket) as trial:
            try:
                await trial.put(name, PutOptions(size=1))
            except (InvalidNameError, NotSupportedError):
                return True  # it refuses such keys, so it never renames one
            if await self._kept(bucket, name, oddity):
                return True
            trial.doubt(folded(name, oddity))
            return False

    async def _kept(self, bucket: str, name: str, oddity: Oddity) -> bool:
        try:
            info = await self._plane.head_object(bucket, name, None)
        except NotFoundError:
            return False
        if info.size != 1:
            return False
        return await self._seen(bucket, folded(name, oddity)) is None

    def _learn(self, oddity: Oddity, *, keeps: bool) -> Dialect:
        dialect = self._service.dialect
        if keeps:
            dialect = replace(dialect, keeps=dialect.keeps | {oddity})
        else:
            dialect = replace(dialect, folds=dialect.folds | {oddity})
        self._service.dialect = dialect
        return dialect
