"""Large files that replace others by an exchange."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from trove_async.drivers.local import _renameat2
from trove_async.drivers.local._renameat2 import replace_by_exchange
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """Return the descriptor of a directory with the file ``new``."""
    (tmp_path / "new").write_bytes(b"new")
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_existing_file_is_replaced_and_removed(directory: int, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    assert replace_by_exchange(directory, "new", directory, "old")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old": b"new"}


def test_missing_file_directory_and_link_are_not_replaced(directory: int, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("new")
    for target in ("missing", "directory", "link"):
        assert not replace_by_exchange(directory, "new", directory, target)
    assert (tmp_path / "new").read_bytes() == b"new"
    assert (tmp_path / "directory").is_dir()


def test_directory_that_has_just_replaced_the_file_is_put_back(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").write_bytes(b"old")
    real = os.stat

    def stat_then_replace(*arguments: Any, **options: Any) -> os.stat_result:
        status = real(*arguments, **options)
        (tmp_path / "old").unlink()
        (tmp_path / "old").mkdir()
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat_then_replace)
        assert not replace_by_exchange(directory, "new", directory, "old")
    assert (tmp_path / "new").read_bytes() == b"new"
    assert (tmp_path / "old").is_dir()


async def test_large_object_is_replaced_with_and_without_an_exchange(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges = []
    real = replace_by_exchange

    def exchange(*arguments: Any) -> bool:
        exchanges.append(real(*arguments))
        return exchanges[-1]

    monkeypatch.setattr("trove_async.drivers.local._publish.replace_by_exchange", exchange)
    for number in range(3):
        await client.put("k", bytes([number]) * MiB)
        assert await client.read("k") == bytes([number]) * MiB
    monkeypatch.setattr(_renameat2, "_renameat2", None)
    await client.put("k", b"!" * MiB)
    assert await client.read("k") == b"!" * MiB
    assert exchanges == [False, True, True, False]
    assert client.own_files() == []


async def test_large_object_beside_a_directory_of_its_name_is_stored(client: BucketClient) -> None:
    await client.put("k/inside", b"inside")
    for body in (bytes(MiB), b"!" * MiB):
        await client.put("k", body)
        assert await client.read("k") == body
    assert await client.read("k/inside") == b"inside"
    assert client.own_files() == []
