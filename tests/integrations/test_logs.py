"""Log records of operations."""

from __future__ import annotations

import logging

import pytest

from tests.fakes import Fake, store_of
from trove_async import ObjectNotFoundError, UnavailableError
from trove_async.integrations.logs import log


async def test_each_operation_is_logged_at_its_level(caplog: pytest.LogCaptureFixture) -> None:
    fake = Fake()
    caplog.set_level(logging.DEBUG, "trove_async")
    async with store_of(fake) as store:
        stop = log(store)
        fake.fail("put", UnavailableError("busy"))
        await store.put("bucket", "key", b"body")
        with pytest.raises(ObjectNotFoundError):
            await store.head("bucket", "none")
        async with store.get("bucket", "key") as reader:
            await reader.read()
        stop()
        await store.delete("bucket", "key")
    records = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [(level, text.split(" in ")[0]) for level, text in records] == [
        ("WARNING", "attempt 1 of put bucket/key on default"),
        ("DEBUG", "put bucket/key"),
        ("INFO", "head bucket/none"),
        ("DEBUG", "get bucket/key"),
        ("DEBUG", "body get bucket/key on default 4 bytes"),
    ]
    assert "UnavailableError: busy" in records[0][1]
    assert "ObjectNotFoundError" in records[2][1]


async def test_line_breaks_in_keys_are_escaped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trove_async")
    async with store_of(Fake()) as store:
        log(store)
        await store.put("bucket", "a\nERROR forged %s\x1b[2J\u2028ü", b"x")
        with pytest.raises(ObjectNotFoundError):
            await store.head("bucket", "none\r\nERROR forged")
    put, head = [record.getMessage() for record in caplog.records]
    assert put.startswith(r"put bucket/a\nERROR forged %s\x1b[2J\u2028ü in ")
    assert head.startswith(r"head bucket/none\r\nERROR forged in ")
    assert len(head.splitlines()) == 1


async def test_logger_can_be_chosen(caplog: pytest.LogCaptureFixture) -> None:
    async with store_of(Fake()) as store:
        log(store, logging.getLogger("mine"))
        with caplog.at_level(logging.DEBUG, "mine"):
            await store.list_buckets()
    assert {record.name for record in caplog.records} == {"mine"}
    assert any("list_buckets" in record.getMessage() for record in caplog.records)


def test_library_logger_has_a_null_handler() -> None:
    assert any(
        isinstance(handler, logging.NullHandler)
        for handler in logging.getLogger("trove_async").handlers
    )
