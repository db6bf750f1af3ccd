"""Sizes and durations as texts."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async._quantities import parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("64MiB", 64 * 1024**2),
        ("64 mib", 64 * 1024**2),
        ("20GB", 20 * 10**9),
        ("1.5 KiB", 1536),
        ("3B", 3),
        ("1TiB", 1024**4),
        ("999999999999999", 999_999_999_999_999),
    ],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", "-1", "1 XB", "1e3", "1,000", "٣", "1.5.5", "9" * 5000, "64M iB"]
)
def test_text_that_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size, such as"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("500ms", 0.5),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        (" 1h   30m ", 5400.0),
        ("7d", 604_800.0),
        ("2.5", 2.5),
        ("1.5s", 1.5),
        ("0", 0.0),
        ("1m500ms", 60.5),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "soon", "nan", "inf", "1w", "30s1m", "1 0s", "9" * 400]
)
def test_text_that_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration, such as"):
        parse_duration(text)


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2000 * 1024**5, "2,000.0 PiB"),
    ],
)
def test_size_for_people(size: int, text: str) -> None:
    assert size_text(size) == text
