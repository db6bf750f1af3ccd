"""Reads many ranges of one version of an object, joining neighbours into one request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from trove_async._concurrency import for_each
from trove_async._version_identity import can_prove, is_same
from trove_async.errors import ObjectChangedError, ObjectNotFoundError, PreconditionFailedError
from trove_async.models import ByteRange, KiB, MiB, ObjectInfo
from trove_async.options import GetOptions

from .backends import Backend
from .verified import VerifiedBody

Span: TypeAlias = tuple[int, int]

_GAP = 64 * KiB
"""Ranges closer than this are joined: at 10 MB/s the gap costs less than another request."""

_LIMIT = 8
"""Concurrent requests of one call."""

_LARGEST = 8 * MiB
"""The largest joined request. Larger ones would run less in parallel."""


async def get_ranges(
    backend: Backend, bucket: str, key: str, ranges: Sequence[ByteRange]
) -> Sequence[bytes]:
    """Return the bytes of each range, in the order of `ranges`.

    Raises:
        RangeError: A range selects no bytes.
        ObjectChangedError: The object was replaced or deleted between two requests, or the service
            gives no proof that it was not.
    """
    if not ranges:
        return []
    # 1. Resolve the ranges against the current version, and join neighbours.
    info = await backend.driver.head(bucket, key)
    spans = [byte_range.resolve(info.stored_size) for byte_range in ranges]
    requests = coalesced(spans)
    data_by_span: dict[Span, bytes] = {}
    # 2. Pin that version; several requests need a proof that they read the same one.
    can, is_single = backend.capabilities, len(requests) == 1
    pin = info.etag if can.get_conditions else None
    version_id = info.version_id if can.versions and pin is None else None
    if not (is_single or can_prove(info)):
        raise _changed(
            backend,
            bucket,
            key,
            "the ranges need several requests, and the service gives no strong validator to prove"
            " that they are of one version: read the whole object, or retry in a second",
        )

    async def fetch(request: tuple[Span, Sequence[Span]]) -> None:
        (start, end), covered = request
        options = GetOptions(range=ByteRange(start, end), if_match=pin, version_id=version_id)
        async with backend.driver.get(bucket, key, options) as reader:
            # A single response is of one version: it only has to match the resolved size.
            same = is_same(info, reader.info)
            if not (same or (is_single and _may_be_same(info, reader.info))):
                raise PreconditionFailedError("the response is of a different version")
            body = VerifiedBody(reader)
            pieces: list[bytes] = []
            while body.remaining:
                pieces.append(await body.read(MiB))
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        for first, last in covered:
            data_by_span[first, last] = data[first - start : last - start]

    # 3. Fetch, and return the bytes in the order of the ranges.
    try:
        await for_each(requests, fetch, limit=_LIMIT)
    except (PreconditionFailedError, ObjectNotFoundError) as error:
        message = "the object was replaced or deleted while its ranges were read: read them again"
        if isinstance(error, ObjectChangedError):
            message = error.message  # raised by a download that could not resume
        raise _changed(backend, bucket, key, message) from error
    return [data_by_span[span] for span in spans]


def _may_be_same(first: ObjectInfo, later: ObjectInfo) -> bool:
    return (first.etag, first.stored_size) == (later.etag, later.stored_size)


def _changed(backend: Backend, bucket: str, key: str, message: str) -> ObjectChangedError:
    return ObjectChangedError(
        message, operation="get_ranges", backend=backend.name, bucket=bucket, key=key
    )


def coalesced(spans: Iterable[Span]) -> Sequence[tuple[Span, Sequence[Span]]]:
    """Join near spans; return each joined span with the spans that it covers."""
    joined: list[tuple[Span, list[Span]]] = []
    for span in sorted(set(spans)):
        start, end = span
        if joined:
            (first, last), covered = joined[-1]
            is_near = start <= last + _GAP and max(end, last) - first <= _LARGEST
            if is_near or end <= last:
                covered.append(span)
                joined[-1] = (first, max(end, last)), covered
                continue
        joined.append((span, [span]))
    return joined
