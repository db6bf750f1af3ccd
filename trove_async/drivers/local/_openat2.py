"""Open paths that cannot lead out of a directory, even while other processes change it.

On Linux 5.6 and later, one call of openat2(2) with ``RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`` does this
in 7 µs. On other systems, and in sandboxes that forbid the call, each component of the path is opened
separately with ``O_NOFOLLOW``, which takes 16 µs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Final

READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Flags to open a file of unknown type, without blocking and without following links."""

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_OPENAT2 = 437  # linux/include/uapi/asm-generic/unistd.h; only alpha has a different number
_RESOLVE_NO_MAGICLINKS = 0x02  # this and the next three: linux/include/uapi/linux/openat2.h
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_CACHED = 0x20
_CONFINED = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS

_RETRIABLE = frozenset((errno.EINTR, errno.EAGAIN))
_ATTEMPTS = 100
"""Maximum number of attempts to open a path. A signal or a rename occasionally interrupts an attempt. A
file lease (fcntl(2)) interrupts all attempts while it lasts."""

ABSENT: Final = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,  # a component is a symbolic link
        errno.EXDEV,  # openat2: the path would leave the root
        errno.ENXIO,  # a socket, or a special file without its device
        errno.ENODEV,
        errno.ENAMETOOLONG,
        errno.EINVAL,  # a name that this file system cannot hold
        errno.EILSEQ,
    )
)
"""Errors that mean that there is no object at a path."""


class _OpenHow(ctypes.Structure):
    """``struct open_how`` of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class ConfinedDirectory:
    """An open directory, and operations on the paths below it.

    Args:
        directory: The descriptor of the directory. The caller closes it.
        openat2: False to open each component separately even if openat2 is available.

    Attributes:
        has_cached: Whether `open_cached` works: the kernel supports ``RESOLVE_CACHED``.
    """

    __slots__ = (
        "_arguments",
        "_cached",
        "_cached_directory",
        "_directory",
        "_syscall",
        "_syscall_with_gil",
        "has_cached",
    )

    def __init__(self, directory: int, *, openat2: bool = True) -> None:
        self._directory = directory
        self._arguments: dict[int, ctypes.c_void_p] = {}
        self._syscall = self._syscall_with_gil = None
        self.has_cached = False
        if openat2 and sys.platform == "linux":
            self._syscall = _syscall(ctypes.CDLL(None, use_errno=True))
            # PyDLL keeps the GIL. This is faster, and harmless for calls that never wait.
            self._syscall_with_gil = _syscall(ctypes.PyDLL(None, use_errno=True))
            self._cached = _open_how(READ, _CONFINED | _RESOLVE_CACHED)
            self._cached_directory = _open_how(DIRECTORY, _CONFINED | _RESOLVE_CACHED)
            self._probe()

    def open(self, path: str, flags: int) -> int:
        """Open an existing file or directory, and return its descriptor.

        Raises:
            OSError: As open(2) does; ELOOP or ENOTDIR if a component is a symbolic link.
        """
        if self._syscall is None:
            return self._walk(path, flags)
        argument = self._arguments.get(flags)
        if argument is None:
            argument = self._arguments[flags] = _open_how(flags, _CONFINED)
        code = 0
        for _ in range(_ATTEMPTS):
            fd: int = self._syscall(_OPENAT2, self._directory, path.encode(), argument, 24)
            if fd >= 0:
                return fd
            code = ctypes.get_errno()
            if code not in _RETRIABLE:
                break
        raise OSError(code, os.strerror(code), path)

    def open_cached(self, path: str) -> int:
        """Open a file for reading. Return -1 if this fails or the path is not in the kernel's cache."""
        if not self.has_cached or self._syscall_with_gil is None:
            return -1
        fd: int = self._syscall_with_gil(_OPENAT2, self._directory, path.encode(), self._cached, 24)
        return fd

    def open_directory(self, path: str) -> int:
        """Open a directory, faster than `open` if its path is in the kernel's cache."""
        if self.has_cached and self._syscall_with_gil is not None:
            fd: int = self._syscall_with_gil(
                _OPENAT2, self._directory, path.encode(), self._cached_directory, 24
            )
            if fd >= 0:
                return fd
        return self.open(path, DIRECTORY)

    def is_directory(self, path: str) -> bool:
        """Return whether a directory exists at the path. Raise OSError if this cannot be determined."""
        try:
            fd = self.open(path, DIRECTORY)
        except OSError as error:
            if error.errno in ABSENT:
                return False
            raise
        os.close(fd)
        return True

    def open_or_create(self, path: str, mode: int, *, existing: int) -> tuple[int, int]:
        """Open a directory, and create the missing components of its path.

        Args:
            path: The path, relative to this directory.
            mode: The mode of new directories.
            existing: Number of leading components that must exist, at least 1.

        Returns:
            The descriptor, and the number of leading components that existed before.

        Raises:
            FileNotFoundError: A component that must exist does not, or another call removed a
                component during this one.
        """
        names = path.split("/")
        fd = self.open("/".join(names[:existing]), DIRECTORY)
        existed = len(names)
        try:
            for depth, name in enumerate(names[existing:], existing):
                try:
                    os.mkdir(name, mode, dir_fd=fd)
                    existed = min(existed, depth)
                except FileExistsError:
                    pass
                child = os.open(name, DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = child
        except BaseException:
            os.close(fd)
            raise
        return fd, existed

    def _walk(self, path: str, flags: int) -> int:
        names = path.split("/")
        fd = self._directory
        try:
            for name in names[:-1]:
                child = os.open(name, DIRECTORY, dir_fd=fd)
                if fd != self._directory:
                    os.close(fd)
                fd = child
            return os.open(names[-1], flags, dir_fd=fd)
        finally:
            if fd != self._directory:
                os.close(fd)

    def _probe(self) -> None:
        try:
            os.close(self.open(".", DIRECTORY))
        except OSError:  # an older kernel, or a sandbox without openat2
            self._syscall = self._syscall_with_gil = None
            return
        assert self._syscall_with_gil is not None  # noqa: S101 - both are set together
        fd = self._syscall_with_gil(_OPENAT2, self._directory, b".", self._cached_directory, 24)
        # A kernel before 5.12 does not know RESOLVE_CACHED, and fails with EINVAL.
        if fd >= 0:
            os.close(fd)
            self.has_cached = True
        else:
            self.has_cached = ctypes.get_errno() == errno.EAGAIN


def _open_how(flags: int, resolve: int) -> ctypes.c_void_p:
    argument = _OpenHow(flags, 0, resolve)
    pointer = ctypes.cast(ctypes.pointer(argument), ctypes.c_void_p)
    pointer.keep = argument  # type: ignore[attr-defined] # prevents the structure from being freed
    return pointer


def _syscall(library: ctypes.CDLL) -> ctypes._NamedFuncPointer:
    function = library.syscall
    function.argtypes = (
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    )
    function.restype = ctypes.c_long
    return function
