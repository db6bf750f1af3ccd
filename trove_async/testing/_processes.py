"""Child processes that end with the process that started them, however that one ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

SOCKETS = Path("/tmp")  # noqa: S108 - where SeaweedFS makes them, whatever TMPDIR says


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start_process(
    stack: ExitStack,
    command: Sequence[str],
    directory: Path,
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    litter: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that is killed when the stack is left, or when this process dies.

    Args:
        stack: What ends it.
        command: Its command line.
        directory: Where it runs, and its home. It is removed if this process dies.
        log: Gets its output.
        environment: Set for it beside this process's own.
        litter: Patterns of what it leaves in `SOCKETS`.
    """
    own = {**(environment or {}), "HOME": str(directory), "TMPDIR": str(directory)}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - a program that its package installed
            command,
            cwd=directory,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    stack.callback(_stop, process)
    stack.callback(_stop, _watchdog(process, directory, litter))
    return process


def clear(directory: Path, litter: Sequence[str] = ()) -> None:
    """Remove what processes have left."""
    shutil.rmtree(directory, ignore_errors=True)
    for pattern in litter:
        for path in SOCKETS.glob(pattern):
            path.unlink(missing_ok=True)


def _watchdog(
    server: subprocess.Popen[bytes], directory: Path, litter: Sequence[str]
) -> subprocess.Popen[bytes]:
    """Start what ends the server, and what it leaves, when this process dies without a word.

    It reads a pipe that only this process writes to: the end of it is the end of this process.
    """
    return subprocess.Popen(  # noqa: S603 - a fixed script
        [
            "/bin/sh",
            "-c",
            'read -r _; kill -KILL "$1"; rm -rf -- "$2"; cd "$3" && shift 3 && rm -f -- $*',
            "watchdog",
            str(server.pid),
            str(directory),
            str(SOCKETS),
            *litter,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt from the keyboard is not for it
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # what it stored goes with it: there is nothing to put in order
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
