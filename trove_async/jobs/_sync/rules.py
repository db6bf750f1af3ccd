"""Decides from two listings whether an object or a file has to be transferred.

The decisions use no request. `Verdict.COMPARE` means that the listings cannot decide, and that reading the
file, or the checksums in the metadata, can.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, Literal, TypeAlias

from .entries import NANOSECONDS, FileEntry, ObjectEntry, VersionRecord

Comparison: TypeAlias = Literal["size_and_time", "size", "checksum", "none"]

COMPARISONS: Final = ("size_and_time", "size", "checksum", "none")

TICK_NS: Final = 10_000_000
"""Linux gives a file the time of the last tick of its clock, which is up to 10 ms ago (at 100 Hz)."""

_SAME_TIME_NS: Final = 2 * NANOSECONDS
"""Listings and responses may round the time of an object differently."""

_MD5: Final = re.compile(r"[0-9a-f]{32}")


class Verdict(Enum):
    """The result of a comparison."""

    SAME = "same"
    CHANGED = "changed"
    COMPARE = "compare"
    """The times are too close to decide: compare the contents by what the listing contains."""


def md5_of(entry: ObjectEntry) -> str | None:
    """Return the etag if it looks like an MD5 in hexadecimal, which it is for most objects on S3.

    If it equals the MD5 of a file, the contents are equal. If it does not, it may be no MD5: the etag of an
    object that is encrypted with a key of AWS KMS looks the same.
    """
    etag = entry.etag
    return etag if etag is not None and _MD5.fullmatch(etag) is not None else None


def upload_verdict(
    source: FileEntry, target: ObjectEntry, comparison: Comparison, now_ns: int
) -> Verdict:
    """Compare a file with the object that it would replace.

    Args:
        source: The file.
        target: The object.
        comparison: How to compare.
        now_ns: The current time, in nanoseconds since 1970.
    """
    if (verdict := _without_times(source.size, target.size, comparison)) is not None:
        return verdict
    mtime = source.mtime_ns
    if target.mtime_ns is not None:
        # The listing contains the metadata, so the file's time is known exactly.
        return Verdict.SAME if target.mtime_ns == mtime else Verdict.CHANGED
    if mtime <= target.modified_ns - TICK_NS:
        return Verdict.SAME
    # A service with whole seconds may have stored the object after the change, in the same second. A file
    # from the future is always newer than its object.
    is_unclear = _is_whole_second(target.modified_ns) and mtime < target.modified_ns + NANOSECONDS
    return Verdict.COMPARE if is_unclear or mtime > now_ns else Verdict.CHANGED


def download_verdict(source: ObjectEntry, target: FileEntry, comparison: Comparison) -> Verdict:
    """Compare an object with the file that it would replace."""
    if target.kind != "file":
        return Verdict.CHANGED
    record = target.record
    is_valid = record is not None and (
        (record.mtime_ns, record.size) == (target.mtime_ns, target.size)
    )
    size = record.listed_size if record is not None and is_valid else target.size
    if (verdict := _without_times(source.size, size, comparison)) is not None:
        return verdict
    # 1. The file has a record of the version that it contains. If it is not valid, the file was changed since.
    if record is not None:
        is_same = is_valid and _is_recorded(source, record)
        return Verdict.SAME if is_same else Verdict.CHANGED
    # 2. The listing contains the file's time.
    if source.mtime_ns is not None and source.mtime_ns == target.mtime_ns:
        return Verdict.SAME
    # 3. The file was created, or its time was set, after the object was stored.
    if source.modified_ns > target.ctime_ns:
        return Verdict.CHANGED
    is_unclear = _is_same_second(source.modified_ns, target.ctime_ns)
    return Verdict.COMPARE if is_unclear else Verdict.SAME


def copy_verdict(source: ObjectEntry, target: ObjectEntry, comparison: Comparison) -> Verdict:
    """Compare an object with the object that it would replace."""
    if (verdict := _without_times(source.size, target.size, comparison)) is not None:
        return verdict
    if source.modified_ns > target.modified_ns:
        return Verdict.CHANGED
    if source.modified_ns == target.modified_ns and _is_whole_second(source.modified_ns):
        return Verdict.SAME if source.etag == target.etag is not None else Verdict.COMPARE
    return Verdict.SAME


def _without_times(source: int, target: int, comparison: Comparison) -> Verdict | None:
    """Return the verdict on two sizes if it does not depend on times."""
    if source != target or comparison == "none":
        return Verdict.CHANGED
    if comparison == "size_and_time":
        return None
    return Verdict.SAME if comparison == "size" else Verdict.COMPARE


def _is_recorded(source: ObjectEntry, record: VersionRecord) -> bool:
    if source.etag is not None and record.etag is not None:
        # The etag decides. The time excludes an object of another bucket whose etag is equal by chance.
        is_near = abs(source.modified_ns - record.modified_ns) < _SAME_TIME_NS
        return source.etag == record.etag and is_near
    if _is_whole_second(source.modified_ns) or _is_whole_second(record.modified_ns):
        # A listing and a response may contain the same time with different precision.
        return source.modified_ns // NANOSECONDS == record.modified_ns // NANOSECONDS
    return source.modified_ns == record.modified_ns


def _is_whole_second(time_ns: int) -> bool:
    return time_ns % NANOSECONDS == 0


def _is_same_second(modified_ns: int, time_ns: int) -> bool:
    """Return whether a time is in the same second as an object's time that has no fraction."""
    return _is_whole_second(modified_ns) and modified_ns == time_ns // NANOSECONDS * NANOSECONDS
