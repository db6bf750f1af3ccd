"""The table from the service's error responses to our errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trove_async import errors
from trove_async.drivers.s3._errors import CODES, STATUSES, STATUSES_WITHOUT_DOCUMENT, failure

if TYPE_CHECKING:
    from trove_async._http.services import ErrorMapping
    from trove_async.errors import TroveError

OBJECT, BUCKET = errors.ObjectNotFoundError, errors.BucketNotFoundError
BUSY, SLOW, DENIED = errors.UnavailableError, errors.TimedOutError, errors.PermissionDeniedError
UNKNOWN, FULL, CANNOT = (
    errors.UnauthenticatedError,
    errors.StorageFullError,
    errors.NotSupportedError,
)
UNMET, RANGE, BROKEN = errors.PreconditionFailedError, errors.RangeError, errors.IntegrityError
EXISTS, NAME, BACKEND = errors.BucketExistsError, errors.InvalidNameError, errors.BackendError

# From the S3 API Reference, "Error responses".
ERRORS = [
    (404, "NoSuchKey", OBJECT, False),
    (404, "NoSuchVersion", OBJECT, False),
    (404, "NoSuchUpload", OBJECT, False),
    (404, "NoSuchBucket", BUCKET, False),
    (409, "BucketAlreadyExists", EXISTS, False),
    (409, "BucketAlreadyOwnedByYou", EXISTS, False),
    (409, "BucketNotEmpty", errors.BucketNotEmptyError, False),
    (412, "PreconditionFailed", UNMET, False),
    (409, "ConditionalRequestConflict", BUSY, True),
    (409, "OperationAborted", BUSY, True),
    (416, "InvalidRange", RANGE, False),
    (403, "AccessDenied", DENIED, False),
    (403, "InvalidAccessKeyId", UNKNOWN, False),
    (403, "SignatureDoesNotMatch", UNKNOWN, False),
    (400, "ExpiredToken", UNKNOWN, False),
    (403, "RequestTimeTooSkewed", UNKNOWN, False),
    (503, "SlowDown", BUSY, True),
    (400, "Throttling", BUSY, True),
    (400, "ThrottlingException", BUSY, True),
    (400, "RequestLimitExceeded", BUSY, True),
    (500, "InternalError", BUSY, True),
    (200, "InternalError", BUSY, True),
    (200, "SlowDown", BUSY, True),
    (503, "ServiceUnavailable", BUSY, True),
    (400, "RequestTimeout", SLOW, True),
    (400, "IncompleteBody", BUSY, True),
    (400, "BadDigest", BROKEN, True),
    (400, "XAmzContentChecksumMismatch", BROKEN, True),
    (400, "InvalidDigest", BROKEN, False),
    (400, "EntityTooLarge", CANNOT, False),
    (400, "EntityTooSmall", CANNOT, False),
    (501, "NotImplemented", CANNOT, False),
    (400, "InvalidStorageClass", CANNOT, False),
    (403, "QuotaExceeded", FULL, False),
    (507, "XMinioStorageFull", FULL, False),
    (301, "PermanentRedirect", BACKEND, False),
    (400, "AuthorizationHeaderMalformed", BACKEND, False),
    (403, "InvalidObjectState", BACKEND, False),
    (400, "InvalidPart", BACKEND, False),
    (400, "KeyTooLongError", NAME, False),
    (400, "InvalidBucketName", NAME, False),
    (405, "MethodNotAllowed", CANNOT, False),
    # Without a body, or with an unknown code, the status decides.
    (301, "", BACKEND, False),
    (307, "", BACKEND, False),
    (304, "", UNMET, False),
    (400, "", BACKEND, False),
    (401, "", UNKNOWN, False),
    (403, "", DENIED, False),
    (404, "", errors.NotFoundError, False),
    (405, "", CANNOT, False),
    (408, "", SLOW, True),
    (409, "UnknownCode", BACKEND, False),
    (412, "", UNMET, False),
    (413, "", CANNOT, False),
    (416, "", RANGE, False),
    (429, "", BUSY, True),
    (500, "", BUSY, True),
    (500, "UnknownCode", BUSY, True),
    (501, "", CANNOT, False),
    (502, "", BUSY, True),
    (503, "", BUSY, True),
    (504, "", BUSY, True),
    (507, "", FULL, False),
    (520, "", BUSY, True),
    (200, "UnknownCode", BACKEND, False),
]


@pytest.mark.parametrize(("status", "code", "kind", "retryable"), ERRORS)
def test_error_responses_become_our_errors(
    status: int, code: str, kind: type[TroveError], *, retryable: bool
) -> None:
    error = failure(status, code)
    assert type(error) is kind
    assert error.retryable is retryable


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [(400, code, meaning) for code, meaning in CODES.items()]
    + [(status, "", meaning) for status, meaning in STATUSES.items()],
)
def test_message_contains_the_advice_and_the_response(
    status: int, code: str, meaning: ErrorMapping
) -> None:
    error = failure(status, code, "A sentence.", bucket="b", key="k")
    assert type(error) is meaning.kind
    received = f"{status} {code}".strip()
    assert error.message == f"{meaning.advice} ({received}: A sentence.)"
    assert (error.bucket, error.key) == ("b", "k")
    retryable = meaning.kind.retryable if meaning.retryable is None else meaning.retryable
    assert error.retryable is retryable


@pytest.mark.parametrize("status", [404, 405])
def test_delete_marker_raises_object_not_found(status: int) -> None:
    error = failure(status, "MethodNotAllowed", headers={"x-amz-delete-marker": "true"})
    assert type(error) is OBJECT


def test_region_of_the_response_is_in_the_message() -> None:
    error = failure(301, "PermanentRedirect", headers={"x-amz-bucket-region": "eu-west-1"})
    assert "set `region` to 'eu-west-1'" in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0 "}, 0.0),
        (
            {
                "retry-after": "Tue, 24 Nov 2026 11:01:00 GMT",
                "date": "Tue, 24 Nov 2026 11:00:50 GMT",
            },
            10.0,
        ),
        (
            {
                "retry-after": "Tue, 24 Nov 2026 11:00:00 GMT",
                "date": "Tue, 24 Nov 2026 11:00:50 GMT",
            },
            0.0,
        ),
        ({"retry-after": "Tue, 24 Nov 2026 11:01:00 GMT"}, None),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "²"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_parsed(headers: dict[str, str], seconds: float | None) -> None:
    assert failure(503, "SlowDown", headers=headers).retry_after == seconds
    assert failure(403, "AccessDenied", headers=headers).retry_after is None


@pytest.mark.parametrize(
    "message",
    [
        "bad header: Authorization: AWS4-HMAC-SHA256 Credential=SECRET1, Signature=SECRET2",
        "got Signature=SECRET1&X-Amz-Security-Token=SECRET2",
        "X-Amz-Credential=SECRET1 was refused",
        "security token: SECRET1",
        'secretKey="SECRET1"',
        "AWSAccessKeyId=SECRET1",
        "sent Authorization: Bearer SECRET1",
    ],
)
def test_message_shows_no_credential(message: str) -> None:
    assert "SECRET" not in str(failure(403, "AccessDenied", message))


def test_message_is_one_line_of_bounded_length() -> None:
    message = failure(500, "InternalError", "a\nb " * 10_000).message
    assert "a b" in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize(("status", "meaning"), STATUSES_WITHOUT_DOCUMENT.items())
def test_error_without_a_body_suggests_causes(status: int, meaning: ErrorMapping) -> None:
    error = failure(status, headers={"x-amz-bucket-region": "eu-west-1"})
    assert type(error) is meaning.kind
    assert error.message == f"{meaning.advice}. The bucket is in region 'eu-west-1' ({status})"
