"""CRC-32C: of bodies, of bodies made of parts, and compared with what a backend reports."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from crc32c import crc32c

from ._concurrency import in_thread
from ._views import BytesLike
from .errors import IntegrityError
from .models import MiB, ObjectInfo

CRC32C: Final = "crc32c"
"""The kind of checksum that we compute ourselves: S3, GCS and the embedded drivers all keep it."""

_INLINE_HASH: Final = 4 * MiB
"""Bytes that are hashed on the event loop: at 20 GB/s they take 200 µs, as long as a thread hop."""


def running_crc32c(views: Iterable[BytesLike], value: int = 0) -> int:
    """Return the CRC-32C (RFC 9260, appendix A) of the views' concatenation.

    Args:
        views: The bytes.
        value: The CRC-32C of all bytes before them.
    """
    for view in views:
        value = crc32c(view, value)
    return value


def crc32c_text(value: int) -> str:
    """Return a CRC-32C as `ObjectInfo.checksums` has it: base64 of its four big-endian bytes."""
    return b64encode(value.to_bytes(4)).decode("ascii")


def crc32c_of(views: Iterable[BytesLike]) -> str:
    """Return the CRC-32C of the views' concatenation, in base64."""
    return crc32c_text(running_crc32c(views))


async def hash_crc32c(views: Sequence[memoryview], value: int = 0) -> int:
    """Do what `running_crc32c` does, in a worker thread where it would block the loop."""
    if sum(map(len, views)) > _INLINE_HASH:
        return await in_thread(running_crc32c, views, value)
    return running_crc32c(views, value)


class Crc32c:
    """A running CRC-32C."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: BytesLike) -> None:
        """Go on over `data`."""
        self._value = crc32c(data, self._value)

    def digest(self) -> str:
        """Return it in base64."""
        return crc32c_text(self._value)


def compare(ours: Mapping[str, str], theirs: Mapping[str, str], what: str) -> None:
    """Raise IntegrityError if two sets of checksums disagree on a kind that both have."""
    for kind in ours.keys() & theirs.keys():
        if ours[kind] != theirs[kind]:
            raise IntegrityError(f"{what}: {kind} is {theirs[kind]}, and should be {ours[kind]}")


def compare_stored(sent: Mapping[str, str], size: int, info: ObjectInfo) -> None:
    """Raise IntegrityError if the backend reports to have stored something else than was sent."""
    if info.stored_size != size:
        raise IntegrityError(f"{size} bytes were sent and {info.stored_size} were stored")
    compare(sent, info.checksums, "what was stored is not what was sent")


def compare_announced(announced: Mapping[str, str], counted: str) -> None:
    """Raise IntegrityError if a body's CRC-32C is not the one that was announced, if one was."""
    expected = announced.get(CRC32C, counted)
    if expected != counted:
        raise IntegrityError(f"the body's crc32c is {counted}, not {expected} as announced")


_POLYNOMIAL: Final = 0x82F63B78  # RFC 3720, appendix B.4: Castagnoli, bits reversed
_ONE: Final = 1 << 31  # reversed, so the highest bit is x to the 0
_X8: Final = _ONE >> 8


def combine_crc32c(first: int, second: int, size: int) -> int:
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
