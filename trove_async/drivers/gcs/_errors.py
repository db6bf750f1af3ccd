"""Which of our errors an answer is: the driver's one table, applied at its edge.

Reasons are those of the JSON API ("HTTP status and error codes for JSON") and codes those of the XML
API ("HTTP status and error codes for XML"). An answer without one that is known goes by its status;
what another try may mend is what Google's strategy says ("Retry strategy": 408, 429 and 5xx).
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
    """A 409: of a bucket, it exists already or has objects; the driver knows what it asked for."""


_BUSY = ErrorMapping(UnavailableError, "the service asks to slow down", no_effect=True)
_FAILED = ErrorMapping(UnavailableError, "the service failed")
_SLOW = ErrorMapping(TimedOutError, "the service waited too long for the request", no_effect=True)
_DENIED = ErrorMapping(
    PermissionDeniedError, "these credentials may not do so: check the IAM roles"
)
_CLOSED = ErrorMapping(PermissionDeniedError, "the service refuses this account or project")
_UNKNOWN = ErrorMapping(UnauthenticatedError, "the service does not accept the credentials")
_UNMET = ErrorMapping(PreconditionFailedError, "the object is not in the state that was asked for")
_NO_RANGE = ErrorMapping(RangeError, "the object has no such bytes")
_NO_OBJECT = ErrorMapping(ObjectNotFoundError, "no such object")
_NO_BUCKET = ErrorMapping(BucketNotFoundError, "no such bucket: create_bucket makes it")
_NOTHING = ErrorMapping(NotFoundError, "no such object, or no such bucket")
_CONFLICT = ErrorMapping(ConflictError, "it conflicts with what is there")
# Sent again, as the checksum was made of the very memory that was sent: it broke on the way.
_BROKEN = ErrorMapping(IntegrityError, "the body that arrived is not the body that was sent", True)  # noqa: FBT003 - named in the tuple
_FULL = ErrorMapping(StorageFullError, "the quota is used up")
_MISNAMED = ErrorMapping(InvalidNameError, "the service takes no such name")
_TOO_MUCH = ErrorMapping(NotSupportedError, "it is more than the service takes")
_CANNOT = ErrorMapping(NotSupportedError, "the service cannot do so")
_REFUSED = ErrorMapping(BackendError, "the service refuses the request")
_BILLED = ErrorMapping(PermissionDeniedError, "the bucket's reader pays, or its owner has not paid")

REASONS: Final[dict[str, ErrorMapping]] = {
    # JSON's
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
    # XML's
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
"""Characters of the service's sentence that are shown."""

_READ: Final = 4096
"""Characters of it that are looked at."""

# JSON has no reason for it: "Provided CRC32C \"…\" doesn't match calculated CRC32C \"…\"."
_MISMATCH = re.compile(r"(?i)(?:crc32c|md5)\b.{0,80}(?:does ?n[o']t|not) match")
# Services may quote the request in their sentences: whatever stands behind these is left out.
_SECRET = re.compile(
    r"(?i)\b(signature|credential|authorization|bearer|access_?token|upload_id)(\W{0,3}[=:\s]\W{0,2})\S+"
)
_XML = re.compile(r"<(Code|Message)>([^<]*)</\1>")


class Refused(NamedTuple):
    """An answer that is an error, read.

    Attributes:
        status: Its status.
        reason: The service's word for it; empty where it has none.
        message: The service's sentence.
        headers: Its headers.
    """

    status: int
    reason: str
    message: str
    headers: Mapping[str, str]

    def error(self) -> TroveError:
        """Return our error for it, to be raised.

        A 404 that does not say what is missing is a NotFoundError: the driver asks for the bucket.
        """
        meaning = self._meaning()
        passing = issubclass(meaning.kind, UnavailableError)
        error = meaning.kind(
            f"{meaning.advice} ({self._answered()})",
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

    def _answered(self) -> str:
        sentence = " ".join(_SECRET.sub(r"\1\2…", self.message[:_READ]).split())
        if len(sentence) > _SHOWN:
            sentence = sentence[:_SHOWN] + "…"
        answered = f"{self.status} {self.reason[:80]}".rstrip()
        return f"{answered}: {sentence}" if sentence else answered


def refused(status: int, headers: Mapping[str, str], body: bytes) -> Refused:
    """Read an answer that is an error: JSON's document, XML's, or neither."""
    text = body.decode("utf-8", "replace")
    reason = message = ""
    if text.lstrip().startswith("{"):
        try:
            told = json.loads(text)["error"]
            if isinstance(told, dict):
                message = str(told.get("message", ""))
                reason = str((told.get("errors") or [{}])[0].get("reason", ""))
            else:  # as the token's endpoint and some of the front ends say it (RFC 6749, 5.2)
                reason, message = str(told), str(json.loads(text).get("error_description", ""))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass  # its status has to do
    else:
        said = {name: unescape(value) for name, value in _XML.findall(text)}
        reason, message = said.get("Code", ""), said.get("Message", "")
    return Refused(status, reason, message, headers)
