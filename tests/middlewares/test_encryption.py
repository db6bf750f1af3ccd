"""Encrypted bodies come back unchanged or not at all, and no key or nonce leaks."""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import pickle
import random
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from tests.middlewares.tink_streams import TinkStreams
from trove_async import Scope, Trove
from trove_async.drivers import MemoryDriver
from trove_async.errors import (
    ConfigError,
    DecryptionError,
    IntegrityError,
    NotSupportedError,
)
from trove_async.middleware import (
    MAX_BLOCK,
    Decoder,
    Encoder,
    EncodesInto,
    Middleware,
    ObjectContext,
    Record,
)
from trove_async.middlewares import _streaming_aead
from trove_async.middlewares.encryption import Encryption, associated_data
from trove_async.middlewares.keys import DataKey, Keyring, TenantKeys

KEY = bytes(range(200, 232))
OTHER_KEY = bytes(range(32))
RING = Keyring({"2026-11": KEY})
CONTEXT = ObjectContext(bucket="data", key="a/b", backend="memory")
ELSEWHERE = ObjectContext(bucket="data", key="a/c", backend="memory")

SEGMENT = 4096  # encoded; a block is 16 bytes shorter, and the first one 56
FIRST = SEGMENT - 56
REST = SEGMENT - 16
NOISE = random.Random(1).randbytes(3 * 2**20)


def encryption(keys: Keyring | TenantKeys = RING, *, bind: bool = False) -> Encryption:
    return Encryption(keys, bind=bind, segment_size=SEGMENT)


def blocks(encoder: Encoder, body: bytes) -> list[memoryview]:
    """Split a body as the store does."""
    view = memoryview(body)
    result: list[memoryview] = []
    while True:
        size = encoder.block_size(len(result))
        result.append(view[:size])
        view = view[size:]
        if not view:
            return result


def encode(encoder: Encoder, body: bytes) -> bytes:
    parts = blocks(encoder, body)
    encoded = encoder.header
    for index, block in enumerate(parts):
        segment = encoder.encode(index, block, last=index == len(parts) - 1)
        assert segment is not None
        encoded += segment
    encoded += encoder.trailer([], len(body))
    assert len(encoded) == encoder.encoded_size(len(body))
    return encoded


async def encrypt(
    middleware: Encryption, body: bytes, context: ObjectContext = CONTEXT
) -> tuple[Record, bytes]:
    encoder = await middleware.encoder(context)
    encoded = encode(encoder, body)
    return encoder.record(len(body)), encoded


async def decrypt(
    middleware: Encryption, record: Record, encoded: bytes, context: ObjectContext = CONTEXT
) -> bytes:
    """Decrypt all blocks. Checks the header and the total size, as the store does."""
    decoder = await middleware.decoder(context, record, len(encoded))
    assert decoder.size == middleware.decoded_size(record, len(encoded))
    body = (
        decode_range(decoder, encoded, 0, decoder.size)
        if decoder.size
        else decode_empty(decoder, encoded)
    )
    if encoded[: len(decoder.header)] != decoder.header:
        raise IntegrityError("the header was altered")
    assert len(body) == decoder.size
    return body


def decode_empty(decoder: Decoder, encoded: bytes) -> bytes:
    assert decoder.block_count == 1
    return decoder.decode(0, memoryview(encoded)[len(decoder.header) :])


def decode_range(decoder: Decoder, encoded: bytes, start: int, end: int) -> bytes:
    first, (begin, stop), skip = decoder.plan(start, end)
    data, body, index = memoryview(encoded)[begin:stop], b"", first
    while data:
        size = decoder.encoded_block_size(index, data)
        assert size is not None
        body += decoder.decode(index, data[:size])
        data, index = data[size:], index + 1
    assert len(body) - skip >= end - start
    return body[skip : skip + end - start]


# -- the contract ----------------------------------------------------------------------------------


async def test_protocols_of_middleware_are_implemented() -> None:
    middleware: Middleware = encryption()
    assert isinstance(middleware, Middleware)
    assert middleware.name == "aes256-gcm-hkdf"
    encoder = await middleware.encoder(CONTEXT)
    assert encoder is not None
    assert isinstance(encoder, EncodesInto)
    assert encoder.overhead == 16


@pytest.mark.parametrize(
    "size",
    [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + REST - 1, FIRST + REST, FIRST + REST + 1, 50_000],
)
@pytest.mark.parametrize("bind", [False, True])
async def test_bodies_come_back_unchanged(size: int, *, bind: bool) -> None:
    middleware = encryption(bind=bind)
    record, encoded = await encrypt(middleware, NOISE[:size])
    assert await decrypt(middleware, record, encoded) == NOISE[:size]
    assert NOISE[:16] not in encoded


async def test_default_segments_have_1_mib() -> None:
    middleware = Encryption(RING)
    record, encoded = await encrypt(middleware, NOISE)
    assert record["segment_size"] == 2**20
    assert await decrypt(middleware, record, encoded) == NOISE
    encoder = await middleware.encoder(CONTEXT)
    assert encoder.block_size(1) <= MAX_BLOCK


@given(st.integers(0, 20_000), st.data())
def test_ranges_equal_slices(size: int, data: st.DataObject) -> None:
    async def check() -> None:
        middleware = encryption()
        record, encoded = await encrypt(middleware, NOISE[:size])
        decoder = await middleware.decoder(CONTEXT, record, len(encoded))
        for _ in range(5 if size else 0):
            start = data.draw(st.integers(0, size - 1))
            end = data.draw(st.integers(start + 1, size))
            first, (begin, stop), _ = decoder.plan(start, end)
            assert decode_range(decoder, encoded, start, end) == NOISE[start:end]
            assert stop - begin <= end - start + 2 * SEGMENT
            assert first * SEGMENT <= begin

    asyncio.run(check())


async def test_tink_decrypts_objects_given_the_key() -> None:
    for bind, data in ((False, b""), (True, b"\0\0\0\4data\0\0\0\3a/b")):
        _, encoded = await encrypt(encryption(bind=bind), NOISE[:9000])
        assert TinkStreams(KEY, SEGMENT).decrypt(encoded, data) == NOISE[:9000]


async def test_objects_of_tink_can_be_read_given_a_record() -> None:
    encoded = TinkStreams(KEY, SEGMENT).encrypt(NOISE[:9000], b"")
    salt = base64.b64encode(encoded[1:40]).decode()
    record: Record = {**GOOD, "salt": salt}
    assert await decrypt(encryption(), record, encoded) == NOISE[:9000]


async def test_blocks_may_be_encoded_out_of_order_and_again() -> None:
    encoder = await encryption().encoder(CONTEXT)
    parts = blocks(encoder, NOISE[:20_000])
    last = len(parts) - 1
    in_order = [encoder.encode(i, block, last=i == last) for i, block in enumerate(parts)]
    for index in random.Random(2).choices(range(len(parts)), k=30):
        assert encoder.encode(index, parts[index], last=index == last) == in_order[index]


async def test_encoding_into_memory_gives_the_same_bytes() -> None:
    for segment_size in (4096, 65_537, 2**20):
        encoder = await Encryption(RING, segment_size=segment_size).encoder(CONTEXT)
        full = segment_size - 16
        for index, size, last in (
            (0, full - 40, False),
            (1, full, False),
            (2, 1, True),
            (3, full, True),
        ):
            memory = bytearray(5 + size + 16 + 5)  # the output is not aligned
            output = memoryview(memory)[5:-5]
            encoder.encode_into(index, memoryview(NOISE)[:size], output, last=last)
            assert output == encoder.encode(index, memoryview(NOISE)[:size], last=last)
            assert memory[:5] == memory[-5:] == bytes(5)


async def test_threads_share_an_encoder_and_a_decoder() -> None:
    middleware = encryption()
    encoder = await middleware.encoder(CONTEXT)
    body = NOISE[:500_000]
    parts = blocks(encoder, body)
    start = threading.Barrier(4)

    def encode_some(number: int) -> list[tuple[int, bytes]]:
        start.wait()
        result = []
        for index in range(number % 2, len(parts), 2):  # two threads for each block
            last = index == len(parts) - 1
            buffer = bytearray(len(parts[index]) + 16)
            encoder.encode_into(index, parts[index], memoryview(buffer), last=last)
            result.append((index, bytes(buffer)))
            assert encoder.encode(index, parts[index], last=last) == buffer
        return result

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(encode_some, range(4)))
        assert results[0] == results[2]
        assert results[1] == results[3]
        segments = dict(results[0] + results[1])
        encoded = encoder.header + b"".join(segments[i] for i in range(len(parts)))
        decoder = await middleware.decoder(CONTEXT, encoder.record(None), len(encoded))
        starts = random.Random(3).choices(range(len(body) - 9000), k=100)
        slices = threads.map(lambda at: decode_range(decoder, encoded, at, at + 9000), starts)
        assert list(slices) == [body[at : at + 9000] for at in starts]


@pytest.mark.parametrize(
    ("index", "size", "last"),
    [
        (0, FIRST - 1, False),
        (0, FIRST + 1, True),
        (1, 0, True),
        (1, 0, False),
        (1, FIRST, False),
        (1, REST + 1, True),
    ],
)
async def test_blocks_of_wrong_sizes_are_refused(index: int, size: int, *, last: bool) -> None:
    encoder = await encryption().encoder(CONTEXT)
    with pytest.raises(ValueError, match=f"block {index} must have"):
        encoder.encode(index, memoryview(NOISE)[:size], last=last)
    with pytest.raises(ValueError, match=f"block {index} must have"):
        output = memoryview(bytearray(size + 16))
        encoder.encode_into(index, memoryview(NOISE)[:size], output, last=last)


async def test_bodies_of_too_many_segments_are_refused() -> None:
    encoder = await encryption().encoder(CONTEXT)
    with pytest.raises(NotSupportedError, match="segment_size"):
        encoder.encoded_size(2**44)
    with pytest.raises(NotSupportedError, match="segment_size"):
        encoder.encode(2**32, memoryview(NOISE)[:REST], last=False)


# -- nonces ----------------------------------------------------------------------------------------


async def test_every_encoder_has_its_own_nonces() -> None:
    middleware = encryption()
    headers = {(await middleware.encoder(CONTEXT)).header for _ in range(2000)}
    assert len(headers) == 2000
    assert len({header[33:] for header in headers}) == 2000  # the prefixes of the nonces
    first, second = [(await encrypt(middleware, b"the same body"))[1] for _ in range(2)]
    assert first != second


async def test_blocks_of_a_body_have_different_nonces(monkeypatch: pytest.MonkeyPatch) -> None:
    nonces: list[bytes] = []
    make = _streaming_aead.SegmentCipher._nonce

    def record_nonce(cipher: _streaming_aead.SegmentCipher, index: int, *, last: bool) -> bytes:
        nonces.append(make(cipher, index, last=last))
        return nonces[-1]

    monkeypatch.setattr(_streaming_aead.SegmentCipher, "_nonce", record_nonce)
    await encrypt(encryption(), NOISE[:100_000])
    assert len(nonces) == len(set(nonces)) == 25


FORKING_PROGRAM = """
import asyncio, os
from trove_async.errors import ClosedError
from trove_async.middleware import ObjectContext
from trove_async.middlewares.encryption import Encryption
from trove_async.middlewares.keys import Keyring

context = ObjectContext(bucket="data", key="a", backend="memory")
encryption = Encryption(Keyring({"a": bytes(32)}))
encoder = asyncio.run(encryption.encoder(context))
body = memoryview(b"body")
before = encoder.encode(0, body, last=True)
read, write = os.pipe()
child = os.fork()
if child == 0:
    for call in (
        lambda: encoder.encode(0, memoryview(b"BODY"), last=True),
        lambda: encoder.encode_into(0, body, memoryview(bytearray(20)), last=True),
    ):
        try:
            call()
        except ClosedError as error:
            assert "before a fork" in str(error)
        else:
            os._exit(3)
    os.write(write, asyncio.run(encryption.encoder(context)).header)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
headers = {os.read(read, 40), encoder.header, asyncio.run(encryption.encoder(context)).header}
assert len(headers) == 3
assert encoder.encode(0, body, last=True) == before
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_an_encoder_is_refused_after_a_fork_and_new_ones_differ() -> None:
    assert output_of(FORKING_PROGRAM) == (0, "")


async def test_different_bytes_for_an_encoded_block_are_refused() -> None:
    encoder = await encryption().encoder(CONTEXT)
    block = bytearray(NOISE[:FIRST])
    encoder.encode(0, memoryview(block), last=False)
    block[7] ^= 1  # the user changes the body between two attempts
    with pytest.raises(IntegrityError, match=r"body changed.*block 0"):
        encoder.encode(0, memoryview(block), last=False)
    assert encoder.encode(1, memoryview(NOISE)[:REST], last=False)


async def test_memory_of_an_encoder_is_bounded() -> None:
    encoder = await encryption().encoder(CONTEXT)
    encoder.encode(0, memoryview(NOISE)[:FIRST], last=False)
    for index in range(1, 3000):
        encoder.encode(index, memoryview(NOISE)[:REST], last=False)
    assert len(encoder._tags) == 1024


# -- altered objects -------------------------------------------------------------------------------


async def test_every_flipped_bit_is_detected() -> None:
    middleware = encryption()
    record, encoded = await encrypt(middleware, NOISE[: FIRST + REST + 300])
    decoder = await middleware.decoder(CONTEXT, record, len(encoded))
    assert decoder.block_count == 3
    altered = bytearray(encoded)
    view = memoryview(altered)
    for position in range(len(encoded)):
        index = position // SEGMENT
        begin, stop = max(40, index * SEGMENT), min((index + 1) * SEGMENT, len(encoded))
        for bit in range(8):
            altered[position] ^= 1 << bit
            if position < 40:
                assert altered[:40] != decoder.header  # the store compares them
            else:
                with pytest.raises(DecryptionError):
                    decoder.decode(index, view[begin:stop])
            altered[position] ^= 1 << bit
    assert await decrypt(middleware, record, bytes(altered)) == NOISE[: FIRST + REST + 300]


async def test_every_truncation_is_detected() -> None:
    middleware = encryption()
    record, encoded = await encrypt(middleware, NOISE[: FIRST + REST + 30])
    borders = [0, 40, 56, SEGMENT, 2 * SEGMENT, len(encoded)]
    sizes = {max(0, border + offset) for border in borders for offset in range(-20, 20)}
    for size in sorted(sizes - {len(encoded)}):
        with pytest.raises(IntegrityError):
            await decrypt(middleware, record, (encoded + bytes(20))[:size])


async def test_objects_whose_segments_were_moved_are_refused() -> None:
    middleware = encryption()
    body = NOISE[: FIRST + 3 * REST]
    record, encoded = await encrypt(middleware, body)
    _, other = await encrypt(middleware, body)  # the same key and body
    segments = [encoded[i : i + SEGMENT] for i in range(0, len(encoded), SEGMENT)]
    first, second, third, last = segments
    forged = {
        "dropped": [first, third, last],
        "dropped last": [first, second, third],
        "doubled": [first, second, second, third, last],
        "doubled last": [first, second, third, last, last],
        "swapped": [first, third, second, last],
        "swapped last": [first, second, last, third],
        "spliced": [first, other[SEGMENT : 2 * SEGMENT], third, last],
        "spliced first": [encoded[:40] + other[40:SEGMENT], second, third, last],
        "replaced": [other],
        "appended": [encoded, bytes(SEGMENT)],
    }
    for name, pieces in forged.items():
        with pytest.raises(IntegrityError):
            pytest.fail(f"{name}: {len(await decrypt(middleware, record, b''.join(pieces)))}")


async def test_no_block_after_an_altered_one_depends_on_it() -> None:
    middleware = encryption()
    record, encoded = await encrypt(middleware, NOISE[:20_000])
    altered = encoded[:5000] + bytes([encoded[5000] ^ 1]) + encoded[5001:]
    decoder = await middleware.decoder(CONTEXT, record, len(altered))
    with pytest.raises(DecryptionError, match=r"block 1 .*'2026-11'.*altered$"):
        decode_range(decoder, altered, 4000, 6000)
    assert decode_range(decoder, altered, 9000, 20_000) == NOISE[9000:20_000]


async def test_a_wrong_key_is_named() -> None:
    record, encoded = await encrypt(encryption(), b"body")
    with pytest.raises(DecryptionError, match=r"'2026-11'.*not the key that encrypted") as caught:
        await decrypt(encryption(Keyring({"2026-11": OTHER_KEY})), record, encoded)
    assert not caught.value.retryable


async def test_an_unknown_key_is_named() -> None:
    record, encoded = await encrypt(encryption(), b"body")
    with pytest.raises(DecryptionError, match="'2026-11'"):
        await decrypt(encryption(Keyring({"2027-01": KEY})), record, encoded)


async def test_old_keys_still_decrypt() -> None:
    record, encoded = await encrypt(encryption(), b"body")
    rotated = Keyring({"2026-11": KEY, "2026-12": OTHER_KEY}, current="2026-12")
    assert await decrypt(encryption(rotated), record, encoded) == b"body"
    assert (await encrypt(encryption(rotated), b"body"))[0]["key_id"] == "2026-12"


async def test_a_bound_object_is_refused_under_another_name() -> None:
    middleware = encryption(bind=True)
    record, encoded = await encrypt(middleware, b"body")
    assert record["bound"] is True
    for context in (ELSEWHERE, ObjectContext(bucket="dat", key="aa/b", backend="memory")):
        with pytest.raises(DecryptionError, match="stored under another name"):
            await decrypt(middleware, record, encoded, context)
    # The record decides, not the configuration.
    assert await decrypt(encryption(), record, encoded) == b"body"


async def test_an_unbound_record_does_not_unbind_an_object() -> None:
    record, encoded = await encrypt(encryption(bind=True), b"body")
    unbound = {name: value for name, value in record.items() if name != "bound"}
    with pytest.raises(DecryptionError):
        await decrypt(encryption(), unbound, encoded)


async def test_objects_written_without_bind_stay_readable() -> None:
    record, encoded = await encrypt(encryption(), b"body")
    assert "bound" not in record
    assert await decrypt(encryption(bind=True), record, encoded, ELSEWHERE) == b"body"


names = st.text(st.characters(), min_size=1, max_size=8)


@given(names, names, names, names)
def test_names_have_different_associated_data(a: str, b: str, c: str, d: str) -> None:
    one = ObjectContext(bucket=a, key=b, backend="memory")
    two = ObjectContext(bucket=c, key=d, backend="s3")
    assert (associated_data(one) == associated_data(two)) == ((a, b) == (c, d))


SALT = base64.b64encode(bytes(39)).decode()
GOOD: Record = {"segment_size": SEGMENT, "key_id": "2026-11", "salt": SALT}


@pytest.mark.parametrize(
    "change",
    [
        {"segment_size": None},
        {"segment_size": "4096"},
        {"segment_size": True},
        {"segment_size": 0},
        {"segment_size": -4096},
        {"segment_size": 57},
        {"segment_size": 4095},
        {"segment_size": 2**20 + 1},
        {"segment_size": 2**70},
        {"key_id": None},
        {"key_id": 5},
        {"key_id": ""},
        {"key_id": "a b"},
        {"key_id": "a\nb"},
        {"key_id": "x" * 257},
        {"salt": None},
        {"salt": 5},
        {"salt": ""},
        {"salt": "!" * 52},
        {"salt": "é" * 52},
        {"salt": base64.b64encode(bytes(38)).decode()},
        {"salt": base64.b64encode(bytes(40)).decode()},
        {"salt": SALT + "\n"},
        {"bound": False},
        {"bound": 1},
        {"bound": "yes"},
        {"wrapped": ""},
        {"wrapped": "AB=="},  # not the form of a single byte that is written
        {"wrapped": 1},
        {"cipher": "none"},
    ],
)
async def test_forged_records_are_refused(change: dict[str, Any]) -> None:
    changed = {**GOOD, **change}
    record = {name: value for name, value in changed.items() if value is not None}
    middleware = encryption()
    with pytest.raises(IntegrityError, match=f"malformed: '{next(iter(change))}'") as caught:
        await middleware.decoder(CONTEXT, record, 1000)
    assert not isinstance(caught.value, DecryptionError)
    with pytest.raises(IntegrityError):
        middleware.decoded_size(record, 1000)


@pytest.mark.parametrize("encoded_size", [0, 55, SEGMENT + 16, 2**50])
async def test_impossible_sizes_are_refused_before_a_key_is_requested(encoded_size: int) -> None:
    class NoKeys:
        async def for_write(self, context: ObjectContext) -> DataKey:
            raise AssertionError(context)

        async def for_read(self, context: ObjectContext, key_id: str, wrapped: Any) -> DataKey:
            raise AssertionError(context, key_id, wrapped)

    middleware = Encryption(NoKeys())
    with pytest.raises(IntegrityError):
        await middleware.decoder(CONTEXT, GOOD, encoded_size)
    with pytest.raises(IntegrityError):
        middleware.decoded_size(GOOD, encoded_size)


async def test_decoder_refuses_wrong_blocks_and_indexes() -> None:
    middleware = encryption()
    record, encoded = await encrypt(middleware, NOISE[:5000])
    decoder = await middleware.decoder(CONTEXT, record, len(encoded))
    assert decoder.index is None
    assert decoder.trailer([SEGMENT, 1000]) == b""
    with pytest.raises(IntegrityError, match="no index"):
        decoder.load_index(b"")
    for index in (-1, 2, 2**40):
        with pytest.raises(IntegrityError, match="no block"):
            decoder.decode(index, memoryview(encoded)[:100])
    for size in (0, 15, 100):
        with pytest.raises(IntegrityError, match="block 0 must have"):
            decoder.decode(0, memoryview(encoded)[40 : 40 + size])


# -- current ---------------------------------------------------------------------------------------


async def test_objects_are_current_if_key_and_settings_are() -> None:
    middleware = encryption()
    record, _ = await encrypt(middleware, b"body")
    rotated = Keyring({"2026-11": KEY, "2026-12": OTHER_KEY}, current="2026-12")
    for renamed in (False, True):
        assert await middleware.is_current(ELSEWHERE, record, renamed=renamed)
        assert not await middleware.is_current(ELSEWHERE, None, renamed=renamed)
        assert not await encryption(rotated).is_current(ELSEWHERE, record, renamed=renamed)
        assert not await Encryption(RING).is_current(ELSEWHERE, record, renamed=renamed)
        assert not await encryption(bind=True).is_current(ELSEWHERE, record, renamed=renamed)


async def test_bound_objects_are_current_under_their_own_name_only() -> None:
    middleware = encryption(bind=True)
    record, _ = await encrypt(middleware, b"body")
    assert await middleware.is_current(CONTEXT, record, renamed=False)
    assert not await middleware.is_current(CONTEXT, record, renamed=True)
    assert not await encryption().is_current(CONTEXT, record, renamed=False)


# -- keys ------------------------------------------------------------------------------------------


async def test_wrapped_keys_are_recorded() -> None:
    seen: list[tuple[str, bytes | None]] = []

    class Wrapping:
        async def for_write(self, context: ObjectContext) -> DataKey:
            del context
            return DataKey(id="master", secret=KEY, wrapped=b"\xff wrapped")

        async def for_read(
            self, context: ObjectContext, key_id: str, wrapped: bytes | None
        ) -> DataKey:
            del context
            seen.append((key_id, wrapped))
            return DataKey(id=key_id, secret=KEY)

    middleware = Encryption(Wrapping())
    record, encoded = await encrypt(middleware, b"body")
    assert record["wrapped"] == base64.b64encode(b"\xff wrapped").decode()
    assert await decrypt(middleware, record, encoded) == b"body"
    assert seen == [("master", b"\xff wrapped")]


async def test_tenants_cannot_read_each_others_objects() -> None:
    tenant: ContextVar[str] = ContextVar("tenant")

    def load(name: str) -> Keyring:
        return Keyring({"2026-11": name.encode().ljust(32, b".")})

    middleware = encryption(TenantKeys(lambda _: tenant.get(), load))

    async def write(name: str) -> tuple[Record, bytes]:
        tenant.set(name)
        return await encrypt(middleware, b"body")

    async def read(name: str, record: Record, encoded: bytes) -> bytes:
        tenant.set(name)
        return await decrypt(middleware, record, encoded)

    async def is_current(name: str, record: Record) -> bool:
        tenant.set(name)
        return await middleware.is_current(CONTEXT, record, renamed=False)

    async def in_task(work: Any) -> Any:
        return await asyncio.get_running_loop().create_task(work)

    record, encoded = await in_task(write("acme"))
    assert await in_task(read("acme", record, encoded)) == b"body"
    with pytest.raises(DecryptionError, match="tenant 'globex'"):
        await in_task(read("globex", record, encoded))
    # A copy to a different tenant must not keep the encrypted bytes.
    assert await in_task(is_current("acme", record))
    assert not await in_task(is_current("globex", record))
    # Nor does a forged record help.
    with pytest.raises(DecryptionError, match="not the key that encrypted"):
        await in_task(read("globex", {**record, "key_id": "globex/2026-11"}, encoded))


async def test_keys_must_return_data_keys() -> None:
    class RawKeys:
        async def for_write(self, context: ObjectContext) -> Any:
            del context
            return KEY

        async def for_read(self, context: ObjectContext, key_id: str, wrapped: Any) -> Any:
            del context, key_id, wrapped
            return KEY

    middleware = Encryption(RawKeys())
    current = {**GOOD, "segment_size": 2**20}
    for call in (
        lambda: middleware.encoder(CONTEXT),
        lambda: middleware.decoder(CONTEXT, GOOD, 1000),
        lambda: middleware.is_current(CONTEXT, current, renamed=False),
    ):
        with pytest.raises(TypeError, match="must return a DataKey, got bytes") as caught:
            await call()
        assert_hidden(shown(caught.value))


# -- secrets ---------------------------------------------------------------------------------------


def shown(error: BaseException) -> str:
    """Return what an error reporter shows of an error: messages, and variables of all frames."""
    text, chain = "", error
    while chain is not None:
        report = traceback.TracebackException.from_exception(chain, capture_locals=True)
        text += f"{chain} {chain!r}"
        for frame in report.stack:
            if frame.filename != __file__:
                text += "".join(
                    f"\n{name} = {value}" for name, value in (frame.locals or {}).items()
                )
        chain = chain.__cause__ or chain.__context__  # type: ignore[assignment]  # ends with None
    return text


def assert_hidden(text: str) -> None:
    for form in (repr(KEY)[2:20], KEY.hex()[:10], base64.b64encode(KEY).decode()[:10]):
        assert form not in text


async def test_secrets_are_in_no_repr() -> None:
    middleware = encryption()
    record, encoded = await encrypt(middleware, b"body")
    encoder = await middleware.encoder(CONTEXT)
    decoder = await middleware.decoder(CONTEXT, record, len(encoded))
    for value in (middleware, encoder, decoder, encoder._cipher, encoder._parameters, record):
        assert_hidden(f"{value} {value!r}")


async def test_secrets_are_in_no_error() -> None:
    middleware = encryption(bind=True)
    record, encoded = await encrypt(middleware, b"body")
    encoder = await middleware.encoder(CONTEXT)
    for changed, data, context in (
        (record, encoded, ELSEWHERE),
        (record, encoded[:-1], CONTEXT),
        ({**record, "key_id": "unknown"}, encoded, CONTEXT),
        ({**record, "salt": "?"}, encoded, CONTEXT),
    ):
        with pytest.raises(IntegrityError) as caught:
            await decrypt(middleware, changed, data, context)
        assert_hidden(shown(caught.value))
    with pytest.raises(ValueError, match="must have") as wrong_size:
        encoder.encode(1, memoryview(b""), last=False)
    assert_hidden(shown(wrong_size.value))


async def test_nothing_with_a_key_can_be_pickled() -> None:
    middleware = encryption()
    encoder = await middleware.encoder(CONTEXT)
    decoder = await middleware.decoder(CONTEXT, GOOD, 1000)
    for value in (middleware, encoder, decoder):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(value)


# -- settings --------------------------------------------------------------------------------------


def test_repr_shows_the_settings() -> None:
    assert repr(Encryption(RING)) == "Encryption(Keyring('2026-11'))"
    assert repr(Encryption(RING, bind=True)) == "Encryption(Keyring('2026-11'), bind=True)"
    every = Encryption(RING, bind=True, require=True, segment_size=4096)
    assert (
        repr(every) == "Encryption(Keyring('2026-11'), bind=True, require=True, segment_size=4096)"
    )


def test_require_makes_it_required() -> None:
    assert Encryption(RING, require=True).required
    assert not Encryption(RING).required


@pytest.mark.parametrize("segment_size", [-1, 0, 57, 4095, 2**20 + 1])
def test_segment_size_is_limited(segment_size: int) -> None:
    with pytest.raises(ConfigError, match="segment_size must be 4096 to 1048576"):
        Encryption(RING, segment_size=segment_size)


@pytest.mark.parametrize(
    "settings", [{"bind": "yes"}, {"require": 1}, {"segment_size": 1e6}, {"segment_size": True}]
)
def test_settings_of_wrong_types_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(settings))):
        Encryption(RING, **settings)


@pytest.mark.parametrize("keys", [KEY, base64.b64encode(KEY).decode(), {"a": KEY}, Keyring, None])
def test_keys_of_wrong_types_are_refused_without_showing_them(keys: Any) -> None:
    with pytest.raises(TypeError, match="keys must be a Keyring") as caught:
        Encryption(keys)
    entry = caught.value.__traceback__
    while entry is not None:
        if entry.tb_frame.f_code.co_filename != __file__:
            assert "keys" not in entry.tb_frame.f_locals
        entry = entry.tb_next


def output_of(program: str) -> tuple[int, str]:
    result = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return result.returncode, result.stdout + result.stderr


def test_import_without_cryptography_names_the_extra() -> None:
    code, output = output_of("""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "cryptography" else find(name, *rest)
sys.modules["cryptography"] = None
import trove_async.middlewares.keys
try:
    import trove_async.middlewares.encryption
except ImportError as error:
    print(error)
""")
    assert (code, output) == (
        0,
        "trove_async.middlewares.encryption needs cryptography: pip install 'trove-async[crypto]'\n",
    )


# -- check values ----------------------------------------------------------------------------------


async def test_wrong_key_is_found_before_any_block_is_read() -> None:
    record, encoded = await encrypt(Encryption(Keyring({"id": KEY})), b"body")
    wrong = Encryption(Keyring({"id": bytes(32)}))
    with pytest.raises(DecryptionError, match="'id'"):
        await wrong.decoder(CONTEXT, record, len(encoded))


async def test_record_without_a_check_value_is_read() -> None:
    # Another program may have written the object with Tink.
    middleware = Encryption(Keyring({"id": KEY}))
    record, encoded = await encrypt(middleware, b"body")
    without = {name: value for name, value in record.items() if name != "check"}
    assert await decrypt(middleware, without, encoded) == b"body"
    assert await middleware.is_current(CONTEXT, without, renamed=False)


@pytest.mark.parametrize("check", ["", "AAAA", "!" * 16, 5, None])
async def test_malformed_check_value_is_refused(check: Any) -> None:
    middleware = Encryption(Keyring({"id": KEY}))
    record, encoded = await encrypt(middleware, b"body")
    with pytest.raises(IntegrityError, match="check"):
        await middleware.decoder(CONTEXT, {**record, "check": check}, len(encoded))


async def test_check_value_reveals_no_byte_of_the_keys() -> None:
    record, _ = await encrypt(Encryption(Keyring({"id": KEY})), b"body")
    salt = base64.b64decode(str(record["salt"]))
    derived = HKDF(SHA256(), length=32, salt=salt[:32], info=b"").derive(KEY)
    check = base64.b64decode(str(record["check"]))
    # RFC 5869, 2.3: the second block of the output, of which the first one is the derived key.
    pseudorandom_key = hmac.digest(salt[:32], KEY, "sha256")
    assert check == hmac.digest(pseudorandom_key, derived + b"\x02", "sha256")[:6]


async def test_two_keys_with_one_id_are_distinguished() -> None:
    old, new = Encryption(Keyring({"id": KEY})), Encryption(Keyring({"id": bytes(32)}))
    driver = MemoryDriver()
    async with Trove(driver, middleware=[old]) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
    # A put would use the new key, and only a get of the old object needs the old one.
    async with Trove(driver, middleware=[new, (old, Scope.keys("none"))]) as store:
        assert await store.read("data", "key") == b"body"
        assert await store.read("data", "key", range=(1, 3)) == b"od"
        await store.copy("data", "key", "data", "key")
    async with Trove(driver, middleware=[new]) as store:
        assert await store.read("data", "key") == b"body"
