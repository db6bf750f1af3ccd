"""The write_ids of the copies that jobs make, which name the version that was copied.

A job that was killed between the copy and the deletion of the source leaves both objects. Their bytes cannot
always be compared: the copy may be encrypted, or the services may have no checksum in common. So the write_id
of such a copy starts with a *mark*: a hash of what identifies the version of the source.

    m<16 hexadecimal digits>.<write_id of the put>
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final

from trove_async.models import ObjectInfo
from trove_async.options import without_mark

_RECENT: Final = timedelta(minutes=30)
"""A job deletes the source of a copy within a minute. The clocks of services and clients differ by up to 15
minutes: services refuse requests with a larger difference (S3: RequestTimeTooSkewed)."""


def marked(write_id: str, source: ObjectInfo) -> str:
    """Return the write_id of a copy of the version that `source`, the response to a HEAD, describes."""
    return f"{_mark_of(source)}.{write_id}"


def is_copy_of(copy: ObjectInfo, source: ObjectInfo) -> bool:
    """Return whether a job has made the one object as a copy of the other, which has not changed since."""
    return is_marked(copy) and str(copy.write_id).startswith(f"{_mark_of(source)}.")


def is_marked(info: ObjectInfo) -> bool:
    """Return whether a job has made the object as a copy."""
    return info.write_id is not None and without_mark(info.write_id) != info.write_id


def is_copy_in_progress(info: ObjectInfo, write_id: str) -> bool:
    """Return whether another store has made the object as a copy, and may be about to delete its source.

    Args:
        info: The object.
        write_id: A write_id of this store, which makes one copy of a key at a time (`key_guard`).
    """
    if not is_marked(info) or _store_of(str(info.write_id)) == _store_of(write_id):
        return False
    return datetime.now(UTC) - info.last_modified < _RECENT


def _store_of(write_id: str) -> str:
    return without_mark(write_id).rpartition("-")[0]


def _mark_of(source: ObjectInfo) -> str:
    identity: list[object] = [
        source.bucket,
        source.key,
        source.etag,
        source.write_id,
        source.stored_size,
        source.records,
    ]
    if source.write_id is None:  # two writes of the same bytes may have the same etag
        identity.append(source.last_modified.isoformat())
    return "m" + hashlib.sha256(ascii(identity).encode()).hexdigest()[:16]
