"""Parsing of Retry-After."""

from __future__ import annotations

import pytest

from trove_async._http import retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("9" * 400, 999_999_999.0),
        ("\u0663", None),
        ("-1", None),
        ("1e400", None),
        ("x" * 50_000, None),
    ],
)
def test_seconds_are_returned_and_invalid_values_are_ignored(
    value: str, seconds: float | None
) -> None:
    assert retry_after({"retry-after": value}) == seconds
