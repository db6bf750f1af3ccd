"""The checkpoint of a job: what it has still to do, and its counts so far.

It is one JSON document, replaced atomically. After a crash at any moment it describes some earlier state, and
the work since then is repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from trove_async._concurrency import run_cleanup
from trove_async.errors import ConfigError, ObjectNotFoundError, RangeError
from trove_async.models import MiB
from trove_async.store import Trove

from ._checkpoint_file import CheckpointFile
from ._options import FileTarget, ObjectTarget
from ._ranges import KeyRange
from ._report import Tally

_VERSION: Final = 1

_MAX_SIZE: Final = 64 * MiB
"""Maximum size of a checkpoint. One of 10,000 open ranges has 10 MiB at most."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of a job.

    Attributes:
        ranges: The ranges that are not done. Everything outside of them is done.
        tally: The counts of everything that is done.
        complete: Whether the job has ended.
    """

    ranges: Sequence[KeyRange]
    tally: Tally
    complete: bool = False


class _Place(Protocol):
    async def read(self) -> bytes | None: ...

    async def write(self, content: bytes) -> None: ...

    async def lock(self) -> None: ...

    async def unlock(self) -> None: ...


class Checkpoint:
    """Reads and writes the checkpoint of one job.

    Args:
        store: The store that contains it, if it is an object.
        target: Its place.
        job: The name of the job.
        arguments: The arguments of the job. A checkpoint with different ones is refused.
    """

    def __init__(
        self,
        store: Trove,
        target: FileTarget | ObjectTarget,
        job: str,
        arguments: Mapping[str, object],
    ) -> None:
        self._place: _Place = (
            CheckpointFile(target.path, _MAX_SIZE)
            if isinstance(target, FileTarget)
            else _Object(store, target.bucket, target.key)
        )
        self._job = job
        self._fingerprint = fingerprint(job, arguments)

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None, None]:
        """Keep other runs from using the same file meanwhile. Objects are not locked.

        Raises:
            ConfigError: Another run is using it, or the file cannot be written.
        """
        try:
            await self._place.lock()
            yield
        finally:
            await run_cleanup(self._place.unlock())

    async def load(self) -> State | None:
        """Return the recorded state; None if there is none, or the recorded job has ended, whichever job it was.

        Raises:
            ConfigError: The checkpoint belongs to a different job, or is malformed.
        """
        content = await self._place.read()
        if content is None:
            return None
        try:
            values = json.loads(content)
            if values["version"] != _VERSION:
                raise ConfigError(
                    f"the checkpoint has version {values['version']!r}, and this library reads {_VERSION}:"
                    " resume with the version that wrote it, or remove it"
                )
            if values["complete"] is True:
                return None
            if values["fingerprint"] != self._fingerprint:
                raise ConfigError(
                    f"the checkpoint belongs to a different job ({values['job']!r}, or different arguments,"
                    " routes or middlewares): pass a different checkpoint, or remove this one to start anew"
                )
            return State(
                ranges=[_range_of(item) for item in values["ranges"]],
                tally=Tally.from_json(values["counts"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                "the checkpoint is malformed: pass a different one, or remove it to start anew"
            ) from error

    async def save(self, state: State) -> None:
        """Replace the recorded state, atomically.

        Raises:
            TroveError: The store cannot write it.
            ConfigError: The file cannot be written.
        """
        content = json.dumps(
            {
                "version": _VERSION,
                "job": self._job,
                "fingerprint": self._fingerprint,
                "complete": state.complete,
                "ranges": [[item.start_after, item.until, item.cursor] for item in state.ranges],
                "counts": state.tally.to_json(),
            },
            ensure_ascii=True,
        ).encode()
        await self._place.write(content)


def fingerprint(job: str, arguments: Mapping[str, object]) -> str:
    """Return a short hash of a job and its arguments, the same in every process."""
    text = json.dumps([job, arguments], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _range_of(item: Sequence[object]) -> KeyRange:
    start_after, until, cursor = item
    if not (
        isinstance(start_after, str)
        and isinstance(until, str | None)
        and isinstance(cursor, str | None)
    ):
        raise ValueError("a range must be three strings")  # noqa: TRY004 - of a document
    return KeyRange(start_after, until, cursor)


class _Object:
    def __init__(self, store: Trove, bucket: str, key: str) -> None:
        self._store, self._bucket, self._key = store, bucket, key

    async def read(self) -> bytes | None:
        try:
            return await self._store.read(self._bucket, self._key, limit=_MAX_SIZE)
        except ObjectNotFoundError:
            return None
        except RangeError as error:
            raise ConfigError("the object is too large to be a checkpoint") from error

    async def write(self, content: bytes) -> None:
        await self._store.put(self._bucket, self._key, content)

    async def lock(self) -> None:
        """Do nothing: two runs with one object are not detected."""

    async def unlock(self) -> None:
        """Do nothing."""
