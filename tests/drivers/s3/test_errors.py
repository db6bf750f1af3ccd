"""The mapping of error responses of the service to errors of this library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trove_async import errors
from trove_async.drivers.s3._buckets import specific_error
from trove_async.drivers.s3._errors import CODES, STATUSES, STATUSES_WITHOUT_DOCUMENT, failure

if TYPE_CHECKING:
    from trove_async._http.services import ErrorMapping
    from trove_async.errors import TroveError

# Codes from the S3 API Reference, "Error responses", and from compatible services.
ERRORS = [
    (404, "NoSuchKey", errors.ObjectNotFoundError, False),
    (404, "NoSuchVersion", errors.ObjectNotFoundError, False),
    (404, "NoSuchUpload", errors.ObjectNotFoundError, False),
    (404, "NoSuchBucket", errors.BucketNotFoundError, False),
    (409, "BucketAlreadyExists", errors.BucketExistsError, False),
    (409, "BucketAlreadyOwnedByYou", errors.BucketExistsError, False),
    (409, "BucketNotEmpty", errors.BucketNotEmptyError, False),
    (412, "PreconditionFailed", errors.PreconditionFailedError, False),
    (409, "ConditionalRequestConflict", errors.UnavailableError, True),
    (409, "OperationAborted", errors.UnavailableError, True),
    (416, "InvalidRange", errors.RangeError, False),
    (403, "AccessDenied", errors.PermissionDeniedError, False),
    (403, "InvalidAccessKeyId", errors.UnauthenticatedError, False),
    (403, "SignatureDoesNotMatch", errors.UnauthenticatedError, False),
    (400, "ExpiredToken", errors.UnauthenticatedError, False),
    (403, "RequestTimeTooSkewed", errors.UnauthenticatedError, False),
    (503, "SlowDown", errors.UnavailableError, True),
    (400, "Throttling", errors.UnavailableError, True),
    (400, "ThrottlingException", errors.UnavailableError, True),
    (400, "RequestLimitExceeded", errors.UnavailableError, True),
    (500, "InternalError", errors.UnavailableError, True),
    (200, "InternalError", errors.UnavailableError, True),
    (200, "SlowDown", errors.UnavailableError, True),
    (503, "ServiceUnavailable", errors.UnavailableError, True),
    (400, "RequestTimeout", errors.TimedOutError, True),
    (400, "IncompleteBody", errors.UnavailableError, True),
    (400, "BadDigest", errors.IntegrityError, True),
    (400, "XAmzContentChecksumMismatch", errors.IntegrityError, True),
    (400, "InvalidDigest", errors.IntegrityError, False),
    (400, "EntityTooLarge", errors.NotSupportedError, False),
    (400, "EntityTooSmall", errors.NotSupportedError, False),
    (501, "NotImplemented", errors.NotSupportedError, False),
    (400, "InvalidStorageClass", errors.NotSupportedError, False),
    (403, "QuotaExceeded", errors.StorageFullError, False),
    (507, "XMinioStorageFull", errors.StorageFullError, False),
    (301, "PermanentRedirect", errors.BackendError, False),
    (400, "AuthorizationHeaderMalformed", errors.BackendError, False),
    (403, "InvalidObjectState", errors.BackendError, False),
    (400, "InvalidPart", errors.BackendError, False),
    (400, "KeyTooLongError", errors.InvalidNameError, False),
    (400, "InvalidBucketName", errors.InvalidNameError, False),
    (405, "MethodNotAllowed", errors.NotSupportedError, False),
    # Without a body, or with an unknown code, the status decides.
    (301, "", errors.BackendError, False),
    (307, "", errors.BackendError, False),
    (304, "", errors.PreconditionFailedError, False),
    (400, "", errors.BackendError, False),
    (401, "", errors.UnauthenticatedError, False),
    (403, "", errors.PermissionDeniedError, False),
    (404, "", errors.NotFoundError, False),
    (405, "", errors.NotSupportedError, False),
    (408, "", errors.TimedOutError, True),
    (409, "UnknownCode", errors.BackendError, False),
    (412, "", errors.PreconditionFailedError, False),
    (413, "", errors.NotSupportedError, False),
    (416, "", errors.RangeError, False),
    (429, "", errors.UnavailableError, True),
    (500, "", errors.UnavailableError, True),
    (500, "UnknownCode", errors.UnavailableError, True),
    (501, "", errors.NotSupportedError, False),
    (502, "", errors.UnavailableError, True),
    (503, "", errors.UnavailableError, True),
    (504, "", errors.UnavailableError, True),
    (507, "", errors.StorageFullError, False),
    (520, "", errors.UnavailableError, True),
    (200, "UnknownCode", errors.BackendError, False),
]


@pytest.mark.parametrize(("status", "code", "kind", "retryable"), ERRORS)
def test_error_response_maps_to_an_error(
    status: int, code: str, kind: type[TroveError], *, retryable: bool
) -> None:
    error = failure(status, code)
    assert type(error) is kind
    assert error.retryable is retryable


@pytest.mark.parametrize(
    ("status", "code", "mapping"),
    [(400, code, mapping) for code, mapping in CODES.items()]
    + [(status, "", mapping) for status, mapping in STATUSES.items()],
)
def test_message_contains_the_advice_and_the_response(
    status: int, code: str, mapping: ErrorMapping
) -> None:
    error = failure(status, code, "A sentence.", bucket="b", key="k")
    assert type(error) is mapping.kind
    received = f"{status} {code}".strip()
    assert error.message == f"{mapping.advice} ({received}: A sentence.)"
    assert (error.bucket, error.key) == ("b", "k")
    retryable = mapping.kind.retryable if mapping.retryable is None else mapping.retryable
    assert error.retryable is retryable


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("ExpiredToken", "create new credentials"),
        ("RequestTimeTooSkewed", "set this machine's clock"),
    ],
)
def test_message_contains_the_remedy(code: str, remedy: str) -> None:
    assert remedy in failure(403, code).message


@pytest.mark.parametrize("response", ["404", "404 NoSuch: it (or its bucket) is missing"])
async def test_message_about_a_missing_bucket_or_object_is_specific(response: str) -> None:
    async def exists(bucket: str) -> bool:
        return bucket == "existing"

    code, _, message = response[4:].partition(": ")
    error = failure(404, code, message)
    assert isinstance(error, errors.NotFoundError)
    missing_bucket = await specific_error(error, "missing", exists)
    assert isinstance(missing_bucket, errors.BucketNotFoundError)
    assert missing_bucket.message == (
        f"the bucket does not exist: create it with create_bucket ({response})"
    )
    missing_object = await specific_error(error, "existing", exists)
    assert isinstance(missing_object, errors.ObjectNotFoundError)
    assert missing_object.message == f"the object does not exist ({response})"


@pytest.mark.parametrize("status", [404, 405])
def test_delete_marker_raises_object_not_found(status: int) -> None:
    error = failure(status, "MethodNotAllowed", headers={"x-amz-delete-marker": "true"})
    assert type(error) is errors.ObjectNotFoundError


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
def test_message_does_not_show_credentials(message: str) -> None:
    assert "SECRET" not in str(failure(403, "AccessDenied", message))


def test_message_is_one_line_of_bounded_length() -> None:
    message = failure(500, "InternalError", "a\nb " * 10_000).message
    assert "a b" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "separator",
    ["\n", "\r\n", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\u202e", "\ud800"],
    ids=ascii,
)
def test_response_cannot_add_lines_or_escape_sequences_to_a_message(separator: str) -> None:
    text = f"{separator}INFO{separator}[31mforged"
    message = str(failure(400, text, text))
    assert message.isprintable()
    assert message.endswith("(400 INFO [31mforged: INFO [31mforged)")


@pytest.mark.parametrize(("status", "mapping"), STATUSES_WITHOUT_DOCUMENT.items())
def test_error_without_a_body_suggests_causes(status: int, mapping: ErrorMapping) -> None:
    error = failure(status, headers={"x-amz-bucket-region": "eu-west-1"})
    assert type(error) is mapping.kind
    assert error.message == f"{mapping.advice}. The bucket is in region 'eu-west-1' ({status})"
