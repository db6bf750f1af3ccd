"""The format of encrypted bodies: Tink's streaming AEAD AES256_GCM_HKDF, with any segment size.

Source: https://developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming. Tink reads these
bytes, given the same key, segment size and associated data (a key with the output prefix RAW, a
derived key of 32 bytes and HKDF with SHA256), and the other way round.

::

    encoded  | header | segment 0 | segment 1 | ... | last segment |
             |<-- segment_size -->|<- segment_size ->|
    header   length of the header (1 byte, 40) | salt (32) | nonce prefix (7)
    segment  ciphertext | tag (16)

A derived key, HKDF-SHA256(key, salt, info=associated data), encrypts each segment by AES-256-GCM
without associated data. The nonce is: nonce prefix (7) | number of the segment (4, big-endian) | 1 if
the segment is the last, else 0 (1). The last segment is empty only if the body is.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trove_async._secrets import Secret
from trove_async.errors import IntegrityError, NotSupportedError
from trove_async.middleware import Plan

KEY_SIZE: Final = 32
"""The size in bytes of a key, and of the keys derived from it."""

TAG_SIZE: Final = 16

SALT_SIZE: Final = 32 + 7
"""The size in bytes of the random part of a header: the salt and the nonce prefix."""

HEADER_SIZE: Final = 1 + SALT_SIZE

CHECK_SIZE: Final = 6
"""The size in bytes of the check value of a key. It only selects a key: the tags of the segments prove that it is
the right one."""

MAX_SEGMENTS: Final = 2**32
"""The number of segments that the four bytes of the nonce can number."""

_NONCE: Final = Struct(">7sIB")


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes and positions of blocks and segments. Segment `i` is the encoded form of block `i`.

    Every segment adds a tag, and the first segment is shorter by the header. So positions are computed as
    if `HEADER_SIZE` bytes preceded the body: then all blocks except the last have the same size.

    Args:
        segment_size: The size in bytes of a segment with its tag, and of the header and the first
            segment together. More than ``HEADER_SIZE + TAG_SIZE``.
    """

    segment_size: int

    @property
    def _stride(self) -> int:
        return self.segment_size - TAG_SIZE

    def block_start(self, index: int) -> int:
        """Return the position in the body of a block."""
        return max(0, index * self._stride - HEADER_SIZE)

    def block_size(self, index: int) -> int:
        """Return the size of a block that is not the last."""
        return self._stride if index else self._stride - HEADER_SIZE

    def block_count(self, size: int) -> int:
        """Return the number of blocks of a body."""
        return max(1, -(-(size + HEADER_SIZE) // self._stride))

    def encoded_size(self, size: int) -> int:
        """Return the size of the encoded form of a body.

        Raises:
            NotSupportedError: The body has too many segments.
        """
        count = self.block_count(size)
        check_index(count - 1, self.segment_size)
        return HEADER_SIZE + size + count * TAG_SIZE

    def body_size(self, encoded_size: int) -> int:
        """Return the size of the body that has an encoded form of this size.

        Raises:
            IntegrityError: No body has one.
        """
        count = max(1, -(-encoded_size // self.segment_size))
        size = encoded_size - HEADER_SIZE - count * TAG_SIZE
        # If the last segment is too short for a tag and a byte, then fewer blocks hold such a body.
        if size < 0 or self.block_count(size) != count or count > MAX_SEGMENTS:
            raise IntegrityError(
                f"no encrypted object has {encoded_size} bytes in segments of {self.segment_size}: "
                "the object was truncated, or its record was altered"
            )
        return size

    def segment_span(self, first: int, last: int, encoded_size: int) -> tuple[int, int]:
        """Return the range of the encoded form that consists of the segments `first` to `last`."""
        start = first * self.segment_size if first else HEADER_SIZE
        return start, min((last + 1) * self.segment_size, encoded_size)

    def plan(self, start: int, end: int, encoded_size: int) -> Plan:
        """Return the segments of a range of the body, which is not empty."""
        first = (start + HEADER_SIZE) // self._stride
        last = (end - 1 + HEADER_SIZE) // self._stride
        encoded = self.segment_span(first, last, encoded_size)
        return Plan(first, encoded, start - self.block_start(first))


def check_index(index: int, segment_size: int) -> None:
    """Raise NotSupportedError if no segment can have this number."""
    if index >= MAX_SEGMENTS:
        raise NotSupportedError(
            f"an encrypted object has at most 2**32 segments, here of {segment_size} bytes: "
            "use a larger segment_size"
        )


class SegmentCipher:
    """Encrypts and decrypts the segments of one body. Threads may share it.

    Encrypting two different blocks under one index and flag would reveal both, so a header must be
    random and belong to one body.

    Args:
        key: The key, `KEY_SIZE` bytes.
        salt: The header without its first byte, `SALT_SIZE` bytes.
        associated_data: Bytes that are not stored, and that must be the same for decryption.

    Attributes:
        header: The first bytes of the encoded form.
        check: The check value of the key, `CHECK_SIZE` bytes: with another key, salt or associated data, it is
            a different one. It is not secret.
    """

    __slots__ = ("_aead", "_nonce_prefix", "check", "header")

    def __init__(self, key: Secret[bytes], salt: bytes, associated_data: bytes) -> None:
        self.header = bytes((HEADER_SIZE,)) + salt
        self._nonce_prefix = salt[-7:]
        # RFC 5869, 2.3: the first 32 bytes do not depend on the length, and do not follow from the next ones.
        length = KEY_SIZE + CHECK_SIZE
        kdf = HKDF(SHA256(), length=length, salt=salt[:-7], info=associated_data)
        derived = Secret(kdf.derive(key.reveal()))  # error reporters show variables
        self._aead = AESGCM(derived.reveal()[:KEY_SIZE])
        self.check = derived.reveal()[KEY_SIZE:]

    def encrypt(self, index: int, block: memoryview, *, last: bool) -> bytes:
        """Return the segment of a block."""
        return self._aead.encrypt(self._nonce(index, last=last), block, None)

    def encrypt_into(self, index: int, block: memoryview, out: memoryview, *, last: bool) -> None:
        """Write the segment of a block to `out`, which must not overlap the block.

        The documentation of `cryptography` 50 does not allow an overlap. Some overlaps gave wrong
        ciphertexts with valid tags (https://github.com/pyca/cryptography/pull/15656).
        """
        self._aead.encrypt_into(self._nonce(index, last=last), block, None, out)

    def decrypt(self, index: int, segment: memoryview, *, last: bool) -> bytes:
        """Return the block of a segment.

        Raises:
            cryptography.exceptions.InvalidTag: It is not this segment, or the key, the header or the
                associated data is a different one.
        """
        return self._aead.decrypt(self._nonce(index, last=last), segment, None)

    def _nonce(self, index: int, *, last: bool) -> bytes:
        return _NONCE.pack(self._nonce_prefix, index, last)
