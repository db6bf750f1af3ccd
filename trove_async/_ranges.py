"""Many ranges of one object: neighbours fetched together, all of one version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ._concurrency import task_group
from ._download import Verified
from .errors import ObjectChangedError, PreconditionFailedError
from .models import ByteRange, GetOptions, KiB, MiB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._backends import Backend

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
        ObjectChangedError: The object was replaced between two of the requests.
    """
    if not ranges:
        return []
    info = await backend.driver.head(bucket, key)
    spans = [one.resolve(info.stored_size) for one in ranges]
    found: dict[tuple[int, int], bytes] = {}
    pin = info.etag if backend.capabilities.get_conditions else None
    limiter = anyio.CapacityLimiter(_LIMIT)

    async def fetch(start: int, end: int) -> None:
        options = GetOptions(range=ByteRange(start, end), if_match=pin)
        async with limiter, backend.driver.get(bucket, key, options) as reader:
            if reader.info.etag != info.etag:
                raise PreconditionFailedError("another version")
            body = Verified(reader)
            pieces: list[bytes] = []
            while body.remaining:
                pieces.append(await body.read(MiB))
            data = b"".join(pieces)
        for span in spans:
            if start <= span[0] and span[1] <= end:
                found[span] = data[span[0] - start : span[1] - start]

    try:
        async with task_group() as group:
            for start, end in coalesced(spans):
                group.start_soon(fetch, start, end)
    except PreconditionFailedError as error:
        raise ObjectChangedError(
            "the object was replaced between two of the ranges",
            operation="get_ranges",
            backend=backend.name,
            bucket=bucket,
            key=key,
        ) from error
    return [found[span] for span in spans]


def coalesced(spans: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Return the fewest sensible spans that cover all of `spans`, sorted."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(set(spans)):
        if joined:
            first, last = joined[-1]
            near = start <= last + _GAP and max(end, last) - first <= _LARGEST
            if near or end <= last:
                joined[-1] = first, max(end, last)
                continue
        joined.append((start, end))
    return joined
