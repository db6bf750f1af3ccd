"""Every error response maps to an exception without secrets."""

from __future__ import annotations

import json

import pytest

from trove_async.drivers.gcs._errors import REASONS, STATUSES, parse_error
from trove_async.errors import (
    BackendError,
    BucketNotFoundError,
    IntegrityError,
    NotFoundError,
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


def error_document(reason: str, message: str = "m", status: int = 400) -> bytes:
    """Return an error document of the JSON API."""
    error = {"domain": "global", "reason": reason, "message": message}
    return json.dumps({"error": {"code": status, "message": message, "errors": [error]}}).encode()


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_mapped_from_json_and_xml(reason: str) -> None:
    mapping = REASONS[reason]
    xml = f"<?xml version='1.0'?><Error><Code>{reason}</Code><Message>a &lt; b</Message></Error>"
    for body in (error_document(reason, "a < b"), xml.encode()):
        error = parse_error(400, {}, body).error()
        assert type(error) is mapping.kind
        assert mapping.advice in str(error)
        assert "a < b" in str(error)
        retryable = mapping.kind.retryable if mapping.retryable is None else mapping.retryable
        assert error.retryable == retryable


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b'{"error": 1}', b"[]", b"\xff", b"null"])
@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_mapped_without_a_document(status: int, body: bytes) -> None:
    assert type(parse_error(status, {}, body).error()) is STATUSES[status].kind


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, BackendError, False),
        (401, UnauthenticatedError, False),
        (403, PermissionDeniedError, False),
        (404, NotFoundError, False),
        (408, TimedOutError, True),
        (412, PreconditionFailedError, False),
        (416, RangeError, False),
        (418, BackendError, False),
        (429, UnavailableError, True),
        (500, UnavailableError, True),
        (502, UnavailableError, True),
        (503, UnavailableError, True),
        (504, UnavailableError, True),
        (599, UnavailableError, True),
    ],
)
def test_retryable_statuses_follow_google_documentation(
    status: int, kind: type[TroveError], *, retryable: bool
) -> None:
    error = parse_error(status, {}, b"").error()
    assert (type(error), error.retryable) == (kind, retryable)


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (403, "rateLimitExceeded", UnavailableError),
        (403, "quotaExceeded", StorageFullError),
        (404, "NoSuchKey", ObjectNotFoundError),
        (404, "NoSuchBucket", BucketNotFoundError),
    ],
)
def test_reason_takes_precedence_over_status(status: int, reason: str, kind: type) -> None:
    assert type(parse_error(status, {}, error_document(reason)).error()) is kind


def test_missing_credentials_are_unauthenticated() -> None:
    # The service sends this reason with a 400 as well, about a missing parameter.
    document = error_document(
        "required", "Anonymous caller does not have storage.objects.get access"
    )
    assert type(parse_error(401, {}, document).error()) is UnauthenticatedError
    assert type(parse_error(400, {}, document).error()) is BackendError


@pytest.mark.parametrize(
    "message",
    [
        'Provided CRC32C "AAAA" doesn\'t match calculated CRC32C "BBBB".',
        "Provided MD5 hash does not match calculated MD5 hash.",
    ],
)
def test_checksum_mismatch_is_retryable(message: str) -> None:
    error = parse_error(400, {}, error_document("invalid", message)).error()
    assert isinstance(error, IntegrityError)
    assert error.retryable


def test_retry_after_is_parsed() -> None:
    dates = {
        "retry-after": "Wed, 21 Oct 2015 07:28:07 GMT",
        "date": "Wed, 21 Oct 2015 07:28:00 GMT",
    }
    for headers in ({"retry-after": "7"}, dates):
        assert parse_error(503, headers, b"").error().retry_after == 7
        assert parse_error(404, headers, b"").error().retry_after is None
    assert parse_error(429, {"retry-after": "soon"}, b"").error().retry_after is None


@pytest.mark.parametrize(
    "separator",
    ["\n", "\r\n", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\u202e", "\ud800"],
    ids=ascii,
)
def test_response_cannot_add_lines_or_escape_sequences_to_a_message(separator: str) -> None:
    text = f"{separator}INFO{separator}[31mforged"
    message = str(parse_error(400, {}, error_document(text, text)).error())
    assert message.isprintable()
    assert message.endswith("(400 INFO [31mforged: INFO [31mforged)")


def test_message_is_short_without_secrets_and_oauth_error_is_parsed() -> None:
    message = "Signature=SECRET1 bad, access_token: SECRET2, Bearer SECRET3 " + "x" * 5000
    text = str(parse_error(401, {}, error_document("authError", message)).error())
    assert "SECRET" not in text
    assert len(text) < 600
    oauth = parse_error(400, {}, b'{"error": "invalid_grant", "error_description": "expired"}')
    assert (oauth.reason, oauth.message) == ("invalid_grant", "expired")
