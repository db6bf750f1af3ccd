"""The table that maps S3's error responses to errors of this library.

The codes are those of the S3 API Reference, "Error responses", and equivalent codes of other
services (MinIO's begin with XMinio) and of the throttling in front of Amazon's. The status decides
if the response has no known code, for example after a HEAD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from trove_async._http import retry_after
from trove_async._http.services import ErrorMapping
from trove_async.errors import (
    BackendError,
    BucketExistsError,
    BucketNotEmptyError,
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

_BUSY = ErrorMapping(UnavailableError, "the service asks to slow down")
_FAILED = ErrorMapping(UnavailableError, "the service failed")
_RACED = ErrorMapping(UnavailableError, "another request for the same name is under way")
_SLOW = ErrorMapping(TimedOutError, "the service waited too long for the request")
_DENIED = ErrorMapping(PermissionDeniedError, "these credentials may not do so: check the policies")
_CLOSED = ErrorMapping(PermissionDeniedError, "the service refuses this account")
_UNKNOWN = ErrorMapping(UnauthenticatedError, "the service does not know the access key")
_UNPROVED = ErrorMapping(
    UnauthenticatedError, "the signature is not right: check the secret key and the region"
)
_EXPIRED = ErrorMapping(UnauthenticatedError, "the session's token has expired, or is no token")
_UNSAID = (
    "the service refuses without a reason, as in every response to HEAD: check the credentials,"
    " `region`, this machine's clock and the bucket's policy"
)
_SKEWED = ErrorMapping(
    UnauthenticatedError, "this machine's clock and the service's differ too much"
)
_UNSIGNED = ErrorMapping(UnauthenticatedError, "the service wants a signature")
_ELSEWHERE = ErrorMapping(BackendError, "the bucket is in another region: set `region`")
# Retryable: the checksum was computed from the memory that was sent, so the body broke in transit.
_BROKEN = ErrorMapping(
    IntegrityError, "the body that arrived is not the body that was sent", retryable=True
)
_FULL = ErrorMapping(StorageFullError, "the quota is used up")
_MISNAMED = ErrorMapping(InvalidNameError, "the service takes no such name")
_TOO_MUCH = ErrorMapping(NotSupportedError, "it is more than the service takes")
_CANNOT = ErrorMapping(NotSupportedError, "the service cannot do so")
_ARCHIVED = ErrorMapping(BackendError, "the object is archived: restore it first")
_REFUSED = ErrorMapping(BackendError, "the service refuses the request")
_UNMET = ErrorMapping(PreconditionFailedError, "the object is not in the state that was asked for")
_NO_RANGE = ErrorMapping(RangeError, "the object has no such bytes")
_NO_OBJECT = ErrorMapping(ObjectNotFoundError, "no such object")
_NO_BUCKET = ErrorMapping(BucketNotFoundError, "no such bucket: create_bucket makes it")
_NOTHING = ErrorMapping(NotFoundError, "no such object, or no such bucket")
_TAKEN = ErrorMapping(BucketExistsError, "the bucket exists")

CODES: Final[dict[str, ErrorMapping]] = {
    "NoSuchKey": _NO_OBJECT,
    "NoSuchVersion": ErrorMapping(ObjectNotFoundError, "no such version of the object"),
    "NoSuchUpload": ErrorMapping(
        ObjectNotFoundError, "the upload is complete, aborted, or never was"
    ),
    "NoSuchBucket": _NO_BUCKET,
    "BucketAlreadyExists": _TAKEN,
    "BucketAlreadyOwnedByYou": _TAKEN,
    "BucketNotEmpty": ErrorMapping(
        BucketNotEmptyError, "the bucket has objects, or versions of some"
    ),
    "PreconditionFailed": _UNMET,
    "NotModified": _UNMET,
    "ConditionalRequestConflict": _RACED,
    "OperationAborted": _RACED,
    "InvalidRange": _NO_RANGE,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _CLOSED,
    "AccountProblem": _CLOSED,
    "NotSignedUp": _CLOSED,
    "InvalidAccessKeyId": _UNKNOWN,
    "SignatureDoesNotMatch": _UNPROVED,
    "InvalidSecurity": _UNPROVED,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _SKEWED,
    "RequestExpired": _SKEWED,
    "MissingSecurityHeader": _UNSIGNED,
    "PermanentRedirect": _ELSEWHERE,
    "Redirect": _ELSEWHERE,
    "TemporaryRedirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "IncorrectEndpoint": _ELSEWHERE,
    "InvalidLocationConstraint": ErrorMapping(
        BackendError, "there is no such region: set `region`"
    ),
    "SlowDown": _BUSY,
    "SlowDownRead": _BUSY,
    "SlowDownWrite": _BUSY,
    "BandwidthLimitExceeded": _BUSY,
    "LimitExceededException": _BUSY,
    "PriorRequestNotComplete": _BUSY,
    "ProvisionedThroughputExceededException": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "RequestThrottled": _BUSY,
    "RequestThrottledException": _BUSY,
    "ThrottledException": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "TooManyRequests": _BUSY,
    "TooManyRequestsException": _BUSY,
    "TransactionInProgressException": _BUSY,
    "InternalError": _FAILED,
    "InternalFailure": _FAILED,
    "ServiceUnavailable": _FAILED,
    "Busy": _FAILED,
    "XMinioServerNotInitialized": _FAILED,
    "RequestTimeout": _SLOW,
    "RequestTimeoutException": _SLOW,
    "IncompleteBody": ErrorMapping(UnavailableError, "the service did not receive the whole body"),
    "BadDigest": _BROKEN,
    "InvalidDigest": ErrorMapping(IntegrityError, "the checksum announced is no checksum"),
    "XAmzContentChecksumMismatch": _BROKEN,
    "XAmzContentSHA256Mismatch": _BROKEN,
    "InvalidBucketName": _MISNAMED,
    "InvalidURI": _MISNAMED,
    "KeyTooLong": _MISNAMED,
    "KeyTooLongError": _MISNAMED,
    "XMinioInvalidObjectName": _MISNAMED,
    "EntityTooLarge": _TOO_MUCH,
    "EntityTooSmall": ErrorMapping(
        NotSupportedError, "a part but the last is less than is allowed"
    ),
    "MaxMessageLengthExceeded": _TOO_MUCH,
    "MetadataTooLarge": _TOO_MUCH,
    "RequestHeaderSectionTooLarge": _TOO_MUCH,
    "InvalidStorageClass": ErrorMapping(NotSupportedError, "the service has no such storage class"),
    "InvalidTag": ErrorMapping(NotSupportedError, "the service takes no such tag"),
    "MethodNotAllowed": _CANNOT,
    "NotImplemented": _CANNOT,
    "QuotaExceeded": _FULL,
    "XMinioAdminBucketQuotaExceeded": _FULL,
    "XMinioStorageFull": ErrorMapping(StorageFullError, "the service has no room left"),
    "TooManyBuckets": ErrorMapping(StorageFullError, "the account may have no more buckets"),
    "InvalidObjectState": _ARCHIVED,
    "ObjectNotInActiveTierError": _ARCHIVED,
    "InvalidPart": ErrorMapping(BackendError, "the service lost a part, or was sent it anew"),
    "InvalidPartOrder": _REFUSED,
    "InvalidArgument": _REFUSED,
    "InvalidRequest": _REFUSED,
    "MalformedXML": _REFUSED,
}

STATUSES: Final[dict[int, ErrorMapping]] = {
    301: _ELSEWHERE,
    302: _ELSEWHERE,
    303: _ELSEWHERE,
    304: _UNMET,
    307: _ELSEWHERE,
    308: _ELSEWHERE,
    401: _UNSIGNED,
    403: _DENIED,
    404: _NOTHING,
    405: _CANNOT,
    408: _SLOW,
    412: _UNMET,
    413: _TOO_MUCH,
    416: _NO_RANGE,
    429: _BUSY,
    501: _CANNOT,
    503: _BUSY,
    507: _FULL,
}

UNSAID: Final[dict[int, ErrorMapping]] = {
    400: ErrorMapping(BackendError, _UNSAID),
    403: ErrorMapping(PermissionDeniedError, _UNSAID),
}
"""Meanings of a response without a document. It has several possible causes."""

_SERVER_ERROR: Final = 500
_SHOWN: Final = 300
"""Characters of the service's message that an error shows."""

_READ: Final = 4096
"""Characters of the service's message that are searched for secrets."""

# Services quote the request in their messages, so the values of these names are removed.
# Each repeat before a value is bounded. Otherwise the time to match is quadratic in the text.
_SECRET = re.compile(
    r"(?is)(authorization\W{0,3}[=:]).*"
    r"|((?:signature|credential|security.?token|secret\w{0,32}|access_?key\w{0,32})"
    r"\W{0,3}[=:]\W{0,2})\S+"
)


def failure(
    status: int,
    code: str = "",
    message: str = "",
    headers: Mapping[str, str] | None = None,
    *,
    bucket: str | None = None,
    key: str | None = None,
) -> TroveError:
    """Return the error for a response.

    A 404 that does not distinguish a missing object from a missing bucket is a NotFoundError. The
    driver then checks whether the bucket exists.

    Args:
        status: The status of the response. It is 200 if the error is in the body of a success.
        code: S3's error code, if the response has a document.
        message: The service's message.
        headers: The response headers: lower-case names, or a case-insensitive mapping.
        bucket: The bucket of the request.
        key: The key of the request.
    """
    told = headers or {}
    unsaid = not code and not message
    meaning = _meaning(status, code, told, unsaid=unsaid)
    advice = meaning.advice
    region = told.get("x-amz-bucket-region")
    if meaning is _ELSEWHERE and region:
        advice = f"{advice} to {region[:40]!r}"
    elif region and unsaid and status in UNSAID:
        advice = f"{advice}. The bucket is in region {region[:40]!r}"
    return meaning.kind(
        f"{advice} ({_answered(status, code, message)})",
        bucket=bucket,
        key=key,
        retryable=meaning.retryable,
        retry_after=retry_after(told) if issubclass(meaning.kind, UnavailableError) else None,
    )


def _meaning(status: int, code: str, headers: Mapping[str, str], *, unsaid: bool) -> ErrorMapping:
    if headers.get("x-amz-delete-marker") == "true" and status in {404, 405}:
        return _NO_OBJECT  # S3 User Guide, "Working with delete markers"
    meaning = CODES.get(code)
    if meaning is None and unsaid:
        meaning = UNSAID.get(status)
    meaning = meaning or STATUSES.get(status)
    if meaning is not None:
        return meaning
    return _FAILED if status >= _SERVER_ERROR else _REFUSED


def _answered(status: int, code: str, message: str) -> str:
    sentence = " ".join(_SECRET.sub(r"\1\2…", message[:_READ]).split())
    if len(sentence) > _SHOWN:
        sentence = sentence[:_SHOWN] + "…"
    answered = f"{status} {code[:80]}".rstrip()
    return f"{answered}: {sentence}" if sentence else answered
