"""Errors and timeouts specific to `AiohttpTransport`."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from trove_async._http import WINDOW
from trove_async._http.aiohttp_transport import _ERRORS, _Body, system_error, translate_error
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


class StalledWriter:
    """A writer of aiohttp whose socket accepts no bytes."""

    transport = None

    async def write(self, _chunk: memoryview) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("size", [1, WINDOW, WINDOW + 1])
async def test_stalled_write_of_body_times_out(size: int) -> None:
    writer: Any = StalledWriter()
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            await _Body([memoryview(bytes(size))], 0.01).write(writer)


def test_foreign_error_is_not_translated() -> None:
    assert translate_error(ZeroDivisionError()) is None
