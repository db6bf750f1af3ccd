"""How S3-compatible services deviate from AWS, and how to detect them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from trove_async._concurrency import within
from trove_async._http import Transport
from trove_async._http_dates import parse_service_date
from trove_async.errors import IntegrityError, TroveError

from ._ceph import cautious_headers, ceph_headers
from ._documents import ErrorDocument, parse_error
from ._features import ALL as ALL_FEATURES
from ._features import CONDITIONS, TAGS, Feature
from ._unusual_keys import ALL as ALL_ODDITIES
from ._unusual_keys import Oddity, is_usual, oddities_of
from ._xml import MalformedResponse

if TYPE_CHECKING:
    from ._credentials import Endpoint

DialectName = Literal["auto", "s3", "seaweedfs", "ceph"]

_RECOGNITION_SECONDS: Final = 3.0
"""Timeout of the request that recognises the service."""

_MAX_DOCUMENT: Final = 64 * 1024
"""Maximum number of bytes of the response to read. Known services send error documents under 1 KiB."""

_MAX_SEGMENT: Final = 255
"""Maximum number of bytes of a key's segment on SeaweedFS, which stores a segment as a file name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a service deviates from Amazon S3.

    Attributes:
        ordered: Whether it lists keys in bytewise order.
        delete_if_match: Whether it honours a condition on a delete.
        directories: Whether it stores keys as file paths and lists one directory after another.
        dot_segments: Whether it can address keys with ``.`` and ``..`` segments.
        keeps: The oddities of keys that it stores unchanged.
        folds: The oddities of keys that it stores under a different name or without the body. The
            driver does not write such keys. An oddity in neither set is unknown, and `KeyProbe`
            tests it.
        commit_conditions: Whether it honours conditions on the completion of an upload, in one atomic step.
        copy_conditions: Whether it honours conditions on the destination of a copy.
        honours: The features that it is known to honour.
        ignores: The features that it is known to ignore. The driver does not use them. A feature in
            neither set is unknown, and `FeatureProbe` tests it.
        part_conditions: Whether it honours the condition on the source of a copied part.
        checksums: Whether it stores the checksums that it receives.
        version_markers: Whether a listing of versions continues correctly after a version that has
            been deleted.
        starts_within: Whether a listing that starts inside a common prefix includes that prefix.
        rewrite_headers: Rewrites the headers of a write. None if they are sent unchanged.
    """

    ordered: bool
    delete_if_match: bool
    directories: bool = False
    dot_segments: bool = True
    keeps: frozenset[Oddity] = ALL_ODDITIES
    folds: frozenset[Oddity] = frozenset()
    commit_conditions: bool = True
    copy_conditions: bool = True
    honours: frozenset[Feature] = ALL_FEATURES
    ignores: frozenset[Feature] = frozenset()
    part_conditions: bool = True
    checksums: bool = True
    version_markers: bool = True
    starts_within: bool = True
    rewrite_headers: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None

    def write_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers of a write, rewritten for the service."""
        return headers if self.rewrite_headers is None else self.rewrite_headers(headers)

    def knows(self, oddity: Oddity) -> bool:
        """Return whether the service is known to keep or to fold keys with this oddity."""
        return oddity in self.keeps or oddity in self.folds

    def unwritable_reason(self, key: str) -> str | None:
        """Return why a key must not be written, or None if it can be written."""
        if self.folds and not is_usual(key):
            for oddity in oddities_of(key):
                if oddity in self.folds:
                    return f"it does not keep {oddity.value}"
        return self._length_reason(key)

    def absent_reason(self, key: str) -> str | None:
        """Return why no object can have exactly this key, or None if one can."""
        if self.folds and not is_usual(key):
            for oddity in oddities_of(key):
                if oddity in self.folds and oddity is not Oddity.TRAILING:
                    return f"it does not keep {oddity.value}"
        return self._length_reason(key)

    def _length_reason(self, key: str) -> str | None:
        """Return the reason if a segment is too long, otherwise None."""
        if not self.directories:
            return None
        # The first comparison is cheap, and false for short keys.
        if len(key) > _MAX_SEGMENT // 4 and any(
            len(segment.encode()) > _MAX_SEGMENT for segment in key.split("/")
        ):
            return f"a segment must have at most {_MAX_SEGMENT} bytes"
        return None


_TAGS: Final = frozenset(TAGS.values())

AMAZON: Final = Dialect(
    ordered=True,
    delete_if_match=True,
)
S3: Final = Dialect(
    ordered=True,
    delete_if_match=False,
)
"""A service that is not Amazon's, but for which the user passes ``dialect="s3"``."""
SEAWEEDFS: Final = Dialect(
    ordered=False,
    delete_if_match=True,
    directories=True,
    dot_segments=False,
    keeps=frozenset(),
    folds=ALL_ODDITIES,
    # It checks the condition of a completion first and completes the upload later: of several concurrent
    # completions with If-None-Match, some or all succeed (version 4.48).
    commit_conditions=False,
    honours=CONDITIONS | _TAGS,
)
CEPH: Final = Dialect(
    ordered=True,
    delete_if_match=False,
    commit_conditions=False,
    copy_conditions=False,
    # CONDITIONS are missing because it honours them in unversioned buckets only.
    honours=frozenset({Feature.PUT_TAGS}),
    ignores=_TAGS - {Feature.PUT_TAGS},
    part_conditions=False,
    checksums=False,
    version_markers=False,
    starts_within=False,
    rewrite_headers=ceph_headers,
)
"""Ceph's Object Gateway. Version 16.2 silently ignores the conditions and checksums that are False
here, and the features in `ignores`."""
UNRECOGNISED: Final = Dialect(
    ordered=True,
    delete_if_match=False,
    keeps=frozenset(),
    honours=frozenset(),
    commit_conditions=False,
    copy_conditions=False,
    version_markers=False,
)
"""A service that responded and was not recognised. Several such services ignore conditions on
deletes, completions and the destinations of copies, so the driver sends none there."""
UNKNOWN: Final = Dialect(
    ordered=False,
    delete_if_match=False,
    dot_segments=False,
    keeps=frozenset(),
    honours=frozenset(),
    ignores=_TAGS - {Feature.PUT_TAGS},
    commit_conditions=False,
    copy_conditions=False,
    part_conditions=False,
    version_markers=False,
    rewrite_headers=cautious_headers,
)
"""A service that has not responded yet. The driver claims as little as possible."""

_NAMED: Final[dict[DialectName, Dialect]] = {
    "s3": S3,
    "seaweedfs": SEAWEEDFS,
    "ceph": CEPH,
}


# -- recognising a service -------------------------------------------------------------------------


class RootResponse(NamedTuple):
    """The response to an unsigned ``GET /``, which identifies a service.

    Attributes:
        headers: The headers, by lower-case name.
        error: The error document, if the body is one.
    """

    headers: Mapping[str, str]
    error: ErrorDocument | None

    @property
    def request_id(self) -> str:
        """The request id, from the header or the document. A proxy seldom rewrites both."""
        fields = self.error.fields if self.error is not None else {}
        return self.headers.get("x-amz-request-id") or fields.get("RequestId", "")


_TIMESTAMPED_ID = re.compile(r"([0-9A-F]{16})[0-9A-F]{8}").fullmatch
_DAY: Final = 86_400.0


def _is_seaweedfs(root_response: RootResponse) -> bool:
    """Recognise SeaweedFS by its Server header, or by its request ids.

    A request id is the service's clock in nanoseconds and a random number, both in hexadecimal
    (observed on version 4.48). No other known service uses 24-digit ids that begin with the time.
    """
    if root_response.headers.get("server", "").startswith("SeaweedFS"):
        return True
    match = _TIMESTAMPED_ID(root_response.request_id)
    if match is None:
        return False
    try:
        now = parse_service_date(root_response.headers.get("date", ""))
    except ValueError:
        now = datetime.now(UTC)
    return abs(int(match[1], 16) / 1e9 - now.timestamp()) < _DAY


_CEPH_ID = re.compile(r"tx[0-9a-f]{21}-[0-9a-f]{10}-[0-9a-f]+-.+").fullmatch


def _is_ceph(root_response: RootResponse) -> bool:
    """Recognise Ceph's gateway by its request ids.

    An id is a number, the time, the gateway's instance and its zone, all but the last in
    hexadecimal (rgw_common, observed on version 16.2). OpenStack Swift's ids begin the same way
    and have no instance.
    """
    return (
        _CEPH_ID(root_response.request_id) is not None and "x-trans-id" not in root_response.headers
    )


_RECOGNISED_BY: Final[tuple[tuple[Callable[[RootResponse], bool], Dialect], ...]] = (
    (_is_seaweedfs, SEAWEEDFS),
    (_is_ceph, CEPH),
)
"""Predicates and their dialects. The first predicate that returns True applies."""


class Service:
    """The service at an endpoint and its dialect.

    Args:
        name: The dialect, or ``"auto"`` to recognise it.
        endpoint: The endpoint of the service.
        transport: Sends the request that recognises the service.

    Attributes:
        dialect: The dialect as far as it is known.
    """

    def __init__(self, name: DialectName, endpoint: Endpoint, transport: Transport) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._recognition_lock = asyncio.Lock()
        if endpoint.is_amazon_s3:
            self.dialect = AMAZON
        else:
            self.dialect = _NAMED.get(name, UNKNOWN)

    async def recognise(self) -> bool:
        """Detect the dialect with one unsigned request, unless it is known.

        Returns:
            Whether the dialect is known now. A service that does not respond, or responds with a 5xx
            status, stays `UNKNOWN`, and the next call sends the request again.
        """
        if self.dialect is not UNKNOWN:
            return True
        async with self._recognition_lock:
            if self.dialect is UNKNOWN:
                try:
                    root_response = await within(
                        _RECOGNITION_SECONDS,
                        "the service did not respond to GET / in time",
                        self._request_root(),
                    )
                except TroveError:
                    root_response = None
                if root_response is not None:
                    self.dialect = _dialect_of(root_response)
        return self.dialect is not UNKNOWN

    async def _request_root(self) -> RootResponse | None:
        """Send an unsigned ``GET /``. Return None if the status is 5xx."""
        response = await self._transport.send("GET", self._endpoint.origin, "/", {})
        try:
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return None  # possibly a proxy's response while the service starts
            body = await response.read_all(_MAX_DOCUMENT)
        except IntegrityError:
            body = b""  # longer than any error document
        finally:
            response.close()
        try:
            error = parse_error(body)
        except MalformedResponse:
            error = None
        return RootResponse(response.headers, error)


def _dialect_of(root_response: RootResponse) -> Dialect:
    for is_recognised, dialect in _RECOGNISED_BY:
        if is_recognised(root_response):
            return dialect
    return UNRECOGNISED
