"""The Amazon S3 Encryption Client for Python, measured without a transfer.

It runs in a virtual environment of its own, because it does not allow the versions of `cryptography` that
trove_async requires. A stand-in for boto3's client emits the events on which the encryption client works, and
keeps or drops the ciphertext. A stand-in for KMS wraps data keys without a request. Signatures, checksums and
copies by botocore are not measured.

    python benchmarks/_s3_encryption_client.py SIZE   # reads the names of works, and prints measurements
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from _harness import Memory, MiB, measured
from botocore.hooks import HierarchicalEmitter
from botocore.response import StreamingBody
from s3_encryption import S3EncryptionClient, S3EncryptionClientConfig
from s3_encryption.exceptions import S3EncryptionClientError
from s3_encryption.materials import KmsKeyring

OBJECT = {"Bucket": "bucket", "Key": "key"}
DATA_KEY = bytes(range(32))


class LocalKms:
    """A KMS client with one constant data key."""

    meta = SimpleNamespace(config=SimpleNamespace(user_agent_extra=""))

    def generate_data_key(self, **_: object) -> dict[str, bytes]:
        return {"Plaintext": DATA_KEY, "CiphertextBlob": b"wrapped"}

    def decrypt(self, **_: object) -> dict[str, bytes]:
        return {"Plaintext": DATA_KEY}


class LocalS3:
    """An S3 client that drops the bodies it gets, or keeps the last one that was put.

    It has the operations and events that the encryption client uses.
    """

    def __init__(self) -> None:
        self.meta = SimpleNamespace(
            config=SimpleNamespace(user_agent_extra=""), events=HierarchicalEmitter()
        )
        self.keep = False
        self.body = b""
        self.metadata: dict[str, str] = {}

    def put_object(self, *, Body: bytes, **_: object) -> dict[str, str]:  # noqa: N803 - as in boto3
        parameters: dict[str, Any] = {"body": Body, "headers": {}}
        self.meta.events.emit("before-call.s3.PutObject", params=parameters)
        if self.keep:
            self.body = parameters["body"]
            self.metadata = {
                name.removeprefix("x-amz-meta-"): value
                for name, value in parameters["headers"].items()
            }
        return {"ETag": "etag"}

    def get_object(self, **_: object) -> dict[str, object]:
        size = len(self.body)
        parsed: dict[str, object] = {
            "Body": StreamingBody(io.BytesIO(self.body), size),
            "ContentLength": size,
            "Metadata": self.metadata,
        }
        self.meta.events.emit("after-call.s3.GetObject", parsed=parsed)
        return parsed

    def create_multipart_upload(self, **_: object) -> dict[str, str]:
        return {"UploadId": "1"}

    def upload_part(self, **_: object) -> dict[str, str]:
        return {"ETag": "etag"}

    def complete_multipart_upload(self, **_: object) -> dict[str, str]:
        return {"ETag": "etag"}

    def abort_multipart_upload(self, **_: object) -> None:
        pass


class Works:
    """What is measured: whole bodies, and bodies in parts.

    Args:
        size: The size of the body in MiB.
    """

    def __init__(self, size: int) -> None:
        self._body = os.urandom(MiB) * size
        self._s3 = LocalS3()
        keyring = KmsKeyring(LocalKms(), "key")
        self._client = S3EncryptionClient(self._s3, S3EncryptionClientConfig(keyring))
        self._delayed_s3 = LocalS3()
        self._delayed = S3EncryptionClient(
            self._delayed_s3, S3EncryptionClientConfig(keyring, enable_delayed_authentication=True)
        )
        for s3, client in ((self._s3, self._client), (self._delayed_s3, self._delayed)):
            s3.keep = True
            client.put_object(**OBJECT, Body=self._body)
            s3.keep = False

    def put(self) -> None:
        """Encrypt the body in one call."""
        self._client.put_object(**OBJECT, Body=self._body)

    def get(self) -> None:
        """Decrypt and verify the object, and then read it."""
        self._read(self._client)

    def upload(self) -> None:
        """Encrypt the body in parts of 8 MiB, the default."""
        self._client.upload_fileobj(io.BytesIO(self._body), "bucket", "key")

    def get_unverified(self) -> None:
        """Decrypt the object while it is read, and verify it at the end."""
        self._read(self._delayed)

    def get_range(self) -> str:
        """Return what a get with a range does."""
        try:
            self._client.get_object(**OBJECT, Range=f"bytes=0-{MiB - 1}")
        except S3EncryptionClientError as error:
            return f"`{type(error).__name__}: {error}`"
        return "supported."

    def _read(self, client: S3EncryptionClient) -> None:
        stream, size = client.get_object(**OBJECT)["Body"], 0
        while chunk := stream.read(MiB):
            size += len(chunk)
        if size != len(self._body):
            raise RuntimeError(f"the object has {size} bytes, expected {len(self._body)}")


def main() -> None:
    """Print what was found out, and then a measurement for each work that is read."""
    size = int(sys.argv[1])
    works = Works(size)
    by_name: dict[str, Callable[[], None]] = {
        "put": works.put,
        "get": works.get,
        "upload": works.upload,
        "get unverified": works.get_unverified,
    }
    facts: dict[str, object] = {
        "version": version("amazon-s3-encryption-client-python"),
        "cryptography": version("cryptography"),
        "range": works.get_range(),
    }
    for name, work in by_name.items():
        memory = Memory()
        work()
        facts[name] = memory.peak
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        measurement = measured(size, by_name[line.strip()])
        print(json.dumps(dataclasses.asdict(measurement)), flush=True)


if __name__ == "__main__":
    main()
