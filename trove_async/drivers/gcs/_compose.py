"""Concatenates objects on the server, and verifies the new object without reading it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from trove_async._checksums import combine_crc32c, crc32c_text, crc32c_value
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
    condition_query,
    encode_resource,
    info_from_resource,
    require_generation,
)

if TYPE_CHECKING:
    from ._client import Client
    from ._defaults import Defaults

Head = Callable[[str, str], Awaitable[ObjectInfo]]

MAX_SOURCES: Final = 32
"""The maximum number of sources in one request. Cloud Storage documentation, "Composite objects"; JSON
API, "Objects: compose"."""

_CONCURRENT_HEADS: Final = 8
"""The maximum number of concurrent head requests."""


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
        # 1. Validate the arguments and look up the sources.
        if isinstance(keys, str) or not 1 <= len(keys) <= MAX_SOURCES:
            raise ValueError(f"keys must be a sequence of 1 to {MAX_SOURCES} keys")
        if options.tags or options.expires is not None:
            raise NotSupportedError("options must not have tags or expires: gcs cannot store them")
        infos = await self._head_sources(bucket, keys)
        sources = [infos[source_key] for source_key in keys]
        size, checksum = _expected_content(sources, options)
        # 2. Compose them. The request pins each source to its generation.
        options = self._defaults.apply(options)
        query = {"fields": FIELDS, **condition_query(options), **self._defaults.create_query}
        target = f"{object_path(bucket, key)}/compose{encode_query(query)}"
        with map_condition_errors(options):
            try:
                document = await self._client.request(
                    "POST", target, JSON, [_encode_request(sources, options)]
                )
            except (PreconditionFailedError, NotFoundError) as error:
                # The response does not show which condition failed: that on the new object, or on a source.
                await self._check_unchanged(bucket, infos.values(), error)
                raise
        info = info_from_resource(document, bucket=bucket, backend=self._backend)
        # 3. Verify the new object, and delete it if it is corrupt. If it replaced a source, keep it:
        # otherwise that key would have no object.
        try:
            _verify_composed(info, size, checksum)
        except IntegrityError:
            if key not in infos:
                await self._delete_composed(bucket, key, info.etag)
            raise
        return info

    async def _delete_composed(self, bucket: str, key: str, etag: str | None) -> None:
        """Delete a corrupt object, unless another client has replaced it."""
        query = {"ifGenerationMatch": require_generation(etag)}
        target = object_path(bucket, key) + encode_query(query)
        with shielded(), suppress(TroveError):
            await self._client.execute("DELETE", target)

    async def _head_sources(self, bucket: str, keys: Sequence[str]) -> Mapping[str, ObjectInfo]:
        infos: dict[str, ObjectInfo] = {}

        async def fetch(key: str) -> None:
            infos[key] = await self._head(bucket, key)

        await for_each(dict.fromkeys(keys), fetch, limit=_CONCURRENT_HEADS)
        return infos

    async def _check_unchanged(
        self, bucket: str, sources: Iterable[ObjectInfo], error: TroveError
    ) -> None:
        """Raise ObjectChangedError if a source was replaced or deleted."""
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


def _encode_request(sources: Sequence[ObjectInfo], options: PutOptions) -> memoryview:
    document = {
        "kind": "storage#composeRequest",
        "sourceObjects": [
            {"name": source.key, "objectPreconditions": {"ifGenerationMatch": source.etag}}
            for source in sources
        ],
        "destination": json.loads(encode_resource(replace(options, checksums={}))),
    }
    return memoryview(json.dumps(document, ensure_ascii=False).encode())


def _expected_content(sources: Sequence[ObjectInfo], options: PutOptions) -> tuple[int, str | None]:
    """Return the expected size and CRC-32C of the new object. None: the CRC-32C is unknown.

    Raises:
        IntegrityError: The sources differ from the size or the checksum in `options`.
    """
    size, checksum = sum(source.stored_size for source in sources), _combined_checksum(sources)
    announced = options.checksums.get("crc32c", checksum)
    if options.size not in {None, size}:
        raise IntegrityError(
            f"size must be the total size of the sources, {size} bytes, got {options.size}"
        )
    if checksum not in {None, announced}:
        raise IntegrityError(f"crc32c must be that of the sources, {checksum}, got {announced}")
    return size, announced


def _combined_checksum(sources: Sequence[ObjectInfo]) -> str | None:
    """Return the CRC-32C of the concatenated sources, or None if a source has none."""
    combined = 0
    for source in sources:
        stored_checksum = source.checksums.get("crc32c")
        if stored_checksum is None:
            return None
        combined = combine_crc32c(combined, crc32c_value(stored_checksum), source.stored_size)
    return crc32c_text(combined)


def _verify_composed(info: ObjectInfo, size: int, checksum: str | None) -> None:
    if info.stored_size != size:
        raise IntegrityError(
            f"the composed object has {info.stored_size} bytes, but its sources have {size}"
        )
    stored_checksum = info.checksums.get("crc32c")
    if None not in {stored_checksum, checksum} and stored_checksum != checksum:
        raise IntegrityError(
            f"the composed object has the crc32c {stored_checksum}, but {checksum} was expected"
        )
