"""AWS Signature Version 4, as S3 wants it: one request signed in the time that its hashes take.

S3 API Reference, "Authenticating Requests (AWS Signature Version 4)". S3 differs from the other
services: a path is signed as it is sent, neither normalised nor encoded a second time.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from trove_async._secrets import Headers, Secret
from trove_async.errors import ConfigError

from ._encoding import UNRESERVED, encode_value, sent_target

if TYPE_CHECKING:
    from hashlib import _Hash

ALGORITHM: Final = "AWS4-HMAC-SHA256"

UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
"""The payload hash of a body that TLS and a checksum protect. S3 API Reference, "Signature
Calculations for the Authorization Header: Transferring Payload in a Single Chunk"."""

EMPTY_SHA256: Final = sha256(b"").hexdigest()

MAX_EXPIRES: Final = 604_800
"""Seconds that a presigned URL may live. S3 API Reference, "Authenticating Requests: Using Query
Parameters": X-Amz-Expires."""

_UNSIGNED = frozenset(
    {
        "authorization",
        "baggage",
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-amzn-trace-id",
    }
)
"""What a proxy may change on the way, or the transport adds: signed, it would only break things."""

_LAYOUTS = 256
"""Sets of header names that are remembered: a driver sends a few dozen, but users name metadata."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who signs.

    Attributes:
        access_key: The access key's id, which every request and presigned URL shows.
        secret_key: What proves it.
        token: The session's token, where the credentials are temporary.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class _Layout(NamedTuple):
    """How requests with one set of headers are signed.

    Attributes:
        template: The canonical request, with ``%s`` for what differs.
        pick: Puts a request's parts and values into the template's order.
        signed: The names signed, as the signature lists them.
    """

    template: str
    pick: Callable[[tuple[str, ...]], tuple[str, ...]]
    signed: str


@dataclass(frozen=True, slots=True)
class _DayKey:
    """The signing key of one secret and one day, as HMAC's two hash states (RFC 2104, 2).

    Copying the two costs half of what making an HMAC of the key costs.
    """

    secret: str = field(repr=False)
    day: str
    scope: str
    inner: _Hash = field(repr=False)
    outer: _Hash = field(repr=False)


class Signer:
    """Signs requests to one region's service.

    It remembers the day's signing key, the second's timestamp, and the order of the headers of
    requests like those before.

    Args:
        region: The region as the service calls it; part of what is signed.
        service: ``"s3"``, or what an odd service wants to be called.
    """

    __slots__ = ("_clock", "_key", "_layouts", "_region", "_service")

    def __init__(self, region: str, service: str = "s3") -> None:
        self._region = region
        self._service = service
        self._clock: tuple[int, str] = (-1, "")
        self._key: _DayKey | None = None
        self._layouts: dict[tuple[object, ...], _Layout] = {}

    @property
    def region(self) -> str:
        """The region that it signs for."""
        return self._region

    def sign(
        self,
        credentials: Credentials,
        *,
        method: str,
        target: str,
        host: str,
        headers: Mapping[str, str],
        payload_hash: str,
        now: datetime | float,
    ) -> dict[str, str]:
        """Return the headers that authorise a request.

        Args:
            credentials: Who signs.
            method: In upper case.
            target: The path, percent-encoded as it is sent, and ``?query`` if there is one.
            host: The Host header as it is sent: the port is in it unless it is the scheme's own.
            headers: What else is sent; all of it is signed but what a proxy may change.
            payload_hash: The body's SHA-256 in lower-case hex, or `UNSIGNED_PAYLOAD`.
            now: Aware, or seconds since the epoch: the service's time, not this machine's.
        """
        stamp = self._stamp(now)
        token = credentials.token
        shape = (token is not None, *headers)
        layout = self._layouts.get(shape) or self._learn(shape)
        path, _, query = target.partition("?")
        canonical = layout.template % layout.pick(
            (
                method,
                path,
                _canonical_query(query) if query else "",
                payload_hash,
                host,
                payload_hash,
                stamp,
                token or "",
                *[" ".join(value.split()) for value in headers.values()],
            )
        )
        key = self._day_key(credentials.secret_key, stamp[:8])
        signed = {
            "Authorization": (
                f"{ALGORITHM} Credential={credentials.access_key}/{key.scope}, "
                f"SignedHeaders={layout.signed}, Signature={_signature(key, stamp, canonical)}"
            ),
            "x-amz-date": stamp,
            "x-amz-content-sha256": payload_hash,
        }
        if token is not None:
            signed["x-amz-security-token"] = token
        return signed

    def signed(
        self,
        credentials: Credentials,
        *,
        method: str,
        target: str,
        host: str,
        common: Mapping[str, str],
        headers: Mapping[str, str],
        hidden: Secret[Mapping[str, str]] | None = None,
        payload_hash: str,
        now: datetime | float,
    ) -> Headers:
        """Return all headers of an authorised request; see `sign`.

        Pass them on rather than keep them in a local variable: they hold the credentials.

        Args:
            credentials: As for `sign`.
            method: Likewise.
            target: Likewise.
            host: Likewise.
            common: Sent with every request.
            headers: Sent with this one, instead of those of the same name.
            hidden: The values of secret headers: they take the place of those of the same name.
            payload_hash: As for `sign`.
            now: Likewise.
        """
        sent = Headers(common)
        sent.update(headers)
        if hidden is not None:
            sent.update((name, hidden.reveal()[name]) for name in hidden.reveal() if name in sent)
        sent.update(
            self.sign(
                credentials,
                method=method,
                target=target,
                host=host,
                headers=sent,
                payload_hash=payload_hash,
                now=now,
            )
        )
        return sent

    def presign(
        self,
        credentials: Credentials,
        *,
        method: str,
        target: str,
        host: str,
        scheme: str,
        expires: int,
        now: datetime | float,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Return a URL that lets whoever has it send one kind of request.

        Args:
            credentials: Who signs. A session's end is the end of the URL too.
            method: In upper case.
            target: As for `sign`.
            host: As for `sign`.
            scheme: ``"https"`` or ``"http"``; not signed.
            expires: Seconds from `now`, 1 to 604,800 (seven days).
            now: As for `sign`.
            headers: What the request must then carry, with these very values.

        Raises:
            ConfigError: `expires` is out of range.
        """
        if not 1 <= expires <= MAX_EXPIRES:
            raise ConfigError(
                f"a presigned URL expires after 1 to {MAX_EXPIRES} seconds, not {expires}"
            )
        stamp = self._stamp(now)
        key = self._day_key(credentials.secret_key, stamp[:8])
        values = {name.lower(): " ".join(value.split()) for name, value in (headers or {}).items()}
        values["host"] = host
        names = sorted(values.keys() - _UNSIGNED)
        signed = ";".join(names)
        fields = {
            "X-Amz-Algorithm": ALGORITHM,
            "X-Amz-Credential": f"{credentials.access_key}/{key.scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(expires),
            "X-Amz-SignedHeaders": signed,
        }
        if credentials.token is not None:
            fields["X-Amz-Security-Token"] = credentials.token
        path, _, asked = target.partition("?")
        added = "&".join(f"{name}={encode_value(value)}" for name, value in fields.items())
        query = _canonical_query(f"{asked}&{added}" if asked else added)
        lines = "".join(f"{name}:{values[name]}\n" for name in names)
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{signed}\n{UNSIGNED_PAYLOAD}"
        signature = _signature(key, stamp, canonical)
        return f"{scheme}://{host}{sent_target(path)}?{query}&X-Amz-Signature={signature}"

    def _learn(self, shape: tuple[object, ...]) -> _Layout:
        """Work out, and remember, the layout for requests of this shape (see `sign`)."""
        own = ["host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"]
        places = {name: 4 + index for index, name in enumerate(own[: 4 if shape[0] else 3])}
        for index, name in enumerate(shape[1:]):
            lowered = str(name).lower()
            if lowered not in _UNSIGNED and lowered not in own:
                places[lowered] = 8 + index
        names = sorted(places)
        signed = ";".join(names)
        # A header's name may hold a "%" (RFC 9110, 5.6.2).
        escaped = [name.replace("%", "%%") for name in names]
        lines = "".join(f"{name}:%s\n" for name in escaped)
        template = f"%s\n%s\n%s\n{lines}\n{';'.join(escaped)}\n%s"
        layout = _Layout(
            template, itemgetter(0, 1, 2, *(places[name] for name in names), 3), signed
        )
        if len(self._layouts) >= _LAYOUTS:
            self._layouts.clear()
        self._layouts[shape] = layout
        return layout

    def _stamp(self, now: datetime | float) -> str:
        second = int(now.timestamp() if isinstance(now, datetime) else now)
        if second != self._clock[0]:
            self._clock = (second, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second)))
        return self._clock[1]

    def _day_key(self, secret: str, day: str) -> _DayKey:
        key = self._key
        if key is None or key.day != day or key.secret != secret:
            derived = f"AWS4{secret}".encode()
            for text in (day, self._region, self._service, "aws4_request"):
                derived = hmac.digest(derived, text.encode(), "sha256")
            block = derived.ljust(64, b"\0")
            self._key = key = _DayKey(
                secret=secret,
                day=day,
                scope=f"{day}/{self._region}/{self._service}/aws4_request",
                inner=sha256(bytes(byte ^ 0x36 for byte in block)),
                outer=sha256(bytes(byte ^ 0x5C for byte in block)),
            )
        return key


def _signature(key: _DayKey, stamp: str, canonical: str) -> str:
    digest = sha256(canonical.encode()).hexdigest()
    inner = key.inner.copy()
    inner.update(f"{ALGORITHM}\n{stamp}\n{key.scope}\n{digest}".encode())
    outer = key.outer.copy()
    outer.update(inner.digest())
    return outer.hexdigest()


def _canonical_query(query: str) -> str:
    """Return the query as the service puts it: each name and value encoded in one way, sorted."""
    pairs = []
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            pairs.append((_canonical(name), _canonical(value)))
    pairs.sort()  # by name, then value: sorting "name=value" would put "a-b=" before "a="
    return "&".join([f"{name}={value}" for name, value in pairs])


def _canonical(text: str) -> str:
    return quote(unquote_to_bytes(text), safe=UNRESERVED) if "%" in text else encode_value(text)
