"""A store over a fake backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes import Fake, assert_idle, store_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async import Trove


@pytest.fixture
async def fake() -> Fake:
    return Fake()


@pytest.fixture
async def store(fake: Fake) -> AsyncIterator[Trove]:
    """Return a store with the bucket ``files``. Assert that the test leaves no resources open."""
    async with store_of(fake) as opened:
        await opened.create_bucket("files")
        yield opened
        assert_idle(opened, fake)
