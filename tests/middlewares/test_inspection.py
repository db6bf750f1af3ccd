"""`Inspection`: its factory, its representation and its errors. The engine's tests are in test_inspecting.py."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from trove_async import ContentBlockedError, Inspecting, ObjectNotFoundError, Scope, Trove
from trove_async.drivers import MemoryDriver
from trove_async.middleware import ClosableInspector, Inspector, Middleware, ObjectContext
from trove_async.middlewares.compression import Compression
from trove_async.middlewares.inspection import Inspection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CONTEXT = ObjectContext(bucket="data", key="a.txt", backend="default", content_type="text/plain")


class Words:
    """Blocks bodies that contain a word, even if it arrives in several pieces."""

    def __init__(self, bucket: str, key: str, content_type: str | None) -> None:
        self.object = (bucket, key, content_type)
        self.seen = b""

    async def update(self, data: bytes) -> None:
        self.seen += data
        if b"secret" in self.seen:
            raise ContentBlockedError("the body must not contain a secret")

    async def finish(self) -> None:
        if self.seen.endswith(b"..."):
            raise ContentBlockedError("the body must not end in dots")


async def open_words(bucket: str, key: str, content_type: str | None) -> Words:
    await asyncio.sleep(0)
    return Words(bucket, key, content_type)


class Policy:
    def words(self, bucket: str, key: str, content_type: str | None) -> Words:
        return Words(bucket, key, content_type)

    async def __call__(self, bucket: str, key: str, content_type: str | None) -> Words:
        return Words(bucket, key, content_type)


@pytest.mark.parametrize("factory", [Words, open_words, Policy().words, Policy(), partial(Words)])
async def test_factory_may_be_any_callable(factory: Callable[..., Any]) -> None:
    inspector = await Inspection(factory).inspector(CONTEXT)
    assert isinstance(inspector, Words)
    assert inspector.object == ("data", "a.txt", "text/plain")


async def test_inspection_has_the_protocol_of_the_store() -> None:
    inspection = Inspection(Words)
    assert isinstance(inspection, Inspecting)
    assert not isinstance(inspection, Middleware)
    inspector = await inspection.inspector(CONTEXT)
    assert isinstance(inspector, Inspector)
    assert not isinstance(inspector, ClosableInspector)


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (Words, "Inspection(Words)"),
        (open_words, "Inspection(open_words)"),
        (Policy().words, "Inspection(Policy.words)"),
        (Policy(), "Inspection(Policy)"),
        (partial(Words), "Inspection(partial)"),
    ],
)
def test_repr_names_the_factory(factory: Callable[..., Any], expected: str) -> None:
    assert repr(Inspection(factory)) == expected


def test_factory_must_be_callable() -> None:
    with pytest.raises(TypeError, match=r"must be callable, got Words"):
        Inspection(Words("b", "k", None))  # type: ignore[arg-type]  # tested at run time
    assert repr(Inspection.__new__(Inspection)) == "<Inspection, not initialised>"


@pytest.mark.parametrize(
    ("result", "kind"), [(None, "NoneType"), (Words, "a class"), (b"body", "bytes")]
)
@pytest.mark.parametrize("later", [False, True])
async def test_factory_must_return_an_inspector(result: Any, kind: str, *, later: bool) -> None:
    async def return_later(*_: object) -> Any:
        return result

    def return_now(*_: object) -> Any:
        return result

    inspection = Inspection(return_later if later else return_now)
    async with Trove(MemoryDriver(), middleware=[inspection]) as store:
        await store.create_bucket("data")
        with pytest.raises(
            TypeError, match=rf"return_(now|later) must return an inspector, .* got {kind}"
        ):
            await store.put("data", "a.txt", b"body")
        with pytest.raises(ObjectNotFoundError):
            await store.head("data", "a.txt")


async def test_factory_that_raises_ends_the_put() -> None:
    def refuse(_bucket: str, key: str, _content_type: str | None) -> Inspector:
        raise ContentBlockedError(f"{key} has a forbidden name")

    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"body"

    async with Trove(MemoryDriver(), middleware=[Inspection(refuse)]) as store:
        await store.create_bucket("data")
        with pytest.raises(ContentBlockedError) as caught:
            await store.put("data", "a.exe", body())
        assert str(caught.value) == (
            "a.exe has a forbidden name [put 'data/a.exe' on backend 'default']"
        )
        assert not read


@pytest.mark.parametrize("before", [False, True])
async def test_plaintext_is_inspected_wherever_the_inspection_is_listed(*, before: bool) -> None:
    inspection, compression = Inspection(Words), Compression()
    middleware: list[Middleware | Inspecting] = [compression]
    middleware.insert(0 if before else 1, inspection)
    async with Trove(MemoryDriver(), middleware=middleware) as store:
        await store.create_bucket("data")
        for body in (b"a secret" * 1000, [b"a sec", b"ret"], b"and so on..."):
            with pytest.raises(ContentBlockedError, match="must not"):
                await store.put("data", "a.txt", body)
        info = await store.put("data", "a.txt", b"harmless" * 1000)
        assert info.stored_size < info.size
        assert await store.read("data", "a.txt") == b"harmless" * 1000


async def test_scope_limits_an_inspection() -> None:
    scoped = Inspection(Words), Scope.buckets("public")
    async with Trove(MemoryDriver(), middleware=[scoped]) as store:
        for bucket in ("public", "private"):
            await store.create_bucket(bucket)
        await store.put("private", "a.txt", b"secret")
        with pytest.raises(ContentBlockedError):
            await store.put("public", "a.txt", b"secret")
        assert (await store.explain("public", "a.txt")).middleware == ("Inspection(Words)",)
        assert (await store.explain("private", "a.txt")).middleware == ()
        await store.copy("private", "a.txt", "public", "a.txt")  # copies are not inspected
        with pytest.raises(ContentBlockedError):
            await store.bucket("public").put("b.txt", b"secret")
        with pytest.raises(ContentBlockedError):
            await store.backend("default").put("public", "b.txt", b"secret")


def test_one_inspection_serves_several_event_loops() -> None:
    inspection = Inspection(open_words)

    async def put() -> None:
        async with Trove(MemoryDriver(), middleware=[inspection]) as store:
            await store.create_bucket("data")
            await store.put("data", "a.txt", b"harmless")

    asyncio.run(put())
    asyncio.run(put())
