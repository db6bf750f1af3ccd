"""The table that maps S3's error responses to errors of this library.

The codes are those of the S3 API Reference, "Error responses", equivalent codes of other services
(MinIO's begin with XMinio), and codes of the throttling in front of AWS services. If the response
has no known code, for example after a HEAD, the status decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from trove_async._http import retry_after
from trove_async._http.services import ErrorMapping, describe_response, replace_advice
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

_BUSY = ErrorMapping(UnavailableError, "the service is throttling requests")
_FAILED = ErrorMapping(UnavailableError, "the service failed")
_CONFLICT = ErrorMapping(
    UnavailableError, "a concurrent request is changing the same object or bucket"
)
_SLOW = ErrorMapping(TimedOutError, "the service did not receive the request in time")
_DENIED = ErrorMapping(
    PermissionDeniedError, "the credentials do not permit this request: check the policies"
)
_ACCOUNT_REJECTED = ErrorMapping(PermissionDeniedError, "the service rejected the account")
_UNKNOWN_KEY = ErrorMapping(UnauthenticatedError, "the service does not know the access key")
_BAD_SIGNATURE = ErrorMapping(
    UnauthenticatedError, "the signature does not match: check the secret access key and the region"
)
_EXPIRED = ErrorMapping(
    UnauthenticatedError,
    "the session token has expired or is invalid: create new credentials, or use a source that the"
    " AWS SDK renews (a role, SSO, credential_process) instead of a fixed session_token",
)
_NO_REASON = (
    "the service rejected the request without giving a reason (the response to a HEAD has none):"
    " check the credentials, `region`, this machine's clock and the bucket's policy"
)
_SKEWED = ErrorMapping(
    UnauthenticatedError,
    "the clocks of this machine and of the service differ too much: set this machine's clock",
)
_NOT_SIGNED = ErrorMapping(UnauthenticatedError, "the service requires signed requests")
_WRONG_REGION = ErrorMapping(BackendError, "the bucket is in another region: set `region`")
# Retryable: the checksum was computed from the memory that was sent, so the body was corrupted in
# transit.
_CORRUPTED = ErrorMapping(
    IntegrityError, "the service received a different body than was sent", retryable=True
)
_FULL = ErrorMapping(StorageFullError, "the quota is exhausted")
_INVALID_NAME = ErrorMapping(InvalidNameError, "the service does not accept the name")
_TOO_LARGE = ErrorMapping(NotSupportedError, "the request exceeds a limit of the service")
_UNSUPPORTED = ErrorMapping(NotSupportedError, "the service does not support the request")
_ARCHIVED = ErrorMapping(BackendError, "the object is archived: restore it first")
_REJECTED = ErrorMapping(BackendError, "the service rejected the request")
_PRECONDITION_FAILED = ErrorMapping(
    PreconditionFailedError, "the object does not meet the precondition"
)
_NO_RANGE = ErrorMapping(RangeError, "the range is outside the object")
_NO_OBJECT = ErrorMapping(ObjectNotFoundError, "the object does not exist")
_NO_BUCKET = ErrorMapping(
    BucketNotFoundError, "the bucket does not exist: create it with create_bucket"
)
_NOT_FOUND = ErrorMapping(NotFoundError, "the object or its bucket does not exist")
_BUCKET_EXISTS = ErrorMapping(BucketExistsError, "the bucket exists")

CODES: Final[dict[str, ErrorMapping]] = {
    "NoSuchKey": _NO_OBJECT,
    "NoSuchVersion": ErrorMapping(ObjectNotFoundError, "the version of the object does not exist"),
    "NoSuchUpload": ErrorMapping(
        ObjectNotFoundError, "the upload was completed or aborted, or never existed"
    ),
    "NoSuchBucket": _NO_BUCKET,
    "BucketAlreadyExists": _BUCKET_EXISTS,
    "BucketAlreadyOwnedByYou": _BUCKET_EXISTS,
    "BucketNotEmpty": ErrorMapping(
        BucketNotEmptyError, "the bucket still has objects or versions of objects"
    ),
    "PreconditionFailed": _PRECONDITION_FAILED,
    "NotModified": _PRECONDITION_FAILED,
    "ConditionalRequestConflict": _CONFLICT,
    "OperationAborted": _CONFLICT,
    "InvalidRange": _NO_RANGE,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _ACCOUNT_REJECTED,
    "AccountProblem": _ACCOUNT_REJECTED,
    "NotSignedUp": _ACCOUNT_REJECTED,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _BAD_SIGNATURE,
    "InvalidSecurity": _BAD_SIGNATURE,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _SKEWED,
    "RequestExpired": _SKEWED,
    "MissingSecurityHeader": _NOT_SIGNED,
    "PermanentRedirect": _WRONG_REGION,
    "Redirect": _WRONG_REGION,
    "TemporaryRedirect": _WRONG_REGION,
    "AuthorizationHeaderMalformed": _WRONG_REGION,
    "IllegalLocationConstraintException": _WRONG_REGION,
    "IncorrectEndpoint": _WRONG_REGION,
    "InvalidLocationConstraint": ErrorMapping(
        BackendError, "the region does not exist: set `region`"
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
    "BadDigest": _CORRUPTED,
    "InvalidDigest": ErrorMapping(IntegrityError, "the service rejected the checksum as malformed"),
    "XAmzContentChecksumMismatch": _CORRUPTED,
    "XAmzContentSHA256Mismatch": _CORRUPTED,
    "InvalidBucketName": _INVALID_NAME,
    "InvalidURI": _INVALID_NAME,
    "KeyTooLong": _INVALID_NAME,
    "KeyTooLongError": _INVALID_NAME,
    "XMinioInvalidObjectName": _INVALID_NAME,
    "EntityTooLarge": _TOO_LARGE,
    "EntityTooSmall": ErrorMapping(
        NotSupportedError, "a part other than the last is smaller than the minimum"
    ),
    "MaxMessageLengthExceeded": _TOO_LARGE,
    "MetadataTooLarge": _TOO_LARGE,
    "RequestHeaderSectionTooLarge": _TOO_LARGE,
    "InvalidStorageClass": ErrorMapping(
        NotSupportedError, "the service does not support the storage class"
    ),
    "InvalidTag": ErrorMapping(NotSupportedError, "the service does not accept a tag"),
    "MethodNotAllowed": _UNSUPPORTED,
    "NotImplemented": _UNSUPPORTED,
    "QuotaExceeded": _FULL,
    "XMinioAdminBucketQuotaExceeded": _FULL,
    "XMinioStorageFull": ErrorMapping(StorageFullError, "the service has no space left"),
    "TooManyBuckets": ErrorMapping(
        StorageFullError, "the account has reached its maximum number of buckets"
    ),
    "InvalidObjectState": _ARCHIVED,
    "ObjectNotInActiveTierError": _ARCHIVED,
    "InvalidPart": ErrorMapping(BackendError, "a part was lost or uploaded again"),
    "InvalidPartOrder": _REJECTED,
    "InvalidArgument": _REJECTED,
    "InvalidRequest": _REJECTED,
    "MalformedXML": _REJECTED,
}

STATUSES: Final[dict[int, ErrorMapping]] = {
    301: _WRONG_REGION,
    302: _WRONG_REGION,
    303: _WRONG_REGION,
    304: _PRECONDITION_FAILED,
    307: _WRONG_REGION,
    308: _WRONG_REGION,
    401: _NOT_SIGNED,
    403: _DENIED,
    404: _NOT_FOUND,
    405: _UNSUPPORTED,
    408: _SLOW,
    412: _PRECONDITION_FAILED,
    413: _TOO_LARGE,
    416: _NO_RANGE,
    429: _BUSY,
    501: _UNSUPPORTED,
    503: _BUSY,
    507: _FULL,
}

STATUSES_WITHOUT_DOCUMENT: Final[dict[int, ErrorMapping]] = {
    400: ErrorMapping(BackendError, _NO_REASON),
    403: ErrorMapping(PermissionDeniedError, _NO_REASON),
}
"""The meanings of statuses without a document. Such a response has several possible causes."""

_SERVER_ERROR: Final = 500

# Each repetition before a value is limited. Otherwise matching would take quadratic time.
SECRET: Final = re.compile(
    r"(?is)(authorization\W{0,3}[=:]).*"
    r"|((?:signature|credential|security.?token|secret\w{0,32}|access_?key\w{0,32})"
    r"\W{0,3}[=:]\W{0,2})\S+"
)
"""Matches secrets in the messages of AWS's services, which quote requests (`describe_response`)."""


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
    fields = headers or {}
    has_no_document = not code and not message
    meaning = _meaning(status, code, fields, has_no_document=has_no_document)
    advice = meaning.advice
    region = fields.get("x-amz-bucket-region")
    if meaning is _WRONG_REGION and region:
        advice = f"{advice} to {region[:40]!r}"
    elif region and has_no_document and status in STATUSES_WITHOUT_DOCUMENT:
        advice = f"{advice}. The bucket is in region {region[:40]!r}"
    return meaning.kind(
        f"{advice} ({describe_response(status, code, message, SECRET)})",
        bucket=bucket,
        key=key,
        retryable=meaning.retryable,
        retry_after=retry_after(fields) if issubclass(meaning.kind, UnavailableError) else None,
    )


def _meaning(
    status: int, code: str, headers: Mapping[str, str], *, has_no_document: bool
) -> ErrorMapping:
    if headers.get("x-amz-delete-marker") == "true" and status in {404, 405}:
        return _NO_OBJECT  # S3 User Guide, "Working with delete markers"
    meaning = CODES.get(code)
    if meaning is None and has_no_document:
        meaning = STATUSES_WITHOUT_DOCUMENT.get(status)
    meaning = meaning or STATUSES.get(status)
    if meaning is not None:
        return meaning
    return _FAILED if status >= _SERVER_ERROR else _REJECTED


def bucket_not_found(error: TroveError, bucket: str | None = None) -> BucketNotFoundError:
    """Return the error to raise instead of one whose cause is known to be a missing bucket."""
    return BucketNotFoundError(replace_advice(error.message, _NO_BUCKET), bucket=bucket)


def object_not_found(
    error: TroveError, bucket: str | None = None, key: str | None = None
) -> ObjectNotFoundError:
    """Return the error to raise instead of one whose cause is known to be a missing object."""
    return ObjectNotFoundError(replace_advice(error.message, _NO_OBJECT), bucket=bucket, key=key)
