"""Other libraries that encrypt streams: Tink and pyrage. Both are measured in this process, in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyrage
from _harness import MiB
from tink import proto_keyset_format, secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

streaming_aead.register()


class _Sink(io.RawIOBase):
    """A file that drops what is written."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return memoryview(data).nbytes  # type: ignore[arg-type]  # bytes-like


class _Kept(io.BytesIO):
    """Bytes that can be read after Tink has closed the stream."""

    def close(self) -> None:
        pass


class Tink:
    """Tink's streaming AEAD, in the format of our encryption.

    Args:
        key: The key, 32 bytes.
        chunks: The body.
    """

    name = "Tink"

    def __init__(self, key: bytes, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks
        streaming_key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(
            key_value=key,
            params=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
                ciphertext_segment_size=MiB,
                derived_key_size=32,
                hkdf_hash_type=common_pb2.SHA256,
            ),
        )
        data = tink_pb2.KeyData(
            type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
            value=streaming_key.SerializeToString(),
            key_material_type=tink_pb2.KeyData.SYMMETRIC,
        )
        entry = tink_pb2.Keyset.Key(
            key_data=data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW
        )
        keyset = tink_pb2.Keyset(primary_key_id=1, key=[entry]).SerializeToString()
        handle = proto_keyset_format.parse(keyset, secret_key_access.TOKEN)
        self._streams = handle.primitive(streaming_aead.StreamingAead)
        self._encrypted = _Kept()
        self._encrypt_to(self._encrypted)

    def _encrypt_to(self, file: io.RawIOBase | io.BytesIO) -> None:
        with self._streams.new_encrypting_stream(file, b"") as stream:
            for chunk in self._chunks:
                stream.write(chunk)

    def write(self) -> None:
        """Encrypt the body, and drop the result."""
        self._encrypt_to(_Sink())

    def read(self) -> None:
        """Decrypt the body, and drop it."""
        self._encrypted.seek(0)
        with self._streams.new_decrypting_stream(self._encrypted, b"") as stream:
            while stream.read(MiB):
                pass


class Age:
    """The format of age, by pyrage, which processes whole bodies in memory.

    Args:
        chunks: The body.
    """

    name = "pyrage"

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._identity = pyrage.x25519.Identity.generate()
        self._body = b"".join(chunks)
        self._encrypted = pyrage.encrypt(self._body, [self._identity.to_public()])

    def write(self) -> None:
        """Encrypt the body, and drop the result."""
        pyrage.encrypt(self._body, [self._identity.to_public()])

    def read(self) -> None:
        """Decrypt the body, and drop it."""
        pyrage.decrypt(self._encrypted, [self._identity])
