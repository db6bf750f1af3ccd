"""`read_all_of`: it joins a body, however it is split, up to a limit."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from trove_async._http import Origin
from trove_async._http.transport import read_all_of
from trove_async.errors import IntegrityError
from trove_async.models import KiB

if TYPE_CHECKING:
    from collections.abc import Mapping

ORIGIN = Origin("http", "service", 80)


class Pieces:
    """A response whose body arrives in pieces of a fixed size."""

    status = 200

    def __init__(self, body: bytes, cut: int) -> None:
        self.headers: Mapping[str, str] = {}
        self._body, self._cut, self._at = body, cut, 0

    async def read(self, size: int) -> bytes:
        piece = self._body[self._at : self._at + min(size, self._cut)]
        self._at += len(piece)
        return piece

    async def readinto(self, buffer: memoryview) -> int:
        raise AssertionError(f"documents are read as bytes, not into {buffer}")

    async def read_all(self, limit: int) -> bytes:
        return await read_all_of(self, limit, 30.0, ORIGIN)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4 * KiB])
@pytest.mark.parametrize("cut", [1, 2, 4 * KiB])
async def test_document_is_complete_up_to_limit(size: int, cut: int) -> None:
    body = bytes(range(256)) * 16
    assert await Pieces(body[:size], cut).read_all(size) == body[:size]
    if size:
        with pytest.raises(IntegrityError):
            await Pieces(body[:size], cut).read_all(size - 1)


async def test_document_in_tiny_pieces_uses_bounded_memory() -> None:
    size = 128 * KiB
    pieces = Pieces(b"ab" * (size // 2), 2)
    tracemalloc.start()
    try:
        await pieces.read_all(size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * size
