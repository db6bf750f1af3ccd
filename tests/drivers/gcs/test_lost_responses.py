"""Lost responses to writes while another client writes the same object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.drivers.gcs.proxied_store import linked
from tests.http_faults import Cut, Response
from trove_async import UnavailableError
from trove_async.options import is_earlier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any, TypeAlias

    from tests.drivers.gcs.proxied_store import Link
    from tests.http_faults import Fault
    from trove_async.events import Event

    Write: TypeAlias = Callable[[Link], Coroutine[Any, Any, None]]

THEIRS = b"theirs, made of ours"


@pytest_asyncio.fixture
async def link() -> AsyncIterator[Link]:
    async with linked() as link:
        link.place("key", b"old")
        link.place("source", b"ours")
        yield link


async def put(link: Link) -> None:
    await link.store.put(link.bucket, "key", b"ours")


async def copy(link: Link) -> None:
    await link.store.copy(link.bucket, "source", link.bucket, "key")


async def delete(link: Link) -> None:
    await link.store.delete(link.bucket, "key")


async def delete_many(link: Link) -> None:
    await link.store.delete_many(link.bucket, ["key", "none"])


METHODS: dict[Write, str] = {put: "POST", copy: "POST", delete: "DELETE", delete_many: "POST"}

LOST: dict[str, Callable[[], Fault]] = {
    "done unheard": lambda: Response(503, served=True),
    "not done": lambda: Response(503),
    "cut off": lambda: Cut("response head"),
}


def after_a_failure(link: Link, act: Callable[[], object]) -> None:
    """Call `act` after each failed attempt, before the next one."""

    def told(event: Event) -> None:
        if event.kind == "attempt" and event.error is not None:
            act()

    link.store.events.subscribe(told)


def conditions(link: Link, method: str) -> list[str | None]:
    return [
        one.query.get("ifGenerationMatch") for one in link.proxy.requests if one.method == method
    ]


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("write", METHODS)
async def test_later_write_of_another_client_is_kept(link: Link, write: Write, fault: str) -> None:
    link.proxy.arm(LOST[fault](), method=METHODS[write])
    after_a_failure(link, lambda: link.place("key", THEIRS, old=False))
    with pytest.raises(UnavailableError, match="outcome of this write is unknown"):
        await write(link)
    assert link.stored("key") == THEIRS


@pytest.mark.parametrize("write", [put, copy])
async def test_own_write_is_recognized_and_not_repeated(link: Link, write: Write) -> None:
    link.proxy.arm(Cut("response head"), method="POST")
    await write(link)
    assert link.stored("key") == b"ours"
    assert conditions(link, "POST") == [None]


@pytest.mark.parametrize("write", [put, copy])
async def test_retry_replaces_only_the_earlier_version(link: Link, write: Write) -> None:
    there = link.place("key", b"old")
    link.proxy.arm(Response(503), method="POST")
    await write(link)
    assert link.stored("key") == b"ours"
    assert conditions(link, "POST") == [None, str(there)]


@pytest.mark.parametrize("write", [delete, delete_many])
async def test_retry_deletes_only_the_earlier_version(link: Link, write: Write) -> None:
    there = link.place("key", b"old")
    link.proxy.arm(Response(503), method=METHODS[write])
    await write(link)
    assert link.stored("key") is None
    assert conditions(link, "DELETE")[-1] == str(there)


async def test_retry_of_new_object_requires_absence(link: Link) -> None:
    link.proxy.arm(Response(503), method="POST")
    await link.store.put(link.bucket, "new", b"ours")
    assert conditions(link, "POST") == [None, "0"]


async def test_rejected_write_is_retried_unconditionally(link: Link) -> None:
    link.proxy.arm(Response(429, {"Retry-After": "0"}), method="POST")
    after_a_failure(link, lambda: link.place("key", THEIRS, old=False))
    await put(link)
    assert link.stored("key") == b"ours"


@pytest.mark.parametrize("write", [put, delete])
async def test_own_earlier_write_does_not_block_retry(link: Link, write: Write) -> None:
    await link.store.put(link.bucket, "key", b"of a moment ago")
    link.proxy.arm(Response(503), method=METHODS[write])
    await write(link)
    assert link.stored("key") == (b"ours" if write is put else None)


async def test_retry_checks_again_after_412(link: Link) -> None:
    link.proxy.arm(Response(503), method="POST")
    link.proxy.arm(Response(412), method="POST")
    await put(link)
    assert link.stored("key") == b"ours"
    assert len(conditions(link, "POST")) == 3


async def test_retry_without_read_permission_only_creates(link: Link) -> None:
    link.proxy.arm(Response(503), method="POST")
    link.proxy.arm(Response(403), method="GET", times=None)
    await link.store.put(link.bucket, "new", b"ours")
    link.proxy.arm(Response(503), method="POST")
    with pytest.raises(UnavailableError):
        await put(link)
    assert link.stored("new") == b"ours"
    assert link.stored("key") == b"old"


@pytest.mark.parametrize(("one", "other"), [("a-9", "a-a"), ("a-f", "a-10")])
def test_writes_of_one_store_are_ordered(one: str, other: str) -> None:
    assert is_earlier(one, other)
    assert not is_earlier(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("a-1", "a-1"), ("a-1", "b-2"), (None, "a-1"), ("a-1", None), ("1", "2")]
)
def test_writes_of_different_stores_are_not_ordered(one: str | None, other: str | None) -> None:
    assert not is_earlier(one, other)
