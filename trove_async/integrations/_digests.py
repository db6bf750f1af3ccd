"""Verification of a request body by its Content-MD5 and Content-Digest headers."""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Protocol

from ._conditions import Header


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


def _md5() -> _Hash:
    return hashlib.md5(usedforsecurity=False)


_ALGORITHMS: Mapping[str, Callable[[], _Hash]] = {
    # RFC 9530, section 7.2, "Hash Algorithms for HTTP Digest Fields"
    "sha-256": hashlib.sha256,
    "sha-512": hashlib.sha512,
    "md5": _md5,
}


class DigestError(Exception):
    """A digest is malformed or does not match the body."""


class Digests:
    """The expected digests of one body. Unknown algorithms in a Content-Digest are ignored.

    Args:
        header: Returns a header of the request.

    Raises:
        DigestError: A digest is malformed.
    """

    def __init__(self, header: Header) -> None:
        self._expected: list[tuple[str, _Hash, bytes]] = []
        if (md5 := header("content-md5")) is not None:  # RFC 1864
            self._expect("Content-MD5", _md5(), md5.strip(" \t"))
        # A dictionary of byte sequences (RFC 8941, sections 3.2 and 3.3.5); base64 contains no
        # comma.
        for member in (header("content-digest") or "").split(","):
            name, _, value = member.strip(" \t").partition("=")
            if name in _ALGORITHMS:
                value = value.partition(";")[0].rstrip(" \t")
                if len(value) < 2 or value[0] != ":" or value[-1] != ":":  # noqa: PLR2004 - colons
                    raise DigestError("The Content-Digest is malformed.")
                self._expect("Content-Digest", _ALGORITHMS[name](), value[1:-1])

    def _expect(self, field: str, hasher: _Hash, encoded: str) -> None:
        try:
            expected = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            expected = b""  # no digest has this length
        if len(expected) != len(hasher.digest()):
            raise DigestError(f"The {field} is malformed.")
        self._expected.append((field, hasher, expected))

    def __bool__(self) -> bool:
        return bool(self._expected)

    def update(self, data: bytes) -> None:
        """Add the next bytes of the body."""
        for _, hasher, _ in self._expected:
            hasher.update(data)

    def check(self) -> None:
        """Compare the digests at the end of the body.

        Raises:
            DigestError: A digest does not match the body.
        """
        for field, hasher, expected in self._expected:
            if hasher.digest() != expected:
                raise DigestError(f"The body does not match its {field}.")
