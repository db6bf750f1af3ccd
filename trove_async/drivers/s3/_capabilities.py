"""What the driver can honour: by the service, the way that requests are sent, and the driver's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trove_async.driver import Capabilities
from trove_async.models import GiB, MiB, TiB

from ._copy import MAX_COPY
from ._features import Feature

if TYPE_CHECKING:
    from ._credentials import Endpoint
    from ._defaults import Defaults
    from ._dialects import Dialect

_MIN_PART: Final = 5 * MiB
_MAX_PART: Final = 5 * GiB
_MAX_PARTS: Final = 10_000
_MAX_OBJECT: Final = 5 * TiB
"""S3 User Guide, "Amazon S3 multipart upload limits"."""

_BULK: Final = 1000
"""Keys of one DeleteObjects. S3 API Reference, "DeleteObjects"."""


def capabilities_of(
    endpoint: Endpoint,
    dialect: Dialect,
    defaults: Defaults,
    *,
    lean: bool,
    checksums: bool,
    parallel_parts: int,
    connections: int,
) -> Capabilities:
    """Return what a driver claims.

    Args:
        endpoint: Where the service is.
        dialect: How it deviates from Amazon's.
        defaults: What is asked of it for all objects.
        lean: Whether objects are sent by requests of our own, rather than by the SDK.
        checksums: Whether bodies are sent with a CRC-32C.
        parallel_parts: Parts and ranges of one object that may be under way at once.
        connections: Readers that may be open at once, writes likewise, and as many other requests.
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
        # The SDK sends no header of Ceph's own, and without it a copy pins no version.
        server_copy=lean or dialect.headers is None,
        max_copy=_MAX_OBJECT if dialect.part_conditions else MAX_COPY,
        bulk_delete=_BULK,
        # A holder of a URL would have to have the customer's key, or to pay by a header.
        presign=defaults.sse_customer_key is None and not defaults.requester_pays,
        versions=True,
        ordered=dialect.ordered,
        exact_keys=endpoint.aws,
        private_namespace=not endpoint.aws,
        # The SDK sends a path with its dots, which a proxy may resolve to another key.
        dot_segments=dialect.dot_segments and lean,
        max_reads=connections,
        max_writes=connections,
        max_requests=connections,
    )
