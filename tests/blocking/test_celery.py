"""Celery's prefork workers start a store in worker_process_init and close it in worker_process_shutdown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trove_async import blocking
from trove_async.drivers import LocalDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

TASKS = """
import os
import time
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_process_init, worker_process_shutdown
from trove_async import blocking

directory = os.environ["TROVE_TEST_DIRECTORY"]
app = Celery("tasks", broker="filesystem://", backend=f"file://{directory}/results")
app.conf.broker_transport_options = {
    "data_folder_in": f"{directory}/queue",
    "data_folder_out": f"{directory}/queue",
    "control_folder": f"{directory}/control",
    "processed_folder": f"{directory}/processed",
}

store = blocking.Trove(f"file://{directory}/objects")  # not started before the workers fork


@worker_process_init.connect
def start_store(**_):
    store.start()


@worker_process_shutdown.connect
def close_store(**_):
    store.close()
    with open(f"{directory}/closed", "a") as file:
        file.write(f"{os.getpid()}\\n")


@app.task
def put(key, text):
    store.put("data", key, text.encode())
    return store.read("data", key).decode(), os.getpid()


@app.task(soft_time_limit=1)
def put_for_ever(key):
    def pieces():
        while True:
            time.sleep(0.01)
            yield b"more"

    try:
        store.put("data", key, pieces())
    except SoftTimeLimitExceeded:
        return "stopped", store.exists("data", key)
    return "ended", True
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("queue", "control", "processed", "results", "objects"):
        (tmp_path / name).mkdir()
    (tmp_path / "tasks.py").write_text(TASKS)
    with blocking.Trove(LocalDriver(tmp_path / "objects")) as store:
        store.create_bucket("data")
    return tmp_path


@pytest.fixture
def environment(directory: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{directory}",
        "TROVE_TEST_DIRECTORY": str(directory),
    }


@pytest.fixture
def worker(directory: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker with two child processes."""
    command = [
        *(sys.executable, "-m", "celery", "--app=tasks", "worker", "--pool=prefork"),
        *("--concurrency=2", "--loglevel=INFO", "--without-gossip", "--without-mingle"),
    ]
    with (
        (directory / "worker.log").open("wb") as log,
        subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=directory, env=environment, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        yield process
        if process.poll() is None:
            process.kill()


CLIENT = """
import tasks
results = [tasks.put.delay(f"key{number}", f"text {number}") for number in range(20)]
values = [result.get(timeout=40) for result in results]
assert [value[0] for value in values] == [f"text {number}" for number in range(20)], values
stopped = tasks.put_for_ever.delay("endless").get(timeout=40)
assert stopped == ["stopped", False], stopped
after = tasks.put.delay("after", "text").get(timeout=40)
assert after[0] == "text"
print(len({value[1] for value in values}))
"""


def test_prefork_worker_starts_and_closes_a_store_in_each_process(
    directory: Path, environment: dict[str, str], worker: subprocess.Popen[bytes]
) -> None:
    client = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", CLIENT],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    log = (directory / "worker.log").read_text()
    assert client.returncode == 0, client.stderr + log
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 0, log
    assert len(set((directory / "closed").read_text().split())) == 2
    with blocking.Trove(LocalDriver(directory / "objects")) as store:
        keys = [entry.key for entry in store.list("data")]
    assert keys == sorted([*(f"key{number}" for number in range(20)), "after"])
