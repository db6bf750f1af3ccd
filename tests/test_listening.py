"""The small servers of `tests.listening`."""

from __future__ import annotations

import asyncio

import pytest

from tests.listening import listening


async def test_failed_assertion_in_the_server_fails_the_test() -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"expected"

    with pytest.raises(AssertionError, match="expected"):
        async with listening(serve) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
