"""Origins, and the table from aiohttp errors to ours. The drivers' tests cover the rest."""

from __future__ import annotations

import aiohttp
import pytest

from trove_async._http import Origin, translate_error
from trove_async._http.aiohttp_transport import _FAILURES, system_error
from trove_async.errors import ConfigError, TimedOutError, TroveError, UnavailableError


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://host", "host"),
        ("http://host:80/", "host"),
        ("https://host:443", "host"),
        ("https://host:80", "host:80"),
        ("http://127.0.0.1:9000", "127.0.0.1:9000"),
        ("http://[::1]:9000", "[::1]:9000"),
        ("http://[::1]:80", "[::1]"),
    ],
)
def test_authority_omits_default_port(url: str, authority: str) -> None:
    assert Origin.of(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "ftp://host",
        "http://",
        "http://h/path",
        "http://h?q",
        "http://u:p@h",
        "http://h:x",
    ],
)
def test_url_that_is_not_an_origin_is_rejected(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Origin.of(url)
    assert "u:p" not in str(caught.value)


def test_error_table_lists_subclasses_before_base_classes() -> None:
    kinds = [kind for kind, *_ in _FAILURES]
    for number, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:number]), kind


@pytest.mark.parametrize(
    ("error", "ours"),
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
def test_network_errors_are_retryable(error: Exception, ours: type[TroveError]) -> None:
    made = translate_error(error)
    assert type(made) is ours
    assert made.retryable


def test_proxy_password_is_not_in_cause() -> None:
    assert system_error(aiohttp.InvalidURL("http://user:secret@")) is None


def test_foreign_error_is_not_translated() -> None:
    assert translate_error(ZeroDivisionError()) is None
