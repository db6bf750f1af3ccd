"""Origins, and documents that arrive in pieces of several sizes."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from trove_async._http import Origin
from trove_async._http.transport import collect_body
from trove_async.errors import ConfigError, IntegrityError
from trove_async.models import KiB

if TYPE_CHECKING:
    from collections.abc import Mapping

ORIGIN = Origin("http", "service", 80)


class PiecewiseResponse:
    """A response whose body arrives in pieces of a fixed size."""

    body: bytes | None = None

    status = 200

    def __init__(self, body: bytes, piece_size: int) -> None:
        self.headers: Mapping[str, str] = {}
        self._body, self._piece_size, self._position = body, piece_size, 0

    async def read(self, size: int) -> bytes:
        piece = self._body[self._position : self._position + min(size, self._piece_size)]
        self._position += len(piece)
        return piece

    async def readinto(self, buffer: memoryview) -> int:
        raise AssertionError(f"documents are read as bytes, not into {buffer}")

    async def read_all(self, limit: int) -> bytes:
        return await collect_body(self, limit, 30.0, ORIGIN)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4 * KiB])
@pytest.mark.parametrize("piece_size", [1, 2, 4 * KiB])
async def test_document_is_complete_up_to_limit(size: int, piece_size: int) -> None:
    body = bytes(range(256)) * 16
    assert await PiecewiseResponse(body[:size], piece_size).read_all(size) == body[:size]
    if size:
        with pytest.raises(IntegrityError):
            await PiecewiseResponse(body[:size], piece_size).read_all(size - 1)


async def test_document_in_tiny_pieces_uses_bounded_memory() -> None:
    size = 128 * KiB
    response = PiecewiseResponse(b"ab" * (size // 2), 2)
    tracemalloc.start()
    try:
        await response.read_all(size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * size


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://host", "host"),
        ("http://host:80/", "host"),
        ("https://host:443", "host"),
        ("https://host:80", "host:80"),
        ("http://127.0.0.1:9000", "127.0.0.1:9000"),
        ("http://[::1]:9000", "[::1]:9000"),
        ("http://[::1]:80", "[::1]"),
    ],
)
def test_authority_omits_default_port(url: str, authority: str) -> None:
    assert Origin.of(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "ftp://host",
        "http://",
        "http://h/path",
        "http://h?q",
        "http://u:p@h",
        "http://:p@h",
        "http://h:x",
    ],
)
def test_url_that_is_not_an_origin_is_rejected(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Origin.of(url)
    assert "u:p" not in str(caught.value)
