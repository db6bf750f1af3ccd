"""Random trees and random changes: after a sync both sides are equal, and a second one changes nothing."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import Unordered
from tests.jobs.trees import Lists, make, objects, read, store_with
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.jobs import sync

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trove_async import Trove
    from trove_async.driver import AsyncDriver

SEGMENTS = st.sampled_from(
    ["a", "a-", "a.", "a0", "b", "\N{LATIN SMALL LETTER E WITH ACUTE}", "!", "..."]
)
KEYS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)


class Body(bytes):
    """A body with a short repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Body({bytes(self[:1])!r} * {len(self)})"


BODIES = st.sampled_from(
    [Body(), Body(b"1"), Body(b"2"), Body(b"33"), Body(b"x" * 300_000), Body(b"y" * 300_000)]
)
TREES = st.dictionaries(KEYS, BODIES, max_size=8)

DRIVERS: dict[str, Callable[[Path], AsyncDriver]] = {
    "memory": lambda _folder: MemoryDriver(),
    "listing without metadata": lambda _folder: Lists(),
    "whole seconds": lambda _folder: Lists(whole_seconds=True, md5_etags=True),
    "unordered": lambda _folder: Unordered(),
    "local": lambda folder: LocalDriver(folder / "store", fsync=False),
}


def without_conflicts(tree: Mapping[str, bytes]) -> dict[str, bytes]:
    """Drop keys that need a folder where another key is a file."""
    folders = {key[:index] for key in tree for index, c in enumerate(key) if c == "/"}
    return {key: body for key, body in tree.items() if key not in folders}


async def put_all(store: Trove, bucket: str, tree: Mapping[str, bytes]) -> None:
    for key, body in tree.items():
        await store.put(bucket, key, body)


def replace_tree(folder: Path, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> None:
    """Change a directory from one tree to another. Files that stay the same are not touched."""
    for key in old.keys() - new.keys():
        (folder / key).unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            with suppress(OSError):
                path.rmdir()
    make(folder, {key: body for key, body in new.items() if old.get(key) != body}, at=None)


@pytest.mark.parametrize("name", DRIVERS)
@given(first=TREES, second=TREES, target=TREES, delete=st.booleans())
@settings(max_examples=25)
async def test_upload(
    name: str,
    first: dict[str, bytes],
    second: dict[str, bytes],
    target: dict[str, bytes],
    delete: bool,  # noqa: FBT001 - a strategy
) -> None:
    first, second = without_conflicts(first), without_conflicts(second)
    with tempfile.TemporaryDirectory() as temporary:
        folder = make(Path(temporary) / "in", first, at=None)
        async with store_with(DRIVERS[name](Path(temporary))) as store:
            await put_all(store, "data", {key + "~": body for key, body in target.items()})
            before = await objects(store)

            report = await sync(folder, store.bucket("data"), delete=delete, allow_empty=True)
            assert report.ok, report
            assert await objects(store) == ({} if delete else before) | first

            replace_tree(folder, first, second)
            report = await sync(folder, store.bucket("data"), delete=delete, allow_empty=True)
            assert report.ok, report
            assert await objects(store) == ({} if delete else before | first) | second

            report = await sync(folder, store.bucket("data"), delete=delete, allow_empty=True)
            assert (report.changed, report.unchanged) == (0, len(second)), report


@pytest.mark.parametrize("name", DRIVERS)
@given(first=TREES, second=TREES, target=TREES, delete=st.booleans())
@settings(max_examples=25)
async def test_download(
    name: str,
    first: dict[str, bytes],
    second: dict[str, bytes],
    target: dict[str, bytes],
    delete: bool,  # noqa: FBT001 - a strategy
) -> None:
    if delete:
        first, second = without_conflicts(first), without_conflicts(second)
        target = without_conflicts(target)
    else:  # a directory that stays may be in the way of a file
        merged = without_conflicts({**first, **second, **target})
        first, second, target = (
            {key: body for key, body in tree.items() if key in merged}
            for tree in (first, second, target)
        )
    with tempfile.TemporaryDirectory() as temporary:
        out = make(Path(temporary) / "out", target)
        async with store_with(DRIVERS[name](Path(temporary))) as store:
            await put_all(store, "data", first)

            report = await sync(store.bucket("data"), out, delete=delete, allow_empty=True)
            assert report.ok, report
            assert read(out) == ({} if delete else target) | first

            for key in first.keys() - second.keys():
                await store.delete("data", key)
            changed = {key: body for key, body in second.items() if first.get(key) != body}
            await put_all(store, "data", changed)
            report = await sync(store.bucket("data"), out, delete=delete, allow_empty=True)
            assert report.ok, report
            assert read(out) == ({} if delete else target | first) | second

            report = await sync(store.bucket("data"), out, delete=delete, allow_empty=True)
            assert (report.changed, report.unchanged) == (0, len(second)), report


@pytest.mark.parametrize("name", DRIVERS)
@given(first=TREES, second=TREES, target=TREES, delete=st.booleans())
@settings(max_examples=25)
async def test_copy(
    name: str,
    first: dict[str, bytes],
    second: dict[str, bytes],
    target: dict[str, bytes],
    delete: bool,  # noqa: FBT001 - a strategy
) -> None:
    if name == "local":  # a directory there cannot be both
        first, second = without_conflicts(first), without_conflicts(second)
        delete = True
        target = {}
    with tempfile.TemporaryDirectory() as temporary:
        async with store_with(DRIVERS[name](Path(temporary))) as store:
            await store.create_bucket("copy")
            await put_all(store, "copy", {key + "~": body for key, body in target.items()})
            await put_all(store, "data", first)
            before = await objects(store, "copy")
            pair: Any = (store.bucket("data"), store.bucket("copy"))

            report = await sync(*pair, delete=delete, allow_empty=True)
            assert report.ok, report
            assert await objects(store, "copy") == ({} if delete else before) | first

            for key in first.keys() - second.keys():
                await store.delete("data", key)
            changed = {key: body for key, body in second.items() if first.get(key) != body}
            await put_all(store, "data", changed)
            report = await sync(*pair, delete=delete, allow_empty=True)
            assert report.ok, report
            assert await objects(store, "copy") == ({} if delete else before | first) | second


@given(tree=TREES, changes=TREES)
@settings(max_examples=25)
async def test_there_and_back(tree: dict[str, bytes], changes: dict[str, bytes]) -> None:
    tree, changes = without_conflicts(tree), without_conflicts(changes)
    folder = Path(tempfile.mkdtemp())
    try:
        async with store_with(Lists()) as store:
            await sync(make(folder / "a", tree), store.bucket("data"))
            await sync(store.bucket("data"), folder / "b")
            (folder / "b").mkdir(exist_ok=True)
            replace_tree(folder / "b", tree, changes)
            await sync(folder / "b", store.bucket("data"), delete=True, allow_empty=True)
            report = await sync(store.bucket("data"), folder / "a", delete=True, allow_empty=True)
            assert report.ok
            assert read(folder / "a") == read(folder / "b") == await objects(store) == changes
    finally:
        shutil.rmtree(folder)
