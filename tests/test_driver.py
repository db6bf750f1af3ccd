"""The capabilities of a driver."""

from __future__ import annotations

from typing import Any

import pytest

from trove_async import ConfigError
from trove_async.driver import Capabilities


@pytest.mark.parametrize(
    ("field", "value"),
    [("parallel_parts", 0), ("max_parts", 0), ("part_multiple", 0), ("max_reads", 0),
     ("max_writes", -1)],
)  # fmt: skip
def test_limits_below_one_are_rejected(field: str, value: int) -> None:
    limits: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError, match=f"{field} must be at least 1, got {value}"):
        Capabilities(**limits)


def test_none_means_no_limit() -> None:
    assert Capabilities(max_reads=None, max_writes=1).max_reads is None
