"""Encrypts and decrypts with Tink, which is the reference for the format of encrypted objects."""

from __future__ import annotations

import io
from typing import cast

from tink import (
    proto_keyset_format,
    secret_key_access,
    streaming_aead,
)
from tink.proto import (
    aes_gcm_hkdf_streaming_pb2,
    common_pb2,
    tink_pb2,
)

streaming_aead.register()


class _OpenBytes(io.BytesIO):
    """Bytes that can be read after Tink has closed the stream."""

    def close(self) -> None:
        pass


class TinkStreams:
    """Tink's AES256_GCM_HKDF with a key and a segment size of our choice."""

    def __init__(self, key: bytes, segment_size: int) -> None:
        tink_key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(
            key_value=key,
            params=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
                ciphertext_segment_size=segment_size,
                derived_key_size=32,
                hkdf_hash_type=common_pb2.SHA256,
            ),
        )
        data = tink_pb2.KeyData(
            type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
            value=tink_key.SerializeToString(),
            key_material_type=tink_pb2.KeyData.SYMMETRIC,
        )
        entry = tink_pb2.Keyset.Key(
            key_data=data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW
        )
        keyset = tink_pb2.Keyset(primary_key_id=1, key=[entry]).SerializeToString()
        handle = proto_keyset_format.parse(keyset, secret_key_access.TOKEN)
        self._streams = handle.primitive(streaming_aead.StreamingAead)

    def encrypt(self, body: bytes, associated_data: bytes) -> bytes:
        encoded = _OpenBytes()
        with self._streams.new_encrypting_stream(encoded, associated_data) as stream:
            stream.write(body)
        return encoded.getvalue()

    def decrypt(self, encoded: bytes, associated_data: bytes) -> bytes:
        with self._streams.new_decrypting_stream(io.BytesIO(encoded), associated_data) as stream:
            return cast("bytes", stream.read())
