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
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Transport]]:
    transports: list[Transport] = []

    def make_transport(timeout: Timeout = LONG_TIMEOUTS) -> Transport:
        transports.append(TRANSPORTS[request.param](timeout))
        return transports[-1]

    yield make_transport
    for transport in transports:
        await transport.aclose()


@pytest.fixture
async def transport(make: Callable[..., Transport]) -> Transport:
    return make()


@pytest.fixture
async def impatient(make: Callable[..., Transport]) -> Transport:
    """Return a transport with short timeouts, for servers that stall."""
    return make(SHORT_TIMEOUTS)
