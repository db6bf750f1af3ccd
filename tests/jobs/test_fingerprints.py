"""Whether a worker's store is that of the job: the same places, layers and middlewares."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import small_pool
from trove_async import ConfigError, Scope, Trove
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.jobs._fingerprints import description_of
from trove_async.jobs._rebalance import Rebalance
from trove_async.jobs._registry import build_job
from trove_async.layers import Hedged, Mapped, Mirrored
from trove_async.middlewares import Compression, Encryption, Keyring

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRETS = {name: os.urandom(32) for name in "12"}


def keyring(current: str = "1") -> Keyring:
    return Keyring(SECRETS, current=current)


def plain(root: Path, *, cold: Any = None, **arguments: Any) -> Trove:
    cold = cold or LocalDriver(root / "cold")
    return Trove(LocalDriver(root / "hot"), backends={"cold": cold}, pool=small_pool(), **arguments)


def encrypted(root: Path, middleware: object, scope: Scope | None = None) -> Trove:
    scope = Scope.backends("cold") if scope is None else scope
    return plain(root, middleware=[(middleware, scope)])


STORES: dict[str, tuple[Callable[[Path], Trove], str]] = {
    "plain": (plain, ""),
    "locate": (lambda root: plain(root, locate="anywhere"), "locate"),
    "another place": (lambda root: plain(root, cold=LocalDriver(root / "other")), "backend 'cold'"),
    "another driver": (lambda root: plain(root, cold=MemoryDriver()), "backend 'cold'"),
    "a layer": (
        lambda root: plain(root, cold=Hedged(LocalDriver(root / "cold"))),
        "backend 'cold'",
    ),
    "mapped": (
        lambda root: plain(root, cold=Mapped(LocalDriver(root / "cold"), into="all")),
        "backend 'cold'",
    ),
    "a mirror": (
        lambda root: plain(
            root, cold=Mirrored(LocalDriver(root / "cold"), LocalDriver(root / "mirror"))
        ),
        "backend 'cold'",
    ),
    "another mirror": (
        lambda root: plain(
            root, cold=Mirrored(LocalDriver(root / "cold"), LocalDriver(root / "third"))
        ),
        "backend 'cold'",
    ),
    "encrypted": (lambda root: encrypted(root, Encryption(keyring())), "middleware"),
    "another key": (lambda root: encrypted(root, Encryption(keyring("2"))), "middleware"),
    "another setting": (
        lambda root: encrypted(root, Encryption(keyring(), bind=True)),
        "middleware",
    ),
    "another scope": (
        lambda root: encrypted(root, Encryption(keyring()), Scope.everything()),
        "middleware",
    ),
    "compressed": (lambda root: encrypted(root, Compression()), "middleware"),
}


PAIRS = [
    *(("plain", name) for name in STORES if name != "plain"),
    ("a mirror", "another mirror"),
    ("encrypted", "another key"),
    ("encrypted", "another setting"),
    ("encrypted", "another scope"),
    ("encrypted", "plain"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("hot", "cold", "other", "mirror", "third"):
        (tmp_path / folder).mkdir()
    return tmp_path


@pytest.mark.parametrize("name", STORES)
async def test_equal_stores_are_accepted(root: Path, name: str) -> None:
    build, _ = STORES[name]
    async with build(root) as store:
        expected = description_of(store, "data")
    async with build(root) as store:
        job = Rebalance(store, "data", "", delete_shadowed=False, dry_run=False)
        built = build_job(store, job.name, job.arguments, expected)
        assert built.arguments == job.arguments


@pytest.mark.parametrize(("name", "other"), PAIRS)
async def test_different_stores_are_refused(root: Path, name: str, other: str) -> None:
    async with STORES[name][0](root) as store:
        expected = description_of(store, "data")
    build, text = STORES[other]
    async with build(root) as store:
        job = Rebalance(store, "data", "", delete_shadowed=False, dry_run=False)
        with pytest.raises(ConfigError, match=f"in: {text or 'middleware'}. Give") as caught:
            build_job(store, job.name, job.arguments, expected)
    assert str(root) not in str(caught.value)


async def test_memory_backends_are_described_by_their_class() -> None:
    descriptions = []
    for _ in range(2):
        async with Trove(MemoryDriver(), pool=small_pool()) as store:
            descriptions.append(description_of(store, "data"))
    assert descriptions[0] == descriptions[1]
