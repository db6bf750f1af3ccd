"""Lost responses to writes while another client writes the same object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.drivers.gcs.proxied_store import proxied_store
from tests.http_faults import Cut, Response
from trove_async import UnavailableError
from trove_async.options import is_earlier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any, TypeAlias

    from tests.drivers.gcs.proxied_store import ProxiedStore
    from tests.http_faults import Fault
    from trove_async.events import Event

    Write: TypeAlias = Callable[[ProxiedStore], Coroutine[Any, Any, None]]

OTHER = b"written by another client"


@pytest_asyncio.fixture
async def proxied() -> AsyncIterator[ProxiedStore]:
    async with proxied_store() as proxied:
        proxied.put_directly("key", b"old")
        proxied.put_directly("source", b"own")
        yield proxied


async def put(proxied: ProxiedStore) -> None:
    await proxied.store.put(proxied.bucket, "key", b"own")


async def copy(proxied: ProxiedStore) -> None:
    await proxied.store.copy(proxied.bucket, "source", proxied.bucket, "key")


async def delete(proxied: ProxiedStore) -> None:
    await proxied.store.delete(proxied.bucket, "key")


async def delete_many(proxied: ProxiedStore) -> None:
    await proxied.store.delete_many(proxied.bucket, ["key", "none"])


METHODS: dict[Write, str] = {put: "POST", copy: "POST", delete: "DELETE", delete_many: "POST"}

FAULTS: dict[str, Callable[[], Fault]] = {
    "503 after success": lambda: Response(503, served=True),
    "503": lambda: Response(503),
    "response lost": lambda: Cut("response head"),
}


def after_each_failure(proxied: ProxiedStore, action: Callable[[], object]) -> None:
    """Call `action` after each failed attempt, before the next one."""

    def on_event(event: Event) -> None:
        if event.kind == "attempt" and event.error is not None:
            action()

    proxied.store.events.subscribe(on_event)


def conditions(proxied: ProxiedStore, method: str) -> list[str | None]:
    """Return the ifGenerationMatch of each request with this method, or None if it has none."""
    return [
        request.query.get("ifGenerationMatch")
        for request in proxied.proxy.requests
        if request.method == method
    ]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("write", METHODS)
async def test_later_write_of_another_client_is_kept(
    proxied: ProxiedStore, write: Write, fault: str
) -> None:
    proxied.proxy.arm(FAULTS[fault](), method=METHODS[write])
    after_each_failure(proxied, lambda: proxied.put_directly("key", OTHER, backdated=False))
    with pytest.raises(UnavailableError, match="outcome of this write is unknown"):
        await write(proxied)
    assert proxied.stored_body("key") == OTHER


@pytest.mark.parametrize("write", [put, copy])
async def test_own_write_is_recognised_and_not_repeated(
    proxied: ProxiedStore, write: Write
) -> None:
    proxied.proxy.arm(Cut("response head"), method="POST")
    await write(proxied)
    assert proxied.stored_body("key") == b"own"
    assert conditions(proxied, "POST") == [None]


@pytest.mark.parametrize("write", [put, copy])
async def test_retry_replaces_only_the_earlier_version(proxied: ProxiedStore, write: Write) -> None:
    generation = proxied.put_directly("key", b"old")
    proxied.proxy.arm(Response(503), method="POST")
    await write(proxied)
    assert proxied.stored_body("key") == b"own"
    assert conditions(proxied, "POST") == [None, str(generation)]


@pytest.mark.parametrize("write", [delete, delete_many])
async def test_retry_deletes_only_the_earlier_version(proxied: ProxiedStore, write: Write) -> None:
    generation = proxied.put_directly("key", b"old")
    proxied.proxy.arm(Response(503), method=METHODS[write])
    await write(proxied)
    assert proxied.stored_body("key") is None
    assert conditions(proxied, "DELETE")[-1] == str(generation)


async def test_retry_only_creates_an_object_that_was_missing(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(503), method="POST")
    await proxied.store.put(proxied.bucket, "new", b"own")
    assert conditions(proxied, "POST") == [None, "0"]


async def test_rejected_write_is_retried_unconditionally(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(429, {"Retry-After": "0"}), method="POST")
    after_each_failure(proxied, lambda: proxied.put_directly("key", OTHER, backdated=False))
    await put(proxied)
    assert proxied.stored_body("key") == b"own"


@pytest.mark.parametrize("write", [put, delete])
async def test_own_earlier_write_does_not_block_retry(proxied: ProxiedStore, write: Write) -> None:
    await proxied.store.put(proxied.bucket, "key", b"an earlier write")
    proxied.proxy.arm(Response(503), method=METHODS[write])
    await write(proxied)
    assert proxied.stored_body("key") == (b"own" if write is put else None)


async def test_retry_reads_the_object_again_after_412(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(503), method="POST")
    proxied.proxy.arm(Response(412), method="POST")
    await put(proxied)
    assert proxied.stored_body("key") == b"own"
    assert len(conditions(proxied, "POST")) == 3


async def test_retry_without_read_permission_only_creates(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(503), method="POST")
    proxied.proxy.arm(Response(403), method="GET", times=None)
    await proxied.store.put(proxied.bucket, "new", b"own")
    proxied.proxy.arm(Response(503), method="POST")
    with pytest.raises(UnavailableError):
        await put(proxied)
    assert proxied.stored_body("new") == b"own"
    assert proxied.stored_body("key") == b"old"


@pytest.mark.parametrize(("one", "other"), [("a-9", "a-a"), ("a-f", "a-10")])
def test_writes_of_one_store_are_ordered(one: str, other: str) -> None:
    assert is_earlier(one, other)
    assert not is_earlier(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("a-1", "a-1"), ("a-1", "b-2"), (None, "a-1"), ("a-1", None), ("1", "2")]
)
def test_equal_missing_invalid_and_foreign_write_ids_are_not_ordered(
    one: str | None, other: str | None
) -> None:
    assert not is_earlier(one, other)
