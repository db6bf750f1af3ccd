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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def store(fake: Fake) -> Iterator[blocking.Trove]:
    with blocking.Trove(fake, pool=small_pool(), retry=IMMEDIATE_RETRIES) as store:
        store.create_bucket("data")
        yield store


@pytest.fixture
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a script in a process of its own, and fails if it hangs."""

    def run(script: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(  # noqa: S603 - a script of a test
            [sys.executable, "-X", "faulthandler", "-c", script, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
            **options,
        )

    return run
