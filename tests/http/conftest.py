"""Transport fixtures, parametrized over both implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.scripted_server import LONG_TIMEOUTS, SHORT_TIMEOUTS, TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trove_async._http import Transport
    from trove_async.models import Timeout


@pytest.fixture(params=TRANSPORTS)
async def make_transport(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Transport]]:
    transports: list[Transport] = []

    def make(timeout: Timeout = LONG_TIMEOUTS) -> Transport:
        transports.append(TRANSPORTS[request.param](timeout))
        return transports[-1]

    yield make
    for transport in transports:
        await transport.aclose()


@pytest.fixture
async def transport(make_transport: Callable[..., Transport]) -> Transport:
    return make_transport()


@pytest.fixture
async def impatient(make_transport: Callable[..., Transport]) -> Transport:
    """Return a transport with short timeouts, for servers that stall."""
    return make_transport(SHORT_TIMEOUTS)
