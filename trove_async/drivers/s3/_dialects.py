"""How S3-compatible services deviate from Amazon S3, as data, and how to recognise them."""

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

_ASK_SECONDS: Final = 3.0
"""How long a service may take to respond to the request that it is recognised by."""

_DOCUMENT: Final = 64 * 1024
"""Bytes of that response that are read. The error document of every known service is under 1 KiB."""

_MAX_SEGMENT: Final = 255
"""Bytes of a key's segment that SeaweedFS accepts: it stores a segment as a file name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a service deviates from Amazon S3.

    Attributes:
        ordered: It lists keys in bytewise order.
        delete_if_match: It honours a condition on a delete.
        directories: It stores keys as paths of files, and lists one directory after the other.
        dot_segments: It can address keys with ``.`` and ``..`` segments.
        keeps: What may be unusual about a key that it keeps as it is.
        folds: What may be unusual about a key that it stores under another name, or without its
            body. The driver refuses to write it. What is neither kept nor folded is not known, and
            `KeyProbe` finds out.
        commit_conditions: It honours conditions on the completion of an upload.
        copy_conditions: It honours conditions on the destination of a copy.
        honours: What it honours of the features that some services ignore.
        ignores: What it ignores of them. The driver refuses to ask it. What is neither honoured nor
            ignored is not known, and `FeatureProbe` finds out.
        part_conditions: It honours the condition on the source of a part that is copied.
        checksums: It keeps the checksums that it is sent.
        version_markers: A listing of versions goes on correctly behind a version that is gone.
        starts_within: A listing that starts inside a common prefix tells that prefix.
        headers: Rewrites the headers of a request that stores something.
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
    headers: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None

    def spoken(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers of a request that stores something, as the service understands them."""
        return headers if self.headers is None else self.headers(headers)

    def knows(self, oddity: Oddity) -> bool:
        """Return whether it is known what the service does with such a key."""
        return oddity in self.keeps or oddity in self.folds

    def refuses(self, key: str) -> str | None:
        """Return why a key must not be written, or None if it may be."""
        if self.folds and not is_usual(key):
            for oddity in oddities_of(key):
                if oddity in self.folds:
                    return f"it does not keep {oddity.value}"
        return self._too_long(key)

    def hides(self, key: str) -> str | None:
        """Return why there is no object of that very key, or None if there may be one."""
        if self.folds and not is_usual(key):
            for oddity in oddities_of(key):
                if oddity in self.folds and oddity is not Oddity.TRAILING:
                    return f"it does not keep {oddity.value}"
        return self._too_long(key)

    def _too_long(self, key: str) -> str | None:
        if not self.directories:
            return None
        if len(key) > _MAX_SEGMENT // 4 and any(
            len(segment.encode()) > _MAX_SEGMENT for segment in key.split("/")
        ):
            return f"it takes no segment of more than {_MAX_SEGMENT} bytes"
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
SEAWEEDFS: Final = Dialect(
    ordered=False,
    delete_if_match=True,
    directories=True,
    dot_segments=False,
    keeps=frozenset(),
    folds=ALL_ODDITIES,
    honours=CONDITIONS | _TAGS,
)
CEPH: Final = Dialect(
    ordered=True,
    delete_if_match=False,
    commit_conditions=False,
    copy_conditions=False,
    honours=frozenset({Feature.PUT_TAGS}),  # conditions not in buckets that keep versions
    ignores=_TAGS - {Feature.PUT_TAGS},
    part_conditions=False,
    checksums=False,
    version_markers=False,
    starts_within=False,
    headers=ceph_headers,
)
"""Ceph's Object Gateway. Version 16.2 ignores what is False here, without an error."""
UNRECOGNISED: Final = Dialect(
    ordered=True,
    delete_if_match=False,
    keeps=frozenset(),
    honours=frozenset(),
    commit_conditions=False,
    copy_conditions=False,
    version_markers=False,
)
"""A service that responded and is none of the known ones. Several ignore conditions on anything but
a PUT, so none are sent there."""
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
    headers=cautious_headers,
)
"""A service that has not responded yet. It claims the least."""

_NAMED: Final[dict[DialectName, Dialect]] = {
    "s3": S3,
    "seaweedfs": SEAWEEDFS,
    "ceph": CEPH,
}


# -- recognising a service -------------------------------------------------------------------------


class Introduction(NamedTuple):
    """The response to an unsigned ``GET /``, by which a service is recognised.

    Attributes:
        headers: By name in lower case.
        error: The error document, if the body is one.
    """

    headers: Mapping[str, str]
    error: ErrorDocument | None

    @property
    def request_id(self) -> str:
        """The request's id, from the header or the document: a proxy seldom rewrites both."""
        told = self.error.fields if self.error is not None else {}
        return self.headers.get("x-amz-request-id") or told.get("RequestId", "")


_NANOSECONDS_AND_MORE = re.compile(r"([0-9A-F]{16})[0-9A-F]{8}").fullmatch
_DAY: Final = 86_400.0


def _is_seaweedfs(said: Introduction) -> bool:
    """Recognise SeaweedFS by its Server header, or by its request ids.

    A request id is the service's clock in nanoseconds and a random number, both in hexadecimal
    (version 4.48, as seen). No other known service writes ids of 24 digits that begin with the time.
    """
    if said.headers.get("server", "").startswith("SeaweedFS"):
        return True
    found = _NANOSECONDS_AND_MORE(said.request_id)
    if found is None:
        return False
    try:
        now = parse_service_date(said.headers.get("date", ""))
    except ValueError:
        now = datetime.now(UTC)
    return abs(int(found[1], 16) / 1e9 - now.timestamp()) < _DAY


_CEPH_ID = re.compile(r"tx[0-9a-f]{21}-[0-9a-f]{10}-[0-9a-f]+-.+").fullmatch


def _is_ceph(said: Introduction) -> bool:
    """Recognise Ceph's gateway by its request ids.

    They are a number, the time, the gateway's instance and its zone, all but the last in
    hexadecimal (rgw_common, as seen from version 16.2). OpenStack Swift's ids begin alike and have
    no instance.
    """
    return _CEPH_ID(said.request_id) is not None and "x-trans-id" not in said.headers


_RECOGNISED_BY: Final[tuple[tuple[Callable[[Introduction], bool], Dialect], ...]] = (
    (_is_seaweedfs, SEAWEEDFS),
    (_is_ceph, CEPH),
)
"""The first one that returns True decides."""


class Service:
    """The service at an endpoint, and the dialect that it speaks.

    Args:
        name: The dialect, or ``"auto"`` to recognise it.
        endpoint: Where the service is.
        transport: Sends the request by which it is recognised.

    Attributes:
        dialect: What is known by now.
    """

    def __init__(self, name: DialectName, endpoint: Endpoint, transport: Transport) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._asking = asyncio.Lock()
        if endpoint.is_amazon_s3:
            self.dialect = AMAZON
        else:
            self.dialect = _NAMED.get(name, UNKNOWN)

    async def recognise(self) -> bool:
        """Find out the dialect, with one unsigned request unless it is known.

        Returns:
            Whether it is known now. A service that does not respond, or only says that it cannot
            serve, stays `UNKNOWN`, and the next call asks again.
        """
        if self.dialect is not UNKNOWN:
            return True
        async with self._asking:
            if self.dialect is UNKNOWN:
                try:
                    said = await within(_ASK_SECONDS, "no response came", self._introduction())
                except TroveError:
                    said = None
                if said is not None:
                    self.dialect = _dialect_of(said)
        return self.dialect is not UNKNOWN

    async def _introduction(self) -> Introduction | None:
        response = await self._transport.send("GET", self._endpoint.origin, "/", {})
        try:
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return None  # a proxy whose service is not up yet, perhaps
            body = await response.read_all(_DOCUMENT)
        except IntegrityError:
            body = b""  # longer than any error document
        finally:
            response.close()
        try:
            error = parse_error(body)
        except MalformedResponse:
            error = None
        return Introduction(response.headers, error)


def _dialect_of(said: Introduction) -> Dialect:
    for recognises, dialect in _RECOGNISED_BY:
        if recognises(said):
            return dialect
    return UNRECOGNISED
