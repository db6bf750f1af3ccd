"""Random operations on a store over S3, each compared with what a dict would do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.drivers.s3.test_conformance import driver_of
from tests.test_state_machine import STORES, agree, routed, run_machine
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
def play(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Return what plays on a store of a local backend and two in one bucket of a real server."""
    server: S3Server = request.getfixturevalue(SERVERS[request.param])

    async def make_bucket() -> None:
        async with Trove(driver_of(server)) as store:
            await store.create_bucket("machines", exist_ok=True)

    asyncio.run(make_bucket())

    def boxed(run: str, name: str) -> Mapped:
        # What an earlier run left is not seen: each has a prefix of its own.
        driver = driver_of(server, checksums=request.param != "moto")
        return Mapped(driver, into="machines", prefix=f"{run.strip('/')}/{name}")

    def store(run: str) -> Trove:
        hot = LocalDriver(f"{run}/hot", fsync=False)
        return routed(hot, boxed(run, "cold"), boxed(run, "third"), part_size=5 * MiB)

    monkeypatch.setitem(STORES, "s3", store)
    return lambda **limits: run_machine("s3", tmp_path, agree, **limits)


@pytest.mark.timeout(240)  # each invariant is some two dozen requests, after every step
def test_store_over_s3_does_what_a_dict_does(play: Callable[..., None]) -> None:
    play(max_examples=5, stateful_step_count=15)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_store_over_s3_does_what_a_dict_does_for_long(play: Callable[..., None]) -> None:
    play(max_examples=200, stateful_step_count=60)
