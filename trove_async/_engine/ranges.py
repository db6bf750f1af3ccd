"""Reads many ranges of one version of an object, joining neighbours into one request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from trove_async._concurrency import for_each
from trove_async._version_identity import can_prove, is_same
from trove_async.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RangeError,
    TroveError,
)
from trove_async.middleware import Span
from trove_async.models import ByteRange, KiB, MiB, ObjectInfo

from .backends import Backend
from .decoded_objects import DecodedObject, is_transformed, read_all
from .pinning import pinned_options
from .transforms import Transforms
from .verified import VerifiedBody

_MAX_GAP = 64 * KiB
"""Maximum gap between two ranges that are joined: at 10 MB/s, a gap costs less than an additional request."""

_MAX_REQUESTS = 8
"""Maximum number of concurrent requests per call."""

_MAX_JOINED = 8 * MiB
"""Maximum size of a joined request. With larger ones, fewer requests would run in parallel."""


async def get_ranges(
    transforms: Transforms, backend: Backend, bucket: str, key: str, ranges: Sequence[ByteRange]
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
    if info.records is not None or transforms.has_required:
        try:
            await transforms.check_read(info, backend)
            if is_transformed(info):
                return await _get_decoded_ranges(transforms, backend, info, ranges)
        except TroveError as error:
            error.located(backend=backend.name)  # a middleware does not know it
            raise
    try:
        spans = [byte_range.resolve(info.stored_size) for byte_range in ranges]
    except RangeError as error:
        error.info = info.located(backend=backend.name)
        error.located(backend=backend.name)
        raise
    requests = coalesce(spans)
    data_by_span: dict[Span, bytes] = {}
    # 2. Several requests need proof that they read the same version.
    is_single = len(requests) == 1
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
        options = pinned_options(backend, info, range=ByteRange(start, end))
        async with backend.driver.get(bucket, key, options) as reader:
            # A single response is of one version: the same etag and size as in the HEAD are enough.
            proved = is_same(info, reader.info)
            if not (proved or (is_single and _may_be_same(info, reader.info))):
                raise PreconditionFailedError("the response is of a different version")
            data = await read_all(VerifiedBody(reader))
        _cut(data, start, covered, data_by_span)

    # 3. Fetch, and return the bytes in the order of the ranges.
    await _fetch_all(backend, bucket, key, requests, fetch)
    return [data_by_span[span] for span in spans]


async def _get_decoded_ranges(
    transforms: Transforms, backend: Backend, info: ObjectInfo, ranges: Sequence[ByteRange]
) -> Sequence[bytes]:
    """Return ranges of one version of a transformed object."""
    decoded = DecodedObject(transforms, backend, info)
    data_by_span: dict[Span, bytes] = {}

    async def fetch(request: tuple[Span, Sequence[Span]]) -> None:
        (start, end), covered = request
        async with await decoded.open_range(start, end) as body:
            _cut(await read_all(body), start, covered, data_by_span)

    with _translate_changes(backend, info.bucket, info.key):
        await decoded.load(for_ranges=True)
    spans = [decoded.resolve(byte_range) for byte_range in ranges]
    await _fetch_all(backend, info.bucket, info.key, coalesce(spans), fetch)
    return [data_by_span[span] for span in spans]


async def _fetch_all(
    backend: Backend,
    bucket: str,
    key: str,
    requests: Sequence[tuple[Span, Sequence[Span]]],
    fetch: Callable[[tuple[Span, Sequence[Span]]], Awaitable[None]],
) -> None:
    with _translate_changes(backend, bucket, key):
        await for_each(requests, fetch, limit=_MAX_REQUESTS)


@contextmanager
def _translate_changes(backend: Backend, bucket: str, key: str) -> Iterator[None]:
    """Raise ObjectChangedError if a request reveals that the version no longer exists."""
    try:
        yield
    except (PreconditionFailedError, ObjectNotFoundError) as error:
        message = "the object was replaced or deleted while its ranges were read: read them again"
        if isinstance(error, ObjectChangedError):
            message = error.message  # raised by a download that could not resume
        raise _changed_error(backend, bucket, key, message) from error


def _cut(data: bytes, start: int, spans: Iterable[Span], data_by_span: dict[Span, bytes]) -> None:
    """Cut the bytes from `start` on into spans."""
    for span_start, span_end in spans:
        data_by_span[span_start, span_end] = data[span_start - start : span_end - start]


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
