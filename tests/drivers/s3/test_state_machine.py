"""Random operations on a store over S3, compared with the same operations on a dict."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.drivers.s3.test_conformance import driver_of
from tests.test_state_machine import STORES, OpenStore, agree, routed, run_machine
from trove_async import Trove
from trove_async.drivers import LocalDriver
from trove_async.layers import Mapped
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trove_async.testing.servers import S3Server

SERVERS = {"moto": "moto_server", "seaweedfs": "seaweed"}


@pytest.fixture(params=SERVERS)
def run_on_s3(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Return a function that runs the state machine on one local and two S3 backends."""
    server: S3Server = request.getfixturevalue(SERVERS[request.param])

    async def create_bucket() -> None:
        async with Trove(driver_of(server)) as store:
            await store.create_bucket("machines", exist_ok=True)

    asyncio.run(create_bucket())

    def mapped_driver(directory: str, name: str) -> Mapped:
        # Each run has its own prefix, so that it does not list objects of an earlier run.
        driver = driver_of(server, checksums=request.param != "moto")
        return Mapped(driver, into="machines", prefix=f"{directory.strip('/')}/{name}")

    def make_stores(directory: str) -> OpenStore:
        return lambda middleware: routed(
            LocalDriver(f"{directory}/hot", fsync=False),
            mapped_driver(directory, "cold"),
            mapped_driver(directory, "third"),
            part_size=5 * MiB,
            middleware=middleware,
        )

    monkeypatch.setitem(STORES, "s3", make_stores)
    return lambda **limits: run_machine("s3", tmp_path, agree, **limits)


@pytest.mark.timeout(240)  # each step sends about 24 requests to check the invariants
def test_store_over_s3_matches_a_dict(run_on_s3: Callable[..., None]) -> None:
    run_on_s3(max_examples=5, stateful_step_count=15)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_store_over_s3_matches_a_dict_in_long_runs(run_on_s3: Callable[..., None]) -> None:
    run_on_s3(max_examples=200, stateful_step_count=60)
