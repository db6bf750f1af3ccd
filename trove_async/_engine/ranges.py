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

_MAX_GAP = 64 * KiB
"""Maximum gap between two ranges that are joined: at 10 MB/s, a gap costs less than an additional request."""

_MAX_REQUESTS = 8
"""Maximum number of concurrent requests per call."""

_MAX_JOINED = 8 * MiB
"""Maximum size of a joined request. With larger ones, fewer requests would run in parallel."""


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
    requests = coalesce(spans)
    data_by_span: dict[Span, bytes] = {}
    # 2. Pin that version. Several requests need proof that they read the same one.
    capabilities, is_single = backend.capabilities, len(requests) == 1
    pin = info.etag if capabilities.get_conditions else None
    version_id = info.version_id if capabilities.versions and pin is None else None
    if not (is_single or can_prove(info)):
        raise _changed_error(
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
            # A single response is of one version: the same etag and size as in the HEAD are enough.
            proved = is_same(info, reader.info)
            if not (proved or (is_single and _may_be_same(info, reader.info))):
                raise PreconditionFailedError("the response is of a different version")
            body = VerifiedBody(reader)
            pieces: list[bytes] = []
            while body.remaining:
                pieces.append(await body.read(MiB))
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        for span_start, span_end in covered:
            data_by_span[span_start, span_end] = data[span_start - start : span_end - start]

    # 3. Fetch, and return the bytes in the order of the ranges.
    try:
        await for_each(requests, fetch, limit=_MAX_REQUESTS)
    except (PreconditionFailedError, ObjectNotFoundError) as error:
        message = "the object was replaced or deleted while its ranges were read: read them again"
        if isinstance(error, ObjectChangedError):
            message = error.message  # raised by a download that could not resume
        raise _changed_error(backend, bucket, key, message) from error
    return [data_by_span[span] for span in spans]


def _may_be_same(first: ObjectInfo, later: ObjectInfo) -> bool:
    return (first.etag, first.stored_size) == (later.etag, later.stored_size)


def _changed_error(backend: Backend, bucket: str, key: str, message: str) -> ObjectChangedError:
    return ObjectChangedError(
        message, operation="get_ranges", backend=backend.name, bucket=bucket, key=key
    )


def coalesce(spans: Iterable[Span]) -> Sequence[tuple[Span, Sequence[Span]]]:
    """Join neighbouring spans; return each joined span with the spans that it covers."""
    joined: list[tuple[Span, list[Span]]] = []
    for span in sorted(set(spans)):
        start, end = span
        if joined:
            (joined_start, joined_end), covered = joined[-1]
            new_end = max(end, joined_end)
            is_near = start <= joined_end + _MAX_GAP and new_end - joined_start <= _MAX_JOINED
            if is_near or end <= joined_end:
                covered.append(span)
                joined[-1] = (joined_start, new_end), covered
                continue
        joined.append((span, [span]))
    return joined
