"""A test run ends even if a test or its fixture hangs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

STUCK = """
import asyncio
import pytest_asyncio

@pytest_asyncio.fixture
async def stuck():
    yield
    await asyncio.Event().wait()

async def test_hangs_and_so_does_its_fixture(stuck):
    await asyncio.Event().wait()
"""

SPINS = """
import asyncio

async def test_spins_the_event_loop():
    def spin():
        for _ in range(100_000):
            pass
        asyncio.get_running_loop().call_soon(spin)
    spin()
    await asyncio.Event().wait()
"""


@pytest.mark.parametrize(
    ("program", "output"),
    [(STUCK, "1 failed, 1 error"), (SPINS, "Timeout (0:00:03)!")],
    ids=["stuck", "spins"],
)
def test_run_ends_if_a_test_hangs(
    tmp_path: Path, request: pytest.FixtureRequest, program: str, output: str
) -> None:
    tmp_path.joinpath("conftest.py").write_text(
        "from tests.conftest import pytest_runtest_teardown"
    )
    tmp_path.joinpath("test_hanging.py").write_text(program)
    settings = request.config.rootpath / "pyproject.toml"
    result = subprocess.run(  # noqa: S603 - runs the tests above
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            settings,
            "--rootdir",
            tmp_path,
            "-p",
            "no:xdist",
            "-p",
            "no:cacheprovider",
            "--timeout=1",
            "-o",
            "faulthandler_timeout=3",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=request.config.rootpath,
    )
    assert result.returncode == 1
    assert output in result.stdout + result.stderr
