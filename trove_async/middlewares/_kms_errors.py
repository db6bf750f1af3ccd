"""The table that maps the error responses of AWS KMS to errors of this library.

The codes are those of the AWS KMS API Reference, "GenerateDataKey", "Decrypt", "ReEncrypt" and "Common
Errors". If the code is unknown, the status decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from trove_async._http.services import ErrorMapping, describe_response
from trove_async.drivers.s3._errors import SECRET
from trove_async.errors import (
    BackendError,
    ConfigError,
    DecryptionError,
    PermissionDeniedError,
    TimedOutError,
    TroveError,
    UnauthenticatedError,
    UnavailableError,
)

_DENIED = ErrorMapping(
    PermissionDeniedError,
    "the credentials do not permit this request, or the key does not exist: allow"
    " kms:GenerateDataKey to write and kms:Decrypt to read, in IAM and in the key's policy",
)
_UNKNOWN = ErrorMapping(UnauthenticatedError, "the service does not know the access key")
_BAD_SIGNATURE = ErrorMapping(
    UnauthenticatedError, "the signature does not match: check the secret access key and the region"
)
_EXPIRED = ErrorMapping(
    UnauthenticatedError,
    "the session token has expired or this machine's clock is wrong: create new credentials, or use a"
    " source that the AWS SDK renews (a role, SSO, credential_process)",
)
_NOT_SIGNED = ErrorMapping(UnauthenticatedError, "the service requires signed requests")
_BUSY = ErrorMapping(
    UnavailableError,
    "the service is throttling requests: request a higher quota, or raise max_objects and max_age",
)
_FAILED = ErrorMapping(UnavailableError, "the service failed")
_REJECTED = ErrorMapping(BackendError, "the service rejected the request")

CODES: Final[dict[str, ErrorMapping]] = {
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "NotAuthorized": _DENIED,
    "NotAuthorizedException": _DENIED,
    "OptInRequired": _DENIED,
    "InvalidAccessKeyId": _UNKNOWN,
    "InvalidClientTokenId": _UNKNOWN,
    "UnrecognizedClientException": _UNKNOWN,
    "IncompleteSignature": _BAD_SIGNATURE,
    "IncompleteSignatureException": _BAD_SIGNATURE,
    "InvalidSignatureException": _BAD_SIGNATURE,
    "SignatureDoesNotMatch": _BAD_SIGNATURE,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "MissingAuthenticationToken": _NOT_SIGNED,
    "MissingAuthenticationTokenException": _NOT_SIGNED,
    "LimitExceededException": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "TooManyRequestsException": _BUSY,
    "InternalError": _FAILED,
    "InternalFailure": _FAILED,
    "KMSInternalException": _FAILED,
    "ServiceUnavailable": _FAILED,
    "ServiceUnavailableException": _FAILED,
    "KeyUnavailableException": ErrorMapping(
        UnavailableError, "the key is not available at the moment"
    ),
    "DependencyTimeoutException": ErrorMapping(
        TimedOutError, "the service did not respond in time"
    ),
}

KEY_CODES: Final[dict[str, str]] = {
    "NotFoundException": (
        "the key does not exist, or not in this region and account: check key_id and region. Objects"
        " whose key was deleted cannot be read"
    ),
    "DisabledException": "the key is disabled: enable it",
    "KMSInvalidStateException": "the key is pending deletion or not usable: cancel its deletion",
    "InvalidKeyUsageException": "the key must be symmetric and for encryption",
    "InvalidArnException": "the ARN of the key is malformed: check key_id",
    "IncorrectKeyException": (
        "the key did not encrypt the data key of the object: the object's record was altered"
    ),
    "InvalidCiphertextException": (
        "the data key of the object was altered, or the encryption context is not that of its put"
    ),
    "ValidationException": "the service does not accept the key or the encryption context",
}
"""Codes for a key that cannot be used. They are a DecryptionError if an object is read, and a
ConfigError if `key_id` cannot encrypt a new object."""

STATUSES: Final[dict[int, ErrorMapping]] = {
    401: _NOT_SIGNED,
    403: _DENIED,
    408: ErrorMapping(TimedOutError, "the service did not receive the request in time"),
    429: _BUSY,
}


def failure(response: Mapping[str, Any], key_id: str, *, reading: bool) -> TroveError:
    """Return the error for an error response, as the SDK parsed it.

    Args:
        response: The parsed response.
        key_id: The key of the request, for the message.
        reading: Whether the request concerns the key of an existing object.
    """
    error = response.get("Error", {})
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", HTTPStatus.OK))
    # Without a document, the SDK uses the status as the code.
    code = "" if str(error.get("Code", "")).isdigit() else str(error.get("Code", ""))
    meaning = _meaning(status, code, reading=reading)
    detail = describe_response(status, code, str(error.get("Message", "")), SECRET)
    return meaning.kind(f"{meaning.advice} (AWS KMS, key {key_id!r}: {detail})")


def _meaning(status: int, code: str, *, reading: bool) -> ErrorMapping:
    if code in KEY_CODES:
        return ErrorMapping(DecryptionError if reading else ConfigError, KEY_CODES[code])
    meaning = CODES.get(code) or STATUSES.get(status)
    if meaning is not None:
        return meaning
    return _FAILED if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _REJECTED
