"""Records of multipart uploads in a directory, so that a later process can continue them.

A record is a file of JSON lines: the upload first, then each part that the service has stored. It is locked while
a process uses it (flock, which a killed process releases). A line that was torn by a crash ends the record.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from ._documents import SentPart

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedUpload:
    """An upload that has begun.

    Attributes:
        id: The id that the service gave it.
        write_id: The write id that the service will record with the object.
        options: A fingerprint of the object's size and headers, which cannot be changed any more.
    """

    id: str
    write_id: str | None
    options: str


@dataclass(frozen=True, slots=True)
class RecordedPart:
    """A part that the service has stored: its size, its CRC-32C in base64, and the service's response."""

    size: int
    crc32c: str
    sent: SentPart


class UploadRecord:
    """The record of the upload of one object. All methods block. It is claimed by one process at a time.

    Attributes:
        upload: The upload; None: none has begun.
        parts: The parts by number.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self.upload: RecordedUpload | None = None
        self.parts: dict[int, RecordedPart] = {}
        self._read()

    @classmethod
    def claim(cls, directory: str, address: str) -> Self | None:
        """Return the record of an object, or None if another process, or another put, uses it.

        Args:
            directory: The directory of all records. It is created.
            address: The service, the bucket and the key.
        """
        path = Path(directory) / f"{hashlib.sha256(address.encode()).hexdigest()[:40]}.jsonl"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")  # noqa: SIM115, PTH123 - it stays open
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The owner of the lock may have removed the file meanwhile.
            if not _is_file(path, file):
                raise BlockingIOError  # noqa: TRY301 - as a lock that is held
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        return cls(path, file)

    def begin(self, upload: RecordedUpload) -> None:
        """Record an upload that has begun, instead of what is recorded."""
        self._file.seek(0)
        self._file.truncate()
        self.upload, self.parts = upload, {}
        self._write(
            {
                "version": _VERSION,
                "upload": upload.id,
                "write_id": upload.write_id,
                "options": upload.options,
            }
        )

    def add(self, part: RecordedPart) -> None:
        """Record a part."""
        self.parts[part.sent.number] = part
        self._write(
            {
                "number": part.sent.number,
                "size": part.size,
                "crc32c": part.crc32c,
                "etag": part.sent.etag,
                "checksums": dict(part.sent.checksums),
            }
        )

    def discard(self) -> None:
        """Remove the record."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Release the record, and keep it."""
        self._file.close()

    def _write(self, values: Mapping[str, object]) -> None:
        self._file.write(f"{json.dumps(values)}\n".encode())
        self._file.flush()

    def _read(self) -> None:
        complete = 0
        with suppress(ValueError, KeyError, TypeError, AttributeError):  # it is torn, or not ours
            for line in self._file:
                values = json.loads(line)
                if not line.endswith(b"\n"):
                    break
                if self.upload is None:
                    self.upload = _upload_of(values)
                else:
                    part = _part_of(values)
                    self.parts[part.sent.number] = part
                complete += len(line)
        self._file.seek(complete)
        self._file.truncate()


def _is_file(path: Path, file: BinaryIO) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(file.fileno())
    return (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino)


def _upload_of(values: Mapping[str, Any]) -> RecordedUpload:
    if values["version"] != _VERSION:
        raise ValueError("another version")
    return RecordedUpload(
        id=str(values["upload"]), write_id=values["write_id"], options=str(values["options"])
    )


def _part_of(values: Mapping[str, Any]) -> RecordedPart:
    sent = SentPart(
        number=int(values["number"]),
        etag=str(values["etag"]),
        checksums={str(name): str(value) for name, value in values["checksums"].items()},
    )
    return RecordedPart(int(values["size"]), str(values["crc32c"]), sent)
