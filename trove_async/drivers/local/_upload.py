"""Uploads: one staged file, into which parts are written wherever they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trove_async._checksums import combine_crc32c, compare_announced, crc32c_text, running_crc32c
from trove_async.errors import BackendError, ClosedError, IntegrityError, StreamError
from trove_async.models import ObjectInfo
from trove_async.options import Part, PutOptions

from ._errors import translated
from ._metadata import Record
from ._publish import publish
from ._threads import Stop

if TYPE_CHECKING:
    from ._layout import Spot
    from ._root import Root
    from ._staging import Staged
    from ._threads import Threads


class FileUpload:
    """One upload: entered, it has a file; left without a commit, it has none.

    Args:
        root: The root.
        spot: Where the object is to be.
        options: What the put said.
        threads: The driver's.
    """

    def __init__(self, root: Root, spot: Spot, options: PutOptions, threads: Threads) -> None:
        self._root = root
        self._spot = spot
        self._options = options
        self._threads = threads
        self._staged: Staged | None = None
        self._parts: dict[int, tuple[Part, int]] = {}
        self._done: ObjectInfo | None = None

    async def __aenter__(self) -> Self:
        with translated(self._spot.bucket, self._spot.key):
            self._staged = await self._threads.run(self._begin, undo=_discard)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        staged, self._staged = self._staged, None
        if staged is not None:
            with translated(self._spot.bucket, self._spot.key):
                try:
                    await self._threads.finish(staged.discard)
                except ClosedError:  # the driver is closed, and took the file's name away itself
                    staged.close()
                    raise

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Write one part where it belongs. After a cancel the views are left alone."""
        size = sum(view.nbytes for view in views)
        if size != part.size:
            raise IntegrityError(f"part {part.number} has {size} bytes, not {part.size} as said")
        staged, stop = self._open(), Stop()

        def write() -> int:
            counted = running_crc32c(views)
            staged.write(views, part.offset, stop)
            return counted

        with translated(self._spot.bucket, self._spot.key):
            self._parts[part.number] = part, await self._threads.run(write, stop=stop)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Make the object of the parts; the same again if it was made already."""
        if self._done is not None:
            return self._done
        staged, stop = self._open(), Stop()
        size, counted = self._whole()
        compare_announced(checksums, counted)
        compare_announced(self._options.checksums, counted)
        record = Record.of(self._options, counted)

        def publish_parts() -> ObjectInfo:
            staged.cut(size)
            return publish(self._root, self._spot, staged, record, options=self._options, stop=stop)

        with translated(self._spot.bucket, self._spot.key):
            self._done = await self._threads.run(publish_parts, stop=stop)
        return self._done

    def _begin(self) -> Staged:
        self._root.require_bucket(self._spot)
        return self._root.staging.create()

    def _open(self) -> Staged:
        if self._staged is None or self._done is not None:
            raise StreamError("this upload is over: open another")
        return self._staged

    def _whole(self) -> tuple[int, str]:
        """Return the bytes of all parts together, and their checksum.

        Raises:
            BackendError: They leave a gap, or overlap.
            IntegrityError: They are not as many bytes as was said.
        """
        end = counted = 0
        for part, one in sorted(self._parts.values(), key=lambda sent: sent[0].offset):
            if part.offset != end:
                raise BackendError(f"the parts do not meet at {end}: one begins at {part.offset}")
            counted = combine_crc32c(counted, one, part.size)
            end += part.size
        if self._options.size not in {None, end}:
            raise IntegrityError(f"the parts have {end} bytes, not {self._options.size} as said")
        return end, crc32c_text(counted)


def _discard(staged: Staged) -> None:
    staged.discard()
