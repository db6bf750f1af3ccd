"""Copy an object from one root to another, and verify its bytes."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final

from trove_async._checksums import compare_announced, crc32c_text, running_crc32c
from trove_async.errors import NotFoundError
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions

from ._copy import FICLONE, check_source, source_changed
from ._errors import translated
from ._metadata import Metadata
from ._objects import find
from ._publish import publish

if TYPE_CHECKING:
    from ._layout import Location
    from ._objects import ObjectFile
    from ._root import Root
    from ._staging import StagedFile
    from ._threads import CancelFlag

_CHUNK: Final = 512 * 1024
"""Bytes that are read at a time, and between checks for a cancel. They fit in the processor's cache, from
which they are hashed and written."""


def copy_between(
    origin: tuple[Root, Location],
    root: Root,
    target: Location,
    options: CopyOptions,
    cancel: CancelFlag,
) -> ObjectInfo:
    """Copy an object of another root to the target, with the metadata and conditions in `options`.

    The CRC-32C of the copied bytes is computed, compared with the recorded one, and recorded.

    Raises:
        ObjectChangedError: The source is not the version in `options.source`, or changed during the copy.
        IntegrityError: The bytes differ from the recorded checksum.
        BucketNotFoundError: The target's bucket does not exist.
        ObjectExistsError, PreconditionFailedError: A condition of `options.put` does not hold.
    """
    source_root, source = origin
    # 1. Open the source, and check that it is the expected version.
    with translated(source.bucket, source.key):
        try:
            object_file = find(source_root, source)
        except NotFoundError as error:
            raise source_changed(source) from error
    try:
        check_source(source, object_file.status, options)
        # 2. Copy it to a staged file. Check again, because another tool may have changed the source in
        #    place during the copy.
        staged = root.staging.create()
        try:
            checksum = _copy_bytes(source, object_file, staged, cancel)
            check_source(source, os.fstat(object_file.fd), options)
            # 3. Compare the checksums.
            recorded = object_file.metadata.crc32c
            compare_announced({} if recorded is None else {"crc32c": recorded}, checksum)
            compare_announced(options.put.checksums, checksum)
            # 4. Publish the staged file as the target.
            metadata = Metadata.from_options(options.put, checksum)
            return publish(root, target, staged, metadata, options=options.put, cancel=cancel)
        except BaseException:
            staged.discard()
            raise
    finally:
        object_file.close()


def _copy_bytes(
    source: Location, object_file: ObjectFile, staged: StagedFile, cancel: CancelFlag
) -> str:
    """Copy all bytes, and return their CRC-32C in base64."""
    size = object_file.status.st_size
    # 1. The usual small body: read it at once.
    if size <= _CHUNK:
        data = memoryview(_read(source, object_file.fd, size, 0))
        staged.write([data], 0, cancel)
        return crc32c_text(running_crc32c([data]))
    # 2. Share the blocks if the file system can. What was shared is read, to verify it.
    read_fd, shared = object_file.fd, False
    try:
        fcntl.ioctl(staged.fd, FICLONE, object_file.fd)
    except OSError:
        pass
    else:
        read_fd, shared = staged.fd, True
    # 3. Otherwise copy through a buffer.
    value, offset = 0, 0
    buffer = memoryview(bytearray(_CHUNK))
    while offset < size:
        cancel.check()
        count = _read_into(source, read_fd, buffer[: size - offset], offset)
        chunk = buffer[:count]
        value = running_crc32c([chunk], value)
        if not shared:
            staged.write([chunk], offset, cancel)
        offset += count
    return crc32c_text(value)


def _read(source: Location, fd: int, size: int, offset: int) -> bytes:
    """Read exactly `size` bytes."""
    with translated(source.bucket, source.key):
        data = os.pread(fd, size, offset)
    if len(data) != size:
        raise source_changed(source)  # it was truncated
    return data


def _read_into(source: Location, fd: int, buffer: memoryview, offset: int) -> int:
    """Read at least one byte, and return the number of bytes."""
    with translated(source.bucket, source.key):
        count = os.preadv(fd, [buffer], offset)
    if not count:
        raise source_changed(source)  # it was truncated
    return count
