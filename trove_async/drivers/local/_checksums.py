"""The CRC-32C of a body."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence

from crc32c import crc32c

from trove_async.errors import IntegrityError


def checksum(views: Sequence[memoryview]) -> int:
    """Return the CRC-32C of the views' concatenation."""
    counted = 0
    for view in views:
        counted = crc32c(view, counted)
    return counted


def in_base64(counted: int) -> str:
    """Return the checksum as `ObjectInfo.checksums` has it."""
    return b64encode(counted.to_bytes(4)).decode()


def check(given: Mapping[str, str], counted: str) -> None:
    """Raise IntegrityError if the body is not what its sender took it to be."""
    said = given.get("crc32c", counted)
    if said != counted:
        raise IntegrityError(
            f"the body's crc32c is {counted}, not {said} as given: it changed on its way here"
        )
