"""An upload whose parts and commit are retried, and whose commit may finish after a cancel.

While the circuit breaker is open, a part or a commit waits for the next probe instead of failing at once:
the bytes that were already sent would be lost. An abort does not ask the breaker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

from trove_async._concurrency import CLEANUP_SECONDS, await_outcome
from trove_async.driver import PartSource, StreamedUpload, Upload
from trove_async.errors import TroveError
from trove_async.models import ObjectInfo
from trove_async.options import Part, PutOptions

from .calls import Calls

COMMIT_SECONDS = CLEANUP_SECONDS
"""Seconds that a commit in flight may still take after its put was cancelled."""

_PARTS_PER_IDLE_TIMEOUT = 100
"""Number of parts for which a commit gets an additional idle timeout: the server responds only at the end."""


class ResilientUpload:
    """An `Upload` whose calls are retried.

    Attributes:
        committed: Whether the object is known to have been created.
    """

    def __init__(
        self, calls: Calls, upload: Upload, bucket: str, key: str, options: PutOptions
    ) -> None:
        self._calls = calls
        self._upload = upload
        self._bucket = bucket
        self._key = key
        self._options = options
        self._part_count = 0
        self.committed = False

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Store one part. See `Upload.send`."""
        await self._retry_send(part, lambda: self._upload.send(part, views))

    async def send_stream(self, part: Part, source: PartSource) -> None:
        """Store one part while it is read. See `StreamedUpload.send_stream`."""
        upload = cast("StreamedUpload", self._upload)
        await self._retry_send(part, lambda: upload.send_stream(part, source))

    async def _retry_send(self, part: Part, send: Callable[[], Awaitable[None]]) -> None:
        calls = self._calls
        self._part_count += 1
        await calls.retry(
            "send",
            self._bucket,
            self._key,
            lambda: calls.write("send", self._bucket, self._key, part.size, send),
            in_progress=True,
        )

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Create the object. See `Upload.commit`.

        A cancel is raised once the outcome of the commit is known, or after `COMMIT_SECONDS`.
        """
        calls = self._calls
        return await calls.retry(
            "commit",
            self._bucket,
            self._key,
            lambda: self._attempt_commit(checksums),
            recognise=self._recognise_commit,
            in_progress=True,
        )

    async def _attempt_commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        calls = self._calls
        await calls.acquire(calls.request_permits, "commit", self._bucket, self._key)
        try:
            return await await_outcome(self._send_commit(checksums), COMMIT_SECONDS)
        finally:
            calls.request_permits.release()

    async def _send_commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        idle_timeouts = -(-self._part_count // _PARTS_PER_IDLE_TIMEOUT)
        info = await self._calls.await_response(self._upload.commit(checksums), idle_timeouts)
        self.committed = True
        return info

    async def _recognise_commit(self, error: TroveError) -> tuple[ObjectInfo] | None:
        result = await self._calls.recognise_write(
            error, self._bucket, self._key, self._options.write_id
        )
        self.committed = result is not None
        return result
