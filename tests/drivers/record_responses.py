"""Record what the services answer: ``python -m tests.drivers.record_responses``."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tests.drivers.fuzzing import BODY, BUCKET, KEY, OPERATIONS, Opened, gcs, s3
from tests.drivers.gcs.cloud import Cloud
from tests.drivers.gcs.cloud_server import serving
from trove_async import Trove, TroveError
from trove_async._http import SocketTransport
from trove_async.drivers.gcs import driver as gcs_room
from trove_async.drivers.s3 import driver as s3_room
from trove_async.testing._harness import crc32c_of
from trove_async.testing.servers import moto

if TYPE_CHECKING:
    from trove_async.models import Timeout

STEPS = {200: "OK", 204: "No Content", 206: "Partial Content", 308: "Resume Incomplete"}


class Recorder(SocketTransport):
    """A transport that keeps each response in full."""

    kept: ClassVar[list[dict[str, str]]] = []

    async def send(self, method: str, *args: Any, **options: Any) -> Any:
        answer = await super().send(method, *args, **options)
        body = await answer.read_all(1 << 30)
        named = [f"{name}: {value}" for name, value in answer.headers.items()]
        lines = [f"HTTP/1.1 {answer.status} {STEPS.get(answer.status, 'No')}"]
        lines += [
            line for line in named if not line.startswith(("transfer-encoding", "connection"))
        ]
        if "content-length" not in answer.headers:
            lines.append(f"content-length: {len(body)}")
        head = "\r\n".join([*lines, "", ""])
        self.kept.append({"method": method, "head": head, "body": base64.b64encode(body).decode()})
        return _Again(answer, body)


class _Again:
    def __init__(self, answer: Any, body: bytes) -> None:
        self.status, self.headers = answer.status, answer.headers
        self._answer, self._body = answer, body

    async def read(self, size: int) -> bytes:
        piece, self._body = self._body[:size], self._body[size:]
        return piece

    async def readinto(self, buffer: memoryview) -> int:
        piece = await self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    async def read_all(self, limit: int) -> bytes:
        return await self.read(limit)

    def close(self) -> None:
        self._answer.close()


async def record(driver: Any) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    async with Trove(driver) as store:
        await store.create_bucket(BUCKET)
        for key in (KEY, "one", "two", "b/c", "d"):
            await store.put(BUCKET, key, BODY)
        for name, operate in OPERATIONS.items():
            Recorder.kept = []
            with suppress(TroveError, AttributeError):
                await operate(Opened(store, driver))
            if Recorder.kept:
                found[name] = Recorder.kept
    return found


async def main() -> None:
    def recorder(timeout: Timeout, **_: object) -> Recorder:
        return Recorder(timeout)

    s3_room.transport_over = gcs_room.transport_over = recorder  # type: ignore[attr-defined] # for recording
    directory = Path(__file__).parent / "recorded"
    with moto() as server:
        said = await record(s3(server.endpoint_url))
    for one in said["get"]:
        # As Amazon answers a GET that asks for checksums; moto does not.
        summed = f"x-amz-checksum-crc32c: {crc32c_of(BODY)}\r\nx-amz-checksum-type: FULL_OBJECT\r\n"
        one["head"] = f"{one['head'][:-2]}{summed}\r\n"
    (directory / "s3.json").write_text(json.dumps(said, indent=1) + "\n")
    async with serving(Cloud()) as url:
        said = await record(gcs(url))
    (directory / "gcs.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
