"""Transport fixtures, parametrized over both implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.peers import PATIENT, QUICK, TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trove_async._http import Transport
    from trove_async.models import Timeout


@pytest.fixture(params=TRANSPORTS)
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Transport]]:
    made: list[Transport] = []

    def one(timeout: Timeout = PATIENT) -> Transport:
        made.append(TRANSPORTS[request.param](timeout))
        return made[-1]

    yield one
    for transport in made:
        await transport.aclose()


@pytest.fixture
async def transport(make: Callable[..., Transport]) -> Transport:
    return make()


@pytest.fixture
async def impatient(make: Callable[..., Transport]) -> Transport:
    """Return a transport with short timeouts, for servers that stall."""
    return make(QUICK)
