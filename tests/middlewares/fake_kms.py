"""A server of AWS KMS for failures that moto does not have: states of keys, and broken responses."""

from __future__ import annotations

import asyncio
import json
import os
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

ACCOUNT = "111122223333"
KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
ARN = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/{KEY}"
OTHER_ARN = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/other"


class KmsError(Exception):
    """An error response with a status, a code and a message."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


@dataclass
class FakeKms:
    """Wraps data keys as AWS KMS does, and records the requests.

    Attributes:
        requests: The name and the parameters of each request.
        faults: Raised or returned instead of the next responses. A str or bytes is a body with status 200.
        quotes: Returns the message of faults, given the request's headers.
        states: The code of the error that each key of the account causes. "": it works.
        aliases: The key that each alias stands for.
        secret: The data keys that are generated. None: random ones.
        gate: Requests wait for this event.
        arrived: Set when a request arrives.
        writers: The open connections.
    """

    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    faults: list[KmsError | str | bytes] = field(default_factory=list)
    quotes: Callable[[dict[str, str]], str] | None = None
    states: dict[str, str] = field(default_factory=lambda: {KEY: "", "other": ""})
    aliases: dict[str, str] = field(default_factory=lambda: {"alias/objects": KEY})
    secret: bytes | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    wrapped: dict[bytes, tuple[str, dict[str, str], bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    def names(self) -> list[str]:
        """Return the names of the requests so far, and forget them."""
        names = [name for name, _ in self.requests]
        self.requests.clear()
        return names

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while True:
                await self._serve_one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers["content-length"]))
        name = headers["x-amz-target"].removeprefix("TrentService.")
        self.requests.append((name, json.loads(body)))
        self.arrived.set()
        await self.gate.wait()
        status, response = self._response(name, json.loads(body), headers)
        writer.write(
            f"HTTP/1.1 {status} Reason\r\ncontent-type: application/x-amz-json-1.1\r\n"
            f"location: {self.url}/elsewhere\r\n"
            f"content-length: {len(response)}\r\n\r\n".encode()
            + response
        )
        await writer.drain()

    def _response(
        self, name: str, request: dict[str, Any], headers: dict[str, str]
    ) -> tuple[int, bytes]:
        try:
            if self.faults:
                fault = self.faults.pop(0)
                if isinstance(fault, KmsError):
                    raise fault
                return 200, fault if isinstance(fault, bytes) else fault.encode()
            return 200, json.dumps(getattr(self, f"_{name}")(request)).encode()
        except KmsError as error:
            message = self.quotes(headers) if self.quotes is not None else error.message
            return error.status, json.dumps({"__type": error.code, "message": message}).encode()

    def _usable(self, key_id: str) -> str:
        """Return the last part of the ARN of a key that works."""
        if key_id.startswith("arn:"):
            *_, region, account, key_id = key_id.split(":", 5)
            if (region, account) != ("us-east-1", ACCOUNT):
                raise KmsError("NotFoundException", "Invalid arn")
            key_id = key_id.removeprefix("key/")
        key = self.aliases.get(key_id, key_id)
        code = self.states.get(key, "NotFoundException")
        if code:
            raise KmsError(code, f"{key} is not usable")
        return key

    def wrap(self, key: str, context: dict[str, str], secret: bytes) -> bytes:
        """Return a wrapped data key."""
        blob = b"wrapped-" + os.urandom(8).hex().encode()
        self.wrapped[blob] = key, context, secret
        return blob

    def _unwrapped(self, request: dict[str, Any], key_id: str, context: str) -> tuple[str, bytes]:
        key = self._usable(key_id)
        blob = b64decode(request["CiphertextBlob"])
        if blob not in self.wrapped or self.wrapped[blob][1] != request.get(context, {}):
            raise KmsError("InvalidCiphertextException")
        if self.wrapped[blob][0] != key:
            raise KmsError("IncorrectKeyException")
        return key, self.wrapped[blob][2]

    def _GenerateDataKey(self, request: dict[str, Any]) -> dict[str, str]:  # noqa: N802 - its name
        key = self._usable(request["KeyId"])
        assert request["KeySpec"] == "AES_256"
        secret = self.secret or os.urandom(32)
        blob = self.wrap(key, request.get("EncryptionContext", {}), secret)
        return {"KeyId": _arn(key), "Plaintext": _text(secret), "CiphertextBlob": _text(blob)}

    def _Decrypt(self, request: dict[str, Any]) -> dict[str, str]:  # noqa: N802 - its name
        key, secret = self._unwrapped(request, request["KeyId"], "EncryptionContext")
        return {"KeyId": _arn(key), "Plaintext": _text(secret)}

    def _ReEncrypt(self, request: dict[str, Any]) -> dict[str, str]:  # noqa: N802 - its name
        key, secret = self._unwrapped(request, request["SourceKeyId"], "SourceEncryptionContext")
        to = self._usable(request["DestinationKeyId"])
        blob = self.wrap(to, request.get("DestinationEncryptionContext", {}), secret)
        return {"KeyId": _arn(to), "SourceKeyId": _arn(key), "CiphertextBlob": _text(blob)}


def _arn(key: str) -> str:
    return f"arn:aws:kms:us-east-1:{ACCOUNT}:key/{key}"


def _text(data: bytes) -> str:
    return b64encode(data).decode()


@asynccontextmanager
async def serving(kms: FakeKms) -> AsyncIterator[FakeKms]:
    """Run the server. Set its `url`."""
    server = await asyncio.start_server(kms.serve, "127.0.0.1", 0)
    kms.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield kms
    finally:
        kms.gate.set()
        server.close()
        for writer in kms.writers:
            writer.close()
        while kms.writers:
            await asyncio.sleep(0)
