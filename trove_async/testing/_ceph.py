"""Starts a Ceph cluster of one monitor, one in-memory object store daemon and one S3 gateway."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Final
from uuid import uuid4

from trove_async.testing._processes import clear, free_ports, start_process

START_SECONDS: Final = 180.0
"""Seconds until the gateway must respond. It first creates its pools, usually in 30 seconds."""

_COMMAND_SECONDS: Final = 120.0
"""Seconds until a program that sets up the cluster must have ended."""

_POLL_SECONDS: Final = 0.1
_ATTEMPTS: Final = 2
_LOG_TAIL: Final = 2000
"""The number of characters of each log in an error message."""

_PROGRAMS: Final[Mapping[str, str]] = {
    "ceph-mon": "ceph-mon",
    "monmaptool": "ceph-common",
    "ceph-authtool": "ceph-common",
    "ceph": "ceph-common",
    "ceph-osd": "ceph-osd",
    "radosgw": "radosgw",
    "radosgw-admin": "radosgw",
}
"""The required programs, and the Debian package of each."""

# One daemon stores every object, so each pool has one replica. A monitor stops when its disk is
# nearly full. The `mon data avail` limits are as low as possible, because the objects are in memory.
# Garbage is collected every 15 seconds instead of every hour, because deleted objects use memory
# until then.
_CONFIGURATION: Final = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = v2:127.0.0.1:{mon}
mon data = {directory}/mon
osd data = {directory}/osd
rgw data = {directory}/rgw
run dir = {directory}
admin socket =
pid file =
log to file = false
log to stderr = true
public network = 127.0.0.0/8
ms bind ipv6 = false
keyring = {directory}/keyring
osd objectstore = memstore
memstore device bytes = {memory}
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd max object name len = 2048
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
rgw frontends = beast endpoint=127.0.0.1:{rgw}
rgw thread pool size = 32
rgw gc obj min wait = 15
rgw gc processor period = 15
rgw gc processor max time = 15
"""

_FULL_ACCESS: Final[Mapping[str, Sequence[str]]] = {
    "mon.": ["mon"],
    "client.admin": ["mon", "osd", "mgr"],
    "osd.0": ["mon", "osd"],
}
"""The services to which each user has full access. The gateway uses ``client.admin``."""

_MEMORY: Final = 4 * 1024**3
"""The capacity of the object store in bytes. Memory is allocated only as objects are stored."""


def start_ceph(stack: ExitStack, access_key_id: str, secret_access_key: str) -> str:
    """Start a cluster, to be stopped when the stack is closed. Return the URL of its gateway.

    Raises:
        RuntimeError: Programs are missing, or one of them failed.
    """
    _check_programs()
    for _ in range(_ATTEMPTS - 1):
        with ExitStack() as attempt:
            try:
                url = _Cluster(attempt).start(access_key_id, secret_access_key)
            except RuntimeError:
                continue  # another process may have bound one of the ports
            stack.push(attempt.pop_all())
            return url
    with ExitStack() as last:
        url = _Cluster(last).start(access_key_id, secret_access_key)
        stack.push(last.pop_all())
    return url


def _check_programs() -> None:
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        packages = sorted({_PROGRAMS[name] for name in missing})
        raise RuntimeError(
            f"not found: {', '.join(missing)}. Run apt-get install --no-install-recommends"
            f" {' '.join(packages)}"
        )


class _Cluster:
    """The processes of one cluster.

    Args:
        stack: Stops the processes and removes their files when the stack is closed.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._directory = Path(tempfile.mkdtemp(prefix="trove-server-"))
        stack.callback(clear, self._directory)
        self._mon, self._rgw = free_ports(2)
        self._fsid = str(uuid4())
        self._configuration = self._directory / "ceph.conf"

    def start(self, access_key_id: str, secret_access_key: str) -> str:
        """Start all processes. Return the URL of the gateway."""
        self._configure()
        # 1. The monitor. It stores the map of the cluster and the keys of all users.
        keyring = str(self._directory / "keyring")
        for user, services in _FULL_ACCESS.items():
            capabilities = [
                option for service in services for option in ("--cap", service, "allow *")
            ]
            create = ["--create-keyring"] if user == "mon." else []
            self._run("ceph-authtool", *create, keyring, "--gen-key", "-n", user, *capabilities)
        monmap = str(self._directory / "monmap")
        address = f"[v2:127.0.0.1:{self._mon}]"
        self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", self._fsid, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._start("ceph-mon", "-i", "a")
        # 2. The object store daemon. It must be registered with the monitor before it starts.
        osd_id = str(uuid4())
        timeout = str(int(_COMMAND_SECONDS))
        self._run("ceph", "--connect-timeout", timeout, "osd", "new", osd_id, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id)
        self._start("ceph-osd", "-i", "0")
        # 3. The gateway. It creates its pools before it responds. After that, a user can be added.
        self._start_gateway()
        self._run(
            "radosgw-admin",
            "user",
            "create",
            "--uid=tester",
            "--display-name=Tester",
            f"--access-key={access_key_id}",
            f"--secret-key={secret_access_key}",
        )
        return f"http://127.0.0.1:{self._rgw}"

    def _configure(self) -> None:
        for name in ("mon", "osd", "rgw"):
            (self._directory / name).mkdir()
        self._configuration.write_text(
            _CONFIGURATION.format(
                fsid=self._fsid,
                mon=self._mon,
                rgw=self._rgw,
                directory=self._directory,
                memory=_MEMORY,
            )
        )

    def _run(self, program: str, *arguments: str) -> None:
        """Run a program until it ends.

        Raises:
            RuntimeError: The program failed. The message contains the end of its output.
        """
        command = [program, "-c", str(self._configuration), *arguments]
        try:
            subprocess.run(  # noqa: S603 - a program that its package installed
                command,
                cwd=self._directory,
                # So that a configuration in the user's home directory has no effect.
                env={**os.environ, "HOME": str(self._directory)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_COMMAND_SECONDS,
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            output = (error.output or b"").decode(errors="replace")[-_LOG_TAIL:]
            raise RuntimeError(f"{program} {arguments[0]} failed: {output}") from error

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        # -f keeps the daemon in the foreground: if it forked, it could not be killed by its id.
        command = [program, "-c", str(self._configuration), "-f", *arguments]
        log = self._directory / f"{program}.log"
        return start_process(self._stack, command, self._directory, log=log)

    def _start_gateway(self) -> None:
        gateway = self._start("radosgw", "-n", "client.admin")
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and gateway.poll() is None:
            if _responds(self._rgw):
                return
            time.sleep(_POLL_SECONDS)
        # The cause is often in the log of a different daemon, so the message shows the end of each.
        logs = "".join(
            f"\n{log.name}: {log.read_text(errors='replace')[-_LOG_TAIL:]}"
            for log in sorted(self._directory.glob("*.log"))
        )
        raise RuntimeError(f"the gateway did not start (exit code {gateway.poll()}):{logs}")


def _responds(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
