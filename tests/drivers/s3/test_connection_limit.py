"""Requests that wait for a connection while long requests hold all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.drivers.s3.scripted_transport import OBJECT_HEADERS, SECRET, ScriptedTransport, response
from tests.http.scripted_server import ServerConnection, serving
from trove_async import PoolTimeoutError, RetryPolicy, Timeout, Trove
from trove_async._concurrency import OwnedTask
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3 import _components as components_module

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trove_async._http import Origin, Response


class HangingCopyTransport(ScriptedTransport):
    """Never responds to copies. Responds to other requests with the headers of an object."""

    def __init__(self) -> None:
        super().__init__()
        self.copy_count = 0

    async def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        views: Sequence[memoryview] = (),
        *,
        patient: bool = False,
    ) -> Response:
        if "x-amz-copy-source" in headers:
            self.copy_count += 1
            await asyncio.Event().wait()
        self.responses.append(response(headers={**OBJECT_HEADERS, "content-length": "5"}))
        return await super().send(method, origin, target, headers, views, patient=patient)


@pytest.mark.parametrize("permit_timeout", [60.0, 0.05], ids=["long", "short"])
async def test_head_behind_hanging_copies_waits_for_a_permit_not_for_a_response(
    permit_timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = HangingCopyTransport()
    monkeypatch.setattr(components_module, "transport_over", lambda *_, **__: transport)
    driver = S3Driver(
        region="us-east-1",
        endpoint_url="https://s3.us-east-1.amazonaws.com",
        access_key_id="KEYID",
        secret_access_key=SECRET,
        max_connections=2,
    )
    timeout = Timeout(
        first_byte=0.1, idle=60, permit=permit_timeout
    )  # a copy may take first_byte + idle
    async with Trove(driver, retry=RetryPolicy(attempts=1), timeout=timeout) as store:
        copies = [OwnedTask(store.copy("data", "from", "data", str(number))) for number in range(2)]
        while transport.copy_count < 2:
            await asyncio.sleep(0)
        head = OwnedTask(store.head("data", "key"))
        if permit_timeout < 1:
            with pytest.raises(
                PoolTimeoutError, match=r"connection for other requests became free .* limit is 2"
            ):
                await head.result()
        else:
            elapsed = asyncio.Event()
            asyncio.get_running_loop().call_later(3 * timeout.first_byte, elapsed.set)
            await elapsed.wait()
            assert not head.done
        for copy in copies:
            await copy.aclose()
        if permit_timeout > 1:
            assert (await head.result()).size == 5
        assert (await store.head("data", "key")).size == 5


async def get_small_object(connection: ServerConnection) -> None:
    while True:
        await connection.receive_request()
        head = "".join(
            f"{name}: {value}\r\n"
            for name, value in {**OBJECT_HEADERS, "content-length": "4"}.items()
        )
        await connection.send(f"HTTP/1.1 200 OK\r\n{head}\r\nbody".encode())


async def test_open_reader_of_a_small_object_holds_no_connection() -> None:
    async with serving(get_small_object) as server:
        driver = S3Driver(
            region="us-east-1",
            endpoint_url=server.origin.url,
            access_key_id="KEYID",
            secret_access_key=SECRET,
            dialect="s3",
            max_connections=1,
        )
        async with Trove(driver, timeout=Timeout(permit=0.05)) as store:
            readers = [await store.get("data", str(number)) for number in range(3)]
            assert await store.read("data", "key") == b"body"
            assert server.connections == 1
            for reader in readers:
                assert await reader.read() == b"body"
                await reader.aclose()
