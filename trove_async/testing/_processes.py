"""Child processes that end when their parent process ends, even if it is killed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

SOCKET_DIRECTORY = Path("/tmp")  # noqa: S108 - SeaweedFS creates its sockets here, not in TMPDIR


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback interface.

    Another process may bind one of them before the caller does.
    """
    with ExitStack() as stack:
        # All sockets are open at the same time, so no port is returned twice.
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]


def start_process(
    stack: ExitStack,
    command: Sequence[str],
    directory: Path,
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    socket_patterns: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that is killed when the stack is closed or when this process dies.

    Args:
        stack: Kills the process when the stack is closed.
        command: The command line.
        directory: The working directory, and the value of ``HOME`` and ``TMPDIR``. It is removed if
            this process dies.
        log: The file for its standard output and standard error.
        environment: Variables to set in addition to those of this process.
        socket_patterns: Glob patterns of the sockets that the process leaves in `SOCKET_DIRECTORY`.
    """
    variables = {**(environment or {}), "HOME": str(directory), "TMPDIR": str(directory)}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - a program that its package installed
            command,
            cwd=directory,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    stack.callback(_stop, process)
    # Registered last, so the watchdog is stopped first. Otherwise it could kill a different process
    # that has received the same id.
    stack.callback(_stop, _start_watchdog(process, directory, socket_patterns))
    return process


def clear(directory: Path, socket_patterns: Sequence[str] = ()) -> None:
    """Remove the directory, and the files in `SOCKET_DIRECTORY` that match one of the patterns."""
    shutil.rmtree(directory, ignore_errors=True)
    for pattern in socket_patterns:
        for path in SOCKET_DIRECTORY.glob(pattern):
            path.unlink(missing_ok=True)


def _start_watchdog(
    server: subprocess.Popen[bytes], directory: Path, socket_patterns: Sequence[str]
) -> subprocess.Popen[bytes]:
    """Start a shell that kills the server and removes its files when this process dies.

    The shell reads from a pipe, and only this process holds the write end. However this process
    dies, the kernel closes the write end, and the read returns.
    """
    # $* is not quoted, so that the shell expands the glob patterns.
    return subprocess.Popen(  # noqa: S603 - a fixed script
        [
            "/bin/sh",
            "-c",
            'read -r _; kill -KILL "$1"; rm -rf -- "$2"; cd "$3" && shift 3 && rm -f -- $*',
            "watchdog",
            str(server.pid),
            str(directory),
            str(SOCKET_DIRECTORY),
            *socket_patterns,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that Ctrl-C in the terminal does not end it
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # its data is discarded, so it need not shut down cleanly
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
