"""Uploads in parts, each written at its offset in one staged file."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trove_async._checksums import combine_crc32c, compare_announced, crc32c_text, running_crc32c
from trove_async.errors import BackendError, ClosedError, IntegrityError, StreamError
from trove_async.models import ObjectInfo
from trove_async.options import Part, PutOptions

from ._errors import translated
from ._metadata import Metadata
from ._publish import publish
from ._threads import CancelFlag

if TYPE_CHECKING:
    from ._layout import Location
    from ._root import Root
    from ._staging import StagedFile
    from ._threads import Threads


class FileUpload:
    """One upload. Entering the upload creates a staged file. Leaving it without a commit removes the file.

    Args:
        root: The driver's open root.
        location: The paths of the object.
        options: The options of the put.
        threads: The driver's threads.
    """

    def __init__(
        self, root: Root, location: Location, options: PutOptions, threads: Threads
    ) -> None:
        self._root = root
        self._location = location
        self._options = options
        self._threads = threads
        self._staged: StagedFile | None = None
        self._parts: dict[int, tuple[Part, int]] = {}
        self._info: ObjectInfo | None = None
        self._turn = threading.Lock()

    async def __aenter__(self) -> Self:
        with translated(self._location.bucket, self._location.key):
            self._staged = await self._threads.run(self._create_file, undo=_discard)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        staged, self._staged = self._staged, None
        if staged is not None:
            with translated(self._location.bucket, self._location.key):
                try:
                    await self._threads.finish(staged.discard)
                except ClosedError:  # closing the driver has removed the file
                    staged.close()
                    raise

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Write one part at its offset. If cancelled, wait until the thread no longer reads the views."""
        size = sum(view.nbytes for view in views)
        if size != part.size:
            raise IntegrityError(f"part {part.number} must have {part.size} bytes, got {size}")
        staged, cancel = self._require_file(), CancelFlag()

        def write() -> int:
            checksum = running_crc32c(views)
            # The kernel writes to a file in one thread at a time, and lets the others spin. So the parts take
            # turns, and the next part is hashed meanwhile.
            with self._turn:
                staged.write(views, part.offset, cancel)
            return checksum

        with translated(self._location.bucket, self._location.key):
            self._parts[part.number] = part, await self._threads.run(write, cancel=cancel)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Publish the parts as the object. A second call returns the same info."""
        if self._info is not None:
            return self._info
        # 1. Check that the parts are complete, and combine their checksums. Nothing is read again.
        staged, cancel = self._require_file(), CancelFlag()
        size, checksum = self._combine_parts()
        compare_announced(checksums, checksum)
        compare_announced(self._options.checksums, checksum)
        metadata = Metadata.from_options(self._options, checksum)

        # 2. Publish the file. If a part was sent again with a smaller size, the file may be longer
        #    than the object.
        def publish_parts() -> ObjectInfo:
            staged.truncate(size)
            return publish(
                self._root, self._location, staged, metadata, options=self._options, cancel=cancel
            )

        with translated(self._location.bucket, self._location.key):
            self._info = await self._threads.run(publish_parts, cancel=cancel)
        return self._info

    def _create_file(self) -> StagedFile:
        self._root.require_bucket(self._location)
        return self._root.staging.create()

    def _require_file(self) -> StagedFile:
        if self._staged is None or self._info is not None:
            raise StreamError("the upload has ended: open a new one")
        return self._staged

    def _combine_parts(self) -> tuple[int, str]:
        """Return the size of all parts together, and their checksum.

        Raises:
            BackendError: The parts overlap, or there is a gap between them or before the first one.
            IntegrityError: The size differs from `PutOptions.size`.
        """
        end = checksum = 0
        for part, part_checksum in sorted(self._parts.values(), key=lambda entry: entry[0].offset):
            if part.offset != end:
                raise BackendError(f"a part must start at offset {end}, got {part.offset}")
            checksum = combine_crc32c(checksum, part_checksum, part.size)
            end += part.size
        if self._options.size not in {None, end}:
            raise IntegrityError(f"the parts must have {self._options.size} bytes, got {end}")
        return end, crc32c_text(checksum)


def _discard(staged: StagedFile) -> None:
    staged.discard()
