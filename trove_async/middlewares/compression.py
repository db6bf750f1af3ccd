"""Compression in the Zstandard Seekable Format, which the ``zstd`` command reads as well.

A body is compressed as independent frames, so a range of it can be read without decompressing what
precedes it. The encoded body is a standard zstd file: ``zstd -d`` restores the object without this
library.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Final

from trove_async._globs import Glob
from trove_async._settings import check_ints
from trove_async.errors import ConfigError, IntegrityError, NotSupportedError
from trove_async.middleware import MAX_BLOCK, ObjectContext, Plan, Record, Span
from trove_async.models import KiB, MiB

if find_spec("zstandard") is None:
    raise ModuleNotFoundError(
        f"{__name__} needs zstandard: pip install 'trove-async[zstd]'", name="zstandard"
    )

from trove_async.middlewares import _seekable_zstd as zstd

__all__ = ["COMPRESSED", "Compression"]

COMPRESSED: Final = (
    "application/gzip",
    "application/java-archive",
    "application/vnd.openxmlformats-officedocument.*",
    "application/vnd.oasis.opendocument.*",
    "application/vnd.rar",
    "application/x-7z-compressed",
    "application/x-brotli",
    "application/x-bzip2",
    "application/x-compress",
    "application/x-gzip",
    "application/x-lz4",
    "application/x-lzip",
    "application/x-lzma",
    "application/x-rar-compressed",
    "application/x-xz",
    "application/x-zip-compressed",
    "application/x-zstd",
    "application/epub+zip",
    "application/zip",
    "application/zstd",
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/opus",
    "audio/webm",
    "audio/x-flac",
    "font/woff",
    "font/woff2",
    "image/avif",
    "image/gif",
    "image/heic",
    "image/heif",
    "image/jp2",
    "image/jpeg",
    "image/jxl",
    "image/png",
    "image/webp",
    "video/*",
)
"""Patterns of the media types whose bodies are compressed already."""

_MIN_LEVEL: Final = -7
_MAX_LEVEL: Final = 19  # zstd(1): the levels above need "--ultra", and far more memory
_MIN_FRAME_SIZE: Final = 1 * KiB
_MAX_SIZE: Final = 1 << 63
_FIRST_TAIL: Final = 16 * KiB  # the table of 2 GiB in frames of 1 MiB

_INLINE_SIZES: Final = ((3, 64 * KiB), (6, 16 * KiB), (9, 8 * KiB))
"""The largest blocks to compress on the event loop, by the highest level: 300, 100 and 50 MB/s. Higher levels
take milliseconds for the smallest frames."""

_WORTHWHILE: Final = 0.95
"""The maximum ratio of encoded size to size. Above it, decompressing each read costs more than it saves."""


class Compression:
    """Compresses bodies with Zstandard.

    A body is stored as it is if it is small, if its media type is in `skip`, or if its first frame does
    not become at least 5 % smaller. An object is read by its record, so these settings may be
    changed at any time.

    Args:
        level: The level, from 1 (fast) to 19 (small), or from -7 (fastest) to -1.
        frame_size: The number of bytes that are compressed together, from 1 KiB to `MAX_BLOCK`. Small
            frames make small ranges cheaper to read, but compress less.
        min_size: The size in bytes below which a body is stored as it is.
        skip: Media types, such as ``"image/png"``, or patterns (``"video/*"``, by the rules of
            `Route`), whose objects are stored as they are. The default is `COMPRESSED`.

    Raises:
        ConfigError: A setting is out of range, or a media type is malformed.
        PatternError: A pattern is malformed.
        TypeError: A setting has the wrong type.

    Example:
        >>> Compression(level=9)
        Compression(level=9)
    """

    name: Final = "zstd"
    required: Final = False

    def __init__(
        self,
        level: int = 3,
        frame_size: int = 1 * MiB,
        min_size: int = 4 * KiB,
        skip: Iterable[str] = COMPRESSED,
    ) -> None:
        check_ints(level=level, frame_size=frame_size, min_size=min_size)
        if level == 0 or not _MIN_LEVEL <= level <= _MAX_LEVEL:
            raise ConfigError(
                f"level must be 1 to {_MAX_LEVEL}, or {_MIN_LEVEL} to -1, got {level}"
            )
        if not _MIN_FRAME_SIZE <= frame_size <= MAX_BLOCK:
            raise ConfigError(
                f"frame_size must be {_MIN_FRAME_SIZE} to {MAX_BLOCK} bytes, got {frame_size}"
            )
        if min_size < 0:
            raise ConfigError(f"min_size must be at least 0, got {min_size}")
        self.level: Final = level
        self.frame_size: Final = frame_size
        self.min_size: Final = min_size
        self.skip: Final = _media_types(skip)
        self._skipped: Final = tuple(Glob.parse(pattern) for pattern in self.skip)

    def __repr__(self) -> str:
        defaults = {
            "level": 3,
            "frame_size": 1 * MiB,
            "min_size": 4 * KiB,
            "skip": COMPRESSED,
        }
        arguments = (
            f"{name}={value!r}"
            for name, default in defaults.items()
            if (value := getattr(self, name, default)) != default
        )
        return f"Compression({', '.join(arguments)})"

    async def encoder(self, context: ObjectContext) -> Encoder | None:
        """Return an encoder. None: the body is small, or its media type is in `skip`.

        Raises:
            NotSupportedError: The body has more frames than the format allows.
        """
        if self._is_skipped(context):
            return None
        if context.size is not None:
            _check_count(zstd.frame_count(context.size, self.frame_size), self.frame_size)
        return Encoder(self.level, self.frame_size, self.min_size)

    def decoded_size(self, record: Record, encoded_size: int) -> int | None:
        """Return the size of the body. None: only the seek table contains it."""
        return _read_record(record, encoded_size)[1]

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:  # noqa: ARG002 - the contract
        """Return a decoder."""
        frame_size, size = _read_record(record, encoded_size)
        return Decoder(frame_size, size, encoded_size)

    async def is_current(
        self,
        context: ObjectContext,
        record: Record | None,
        *,
        renamed: bool,  # noqa: ARG002 - the contract
    ) -> bool:
        """Return whether an object is compressed, or would be stored as it is.

        Another level or frame size is no reason to compress an object again.
        """
        return record is not None or self._is_skipped(context)

    def _is_skipped(self, context: ObjectContext) -> bool:
        if context.size is not None and context.size < self.min_size:
            return True
        media_type = context.content_type
        return media_type is not None and any(glob.matches(media_type) for glob in self._skipped)


def decode_only() -> Compression:
    """Return a middleware that decodes the objects of a store without `Compression`."""
    return Compression()


class Encoder:
    """Compresses one body."""

    header: Final = b""

    def __init__(self, level: int, frame_size: int, min_size: int) -> None:
        self._level = level
        self._frame_size = frame_size
        self._min_size = min_size

    @property
    def inline_size(self) -> int:
        """The size of the largest block to compress on the event loop: about 200 µs of work."""
        return next((size for level, size in _INLINE_SIZES if self._level <= level), 0)

    def block_size(self, index: int) -> int:  # noqa: ARG002 - all blocks have the same size
        """Return the size of a frame's content."""
        return self._frame_size

    def encoded_size(self, size: int) -> int | None:  # noqa: ARG002 - it depends on the bytes
        """Return None: it depends on the bytes."""
        return None

    def encode(self, index: int, block: memoryview, *, last: bool) -> bytes | None:
        """Return a block as a frame. None: the object is not worth compressing.

        Raises:
            NotSupportedError: The body has more frames than the format allows.
        """
        _check_count(index + 1, self._frame_size)
        whole = index == 0 and last
        if whole and len(block) < self._min_size:
            return None  # the size was not known to `Compression.encoder`
        frame = zstd.compress(block, self._level)
        if index == 0:
            encoded = len(frame) + (zstd.MIN_TABLE if whole else 0)
            if encoded > _WORTHWHILE * len(block):
                return None
        return frame

    def trailer(self, encoded_sizes: Sequence[int], size: int) -> bytes:
        """Return the seek table."""
        return zstd.write_table(encoded_sizes, size, self._frame_size)

    def record(self, size: int | None) -> Record:
        """Return the sizes that a decoder needs."""
        if size is None:
            return {"frame_size": self._frame_size}
        return {"frame_size": self._frame_size, "size": size}


class Decoder:
    """Decompresses one object."""

    header: Final = b""

    def __init__(self, frame_size: int, size: int | None, encoded_size: int) -> None:
        self._frame_size = frame_size
        self._encoded_size = encoded_size
        self._recorded_size = size
        # Readers share the decoder. The table is complete when it is assigned.
        self._table: zstd.SeekTable | None = None
        self._table_size: int | None = None
        if size is not None:
            count = zstd.frame_count(size, frame_size)
            self._table_size = zstd.table_size(count)
            if count == 1:
                # The sizes determine the table, which saves the request for it.
                self._table = zstd.SeekTable.of_one_frame(size, encoded_size)

    @property
    def size(self) -> int | None:
        """The size of the body. None: the seek table is not loaded."""
        if self._recorded_size is not None:
            return self._recorded_size
        return None if self._table is None else self._table.size

    @property
    def index(self) -> Span | None:
        """The range of the seek table, or of what may contain it. None: it is loaded, or not needed."""
        if self._table is not None:
            return None
        size = self._first_tail if self._table_size is None else self._table_size
        return self._encoded_size - size, self._encoded_size

    @property
    def _first_tail(self) -> int:
        return min(self._encoded_size, _FIRST_TAIL)

    def load_index(self, data: bytes) -> None:
        """Load the seek table, or find its size."""
        if self._table is not None:
            return  # another reader has loaded it meanwhile
        # 1. The size of the table. It must not change between two requests.
        found = zstd.read_table_size(data, self._encoded_size)
        if self._table_size not in {None, found}:
            raise IntegrityError("the seek table contradicts the size of the body")
        # 2. The table, which may be preceded by frames.
        if found > len(data):
            if self._recorded_size is not None or len(data) != self._first_tail:
                raise IntegrityError(f"the seek table is truncated to {len(data)} bytes")
            self._table_size = found  # `index` is the whole table now
            return
        table = zstd.SeekTable.parse(
            data[len(data) - found :], self._frame_size, self._encoded_size
        )
        if self._recorded_size not in {None, table.size}:
            raise IntegrityError(
                f"the seek table has a size of {table.size} bytes, the record {self._recorded_size}"
            )
        self._table = table

    def plan(self, start: int, end: int) -> Plan:
        """Return the frames of a range."""
        if self._table is None:
            if start == 0 and end == self._recorded_size and self._table_size is not None:
                # All frames are needed, and the sizes determine where the table begins.
                return Plan(first=0, encoded=(0, self._encoded_size - self._table_size), skip=0)
            raise RuntimeError("load `index` first")
        first, last = start // self._frame_size, (end - 1) // self._frame_size
        return Plan(
            first=first,
            encoded=(self._table.position(first), self._table.position(last + 1)),
            skip=start - first * self._frame_size,
        )

    @property
    def block_count(self) -> int:
        """The number of frames."""
        return zstd.frame_count(self._known_size, self._frame_size)

    def encoded_block_size(self, index: int, data: memoryview) -> int | None:
        """Return the size of a frame. None: this needs more of its bytes."""
        content_size = self._content_size(index)
        if self._table is not None:
            return self._table.frame_size(index)
        if zstd.check_header(data, content_size) is None:
            return None
        return zstd.measure_frame(data, zstd.max_frame_size(content_size))

    def decode(self, index: int, data: memoryview) -> bytes:
        """Return the content of a frame, after verifying its checksum."""
        content_size = self._content_size(index)
        if self._table is not None:
            expected = self._table.frame_size(index)
            if len(data) != expected:
                raise IntegrityError(f"a zstd frame has {len(data)} bytes, expected {expected}")
        return zstd.decompress(data, content_size)

    def trailer(self, encoded_sizes: Sequence[int]) -> bytes:
        """Return the seek table."""
        return zstd.write_table(encoded_sizes, self._known_size, self._frame_size)

    def _content_size(self, index: int) -> int:
        return min(self._frame_size, self._known_size - index * self._frame_size)

    @property
    def _known_size(self) -> int:
        size = self.size
        if size is None:
            raise RuntimeError("load `index` first")
        return size


def _check_count(frames: int, frame_size: int) -> None:
    # The seek table is written last, which is too late for this error.
    if frames > zstd.MAX_FRAMES:
        raise NotSupportedError(
            f"a body of more than {zstd.MAX_FRAMES} frames of {frame_size} bytes cannot be compressed: "
            "set a larger frame_size"
        )


def _media_types(skip: Iterable[str]) -> tuple[str, ...]:
    """Return the media types in lower case.

    Raises:
        ConfigError: A media type is malformed.
        TypeError: `skip` is a str, or an item is not.
    """
    if isinstance(skip, str) or not isinstance(skip, Iterable):
        raise TypeError(f"skip must be an iterable of media types, got {type(skip).__name__}")
    media_types = tuple(skip)
    for media_type in media_types:
        if not isinstance(media_type, str):
            raise TypeError(f"a media type must be a str, got {type(media_type).__name__}")
        if media_type.count("/") != 1 or ";" in media_type:
            raise ConfigError(f"skip must contain media types like 'image/png', got {media_type!r}")
    return tuple(media_type.lower() for media_type in media_types)


def _read_record(record: Record, encoded_size: int) -> tuple[int, int | None]:
    """Return the frame size and the size of the body.

    Raises:
        IntegrityError: The record is malformed, or no body has an encoded form of this size.
    """
    # 1. The parameters. An unknown one may change the meaning of the others.
    if not {"frame_size"} <= record.keys() <= {"frame_size", "size"}:
        raise IntegrityError("the zstd record has unknown or missing parameters")
    frame_size = _read_int(record, "frame_size", _MIN_FRAME_SIZE, MAX_BLOCK)
    if "size" not in record:
        least = zstd.MIN_FRAME + zstd.MIN_TABLE
        if encoded_size < least:
            raise IntegrityError(f"the body has {encoded_size} bytes, expected at least {least}")
        return frame_size, None
    size = _read_int(record, "size", 0, _MAX_SIZE)
    # 2. The limits of the encoded size.
    count = zstd.frame_count(size, frame_size)
    table_size = zstd.table_size(count)
    most = (count - 1) * zstd.max_frame_size(frame_size)
    most += zstd.max_frame_size(size - (count - 1) * frame_size)
    if not count * zstd.MIN_FRAME <= encoded_size - table_size <= most:
        raise IntegrityError(f"the body has {encoded_size} bytes, which its record contradicts")
    return frame_size, size


def _read_int(record: Record, name: str, least: int, most: int) -> int:
    value = record[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise IntegrityError(f"the zstd record has a malformed {name}")
    return value
