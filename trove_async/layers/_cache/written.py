"""Bodies that are written through `ReadThrough`, on their way to the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from trove_async._checksums import running_crc32c
from trove_async._views import drop, take
from trove_async.models import ObjectInfo
from trove_async.pool import BufferPool, Lease

from .core import ReadCore
from .versions import Name, Version

_SHARE: Final = 4
"""Parts that wait for their commit use at most ``1 / _SHARE`` of the pool."""


async def cache_body(
    core: ReadCore,
    name: Name,
    info: ObjectInfo,
    pieces: Sequence[tuple[int, memoryview]],
    requested_at: float,
) -> Version | None:
    """Store the blocks of a body that the origin has stored. Never raises.

    Args:
        core: The state of the layer.
        name: The object.
        info: The object, as the response to the write described it.
        pieces: The bytes that are at hand, with their offsets, in order. There may be gaps.
        requested_at: When the write was requested, on the clock of the event loop.

    Returns:
        The version, if it has an etag.
    """
    if info.etag is None:
        return None
    version = core.version_of(name, info, requested_at, is_whole=True)
    for number, views in _blocks(pieces, info.stored_size, core.block_size):
        if not core.has_block(version, number):
            stored = await core.store.store(version, number, views, running_crc32c(views))
            if not stored:
                break
    return version


def _blocks(
    pieces: Sequence[tuple[int, memoryview]], size: int, block_size: int
) -> Iterator[tuple[int, list[memoryview]]]:
    """Yield the number and the bytes of each block that the pieces cover."""
    views: list[memoryview] = []
    position = 0  # the end of the bytes in `views`
    for offset, piece in pieces:
        view = piece
        if offset != position:  # a gap: begin with the next block
            views = []
            position = -(-offset // block_size) * block_size
            view = view[position - offset :]
        while view:
            number = position // block_size
            end = min((number + 1) * block_size, size)
            count = min(end - position, len(view))
            views.append(view[:count])
            view = view[count:]
            position += count
            if position == end:
                yield number, views
                views = []


class WrittenParts:
    """The parts of an upload, kept until its commit as far as there is memory for them.

    Args:
        pool: The store's memory.
    """

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._parts: dict[int, tuple[bytes, Lease]] = {}
        self._in_use = False

    def add(self, offset: int, views: Sequence[memoryview]) -> None:
        """Keep a copy of a part that was sent, if there is memory for it."""
        self.drop(offset)
        size = sum(map(len, views))
        if not 0 < size <= self._pool.max_bytes // _SHARE:
            return
        lease = self._pool.try_lease(size, lambda: self._revoke(offset), share=_SHARE)
        if lease is not None:
            # A copy that never changes: a call to the cache that hangs may read it later.
            self._parts[offset] = b"".join(views), lease

    def add_body(self, views: Sequence[memoryview], block_size: int) -> None:
        """Keep a copy of a body that was sent, block by block, as far as there is memory for it."""
        remaining, offset = list(views), 0
        while remaining:
            block = take(remaining, block_size)
            self.add(offset, block)
            offset += sum(map(len, block))
            remaining = drop(remaining, block_size)

    def use(self) -> list[tuple[int, memoryview]]:
        """Return the parts in the order of their offsets. From now on, their memory is not revoked."""
        self._in_use = True
        return [(offset, memoryview(body)) for offset, (body, _) in sorted(self._parts.items())]

    def drop(self, offset: int) -> None:
        """Release the memory of a part, if it is kept."""
        kept = self._parts.pop(offset, None)
        if kept is not None:
            kept[1].release()

    def close(self) -> None:
        """Release all memory. Idempotent."""
        for offset in list(self._parts):
            self.drop(offset)

    def _revoke(self, offset: int) -> bool:
        if self._in_use:
            return False
        self.drop(offset)
        return True
