"""Other libraries and commands that encrypt bodies, measured in memory.

Tink and pyrage run in this process. rclone is a command, and the Amazon S3 Encryption Client runs in a
process of its own.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

import pyrage
from _harness import Measurement, MiB, measured, memory_folder
from tink import proto_keyset_format, secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

streaming_aead.register()

HERE = Path(__file__).parent
# Created by `make bench`. The client does not allow the versions of `cryptography` that we require.
S3_ENCRYPTION_PYTHON = HERE.parent / ".venv-s3-encryption/bin/python"
MAX_S3_ENCRYPTION_SIZE = 256  # MiB: the client copies a whole body several times


class Peer(Protocol):
    """What is compared: it writes and reads one body, and measures how long that takes.

    Attributes:
        name: The name in the tables.
        encrypts: Whether it encrypts. If not, it is only a reference for another peer.
    """

    name: str
    encrypts: bool

    def write(self) -> Measurement:
        """Encrypt the body, in MiB."""

    def read(self) -> Measurement:
        """Decrypt the body, in MiB."""


@contextmanager
def encryption_peers(key: bytes, chunks: Sequence[bytes]) -> Iterator[tuple[list[Peer], list[str]]]:
    """Prepare all peers that are installed, and notes on them and on those that are not.

    Args:
        key: The key of Tink, 32 bytes.
        chunks: The body, in chunks of 1 MiB.
    """
    with ExitStack() as stack:
        peers: list[Peer] = [Tink(key, chunks), Age(chunks)]
        notes = []
        for found in (
            stack.enter_context(_rclone(chunks)),
            stack.enter_context(_s3_encryption_client(len(chunks))),
        ):
            peers += found[0]
            notes.append(found[1])
        yield peers, notes


class _Sink(io.RawIOBase):
    """A file that drops what is written."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return memoryview(data).nbytes  # type: ignore[arg-type]  # bytes-like


class _Kept(io.BytesIO):
    """Bytes that can be read after Tink has closed the stream."""

    def close(self) -> None:
        pass


class Tink:
    """Tink's streaming AEAD, in the format of our encryption.

    Args:
        key: The key, 32 bytes.
        chunks: The body.
    """

    name = "Tink"
    encrypts = True

    def __init__(self, key: bytes, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks
        streaming_key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(
            key_value=key,
            params=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
                ciphertext_segment_size=MiB,
                derived_key_size=32,
                hkdf_hash_type=common_pb2.SHA256,
            ),
        )
        data = tink_pb2.KeyData(
            type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
            value=streaming_key.SerializeToString(),
            key_material_type=tink_pb2.KeyData.SYMMETRIC,
        )
        entry = tink_pb2.Keyset.Key(
            key_data=data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW
        )
        keyset = tink_pb2.Keyset(primary_key_id=1, key=[entry]).SerializeToString()
        handle = proto_keyset_format.parse(keyset, secret_key_access.TOKEN)
        self._streams = handle.primitive(streaming_aead.StreamingAead)
        self._encrypted = _Kept()
        self._encrypt_to(self._encrypted)

    def _encrypt_to(self, file: io.RawIOBase | io.BytesIO) -> None:
        with self._streams.new_encrypting_stream(file, b"") as stream:
            for chunk in self._chunks:
                stream.write(chunk)

    def write(self) -> Measurement:
        """Encrypt the body, and drop the result."""
        return measured(len(self._chunks), lambda: self._encrypt_to(_Sink()))

    def read(self) -> Measurement:
        """Decrypt the body, and drop it."""
        return measured(len(self._chunks), self._decrypt)

    def _decrypt(self) -> None:
        self._encrypted.seek(0)
        with self._streams.new_decrypting_stream(self._encrypted, b"") as stream:
            while stream.read(MiB):
                pass


class Age:
    """The format of age, by pyrage, which processes whole bodies in memory.

    Args:
        chunks: The body.
    """

    name = "pyrage"
    encrypts = True

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._identity = pyrage.x25519.Identity.generate()
        self._body = b"".join(chunks)
        self._encrypted = pyrage.encrypt(self._body, [self._identity.to_public()])

    def write(self) -> Measurement:
        """Encrypt the body, and drop the result."""
        recipients = [self._identity.to_public()]
        return measured(len(self._body) / MiB, lambda: pyrage.encrypt(self._body, recipients))

    def read(self) -> Measurement:
        """Decrypt the body, and drop it."""
        return measured(
            len(self._body) / MiB, lambda: pyrage.decrypt(self._encrypted, [self._identity])
        )


class Rclone:
    """The command rclone, with or without a crypt remote over a folder.

    A write is ``rclone rcat`` from a file to the folder, and a read is ``rclone cat`` from the folder to
    /dev/null. Each runs in a new process. The start of the process and the derivation of the keys are not
    counted: the shortest of five runs of the same command on one byte is subtracted. No configuration file is
    read.

    The folder is wrapped in a crypt remote that does not encrypt, because such a remote has no hashes. Over a
    plain folder, a crypt remote computes the MD5 of what it writes, reads it back and takes twice as long.

    Args:
        command: The path of the command.
        body: The file to write.
        folder: An empty folder for what is written.
        encrypts: Whether to encrypt.
    """

    def __init__(self, command: str, body: Path, folder: Path, *, encrypts: bool) -> None:
        self.name = "rclone crypt" if encrypts else "rclone without crypt"
        self.encrypts = encrypts
        self._command = command
        self._remote = "encrypted:" if encrypts else "folder:"
        self._body = body
        self._folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")},
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_LOG_LEVEL": "ERROR",
            "RCLONE_CRYPT_FILENAME_ENCRYPTION": "off",
            "RCLONE_CRYPT_DIRECTORY_NAME_ENCRYPTION": "false",
            "RCLONE_CONFIG_FOLDER_TYPE": "crypt",
            "RCLONE_CONFIG_FOLDER_REMOTE": str(folder),
            "RCLONE_CONFIG_FOLDER_NO_DATA_ENCRYPTION": "true",
            "RCLONE_CONFIG_ENCRYPTED_TYPE": "crypt",
            "RCLONE_CONFIG_ENCRYPTED_REMOTE": "folder:",
        }
        password = subprocess.run(  # noqa: S603 - a fixed command
            [command, "obscure", secrets.token_urlsafe()],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        self._environment["RCLONE_CRYPT_PASSWORD"] = password

        byte = folder / "byte"
        byte.write_bytes(b"x")
        self.write_start = self._shortest([self._write(byte, "small") for _ in range(5)])
        self.read_start = self._shortest([self._read("small") for _ in range(5)])
        self._write(body, "stored")

    @staticmethod
    def _shortest(starts: Sequence[Measurement]) -> Measurement:
        # Not the median: on a busy machine, it can exceed the time of a whole read.
        return Measurement(
            amount=0,
            seconds=min(start.seconds for start in starts),
            cpu=min(start.cpu for start in starts),
        )

    def write(self) -> Measurement:
        """Write the body to the folder, and remove it."""
        measurement = self._write(self._body, "written")
        shutil.rmtree(self._folder / "written")
        return self._without(self.write_start, measurement)

    def read(self) -> Measurement:
        """Read the body from the folder, and drop it."""
        return self._without(self.read_start, self._read("stored"))

    def _without(self, start: Measurement, measurement: Measurement) -> Measurement:
        return Measurement(
            amount=self._body.stat().st_size / MiB,
            # A small body can take less than the start on one byte did.
            seconds=max(measurement.seconds - start.seconds, 0.001),
            cpu=max(measurement.cpu - start.cpu, 0.0),
        )

    def _write(self, body: Path, directory: str) -> Measurement:
        with body.open("rb") as source:
            return measured(1, lambda: self._run("rcat", directory, source))

    def _read(self, directory: str) -> Measurement:
        return measured(1, lambda: self._run("cat", directory, subprocess.DEVNULL))

    def _run(self, verb: str, directory: str, source: IO[bytes] | int) -> None:
        subprocess.run(  # noqa: S603 - a fixed command
            [self._command, verb, f"{self._remote}{directory}/body"],
            env=self._environment,
            stdin=source,
            stdout=subprocess.DEVNULL,
            check=True,
        )


@contextmanager
def _rclone(chunks: Sequence[bytes]) -> Iterator[tuple[list[Peer], str]]:
    """Prepare rclone, with crypt and without, and a note."""
    command = shutil.which("rclone")
    if command is None:
        yield [], "Not measured: the command rclone is not installed."
        return
    version = subprocess.run(  # noqa: S603 - a fixed command
        [command, "--config", os.devnull, "version"], check=True, capture_output=True, text=True
    ).stdout.splitlines()[0]
    with memory_folder() as directory:
        body, plain, encrypted = (Path(directory, name) for name in ("body", "plain", "encrypted"))
        plain.mkdir()
        encrypted.mkdir()
        with body.open("wb") as file:
            file.writelines(chunks)
        crypt = Rclone(command, body, encrypted, encrypts=True)
        without = Rclone(command, body, plain, encrypts=False)
        note = (
            f"{version} writes to a folder of {Path(directory).parent}, and reads from it, without checksums."
            f" The start of its process is not counted: {crypt.write_start.seconds:.2f} s for a write and"
            f" {crypt.read_start.seconds:.2f} s for a read."
        )
        yield [crypt, without], note


class S3EncryptionClient:
    """The Amazon S3 Encryption Client for Python, which measures itself in a process of its own.

    Args:
        process: The process that runs ``_s3_encryption_client.py``.
        name: The name in the tables.
        write: The work that the process does for a write.
        read: The work that the process does for a read.
    """

    encrypts = True

    def __init__(self, process: subprocess.Popen[str], name: str, *, write: str, read: str) -> None:
        self.name = name
        self._process = process
        self._write = write
        self._read = read

    def write(self) -> Measurement:
        """Encrypt the body, and drop the result."""
        return self._measure(self._write)

    def read(self) -> Measurement:
        """Decrypt the body, and drop it."""
        return self._measure(self._read)

    def _measure(self, work: str) -> Measurement:
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        print(work, file=self._process.stdin, flush=True)
        return Measurement(**json.loads(_line(self._process)))


def _line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints.

    Raises:
        RuntimeError: The process ended.
    """
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a peer's process ended with status {process.wait()}")
    return line


@contextmanager
def _s3_encryption_client(size: int) -> Iterator[tuple[list[Peer], str]]:
    """Start the process of the Amazon S3 Encryption Client, and return its two modes and a note."""
    if not S3_ENCRYPTION_PYTHON.exists():
        yield [], "Not measured: the Amazon S3 Encryption Client is not installed."
        return
    size = min(size, MAX_S3_ENCRYPTION_SIZE)
    with subprocess.Popen(  # noqa: S603 - a fixed command
        [str(S3_ENCRYPTION_PYTHON), str(HERE / "_s3_encryption_client.py"), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        facts = json.loads(_line(process))
        name = "Amazon S3 Encryption Client"
        note = (
            f"{name} {facts['version']} encrypts {size} MiB, with cryptography {facts['cryptography']}."
            f" `put_object` adds {facts['put']:.0f} MiB to its memory, and `get_object`"
            f" {facts['get']:.0f} MiB. In parts, `upload_fileobj` adds {facts['upload']:.0f} MiB, and"
            f" `get_object` with `enable_delayed_authentication`, which returns bytes before it verifies"
            f" them, {facts['get unverified']:.0f} MiB. A `get_object` with a range: {facts['range']}"
        )
        yield (
            [
                S3EncryptionClient(process, name, write="put", read="get"),
                S3EncryptionClient(
                    process, f"{name}, in parts", write="upload", read="get unverified"
                ),
            ],
            note,
        )
