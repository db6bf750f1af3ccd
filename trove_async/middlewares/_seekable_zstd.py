"""Frames and seek tables: the Zstandard Seekable Format.

A body is compressed as independent frames, followed by a seek table in a skippable frame, which other
decoders ignore. The formats are those of RFC 8878, "Zstandard Compression and the 'application/zstd'
Media Type", and of "Zstandard Seekable Format", version 0.1.0 (``contrib/seekable_format`` of the
zstd sources)::

    frame       magic (4) | header (2 to 14) | blocks | checksum (4)
    seek table  magic (4) | size (4) | entries (8 each) | frame count (4) | descriptor (1) | magic (4)

An entry is the compressed and the decompressed size of a frame. All integers are little-endian. In
this module, *block* has the meaning of RFC 8878: a part of a frame.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from struct import Struct
from threading import local
from typing import Final, NamedTuple

from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError

from trove_async.errors import IntegrityError
from trove_async.middleware import MAX_BLOCK
from trove_async.models import KiB

# 1. Frames

_MAGIC: Final = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1, "Magic_Number"
_CHECKSUM: Final = 4  # RFC 8878, 3.1.1, "Content_Checksum"
_BLOCK_HEADER: Final = 3  # RFC 8878, 3.1.1.2, "Blocks"
_LARGEST_BLOCK: Final = 128 * KiB  # RFC 8878, 3.1.1.2.4, "Block_Maximum_Size"
_RLE, _RESERVED = 1, 3  # RFC 8878, 3.1.1.2.2, "Block_Type"
_MIN_WINDOW: Final = 1 * KiB  # RFC 8878, 3.1.1.1.2, "Window Descriptor"

MIN_FRAME: Final = 4 + 2 + _BLOCK_HEADER + _CHECKSUM
"""The size of the smallest frame with a checksum: a header of 2 bytes and one empty block."""

_EMPTY_FRAME: Final = _MAGIC + bytes.fromhex("24 00 01 00 00 99 e9 d8 51")
"""The only frame without content that fits in `MIN_FRAME` bytes: no window, one empty raw block."""

_MIN_CONTENT_OF_BLOCK: Final = 64
"""The minimum average content of a block, except for a few blocks of each frame.

The format has no such limit, but zstd never splits content into blocks as small as this. It limits the
time for measuring a forged frame.
"""


class FrameHeader(NamedTuple):
    """The header of a frame.

    Attributes:
        size: The size in bytes of the magic number and the header.
        content_size: The declared size of the decompressed frame. None: not declared.
        window_size: The memory in bytes that decoding needs.
        has_checksum: Whether the frame ends with a checksum of its content.
        dictionary_id: The dictionary that decoding needs, 0 if none is declared.
    """

    size: int
    content_size: int | None
    window_size: int
    has_checksum: bool
    dictionary_id: int


def read_header(data: bytes | memoryview) -> FrameHeader | None:
    """Return the header of the frame that `data` begins with. None: this needs more bytes.

    Raises:
        IntegrityError: No frame begins with these bytes.
    """
    # RFC 8878, 3.1.1.1, "Frame_Header"
    if not _MAGIC.startswith(bytes(data[: len(_MAGIC)])):
        raise IntegrityError("not a zstd frame: wrong magic number")
    if len(data) <= len(_MAGIC):
        return None
    descriptor = data[len(_MAGIC)]
    if descriptor & 0b1000:
        raise IntegrityError("the header of a zstd frame has a reserved bit")
    single_segment = bool(descriptor & 0b10_0000)
    window_field = 0 if single_segment else 1
    dictionary_field = (0, 1, 2, 4)[descriptor & 0b11]
    size_field = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    at = len(_MAGIC) + 1
    end = at + window_field + dictionary_field + size_field
    if len(data) < end:
        return None

    window = 0
    if window_field:
        base = 1 << (10 + (data[at] >> 3))
        window = base + (base >> 3) * (data[at] & 0b111)
        at += window_field
    dictionary_id = int.from_bytes(data[at : at + dictionary_field], "little")
    at += dictionary_field
    content: int | None = None
    if size_field:
        # A field of two bytes stores the size minus 256.
        content = int.from_bytes(data[at:end], "little") + (256 if descriptor >> 6 == 1 else 0)
        window = content if single_segment else window
    return FrameHeader(end, content, window, bool(descriptor & 0b100), dictionary_id)


def measure_frame(data: bytes | memoryview, limit: int) -> int | None:
    """Return the size of the frame that `data` begins with. None: this needs more bytes.

    Args:
        data: The first bytes of the frame, possibly with bytes that follow it.
        limit: The maximum size of the frame.

    Raises:
        IntegrityError: No frame of at most `limit` bytes begins with these bytes.
    """
    header = read_header(data)
    if header is None:
        return None
    largest = min(_LARGEST_BLOCK, max(header.window_size, _MIN_WINDOW))
    blocks = 8 + limit // _MIN_CONTENT_OF_BLOCK
    at = header.size
    available = len(data) - _BLOCK_HEADER
    while at <= available:
        # RFC 8878, 3.1.1.2, "Blocks": Last_Block (1 bit), Block_Type (2), Block_Size (21)
        block = data[at] | data[at + 1] << 8 | data[at + 2] << 16
        kind, size = block >> 1 & 0b11, block >> 3
        blocks -= 1
        if kind == _RESERVED or size > largest or blocks < 0:
            raise IntegrityError("a zstd frame has a malformed block")
        at += _BLOCK_HEADER + (1 if kind == _RLE else size)
        if block & 1:
            at += _CHECKSUM if header.has_checksum else 0
            if at > limit:
                break
            return at
    if at + _BLOCK_HEADER > limit:
        raise IntegrityError(f"a zstd frame is larger than {limit} bytes")
    return None


def check_header(data: bytes | memoryview, content_size: int) -> FrameHeader | None:
    """Return the header of a frame, if it is one that `compress` may have written.

    Decompression allocates the size that the header declares, so check it before.

    Args:
        data: The first bytes of the frame.
        content_size: The expected size of the decompressed frame.

    Returns:
        The header. None: this needs more bytes.

    Raises:
        IntegrityError: The header is malformed, or has other properties.
    """
    header = read_header(data)
    if header is None:
        return None
    if header.content_size != content_size:
        raise IntegrityError(
            f"a zstd frame declares {header.content_size} bytes, expected {content_size}"
        )
    if not header.has_checksum:
        raise IntegrityError("a zstd frame has no checksum")
    if header.dictionary_id:
        raise IntegrityError("a zstd frame needs a dictionary")
    if header.window_size > MAX_BLOCK:
        raise IntegrityError(f"a zstd frame has a window of {header.window_size} bytes")
    return header


def max_frame_size(content_size: int) -> int:
    """Return the maximum size of a frame with this content, if it is compressed in one call."""
    # zstd.h, ZSTD_COMPRESSBOUND
    return content_size + (content_size >> 8) + (max(0, 128 * KiB - content_size) >> 11)


class _Contexts(local):
    """The contexts of one thread, which cannot be shared with another. Creating one takes time."""

    def __init__(self) -> None:
        self.compressors: dict[int, ZstdCompressor] = {}
        self.decompressor = ZstdDecompressor()


_contexts = _Contexts()


def compress(content: memoryview, level: int) -> bytes:
    """Return `content` as one frame, with its size and a checksum. May be called by several threads."""
    compressors = _contexts.compressors
    if (compressor := compressors.get(level)) is None:
        compressor = compressors[level] = ZstdCompressor(
            level, write_checksum=True, write_content_size=True
        )
    return compressor.compress(content)


def decompress(frame: memoryview, content_size: int) -> bytes:
    """Return the content of a frame, after verifying its checksum. May be called by several threads.

    Args:
        frame: The frame, and nothing else.
        content_size: The expected size of the content. No more than this is allocated.

    Raises:
        IntegrityError: The bytes are not one whole frame with content of this size.
    """
    if content_size == 0:
        # zstandard returns empty content without reading the rest of the frame.
        if frame != _EMPTY_FRAME:
            raise IntegrityError("a zstd frame without content is malformed")
        return b""
    if check_header(frame, content_size) is None:
        raise IntegrityError("a zstd frame ends inside its header")
    try:
        return _contexts.decompressor.decompress(frame, allow_extra_data=False)
    except ZstdError as error:
        raise IntegrityError(f"a zstd frame is malformed or was altered: {error}") from error


# 2. Seek tables

_SKIPPABLE_MAGIC: Final = 0x184D2A5E  # Seekable Format, "Skippable_Magic_Number"
_SEEKABLE_MAGIC: Final = 0x8F92EAB1  # Seekable Format, "Seekable_Magic_Number"
_TABLE_HEADER: Final = Struct("<II")
_TABLE_FOOTER: Final = Struct("<IBI")
_ENTRY: Final = 8  # Compressed_Size and Decompressed_Size. The optional checksum is not used.

_REMEMBERED_TABLE: Final = 64 * KiB
_REMEMBERED_TABLES: Final = 32
"""The maximum size and number of remembered tables: 3 MiB in the whole process, with the parsed sizes."""

_STEP: Final = 1024
"""The number of frames from one known position to the next. Adding up their sizes takes 15 µs."""

_PIECE: Final = 8 * _STEP
"""The number of frames that are parsed or written at a time, which takes 200 µs."""

MAX_FRAMES: Final = 0x8000000  # zstd_seekable.h, ZSTD_SEEKABLE_MAXFRAMES

MIN_TABLE: Final = _TABLE_HEADER.size + _ENTRY + _TABLE_FOOTER.size
"""The size of the seek table of one frame."""


def frame_count(size: int, frame_size: int) -> int:
    """Return the number of frames of a body of `size` bytes. An empty body has one, which is empty."""
    return max(1, -(-size // frame_size))


def table_size(frames: int) -> int:
    """Return the size in bytes of a seek table."""
    return _TABLE_HEADER.size + _ENTRY * frames + _TABLE_FOOTER.size


def write_table(compressed: Sequence[int], size: int, frame_size: int) -> bytes:
    """Return the seek table of a body. Write a long one in a worker thread: other threads can run meanwhile.

    Args:
        compressed: The size of each frame.
        size: The size of the body.
        frame_size: The size of the content of each frame but the last.
    """
    count = len(compressed)
    header = _TABLE_HEADER.pack(_SKIPPABLE_MAGIC, _ENTRY * count + _TABLE_FOOTER.size)
    pieces: list[bytes | array[int]] = [header]
    for start in _pieces(count):
        sizes = array("I", compressed[start : start + _PIECE])
        entries = array("I", [frame_size]) * (2 * len(sizes))
        entries[0::2] = sizes
        if start + len(sizes) == count:
            entries[-1] = size - frame_size * (count - 1)
        if sys.byteorder == "big":
            entries.byteswap()
        pieces.append(entries)
    return b"".join((*pieces, _TABLE_FOOTER.pack(count, 0, _SEEKABLE_MAGIC)))


def _pieces(count: int) -> Iterator[int]:
    """Yield the number of the first frame of each piece of a table. Other threads run in between."""
    for start in range(0, count, _PIECE):
        if start:
            # Releases the GIL. Otherwise the event loop would wait for 5 ms at a time.
            time.sleep(0)
        yield start


def read_table_size(data: bytes, encoded_size: int) -> int:
    """Return the size in bytes of the seek table that `data` ends with.

    Args:
        data: The last bytes of the encoded body, at least those of the table's last fields.
        encoded_size: The size of the encoded body.

    Raises:
        IntegrityError: There is no seek table that fits the size.
    """
    if len(data) < _TABLE_FOOTER.size:
        raise IntegrityError("the seek table is truncated")
    count, descriptor, magic = _TABLE_FOOTER.unpack_from(data, len(data) - _TABLE_FOOTER.size)
    if magic != _SEEKABLE_MAGIC:
        raise IntegrityError("the body does not end with a seek table")
    if descriptor != 0:
        raise IntegrityError(f"the seek table has the unknown descriptor {descriptor:#04x}")
    size = table_size(count)
    if not 1 <= count <= MAX_FRAMES or size + MIN_FRAME * count > encoded_size:
        raise IntegrityError(f"the seek table has {count} frames, which do not fit in the body")
    return size


class SeekTable:
    """The sizes and positions of the frames of one body.

    A table of a million frames has 8 MB. To parse it in little time, only every 1,024th position is kept, and
    the size of a frame is verified when it is used.

    Args:
        size: The size of the body.
        max_frame_size: The maximum size of a frame.
        sizes: The size of each frame.
        positions: The position in the encoded body of every 1,024th frame. The first is 0.

    Attributes:
        size: The size of the body.
    """

    __slots__ = ("_max_frame_size", "_positions", "_sizes", "size")

    def __init__(
        self, size: int, max_frame_size: int, sizes: array[int], positions: array[int]
    ) -> None:
        self.size: Final = size
        self._max_frame_size = max_frame_size
        self._sizes = sizes
        self._positions = positions

    @classmethod
    def of_one_frame(cls, size: int, encoded_size: int) -> SeekTable:
        """Return the table of a body with one frame, which follows from the sizes."""
        frame = encoded_size - MIN_TABLE
        return cls(size, max_frame_size(size), array("I", [frame]), array("Q", [0]))

    @classmethod
    def parse(cls, data: bytes, frame_size: int, encoded_size: int) -> SeekTable:
        """Return a seek table. Small tables are remembered, because ranges of one object need the same.

        Parse a table of more than 64 KiB in a worker thread. Other threads can run meanwhile.

        Args:
            data: The seek table, and nothing else.
            frame_size: The size of the content of each frame but the last.
            encoded_size: The size of the encoded body, which ends with the table.

        Raises:
            IntegrityError: The table is malformed, or contradicts the sizes.
        """
        if len(data) <= _REMEMBERED_TABLE:
            return _remembered(data, frame_size, encoded_size)
        return cls._parse(data, frame_size, encoded_size)

    @classmethod
    def _parse(cls, data: bytes, frame_size: int, encoded_size: int) -> SeekTable:
        # 1. Header and footer
        if read_table_size(data, encoded_size) != len(data):
            raise IntegrityError("the seek table contradicts its size")
        if _TABLE_HEADER.unpack_from(data) != (
            _SKIPPABLE_MAGIC,
            len(data) - _TABLE_HEADER.size,
        ):
            raise IntegrityError("the seek table has a malformed header")
        # 2. Entries
        view = memoryview(data)[_TABLE_HEADER.size : -_TABLE_FOOTER.size]
        count = len(view) // _ENTRY
        full = array("I", [frame_size]) * min(count, _PIECE)
        sizes, positions, total, last = array("I"), array("Q"), 0, 0
        for start in _pieces(count):
            entries = array("I")
            entries.frombytes(view[start * _ENTRY : (start + _PIECE) * _ENTRY])
            if sys.byteorder == "big":
                entries.byteswap()
            contents, compressed = entries[1::2], entries[0::2]
            if start + len(compressed) == count:
                last = contents.pop()
            if contents != full[: len(contents)]:
                raise IntegrityError(
                    f"the seek table has frames that are not of {frame_size} bytes"
                )
            for first in range(0, len(compressed), _STEP):
                positions.append(total)
                total += sum(compressed[first : first + _STEP])
            sizes += compressed
        if not (0 if len(sizes) == 1 else 1) <= last <= frame_size:
            raise IntegrityError("the seek table has an impossible last frame")
        if total != encoded_size - len(data):
            raise IntegrityError("the frames in the seek table do not add up to the body")
        size = (len(sizes) - 1) * frame_size + last
        return cls(size, max_frame_size(frame_size), sizes, positions)

    def frame_size(self, index: int) -> int:
        """Return the size in bytes of a frame.

        Raises:
            IntegrityError: No frame has the size that the table states.
        """
        size = self._sizes[index]
        if not MIN_FRAME <= size <= self._max_frame_size:
            raise IntegrityError(
                f"the seek table has a frame of {size} bytes, which is not possible"
            )
        return size

    def position(self, index: int) -> int:
        """Return the position in the encoded body of a frame, or of the end of the last one."""
        number, rest = divmod(index, _STEP)
        if number == len(self._positions):  # the end of a table of full steps
            number, rest = number - 1, _STEP
        return self._positions[number] + sum(self._sizes[number * _STEP : number * _STEP + rest])


@lru_cache(maxsize=_REMEMBERED_TABLES)
def _remembered(data: bytes, frame_size: int, encoded_size: int) -> SeekTable:
    return SeekTable._parse(data, frame_size, encoded_size)  # noqa: SLF001 - same module
