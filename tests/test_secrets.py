"""Secrets are hidden in reprs and removed from errors that quote them."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import trove_async
from trove_async._secrets import REDACTED, Headers, Redactor, Secret, disarmed
from trove_async.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "IQoJb3JpZ2luX2VjEJr/+/=" + "x" * 300


def redactor(*values: str) -> Redactor:
    redactor = Redactor()
    redactor.add(*values)
    return redactor


def test_secret_is_hidden_in_a_traceback_with_locals() -> None:
    def fail() -> None:
        secret = Secret(TOKEN)
        headers = Headers(authorization=TOKEN)
        raise ValueError(len(secret.reveal()), len(headers))

    with pytest.raises(ValueError, match="323") as caught:
        fail()
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(report.format())
    assert "authorization" in text
    assert TOKEN[:16] not in text


def test_secrets_of_equal_values_are_equal() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != "a"


@pytest.mark.parametrize(
    "quoted",
    [
        TOKEN,
        TOKEN.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D"),
        TOKEN[:100],  # a truncated message
    ],
)
def test_secret_is_removed_if_quoted_encoded_or_truncated(quoted: str) -> None:
    text = redactor(TOKEN).redacted(f"no such token: {quoted}, {quoted}!")
    assert text == f"no such token: {REDACTED}, {REDACTED}!"


def test_text_without_secrets_is_unchanged() -> None:
    text = "no such key: a/b/c"
    assert redactor(TOKEN, "short", "").redacted(text) is text


def test_password_of_a_url_is_a_secret() -> None:
    urls = Redactor()
    urls.add_urls("http://user%40corp:pass%2Fword1@proxy:3128")
    for quoted in ("pass%2Fword1", "pass/word1", "user@corp"):
        assert quoted not in urls.redacted(f"refused: {quoted}")
    urls.add_urls("http://proxy:3128")
    assert urls.redacted("proxy:3128") == "proxy:3128"


def test_permanent_values_and_the_latest_renewed_ones_are_removed() -> None:
    secrets = redactor("a-permanent-secret")
    for number in range(100):
        secrets.renew(f"{number:04}-token")
    assert secrets.redacted("0099-token and 0000-token") == f"{REDACTED} and 0000-token"
    assert secrets.redacted("a-permanent-secret") == REDACTED


def test_chained_exception_that_shows_a_secret_is_unlinked() -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("harmless")
            except KeyError as error:
                raise ValueError(f"date {TOKEN!r}") from error
        except ValueError as error:
            raise UnavailableError(f"the response is malformed: {TOKEN}") from error

    with pytest.raises(UnavailableError) as caught:
        fail()
    redactor(TOKEN).redact(caught.value)
    assert caught.value.message == f"the response is malformed: {REDACTED}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_chained_exception_without_secrets_stays() -> None:
    cause = ConnectionRefusedError(111, "refused")
    error = UnavailableError("no connection")
    error.__cause__ = error.__context__ = cause
    cause.__context__ = error  # a cycle
    redactor(TOKEN).redact(error)
    assert error.__cause__ is cause


def test_disarmed_exception_has_no_traceback_and_no_chain() -> None:
    with pytest.raises(ValueError, match="x") as caught:
        int("x")
    caught.value.__context__ = KeyError()
    error = disarmed(caught.value)
    assert error.__traceback__ is None
    assert (error.__context__, error.__cause__) == (None, None)


def test_frames_of_a_caller_keep_their_variables() -> None:
    local = "a variable of this test"
    with pytest.raises(UnavailableError) as caught:
        raise UnavailableError(local)
    redactor(TOKEN).redact(caught.value)
    assert caught.value.__traceback__ is not None
    assert caught.value.__traceback__.tb_frame.f_locals["local"] == local


def function_at(path: str) -> Callable[[Callable[[], None]], None]:
    """Return a function that calls its argument, compiled as if from a file at `path`."""
    code = "def call_argument(argument):\n    token = 'secret'\n    argument()\n"
    names: dict[str, Any] = {}
    exec(compile(code, path, "exec"), names)  # noqa: S102 - the code above
    function: Callable[[Callable[[], None]], None] = names["call_argument"]
    return function


def test_frames_of_drivers_and_their_libraries_lose_variables() -> None:
    package = Path(trove_async.__file__).parent
    engine = function_at(f"{package}/_engine.py")
    driver = function_at(f"{package}/drivers/cloud.py")
    sdk = function_at("/usr/lib/sdk.py")

    def fail() -> None:
        raise UnavailableError("failed")

    with pytest.raises(UnavailableError) as caught:
        engine(lambda: driver(lambda: sdk(lambda: engine(fail))))
    redactor(TOKEN).redact(caught.value)
    variables = [
        (Path(frame.f_code.co_filename).name, "token" in frame.f_locals)
        for frame, _ in traceback.walk_tb(caught.value.__traceback__)
        if frame.f_code.co_name == "call_argument"
    ]
    assert variables == [
        ("_engine.py", True),
        ("cloud.py", False),
        ("sdk.py", False),
        ("_engine.py", True),  # a frame of the package outside of drivers
    ]
