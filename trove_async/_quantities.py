"""Sizes and durations as texts."""

from __future__ import annotations

import re
from typing import Final

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)", re.ASCII)
_SIZE_UNITS: Final = {
    "": 1,
    "b": 1,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}

_DURATION: Final = re.compile(
    r"(?:(?P<d>\d{1,6})d)?\s*+(?:(?P<h>\d{1,6})h)?\s*+(?:(?P<m>\d{1,6})m)?\s*+"
    r"(?:(?P<s>\d{1,9}(?:\.\d{1,9})?)s)?\s*+(?:(?P<ms>\d{1,9})ms)?",
    re.ASCII,
)
"""Possessive (``*+``): runs of spaces would otherwise take more than linear time."""

_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

_BINARY_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP: Final = 1024


def parse_size(text: str) -> int:
    """Return the number of bytes of a size such as ``64MiB``, ``1.5 GB`` or ``1024``.

    ``KiB``, ``MiB``, ``GiB`` and ``TiB`` are powers of 1,024; ``KB``, ``MB``, ``GB`` and ``TB`` powers of
    1,000 (IEC 80000-13). Case does not matter.

    Raises:
        ValueError: It is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = None if match is None else _SIZE_UNITS.get(match[2].lower())
    if match is None or unit is None:
        raise ValueError('must be a size, such as "64MiB", "20GB" or a number of bytes')
    number = float(match[1]) * unit if "." in match[1] else int(match[1]) * unit
    return int(number)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``30s``, ``500ms``, ``1h30m``, ``7d`` or ``2.5``.

    Raises:
        ValueError: It is not a duration.
    """
    text = text.strip()
    match = _DURATION.fullmatch(text)
    if match is not None and any(match.groups()):
        return sum(float(number) * _SECONDS[unit] for unit, number in match.groupdict("0").items())
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(
            'must be a duration, such as "30s", "500ms", "1h30m" or a number of seconds'
        )
    return seconds


def size_text(size: int) -> str:
    """Return a size for people, such as ``1.5 MiB``."""
    if size < _STEP:
        return f"{size} B"
    amount, unit = float(size), 0
    while amount >= _STEP and unit < len(_BINARY_UNITS) - 1:
        amount /= _STEP
        unit += 1
    return f"{amount:,.1f} {_BINARY_UNITS[unit]}"
