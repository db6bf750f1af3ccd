"""The middlewares of a store: which of them apply to an object, and how that is explained."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, single_attempt_store
from tests.framed_middleware import Framed
from trove_async import BackendNotFoundError, NotSupportedError, Trove
from trove_async.drivers.memory import MemoryDriver
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trove_async.options import PresignOptions

BODY = bytes(10_000)
KEYS = Keyring({"a": b"k" * 32})


async def transforms_of_a_put(store: Trove, key: str, **options: Any) -> Sequence[str]:
    return (await store.put("data", key, BODY, **options)).transforms


# -- scopes ----------------------------------------------------------------------------------------


async def test_scope_limits_a_middleware() -> None:
    middleware = [
        (Framed(name="bucket"), Scope.buckets("da*")),
        (Framed(name="key"), Scope.keys("**/*.csv")),
        (Framed(name="type"), Scope.content_types("text/*")),
        (Framed(name="backend"), Scope.backends("b")),
        (Framed(name="not a"), ~Scope.keys("a/*") & Scope.buckets("data")),
        Framed(name="all"),
    ]
    async with single_attempt_store(
        backends={"b": CallLog()}, routes=[("b/*", "b")], middleware=middleware
    ) as store:
        for bucket in ("data", "other"):
            await store.create_bucket(bucket, backends="all")
        assert await transforms_of_a_put(store, "x") == ("bucket", "not a", "all")
        assert await transforms_of_a_put(store, "a/x.csv") == ("bucket", "key", "type", "all")
        assert await transforms_of_a_put(store, "b/x") == ("bucket", "backend", "not a", "all")
        assert (await store.put("other", "x", BODY)).transforms == ("all",)
        pinned = store.backend("b")
        assert await transforms_of_a_put(pinned, "x") == ("bucket", "backend", "not a", "all")
        for key in ("x", "a/x.csv", "b/x"):
            assert await store.read("data", key) == BODY


async def test_scope_of_content_types_sees_the_media_type_that_is_stored() -> None:
    middleware = [(Framed(), Scope.content_types("text/*", "application/json"))]
    async with single_attempt_store(middleware=middleware) as store:
        await store.create_bucket("data")
        for key, content_type, applied in [
            ("a.txt", None, True),
            ("a.json", None, True),
            ("a.png", None, False),
            ("a", None, False),
            ("a.txt", "", False),
            ("a.txt", "image/png", False),
            ("a.png", "text/plain", True),
            ("a", "TEXT/Plain; charset=utf-8", True),
            ("a", "application/JSON ;x=y", True),
        ]:
            transforms = await transforms_of_a_put(store, key, content_type=content_type)
            assert transforms == (("framed",) if applied else ())


async def test_scope_is_evaluated_for_each_write() -> None:
    calls: list[tuple[str, str]] = []
    applies = True

    async def is_in_scope(bucket: str, key: str) -> bool:
        calls.append((bucket, key))
        await asyncio.sleep(0)
        return applies

    async with single_attempt_store(middleware=[(Framed(), Scope.when(is_in_scope))]) as store:
        await store.create_bucket("data")
        assert await transforms_of_a_put(store, "key") == ("framed",)
        applies = False
        assert await transforms_of_a_put(store, "key") == ()
        assert calls == [("data", "key")] * 2
        await store.read("data", "key")
        await store.head("data", "key")
        assert len(calls) == 2  # a read is decoded by the records
        applies = True
        assert (await store.copy("data", "key", "data", "copy")).transforms == ("framed",)
        assert calls[2:] == [("data", "copy")]


async def test_error_of_a_scope_function_passes_through_and_stores_nothing() -> None:
    def fail(_bucket: str, _key: str) -> bool:
        raise LookupError("no such tenant")

    driver = CallLog()
    async with single_attempt_store(driver, middleware=[(Framed(), Scope.when(fail))]) as store:
        await store.create_bucket("data")
        with pytest.raises(LookupError, match="no such tenant"):
            await store.put("data", "key", BODY)
        assert driver.stored_keys("data") == []


# -- arguments -------------------------------------------------------------------------------------


def test_scope_with_an_unknown_backend_is_rejected() -> None:
    for scope in (
        Scope.backends("cold"),
        ~Scope.backends("default", "cold"),
        Scope.keys("x") & (Scope.backends("cold") | Scope.keys("y")),
    ):
        with pytest.raises(BackendNotFoundError, match=r"'cold'.*'default', 'b'"):
            Trove(MemoryDriver(), backends={"b": MemoryDriver()}, middleware=[(Framed(), scope)])
    Trove(MemoryDriver(), middleware=[(Framed(), Scope.backends("default"))])


@pytest.mark.parametrize(
    "middleware",
    [
        Framed(),
        5,
        None,
        "zstd",
        [5],
        ["zstd"],
        [None],
        [Framed],
        [Compression],
        [(Framed(),)],
        [(Framed(), "keys")],
        [(Framed(), None)],
        [(Framed, Scope.everything())],
        [(Scope.everything(), Framed())],
        [(Framed(), Scope.everything(), 1)],
        (Framed(), Scope.everything()),
        [[Framed(), Scope.everything()]],
    ],
)
def test_middleware_of_a_wrong_type_is_rejected(middleware: Any) -> None:
    with pytest.raises(TypeError, match="middleware"):
        Trove(MemoryDriver(), middleware=middleware)


async def test_middlewares_may_be_any_iterable() -> None:
    middlewares: Any = iter([Framed()])
    async with single_attempt_store(middleware=middlewares) as store:
        await store.create_bucket("data")
        for _ in range(2):
            assert await transforms_of_a_put(store, "key") == ("framed",)


async def test_at_most_16_middlewares_apply_to_an_object() -> None:
    driver = CallLog()
    middleware = [Framed(name=f"{number}") for number in range(16)]
    one_more = (Framed(name="one more"), Scope.keys("x"))
    async with single_attempt_store(driver, middleware=[*middleware, one_more]) as store:
        await store.create_bucket("data")
        driver.calls.clear()
        with pytest.raises(NotSupportedError, match="at most 16 middlewares"):
            await store.put("data", "x", BODY)
        assert driver.calls == []
        assert len(await transforms_of_a_put(store, "key")) == 16
        assert await store.read("data", "key", range=(5000, 5010)) == BODY[:10]


# -- explanations ----------------------------------------------------------------------------------


async def test_explain_returns_the_middlewares_of_a_put() -> None:
    async def is_secret(_bucket: str, key: str) -> bool:
        return key.startswith("secret")

    middleware = [
        (Compression(level=5), Scope.content_types("text/*")),
        (Encryption(KEYS), Scope.when(is_secret)),
    ]
    async with single_attempt_store(
        backends={"b": CallLog()}, routes=[("*.log", "b")], middleware=middleware
    ) as store:
        compression, encryption = "Compression(level=5)", "Encryption(Keyring('a'))"
        assert (await store.explain("data", "a.txt")).middleware == (compression,)
        assert (await store.explain("data", "secret.txt")).middleware == (compression, encryption)
        assert (await store.explain("data", "secret.log")).middleware == (encryption,)
        assert (await store.explain("data", "secret.log")).backend == "b"
        assert (await store.explain("data", "a")).middleware == ()
        assert (await store.backend("b").explain("data", "secret")).middleware == (encryption,)


async def test_store_need_not_be_open_to_explain() -> None:
    store = single_attempt_store(middleware=[(Framed(), Scope.backends("default"))])
    assert (await store.explain("data", "key")).middleware == ("Framed('framed')",)


async def test_store_without_middleware_explains_none() -> None:
    async with single_attempt_store() as store:
        assert (await store.explain("data", "key")).middleware == ()


# -- presigned URLs --------------------------------------------------------------------------------


class Presigning(CallLog):
    def __init__(self) -> None:
        super().__init__(presign=True)

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        self.calls.append("presign")
        return f"https://example.com/{bucket}/{key}?{method}&{expires}&{options.content_type}"


async def test_url_of_an_object_in_scope_is_refused() -> None:
    driver = Presigning()
    middleware = [(Compression(), Scope.content_types("text/*")), (Framed(), Scope.keys("x"))]
    async with single_attempt_store(driver, middleware=middleware) as store:
        driver.calls.clear()
        with pytest.raises(NotSupportedError, match=r"Compression\(\)"):
            await store.presign_get("data", "a.txt")
        with pytest.raises(NotSupportedError, match=r"Compression\(\)"):
            await store.bucket("data").presign_put("a.txt")
        with pytest.raises(NotSupportedError, match="'framed'"):
            await store.presign_get("data", "x")
        with pytest.raises(NotSupportedError, match="Compression"):
            await store.presign_put("data", "a.png", content_type="text/plain")
        assert driver.calls == []
        assert "a.png" in await store.presign_get("data", "a.png")
        assert "a.txt" in await store.presign_put("data", "a.txt", content_type="image/png")
        assert driver.calls == ["presign", "presign"]
        # What a response claims to be does not change how the object was stored.
        with pytest.raises(NotSupportedError):
            await store.presign_get("data", "a.txt", response_content_type="image/png")
        assert await store.presign_get("data", "a.png", response_content_type="text/plain")
