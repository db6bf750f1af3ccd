"""What drives a browser comes with the extra `browser`, which only `make browser-test` installs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import the tests of this folder only where they were asked for."""
    del collection_path
    return None if config.getoption("markexpr") == "browser" else True
