"""Collection of the data tests, which import the extra `data`, and the filesystem that they use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trove_async.integrations.fsspec import TroveFileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "data"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip this folder unless pytest is run with `-m data`. The extra may not be installed."""
    del collection_path
    return None if config.getoption("markexpr") == "data" else True


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the storage_options of a store that encrypts keys below ``cold/`` on a second backend."""
    monkeypatch.setenv("TROVE_TEST_ROOT", str(tmp_path))
    return {
        "store": "tests.integrations.fsspec_factories:routed_and_encrypted",
        "listings_expiry_time": hash(tmp_path),  # an instance of its own
    }


@pytest.fixture
def fs(options: dict[str, Any], tmp_path: Path) -> Iterator[TroveFileSystem]:
    """Return the filesystem. Assert that the test stored encrypted objects, and no others, below ``cold/``."""
    filesystem = TroveFileSystem(**options)
    filesystem.mkdir(BUCKET, backends="all")
    yield filesystem
    written = {entry["backend"] for entry in filesystem.find(BUCKET, detail=True).values()}
    filesystem.close()
    TroveFileSystem.clear_instance_cache()
    assert written == {"cold"}
    files = [path for path in (tmp_path / "cold" / BUCKET).rglob("*") if path.is_file()]
    assert files
