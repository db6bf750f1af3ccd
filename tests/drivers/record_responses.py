"""Record the responses of emulated services: ``python -m tests.drivers.record_responses``."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tests.drivers.fuzzing import BODY, BUCKET, KEY, OPERATIONS, Client, gcs, s3
from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from trove_async import Trove, TroveError
from trove_async._http import SocketTransport
from trove_async.drivers.gcs import driver as gcs_module
from trove_async.drivers.s3 import _components as s3_module
from trove_async.testing._harness import crc32c_of
from trove_async.testing.servers import moto

if TYPE_CHECKING:
    from trove_async.models import Timeout

REASONS = {200: "OK", 204: "No Content", 206: "Partial Content", 308: "Resume Incomplete"}


class Recorder(SocketTransport):
    """A transport that records each response."""

    recorded: ClassVar[list[dict[str, str]]] = []

    async def send(self, method: str, *args: Any, **options: Any) -> Any:
        response = await super().send(method, *args, **options)
        body = await response.read_all(1 << 30)
        headers = [f"{name}: {value}" for name, value in response.headers.items()]
        lines = [f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'No')}"]
        lines += [
            line for line in headers if not line.startswith(("transfer-encoding", "connection"))
        ]
        if "content-length" not in response.headers:
            lines.append(f"content-length: {len(body)}")
        head = "\r\n".join([*lines, "", ""])
        self.recorded.append(
            {"method": method, "head": head, "body": base64.b64encode(body).decode()}
        )
        return _BufferedResponse(response, body)


class _BufferedResponse:
    """A response whose body has already been read into memory."""

    body: bytes | None = None

    def __init__(self, response: Any, body: bytes) -> None:
        self.status, self.headers = response.status, response.headers
        self._response, self._body = response, body

    async def read(self, size: int) -> bytes:
        data, self._body = self._body[:size], self._body[size:]
        return data

    async def readinto(self, buffer: memoryview) -> int:
        data = await self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def read_all(self, limit: int) -> bytes:
        return await self.read(limit)

    def close(self) -> None:
        self._response.close()


async def record(driver: Any) -> dict[str, list[dict[str, str]]]:
    """Run all operations. Return the responses to each."""
    recordings: dict[str, list[dict[str, str]]] = {}
    async with Trove(driver) as store:
        await store.create_bucket(BUCKET)
        for key in (KEY, "one", "two", "b/c", "d"):
            await store.put(BUCKET, key, BODY)
        for name, operation in OPERATIONS.items():
            Recorder.recorded = []
            with suppress(TroveError, AttributeError):
                await operation(Client(store, driver))
            if Recorder.recorded:
                recordings[name] = Recorder.recorded
    return recordings


async def main() -> None:
    def make_recorder(timeout: Timeout, **_: object) -> Recorder:
        return Recorder(timeout)

    s3_module.transport_over = gcs_module.transport_over = make_recorder  # type: ignore[attr-defined] # replaced for recording
    directory = Path(__file__).parent / "recorded"
    with moto() as server:
        responses = await record(s3(server.endpoint_url))
    for response in responses["get"]:
        # Amazon S3 returns checksums if a GET requests them. Moto does not.
        checksums = (
            f"x-amz-checksum-crc32c: {crc32c_of(BODY)}\r\nx-amz-checksum-type: FULL_OBJECT\r\n"
        )
        response["head"] = f"{response['head'][:-2]}{checksums}\r\n"
    (directory / "s3.json").write_text(json.dumps(responses, indent=1) + "\n")
    async with gcs_server(InMemoryGCS()) as url:
        responses = await record(gcs(url))
    (directory / "gcs.json").write_text(json.dumps(responses, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
