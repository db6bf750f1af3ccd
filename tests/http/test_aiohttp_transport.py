"""The table of errors of aiohttp. The tests that run over both transports cover the rest."""

from __future__ import annotations

import aiohttp
import pytest

from trove_async._http import translate_error
from trove_async._http.aiohttp_transport import _ERRORS, system_error
from trove_async.errors import TimedOutError, TroveError, UnavailableError


def test_error_table_lists_subclasses_before_base_classes() -> None:
    kinds = [kind for kind, *_ in _ERRORS]
    for number, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:number]), kind


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (aiohttp.ServerDisconnectedError(), UnavailableError),
        (aiohttp.ClientOSError(104, "reset"), UnavailableError),
        (aiohttp.ClientPayloadError("short"), UnavailableError),
        (aiohttp.SocketTimeoutError("slow"), TimedOutError),
        (aiohttp.ConnectionTimeoutError("slow"), TimedOutError),
        (TimeoutError(), TimedOutError),
        (ConnectionResetError(), UnavailableError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_network_errors_are_retryable(error: Exception, error_class: type[TroveError]) -> None:
    translated = translate_error(error)
    assert type(translated) is error_class
    assert translated.retryable


def test_proxy_password_is_not_in_cause() -> None:
    assert system_error(aiohttp.InvalidURL("http://user:secret@")) is None


def test_foreign_error_is_not_translated() -> None:
    assert translate_error(ZeroDivisionError()) is None
