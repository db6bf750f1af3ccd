"""Errors as problem details (RFC 9457)."""

from __future__ import annotations

import json
import logging
from inspect import getmembers, isclass

import pytest

from tests.fakes import Fake, store_of
from tests.integrations.file_service import (
    FRAMEWORKS,
    send_with_httpx,
    serving,
)
from trove_async import TroveError, UnavailableError, errors
from trove_async.integrations._problem_details import PROBLEMS, problem_for

both_frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)

ERRORS = [
    error_class
    for _, error_class in getmembers(errors, isclass)
    if issubclass(error_class, TroveError)
]

STATUSES = {
    400: {"InvalidNameError", "CursorError"},
    403: {"PermissionDeniedError"},
    404: {"NotFoundError", "ObjectNotFoundError", "BucketNotFoundError"},
    409: {
        "AlreadyExistsError",
        "ObjectExistsError",
        "BucketExistsError",
        "BucketNotEmptyError",
        "ObjectChangedError",
    },
    412: {"PreconditionFailedError"},
    416: {"RangeError"},
    422: {"ContentBlockedError"},
    500: {
        "TroveError",
        "BackendNotFoundError",
        "PatternError",
        "ConfigError",
        "StreamError",
        "BodyConsumedError",
    },
    501: {"NotSupportedError"},
    502: {"BackendError", "DecryptionError", "IntegrityError", "UnauthenticatedError"},
    503: {"UnavailableError", "PoolTimeoutError", "ClosedError"},
    504: {"TimedOutError"},
    507: {"StorageFullError"},
}


def test_every_error_has_a_status() -> None:
    assert PROBLEMS.keys() == set(ERRORS)
    classes = {status: set[str]() for status in STATUSES}
    for error_class in ERRORS:
        classes[PROBLEMS[error_class].status].add(error_class.__name__)
    assert classes == STATUSES


async def test_invalid_cursor_is_a_client_error() -> None:
    async with store_of(Fake()) as store:
        for number in range(2):
            await store.put("bucket", f"{number}", b"")
        listing = store.list("bucket", page_size=1)
        await anext(listing.pages())
        for cursor in ("nonsense", "", listing.cursor):
            with pytest.raises(errors.CursorError) as caught:
                await store.list("bucket", prefix="other", cursor=cursor).all()
            assert problem_for(caught.value).status == 400


@pytest.mark.parametrize("error_class", ERRORS)
def test_problem_does_not_disclose_names(
    error_class: type[TroveError], caplog: pytest.LogCaptureFixture
) -> None:
    error = error_class(
        "at 10.0.0.7", backend="cold", bucket="accounts", key="secret", retry_after=2.2
    )
    error.__cause__ = OSError("secret too")
    with caplog.at_level(logging.WARNING, "trove_async"):
        response = problem_for(error)
    document = json.loads(response.content)
    assert document["status"] == response.status == PROBLEMS[error_class].status
    assert document["title"]
    assert document["detail"]
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Content-Length"] == str(len(response.content))
    for secret in (b"10.0.0.7", b"cold", b"accounts", b"secret"):
        assert secret not in response.content
    assert ("Retry-After" in response.headers) is (response.status == 503)
    assert response.headers.get("Retry-After", "3") == "3"
    # The log contains what the client does not see. Errors of the client are not logged.
    assert ("10.0.0.7" in caplog.text) is (response.status >= 500)


def test_unlisted_subclass_inherits_the_problem_of_its_base() -> None:
    class TapeError(UnavailableError):
        pass

    response = problem_for(TapeError("wound up"))
    assert (response.status, response.headers["Retry-After"]) == (503, "1")


@both_frameworks
async def test_errors_become_problem_responses(framework: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.create_bucket("files")
        await store.put("files", "o", b"x")
        async with serving(framework, store) as service:
            for error, status in (
                (errors.TimedOutError("late", retryable=False), 504),
                (UnavailableError("busy", retryable=False, retry_after=9), 503),
                (errors.BackendError("odd"), 502),
            ):
                fake.fail("get", error)
                response = await send_with_httpx(service.url("o"), "GET", [], None)
                assert response.status == status
                assert response.headers["content-type"] == "application/problem+json"
                assert response.headers.get("retry-after") == ("9" if status == 503 else None)
            fake.fail("put", errors.StorageFullError("full"))
            response = await send_with_httpx(service.url("new"), "PUT", [], b"body")
            assert response.status == 507
            response = await send_with_httpx(service.url("x%2F..%2Fy"), "PUT", [], b"body")
            assert response.status == 400
