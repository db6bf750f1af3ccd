"""Stores that the workers of the Dask tests open. Worker processes import this module."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from trove_async import Trove, UnavailableError
from trove_async.drivers import LocalDriver

if TYPE_CHECKING:
    from trove_async.driver import DriverContext

CANARY = "canary-0f2a8c61d5"


def open_broken() -> Trove:
    raise ValueError(f"cannot use the password {CANARY}")


def open_and_die() -> Trove:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def open_sometimes(root: str, failures: str) -> Trove:
    return Trove(
        _SometimesDown(f"{root}/hot", Path(failures)),
        backends={"cold": LocalDriver(f"{root}/cold")},
        routes=[("*/*.log", "cold")],
    )


class _SometimesDown(LocalDriver):
    """A local backend that cannot be opened as long as there are files in a directory. Each attempt removes one."""

    def __init__(self, root: str, failures: Path) -> None:
        super().__init__(root)
        self._failures = failures

    async def open(self, context: DriverContext) -> None:
        left = sorted(self._failures.iterdir())
        if left:
            left[0].unlink(missing_ok=True)
            raise UnavailableError("the backend is being restarted")
        await super().open(context)
