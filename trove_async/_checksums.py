"""The CRC-32C of a body that was put together, from those of its parts: nothing is read again."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_POLYNOMIAL: Final = 0x82F63B78  # RFC 3720, appendix B.4: Castagnoli, bits reversed
_ONE: Final = 1 << 31  # reversed, so the highest bit is x to the 0
_X8: Final = _ONE >> 8


def combined(first: int, second: int, size: int) -> int:
    """Return the CRC-32C of two bodies, one after the other, from those of each.

    Args:
        first: Of the first.
        second: Of the second.
        size: Bytes of the second.
    """
    return _product(first, _shift(size)) ^ second


@lru_cache(maxsize=64)  # an upload's parts are all of one size, but the last
def _shift(size: int) -> int:
    """Return x to the 8 · `size`, modulo the polynomial."""
    result, power = _ONE, _X8
    while size:
        if size & 1:
            result = _product(result, power)
        power = _product(power, power)
        size >>= 1
    return result


def _product(one: int, other: int) -> int:
    """Multiply two polynomials over GF(2), modulo the polynomial of CRC-32C."""
    result = 0
    for bit in range(31, -1, -1):
        if one >> bit & 1:
            result ^= other
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return result
