"""What holds for every test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

from trove_async.testing import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trove_async.testing.servers import GCSServer, S3Server


@pytest.fixture(scope="session", autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """Make every call that blocks raise, if it is made on a loop and below one of our frames."""
    with blockbuster_ctx("trove_async", excluded_modules=["trove_async.testing"]) as guard:
        # Joins a thread whose one call has been awaited: it has nothing left to do but to end.
        guard.functions["threading.Lock.acquire"].can_block_in("local/_threads.py", "aclose")
        # The SDK, on a loop that a worker thread runs for it alone.
        for function in guard.functions.values():
            function.can_block_in("s3/_session.py", "_run")
        yield


@pytest.fixture(scope="session")
def seaweed() -> Iterator[S3Server]:
    """Run a SeaweedFS for all tests of this process. Without one they fail."""
    with servers.seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """Run a moto for all tests of this process. Without one they fail."""
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[GCSServer]:
    """Run a fake-gcs-server for all tests of this process. Without one they fail."""
    with servers.fake_gcs() as server:
        yield server
