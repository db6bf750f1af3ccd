"""Reads objects and compares their checksums."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping

from trove_async._checksums import Crc32c
from trove_async._engine.verified import VERIFIED_KINDS
from trove_async.errors import ConfigError, IntegrityError, ObjectNotFoundError
from trove_async.models import ObjectInfo
from trove_async.store import Trove

from ._job import WalkPage
from ._options import Executor, check_target, run_options
from ._ranges import KeyRange
from ._report import Outcome, ProgressCallback, Report
from ._run import run_job
from ._walks import first_key_after, is_ordered, walk_objects


async def verify(
    store: Trove,
    bucket: str,
    *,
    prefix: str = "",
    backend: str | None = None,
    against: str | None = None,
    progress: ProgressCallback | None = None,
    concurrency: int = 16,
    checkpoint: str | os.PathLike[str] | None = None,
    max_objects_per_second: float | None = None,
    max_bytes_per_second: float | None = None,
    on: Executor | None = None,
) -> Report:
    """Read every object of a bucket, decode it, and compare it with its recorded checksum.

    An object is unchanged in the report if it is intact. A damaged one is counted as an IntegrityError. An
    object without a checksum that can be verified is read to its end, and counted as skipped for the reason
    ``"unverifiable"``.

    Args:
        store: The store.
        bucket: The bucket.
        prefix: Read only keys that start with this.
        backend: Read the objects of this backend, whatever the rules say. None: those that users read.
        against: The name of another backend. Every object is read from it too, and both contents must be
            equal. A missing one is counted as an ObjectNotFoundError, a different one as an IntegrityError.
        progress: Called with a `JobProgress`, at most ten times a second. An exception that it raises ends
            the job and is raised.
        concurrency: The maximum number of objects in flight.
        checkpoint: Where the state is recorded, as in `rebalance`.
        max_objects_per_second: The maximum number of objects to process in a second.
        max_bytes_per_second: The maximum number of bytes to transfer in a second.
        on: Where to run. None: in this process.

    Returns:
        The report, with the number of bytes read.

    Raises:
        BackendNotFoundError: `backend` or `against` is unknown.
        ConfigError: `backend` and `against` are the same.
        Otherwise as `rebalance`.
    """
    check_target(store, bucket, prefix, dry_run=False)
    for name in (backend, against):
        if name is not None:
            store._core.check_backend(name)  # noqa: SLF001 - jobs are part of the library
    if against is not None and against == backend:
        raise ConfigError(f"backend and against must be different, got {backend!r} twice")
    options = run_options(
        progress=progress,
        concurrency=concurrency,
        checkpoint=checkpoint,
        max_objects_per_second=max_objects_per_second,
        max_bytes_per_second=max_bytes_per_second,
        on=on,
    )
    return await run_job(store, Verify(store, bucket, prefix, backend, against), options)


class Verify:
    """The job. See `Job`."""

    name = "verify"
    dry_run = False

    def __init__(
        self, store: Trove, bucket: str, prefix: str, backend: str | None, against: str | None
    ) -> None:
        self._store = store if backend is None else store.backend(backend)
        self._other = None if against is None else store.backend(against)
        self.bucket = bucket
        self._prefix = prefix
        self._backend = backend
        self._against = against

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments, and the fingerprint of the rules."""
        return {
            "bucket": self.bucket,
            "prefix": self._prefix,
            "backend": self._backend,
            "against": self._against,
            "routes": self._store._routing.fingerprint,  # noqa: SLF001 - jobs are part of the library
        }

    @property
    def ordered(self) -> bool:
        """Whether all backends list in key order."""
        return is_ordered(self._store)

    async def check(self) -> None:
        """Do nothing."""

    def walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[ObjectInfo], None]:
        """Walk the objects."""
        return walk_objects(self._store, self.bucket, self._prefix, key_range)

    async def first_after(self, key: str) -> str | None:
        """Return the next key."""
        return await first_key_after(self._store, self.bucket, self._prefix, key)

    def peek(self, item: ObjectInfo) -> Outcome | None:  # noqa: ARG002 - as in `Job`
        """Return None: every object is read."""
        return None

    def weight(self, item: ObjectInfo) -> int:
        """Return the size of the object, of both objects if two are read."""
        return item.stored_size * (1 if self._other is None else 2)

    async def process(self, item: ObjectInfo) -> Outcome:
        """Read the object."""
        key = item.key
        try:
            info, size, checksum = await self._read(self._store, key)
        except ObjectNotFoundError:
            return Outcome(result="skipped", reason="deleted meanwhile")
        if self._other is None:
            if info.transforms or VERIFIED_KINDS & info.checksums.keys():
                return Outcome(result="unchanged", bytes=size)
            return Outcome(result="skipped", reason="unverifiable", bytes=size)
        _, other_size, other_checksum = await self._read(self._other, key)
        if (size, checksum) != (other_size, other_checksum):
            raise IntegrityError(
                f"the object has {size} bytes with crc32c {checksum}, and that on {self._against!r} has"
                f" {other_size} with {other_checksum}",
                backend=info.backend,
                bucket=self.bucket,
                key=key,
            )
        return Outcome(result="unchanged", bytes=size + other_size)

    async def _read(self, handle: Trove, key: str) -> tuple[ObjectInfo, int, str]:
        """Return an object's info, and the size and CRC-32C of its decoded content."""
        size, crc = 0, Crc32c()
        async with handle.get(self.bucket, key) as body:
            async for chunk in body:
                size += len(chunk)
                if self._other is not None:
                    crc.update(chunk)
        return body.info, size, crc.digest()
