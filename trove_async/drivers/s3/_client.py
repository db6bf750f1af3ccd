"""Signs and sends requests, and corrects the clock, the region or the credentials after a refusal.

A corrected request is sent again at once. Each correction is made at most once per request. All
other failures are raised for the retry loop above.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from trove_async._concurrency import in_thread
from trove_async._http import WINDOW, Origin, Response, Transport
from trove_async._http_dates import parse_service_date
from trove_async._secrets import Secret
from trove_async.driver import PartSource
from trove_async.errors import (
    IntegrityError,
    InvalidNameError,
    TroveError,
    UnavailableError,
)
from trove_async.models import KiB
from trove_async.options import PresignOptions

from ._documents import parse_error
from ._encoding import check_bucket, encode_path, encode_query, encode_value, sent_target
from ._errors import failure
from ._requests import presigned_headers, presigned_query
from ._sigv4 import EMPTY_SHA256, UNSIGNED_PAYLOAD, Signer
from ._xml import MalformedResponse

if TYPE_CHECKING:
    from ._credentials import Endpoint, Session
    from ._sigv4 import Credentials

AddressingStyle = Literal["auto", "path", "virtual"]

_SKEWED: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_ELSEWHERE: Final = frozenset(
    {
        "PermanentRedirect",
        "TemporaryRedirect",
        "Redirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "IncorrectEndpoint",
    }
)

_UNKNOWN_HEADER_STATUSES: Final = frozenset({400, 501})
_UNKNOWN_HEADER_CODES: Final = frozenset(
    {"", "InvalidArgument", "InvalidRequest", "NotImplemented", "UnsupportedHeader"}
)
"""Error codes with which services refuse an unknown header."""

_TOLERATED: Final = 600.0
"""Seconds of clock skew that every service accepts. S3 refuses requests from 900 seconds on (S3 API
Reference, "Error responses": RequestTimeTooSkewed)."""

_ERROR_BYTES: Final = 64 * KiB
"""Maximum size of an error document that is read. Services send less."""

_DNS_SAFE = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]").fullmatch
"""Matches names that fit into a host name. S3 User Guide, "General purpose bucket naming rules"."""

_REGION = re.compile(r"[a-z0-9-]{1,64}").fullmatch

_BUCKETS: Final = 1024
"""Maximum number of buckets whose addresses are cached."""


class Refused(NamedTuple):
    """An error response that has been read."""

    status: int
    code: str
    message: str
    region: str | None
    headers: Mapping[str, str]

    def error(self) -> TroveError:
        """Return the corresponding TroveError."""
        return failure(self.status, self.code, self.message, self.headers)


class _Signed(NamedTuple):
    """How a request was signed."""

    signer: Signer
    credentials: Credentials
    at: float


class Client:
    """Sends signed requests.

    Args:
        transport: Sends the requests.
        session: Provides the credentials.
        endpoint: The endpoint of the service.
        addressing: Whether a bucket is in the path or in the host name.
        headers: The headers of every request.
        hidden: The values of secret headers. `send` receives placeholders for them.
        signs_payload: Whether bodies are hashed and signed.
    """

    def __init__(
        self,
        transport: Transport,
        session: Session,
        endpoint: Endpoint,
        *,
        addressing: AddressingStyle,
        headers: Mapping[str, str],
        hidden: Secret[Mapping[str, str]] | None = None,
        signs_payload: bool,
    ) -> None:
        self._transport = transport
        self._session = session
        self._endpoint = endpoint
        self._addressing = addressing
        self._headers = headers
        self._hidden = hidden
        self._skew = 0.0
        self._signers: dict[str, Signer] = {}
        self._addresses: dict[str, tuple[Signer, Origin, str]] = {}
        self._signs_payload = signs_payload

    async def send(
        self,
        method: str,
        bucket: str | None,
        key: str | None = None,
        *,
        query: str = "",
        headers: Mapping[str, str],
        views: Sequence[memoryview] | PartSource = (),
        patient: bool = False,
    ) -> Response:
        """Send a request and return its successful response. The caller closes the response.

        Args:
            method: The method, in upper case.
            bucket: The bucket. None for the service itself.
            key: The key. None for the bucket itself.
            query: The encoded query, without the ``?``.
            headers: The headers, except those that every request has.
            views: The body, or a source to read while sending.
            patient: Whether only the caller limits the time to the response.

        Raises:
            TroveError: The service refused the request.
        """
        payload_hash = await self._payload_hash(views)
        learnt: set[str] = set()
        while True:
            # 1. Sign and send the request.
            signer, origin, path = self._address(bucket)
            target = path + encode_path(key) if key is not None else path[:-1] or "/"
            if query:
                target = f"{target}?{query}"
            credentials = await self._session.credentials()
            signed_at = time.time() + self._skew
            response = await self._transport.send(
                method,
                origin,
                sent_target(target),
                signer.signed(
                    credentials,
                    method=method,
                    target=target,
                    host=origin.authority,
                    common=self._headers,
                    headers=headers,
                    hidden=self._hidden,
                    payload_hash=payload_hash,
                    now=signed_at,
                ),
                views,
                patient=patient,
            )
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                return response
            # 2. Correct the clock, the credentials or the region, and repeat; or raise the refusal.
            refused = await self.refused(response)
            lesson = await self._learn(
                refused, bucket, _Signed(signer, credentials, signed_at), learnt
            )
            if lesson is None:
                error = self._error(refused, bucket, headers)
                self._session.redact(error)
                raise error
            learnt.add(lesson)

    def _error(
        self, refused: Refused, bucket: str | None, headers: Mapping[str, str]
    ) -> TroveError:
        """Return the error for a refusal, with a hint if the request shows the likely cause."""
        unsaid = not refused.code and refused.status == HTTPStatus.BAD_REQUEST
        if unsaid and bucket is not None and not _DNS_SAFE(bucket):
            return InvalidNameError(
                "the service refuses without a reason, perhaps the bucket's name: it has 3 to 63"
                f" lower-case letters, digits, dots and hyphens ({refused.status})"
            )
        error = refused.error()
        if (
            refused.status in _UNKNOWN_HEADER_STATUSES
            and refused.code in _UNKNOWN_HEADER_CODES
            and any(name.startswith("x-amz-checksum-") for name in headers)
        ):
            error.message += ". If the service knows no checksums, give the driver checksums=False"
        return error

    async def refused(self, response: Response) -> Refused:
        """Read and close an error response."""
        try:
            body = await response.read_all(_ERROR_BYTES)
        except (UnavailableError, IntegrityError):
            body = b""  # the status and the headers suffice
        finally:
            response.close()
        code = message = ""
        region = response.headers.get("x-amz-bucket-region")
        if body:
            try:
                told = parse_error(body)
            except MalformedResponse:
                message = f"answered {len(body)} bytes that are no error document of S3's"
            else:
                code, message, region = told.code, told.message, region or told.region
        return Refused(response.status, code, message, region, response.headers)

    async def presign(
        self,
        method: str,
        bucket: str,
        key: str,
        expires: int,
        options: PresignOptions,
    ) -> str:
        """Return a URL that permits its holder one kind of request for `expires` seconds."""
        query = encode_query(presigned_query(options))
        signer, origin, path = self._address(bucket)
        target = path + encode_path(key)
        return signer.presign(
            await self._session.credentials(),
            method=method,
            target=f"{target}?{query}" if query else target,
            host=origin.authority,
            headers=presigned_headers(options),
            scheme=origin.scheme,
            expires=expires,
            now=time.time() + self._skew,
        )

    def forget(self, bucket: str) -> None:
        """Discard the cached address of a bucket that is deleted or may be created elsewhere."""
        self._addresses.pop(bucket, None)

    # -- addresses ---------------------------------------------------------------------------------

    def _address(self, bucket: str | None) -> tuple[Signer, Origin, str]:
        """Return the signer, the origin and the beginning of the path for requests to a bucket."""
        found = self._addresses.get(bucket or "")
        return found or self._place(bucket, self._endpoint)

    def _place(self, bucket: str | None, endpoint: Endpoint) -> tuple[Signer, Origin, str]:
        signer = self._signers.get(endpoint.region)
        if signer is None:
            signer = self._signers[endpoint.region] = Signer(endpoint.region)
        origin, path = endpoint.origin, "/"
        if bucket is not None:
            check_bucket(bucket)
            if self._in_host(bucket, endpoint):
                origin = origin.subdomain(bucket)
            else:
                path = f"/{encode_value(bucket)}/"
        if len(self._addresses) >= _BUCKETS:
            self._addresses.clear()
        self._addresses[bucket or ""] = address = (signer, origin, path)
        return address

    def _in_host(self, bucket: str, endpoint: Endpoint) -> bool:
        if self._addressing != "auto":
            return self._addressing == "virtual"
        # A certificate for *.s3.amazonaws.com does not cover a bucket name with a dot.
        dotted = endpoint.origin.scheme == "https" and "." in bucket
        return endpoint.aws and not dotted and _DNS_SAFE(bucket) is not None

    # -- corrections after a refusal ---------------------------------------------------------------

    async def _learn(
        self,
        refused: Refused,
        bucket: str | None,
        signed: _Signed,
        learnt: Collection[str],
    ) -> str | None:
        """Apply a correction not made before and return its name, or None if there is none."""
        code, status = refused.code, refused.status
        unsaid = not code  # a response to HEAD has no document
        if (
            "time" not in learnt
            and (code in _SKEWED or (unsaid and status == HTTPStatus.FORBIDDEN))
            and self._learn_time(refused.headers.get("date"), signed.at)
        ):
            return "time"
        if (
            "credentials" not in learnt
            and (code in _EXPIRED or (unsaid and status == HTTPStatus.BAD_REQUEST))
            and await self._session.renewed(signed.credentials) is not None
        ):
            return "credentials"
        # Send the signature to Amazon's endpoint in the named region only: a host that a redirect
        # names is not trusted.
        region = refused.region
        if (
            "region" not in learnt
            and (code in _ELSEWHERE or unsaid)
            and bucket is not None
            and self._endpoint.aws
            and region is not None
            and region != signed.signer.region
            and _REGION(region)
        ):
            self._place(bucket, self._endpoint.in_region(region))
            return "region"
        return None

    def _learn_time(self, date: str | None, signed_at: float) -> bool:
        """Adopt the service's clock and return whether it differs from the time of signing.

        The comparison does not use the current skew: a concurrent refused request may have
        corrected the skew since this one was signed.
        """
        try:
            service = parse_service_date(date or "").timestamp()
        except ValueError:
            return False
        if abs(service - signed_at) < _TOLERATED:
            return False
        self._skew = service - time.time()
        return True

    # -- bodies ------------------------------------------------------------------------------------

    async def _payload_hash(self, views: Sequence[memoryview] | PartSource) -> str:
        if not self._signs_payload:
            return UNSIGNED_PAYLOAD  # the checksum and TLS, if any, protect the body
        if not isinstance(views, Sequence):
            return await views.digest("sha256")
        if not views:
            return EMPTY_SHA256
        if sum(map(len, views)) > WINDOW:
            return await in_thread(_sha256_of, views)
        return _sha256_of(views)


def _sha256_of(views: Sequence[memoryview]) -> str:
    digest = sha256()
    for view in views:
        digest.update(view)
    return digest.hexdigest()
