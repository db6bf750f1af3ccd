"""What the two sides of a sync contain: files and objects, each under its relative path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple, TypeAlias

from trove_async.models import ObjectInfo

MTIME: Final = "mtime"
"""The metadata name of a file's time. rclone uses the same name and the same decimal form on S3."""

NANOSECONDS: Final = 1_000_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DECIMAL: Final = re.compile(r"(-?)([0-9]{1,11})(?:\.([0-9]{1,30}))?")

FileKind: TypeAlias = Literal["file", "link", "special", "error"]


class FileEntry(NamedTuple):
    """A file in a directory.

    Attributes:
        key: The path relative to the directory, with ``/`` between its segments.
        size: Size in bytes.
        mtime_ns: The time of the last change of the content, in nanoseconds since 1970.
        ctime_ns: The time of the last change of the file's inode.
        kind: ``"file"``: a regular file, or a symbolic link to one in a source. ``"link"``: a symbolic link
            that is not followed. ``"special"``: a FIFO, a socket or a device. ``"error"``: a name that exists
            and could not be examined.
        record: The record of the object that the file was downloaded from. See `VersionRecord`.
        error: The error, if `kind` is ``"error"``.
    """

    key: str
    size: int
    mtime_ns: int
    ctime_ns: int
    kind: FileKind = "file"
    record: VersionRecord | None = None
    error: Exception | None = None


class ObjectEntry(NamedTuple):
    """An object of a listing.

    Attributes:
        key: The key without the prefix.
        size: The number of bytes that a reader returns.
        modified_ns: The time of the last write, in nanoseconds since 1970. Many services report whole
            seconds.
        etag: As `ObjectInfo.etag`.
        mtime_ns: The file's time in the metadata; None if the listing does not contain it.
        checksums: As `ObjectInfo.checksums`.
        backend: The name of the backend.
        full_key: The key.
    """

    key: str
    size: int
    modified_ns: int
    etag: str | None
    mtime_ns: int | None
    checksums: Mapping[str, str]
    backend: str
    full_key: str


Entry: TypeAlias = FileEntry | ObjectEntry


def object_entry(info: ObjectInfo, prefix_length: int) -> ObjectEntry:
    """Return the entry of an object in a listing."""
    key = info.key
    return ObjectEntry(
        key[prefix_length:],
        info.size,
        nanoseconds(info.last_modified),
        info.etag,
        mtime_of(info.metadata) if info.complete else None,
        info.checksums,
        info.backend,
        key,
    )


def nanoseconds(moment: datetime) -> int:
    """Return a time in nanoseconds since 1970, without the rounding of a float."""
    return (moment - _EPOCH) // _MICROSECOND * 1000


def mtime_text(mtime_ns: int) -> str:
    """Return the time of a file in seconds, as a decimal number with nine digits after the point."""
    sign, magnitude = ("-", -mtime_ns) if mtime_ns < 0 else ("", mtime_ns)
    return f"{sign}{magnitude // NANOSECONDS}.{magnitude % NANOSECONDS:09d}"


def mtime_of(metadata: Mapping[str, str]) -> int | None:
    """Return the time of a file in an object's metadata, in nanoseconds. None: it has none, or no valid one.

    Both forms that rclone writes are understood: a decimal number (S3, Azure, Swift) and RFC 3339 (Google
    Cloud Storage).
    """
    text = metadata.get(MTIME)
    if text is None:
        return None
    match = _DECIMAL.fullmatch(text)
    if match is not None:
        sign, seconds, fraction = match.groups()
        value = int(seconds) * NANOSECONDS + int((fraction or "")[:9].ljust(9, "0"))
        return -value if sign else value
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return nanoseconds(moment) if moment.tzinfo is not None else None


class VersionRecord(NamedTuple):
    """Which version of an object a downloaded file contains. It is kept in an extended attribute.

    The record is valid while the file has the recorded size and time.

    Attributes:
        mtime_ns: The file's time after the download.
        size: The file's size after the download.
        listed_size: The object's size in the listing. It differs from `size` if the body was transformed and
            the store has no middleware.
        modified_ns: The object's time of the last write, in the listing.
        etag: The object's etag in the listing, or None.
    """

    mtime_ns: int
    size: int
    listed_size: int
    modified_ns: int
    etag: str | None

    def encode(self) -> bytes:
        """Return the value of the extended attribute."""
        numbers = f"{self.mtime_ns} {self.size} {self.listed_size} {self.modified_ns}"
        text = f"1 {numbers} {self.etag or ''}"
        return text.encode(errors="replace")

    @classmethod
    def decode(cls, value: bytes) -> VersionRecord | None:
        """Return the record in an extended attribute, or None if it is malformed."""
        fields = value.decode(errors="replace").split(" ", 5)
        if len(fields) != len(cls._fields) + 1 or fields[0] != "1":
            return None
        try:
            mtime_ns, size, listed_size, modified_ns = map(int, fields[1:5])
        except ValueError:
            return None
        return cls(mtime_ns, size, listed_size, modified_ns, fields[5] or None)
