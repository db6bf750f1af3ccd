"""Finding, storing and deleting one object: what happens in the threads."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trove_async._checksums import compare_announced, crc32c_of
from trove_async.errors import ObjectNotFoundError
from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

from ._metadata import FOREIGN, Record, decode, describe
from ._openat2 import ABSENT, READ
from ._publish import Ground, check_conditions, prune, publish, sync_removal, unlink

if TYPE_CHECKING:
    from ._layout import Spot
    from ._root import Root
    from ._threads import Stop


class Found:
    """An object's file, open. Whoever asked for it closes it."""

    __slots__ = ("fd", "record", "status")

    def __init__(self, fd: int, status: os.stat_result, record: Record) -> None:
        self.fd = fd
        self.status = status
        self.record = record

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


def find(root: Root, spot: Spot) -> Found:
    """Open the object.

    Raises:
        ObjectNotFoundError, BucketNotFoundError: It, or its bucket, is not there.
    """
    found = None if spot.plain is None else _open(root, spot, spot.plain)
    if found is None:
        root.require_bucket(spot)
        found = _open(root, spot, spot.overflow)
    if found is None:
        raise ObjectNotFoundError("there is no such object", bucket=spot.bucket, key=spot.key)
    return found


def find_nowait(root: Root, spot: Spot) -> Found | None:
    """Open the object if nothing need be waited for; None: `find` it in a thread.

    For the event loop. Only the usual case is here, a plain file that carries its own record.
    """
    if spot.plain is None or not root.is_local:
        return None
    fd = root.beneath.open_cached(spot.plain)
    if fd < 0:
        return None
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and (raw := root.read_xattr(fd)) is not None:
            found = decode(raw, status)
            return Found(fd, status, FOREIGN if found is None else found[0])
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def head(root: Root, spot: Spot) -> ObjectInfo:
    """Return all that is known of the object."""
    found = find(root, spot)
    found.close()
    return describe(spot, found.status, found.record, root.backend)


def put(
    root: Root, spot: Spot, views: Sequence[memoryview], options: PutOptions, stop: Stop
) -> ObjectInfo:
    """Store the object: write it aside, and let it take its place."""
    counted = crc32c_of(views)
    compare_announced(options.checksums, counted)
    staged = root.staging.create()
    try:
        staged.write(views, 0, stop)
        return publish(root, spot, staged, Record.of(options, counted), options=options, stop=stop)
    except BaseException:
        staged.discard()
        raise


def delete(root: Root, spot: Spot, if_match: str | None, stop: Stop) -> None:
    """Delete the object, and the directories that it leaves empty."""
    emptied: list[str] = []
    with root.locks.key(spot.bucket, spot.key, stop), Ground(root, spot) as ground:
        if ground.parent < 0:
            root.require_bucket(spot)
        check_conditions(ground.current, if_match, None)
        stop.check()
        if ground.hidden is not None:
            unlink(root, spot.overflow)
            root.sidecars.forget(spot.bucket, spot.key, ground.hidden)
            emptied.append(spot.overflow)
        if ground.plain is not None and spot.plain is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(ground.name, dir_fd=ground.parent)
            root.sidecars.forget(spot.bucket, spot.key, ground.plain)
            emptied.append(spot.plain)
    for path in emptied:
        prune(root, path)
        if root.fsync:
            sync_removal(root, path)


def _open(root: Root, spot: Spot, path: str) -> Found | None:
    while (found := _open_once(root, spot, path)) is not None:
        # A put that replaces the file, or a delete, takes its sidecar along: it may have gone
        # between the two reads. No link count tells that on every file system; the place does.
        if found.record is not FOREIGN or _is_at(root, path, found.status):
            break
        found.close()
    return found


def _is_at(root: Root, path: str, status: os.stat_result) -> bool:
    """Tell whether the file is still the one of that path."""
    try:
        fd = root.beneath.open(path, READ)
    except OSError as error:
        if error.errno in ABSENT:
            return False
        raise
    try:
        now = os.fstat(fd)
    finally:
        os.close(fd)
    return (now.st_ino, now.st_dev) == (status.st_ino, status.st_dev)


def _open_once(root: Root, spot: Spot, path: str) -> Found | None:
    try:
        fd = root.beneath.open(path, READ)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return Found(fd, status, root.read_record(spot, fd, status))
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
