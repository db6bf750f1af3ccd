"""Maps error responses to exceptions.

A response is mapped by its reason in the JSON API ("HTTP status and error codes for JSON") or its code in
the XML API ("HTTP status and error codes for XML"), else by its status. The retryable statuses are those
that Google lists, 408, 429 and 5xx ("Retry strategy"), except 501 and 507.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from xml.sax.saxutils import unescape

from trove_async._http import retry_after
from trove_async._http.services import MAX_SEARCHED, ErrorMapping, describe_response, replace_advice
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
    """A 409. For a bucket: it already exists or is not empty, depending on the request."""


_THROTTLED = ErrorMapping(UnavailableError, "the service is throttling requests", no_effect=True)
_INTERNAL_ERROR = ErrorMapping(UnavailableError, "the service had an internal error")
_REQUEST_TIMEOUT = ErrorMapping(
    TimedOutError, "the service did not receive the request in time", no_effect=True
)
_PERMISSION_DENIED = ErrorMapping(
    PermissionDeniedError, "the credentials lack the permission: check the IAM roles"
)
_ACCOUNT_REJECTED = ErrorMapping(
    PermissionDeniedError, "the service rejected this account or project"
)
_UNAUTHENTICATED = ErrorMapping(UnauthenticatedError, "the service rejected the credentials")
_CONDITION_FAILED = ErrorMapping(PreconditionFailedError, "the condition of the request is not met")
_RANGE_ERROR = ErrorMapping(RangeError, "the range starts past the end of the object")
_NO_OBJECT = ErrorMapping(ObjectNotFoundError, "no such object")
_NO_BUCKET = ErrorMapping(BucketNotFoundError, "no such bucket: create_bucket creates it")
_NOT_FOUND = ErrorMapping(NotFoundError, "no such object, or no such bucket")
_CONFLICT = ErrorMapping(ConflictError, "the request conflicts with the current state")
# Retryable: the checksum was computed from the memory that was sent, so the body changed in transit.
_CORRUPTED = ErrorMapping(IntegrityError, "the body was corrupted in transit", retryable=True)
_QUOTA_EXCEEDED = ErrorMapping(StorageFullError, "the quota is exhausted")
_INVALID_NAME = ErrorMapping(InvalidNameError, "the service does not accept this name")
_TOO_LARGE = ErrorMapping(NotSupportedError, "the request is larger than the service accepts")
_NOT_SUPPORTED = ErrorMapping(NotSupportedError, "the service does not support this request")
_REJECTED = ErrorMapping(BackendError, "the service rejected the request")
_BILLING_ERROR = ErrorMapping(
    PermissionDeniedError,
    "the bucket needs a billing project, or its billing account is not active",
)

REASONS: Final[dict[str, ErrorMapping]] = {
    # JSON API
    "rateLimitExceeded": _THROTTLED,
    "userRateLimitExceeded": _THROTTLED,
    "backendError": _INTERNAL_ERROR,
    "internalError": _INTERNAL_ERROR,
    "badGateway": _INTERNAL_ERROR,
    "gatewayTimeout": _INTERNAL_ERROR,
    "uploadBrokenConnection": ErrorMapping(
        UnavailableError, "the service did not receive the whole body"
    ),
    "requestTimeout": _REQUEST_TIMEOUT,
    "authError": _UNAUTHENTICATED,
    "accountDisabled": _ACCOUNT_REJECTED,
    "projectAccessDenied": _ACCOUNT_REJECTED,
    "countryBlocked": _ACCOUNT_REJECTED,
    "forbidden": _PERMISSION_DENIED,
    "insufficientPermissions": _PERMISSION_DENIED,
    "quotaExceeded": _QUOTA_EXCEEDED,
    "dailyLimitExceeded": _QUOTA_EXCEEDED,
    "storageQuotaExceeded": _QUOTA_EXCEEDED,
    "userProjectAccountProblem": _BILLING_ERROR,
    "userProjectMissing": _BILLING_ERROR,
    "conditionNotMet": _CONDITION_FAILED,
    "requestedRangeNotSatisfiable": _RANGE_ERROR,
    "uploadTooLarge": _TOO_LARGE,
    "methodNotAllowed": _NOT_SUPPORTED,
    "notImplemented": _NOT_SUPPORTED,
    "unsupportedMediaProtocol": _NOT_SUPPORTED,
    # XML API
    "NoSuchKey": _NO_OBJECT,
    "NoSuchBucket": _NO_BUCKET,
    "PreconditionFailed": _CONDITION_FAILED,
    "InvalidRange": _RANGE_ERROR,
    "AccessDenied": _PERMISSION_DENIED,
    "UserProjectAccessDenied": _BILLING_ERROR,
    "UserProjectAccountProblem": _BILLING_ERROR,
    "UserProjectMissing": _BILLING_ERROR,
    "AccountProblem": _ACCOUNT_REJECTED,
    "AuthenticationRequired": _UNAUTHENTICATED,
    "InvalidSecurity": _UNAUTHENTICATED,
    "ExpiredToken": _UNAUTHENTICATED,
    "SignatureDoesNotMatch": _UNAUTHENTICATED,
    "InvalidURI": _INVALID_NAME,
    "InvalidBucketName": _INVALID_NAME,
    "KeyTooLong": _INVALID_NAME,
    "SlowDown": _THROTTLED,
    "InternalError": _INTERNAL_ERROR,
    "ServiceUnavailable": _INTERNAL_ERROR,
    "RequestTimeout": _REQUEST_TIMEOUT,
    "BadDigest": _CORRUPTED,
}

STATUSES: Final[dict[int, ErrorMapping]] = {
    304: _CONDITION_FAILED,
    401: _UNAUTHENTICATED,
    403: _PERMISSION_DENIED,
    404: _NOT_FOUND,
    405: _NOT_SUPPORTED,
    408: _REQUEST_TIMEOUT,
    409: _CONFLICT,
    410: _NOT_FOUND,
    412: _CONDITION_FAILED,
    413: _TOO_LARGE,
    416: _RANGE_ERROR,
    429: _THROTTLED,
    501: _NOT_SUPPORTED,
    507: _QUOTA_EXCEEDED,
}

_SERVER_ERROR: Final = 500

# The JSON API has no specific reason for a wrong checksum, only a message such as
# "Provided CRC32C "AAAA" doesn't match calculated CRC32C "BBBB"."
_CHECKSUM_MISMATCH = re.compile(r"(?i)(?:crc32c|md5)\b.{0,80}(?:does ?n[o']t|not) match")
# Services may quote the request in their messages, so the value after each of these words is removed.
_SECRET = re.compile(
    r"(?i)\b(signature|credential|authorization|bearer|access_?token|upload_id)(\W{0,3}[=:\s]\W{0,2})\S+"
)
_XML = re.compile(r"<(Code|Message)>([^<]*)</\1>")


class ErrorResponse(NamedTuple):
    """A parsed error response.

    Attributes:
        status: The HTTP status.
        reason: The reason of the JSON API or the code of the XML API. May be empty.
        message: The service's message. May be empty.
        headers: The headers of the response.
    """

    status: int
    reason: str
    message: str
    headers: Mapping[str, str]

    def error(self) -> TroveError:
        """Return the exception to raise.

        A 404 that does not distinguish a missing object from a missing bucket is a NotFoundError.
        The caller then checks whether the bucket exists.
        """
        mapping = self._mapping()
        is_unavailable = issubclass(mapping.kind, UnavailableError)
        description = describe_response(self.status, self.reason, self.message, _SECRET)
        error = mapping.kind(
            f"{mapping.advice} ({description})",
            retryable=mapping.retryable,
            retry_after=retry_after(self.headers) if is_unavailable else None,
        )
        if mapping.no_effect:
            error.maybe_done = False
        return error

    def _mapping(self) -> ErrorMapping:
        mapping = REASONS.get(self.reason) or STATUSES.get(self.status)
        if mapping is not None:
            return mapping
        if self.status >= _SERVER_ERROR:
            return _INTERNAL_ERROR
        return _CORRUPTED if _CHECKSUM_MISMATCH.search(self.message[:MAX_SEARCHED]) else _REJECTED


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
            else:  # the format of token endpoints and some front ends (RFC 6749, 5.2)
                reason, message = str(error), str(json.loads(text).get("error_description", ""))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass  # the status is enough
    else:
        fields = {name: unescape(value) for name, value in _XML.findall(text)}
        reason, message = fields.get("Code", ""), fields.get("Message", "")
    return ErrorResponse(status, reason, message, headers)


def bucket_not_found(error: TroveError, bucket: str | None = None) -> BucketNotFoundError:
    """Return the error to raise instead of `error`, because the bucket is known to be missing."""
    return BucketNotFoundError(replace_advice(error.message, _NO_BUCKET), bucket=bucket)


def object_not_found(
    error: TroveError, bucket: str | None = None, key: str | None = None
) -> ObjectNotFoundError:
    """Return the error to raise instead of `error`, because the object is known to be missing."""
    return ObjectNotFoundError(replace_advice(error.message, _NO_OBJECT), bucket=bucket, key=key)
