"""CRC-32C checksums: computes them, combines those of parts, and compares them with a backend's."""

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
"""The kind of checksum that the library computes. S3, GCS and the embedded drivers store it."""

_INLINE_HASH: Final = 4 * MiB
"""Up to this size, bytes are hashed on the event loop. At 20 GB/s, hashing them takes 200 µs, as long
as a hop to a thread."""


def running_crc32c(views: Iterable[BytesLike], value: int = 0) -> int:
    """Return the CRC-32C (RFC 9260, appendix A) of the views' concatenation.

    Args:
        views: The bytes.
        value: The CRC-32C of the bytes before the views.
    """
    for view in views:
        value = crc32c(view, value)
    return value


def crc32c_text(value: int) -> str:
    """Return a CRC-32C in the form of `ObjectInfo.checksums`: base64 of four big-endian bytes."""
    return b64encode(value.to_bytes(4)).decode("ascii")


def crc32c_of(views: Iterable[BytesLike]) -> str:
    """Return the CRC-32C of the views' concatenation, in base64."""
    return crc32c_text(running_crc32c(views))


async def hash_crc32c(views: Sequence[memoryview], value: int = 0) -> int:
    """Do what `running_crc32c` does, in a worker thread if there are many bytes to hash."""
    if sum(map(len, views)) > _INLINE_HASH:
        return await in_thread(running_crc32c, views, value)
    return running_crc32c(views, value)


class Crc32c:
    """A running CRC-32C.

    Attributes:
        value: The CRC-32C of the bytes so far.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: BytesLike) -> None:
        """Add `data` to the checksum."""
        self.value = crc32c(data, self.value)

    def digest(self) -> str:
        """Return the checksum in base64."""
        return crc32c_text(self.value)


def compare(expected: Mapping[str, str], actual: Mapping[str, str], message: str) -> None:
    """Raise IntegrityError if two sets of checksums differ in a kind that both contain."""
    # A kind that only one side has proves nothing, and is ignored.
    for kind in expected.keys() & actual.keys():
        if expected[kind] != actual[kind]:
            raise IntegrityError(f"{message}: {kind} must be {expected[kind]}, got {actual[kind]}")


def compare_stored(sent: Mapping[str, str], size: int, info: ObjectInfo) -> None:
    """Raise IntegrityError if the stored object differs from the body that was sent."""
    if info.stored_size != size:
        raise IntegrityError(f"{size} bytes were sent and {info.stored_size} were stored")
    compare(sent, info.checksums, "the stored object differs from the body that was sent")


def compare_announced(announced: Mapping[str, str], actual: str) -> None:
    """Raise IntegrityError if a body's CRC-32C differs from the announced one, if any."""
    expected = announced.get(CRC32C, actual)
    if expected != actual:
        raise IntegrityError(f"the body's crc32c must be {expected} as announced, got {actual}")


_POLYNOMIAL: Final = 0x82F63B78  # RFC 3720, appendix B.4: Castagnoli, bits reversed
_ONE: Final = 1 << 31  # bits reversed: the highest bit is the coefficient of x to the power of 0
_X8: Final = _ONE >> 8


def combine_crc32c(first: int, second: int, size: int) -> int:
    """Return the CRC-32C of the concatenation of two bodies.

    Args:
        first: The CRC-32C of the first body.
        second: The CRC-32C of the second body.
        size: The size of the second body in bytes.
    """
    return _product(first, _shift(size)) ^ second


@lru_cache(maxsize=64)  # all parts of an upload, except the last, have the same size
def _shift(size: int) -> int:
    """Return x to the power of 8 · `size`, modulo the polynomial."""
    # Exponentiation by squaring: the number of products grows with the binary digits of `size`.
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
