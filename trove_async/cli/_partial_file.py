"""The file of a download that a later run continues."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from trove_async._checksums import CRC32C, crc32c_text, running_crc32c
from trove_async.errors import IntegrityError, ObjectChangedError
from trove_async.models import MiB, ObjectInfo


class PartialFile:
    """The bytes of one version that have arrived, in ``.NAME.trove-part`` beside the target.

    The version is recorded in the first line of ``.NAME.trove-part.json``. If it is another one, the download
    begins anew. All methods block.

    Attributes:
        size: The number of bytes that have arrived.
    """

    def __init__(self, target: Path, info: ObjectInfo, file: BinaryIO, path: Path) -> None:
        self._target = target
        self._info = info
        self._file = file
        self._path = path
        self._crc32c = 0
        self.size = 0

    @classmethod
    def open(cls, target: str, info: ObjectInfo) -> Self:
        """Open the file, and read what has arrived.

        Raises:
            ObjectChangedError: Another process downloads to the same target.
            OSError: The file cannot be used.
        """
        final = Path(target)
        path = final.with_name(f".{final.name}.trove-part")
        file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: SIM115, PTH123 - it stays open
        partial = cls(final, info, file, path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial._begin()
        except BlockingIOError:
            file.close()
            raise ObjectChangedError(f"another process downloads to {target!r}") from None
        except BaseException:
            file.close()
            raise
        return partial

    def _begin(self) -> None:
        record = self._path.with_name(f"{self._path.name}.json")
        version = json.dumps([self._info.etag, self._info.size, self._info.version_id])
        recorded = None
        with suppress(FileNotFoundError):
            recorded = record.read_text()
        if recorded != version or self._info.etag is None:
            self._file.truncate(0)
            record.write_text(version)
        while chunk := self._file.read(MiB):
            self._crc32c = running_crc32c([chunk], self._crc32c)
            self.size += len(chunk)

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        self._file.write(chunk)
        self._crc32c = running_crc32c([chunk], self._crc32c)
        self.size += len(chunk)

    def publish(self) -> None:
        """Move the complete file to the target.

        Raises:
            IntegrityError: It differs from the object. It is removed.
        """
        expected = self._info.checksums.get(CRC32C)
        is_right = expected is None or expected == crc32c_text(self._crc32c)
        if self.size != self._info.size or not is_right:
            self._remove(self._path)
            raise IntegrityError(
                f"the file that was continued differs from the object, and was removed: download {self._target}"
                " again"
            )
        self._file.flush()
        self._path.replace(self._target)
        self._remove()

    def close(self) -> None:
        """Close the file, and keep it."""
        self._file.close()

    def _remove(self, *paths: Path) -> None:
        for path in (*paths, self._path.with_name(f"{self._path.name}.json")):
            with suppress(FileNotFoundError):
                path.unlink()
