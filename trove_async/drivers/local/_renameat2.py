"""Replace a large file without waiting until the new one is on the disk.

When rename(2) replaces a file, ext4 starts to write the new file to the disk (``auto_da_alloc`` in ext4(5)), and
xfs and btrfs do the same in some cases. This protects programs that do not call fsync, and takes 150 ms for a file
of 256 MiB. A driver without `fsync` promises nothing about a power cut, so it exchanges the two files by
renameat2(2) and removes the old one, which takes 11 ms. For small files, the additional calls cost more than they
save.
"""

from __future__ import annotations

import ctypes
import os
import stat
from typing import Final

_RENAME_EXCHANGE: Final = 2  # linux/include/uapi/linux/fs.h
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28


def replace_by_exchange(directory: int, name: str, target_directory: int, target: str) -> bool:
    """Replace an existing file atomically. Return False, without a change, if that is not possible.

    Args:
        directory: The descriptor of the directory of the new file.
        name: The name of the new file. If this returns True, no file has this name any more.
        target_directory: The descriptor of the directory of the file to replace.
        target: The name of the file to replace.

    Raises:
        OSError: The file was replaced, but the old one cannot be removed. It has the name `name`.
    """
    # 1. rename(2) would refuse to replace a directory, but an exchange does not.
    try:
        status = os.stat(target, dir_fd=target_directory, follow_symlinks=False)
    except OSError:
        return False
    if not stat.S_ISREG(status.st_mode) or not _exchange(directory, name, target_directory, target):
        return False
    # 2. Remove the old file. If another tool has put a directory there meanwhile, put it back.
    try:
        os.unlink(name, dir_fd=directory)
    except (IsADirectoryError, PermissionError):
        if _exchange(directory, name, target_directory, target):
            return False
        raise
    return True


def _exchange(directory: int, name: str, target_directory: int, target: str) -> bool:
    """Exchange two files. Return False if one is missing, or the system or the file system cannot do it."""
    if _renameat2 is None:
        return False
    result: int = _renameat2(
        directory, os.fsencode(name), target_directory, os.fsencode(target), _RENAME_EXCHANGE
    )
    return result == 0
