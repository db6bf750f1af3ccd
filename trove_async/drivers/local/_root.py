"""The open root, the driver's area in it, and the features of its file system."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trove_async.errors import ConfigError
from trove_async.pool import SLOT

from ._errors import missing_bucket
from ._layout import AREA, PROBE, Layout, is_folding
from ._locks import Locks
from ._metadata import NO_METADATA, decode, decode_owner
from ._openat2 import ABSENT, DIRECTORY, READ, ConfinedDirectory
from ._sidecars import Sidecars, sidecar_name
from ._snapshots import Snapshots
from ._staging import XATTR, Staging

if TYPE_CHECKING:
    from ._layout import Location
    from ._metadata import Metadata

_LOCAL_FILE_SYSTEMS: Final = frozenset(
    (
        0xEF53,  # ext2, ext3, ext4; all values: linux/include/uapi/linux/magic.h
        0x58465342,  # XFS
        0x9123683E,  # Btrfs
        _TMPFS := 0x01021994,
        0x794C7630,  # overlayfs
        0xF2F52010,  # F2FS
    )
)

# Upper bounds of the resolution of a directory's times. Linux takes them from its timer ticks, every
# 10 ms or less. File systems not in `_LOCAL_FILE_SYSTEMS` may round them further (VFAT: to 2 s).
_LOCAL_TICK_NS = 50_000_000
_OTHER_TICK_NS = 2_000_000_000

_NO_SUBDIRECTORIES: Final = 2
"""Number of links of a directory without subdirectories: its name and its ``.``. Some of
`_LOCAL_FILE_SYSTEMS` do not count links like this, and report a smaller number (Btrfs: 1). Other file systems
may report 2 for every directory (CIFS: linux/fs/smb/client/inode.c; many file systems in user
space)."""

_OVERFLOW: Final = "overflow"
_META: Final = "meta"
_STAGING: Final = "staging"

# getxattr(2): the file does not have the attribute, or attributes are not supported. Some file systems and
# sandboxes report the missing support as EPERM or ENOSYS.
_NO_XATTR: Final = frozenset((errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.ENOSYS))

_READ_ONLY: Final = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))
"""Errors of creating a file that mean that this process may not write to the root."""

# A sweep checks only some sidecars, so that opening a large root stays fast.
_MAX_SWEPT_SIDECARS = 1000
_MIN_SWEPT_AGE = 600.0  # the file of a younger sidecar may still be staged


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The arguments of a LocalDriver that concern its root.

    The last four simulate a different system, for tests.
    """

    root: str
    fsync: bool
    mkdir: bool
    file_mode: int
    dir_mode: int
    openat2: bool = True
    ofd_locks: bool = True
    xattrs: bool = True
    folding: bool = False


@dataclass(frozen=True, slots=True)
class _Area:
    """The parts of a root that only writers use."""

    locks: Locks
    staging: Staging


class Root:
    """An open root. Its methods may block.

    Attributes:
        path: The root's path, without symbolic links.
        settings: The arguments of the driver.
        backend: The name of the backend.
        fsync: Whether writes must survive a power cut.
        confined: Opens paths below the root.
        layout: The rules that map keys to paths.
        xattrs: Whether extended attributes are used for metadata.
        sidecars: Metadata that does not fit in extended attributes.
        snapshots: The cache of the names in listed directories.
        is_local: Whether the file system is one of `_LOCAL_FILE_SYSTEMS`. If so, a cached path can be
            opened without waiting, and a directory with two links has no subdirectories.
        read_flags: Flags with which preadv(2) reads only cached data and never waits; None if this
            is not supported.
    """

    def __init__(self, settings: Settings, backend: str = "", *, writable: bool = True) -> None:
        """Open the root, create its area if it is missing, and remove files of killed processes.

        A root that this process may not write to is opened for reading only, and so is every root if
        `writable` is False. Then nothing is created or changed in it.

        Raises:
            ConfigError: The root is not a directory, or this system cannot confine paths.
            OSError: The root or its area cannot be opened.
        """
        self.settings = settings
        self.backend = backend
        self.fsync = settings.fsync
        self.xattrs = False
        self.read_flags: int | None = None
        self.layout = Layout(folding=settings.folding)
        self._area: _Area | None = None
        _check_platform()
        with ExitStack() as stack:
            # 1. Open the directory, and find out what its file system supports.
            self._fd = fd = _open_root(stack, settings, writable=writable)
            self.path = os.path.realpath(settings.root)
            self.confined = ConfinedDirectory(fd, openat2=settings.openat2)
            kind = _file_system_type(fd)
            self.is_local = kind in _LOCAL_FILE_SYSTEMS
            self.snapshots = Snapshots(_LOCAL_TICK_NS if self.is_local else _OTHER_TICK_NS)
            # 2. Open the area for writing. If that is not permitted, open it for reading.
            self._write_errno = 0 if writable else errno.EROFS
            if writable:
                try:
                    with ExitStack() as area_stack:
                        self._open_area(area_stack, kind)
                        stack.push(area_stack.pop_all())
                except OSError as error:
                    if error.errno not in _READ_ONLY:
                        raise
                    self._write_errno = error.errno
            if self._write_errno:
                self._area = None
                self._open_area_read_only(stack, kind)
            # 3. Keep everything open until `close`.
            self._stack = stack.pop_all()

    def _open_area(self, stack: ExitStack, kind: int) -> None:
        settings = self.settings
        area = self._open_or_create(stack, self._fd, AREA)
        self._overflow = self._open_or_create(stack, area, _OVERFLOW)
        locks = Locks(area, settings.file_mode, ofd=settings.ofd_locks)
        stack.callback(locks.close)
        self.sidecars = Sidecars(
            self._open_or_create(stack, area, _META), settings.file_mode, fsync=settings.fsync
        )
        staging = Staging(
            self._open_or_create(stack, area, _STAGING),
            self.sidecars,
            file_mode=settings.file_mode,
            dir_mode=settings.dir_mode,
            fsync=settings.fsync,
        )
        stack.callback(staging.close)
        self._area = _Area(locks, staging)
        self._probe(kind)
        self.sweep()

    def _open_area_read_only(self, stack: ExitStack, kind: int) -> None:
        """Open the existing parts of the area for reading.

        Raises:
            OSError: This process may not read the area. If this were ignored, some objects would seem
                to be missing, and others to have no metadata.
        """
        area = _open_existing(stack, self._fd, AREA)
        self._overflow = _open_existing(stack, area, _OVERFLOW)
        self.sidecars = Sidecars(
            _open_existing(stack, area, _META), self.settings.file_mode, fsync=False
        )
        self.xattrs = self.settings.xattrs and hasattr(os, "getxattr")
        self.read_flags = 0 if kind == _TMPFS else None
        self.layout = Layout(folding=self.settings.folding or _ignores_case(self._fd))

    @cached_property
    def scratch(self) -> memoryview:
        """`SLOT` bytes of page-aligned memory, for reads on the event loop that end before its next step."""
        return memoryview(mmap.mmap(-1, SLOT, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    @property
    def locks(self) -> Locks:
        """The locks of the keys.

        Raises:
            OSError: The root is open for reading only.
        """
        return self._writable.locks

    @property
    def staging(self) -> Staging:
        """The staging directory.

        Raises:
            OSError: The root is open for reading only.
        """
        return self._writable.staging

    @property
    def _writable(self) -> _Area:
        if self._area is None:
            raise OSError(self._write_errno, os.strerror(self._write_errno), self.path)
        return self._area

    def close(self) -> None:
        """Close all files."""
        self._stack.close()

    def ping(self) -> None:
        """Raise OSError if the root was removed or its file system fails."""
        os.stat(".", dir_fd=self._fd)
        Path(self.path).stat()

    def require_bucket(self, location: Location) -> None:
        """Raise BucketNotFoundError if the bucket has no directory."""
        if not self.confined.is_directory(location.directory):
            raise missing_bucket(location.bucket)

    def has_overflow(self, location: Location) -> bool:
        """Return whether keys of the bucket may be in the overflow. Most buckets have none there."""
        if self._overflow < 0:
            return False  # the root is open for reading only, and has no overflow
        if self.is_local and os.fstat(self._overflow).st_nlink == _NO_SUBDIRECTORIES:
            return False
        try:
            os.stat(location.directory, dir_fd=self._overflow, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def open_parent(self, path: str) -> tuple[int, str]:
        """Open the directory that contains `path`. Return its descriptor and the last component."""
        parent, _, name = path.rpartition("/")
        return self.confined.open_directory(parent), name

    @property
    def fd(self) -> int:
        """The descriptor of the root."""
        return self._fd

    def read_metadata(self, location: Location, fd: int, status: os.stat_result) -> Metadata:
        """Return the metadata of an open file, or `NO_METADATA` if it has no valid record."""
        raw = self.read_xattr(fd)
        if raw is None:
            return self.sidecars.read(location.bucket, location.key, status)
        record = decode(raw, status)
        return NO_METADATA if record is None else record[0]

    def read_xattr(self, fd: int) -> bytes | None:
        """Return the encoded record in an open file's extended attribute, or None if it has none.

        Raises:
            OSError: The attribute cannot be read. If this were ignored, the object would seem to have
                no metadata and no checksum.
        """
        if not self.xattrs:
            return None
        try:
            return os.getxattr(fd, XATTR)
        except OSError as error:
            if error.errno in _NO_XATTR:
                return None
            raise

    def sweep(self) -> None:
        """Remove files of killed processes. From a sample of sidecars, remove those without a file."""
        self.staging.sweep()
        for name, raw in self.sidecars.sample(_MAX_SWEPT_SIDECARS, _MIN_SWEPT_AGE):
            if not self._file_exists(name, raw):
                self.sidecars.remove(name)

    def _file_exists(self, name: str, raw: bytes) -> bool:
        """Return whether the file of a sidecar may still exist."""
        owner = decode_owner(raw)
        if owner is None:
            return False
        location = self.layout.locate(*owner)
        for path in (location.plain, location.overflow):
            if path is None:
                continue
            try:
                fd = self.confined.open(path, READ)
                try:
                    status = os.fstat(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                if error.errno in ABSENT:
                    continue
                return True  # the file may exist: it merely cannot be opened now
            if sidecar_name(status) == name:
                return True
        return False

    def _open_or_create(self, stack: ExitStack, parent: int, name: str) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, self.settings.dir_mode, dir_fd=parent)
        fd = os.open(name, DIRECTORY, dir_fd=parent)
        stack.callback(os.close, fd)
        return fd

    def _probe(self, kind: int) -> None:
        """Find out what the file system supports, with a staged file and a file `PROBE`."""
        # 1. Reads without waiting, and extended attributes.
        staged = self.staging.create()
        try:
            os.write(staged.fd, b"?")
            self.read_flags = _read_flags(staged.fd, kind)
            if self.settings.xattrs and hasattr(os, "setxattr"):
                with contextlib.suppress(OSError):
                    os.setxattr(staged.fd, XATTR, b"?")
                    self.staging.xattrs = self.xattrs = True
        finally:
            staged.discard()
        # 2. Folding of names.
        directory = self.staging.directory

        def exists(name: str) -> bool:
            try:
                os.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                return False
            return True

        try:
            os.close(os.open(PROBE, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=directory))
            folding = is_folding(exists)
            os.unlink(PROBE, dir_fd=directory)
        except OSError:  # the file system cannot hold such a name at all
            folding = True
        self.layout = Layout(folding=folding or self.settings.folding)


# Functions are compared by name: a tool that detects blocking calls may have replaced them.
_CAN_CONFINE: Final = hasattr(os, "O_NOFOLLOW") and (
    {"open", "mkdir", "rmdir", "unlink", "rename", "stat", "link"}
    <= {call.__name__ for call in os.supports_dir_fd}
)


def _check_platform() -> None:
    if not _CAN_CONFINE:
        raise ConfigError(
            "the local driver requires openat(2) to confine paths to the root, but this system does"
            " not have it"
        )
    encoding = sys.getfilesystemencoding()
    if encoding.lower() != "utf-8":
        raise ConfigError(
            f"file names must be in UTF-8, got {encoding}: run Python in its UTF-8 mode (-X utf8)"
        )


def _open_root(stack: ExitStack, settings: Settings, *, writable: bool) -> int:
    try:
        if settings.mkdir and writable:
            Path(settings.root).mkdir(settings.dir_mode, parents=True, exist_ok=True)
        fd = os.open(settings.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
        problem = _root_problem(settings, writable=writable)
        raise ConfigError(f"the root {settings.root!r} {problem}") from error
    stack.callback(os.close, fd)
    return fd


def _root_problem(settings: Settings, *, writable: bool) -> str:
    """Return why a root cannot be opened, and what to do, as the end of a sentence."""
    path = Path(settings.root).absolute()
    for ancestor in (*reversed(path.parents), path):
        if not os.path.lexists(ancestor):
            missing = "" if ancestor == path else f": {str(ancestor)!r} is missing"
            if not writable:
                return f"does not exist{missing}; a read-only backend does not create it"
            failure = " and cannot be created" if settings.mkdir else ""
            advice = "" if settings.mkdir else "; create it, or pass mkdir=True"
            return f"does not exist{failure}{missing}{advice}"
        if not ancestor.is_dir():
            subject = "it" if ancestor == path else repr(str(ancestor))
            return f"is not a directory: {subject} is a file or a broken link"
    return "was removed while it was opened"


def _open_existing(stack: ExitStack, parent: int, name: str) -> int:
    """Open a directory. Return -1 if it does not exist, or if `parent` is -1."""
    if parent < 0:
        return -1
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return -1
    stack.callback(os.close, fd)
    return fd


def _ignores_case(fd: int) -> bool:
    """Return whether a directory also finds its entries by names with upper and lower case swapped.

    This is the check for a root that is open for reading only, where no probe can be created.
    """
    with os.scandir(fd) as entries:
        for entry in entries:
            swapped = entry.name.swapcase()
            if swapped == entry.name:
                continue
            with contextlib.suppress(OSError):
                status = os.stat(swapped, dir_fd=fd, follow_symlinks=False)
                return status.st_ino == entry.inode()
            return False
    return False


class _StatFs(ctypes.Structure):
    """The first field of ``struct statfs`` (statfs(2)), and more than enough space for the others."""

    _fields_ = (("type", ctypes.c_long), ("padding", ctypes.c_byte * 248))


def _file_system_type(fd: int) -> int:
    """Return the magic number of the file system's type, or 0 if it is unknown."""
    buffer = _StatFs()
    if sys.platform != "linux" or ctypes.CDLL(None).fstatfs(fd, ctypes.byref(buffer)) != 0:
        return 0
    kind: int = buffer.type
    return kind & 0xFFFFFFFF


def _read_flags(fd: int, kind: int) -> int | None:
    """Return the value of `Root.read_flags`. `fd` is a file for a test read, and must not be empty."""
    if kind == _TMPFS:
        return 0  # its files are in memory; it does not support RWF_NOWAIT
    if kind not in _LOCAL_FILE_SYSTEMS or not hasattr(os, "RWF_NOWAIT"):
        return None
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError as error:
        return os.RWF_NOWAIT if error.errno == errno.EAGAIN else None
    return os.RWF_NOWAIT
