"""Several processes on one root, and the roots of killed processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trove_async.errors import ObjectExistsError
from trove_async.options import GetOptions, Part, PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]

WORKER = Path(__file__).with_name("worker.py")
pytestmark = pytest.mark.timeout(180)  # a test may start dozens of interpreters, on a slow machine

EACH_LOCK = pytest.mark.parametrize("ofd_locks", [True, False], ids=["ofd", "flock"])


async def run_workload(name: str, root: Path, **arguments: Any) -> Any:
    """Run one workload of `worker.py` in a new process. Return its result."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(WORKER),
        name,
        str(root),
        json.dumps(arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:  # another workload has failed
            process.kill()
            await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output.splitlines()[-1])


async def run_workloads(workloads: list[tuple[str, Path, dict[str, Any]]]) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(run_workload(name, root, **arguments))
            for name, root, arguments in workloads
        ]
    return [task.result() for task in tasks]


@EACH_LOCK
async def test_only_one_of_many_processes_creates_a_key(
    client: BucketClient, *, ofd_locks: bool
) -> None:
    keys = ["k", "d/k", "dir/", "d", "k/below"] * 4
    settings = {"ofd_locks": ofd_locks}
    created = await run_workloads(
        [("create", client.root, {"keys": keys, "settings": settings})] * 6
    )
    assert sorted(key for keys_of_process in created for key in keys_of_process) == sorted(
        set(keys)
    )


async def test_only_one_of_many_tasks_creates_a_key(client: BucketClient) -> None:
    async def create(number: int) -> bool:
        try:
            await client.put("k", str(number).encode(), if_none_match="*")
        except ObjectExistsError:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(create(number)) for number in range(12)]
    (creator,) = [number for number, task in enumerate(tasks) if task.result()]
    assert await client.read("k") == str(creator).encode()


@EACH_LOCK
@pytest.mark.parametrize("key", ["n", "dir/"])
async def test_compare_and_swap_loses_no_increment(
    client: BucketClient, key: str, *, ofd_locks: bool
) -> None:
    await client.put(key, b"0")
    arguments = {"key": key, "times": 60, "settings": {"ofd_locks": ofd_locks}}
    await run_workloads([("increment", client.root, arguments)] * 3)
    assert await client.read(key) == b"180"


@pytest.mark.parametrize("xattrs", [True, False])
async def test_concurrent_puts_of_conflicting_paths_leave_complete_objects(
    tmp_path: Path, open_client: OpenClient, *, xattrs: bool
) -> None:
    async with open_client(tmp_path) as client:
        settings = {"xattrs": xattrs}
        await run_workloads(
            [
                ("conflict", tmp_path, {"seed": seed, "rounds": 400, "settings": settings})
                for seed in range(3)
            ]
        )
        keys = await client.keys()
        assert keys == sorted(set(keys))
        for key in keys:
            async with client.driver.get("b", key, GetOptions()) as reader:
                assert reader.info.key == key


async def test_existing_key_is_always_found_and_listed(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with open_client(tmp_path) as client:
        await client.put("p", b"a file where others need a directory")
    # The "replace" workloads assert that their keys are found and listed.
    await run_workloads(
        [("replace", tmp_path, {"key": key, "rounds": 150}) for key in ["p/q", "p/q/r", "s/t"]]
        + [("conflict", tmp_path, {"seed": 9, "rounds": 300})]
    )


async def test_bucket_with_an_acknowledged_put_is_not_deleted(client: BucketClient) -> None:
    results = await run_workloads(
        [("delete_and_create_bucket", client.root, {"rounds": 500})]
        + [
            ("put_into_bucket", client.root, {"key": key, "rounds": 500})
            for key in ["k", "d/e", "dir/"]
        ]
    )
    # The "put_into_bucket" workloads assert that no object is lost.
    assert all(results)  # every workload succeeded at least once


async def test_second_driver_keeps_the_staged_files_of_the_first(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with (
        open_client(tmp_path) as client,
        client.driver.upload("b", "k", PutOptions()) as upload,
    ):
        await upload.send(Part(number=1, offset=0, size=1, last=True), [memoryview(b"x")])
        async with open_client(tmp_path):
            pass
        await run_workload("create", tmp_path, keys=[])
        await upload.commit({})
        assert await client.read("k") == b"x"


async def test_staged_files_of_dead_processes_are_removed(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with open_client(tmp_path):
        pass
    staging = tmp_path / ".trove/staging"
    (staging / "dead").mkdir()
    (staging / "dead/0").write_bytes(b"half")
    (staging / "dead.lock").write_bytes(b"")
    (staging / "without-lock").mkdir()
    (staging / "without-lock/0").write_bytes(b"half")
    (staging / "without-directory.lock").write_bytes(b"")
    status = (staging / "dead/0").stat()
    sidecar = tmp_path / f".trove/meta/{status.st_mtime_ns}-{status.st_size}"
    sidecar.write_bytes(b"of a staged file")
    async with open_client(tmp_path):
        assert not sidecar.exists()
    assert list(staging.iterdir()) == []


ALL_SETTINGS = pytest.mark.parametrize(
    "settings",
    [{"fsync": False}, {"fsync": False, "xattrs": False}, {"fsync": True}],
    ids=["xattrs", "sidecars", "fsync"],
)


@ALL_SETTINGS
async def test_kill_at_any_moment_leaves_old_or_new_object(tmp_path: Path, settings: Any) -> None:
    await run_workload("kill", tmp_path, kills=100, seed=1, settings=settings)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@ALL_SETTINGS
@pytest.mark.parametrize("seed", range(2, 6))
async def test_thousands_of_kills_leave_old_or_new_object(
    tmp_path: Path, settings: Any, seed: int
) -> None:
    await run_workload("kill", tmp_path, kills=1000, seed=seed, settings=settings)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@ALL_SETTINGS
async def test_kill_at_each_system_call_leaves_old_or_new_object(
    tmp_path: Path, settings: Any
) -> None:
    assert shutil.which("strace"), "this test kills processes with strace: install it"
    prepared = tmp_path / "prepared"
    await run_workload("prepare", prepared, settings=settings)
    for call in [
        "pwritev",
        "utimensat",
        "fsetxattr",
        "write",
        "fsync",
        "fcntl",
        "openat2",
        "mkdirat",
        "renameat",
        "unlinkat",
        "linkat",
    ]:
        for number in range(1, 1000):
            root = tmp_path / f"{call}-{number}"
            shutil.copytree(prepared, root)
            inject = f"inject={call}:signal=KILL:when={number}"
            process = await asyncio.create_subprocess_exec(
                "strace",
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                inject,
                sys.executable,
                str(WORKER),
                "put_once",
                str(root),
                json.dumps({"settings": settings}),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=asyncio.subprocess.DEVNULL,
            )
            killed = await process.wait() != 0
            await run_workload("check_once", root, settings=settings)
            shutil.rmtree(root)
            if not killed:
                break
