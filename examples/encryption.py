"""Encrypt the objects of one backend, rotate the key, and decrypt a stored file without this library.

    python examples/encryption.py

Needs the extra ``[crypto]``. The keys are in the environment variable TROVE_KEYS, the current one first. If it
is not set, the program makes a key for this run. The last step needs Tink (pip install tink).
"""

import asyncio
import base64
import io
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from trove_async import DecryptionError, Scope, Trove
from trove_async.drivers import LocalDriver
from trove_async.middlewares import Encryption, Keyring

BUCKET, KEY = "data", "payroll.csv"
BODY = b"name,salary\n" + b"alice,4200\n" * 1000


def open_store(root: Path) -> Trove:
    """Return a store that encrypts everything except the objects of the default backend."""
    return Trove(
        LocalDriver(root / "office"),
        backends={"vault": LocalDriver(root / "vault")},
        routes=[("payroll*", "vault")],
        middleware=[(Encryption(Keyring.from_env()), ~Scope.backends("default"))],
    )


async def main(root: Path) -> None:
    """Encrypt an object, rotate its key, and read it in three ways."""
    # 1. Keys come from the environment: TROVE_KEYS="2026-11:KEY" or "2026-11:KEY,2026-10:OLDER_KEY".
    if "TROVE_KEYS" not in os.environ:
        os.environ["TROVE_KEYS"] = f"demo:{Keyring.generate_key()}"
        print("TROVE_KEYS is not set: this run uses a new key. Keyring.generate_key() makes yours.")

    # 2. The backend stores ciphertext. The store returns the plaintext.
    stored = root / "vault" / BUCKET / KEY
    async with open_store(root) as store:
        await store.create_bucket(BUCKET)
        info = await store.put(BUCKET, KEY, BODY)
        print(f"{info.size} bytes are stored as {info.stored_size} bytes by {info.transforms[0]}")
        encrypted = stored.read_bytes()
        print(
            f"the file begins with {encrypted[:12].hex()}; plaintext in it: {BODY[:11] in encrypted}"
        )
        print(f"read through the store: {await store.read(BUCKET, KEY, range=(0, 11))!r}")

    # 3. Rotate: add a new key in front, keep the old one, and copy each object onto itself.
    old, new = os.environ["TROVE_KEYS"], f"next:{Keyring.generate_key()}"
    os.environ["TROVE_KEYS"] = f"{new},{old}"
    async with open_store(root) as store:
        print(f"readable with both keys: {await store.read(BUCKET, KEY) == BODY}")
        for obj in await store.backend("vault").list(BUCKET).all():
            await store.copy(BUCKET, obj.key, BUCKET, obj.key)  # encrypted with the current key

    # 4. Remove the old key.
    os.environ["TROVE_KEYS"] = new
    async with open_store(root) as store:
        print(f"readable with the new key alone: {await store.read(BUCKET, KEY) == BODY}")
    os.environ["TROVE_KEYS"] = old
    async with open_store(root) as store:
        try:
            await store.read(BUCKET, KEY)
        except DecryptionError as error:
            print(f"with the old key alone: {error}")

    # 5. Decrypt the file without this library.
    if find_spec("tink") is None:
        print("pip install tink, and run this again to decrypt the file with Tink")
    else:
        key = base64.urlsafe_b64decode(new.partition(":")[2])
        print(f"decrypted with Tink: {decrypt_with_tink(stored.read_bytes(), key) == BODY}")


def decrypt_with_tink(encrypted: bytes, key: bytes, segment_size: int = 1024 * 1024) -> bytes:
    """Decrypt a stored object with Tink: AES256_GCM_HKDF with a raw key.

    Args:
        encrypted: The stored bytes.
        key: The key, 32 bytes. Its id is in the object's metadata ``trove-transforms``.
        segment_size: The segment size, which is in the same metadata.
    """
    from tink import (  # noqa: PLC0415 - optional
        proto_keyset_format,
        secret_key_access,
        streaming_aead,
    )
    from tink.proto import (  # noqa: PLC0415 - optional
        aes_gcm_hkdf_streaming_pb2,
        common_pb2,
        tink_pb2,
    )

    streaming_aead.register()
    parameters = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=segment_size, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    tink_key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(key_value=key, params=parameters)
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
    aead = handle.primitive(streaming_aead.StreamingAead)
    # The associated data is empty. With Encryption(bind=True) it is the bucket and the key in UTF-8, each
    # after its length as 4 bytes, big-endian.
    with aead.new_decrypting_stream(io.BytesIO(encrypted), b"") as stream:
        return bytes(stream.read())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
