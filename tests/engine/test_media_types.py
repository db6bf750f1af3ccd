"""Content types guessed from keys."""

from __future__ import annotations

import pytest

from tests.fakes import CallLog, single_attempt_store
from trove_async._engine.media_types import type_of


@pytest.mark.parametrize(
    ("key", "guessed"),
    [
        ("a.txt", "text/plain"),
        ("dir.d/b.JSON", "application/json"),
        ("a.b/c.png", "image/png"),
        ("report.csv.gz", "application/gzip"),
        ("a.tar.zst", "application/zstd"),
        ("a.css.br", None),
        ("key", None),
        ("dir.txt/key", None),
        (".txt", None),
        ("dir/.png", None),
        ("a.", None),
        ("a.unheard-of", None),
        ("data:text/html,x", None),
    ],
)
def test_type_depends_on_the_extension(key: str, guessed: str | None) -> None:
    assert type_of(key) == guessed


async def test_put_guesses_a_missing_type() -> None:
    async with single_attempt_store(CallLog()) as store:
        await store.create_bucket("data")
        assert (await store.put("data", "a.txt", b"")).content_type == "text/plain"
        assert (await store.put("data", "a.txt", b"", content_type="a/b")).content_type == "a/b"
        assert (await store.put("data", "a.txt", b"", content_type="")).content_type is None
        assert (await store.copy("data", "a.txt", "data", "b.html")).content_type is None


async def test_no_type_is_guessed_for_a_backend_without_headers() -> None:
    async with single_attempt_store(CallLog(headers=False)) as store:
        await store.create_bucket("data")
        assert (await store.put("data", "a.txt", b"body")).content_type is None
        assert await store.read("data", "a.txt") == b"body"
