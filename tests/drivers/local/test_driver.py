"""The arguments of a driver, and how it is opened and closed."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.local.system_calls import Gate
from trove_async.driver import DriverContext
from trove_async.drivers.local import LocalDriver
from trove_async.errors import BackendError, ClosedError, ConfigError, NotSupportedError
from trove_async.models import MiB
from trove_async.options import DeleteOptions, GetOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]


@pytest.mark.parametrize(
    "settings",
    [{"threads": 0}, {"max_reads": 0}, {"file_mode": 0o444}, {"dir_mode": 0o600}, {"root": ""}],
)
def test_constructor_rejects_invalid_settings(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LocalDriver(**({"root": "/x"} | settings))  # type: ignore[arg-type] # the types of the settings differ
    with pytest.raises(TypeError):
        LocalDriver(b"/x")  # type: ignore[arg-type] # the wrong type


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("threads", "3", "an int, got str"),
        ("max_reads", 1.5, "an int, got float"),
        ("file_mode", "0640", "an int, got str"),
        ("dir_mode", "0750", "an int, got str"),
        ("fsync", "no", "a bool, got str"),
        ("mkdir", 0, "a bool, got int"),
    ],
)
def test_setting_of_a_wrong_type_raises_type_error(setting: str, value: Any, problem: str) -> None:
    with pytest.raises(TypeError, match=f"{setting} must be {problem}"):
        LocalDriver("objects", **{setting: value})


async def test_driver_cannot_be_opened_twice(client: BucketClient) -> None:
    with pytest.raises(ClosedError):
        await client.driver.open(DriverContext.__new__(DriverContext))


async def test_ping_fails_if_the_root_was_removed(client: BucketClient) -> None:
    await client.driver.ping()
    moved = client.root.with_name("moved")
    client.root.rename(moved)
    with pytest.raises(BackendError, match="removed"):
        await client.driver.ping()
    moved.rename(client.root)


async def test_version_id_is_not_supported(client: BucketClient) -> None:
    await client.put("k")
    with pytest.raises(NotSupportedError):
        await client.driver.head("b", "k", "v1")
    with pytest.raises(NotSupportedError):
        await client.read("k", version_id="v1")
    with pytest.raises(NotSupportedError):
        await client.driver.delete("b", "k", DeleteOptions(version_id="v1"))


async def test_driver_that_is_not_open_raises_closed_error(
    tmp_path: Path, open_client: OpenClient
) -> None:
    unopened = LocalDriver(tmp_path)
    with pytest.raises(ClosedError):
        await unopened.ping()
    await unopened.aclose()
    async with open_client(tmp_path) as client:
        await client.put("k")
    await client.driver.aclose()
    with pytest.raises(ClosedError):
        await client.driver.head("b", "k")
    with pytest.raises(ClosedError):
        client.driver.get("b", "k", GetOptions())
    assert set(os.listdir(tmp_path)) == {".trove", "b"}  # noqa: PTH208 - shorter
    assert client.own_files() == []


async def test_reader_of_a_closed_driver_closes_its_file(
    tmp_path: Path, open_client: OpenClient, count_open_files: Callable[[], int]
) -> None:
    before = count_open_files()
    async with open_client(tmp_path) as client:
        await client.put("big", bytes(MiB))
        context = client.driver.get("b", "big", GetOptions())
        reader = await context.__aenter__()
    with pytest.raises(ClosedError):
        await reader.read(10)
    await context.__aexit__(None, None, None)
    assert count_open_files() == before


@pytest.mark.parametrize("fsync", [True, False])
async def test_close_waits_for_calls_in_flight(
    tmp_path: Path,
    open_client: Callable[..., AbstractAsyncContextManager[BucketClient]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    fsync: bool,
) -> None:
    gate = Gate(os.utime)
    monkeypatch.setattr(os, "utime", gate)
    async with open_client(tmp_path, fsync=fsync) as client, asyncio.TaskGroup() as group:
        put = group.create_task(client.put("k", b"body"))
        await asyncio.get_running_loop().run_in_executor(None, gate.reached.wait, 10)
        close = group.create_task(client.driver.aclose())
        for _ in range(100):
            await asyncio.sleep(0)
        gate.opened.set()
        await close
        assert (await put).size == 4
    assert (tmp_path / "b" / "k").read_bytes() == b"body"
