"""How many calls of the library a small request takes.

Under load, the cost of a request is that of the functions it runs through, more than of what they compute. So
these tests count the calls of functions, and the times that a coroutine is resumed, as `sys.setprofile`
reports them. Unlike a time, the count is the same on every machine.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import pytest

import trove_async
from tests.http.scripted_server import ServerConnection, serving
from trove_async import Trove
from trove_async._checksums import crc32c_of
from trove_async._concurrency import OwnedTask
from trove_async._resilience.calls import Calls
from trove_async.drivers import S3Driver

PACKAGE = str(Path(trove_async.__file__).parent)
BODY = b"x" * 1024
CHECKSUM = crc32c_of([BODY])

COMMON = (
    "x-amz-id-2: Uuag1LuByRx9e6j5Onimru9pO4ZVKnJ2Qz7/C1NPcfTWAtRPfTaOFg==\r\n"
    "x-amz-request-id: 656c76696e6727732072657175657374\r\n"
    "Date: Sun, 29 Nov 2026 08:00:00 GMT\r\n"
    'ETag: "9a0364b9e99bb480dd25e1f0284c8555"\r\n'
    f"x-amz-checksum-crc32c: {CHECKSUM}\r\nx-amz-checksum-type: FULL_OBJECT\r\n"
    "Server: AmazonS3\r\n"
)
OBJECT = (
    "Last-Modified: Sat, 28 Nov 2026 17:50:00 GMT\r\n"
    "x-amz-meta-trove-write-id: 0123456789abcdef-1f\r\n"
    "Accept-Ranges: bytes\r\nContent-Type: text/plain\r\n"
)

Operation = Callable[[Trove], Awaitable[object]]


async def respond(connection: ServerConnection) -> None:
    """Respond as Amazon S3 does."""
    while True:
        (request_line, *_), _ = await connection.receive_request()
        method = request_line.split()[0]
        status = "204 No Content" if method == "DELETE" else "200 OK"
        fields = OBJECT if method in {"GET", "HEAD"} else ""
        size = len(BODY) if method in {"GET", "HEAD"} else 0
        length = "" if method == "DELETE" else f"Content-Length: {size}\r\n"
        head = f"HTTP/1.1 {status}\r\n{COMMON}{fields}{length}\r\n".encode()
        await connection.send(head + (BODY if method == "GET" else b""))


@asynccontextmanager
async def store_of_s3() -> AsyncIterator[Trove]:
    async with (
        serving(respond) as server,
        Trove(
            S3Driver(
                endpoint_url=server.origin.url,
                region="us-east-1",
                access_key_id="id",
                secret_access_key="secret",  # noqa: S106 - of no account
                dialect="s3",
            )
        ) as store,
    ):
        yield store


async def put(store: Trove) -> None:
    await store.put("bucket", "folder/name.txt", BODY)


async def get(store: Trove) -> None:
    async with store.get("bucket", "folder/name.txt") as reader:
        async for chunk in reader:
            assert chunk == BODY


async def read(store: Trove) -> None:
    assert await store.read("bucket", "folder/name.txt") == BODY


async def head(store: Trove) -> None:
    assert (await store.head("bucket", "folder/name.txt")).size == len(BODY)


async def delete(store: Trove) -> None:
    await store.delete("bucket", "folder/name.txt")


async def library_calls(operation: Callable[[], Awaitable[object]]) -> list[str]:
    """Return the functions of the library that an operation calls or resumes, in order."""
    calls: list[str] = []

    def record(frame: FrameType, event: str, argument: object) -> None:
        del argument
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            calls.append(f"{code.co_filename.removeprefix(PACKAGE)} {code.co_qualname}")

    previous = sys.getprofile()
    sys.setprofile(record)
    try:
        await operation()
    finally:
        sys.setprofile(previous)
    return calls


@pytest.mark.parametrize(
    ("operation", "budget"),
    [(put, 45), (get, 60), (read, 50), (head, 35), (delete, 41)],
    ids=["put", "get", "read", "head", "delete"],
)
async def test_small_request_takes_few_calls(operation: Operation, budget: int) -> None:
    async with store_of_s3() as store:
        await operation(store)  # opens a connection, and fills the caches
        calls = await library_calls(lambda: operation(store))
    assert len(calls) <= budget, "\n".join(calls)
    # A budget that the calls do not nearly use up would not notice a new one.
    assert len(calls) >= budget - 8


@pytest.mark.parametrize("operation", [put, get, read, head, delete])
async def test_request_that_waits_for_a_permit_is_not_made_by_the_retry_loop(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop takes half as many calls again. A busy service has more tasks than connections."""

    async def fail(*_arguments: object, **_options: object) -> None:
        pytest.fail("the first attempt must be direct")

    async def run() -> None:
        await operation(store)

    async with store_of_s3() as store:
        calls: Calls = store._core.backends["default"].driver.calls  # type: ignore[attr-defined]  # the wrapper
        monkeypatch.setattr(Calls, "retry", fail)
        kinds = (calls.read_permits, calls.write_permits, calls.request_permits)
        for permits in kinds:
            while permits.try_acquire():
                pass
        running = OwnedTask(run())
        while not any(permits.waiting for permits in kinds):
            await asyncio.sleep(0)
        for permits in kinds:
            permits.release()
        await running.result()
        assert [permits.free for permits in kinds] == [1, 1, 1]
