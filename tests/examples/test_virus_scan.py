"""examples/virus_scan.py with fakes of clamd that misbehave, and with the real clamd."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import shutil
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import content
from trove_async import ContentBlockedError, ObjectNotFoundError, Scope, Trove
from trove_async._concurrency import OwnedTask
from trove_async.drivers import MemoryDriver
from trove_async.middlewares.inspection import Inspection
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

PROGRAM = Path(__file__).parents[2] / "examples" / "virus_scan.py"

_spec = importlib.util.spec_from_file_location("virus_scan", PROGRAM)
assert _spec is not None
assert _spec.loader is not None
virus_scan: Any = importlib.util.module_from_spec(_spec)
sys.modules["virus_scan"] = virus_scan
_spec.loader.exec_module(virus_scan)

EICAR: bytes = virus_scan.EICAR
LARGE = content(8 * MiB, "large")
CLAMD = shutil.which("clamd") or shutil.which("clamd", path="/usr/sbin")


async def receive(reader: asyncio.StreamReader) -> bytes:
    """Receive a body as clamd does."""
    assert await reader.readexactly(10) == b"zINSTREAM\0"
    body = b""
    while size := int.from_bytes(await reader.readexactly(4)):
        body += await reader.readexactly(size)
    return body


@asynccontextmanager
async def clamd(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    path: Path | None = None,
) -> AsyncIterator[str]:
    """Run a fake of clamd. Yield its address."""
    closed = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            closed.set()

    if path is not None:
        async with await asyncio.start_unix_server(handle, path):
            yield str(path)
    else:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            yield f"{host}:{port}"
    await closed.wait()


@asynccontextmanager
async def store_of(address: str, *, timeout: float = 30) -> AsyncIterator[Trove]:
    """Open a store that scans, with the bucket ``bucket``."""
    inspection = Inspection(virus_scan.ClamAV(address, timeout=timeout).scan)
    async with Trove(MemoryDriver(), middleware=[inspection]) as store:
        await store.create_bucket("bucket")
        yield store


async def assert_not_stored(store: Trove) -> None:
    with pytest.raises(ObjectNotFoundError):
        await store.head("bucket", "key")
    assert store.pool.statistics().leased == 0


async def chunks(body: bytes, size: int = 300 * KiB) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


# -- verdicts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("body", [b"", b"clean", LARGE])
@pytest.mark.parametrize("streamed", [False, True])
async def test_clean_body_is_sent_to_clamd_and_stored(
    body: bytes, tmp_path: Path, *, unix: bool, streamed: bool
) -> None:
    received = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await receive(reader))
        writer.write(b"stream: OK\0")

    async with (
        clamd(serve, tmp_path / "clamd.ctl" if unix else None) as address,
        store_of(address) as store,
    ):
        await store.put("bucket", "key", chunks(body) if streamed else body)
        assert await store.read("bucket", "key") == body
    assert received == [body]


@pytest.mark.parametrize("streamed", [False, True])
async def test_infected_body_is_blocked(*, streamed: bool) -> None:
    async with virus_scan.fake_clamd() as address, store_of(address) as store:
        body = LARGE[: MiB - 20] + EICAR + LARGE[MiB:]
        with pytest.raises(ContentBlockedError) as caught:
            await store.put("bucket", "key", chunks(body) if streamed else body)
        assert caught.value.message == "the body contains a virus: Eicar-Test-Signature"
        assert caught.value.key == "key"
        await assert_not_stored(store)


async def test_slow_clamd_is_waited_for() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b""
        while not body.endswith(b"\0\0\0\0"):
            body += await reader.readexactly(1)
        for byte in b"stream: Win.Test-1 FOUND\0":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with clamd(serve) as address, store_of(address) as store:
        with pytest.raises(ContentBlockedError, match=r"virus: Win\.Test-1"):
            await store.put("bucket", "key", b"infected")
        await assert_not_stored(store)


async def test_concurrent_puts_use_separate_connections() -> None:
    async with virus_scan.fake_clamd() as address, store_of(address) as store:
        blocked = []

        async def put(number: int) -> None:
            body = LARGE[: number * 100_000] + (EICAR if number % 2 else b"")
            try:
                await store.put("bucket", f"key-{number}", chunks(body))
            except ContentBlockedError as error:
                blocked.append(error.key)

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(put(number))
        assert sorted(blocked, key=str) == sorted(f"key-{number}" for number in range(1, 20, 2))
        stored = [info.key for info in await store.list("bucket").all()]
        assert stored == sorted(f"key-{number}" for number in range(0, 20, 2))


async def test_scope_limits_the_scan() -> None:
    scan = Inspection(virus_scan.ClamAV("127.0.0.1:1").scan)
    async with Trove(MemoryDriver(), middleware=[(scan, Scope.keys("*.exe"))]) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "key", EICAR)
        with pytest.raises(virus_scan.ScannerError):
            await store.put("bucket", "key.exe", b"clean")


# -- no verdict --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"", r"clamd closed the connection after b''"),
        (b"stream: OK", "clamd closed the connection after"),
        (b"x" * 100_000, "clamd did not end its reply after"),
        (b"\0", "must reply with a verdict"),
        (b"stream: OK\n\0", "must reply with a verdict"),
        (b"stream: MAYBE\0", r"got 'stream: MAYBE'"),
        (b"stream:  FOUND\0", "must reply with a verdict"),
        (b"1: stream: OK\0", "must reply with a verdict"),
        (b"UNKNOWN COMMAND\0", "got 'UNKNOWN COMMAND'"),
        (b"\xff\xfe\0", "must reply with a verdict"),
    ],
)
async def test_body_without_a_verdict_is_not_stored(reply: bytes, expected: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        writer.write(reply)

    async with clamd(serve) as address, store_of(address) as store:
        with pytest.raises(virus_scan.ScannerError, match=expected) as caught:
            await store.put("bucket", "key", b"body")
        assert (caught.value.operation, caught.value.key) == ("put", "key")
        await assert_not_stored(store)


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("at_end", [False, True])
async def test_body_that_clamd_refuses_for_its_size_is_not_stored(
    tmp_path: Path, *, unix: bool, streamed: bool, at_end: bool
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if at_end:
            await receive(reader)
        else:
            await reader.readexactly(100_000)  # the rest is unread when the connection closes
        writer.write(b"INSTREAM size limit exceeded. ERROR\0")
        await writer.drain()

    async with (
        clamd(serve, tmp_path / "clamd.ctl" if unix else None) as address,
        store_of(address) as store,
    ):
        with pytest.raises(virus_scan.ScannerError) as caught:
            await store.put("bucket", "key", chunks(LARGE) if streamed else LARGE)
        # TCP may discard a reply when the rest of the body meets a closed connection.
        if unix or at_end:
            assert type(caught.value) is virus_scan.TooLargeToScanError
            assert "StreamMaxLength" in caught.value.message
        await assert_not_stored(store)


@pytest.mark.parametrize("size", [0, 5, 100_000])
async def test_connection_that_clamd_closes_early_is_an_error(size: int) -> None:
    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(size)

    async with clamd(serve) as address, store_of(address) as store:
        with pytest.raises(virus_scan.ScannerError, match="connection"):
            await store.put("bucket", "key", chunks(LARGE))
        await assert_not_stored(store)


async def test_verdict_before_the_end_of_the_body_is_not_accepted(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(10)
        writer.write(b"stream: OK\0")

    async with clamd(serve, tmp_path / "clamd.ctl") as address, store_of(address) as store:
        with pytest.raises(virus_scan.ScannerError, match="at the end of the body, got"):
            await store.put("bucket", "key", chunks(LARGE))
        await assert_not_stored(store)


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"body", "did not reply"), (LARGE, "did not accept the body")],
)
async def test_clamd_that_hangs_is_given_up(body: bytes, expected: str, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        # Reads no more than the buffers of the stream hold, and replies nothing.
        await reader.readexactly(10)
        await given_up.wait()

    given_up = asyncio.Event()
    path = tmp_path / "clamd.ctl"  # a Unix socket connects at once, even on a busy machine
    async with clamd(serve, path) as address, store_of(address, timeout=0.05) as store:
        with pytest.raises(virus_scan.ScannerTimeoutError, match=expected) as caught:
            await store.put("bucket", "key", body)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, virus_scan.ScannerError)
        given_up.set()
        await assert_not_stored(store)


async def test_clamd_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but not listening: connections are refused
        port = unused.getsockname()[1]
        for address in (f"127.0.0.1:{port}", str(tmp_path / "missing.ctl")):
            async with store_of(address) as store:
                with pytest.raises(
                    virus_scan.ScannerError, match=f"cannot connect to clamd at {address}"
                ):
                    await store.put("bucket", "key", b"body")
                await assert_not_stored(store)


async def test_cancelled_put_closes_its_connection() -> None:
    received = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        received.set()
        assert await reader.read() == b""  # until the connection is closed

    async with clamd(serve) as address, store_of(address) as store:
        task = OwnedTask(store.put("bucket", "key", b"body"))
        await received.wait()
        await task.aclose()
        await assert_not_stored(store)


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", ":3310", "localhost:http"])
def test_address_that_is_not_valid_is_rejected(address: str) -> None:
    with pytest.raises(ValueError, match=r"must be HOST:PORT or a path"):
        virus_scan.ClamAV(address)


# -- the real clamd ------------------------------------------------------------------------------------


@pytest.fixture
def real_clamd(tmp_path: Path) -> Iterator[str]:
    """Run clamd with a database of one signature. Yield the path of its socket."""
    database = tmp_path / "database"
    database.mkdir()
    digest = hashlib.md5(EICAR, usedforsecurity=False).hexdigest()
    (database / "eicar.hdb").write_text(f"{digest}:{len(EICAR)}:Eicar-Test\n")
    config = tmp_path / "clamd.conf"
    config.write_text(
        f"DatabaseDirectory {database}\nLocalSocket {tmp_path}/clamd.ctl\nForeground yes\n"
        f"TemporaryDirectory {tmp_path}\nStreamMaxLength 2M\n"
    )
    assert CLAMD is not None, "apt-get install clamav-daemon"
    with subprocess.Popen(  # noqa: S603 - our own configuration
        [CLAMD, "--config-file", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            assert process.stdout is not None
            output = [b""]
            while b"Self checking" not in output[-1]:  # its last line before it accepts connections
                output.append(process.stdout.readline())
                assert output[-1], b"".join(output).decode()
            yield f"{tmp_path}/clamd.ctl"
        finally:
            process.kill()


@pytest.mark.commands
async def test_real_clamd_blocks_the_eicar_string_and_large_bodies(real_clamd: str) -> None:
    async with store_of(real_clamd) as store:
        for infected in (EICAR, chunks(EICAR, 10)):
            with pytest.raises(ContentBlockedError, match="virus: Eicar-Test"):
                await store.put("bucket", "key", infected)
        for too_large in (LARGE, chunks(LARGE)):
            with pytest.raises(virus_scan.TooLargeToScanError):
                await store.put("bucket", "key", too_large)
        await assert_not_stored(store)
        for clean in (b"", b"clean", chunks(LARGE[: 2 * MiB - KiB])):
            await store.put("bucket", "key", clean)
        assert await store.read("bucket", "key") == LARGE[: 2 * MiB - KiB]
