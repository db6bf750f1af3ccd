"""Blocking stores for tests, and scripts that run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import IMMEDIATE_RETRIES, Fake, small_pool
from trove_async import blocking
from trove_async.blocking import _loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make new stores use a loop thread of one kind. Each kind is started once."""
    kind: str = request.param
    if kind == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.setattr(_loop, "_current", loop_threads.get(kind))
    loop_threads[kind] = _loop.loop_thread()
    return kind


loop_threads: dict[str, _loop.LoopThread] = {}


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def store(fake: Fake, loop_kind: str) -> Iterator[blocking.Trove]:
    assert loop_kind in type(_loop.loop_thread()._loop).__module__
    with blocking.Trove(fake, pool=small_pool(), retry=IMMEDIATE_RETRIES) as store:
        store.create_bucket("data")
        yield store


@pytest.fixture
def run_script(loop_kind: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a script in a process of its own, and fails if it hangs."""

    prefix = "import sys; sys.modules['uvloop'] = None\n" if loop_kind == "asyncio" else ""

    def run(script: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(  # noqa: S603 - a script of a test
            [sys.executable, "-X", "faulthandler", "-c", prefix + script, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
            **options,
        )

    return run
