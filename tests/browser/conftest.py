"""Collection of the browser tests. They import the extra `browser`, which may not be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip this folder unless pytest is run with `-m browser`."""
    del collection_path
    return None if config.getoption("markexpr") == "browser" else True
