"""The table from error responses to exceptions.

Reasons are those of the JSON API ("HTTP status and error codes for JSON") and codes those of the XML
API ("HTTP status and error codes for XML"). A response without a known code is mapped by
its status. Retryable are the statuses that Google lists ("Retry strategy": 408, 429 and 5xx).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from xml.sax.saxutils import unescape

from trove_async._http import retry_after
from trove_async._http.services import ErrorMapping
from trove_async.errors import (
    BackendError,
    BucketNotFoundError,
    IntegrityError,
    InvalidNameError,
    NotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    RangeError,
    StorageFullError,
    TimedOutError,
    TroveError,
    UnauthenticatedError,
    UnavailableError,
)


class ConflictError(BackendError):
    """A 409. A bucket already exists, or is not empty; the caller knows which it requested."""


_BUSY = ErrorMapping(UnavailableError, "the service asks to slow down", no_effect=True)
_FAILED = ErrorMapping(UnavailableError, "the service had an internal error")
_SLOW = ErrorMapping(TimedOutError, "the service waited too long for the request", no_effect=True)
_DENIED = ErrorMapping(
    PermissionDeniedError, "the credentials lack the permission: check the IAM roles"
)
_CLOSED = ErrorMapping(PermissionDeniedError, "the service refuses this account or project")
_UNKNOWN = ErrorMapping(UnauthenticatedError, "the service does not accept the credentials")
_UNMET = ErrorMapping(PreconditionFailedError, "the object does not meet the condition")
_NO_RANGE = ErrorMapping(RangeError, "the range starts past the end of the object")
_NO_OBJECT = ErrorMapping(ObjectNotFoundError, "no such object")
_NO_BUCKET = ErrorMapping(BucketNotFoundError, "no such bucket: create_bucket creates it")
_NOTHING = ErrorMapping(NotFoundError, "no such object, or no such bucket")
_CONFLICT = ErrorMapping(ConflictError, "the request conflicts with the current state")
# Retryable: the checksum was computed from the memory that was sent, so the body broke in transit.
_BROKEN = ErrorMapping(IntegrityError, "the body that arrived is not the body that was sent", True)  # noqa: FBT003 - `retryable` of the tuple
_FULL = ErrorMapping(StorageFullError, "the quota is exhausted")
_MISNAMED = ErrorMapping(InvalidNameError, "the service does not accept this name")
_TOO_MUCH = ErrorMapping(NotSupportedError, "the request is larger than the service accepts")
_CANNOT = ErrorMapping(NotSupportedError, "the service does not support this request")
_REFUSED = ErrorMapping(BackendError, "the service refuses the request")
_BILLED = ErrorMapping(
    PermissionDeniedError,
    "the bucket needs a billing project, or its billing account is not active",
)

REASONS: Final[dict[str, ErrorMapping]] = {
    # JSON API
    "rateLimitExceeded": _BUSY,
    "userRateLimitExceeded": _BUSY,
    "backendError": _FAILED,
    "internalError": _FAILED,
    "badGateway": _FAILED,
    "gatewayTimeout": _FAILED,
    "uploadBrokenConnection": ErrorMapping(
        UnavailableError, "the service did not get the whole body"
    ),
    "requestTimeout": _SLOW,
    "authError": _UNKNOWN,
    "required": _REFUSED,
    "accountDisabled": _CLOSED,
    "projectAccessDenied": _CLOSED,
    "countryBlocked": _CLOSED,
    "forbidden": _DENIED,
    "insufficientPermissions": _DENIED,
    "quotaExceeded": _FULL,
    "dailyLimitExceeded": _FULL,
    "storageQuotaExceeded": _FULL,
    "userProjectAccountProblem": _BILLED,
    "userProjectMissing": _BILLED,
    "conditionNotMet": _UNMET,
    "requestedRangeNotSatisfiable": _NO_RANGE,
    "uploadTooLarge": _TOO_MUCH,
    "methodNotAllowed": _CANNOT,
    "notImplemented": _CANNOT,
    "unsupportedMediaProtocol": _CANNOT,
    # XML API
    "NoSuchKey": _NO_OBJECT,
    "NoSuchBucket": _NO_BUCKET,
    "PreconditionFailed": _UNMET,
    "InvalidRange": _NO_RANGE,
    "AccessDenied": _DENIED,
    "UserProjectAccessDenied": _BILLED,
    "UserProjectAccountProblem": _BILLED,
    "UserProjectMissing": _BILLED,
    "AccountProblem": _CLOSED,
    "AuthenticationRequired": _UNKNOWN,
    "InvalidSecurity": _UNKNOWN,
    "ExpiredToken": _UNKNOWN,
    "SignatureDoesNotMatch": _UNKNOWN,
    "InvalidURI": _MISNAMED,
    "InvalidBucketName": _MISNAMED,
    "KeyTooLong": _MISNAMED,
    "SlowDown": _BUSY,
    "InternalError": _FAILED,
    "ServiceUnavailable": _FAILED,
    "RequestTimeout": _SLOW,
    "BadDigest": _BROKEN,
}

STATUSES: Final[dict[int, ErrorMapping]] = {
    304: _UNMET,
    401: _UNKNOWN,
    403: _DENIED,
    404: _NOTHING,
    405: _CANNOT,
    408: _SLOW,
    409: _CONFLICT,
    410: _NOTHING,
    412: _UNMET,
    413: _TOO_MUCH,
    416: _NO_RANGE,
    429: _BUSY,
    501: _CANNOT,
    507: _FULL,
}

_SERVER_ERROR: Final = 500
_SHOWN: Final = 300
"""Characters of the service's message that are shown."""

_READ: Final = 4096
"""Characters of the message that are searched."""

# The JSON API has no reason for it: "Provided CRC32C \"…\" doesn't match calculated CRC32C \"…\"."
_MISMATCH = re.compile(r"(?i)(?:crc32c|md5)\b.{0,80}(?:does ?n[o']t|not) match")
# Services may quote the request in their messages: the value after these words is removed.
_SECRET = re.compile(
    r"(?i)\b(signature|credential|authorization|bearer|access_?token|upload_id)(\W{0,3}[=:\s]\W{0,2})\S+"
)
_XML = re.compile(r"<(Code|Message)>([^<]*)</\1>")


class ErrorResponse(NamedTuple):
    """A parsed error response.

    Attributes:
        status: The status.
        reason: The reason of the JSON API or the code of the XML API; may be empty.
        message: The service's message.
        headers: The headers.
    """

    status: int
    reason: str
    message: str
    headers: Mapping[str, str]

    def error(self) -> TroveError:
        """Return the exception to raise.

        A 404 that does not name what is missing is a NotFoundError: the caller then looks for the
        bucket.
        """
        meaning = self._meaning()
        passing = issubclass(meaning.kind, UnavailableError)
        error = meaning.kind(
            f"{meaning.advice} ({self._description()})",
            retryable=meaning.retryable,
            retry_after=retry_after(self.headers) if passing else None,
        )
        if meaning.no_effect:
            error.maybe_done = False
        return error

    def _meaning(self) -> ErrorMapping:
        meaning = REASONS.get(self.reason) or STATUSES.get(self.status)
        if meaning is not None:
            return meaning
        if self.status >= _SERVER_ERROR:
            return _FAILED
        return _BROKEN if _MISMATCH.search(self.message[:_READ]) else _REFUSED

    def _description(self) -> str:
        shown = " ".join(_SECRET.sub(r"\1\2…", self.message[:_READ]).split())
        if len(shown) > _SHOWN:
            shown = shown[:_SHOWN] + "…"
        description = f"{self.status} {self.reason[:80]}".rstrip()
        return f"{description}: {shown}" if shown else description


def parse_error(status: int, headers: Mapping[str, str], body: bytes) -> ErrorResponse:
    """Parse an error response: a JSON document, an XML document, or neither."""
    text = body.decode("utf-8", "replace")
    reason = message = ""
    if text.lstrip().startswith("{"):
        try:
            error = json.loads(text)["error"]
            if isinstance(error, dict):
                message = str(error.get("message", ""))
                reason = str((error.get("errors") or [{}])[0].get("reason", ""))
            else:  # the form of token endpoints and some front ends (RFC 6749, 5.2)
                reason, message = str(error), str(json.loads(text).get("error_description", ""))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass  # the status is enough
    else:
        fields = {name: unescape(value) for name, value in _XML.findall(text)}
        reason, message = fields.get("Code", ""), fields.get("Message", "")
    return ErrorResponse(status, reason, message, headers)
