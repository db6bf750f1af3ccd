"""The retry policy: the validation of its settings, and the delays that it returns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async.errors import ConfigError
from trove_async.retry import RetryPolicy

SECONDS = st.floats(0, 1000)


@pytest.mark.parametrize(
    "policy",
    [
        {"attempts": 0},
        {"base_delay": -1},
        {"base_delay": float("nan")},
        {"max_delay": -0.1},
        {"max_delay": float("nan")},
        {"budget": -1},
    ],
)
def test_policy_out_of_range_is_rejected(policy: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RetryPolicy(**policy)


@pytest.mark.parametrize(
    "policy",
    [
        {"attempts": "3"},
        {"attempts": 1.5},
        {"base_delay": "1"},
        {"max_delay": None},
        {"budget": "1"},
    ],
)
def test_policy_of_a_wrong_type_is_rejected(policy: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(policy))} must be an? (int|number)"):
        RetryPolicy(**policy)


@given(
    base_delay=SECONDS,
    max_delay=SECONDS,
    attempt=st.integers(1, 10**9),
    retry_after=st.none() | st.floats(0, 10**6),
)
def test_delay_is_within_its_bounds(
    base_delay: float, max_delay: float, attempt: int, retry_after: float | None
) -> None:
    policy = RetryPolicy(base_delay=base_delay, max_delay=max_delay)
    delay = policy.delay(attempt, retry_after)
    assert 0 <= delay <= max_delay
    if retry_after is not None:
        assert delay >= min(retry_after, max_delay)
    else:
        assert delay <= base_delay * 2.0 ** min(attempt - 1, 1000)
