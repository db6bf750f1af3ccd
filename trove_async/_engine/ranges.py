"""Many ranges of one object: neighbours fetched together, all of one version."""

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
"""Bytes that are cheaper to fetch in vain than to ask for around: a request's cost at 10 MB/s."""

_LIMIT = 8
"""Requests under way at once for one call."""

_LARGEST = 8 * MiB
"""A request grows no further than this for neighbours' sake, so that others run beside it."""


async def get_ranges(
    backend: Backend, bucket: str, key: str, ranges: Sequence[ByteRange]
) -> Sequence[bytes]:
    """Return the bytes of each range, in the order asked.

    Raises:
        RangeError: One of them selects nothing; nothing is returned.
        ObjectChangedError: The object was replaced, or deleted, between two of the requests, or
            nothing could prove that it was not.
    """
    if not ranges:
        return []
    info = await backend.driver.head(bucket, key)
    spans = [one.resolve(info.stored_size) for one in ranges]
    requests = coalesced(spans)
    found: dict[Span, bytes] = {}
    can, alone = backend.capabilities, len(requests) == 1
    pin = info.etag if can.get_conditions else None
    version_id = info.version_id if can.versions and pin is None else None
    if not (alone or can_prove(info)):
        raise _changed(
            backend,
            bucket,
            key,
            "the ranges need several requests, and the service gives no strong validator that"
            " proves them to be of one version: read the whole object, or try again in a second",
        )

    async def fetch(request: tuple[Span, Sequence[Span]]) -> None:
        (start, end), wanted = request
        options = GetOptions(range=ByteRange(start, end), if_match=pin, version_id=version_id)
        async with backend.driver.get(bucket, key, options) as reader:
            # One response is of one version, if it is the one that the ranges were resolved for.
            same = is_same(info, reader.info)
            if not (same or (alone and _may_be_same(info, reader.info))):
                raise PreconditionFailedError("another version")
            body = VerifiedBody(reader)
            pieces: list[bytes] = []
            while body.remaining:
                pieces.append(await body.read(MiB))
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        for first, last in wanted:
            found[first, last] = data[first - start : last - start]

    try:
        await for_each(requests, fetch, limit=_LIMIT)
    except (PreconditionFailedError, ObjectNotFoundError) as error:
        known = isinstance(error, ObjectChangedError)
        message = "the object was replaced or deleted between two of the ranges"
        raise _changed(backend, bucket, key, error.message if known else message) from error
    return [found[span] for span in spans]


def _may_be_same(first: ObjectInfo, later: ObjectInfo) -> bool:
    return (first.etag, first.stored_size) == (later.etag, later.stored_size)


def _changed(backend: Backend, bucket: str, key: str, message: str) -> ObjectChangedError:
    return ObjectChangedError(
        message, operation="get_ranges", backend=backend.name, bucket=bucket, key=key
    )


def coalesced(spans: Iterable[Span]) -> Sequence[tuple[Span, Sequence[Span]]]:
    """Return the fewest sensible spans that cover all of `spans`, each with those that it covers."""
    joined: list[tuple[Span, list[Span]]] = []
    for span in sorted(set(spans)):
        start, end = span
        if joined:
            (first, last), covered = joined[-1]
            near = start <= last + _GAP and max(end, last) - first <= _LARGEST
            if near or end <= last:
                covered.append(span)
                joined[-1] = (first, max(end, last)), covered
                continue
        joined.append((span, [span]))
    return joined
