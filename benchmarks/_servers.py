"""Runs servers for benchmarks in processes of their own."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
LISTED_KEYS = 10_000
RATE = 40e6  # bytes per second and connection of a slow link
ROUND_TRIP = 0.020  # seconds


@contextmanager
def running(command: Sequence[str], core: int | None = None) -> Iterator[int]:
    """Run a server that prints its port, and stops when its input ends. Yield the port.

    Args:
        command: The command.
        core: The only core that the server may use. None: any.
    """
    with subprocess.Popen(  # noqa: S603 - the servers in this folder
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None  # noqa: S101 - it is a pipe
        port = int(server.stdout.readline())
        if core is not None:
            os.sched_setaffinity(server.pid, {core})
        yield port
        server.communicate()


def script(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a Python script of this folder."""
    return [sys.executable, str(HERE / name), *arguments]


@contextmanager
def discarding_server(core: int | None = None, listed_keys: int = LISTED_KEYS) -> Iterator[int]:
    """Run the server that discards bodies and serves zeros. Yield its port.

    It is the C program if that can be compiled here, else the Python program, which speaks only S3.

    Args:
        core: The only core that the server may use. None: any.
        listed_keys: The number of keys below ``listed/``, at most 1,000,000.
    """
    program = _compiled()
    command = script("_s3_discarding_server.py") if program is None else [program]
    with running([*command, str(listed_keys)], core) as port:
        yield port


@contextmanager
def slow_server() -> Iterator[int]:
    """Run the C server with connections as slow as those to a distant service. Yield its port."""
    program = _compiled()
    assert program is not None, "call `can_run_slow_server` first"  # noqa: S101
    with running([program, str(LISTED_KEYS), str(RATE), str(ROUND_TRIP)]) as port:
        yield port


def can_run_slow_server() -> bool:
    """Return whether `slow_server` can run: only the C program throttles without being the bottleneck."""
    return _compiled() is not None


def discarding_server_language() -> str:
    """Return the language of the server that `discarding_server` runs: "C" or "Python"."""
    return "Python" if _compiled() is None else "C"


@functools.cache
def _compiled() -> str | None:
    """Compile the C program; return its path. None: there is no C compiler, or no Linux."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = _folder().name + "/discarding-server"
    source = str(HERE / "_discarding_server.c")
    run = subprocess.run(  # noqa: S603 - compiles a file of this folder
        [compiler, "-O2", "-o", program, source], check=False, stderr=subprocess.DEVNULL
    )
    return program if run.returncode == 0 else None


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of compiled programs. It is removed when this process ends."""
    return tempfile.TemporaryDirectory(prefix="trove-async-")
