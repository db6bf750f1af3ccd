"""Concatenates objects on the server and verifies the result without reading it."""

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
from ._resources import (
    FIELDS,
    encode_resource,
    info_from_resource,
    precondition,
    require_generation,
)

if TYPE_CHECKING:
    from ._client import Client
    from ._defaults import Defaults
Head = Callable[[str, str], Awaitable[ObjectInfo]]

MAX_SOURCES: Final = 32
"""The limit of sources of one object. Cloud Storage documentation, "Composite objects"; JSON API, "Objects:
compose"."""

_LOOKUPS: Final = 8
"""Concurrent head requests."""


class Composer:
    """Concatenates objects.

    Args:
        client: Sends requests.
        head: Returns an object's metadata.
        backend: For `ObjectInfo.backend`.
        defaults: The storage class and the encryption key of new objects.
    """

    def __init__(self, client: Client, head: Head, backend: str, *, defaults: Defaults) -> None:
        self._defaults = defaults
        self._client = client
        self._head = head
        self._backend = backend

    async def compose(
        self, bucket: str, keys: Sequence[str], key: str, options: PutOptions
    ) -> ObjectInfo:
        """Concatenate objects. See `GCSDriver.compose`."""
        if isinstance(keys, str) or not 1 <= len(keys) <= MAX_SOURCES:
            raise ValueError(f"keys must be a sequence of 1 to {MAX_SOURCES} keys")
        if options.tags:
            raise NotSupportedError("gcs cannot store tags; nothing was changed")
        heads = await self._heads(bucket, keys)
        sources = [heads[one] for one in keys]
        size, checksum = _expected(sources, options)
        options = self._defaults.apply(options)
        query = {"fields": FIELDS, **precondition(options), **self._defaults.create_query}
        target = f"{object_path(bucket, key)}/compose{encode_query(query)}"
        with map_condition_errors(options):
            try:
                document = await self._client.request(
                    "POST", target, JSON, [_body(sources, options)]
                )
            except (PreconditionFailedError, NotFoundError) as error:
                # The response does not name the object whose condition failed.
                await self._check_unchanged(bucket, heads.values(), error)
                raise
        info = info_from_resource(document, bucket=bucket, backend=self._backend)
        try:
            _compare(info, size, checksum)
        except IntegrityError:
            if key not in heads:
                with (
                    shielded(),
                    suppress(TroveError),
                ):  # the new object is wrong, and no other write used the key
                    query = {"ifGenerationMatch": require_generation(info.etag)}
                    await self._client.execute(
                        "DELETE", object_path(bucket, key) + encode_query(query)
                    )
            raise
        return info

    async def _heads(self, bucket: str, keys: Sequence[str]) -> Mapping[str, ObjectInfo]:
        heads: dict[str, ObjectInfo] = {}

        async def fetch(key: str) -> None:
            heads[key] = await self._head(bucket, key)

        await for_each(dict.fromkeys(keys), fetch, limit=_LOOKUPS)
        return heads

    async def _check_unchanged(
        self, bucket: str, sources: Iterable[ObjectInfo], error: TroveError
    ) -> None:
        """Raise ObjectChangedError if a source has another generation."""
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
        "destination": json.loads(encode_resource(replace(options, checksums={}))),
    }
    return memoryview(json.dumps(document, ensure_ascii=False).encode())


def _expected(sources: Sequence[ObjectInfo], options: PutOptions) -> tuple[int, str | None]:
    """Return the expected size and CRC-32C; raise IntegrityError if `options` contradict them."""
    size, checksum = sum(source.stored_size for source in sources), _checksum(sources)
    announced = options.checksums.get("crc32c", checksum)
    if options.size not in {None, size}:
        raise IntegrityError(f"the sources have {size} bytes, not {options.size} as announced")
    if checksum not in {None, announced}:
        raise IntegrityError(f"the sources' crc32c is {checksum}, not {announced} as announced")
    return size, announced


def _checksum(sources: Sequence[ObjectInfo]) -> str | None:
    """Return the CRC-32C of the concatenation, or None if that of a source is unknown."""
    whole = 0
    for source in sources:
        reported = source.checksums.get("crc32c")
        if reported is None:
            return None
        whole = combine_crc32c(whole, int.from_bytes(b64decode(reported)), source.stored_size)
    return b64encode(whole.to_bytes(4)).decode()


def _compare(info: ObjectInfo, size: int, checksum: str | None) -> None:
    if info.stored_size != size:
        raise IntegrityError(f"the object has {info.stored_size} bytes, and its sources {size}")
    reported = info.checksums.get("crc32c")
    if None not in {reported, checksum} and reported != checksum:
        raise IntegrityError(
            f"the object's crc32c is {reported}, and that of its sources {checksum}"
        )
