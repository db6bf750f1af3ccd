"""Scan bodies with ClamAV while they are stored, and block infected ones.

    python examples/virus_scan.py [ADDRESS]

ADDRESS is that of ClamAV's daemon, clamd: HOST:PORT, or the path of a Unix socket such as
/run/clamav/clamd.ctl. The default is the environment variable CLAMD_ADDRESS. Without an address, the demo
starts a small fake of clamd that detects only the EICAR test string.

A body is sent to clamd as it is read, by the command INSTREAM of clamd(8), and becomes visible only after
clamd has found it clean. What cannot be scanned is not stored.

Two settings of clamd.conf limit the size of a body. StreamMaxLength (100 MB by default) refuses larger ones.
MaxFileSize and MaxScanSize limit the bytes that are scanned: set "AlertExceedsMax yes", or clamd reports
larger bodies as clean.
"""

import argparse
import asyncio
import os
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trove_async import ContentBlockedError, Trove, TroveError
from trove_async.drivers import MemoryDriver
from trove_async.middlewares.inspection import Inspection

REPLY_LIMIT = 4096
"""Maximum size of a reply in bytes. A reply is one line with the name of a signature."""

SIZE_LIMIT = "INSTREAM size limit exceeded. ERROR"
VERDICT = re.compile(r"stream: (?:OK|(?P<name>\S.*) FOUND)")


class ScannerError(TroveError):
    """Clamd returned no verdict. The body was not stored."""


class ScannerTimeoutError(ScannerError, TimeoutError):
    """Clamd did not respond in time."""


class TooLargeToScanError(ScannerError):
    """The body exceeds clamd's StreamMaxLength."""


class ClamAV:
    """Makes scans by clamd, for an `Inspection`: ``Inspection(ClamAV("/run/clamav/clamd.ctl").scan)``.

    Args:
        address: The address of clamd: ``HOST:PORT``, or the path of a Unix socket.
        timeout: Seconds to wait for clamd at each step. Its reply takes up to MaxScanTime, by default 120.
    """

    def __init__(self, address: str, *, timeout: float = 130) -> None:
        host, colon, port = address.rpartition(":")
        if "/" not in address and not (host and colon and port.isascii() and port.isdecimal()):
            raise ValueError(f"an address of clamd must be HOST:PORT or a path, got {address!r}")
        self.address = address
        self.timeout = timeout
        self._host_and_port = None if "/" in address else (host.strip("[]"), int(port))

    def scan(self, _bucket: str, _key: str, _content_type: str | None) -> "Scan":
        """Return a scan of one body."""
        return Scan(self)

    async def connect(self) -> socket.socket:
        """Return a new connection to clamd."""
        if self._host_and_port is None:
            return await _connect(socket.AF_UNIX, self.address)
        host, port = self._host_and_port
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for position, (family, _, _, _, address) in enumerate(found, start=1):
            try:
                connection = await _connect(family, address)
            except OSError:
                if position == len(found):
                    raise
            else:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
        raise OSError(f"{host} has no address")


async def _connect(family: int, address: str | tuple[object, ...]) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(0)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


class Scan:
    """One body, sent to clamd by INSTREAM: chunks with their length in 4 bytes, then a chunk of length 0.

    A socket without a stream of asyncio, because clamd may refuse a body and close the connection before it
    has read it all: a stream would raise the broken connection instead of returning clamd's reply.
    """

    def __init__(self, clamav: ClamAV) -> None:
        self._clamav = clamav
        self._connection: socket.socket | None = None

    async def update(self, data: bytes) -> None:
        """Send the next bytes."""
        await self._send(struct.pack(">I", len(data)) + data)

    async def finish(self) -> None:
        """Send the end of the body, and raise unless clamd found it clean."""
        await self._send(struct.pack(">I", 0))
        reply = await self._reply()
        verdict = VERDICT.fullmatch(reply)
        if verdict is None:
            raise self._no_verdict_error(reply)
        if verdict["name"] is not None:
            raise ContentBlockedError(f"the body contains a virus: {verdict['name']}")

    async def aclose(self) -> None:
        """Close the connection. An unfinished scan ends."""
        if self._connection is not None:
            self._connection.close()

    async def _send(self, data: bytes) -> None:
        connection = self._connection
        try:
            async with asyncio.timeout(self._clamav.timeout):
                if connection is None:
                    # Only now: clamd closes a connection that is idle, while a body may be slow to begin.
                    self._connection = connection = await self._clamav.connect()
                    data = b"zINSTREAM\0" + data
                await asyncio.get_running_loop().sock_sendall(connection, data)
        except TimeoutError as error:
            raise self._timeout_error("did not accept the body") from error
        except OSError as error:
            if connection is None:
                address = self._clamav.address
                raise ScannerError(f"cannot connect to clamd at {address}: {error}") from error
            raise self._no_verdict_error(await self._reply()) from error

    async def _reply(self) -> str:
        """Return the reply of clamd, which ends in a NUL byte."""
        assert self._connection is not None  # noqa: S101 - set by _send
        loop, received = asyncio.get_running_loop(), b""
        try:
            async with asyncio.timeout(self._clamav.timeout):
                while b"\0" not in received and len(received) < REPLY_LIMIT:
                    data = await loop.sock_recv(self._connection, REPLY_LIMIT - len(received))
                    if not data:
                        break
                    received += data
        except TimeoutError as error:
            raise self._timeout_error("did not reply") from error
        except OSError as error:
            raise ScannerError(f"the connection to clamd broke off: {error}") from error
        reply, end, _ = received.partition(b"\0")
        if not end:
            problem = (
                "closed the connection" if len(received) < REPLY_LIMIT else "did not end its reply"
            )
            raise ScannerError(f"clamd {problem} after {received[:100]!r}")
        return reply.decode(errors="backslashreplace")

    def _no_verdict_error(self, reply: str) -> ScannerError:
        if reply == SIZE_LIMIT:
            return TooLargeToScanError(
                "the body exceeds StreamMaxLength in clamd.conf: raise it, or store a smaller body"
            )
        return ScannerError(
            f"clamd must reply with a verdict at the end of the body, got {reply[:100]!r}"
        )

    def _timeout_error(self, what: str) -> ScannerTimeoutError:
        clamav = self._clamav
        return ScannerTimeoutError(
            f"clamd at {clamav.address} {what} within {clamav.timeout:g} s: raise the timeout"
        )


# -- the demo ----------------------------------------------------------------------------------------

# In two pieces, so that no virus scanner takes this program for infected.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


@asynccontextmanager
async def fake_clamd() -> AsyncIterator[str]:
    """Run a fake of clamd that detects only the EICAR test string. Yield its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"zINSTREAM\0")
        body = b""
        while size := int.from_bytes(await reader.readexactly(4)):
            body += await reader.readexactly(size)
        writer.write(b"stream: Eicar-Test-Signature FOUND\0" if EICAR in body else b"stream: OK\0")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


async def main(address: str) -> None:
    """Store a clean body, and try to store an infected one."""
    scanned = Inspection(ClamAV(address).scan)
    async with Trove(MemoryDriver(), middleware=[scanned]) as store:
        await store.create_bucket("uploads")
        info = await store.put("uploads", "clean.txt", b"Nothing to see here.")
        print(f"{info.key} was stored: {info.size} bytes")
        try:
            await store.put("uploads", "eicar.com", EICAR)
        except ContentBlockedError as error:
            print(f"eicar.com was blocked: {error.message}")
        print(f"eicar.com exists: {await store.exists('uploads', 'eicar.com')}")


async def demo() -> None:
    """Run `main` with a fake of clamd."""
    async with fake_clamd() as address:
        print("No address of clamd was given, so this demo runs with a fake that knows only EICAR.")
        await main(address)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", default=os.environ.get("CLAMD_ADDRESS"))
    given = parser.parse_args().address
    asyncio.run(main(given) if given else demo())
