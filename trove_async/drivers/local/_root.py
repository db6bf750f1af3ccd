"""The open root, the driver's area in it, and the features of its file system."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trove_async.errors import ConfigError

from ._errors import missing_bucket
from ._layout import AREA, PROBE, Layout, is_folding
from ._locks import Locks
from ._metadata import NO_METADATA, decode, decode_owner
from ._openat2 import DIRECTORY, READ, ConfinedDirectory
from ._sidecars import Sidecars, sidecar_name
from ._snapshots import Snapshots
from ._staging import XATTR, Staging

if TYPE_CHECKING:
    from ._layout import Location
    from ._metadata import Metadata

_LOCAL_FILE_SYSTEMS: Final = frozenset(
    (
        0xEF53,  # ext2, ext3, ext4: linux/include/uapi/linux/magic.h, and the following
        0x58465342,  # XFS
        0x9123683E,  # Btrfs
        _TMPFS := 0x01021994,
        0x794C7630,  # overlayfs
        0xF2F52010,  # F2FS
    )
)

_LOCAL_TICK = 50_000_000
_REMOTE_TICK = 2_000_000_000

_NO_SUBDIRECTORIES: Final = 2
"""Links of a directory that has none: its name and its ``.``. Where one of
`_LOCAL_FILE_SYSTEMS` does not count links so, there are fewer (1 on Btrfs), and one looks. Others may
say 2 of every directory (CIFS: linux/fs/smb/client/inode.c; many in user space), and are not asked."""

_OVERFLOW: Final = "overflow"
_META: Final = "meta"

_READ_ONLY: Final = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))
"""Errors of creating a file where this process may not write."""

_SWEPT_SIDECARS = 1000
_SWEPT_AGE = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The arguments of a LocalDriver. The last four switch off features, for tests."""

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
    """An open root. All its methods block.

    Attributes:
        path: The real path.
        settings: The arguments of the driver.
        backend: The name of the backend.
        beneath: Its paths.
        layout: The paths of keys.
        xattrs: Whether files support extended attributes.
        sidecars: Metadata that does not fit extended attributes.
        snapshots: The cache of listed directories.
        is_local: Whether the file system is one of the kernel's own: a path that is in its cache
            can be opened without waiting, and a directory's links are counted.
        read_flags: How preadv(2) reads what is in the cache, and nothing else; None: it cannot.
    """

    def __init__(self, settings: Settings, backend: str = "") -> None:
        """Open the root: create the area if it is missing, and sweep what dead processes left in it.

        A root where this process may not write is opened for reading, and nothing is created or
        written in it.

        Raises:
            ConfigError: The root is not a directory, or this system cannot confine paths.
        """
        self.settings = settings
        self.backend = backend
        self.fsync = settings.fsync
        self.xattrs = False
        self.read_flags: int | None = None
        self.layout = Layout(folding=settings.folding)
        self._area: _Area | None = None
        self._refusal = 0
        _check_platform()
        with ExitStack() as opened:
            self._fd = fd = _directory(opened, settings)
            self.path = os.path.realpath(settings.root)
            self.confined = ConfinedDirectory(fd, openat2=settings.openat2)
            kind = _file_system(fd)
            self.is_local = kind in _LOCAL_FILE_SYSTEMS
            self.snapshots = Snapshots(_LOCAL_TICK if self.is_local else _REMOTE_TICK)
            try:
                with ExitStack() as writable:
                    self._open_area(writable, kind)
                    opened.push(writable.pop_all())
            except OSError as error:
                if error.errno not in _READ_ONLY:
                    raise
                self._refusal = error.errno
                self._area = None
                self._read_area(opened, kind)
            self._opened = opened.pop_all()

    def _open_area(self, opened: ExitStack, kind: int) -> None:
        settings = self.settings
        area = self._open_own(opened, self._fd, AREA)
        self._overflow = self._open_own(opened, area, _OVERFLOW)
        locks = Locks(area, settings.file_mode, ofd=settings.ofd_locks)
        opened.callback(locks.close)
        self.sidecars = Sidecars(
            self._open_own(opened, area, _META), settings.file_mode, fsync=settings.fsync
        )
        staging = Staging(
            self._open_own(opened, area, "staging"),
            self.sidecars,
            file_mode=settings.file_mode,
            dir_mode=settings.dir_mode,
            fsync=settings.fsync,
        )
        opened.callback(staging.close)
        self._area = _Area(locks, staging)
        self._probe(kind)
        self.sweep()

    def _read_area(self, opened: ExitStack, kind: int) -> None:
        """Open the existing parts of the area for reading.

        Raises:
            OSError: There is an area that this process may not read. Without it, objects would be
                missing, and others would be without their metadata.
        """
        area = _existing(opened, self._fd, AREA)
        self._overflow = _existing(opened, area, _OVERFLOW)
        self.sidecars = Sidecars(
            _existing(opened, area, _META), self.settings.file_mode, fsync=False
        )
        self.xattrs = self.settings.xattrs and hasattr(os, "getxattr")
        self.read_flags = 0 if kind == _TMPFS else None
        self.layout = Layout(folding=self.settings.folding or _ignores_case(self._fd))

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
            raise OSError(self._refusal, os.strerror(self._refusal), self.path)
        return self._area

    def close(self) -> None:
        """Close all files."""
        self._opened.close()

    def ping(self) -> None:
        """Raise OSError if the root was removed."""
        os.stat(".", dir_fd=self._fd)
        Path(self.path).stat()

    def require_bucket(self, location: Location) -> None:
        """Raise BucketNotFoundError if the bucket has no directory."""
        if not self.confined.exists(location.directory):
            raise missing_bucket(location.bucket)

    def has_overflow(self, location: Location) -> bool:
        """Return whether any key of the bucket may be in the overflow: most buckets have none."""
        if self._overflow < 0:
            return False  # read-only, and there is none
        if self.is_local and os.fstat(self._overflow).st_nlink == _NO_SUBDIRECTORIES:
            return False
        try:
            os.stat(location.directory, dir_fd=self._overflow, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def open_parent(self, path: str) -> tuple[int, str]:
        """Open the directory that `path` lies in; return its descriptor and the last name."""
        parent, _, name = path.rpartition("/")
        return self.confined.open_directory(parent), name

    @property
    def fd(self) -> int:
        """The root's own descriptor."""
        return self._fd

    def read_metadata(self, location: Location, fd: int, status: os.stat_result) -> Metadata:
        """Return the metadata of an open file, or `NO_METADATA` without a valid record."""
        raw = self.read_xattr(fd)
        if raw is None:
            return self.sidecars.read(location.bucket, location.key, status)
        found = decode(raw, status)
        return NO_METADATA if found is None else found[0]

    def read_xattr(self, fd: int) -> bytes | None:
        """Return the raw record in an open file's attribute, or None."""
        if not self.xattrs:
            return None
        try:
            return os.getxattr(fd, XATTR)
        except OSError:
            return None

    def sweep(self) -> None:
        """Remove files of killed processes, and sidecars whose file another tool removed."""
        self.staging.sweep()
        for name, raw in self.sidecars.sample(_SWEPT_SIDECARS, _SWEPT_AGE):
            if not self._is_kept(name, raw):
                self.sidecars.remove(name)

    def _is_kept(self, name: str, raw: bytes) -> bool:
        """Return whether the file of a sidecar still exists."""
        owner = decode_owner(raw)
        if owner is None:
            return False
        location = self.layout.locate(*owner)
        for path in (location.plain, location.overflow):
            if path is None:
                continue
            with contextlib.suppress(OSError):
                fd = self.confined.open(path, READ)
                try:
                    status = os.fstat(fd)
                finally:
                    os.close(fd)
                if sidecar_name(status) == name:
                    return True
        return False

    def _open_own(self, opened: ExitStack, parent: int, name: str) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, self.settings.dir_mode, dir_fd=parent)
        fd = os.open(name, DIRECTORY, dir_fd=parent)
        opened.callback(os.close, fd)
        return fd

    def _probe(self, kind: int) -> None:
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
        directory = self.staging.directory

        def exists(name: str) -> bool:
            try:
                os.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                return False
            return True

        try:
            os.close(os.open(PROBE, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=directory))
            folding = is_folding(exists, PROBE)
            os.unlink(PROBE, dir_fd=directory)
        except OSError:  # it cannot hold such a name at all
            folding = True
        self.layout = Layout(folding=folding or self.settings.folding)


# By their names: a tool that watches for calls that block may have put its own in their place.
_CAN_CONFINE: Final = hasattr(os, "O_NOFOLLOW") and (
    {"open", "mkdir", "rmdir", "unlink", "rename", "stat", "link"}
    <= {call.__name__ for call in os.supports_dir_fd}
)


def _check_platform() -> None:
    if not _CAN_CONFINE:
        raise ConfigError("this system cannot confine paths to a directory (no openat)")
    if sys.getfilesystemencoding().lower() != "utf-8":
        raise ConfigError("file names are not UTF-8 here: run Python in its UTF-8 mode (-X utf8)")


def _directory(opened: ExitStack, settings: Settings) -> int:
    try:
        if settings.mkdir:
            Path(settings.root).mkdir(settings.dir_mode, parents=True, exist_ok=True)
        fd = os.open(settings.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
        raise ConfigError(f"the root {settings.root!r} {_root_problem(settings)}") from error
    opened.callback(os.close, fd)
    return fd


def _root_problem(settings: Settings) -> str:
    """Return what is wrong with the path of a root that cannot be opened, and what to do."""
    path = Path(settings.root).absolute()
    for above in (*reversed(path.parents), path):
        if not os.path.lexists(above):
            missing = "" if above == path else f": {str(above)!r} is missing"
            advice = " and cannot be created" if settings.mkdir else ""
            hint = "" if settings.mkdir else "; create it, or pass mkdir=True"
            return f"does not exist{advice}{missing}{hint}"
        if not above.is_dir():
            what = "it" if above == path else repr(str(above))
            return f"is not a directory: {what} is a file or a broken link"
    return "was removed while it was opened"


def _existing(opened: ExitStack, parent: int, name: str) -> int:
    """Open a directory; -1 if it, or its parent, does not exist."""
    if parent < 0:
        return -1
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return -1
    opened.callback(os.close, fd)
    return fd


def _ignores_case(fd: int) -> bool:
    """Return whether a file of a directory can be opened by its name in the other case as well."""
    with os.scandir(fd) as entries:
        for entry in entries:
            other = entry.name.swapcase()
            if other == entry.name:
                continue
            with contextlib.suppress(OSError):
                found = os.stat(other, dir_fd=fd, follow_symlinks=False)
                return found.st_ino == entry.inode()
            return False
    return False


class _StatFs(ctypes.Structure):
    """The beginning of ``struct statfs`` (statfs(2)), and room for the rest of it."""

    _fields_ = (("type", ctypes.c_long), ("rest", ctypes.c_byte * 248))


def _file_system(fd: int) -> int:
    """Return the magic number of the file system's kind; 0 where it is not to be had."""
    buffer = _StatFs()
    if sys.platform != "linux" or ctypes.CDLL(None).fstatfs(fd, ctypes.byref(buffer)) != 0:
        return 0
    kind: int = buffer.type
    return kind & 0xFFFFFFFF


def _read_flags(fd: int, kind: int) -> int | None:
    """Try how a file with something in it can be read without waiting."""
    if kind == _TMPFS:
        return 0  # it is memory, though it does not know RWF_NOWAIT
    if kind not in _LOCAL_FILE_SYSTEMS or not hasattr(os, "RWF_NOWAIT"):
        return None
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError as error:
        return os.RWF_NOWAIT if error.errno == errno.EAGAIN else None
    return os.RWF_NOWAIT
