"""Signs and sends requests, and corrects the clock, the region or the credentials after an error.

A corrected request is repeated immediately. Each correction is made at most once per request. All
other failures are raised for the caller's retry loop.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from trove_async._concurrency import in_thread, within
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
from ._encoding import (
    check_bucket,
    encode_path,
    encode_query,
    encode_value,
    is_plain_path,
    sent_target,
)
from ._errors import failure
from ._requests import presigned_headers, presigned_query
from ._sigv4 import EMPTY_SHA256, UNSIGNED_PAYLOAD, Signer
from ._xml import MalformedResponse

if TYPE_CHECKING:
    from ._credentials import Endpoint, Session
    from ._sigv4 import Credentials

AddressingStyle = Literal["auto", "path", "virtual"]

_CLOCK_SKEW_CODES: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_EXPIRED_CODES: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_WRONG_REGION_CODES: Final = frozenset(
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
"""Statuses and error codes with which services reject an unknown header."""

_TOLERATED_SKEW: Final = 600.0
"""Seconds of clock skew below which the clock is not corrected. S3 accepts a skew of up to 900 seconds
(S3 API Reference, "Error responses": RequestTimeTooSkewed)."""

_ERROR_BYTES: Final = 64 * KiB
"""Maximum number of bytes of an error document to read. Services send fewer."""

_DNS_SAFE = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]").fullmatch
"""Matches names that fit into a host name. S3 User Guide, "General purpose bucket naming rules"."""

_REGION = re.compile(r"[a-z0-9-]{1,64}").fullmatch
"""Matches a region that can be part of a host name."""

_MAX_ADDRESSES: Final = 1024
"""Maximum number of buckets whose addresses are cached."""


class ErrorResponse(NamedTuple):
    """An error response that has been read."""

    status: int
    code: str
    message: str
    region: str | None
    headers: Mapping[str, str]

    def error(self) -> TroveError:
        """Return the corresponding TroveError."""
        return failure(self.status, self.code, self.message, self.headers)


class _Signing(NamedTuple):
    """How a request was signed.

    Attributes:
        signer: The signer for the request's region.
        credentials: The credentials.
        time: The time of signing by the service's clock, in seconds since 1970.
    """

    signer: Signer
    credentials: Credentials
    time: float


class Client:
    """Sends signed requests.

    Args:
        transport: Sends the requests.
        session: Provides the credentials.
        endpoint: The endpoint of the service.
        addressing: Whether a bucket is in the path or in the host name.
        headers: The headers to add to every request.
        secret_headers: The values of secret headers. `send` receives placeholders for them.
        signs_payload: Whether bodies are hashed and signed.
        timeout: Maximum seconds to wait for credentials.
    """

    def __init__(
        self,
        transport: Transport,
        session: Session,
        endpoint: Endpoint,
        *,
        addressing: AddressingStyle,
        headers: Mapping[str, str],
        secret_headers: Secret[Mapping[str, str]] | None = None,
        signs_payload: bool,
        timeout: float,
    ) -> None:
        self._timeout = timeout
        self._transport = transport
        self._session = session
        self._endpoint = endpoint
        self._addressing = addressing
        self._headers = headers
        self._secret_headers = secret_headers
        self._skew = 0.0
        self._signers: dict[str, Signer] = {}
        self._addresses: dict[str | None, tuple[Signer, Origin, str]] = {}
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
            views: The body, or a source to read it from while sending.
            patient: Whether to wait for the response without a timeout. The caller limits the time.

        Raises:
            TroveError: The service rejected the request, or did not respond.
        """
        # The common cases are written out here, because every request runs through this function.
        if not self._signs_payload:
            payload_hash = UNSIGNED_PAYLOAD  # the checksum and TLS, if any, protect the body
        elif not views:
            payload_hash = EMPTY_SHA256
        elif type(views) is list and len(views) == 1 and len(views[0]) <= WINDOW:
            payload_hash = sha256(views[0]).hexdigest()
        else:
            payload_hash = await self._payload_hash(views)
        corrections: set[str] = set()
        while True:
            # 1. Sign and send the request.
            signer, origin, path = self._addresses.get(bucket) or self._make_address(
                bucket, self._endpoint
            )
            if key is None:
                target = path[:-1] or "/"
            else:
                target = path + (key if is_plain_path(key) else encode_path(key))
            if query:
                target = f"{target}?{query}"
            session = self._session
            credentials = session.cached
            if credentials is None or time.monotonic() >= session.next_check:
                credentials = await self._load_credentials()
            signed_at = time.time() + self._skew
            response = await self._transport.send(
                method,
                origin,
                target if "/." not in target else sent_target(target),
                signer.signed_headers(
                    credentials,
                    method=method,
                    target=target,
                    host=origin.authority,
                    common=self._headers,
                    headers=headers,
                    secret_headers=self._secret_headers,
                    payload_hash=payload_hash,
                    now=signed_at,
                ),
                views,
                patient=patient,
            )
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                return response
            # 2. Correct the clock, the credentials or the region, and repeat the request. Raise if no
            # correction applies.
            error_response = await self.read_error(response)
            correction = await self._correct(
                error_response, bucket, _Signing(signer, credentials, signed_at), corrections
            )
            if correction is None:
                error = self._error(error_response, bucket, headers)
                self._session.redact(error)
                raise error
            corrections.add(correction)

    def _error(
        self, error_response: ErrorResponse, bucket: str | None, headers: Mapping[str, str]
    ) -> TroveError:
        """Return the error for a response, with a hint if the request shows the likely cause."""
        gives_no_reason = (
            not error_response.code and error_response.status == HTTPStatus.BAD_REQUEST
        )
        if gives_no_reason and bucket is not None and not _DNS_SAFE(bucket):
            return InvalidNameError(
                f"the service responded with {error_response.status} and no reason, perhaps because of"
                " the bucket's name: most services require 3 to 63 lower-case letters, digits, dots"
                " and hyphens"
            )
        error = error_response.error()
        if (
            error_response.status in _UNKNOWN_HEADER_STATUSES
            and error_response.code in _UNKNOWN_HEADER_CODES
            and any(name.startswith("x-amz-checksum-") for name in headers)
        ):
            error.message += ". If the service does not support checksums, pass checksums=False"
        return error

    async def read_error(self, response: Response) -> ErrorResponse:
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
                document = parse_error(body)
            except MalformedResponse:
                message = f"the body ({len(body)} bytes) is not an S3 error document"
            else:
                code, message, region = document.code, document.message, region or document.region
        return ErrorResponse(response.status, code, message, region, response.headers)

    async def presign(
        self,
        method: str,
        bucket: str,
        key: str,
        expires: int,
        options: PresignOptions,
    ) -> str:
        """Return a URL that authorises any holder to send one kind of request for `expires` seconds."""
        query = encode_query(presigned_query(options))
        signer, origin, path = self._addresses.get(bucket) or self._make_address(
            bucket, self._endpoint
        )
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
        """Discard the address of a deleted bucket, which may be created again in another region."""
        self._addresses.pop(bucket, None)

    # -- addresses ---------------------------------------------------------------------------------

    def _make_address(self, bucket: str | None, endpoint: Endpoint) -> tuple[Signer, Origin, str]:
        """Build and cache the signer, the origin and the beginning of the path for requests to a bucket."""
        signer = self._signers.get(endpoint.region)
        if signer is None:
            signer = self._signers[endpoint.region] = Signer(endpoint.region)
        origin, path = endpoint.origin, "/"
        if bucket is not None:
            check_bucket(bucket)
            if self._is_in_host_name(bucket, endpoint):
                origin = origin.subdomain(bucket)
            else:
                path = f"/{encode_value(bucket)}/"
        if len(self._addresses) >= _MAX_ADDRESSES:
            self._addresses.clear()
        self._addresses[bucket] = address = (signer, origin, path)
        return address

    def _is_in_host_name(self, bucket: str, endpoint: Endpoint) -> bool:
        if self._addressing != "auto":
            return self._addressing == "virtual"
        # A certificate for *.s3.amazonaws.com does not cover a bucket name with a dot.
        fails_verification = endpoint.origin.scheme == "https" and "." in bucket
        return endpoint.is_standard_aws and not fails_verification and _DNS_SAFE(bucket) is not None

    # -- credentials -------------------------------------------------------------------------------

    async def _load_credentials(self) -> Credentials:
        return await within(self._timeout, "no credentials arrived", self._session.credentials())

    async def _renew_credentials(self, rejected: Credentials) -> bool:
        """Return whether there are new credentials."""
        renewed = await within(
            self._timeout, "no new credentials arrived", self._session.renew(rejected)
        )
        return renewed is not None

    # -- corrections after an error ----------------------------------------------------------------

    async def _correct(
        self,
        error_response: ErrorResponse,
        bucket: str | None,
        signing: _Signing,
        corrections: Collection[str],
    ) -> str | None:
        """Make a correction that was not made before.

        Returns:
            The name of the correction, or None if none applies.
        """
        code, status = error_response.code, error_response.status
        has_no_code = not code  # the response to a HEAD has no document
        if (
            "time" not in corrections
            and (code in _CLOCK_SKEW_CODES or (has_no_code and status == HTTPStatus.FORBIDDEN))
            and self._adopt_clock(error_response.headers.get("date"), signing.time)
        ):
            return "time"
        if (
            "credentials" not in corrections
            and (code in _EXPIRED_CODES or (has_no_code and status == HTTPStatus.BAD_REQUEST))
            and await self._renew_credentials(signing.credentials)
        ):
            return "credentials"
        # Only the region of a redirect is used, never its host: the signed request must not leave
        # Amazon's endpoints.
        region = error_response.region
        if (
            "region" not in corrections
            and (code in _WRONG_REGION_CODES or has_no_code)
            and bucket is not None
            and self._endpoint.is_standard_aws
            and region is not None
            and region != signing.signer.region
            and _REGION(region)
        ):
            self._make_address(bucket, self._endpoint.in_region(region))
            return "region"
        return None

    def _adopt_clock(self, date: str | None, signed_at: float) -> bool:
        """Adopt the service's clock if it differs too much from the time of signing.

        The comparison does not use the current skew. A concurrent request may have corrected the
        skew since this request was signed.

        Returns:
            Whether the clock was adopted.
        """
        try:
            service_time = parse_service_date(date or "").timestamp()
        except ValueError:
            return False
        if abs(service_time - signed_at) < _TOLERATED_SKEW:
            return False
        self._skew = service_time - time.time()
        return True

    # -- bodies ------------------------------------------------------------------------------------

    async def _payload_hash(self, views: Sequence[memoryview] | PartSource) -> str:
        """Return the SHA-256 of a body that is not empty."""
        if not isinstance(views, Sequence):
            return await views.digest("sha256")
        if sum(map(len, views)) > WINDOW:
            return await in_thread(_sha256_of, views)
        return _sha256_of(views)


def _sha256_of(views: Sequence[memoryview]) -> str:
    digest = sha256()
    for view in views:
        digest.update(view)
    return digest.hexdigest()
