"""The errors of layers of several drivers name the member that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import NO_RETRIES, Fake, content, small_pool
from trove_async import Trove
from trove_async.drivers import LocalDriver, MemoryDriver, S3Driver
from trove_async.errors import (
    ConfigError,
    ObjectNotFoundError,
    PermissionDeniedError,
    TroveError,
    UnavailableError,
)
from trove_async.layers import Fallback, Hedged, Mapped, Mirrored, ReadOnly
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

CALLS: dict[str, Callable[[Trove], Coroutine[Any, Any, object]]] = {
    "put": lambda store: store.put("bucket", "new", b"body"),
    "upload": lambda store: store.put("bucket", "new", content(3 * MiB)),
    "commit": lambda store: store.put("bucket", "new", content(3 * MiB)),
    "copy": lambda store: store.copy("bucket", "key", "bucket", "new"),
    "delete": lambda store: store.delete("bucket", "key"),
    "create_bucket": lambda store: store.create_bucket("other"),
}


def _fallback(one: Fake, two: Fake) -> Fallback:
    return Fallback(one, two)


def _merged(one: Fake, two: Fake) -> Fallback:
    return Fallback(one, two, on_missing=True)


def _mirrored(one: Fake, two: Fake) -> Mirrored:
    return Mirrored(one, two)


@pytest.mark.parametrize("make", [_fallback, _merged, _mirrored])
@pytest.mark.parametrize("step", CALLS)
async def test_write_that_the_primary_refuses_names_it(make: Any, step: str) -> None:
    one, two = Fake(), Fake()
    async with Trove(make(one, two), retry=NO_RETRIES, pool=small_pool()) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "key", b"body")
        one.fail(step, UnavailableError("dead"), times=None)
        with pytest.raises(
            UnavailableError, match=r"on backend 'default' by its primary \(memory\)"
        ):
            await CALLS[step](store)


@pytest.mark.parametrize("make", [_fallback, _merged, _mirrored])
async def test_read_that_a_member_refuses_names_it(make: Any) -> None:
    one, two = Fake(), Fake()
    async with Trove(make(one, two), retry=NO_RETRIES) as store:
        await store.create_bucket("bucket")
        one.fail("get", UnavailableError("dead"), times=None)
        two.fail("get", PermissionDeniedError("no"), times=None)
        with pytest.raises(TroveError, match=r"no \[.*by its (replica|member) 1 \(memory\)"):
            await store.read("bucket", "key")
        two.heal()
        two.fail("get", UnavailableError("dead as well"), times=None)
        with pytest.raises(UnavailableError, match=r"dead \[.*by its primary \(memory\)") as caught:
            await store.read("bucket", "key")
        assert "1 (memory): UnavailableError: dead as well" in caught.value.__notes__[0]


async def test_missing_object_names_no_member() -> None:
    async with Trove(Mirrored(Fake(), Fake())) as store:
        await store.create_bucket("bucket")
        with pytest.raises(ObjectNotFoundError) as caught:
            await store.read("bucket", "key")
        assert caught.value.member is None


@pytest.mark.parametrize("layer", [Fallback, Mirrored])
async def test_two_members_at_one_place_are_refused(layer: Any, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to("root")
    driver = MemoryDriver()
    for one, two in (
        (LocalDriver(tmp_path), LocalDriver(tmp_path)),
        (f"file://{tmp_path}", ReadOnly(LocalDriver(tmp_path))),
        (driver, Hedged(driver)),
        (S3Driver(region="eu-west-1"), S3Driver(region="us-east-1")),
    ):
        with pytest.raises(ConfigError, match="at one place"):
            layer(one, two)
    linked = layer(LocalDriver(tmp_path / "root"), LocalDriver(tmp_path / "link"))
    with pytest.raises(ConfigError, match="at one place"):
        await Trove(linked).open()
    layer(Mapped(driver, into="one"), Mapped(driver, into="two"))
