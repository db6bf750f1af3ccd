"""Secrets are hidden where they are held, and removed from what quotes them."""

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
    made = Redactor()
    made.add(*values)
    return made


def test_secret_is_hidden_in_a_traceback_with_locals() -> None:
    def fail() -> None:
        held = Secret(TOKEN)
        headers = Headers(authorization=TOKEN)
        raise ValueError(len(held.reveal()), len(headers))

    with pytest.raises(ValueError, match="323") as caught:
        fail()
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(told.format())
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
        TOKEN[:100],  # a message is cut
    ],
)
def test_secret_is_removed_however_it_is_quoted(quoted: str) -> None:
    text = redactor(TOKEN).redacted(f"no such token: {quoted}, {quoted}!")
    assert text == f"no such token: {REDACTED}, {REDACTED}!"


def test_text_without_secrets_is_left_alone() -> None:
    text = "no such key: a/b/c"
    assert redactor(TOKEN, "short", "").redacted(text) is text


def test_password_of_a_url_is_a_secret() -> None:
    made = Redactor()
    made.add_urls("http://user%40corp:pass%2Fword1@proxy:3128")
    for quoted in ("pass%2Fword1", "pass/word1", "user@corp"):
        assert quoted not in made.redacted(f"refused: {quoted}")
    made.add_urls("http://proxy:3128")
    assert made.redacted("proxy:3128") == "proxy:3128"


def test_only_the_latest_of_renewed_values_are_remembered_and_others_for_good() -> None:
    made = redactor("a-secret-for-good")
    for number in range(100):
        made.renew(f"{number:04}-token")
    assert made.redacted("0099-token and 0000-token") == f"{REDACTED} and 0000-token"
    assert made.redacted("a-secret-for-good") == REDACTED


def test_chained_exception_that_shows_a_secret_is_cut_off() -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("harmless")
            except KeyError as error:
                raise ValueError(f"date {TOKEN!r}") from error
        except ValueError as error:
            raise UnavailableError(f"the response makes no sense: {TOKEN}") from error

    with pytest.raises(UnavailableError) as caught:
        fail()
    redactor(TOKEN).redact(caught.value)
    assert caught.value.message == f"the response makes no sense: {REDACTED}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_chained_exception_that_shows_none_stays() -> None:
    cause = ConnectionRefusedError(111, "refused")
    error = UnavailableError("no connection")
    error.__cause__ = error.__context__ = cause
    cause.__context__ = error  # a cycle
    redactor(TOKEN).redact(error)
    assert error.__cause__ is cause


def test_disarmed_exception_shows_no_frames_of_its_library() -> None:
    with pytest.raises(ValueError, match="x") as caught:
        int("x")
    caught.value.__context__ = KeyError()
    error = disarmed(caught.value)
    assert error.__traceback__ is None
    assert (error.__context__, error.__cause__) == (None, None)


def test_frames_of_a_caller_keep_their_variables() -> None:
    kept = "of this test"
    with pytest.raises(UnavailableError) as caught:
        raise UnavailableError(kept)
    redactor(TOKEN).redact(caught.value)
    assert caught.value.__traceback__ is not None
    assert caught.value.__traceback__.tb_frame.f_locals["kept"] == kept


def placed(path: str) -> Callable[[Callable[[], None]], None]:
    """Return a function that calls another, as if its code lay at a path."""
    names: dict[str, Any] = {}
    exec(compile("def work(call):\n    token = 'held'\n    call()\n", path, "exec"), names)  # noqa: S102 - of this test
    work: Callable[[Callable[[], None]], None] = names["work"]
    return work


def test_frames_of_drivers_and_of_what_they_call_lose_their_variables() -> None:
    package = Path(trove_async.__file__).parent
    engine = placed(f"{package}/_engine.py")
    driver = placed(f"{package}/drivers/cloud.py")
    sdk = placed("/usr/lib/sdk.py")

    def fail() -> None:
        raise UnavailableError("failed")

    with pytest.raises(UnavailableError) as caught:
        engine(lambda: driver(lambda: sdk(lambda: engine(fail))))
    redactor(TOKEN).redact(caught.value)
    held = [
        (Path(frame.f_code.co_filename).name, "token" in frame.f_locals)
        for frame, _ in traceback.walk_tb(caught.value.__traceback__)
        if frame.f_code.co_name == "work"
    ]
    assert held == [
        ("_engine.py", True),
        ("cloud.py", False),
        ("sdk.py", False),
        ("_engine.py", True),  # it may have caught the error earlier, and go on
    ]
