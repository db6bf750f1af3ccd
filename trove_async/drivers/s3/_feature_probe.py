"""Finds out whether a service honours a feature before the driver relies on it.

Several S3-compatible services accept a header that they do not know and store the object without what
it asks for: with no tags, over an object that a condition should protect, or not encrypted. The first
write that needs a feature costs some requests, the following ones none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from trove_async._concurrency import finished, for_each
from trove_async.errors import (
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import CopyOptions, DeleteOptions, ObjectInfo, Part, PutOptions

from ._features import ENCRYPTION, TAGS, Feature, Way
from ._oddities import beside
from ._plane import UntoldError
from ._probing import BODY, recognised
from ._uploads import PartedUpload

if TYPE_CHECKING:
    from ._defaults import Defaults
    from ._dialects import Service
    from ._plane import Plane

_TAGS: Final = {"trove-probe": "1"}
_NO_ETAG: Final = "0" * 32
"""The ETag of no object: that it is the MD5 of its body is as good as impossible."""

_CONDITIONS: Final = {
    Feature.IF_NONE_MATCH: PutOptions(size=1, if_none_match="*"),
    Feature.IF_MATCH: PutOptions(size=1, if_match=_NO_ETAG),
}
"""Puts over the object that the trial has stored, whose conditions do not hold."""

_WAY: Final = {feature: way for kind in (TAGS, ENCRYPTION) for way, feature in kind.items()}


class FeatureProbe:
    """Finds out what a service honours, and notes it in the service's dialect.

    Args:
        service: The service.
        plane: Sends the requests.
        defaults: The encryption that the driver asks for.
    """

    def __init__(self, service: Service, plane: Plane, defaults: Defaults) -> None:
        self._service = service
        self._plane = plane
        self._defaults = defaults
        self._trying = asyncio.Lock()

    async def check(self, bucket: str, key: str, features: Collection[Feature]) -> None:
        """Raise unless the service honours the features.

        What is not known is tried on objects of one byte beside the key, which are deleted again.

        Raises:
            NotSupportedError: The service ignores one of them.
            PermissionDeniedError: These credentials may not put, read or delete those objects.
            UnavailableError: The service does not respond.
        """
        for feature in features:
            dialect = await recognised(self._service)
            if feature not in dialect.honours | dialect.ignores:
                await self._try(bucket, key, feature)
            if feature in self._service.dialect.ignores:
                raise NotSupportedError(
                    f"the service ignores {feature.value}, so nothing was written",
                    bucket=bucket,
                    key=key,
                )

    async def _try(self, bucket: str, key: str, feature: Feature) -> None:
        async with self._trying:
            dialect = self._service.dialect
            if feature in dialect.honours | dialect.ignores:
                return
            try:
                honours = await self._is_honoured(bucket, key, feature)
            except PermissionDeniedError as error:
                raise PermissionDeniedError(
                    f"it is not known whether the service honours {feature.value}, and an object to"
                    " try it on was refused. If it does, give the driver dialect='s3'"
                    f" ({error.message})"
                ) from error
            dialect = self._service.dialect
            if honours:
                dialect = replace(dialect, honours=dialect.honours | {feature})
            else:
                dialect = replace(dialect, ignores=dialect.ignores | {feature})
            self._service.dialect = dialect

    async def _is_honoured(self, bucket: str, key: str, feature: Feature) -> bool:
        name = beside(key, f"trove-probe-{token_hex(8)}")
        trial = _Trial(self._plane, bucket, name)
        try:
            if feature in _CONDITIONS:
                return await trial.refuses(_CONDITIONS[feature])
            way = _WAY[feature]
            tags = _TAGS if feature is TAGS[way] else {}
            info = await trial.make(way, PutOptions(size=1, tags=tags))
            if tags:
                return info.tags == tags
            return self._defaults.are_met(await self._plane.encryption(bucket, name))
        except NotSupportedError:
            return True  # it refuses by itself what it cannot do
        finally:
            await finished(trial.clean_up())


class _Trial:
    """Objects of one byte to try a feature on.

    Args:
        plane: Sends the requests.
        bucket: Where they are made.
        name: The key of the one that is looked at.
    """

    def __init__(self, plane: Plane, bucket: str, name: str) -> None:
        self._plane = plane
        self._bucket = bucket
        self._name = name
        self._stored: list[tuple[str, str | None]] = []

    async def refuses(self, conditional: PutOptions) -> bool:
        """Return whether a put is refused whose condition does not hold."""
        await self._put(self._name, PutOptions(size=1))
        try:
            await self._put(self._name, conditional)
        except PreconditionFailedError:
            return True
        return False

    async def make(self, way: Way, options: PutOptions) -> ObjectInfo:
        """Make the object; return what a HEAD says of it then."""
        if way == "put":
            await self._put(self._name, options)
        elif way == "upload":
            await self._upload(options)
        else:
            await self._copy(options)
        return await self._plane.head_object(self._bucket, self._name, None)

    async def _put(self, name: str, options: PutOptions) -> None:
        self._stored.append((name, None))
        try:
            info = await self._plane.put_object(self._bucket, name, [BODY], options)
        except UntoldError as untold:
            info = untold.info
        self._stored[-1] = name, info.version_id

    async def _upload(self, options: PutOptions) -> None:
        self._stored.append((self._name, None))
        async with PartedUpload(self._plane, self._bucket, self._name, options) as upload:
            await upload.send(Part(number=1, offset=0, size=1, last=True), [BODY])
            info = await upload.commit({})
        self._stored[-1] = self._name, info.version_id

    async def _copy(self, options: PutOptions) -> None:
        source = f"{self._name}-source"
        await self._put(source, PutOptions(size=1))
        info = await self._plane.head_object(self._bucket, source, None)
        self._stored.append((self._name, None))
        request = CopyOptions(source=info, put=options)
        try:
            info = await self._plane.copy_object(
                self._bucket, source, self._bucket, self._name, request
            )
        except UntoldError as untold:
            info = untold.info
        self._stored[-1] = self._name, info.version_id

    async def clean_up(self) -> None:
        """Delete what was stored, each version of it."""
        await for_each(self._stored, self._delete, limit=len(self._stored) or 1)

    async def _delete(self, stored: tuple[str, str | None]) -> None:
        key, version_id = stored
        with suppress(TroveError):
            await self._plane.delete_object(self._bucket, key, DeleteOptions(version_id=version_id))
