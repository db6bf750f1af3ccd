"""Encryption of bodies with AES-256-GCM, in a format that Tink reads (`_streaming_aead`).

The keys come from a `Keys`, such as a `Keyring`. A decoder returns a block only after its tag is
verified. The tags cover the order of the blocks and the end of the body, but not the metadata. They do
not detect that an older version of an object was restored, or that two objects were exchanged (unless
`bind` is set).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Final

if find_spec("cryptography") is None:
    raise ModuleNotFoundError(
        f"{__name__} needs cryptography: pip install 'trove-async[crypto]'", name="cryptography"
    )

from cryptography.exceptions import InvalidTag

from trove_async._secrets import Secret
from trove_async._settings import check_ints, check_switches
from trove_async.errors import ClosedError, ConfigError, DecryptionError, IntegrityError
from trove_async.middleware import MAX_BLOCK, Closing, ObjectContext, Plan, Record, Span
from trove_async.models import KiB, MiB

from ._streaming_aead import (
    CHECK_SIZE,
    SALT_SIZE,
    TAG_SIZE,
    Layout,
    SegmentCipher,
    check_index,
)
from .keys import DataKey, Keys, checked_key, is_key_id

MIN_SEGMENT: Final = 4 * KiB
"""Minimum size of a segment, that of Tink's template AES256_GCM_HKDF_4KB."""

_NAMES: Final = frozenset({"segment_size", "key_id", "salt", "bound", "wrapped", "check"})
"""The parameters of a record."""

_REMEMBERED_BLOCKS: Final = 1024
"""The number of blocks whose tags an encoder remembers."""


class Encryption:
    """Encrypts bodies, and decrypts them when they are read.

    Copying an object onto itself encrypts it again if the current key or settings differ.

    Args:
        keys: The keys.
        bind: Whether an object is readable only under its bucket and key. Copies and moves then send
            the body again. Objects that were written without `bind` stay readable under any name.
        require: Whether to refuse to read an object in scope that is not encrypted, or only with a key of an
            `Encryption` whose scope does not include it. The scope should not depend on media types, which
            can be changed without a key.
        segment_size: The size in bytes of a segment (an encrypted block), from 4 KiB to 1 MiB. A read of
            a few bytes fetches and decrypts one segment. Every segment adds 16 bytes.

    Raises:
        ConfigError: `segment_size` is out of range.
        TypeError: An argument has the wrong type.
    """

    __slots__ = ("_bind", "_keys", "_layout", "_required")

    def __init__(
        self,
        keys: Keys,
        *,
        bind: bool = False,
        require: bool = False,
        segment_size: int = 1 * MiB,
    ) -> None:
        if isinstance(keys, type) or not isinstance(keys, Keys):
            kind = type(keys).__name__
            del keys  # it may be a secret
            raise TypeError(f"keys must be a Keyring or another implementation of Keys, got {kind}")
        self._keys = keys
        self._bind = bool(bind)
        self._required = bool(require)
        self._layout = Layout(segment_size)
        check_switches(bind=bind, require=require)
        check_ints(segment_size=segment_size)
        if not MIN_SEGMENT <= segment_size <= MAX_BLOCK:
            raise ConfigError(
                f"segment_size must be {MIN_SEGMENT} to {MAX_BLOCK} bytes, got {segment_size}"
            )

    @property
    def name(self) -> str:
        """The name of the format."""
        return "aes256-gcm-hkdf"

    @property
    def required(self) -> bool:
        """Whether objects in scope that are not encrypted must not be read."""
        return self._required

    @property
    def segment_size(self) -> int:
        """The size in bytes of an encrypted block."""
        return self._layout.segment_size

    async def encoder(self, context: ObjectContext) -> _Encoder:
        """Return an encoder for one body, with a new random salt."""
        key = checked_key(await self._keys.for_write(context))
        parameters = _Parameters(
            segment_size=self._layout.segment_size,
            key_id=key.id,
            salt=os.urandom(SALT_SIZE),
            bound=self._bind,
            wrapped=key.wrapped,
        )
        cipher = parameters.cipher(key, context)
        return _Encoder(replace(parameters, check=cipher.check), cipher)

    def decoded_size(self, record: Record, encoded_size: int) -> int:
        """Return the size of the body.

        Raises:
            IntegrityError: The record is malformed, or no body has an encoded form of this size.
        """
        return _Parameters.of_record(record).layout.body_size(encoded_size)

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> _Decoder:
        """Return a decoder for one object.

        Raises:
            DecryptionError: The key is unknown.
            IntegrityError: The record is malformed, or does not fit the size.
        """
        parameters = _Parameters.of_record(record)
        size = parameters.layout.body_size(encoded_size)
        key = checked_key(await self._keys.for_read(context, parameters.key_id, parameters.wrapped))
        cipher = parameters.cipher(key, context)
        if parameters.check not in {None, cipher.check}:
            raise parameters.wrong_key_error("the object")
        return _Decoder(parameters, cipher, size, encoded_size)

    async def is_current(
        self, context: ObjectContext, record: Record | None, *, renamed: bool
    ) -> bool:
        """Return whether the object is encrypted with the current key and settings."""
        if not record or (self._bind and renamed):
            return False
        parameters = _Parameters.of_record(record)
        key = checked_key(await self._keys.for_write(context))
        settings = parameters.segment_size, parameters.bound, parameters.key_id
        if settings != (self._layout.segment_size, self._bind, key.id):
            return False
        # A key without a wrapped form is that of all objects, and the id may have been given to another one.
        only_id_is_known = parameters.check is None or parameters.wrapped is not None
        return only_id_is_known or parameters.check == parameters.cipher(key, context).check

    async def aclose(self) -> None:
        """Close the connections of the keys, if they have any. The store calls this when it closes."""
        if isinstance(self._keys, Closing):
            await self._keys.aclose()

    def __repr__(self) -> str:
        if not hasattr(self, "_layout"):
            return "<Encryption, not initialised>"  # its constructor raised
        settings = [repr(self._keys)]
        settings += ["bind=True"] if self._bind else []
        settings += ["require=True"] if self._required else []
        if (segment_size := self._layout.segment_size) != 1 * MiB:
            settings.append(f"segment_size={segment_size}")
        return f"Encryption({', '.join(settings)})"


def decode_only() -> Encryption:
    """Return a middleware for the objects of a store without `Encryption`: it has no keys.

    Such a store can list, copy and delete encrypted objects.
    """
    return _WithoutKeys(_NoKeys())


class _NoKeys:
    """The keys of a store without `Encryption`."""

    async def for_write(self, context: ObjectContext) -> DataKey:  # noqa: ARG002 - no key at all
        raise DecryptionError("this store has no keys: pass Encryption(…) in middleware=")

    async def for_read(
        self,
        context: ObjectContext,  # noqa: ARG002 - no key at all
        key_id: str,
        wrapped: bytes | None,  # noqa: ARG002 - no key at all
    ) -> DataKey:
        raise DecryptionError(
            f"the object is encrypted with the key {key_id!r}, and this store has no keys: pass"
            " Encryption(…) in middleware="
        )


class _WithoutKeys(Encryption):
    """Encryption of a store that has no keys."""

    __slots__ = ()

    async def is_current(
        self,
        context: ObjectContext,  # noqa: ARG002 - the contract
        record: Record | None,
        *,
        renamed: bool,
    ) -> bool:
        """Return whether a copy may keep the encrypted bytes: unless they are bound to their name."""
        return not record or not (renamed and _Parameters.of_record(record).bound)


class _Encoder:
    """Encrypts one body. The salt makes the nonces unique, so every body needs a new encoder.

    Encrypting two different blocks with one nonce would reveal both. So an encoder raises an error in a
    forked process, because the parent uses the same nonces. It also keeps the tags of recent blocks, to
    detect a block that changed between two attempts.
    """

    __slots__ = ("_cipher", "_layout", "_parameters", "_process", "_tags")

    def __init__(self, parameters: _Parameters, cipher: SegmentCipher) -> None:
        self._parameters = parameters
        self._layout = parameters.layout
        self._cipher = cipher
        self._process = os.getpid()
        self._tags: dict[int, tuple[int, bool, bytes]] = {}

    @property
    def header(self) -> bytes:
        return self._cipher.header

    @property
    def overhead(self) -> int:
        return TAG_SIZE

    @property
    def inline_size(self) -> int:
        return MAX_BLOCK  # 100 to 200 µs

    def block_size(self, index: int) -> int:
        return self._layout.block_size(index)

    def encoded_size(self, size: int) -> int:
        return self._layout.encoded_size(size)

    def encode(self, index: int, block: memoryview, *, last: bool) -> bytes:
        self._check(index, len(block), last=last)
        segment = self._cipher.encrypt(index, block, last=last)
        self._check_tag(index, segment[-TAG_SIZE:], last=last)
        return segment

    def encode_into(self, index: int, block: memoryview, output: memoryview, *, last: bool) -> None:
        self._check(index, len(block), last=last)
        self._cipher.encrypt_into(index, block, output, last=last)
        self._check_tag(index, bytes(output[-TAG_SIZE:]), last=last)

    def trailer(self, encoded_sizes: Sequence[int], size: int) -> bytes:  # noqa: ARG002 - none
        return b""

    def record(self, size: int | None) -> Record:  # noqa: ARG002 - the encoded size contains it
        return self._parameters.to_record()

    def _check(self, index: int, size: int, *, last: bool) -> None:
        if os.getpid() != self._process:
            raise ClosedError("this body was begun before a fork: put it from one process only")
        check_index(index, self._layout.segment_size)
        full = self._layout.block_size(index)
        # An empty block is the last one of an empty body only.
        if size != full and not (last and min(index, 1) <= size < full):
            raise ValueError(f"block {index} must have {full} bytes, got {size}")

    def _check_tag(self, index: int, tag: bytes, *, last: bool) -> None:
        place = index % _REMEMBERED_BLOCKS
        before = self._tags.get(place)
        if before is not None and before[:2] == (index, last) and before[2] != tag:
            raise IntegrityError(
                f"the body changed while it was sent: block {index} was encrypted with different bytes "
                "before; put it again"
            )
        self._tags[place] = index, last, tag


class _Decoder:
    """Decrypts one object."""

    __slots__ = ("_cipher", "_count", "_encoded_size", "_layout", "_parameters", "_size")

    def __init__(
        self, parameters: _Parameters, cipher: SegmentCipher, size: int, encoded_size: int
    ) -> None:
        self._parameters = parameters
        self._layout = parameters.layout
        self._cipher = cipher
        self._size = size
        self._encoded_size = encoded_size
        self._count = self._layout.block_count(size)

    @property
    def size(self) -> int:
        return self._size

    @property
    def index(self) -> Span | None:
        return None

    @property
    def inline_size(self) -> int:
        return MAX_BLOCK  # 100 to 200 µs

    def load_index(self, data: bytes) -> None:  # noqa: ARG002 - there is none
        raise IntegrityError("an encrypted object has no index")

    def plan(self, start: int, end: int) -> Plan:
        return self._layout.plan(start, end, self._encoded_size)

    @property
    def header(self) -> bytes:
        return self._cipher.header

    @property
    def block_count(self) -> int:
        return self._count

    def encoded_block_size(self, index: int, data: memoryview) -> int:  # noqa: ARG002 - arithmetic
        if not 0 <= index < self._count:
            raise IntegrityError(f"the object has no block {index}, only {self._count}")
        start, end = self._layout.segment_span(index, index, self._encoded_size)
        return end - start

    def decode(self, index: int, data: memoryview) -> bytes:
        size = self.encoded_block_size(index, data)
        if len(data) != size:
            raise IntegrityError(f"encrypted block {index} must have {size} bytes, got {len(data)}")
        try:
            return self._cipher.decrypt(index, data, last=index == self._count - 1)
        except InvalidTag:
            raise self._parameters.wrong_key_error(f"block {index}") from None

    def trailer(self, encoded_sizes: Sequence[int]) -> bytes:  # noqa: ARG002 - none
        return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameters:
    """The content of a record.

    Attributes:
        segment_size: The size in bytes of an encrypted block.
        key_id: The id of the key.
        salt: The header of the encoded form without its first byte.
        bound: Whether the bucket and the key are the associated data.
        wrapped: The wrapped form of the key.
        check: The check value of the key (`SegmentCipher`). A record that another program made may have none.
    """

    segment_size: int
    key_id: str
    salt: bytes
    bound: bool
    wrapped: bytes | None
    check: bytes | None = None

    @property
    def layout(self) -> Layout:
        return Layout(self.segment_size)

    def cipher(self, key: DataKey, context: ObjectContext) -> SegmentCipher:
        """Return the cipher of the object that has these parameters."""
        data = associated_data(context) if self.bound else b""
        return SegmentCipher(Secret(key.secret), self.salt, data)

    def to_record(self) -> Record:
        """Return the record."""
        record: dict[str, str | int | bool] = {
            "segment_size": self.segment_size,
            "key_id": self.key_id,
            "salt": base64.b64encode(self.salt).decode(),
        }
        if self.bound:
            record["bound"] = True
        if self.wrapped is not None:
            record["wrapped"] = base64.b64encode(self.wrapped).decode()
        if self.check is not None:
            record["check"] = base64.b64encode(self.check).decode()
        return record

    def wrong_key_error(self, part: str) -> DecryptionError:
        """Return the error for a part of an object that the key does not fit."""
        renamed = ", or was stored under another name" if self.bound else ""
        return DecryptionError(
            f"{part} cannot be decrypted with the key {self.key_id!r}: it is not the key that encrypted the"
            f" object, or the object was altered{renamed}"
        )

    @classmethod
    def of_record(cls, record: Record) -> _Parameters:
        """Return the parameters in a record, which may be forged.

        Raises:
            IntegrityError: The record is malformed.
        """
        # A name that is unknown here may come from a later version, and change the meaning.
        if unknown := record.keys() - _NAMES:
            raise _malformed(min(unknown))
        segment_size, key_id = record.get("segment_size"), record.get("key_id")
        if type(segment_size) is not int or not MIN_SEGMENT <= segment_size <= MAX_BLOCK:
            raise _malformed("segment_size")
        if not isinstance(key_id, str) or not is_key_id(key_id):
            raise _malformed("key_id")
        salt = _decoded(record, "salt")
        if len(salt) != SALT_SIZE:
            raise _malformed("salt")
        if record.get("bound", True) is not True:
            raise _malformed("bound")
        check = _decoded(record, "check") if "check" in record else None
        if check is not None and len(check) != CHECK_SIZE:
            raise _malformed("check")
        return cls(
            segment_size=segment_size,
            key_id=key_id,
            salt=salt,
            bound="bound" in record,
            wrapped=_decoded(record, "wrapped") if "wrapped" in record else None,
            check=check,
        )


def associated_data(context: ObjectContext) -> bytes:
    """Return the bytes that bind an object to its name: bucket and key in UTF-8, each after its length.

    A length is 4 bytes, big-endian. It makes the bytes of any two names different.
    """
    names = [name.encode("utf-8", "surrogatepass") for name in (context.bucket, context.key)]
    return b"".join(len(name).to_bytes(4, "big") + name for name in names)


def _decoded(record: Record, name: str) -> bytes:
    """Return the bytes of a parameter in base64.

    Raises:
        IntegrityError: The parameter is missing or malformed.
    """
    text = record.get(name)
    if isinstance(text, str):
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError:
            data = b""
        # Several texts decode to the same bytes. Only one of them is what `to_record` returns.
        if data and base64.b64encode(data).decode() == text:
            return data
    raise _malformed(name)


def _malformed(name: str) -> IntegrityError:
    return IntegrityError(f"the encryption record of the object is malformed: {name!r}")
