"""An upload whose parts and commit are retried, and whose commit is never broken off."""

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
"""How long a commit that is under way is waited for once its put was cancelled."""

_COMMIT_PACE = 100
"""Parts put together that a server is granted an idle time for: it answers only at the end."""


class ResilientUpload:
    """An upload in parts whose calls are settled.

    Attributes:
        committed: Whether the object is known to have been made.
    """

    def __init__(
        self, calls: Calls, upload: Upload, bucket: str, key: str, options: PutOptions
    ) -> None:
        self._calls = calls
        self._upload = upload
        self._bucket = bucket
        self._key = key
        self._options = options
        self._parts = 0
        self.committed = False

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Store one part. See `Upload.send`."""
        await self._settled(part, lambda: self._upload.send(part, views))

    async def send_stream(self, part: Part, source: PartSource) -> None:
        """Store one part while it is read. See `StreamedUpload.send_stream`."""
        upload = cast("StreamedUpload", self._upload)
        await self._settled(part, lambda: upload.send_stream(part, source))

    async def _settled(self, part: Part, send: Callable[[], Awaitable[None]]) -> None:
        calls = self._calls
        self._parts += 1
        await calls.retry(
            "send",
            self._bucket,
            self._key,
            lambda: calls.write("send", self._bucket, self._key, part.size, send),
        )

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Make the object. See `Upload.commit`. A cancel is raised once it is known what came of it."""
        calls = self._calls
        return await calls.retry(
            "commit",
            self._bucket,
            self._key,
            lambda: self._attempt(checksums),
            recognise=self._found,
        )

    async def _attempt(self, checksums: Mapping[str, str]) -> ObjectInfo:
        calls = self._calls
        await calls.acquire(calls.requests, "commit", self._bucket, self._key)
        try:
            return await await_outcome(self._committed(checksums), COMMIT_SECONDS)
        finally:
            calls.requests.release()

    async def _committed(self, checksums: Mapping[str, str]) -> ObjectInfo:
        pace = -(-self._parts // _COMMIT_PACE)
        info = await self._calls.await_response(self._upload.commit(checksums), pace)
        self.committed = True
        return info

    async def _found(self, error: TroveError) -> tuple[ObjectInfo] | None:
        found = await self._calls.own_write(error, self._bucket, self._key, self._options.write_id)
        self.committed = found is not None
        return found
