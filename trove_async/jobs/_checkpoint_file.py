"""The checkpoint of a job in a local file."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from trove_async._concurrency import in_thread
from trove_async.errors import ConfigError

_LEFTOVER: Final = re.compile(r"\.[0-9a-f]{16}\.tmp")
"""What follows the name of the file in the name of a temporary file."""


class CheckpointFile:
    """Reads and replaces one file, and detects a second run that uses it at the same time.

    The lock is a file with the suffix ``.lock`` beside it, which the run holds by ``flock(2)``. The system
    releases it if the process dies. On a file system without such locks, two runs are not detected: each
    replaces the state of the other, atomically.

    Args:
        path: The file.
        max_size: The maximum size to read, in bytes.
    """

    def __init__(self, path: Path, max_size: int) -> None:
        self._path = path
        self._max_size = max_size
        self._temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        self._lock_path = path.with_name(f"{path.name}.lock")
        self._lock: int | None = None

    async def lock(self) -> None:
        """Lock the file until `unlock`.

        Raises:
            ConfigError: Another run has locked it, or its directory cannot be written.
        """
        await in_thread(self._acquire)

    async def unlock(self) -> None:
        """Release the lock. Idempotent."""
        await in_thread(self._release)

    async def read(self) -> bytes | None:
        """Return the content; None if there is no such file.

        Raises:
            ConfigError: It cannot be read, or is too large.
        """
        return await in_thread(self._read)

    async def write(self, content: bytes) -> None:
        """Replace the content atomically.

        Raises:
            ConfigError: It cannot be written.
        """
        await in_thread(self._write, content)

    def _acquire(self) -> None:
        try:
            self._lock = self._open_lock()
            self._remove_leftovers()
        except BlockingIOError:
            raise ConfigError(
                f"another run is using the checkpoint {str(self._path)!r}: wait for its end, or pass a"
                " different one"
            ) from None
        except OSError as error:
            raise ConfigError(f"the checkpoint cannot be written: {error}") from error

    def _open_lock(self) -> int | None:
        """Return the descriptor of the locked file; None if the file system has no locks."""
        while True:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The previous holder may have removed this file after it was opened here.
                if os.path.samestat(os.fstat(descriptor), self._lock_path.stat()):
                    return descriptor
            except FileNotFoundError:
                pass
            except BlockingIOError:
                os.close(descriptor)
                raise
            except OSError:
                os.close(descriptor)
                return None
            os.close(descriptor)

    def _release(self) -> None:
        if self._lock is None:
            return
        # Removed before it is unlocked, so that no other run has locked this file meanwhile.
        with suppress(OSError):
            self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of processes that were killed. Only under the lock."""
        if self._lock is None:
            return
        for file in self._path.parent.iterdir():
            name, suffix = file.name[: len(self._path.name)], file.name[len(self._path.name) :]
            if name == self._path.name and _LEFTOVER.fullmatch(suffix):
                with suppress(OSError):
                    file.unlink()

    def _read(self) -> bytes | None:
        try:
            with self._path.open("rb") as file:
                content = file.read(self._max_size + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"the checkpoint cannot be read: {error}") from error
        if len(content) > self._max_size:
            raise ConfigError("the file is too large to be a checkpoint")
        return content

    def _write(self, content: bytes) -> None:
        temporary = self._temporary
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise ConfigError(f"the checkpoint cannot be written: {error}") from error
