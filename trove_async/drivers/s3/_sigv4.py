"""AWS Signature Version 4 for S3, in little more time than its hashes take.

S3 API Reference, "Authenticating Requests (AWS Signature Version 4)". S3 differs from other AWS
services: the path is signed as it is sent. It is neither normalised nor encoded a second time.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from operator import itemgetter
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from trove_async._secrets import Headers, Secret
from trove_async.errors import ConfigError

from ._encoding import UNRESERVED, encode_value, sent_target

ALGORITHM: Final = "AWS4-HMAC-SHA256"

UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
"""Replaces the hash of a body that is not signed. S3 API Reference, "Signature
Calculations for the Authorization Header: Transferring Payload in a Single Chunk"."""

EMPTY_SHA256: Final = sha256(b"").hexdigest()

MAX_EXPIRES: Final = 604_800
"""Maximum lifetime of a presigned URL in seconds. S3 API Reference, "Authenticating Requests: Using
Query Parameters": X-Amz-Expires."""

_UNSIGNED_HEADERS = frozenset(
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
"""Headers that are not signed, because a proxy may change them or the transport adds them."""

_MAX_LAYOUTS = 256
"""Maximum number of cached layouts. A driver needs a few dozen, but users choose metadata names."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key, with its session token if it is temporary.

    Attributes:
        access_key: The access key ID, which is visible in every request and presigned URL.
        secret_key: The secret from which the signing key is derived.
        token: The session token of temporary credentials.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class _Layout(NamedTuple):
    """The canonical request's layout for one set of header names.

    Attributes:
        template: The canonical request, with ``%s`` for each variable value.
        arrange: Arranges a request's values in the order of the template.
        signed_names: The value of SignedHeaders.
    """

    template: str
    arrange: Callable[[Sequence[str]], tuple[str, ...]]
    signed_names: str


class _DayKey:
    """The signing key of one secret and one day, as HMAC's two hash states (RFC 2104, 2).

    Copying the states costs half as much as creating an HMAC from the key. A copy of the inner state has also
    hashed the beginning of the signed strings of one second.

    Args:
        secret: The secret key.
        day: The day, as in a timestamp.
        region: The region.
        service: The service name.

    Attributes:
        secret: The secret key.
        day: The day.
        scope: The credential scope: the day, the region and the service.
        stamp: The timestamp for which `sign` signs.
    """

    __slots__ = ("_inner", "_outer", "_prefix_hash", "day", "scope", "secret", "stamp")

    def __init__(self, secret: str, day: str, region: str, service: str) -> None:
        self.secret = secret
        self.day = day
        self.scope = f"{day}/{region}/{service}/aws4_request"
        key = f"AWS4{secret}".encode()
        for text in (day, region, service, "aws4_request"):
            key = hmac.digest(key, text.encode(), "sha256")
        block = key.ljust(64, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))
        self.stamp = ""
        self._prefix_hash = self._inner

    def begin(self, stamp: str) -> None:
        """Set the timestamp, and hash the part of the signed string that depends only on it."""
        self.stamp = stamp
        self._prefix_hash = self._inner.copy()
        self._prefix_hash.update(f"{ALGORITHM}\n{stamp}\n{self.scope}\n".encode())

    def sign(self, canonical: str) -> str:
        """Return the signature of a canonical request, in lower-case hex."""
        inner = self._prefix_hash.copy()
        inner.update(sha256(canonical.encode()).hexdigest().encode())
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


class Signer:
    """Signs requests to a service in one region.

    It caches the day's signing key, the current second's timestamp, and a layout for each set of
    header names.

    Args:
        region: The name of the region, which is part of the signature.
        service: The service name in the signature: ``"s3"``, except for unusual services.
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
        """The region in the signature."""
        return self._region

    def signed_headers(
        self,
        credentials: Credentials,
        *,
        method: str,
        target: str,
        host: str,
        common: Mapping[str, str],
        headers: Mapping[str, str],
        secret_headers: Secret[Mapping[str, str]] | None = None,
        payload_hash: str,
        now: float,
    ) -> Headers:
        """Return all headers of an authorised request. All are signed, except those that a proxy may change.

        Do not keep the result in a local variable, because it contains the credentials.

        Args:
            credentials: The credentials to sign with.
            method: The method, in upper case.
            target: The percent-encoded path, and ``?query`` if there is one.
            host: The Host header of the request, with the port unless it is the scheme's default.
            common: The headers to add to every request.
            headers: The headers of this request. They override `common`.
            secret_headers: The values of secret headers. They replace the placeholders with the same
                names.
            payload_hash: The body's SHA-256 in lower-case hex, or `UNSIGNED_PAYLOAD`.
            now: The service's time, not this machine's, in seconds since 1970.
        """
        # Every request runs through this function, so it calls others only for what is not cached.
        # 1. Collect the headers, and find the layout for their names.
        sent = Headers(common)
        sent.update(headers)
        if secret_headers is not None:
            secrets = secret_headers.reveal()
            sent.update((name, secrets[name]) for name in secrets if name in sent)
            del secrets
        token = credentials.token
        shape = (token is not None, *sent)
        layout = self._layouts.get(shape) or self._build_layout(shape)
        second = int(now)
        stamp = self._clock[1] if self._clock[0] == second else self._stamp(second)
        # 2. Fill in the canonical request.
        path, _, query = target.partition("?")
        values = [
            method,
            path,
            _canonical_query(query) if query else "",
            payload_hash,
            host,
            payload_hash,
            stamp,
            token or "",
            *sent.values(),
        ]
        canonical = layout.template % layout.arrange(values)
        if (
            (" " in canonical and ("  " in canonical or ": " in canonical or " \n" in canonical))
            or "\t" in canonical
            or not canonical.isascii()
        ):
            # A value may begin or end with spaces, or contain several in a row. Few values do.
            values[8:] = [" ".join(value.split()) for value in sent.values()]
            canonical = layout.template % layout.arrange(values)
        # 3. Sign it.
        key = self._key
        if key is None or key.day != stamp[:8] or key.secret != credentials.secret_key:
            key = self._day_key(credentials.secret_key, stamp[:8])
        if key.stamp != stamp:
            key.begin(stamp)
        signature = key.sign(canonical)
        sent["Authorization"] = (
            f"{ALGORITHM} Credential={credentials.access_key}/{key.scope}, "
            f"SignedHeaders={layout.signed_names}, Signature={signature}"
        )
        sent["x-amz-date"] = stamp
        sent["x-amz-content-sha256"] = payload_hash
        if token is not None:
            sent["x-amz-security-token"] = token
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
        now: float,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Return a presigned URL, which authorises any holder to send one kind of request.

        Args:
            credentials: The credentials to sign with. If they are temporary, the URL expires with them.
            method: The method, in upper case.
            target: As for `signed_headers`.
            host: As for `signed_headers`.
            scheme: ``"https"`` or ``"http"``. It is not signed.
            expires: Seconds from `now`, 1 to 604,800 (seven days).
            now: As for `signed_headers`.
            headers: Headers that the request must have, with exactly these values.

        Raises:
            ConfigError: `expires` is out of range.
        """
        if not 1 <= expires <= MAX_EXPIRES:
            raise ConfigError(
                f"a presigned URL must expire after 1 to {MAX_EXPIRES} seconds, got {expires}"
            )
        # 1. Collect the signed headers.
        stamp = self._stamp(int(now))
        key = self._day_key(credentials.secret_key, stamp[:8])
        values = {name.lower(): " ".join(value.split()) for name, value in (headers or {}).items()}
        values["host"] = host
        names = sorted(values.keys() - _UNSIGNED_HEADERS)
        signed_names = ";".join(names)
        # 2. Add the signature's fields to the query.
        fields = {
            "X-Amz-Algorithm": ALGORITHM,
            "X-Amz-Credential": f"{credentials.access_key}/{key.scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(expires),
            "X-Amz-SignedHeaders": signed_names,
        }
        if credentials.token is not None:
            fields["X-Amz-Security-Token"] = credentials.token
        path, _, existing = target.partition("?")
        signature_query = "&".join(
            f"{name}={encode_value(value)}" for name, value in fields.items()
        )
        query = _canonical_query(f"{existing}&{signature_query}" if existing else signature_query)
        # 3. Sign the canonical request.
        lines = "".join(f"{name}:{values[name]}\n" for name in names)
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{signed_names}\n{UNSIGNED_PAYLOAD}"
        key.begin(stamp)
        signature = key.sign(canonical)
        return f"{scheme}://{host}{sent_target(path)}?{query}&X-Amz-Signature={signature}"

    def _build_layout(self, shape: tuple[object, ...]) -> _Layout:
        """Build and cache a layout. The shape is whether there is a token, then the header names."""
        # The positions are those of the values that `signed_headers` passes to `arrange`: four for the request
        # line and the payload, four for the standard headers, then one for each other header.
        standard_names = ["host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"]
        positions = {
            name: 4 + index for index, name in enumerate(standard_names[: 4 if shape[0] else 3])
        }
        for index, name in enumerate(shape[1:]):
            lower_name = str(name).lower()
            if lower_name not in _UNSIGNED_HEADERS and lower_name not in standard_names:
                positions[lower_name] = 8 + index
        names = sorted(positions)
        signed_names = ";".join(names)
        # A header's name may contain a "%" (RFC 9110, 5.6.2).
        escaped = [name.replace("%", "%%") for name in names]
        lines = "".join(f"{name}:%s\n" for name in escaped)
        template = f"%s\n%s\n%s\n{lines}\n{';'.join(escaped)}\n%s"
        layout = _Layout(
            template, itemgetter(0, 1, 2, *(positions[name] for name in names), 3), signed_names
        )
        if len(self._layouts) >= _MAX_LAYOUTS:
            self._layouts.clear()
        self._layouts[shape] = layout
        return layout

    def _stamp(self, second: int) -> str:
        """Return the timestamp of a second. The last one is cached."""
        if self._clock[0] != second:
            self._clock = (second, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second)))
        return self._clock[1]

    def _day_key(self, secret: str, day: str) -> _DayKey:
        """Return the signing key of a secret and a day. It is derived once."""
        key = self._key
        if key is not None and key.day == day and key.secret == secret:
            return key
        self._key = key = _DayKey(secret, day, self._region, self._service)
        return key


def _canonical_query(query: str) -> str:
    """Return the canonical query: sorted, with each name and value encoded as UriEncode does."""
    pairs = []
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            pairs.append((_canonical(name), _canonical(value)))
    pairs.sort()  # by name, then value: sorting "name=value" would put "a-b=" before "a="
    return "&".join([f"{name}={value}" for name, value in pairs])


def _canonical(text: str) -> str:
    return quote(unquote_to_bytes(text), safe=UNRESERVED) if "%" in text else encode_value(text)
