"""The driver's capabilities, derived from the service, the data plane and the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trove_async.driver import Capabilities
from trove_async.models import GiB, MiB, TiB

from ._copy import MAX_COPY
from ._features import Feature

if TYPE_CHECKING:
    from ._credentials import Endpoint
    from ._dialects import Dialect
    from ._object_settings import ObjectSettings

_MIN_PART: Final = 5 * MiB
_MAX_PART: Final = 5 * GiB
_MAX_PARTS: Final = 10_000
_MAX_OBJECT: Final = 5 * TiB
"""S3 User Guide, "Amazon S3 multipart upload limits"."""

_MAX_BULK_DELETE: Final = 1000
"""Maximum number of keys in one DeleteObjects request. S3 API Reference, "DeleteObjects"."""


def capabilities_of(
    endpoint: Endpoint,
    dialect: Dialect,
    object_settings: ObjectSettings,
    *,
    lean: bool,
    checksums: bool,
    parallel_parts: int,
    connections: int,
) -> Capabilities:
    """Return the capabilities of a driver.

    Args:
        endpoint: The endpoint of the service.
        dialect: How the service deviates from Amazon S3.
        object_settings: The settings that apply to all objects.
        lean: Whether the driver sends requests itself rather than through the SDK.
        checksums: Whether the driver sends a CRC-32C with each body.
        parallel_parts: The maximum number of parts of one upload in flight, and of ranges of one
            object that are read concurrently.
        connections: The maximum number of open readers. The same limit applies separately to
            writes and to other requests.
    """
    return Capabilities(
        put_if_none_match=True,
        put_if_match=True,
        commit_conditions=dialect.commit_conditions,
        copy_conditions=dialect.copy_conditions,
        get_conditions=True,
        delete_if_match=dialect.delete_if_match,
        ranges=True,
        checksums=frozenset({"crc32c"} if checksums and dialect.checksums else ()),
        metadata=True,
        headers=True,
        expires=True,
        tags=True,
        upload_tags=Feature.UPLOAD_TAGS not in dialect.ignores,
        copy_tags=Feature.COPY_TAGS not in dialect.ignores,
        storage_class=True,
        upload=True,
        parallel_parts=parallel_parts,
        parallel_reads=parallel_parts,
        min_part=_MIN_PART,
        max_part=_MAX_PART,
        max_parts=_MAX_PARTS,
        streamed_parts=lean,
        max_put=_MAX_PART,
        max_object=_MAX_OBJECT,
        # The SDK cannot send Ceph's own headers. Without them, a copy may read a different version.
        server_copy=lean or dialect.rewrite_headers is None,
        max_copy=_MAX_OBJECT if dialect.part_conditions else MAX_COPY,
        bulk_delete=_MAX_BULK_DELETE,
        # A request to the URL would also need the customer's key or the Requester Pays header.
        presign=object_settings.sse_customer_key is None and not object_settings.requester_pays,
        presign_requires="a driver without sse_customer_key and requester_pays",
        versions=True,
        ordered=dialect.ordered,
        exact_keys=endpoint.is_standard_aws,
        private_namespace=not endpoint.is_amazon_s3,
        # The SDK does not encode dot segments, and a proxy may resolve them to a different key.
        dot_segments=dialect.dot_segments and lean,
        own_timeouts=lean,
        max_reads=connections,
        max_writes=connections,
        max_requests=connections,
    )
