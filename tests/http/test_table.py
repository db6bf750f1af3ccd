"""The transport's own: origins, and what aiohttp's failures are here. The rest the drivers' tests show."""

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
def test_origin_names_a_port_that_is_not_its_scheme_s(url: str, authority: str) -> None:
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
def test_more_or_less_than_an_origin_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Origin.of(url)
    assert "u:p" not in str(caught.value)


def test_no_failure_is_hidden_behind_another() -> None:
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
def test_failures_of_the_network_may_be_tried_again(
    error: Exception, ours: type[TroveError]
) -> None:
    made = translate_error(error)
    assert type(made) is ours
    assert made.retryable


def test_password_of_a_proxy_is_not_shown_behind_an_error() -> None:
    assert system_error(aiohttp.InvalidURL("http://user:secret@")) is None


def test_what_is_not_aiohttp_s_is_left_alone() -> None:
    assert translate_error(ZeroDivisionError()) is None
