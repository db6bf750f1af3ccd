"""One object made of others on the service's side, verified without reading any of them."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from trove_async._checksums import combine_crc32c
from trove_async._concurrency import for_each, shielded
from trove_async._http.services import map_condition_errors
from trove_async.errors import (
    IntegrityError,
    NotFoundError,
    NotSupportedError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

from ._client import JSON
from ._encoding import encode_query, object_path
from ._resources import FIELDS, generation_of, info_of, precondition, resource_of

if TYPE_CHECKING:
    from ._client import Client
    from ._defaults import Defaults
Head = Callable[[str, str], Awaitable[ObjectInfo]]

MOST: Final = 32
"""Sources of one object. Cloud Storage documentation, "Composite objects"; JSON API, "Objects:
compose"."""

_LOOKUPS: Final = 8


class Composer:
    """Makes objects of others.

    Args:
        client: Sends requests.
        head: Returns an object's facts.
        backend: For `ObjectInfo.backend`.
        defaults: What is asked of the service for all objects.
    """

    def __init__(self, client: Client, head: Head, backend: str, *, defaults: Defaults) -> None:
        self._defaults = defaults
        self._client = client
        self._head = head
        self._backend = backend

    async def compose(
        self, bucket: str, keys: Sequence[str], key: str, options: PutOptions
    ) -> ObjectInfo:
        """Make an object of others. See `GCSDriver.compose`."""
        if isinstance(keys, str) or not 1 <= len(keys) <= MOST:
            raise ValueError(f"keys are those of 1 to {MOST} objects, in a sequence")
        if options.tags:
            raise NotSupportedError("gcs cannot keep tags; nothing was done")
        heads = await self._heads(bucket, keys)
        sources = [heads[one] for one in keys]
        size, checksum = _announced(sources, options)
        options = self._defaults.applied(options)
        query = {"fields": FIELDS, **precondition(options), **self._defaults.made}
        target = f"{object_path(bucket, key)}/compose{encode_query(query)}"
        with map_condition_errors(options):
            try:
                said = await self._client.ask("POST", target, JSON, [_body(sources, options)])
            except (PreconditionFailedError, NotFoundError) as error:
                # The service does not say whose condition it was.
                await self._check_unchanged(bucket, heads.values(), error)
                raise
        info = info_of(said, bucket=bucket, backend=self._backend)
        try:
            _compare(info, size, checksum)
        except IntegrityError:
            if key not in heads:
                with shielded(), suppress(TroveError):  # what is there is ours, and wrong
                    query = {"ifGenerationMatch": generation_of(info.etag)}
                    await self._client.done(
                        "DELETE", object_path(bucket, key) + encode_query(query)
                    )
            raise
        return info

    async def _heads(self, bucket: str, keys: Sequence[str]) -> Mapping[str, ObjectInfo]:
        heads: dict[str, ObjectInfo] = {}

        async def look(key: str) -> None:
            heads[key] = await self._head(bucket, key)

        await for_each(dict.fromkeys(keys), look, limit=_LOOKUPS)
        return heads

    async def _check_unchanged(
        self, bucket: str, sources: Iterable[ObjectInfo], error: TroveError
    ) -> None:
        """Raise ObjectChangedError if a source is no longer what it was."""
        for source in sources:
            try:
                if (await self._head(bucket, source.key)).etag == source.etag:
                    continue
            except ObjectNotFoundError:
                pass
            raise ObjectChangedError(
                "a source was replaced or deleted before it was composed",
                bucket=bucket,
                key=source.key,
            ) from error


def _body(sources: Sequence[ObjectInfo], options: PutOptions) -> memoryview:
    document = {
        "kind": "storage#composeRequest",
        "sourceObjects": [
            {"name": source.key, "objectPreconditions": {"ifGenerationMatch": source.etag}}
            for source in sources
        ],
        "destination": json.loads(resource_of(replace(options, checksums={}))),
    }
    return memoryview(json.dumps(document, ensure_ascii=False).encode())


def _announced(sources: Sequence[ObjectInfo], options: PutOptions) -> tuple[int, str | None]:
    """Return the size and the CRC-32C that the object is to have; they must be those promised."""
    size, checksum = sum(source.stored_size for source in sources), _checksum(sources)
    promised = options.checksums.get("crc32c", checksum)
    if options.size not in {None, size}:
        raise IntegrityError(f"the sources have {size} bytes, not {options.size} as promised")
    if checksum not in {None, promised}:
        raise IntegrityError(f"the sources' crc32c is {checksum}, not {promised} as promised")
    return size, promised


def _checksum(sources: Sequence[ObjectInfo]) -> str | None:
    """Return the CRC-32C of all, if it is known of each."""
    whole = 0
    for source in sources:
        told = source.checksums.get("crc32c")
        if told is None:
            return None
        whole = combine_crc32c(whole, int.from_bytes(b64decode(told)), source.stored_size)
    return b64encode(whole.to_bytes(4)).decode()


def _compare(info: ObjectInfo, size: int, checksum: str | None) -> None:
    if info.stored_size != size:
        raise IntegrityError(f"the object has {info.stored_size} bytes, and its sources {size}")
    told = info.checksums.get("crc32c")
    if None not in {told, checksum} and told != checksum:
        raise IntegrityError(f"the object's crc32c is {told}, and that of its sources {checksum}")
