"""What holds for every test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """Make every call that blocks raise, if it is made on a loop and below one of our frames."""
    with blockbuster_ctx("trove_async", excluded_modules=["trove_async.testing"]) as guard:
        # Joins a thread whose one call has been awaited: it has nothing left to do but to end.
        guard.functions["threading.Lock.acquire"].can_block_in("local/_threads.py", "aclose")
        yield
