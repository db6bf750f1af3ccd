"""The capabilities of the GCS driver."""

from __future__ import annotations

from typing import Final

from trove_async.driver import Capabilities
from trove_async.models import KiB, TiB

from ._batch_delete import MAX_KEYS
from ._resumable import QUANTUM

_MAX_OBJECT: Final = 5 * TiB
"""Cloud Storage documentation, "Quotas and limits": maximum size of an object."""

_MAX_METADATA: Final = 8 * KiB - 256
"""The maximum size of custom metadata in bytes ("Quotas and limits": 8 KiB), minus what the driver adds."""

_PARALLEL_READS: Final = 3
"""The maximum number of concurrent ranges of one slow body. Three ranges have three times the rate of one,
and need less than 16 MiB of memory."""


def capabilities(*, is_google: bool, can_sign: bool, max_connections: int) -> Capabilities:
    """Return the capabilities of a GCS driver.

    Args:
        is_google: Whether the service is Google's own.
        can_sign: Whether the credentials can sign URLs.
        max_connections: The maximum number of open readers, of concurrent writes, and of other
            concurrent requests.
    """
    return Capabilities(
        put_if_none_match=True,
        put_if_match=True,
        get_conditions=True,
        delete_if_match=True,
        ranges=True,
        checksums=frozenset({"crc32c"}),
        metadata=True,
        headers=True,
        storage_class=True,
        upload=True,
        parallel_parts=1,  # a resumable session takes its bytes in order
        parallel_reads=_PARALLEL_READS,
        min_part=QUANTUM,
        part_multiple=QUANTUM,
        uneven_parts=True,
        max_part=_MAX_OBJECT,
        max_parts=_MAX_OBJECT // QUANTUM,
        max_object=_MAX_OBJECT,
        server_copy=True,
        bulk_delete=MAX_KEYS,
        presign=can_sign,
        presign_requires="the key file of a service account, or a Google Cloud machine",
        settles_doubt=True,
        versions=True,
        exact_keys=is_google,
        private_namespace=not is_google,
        dot_segments=True,
        own_timeouts=True,
        max_reads=max_connections,
        max_writes=max_connections,
        max_requests=max_connections,
        max_metadata_bytes=_MAX_METADATA,
    )
