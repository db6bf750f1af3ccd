"""Encoders and inspectors of users with a bug: no put stores an object that could not be read back."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, content, store_of
from tests.framed_middleware import HEADER, OVERHEAD, Framed
from trove_async import BufferPool, IntegrityError, NotSupportedError, ObjectNotFoundError
from trove_async.middleware import MAX_BLOCK, MAX_EXPANSION
from trove_async.middlewares import Encryption, Keyring
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from trove_async.middleware import Encoder, Middleware, ObjectContext

BLOCK = 64 * KiB
LARGE = content(MiB + 200 * KiB)
SMALL = LARGE[:2000]
RING = Keyring({"key": bytes(range(32))})


class Broken(Framed):
    """A middleware whose encoders have a bug.

    Args:
        change: Changes an encoder, or returns another.
        into: Whether encoders implement `EncodesInto`.
    """

    def __init__(self, change: Callable[[Any], Any], *, into: bool = False) -> None:
        super().__init__(lambda _: BLOCK, into=into)
        self.change = change

    async def encoder(self, context: ObjectContext) -> Encoder | None:
        encoder = await super().encoder(context)
        return self.change(encoder) or encoder


def attributes(**values: object) -> Callable[[Any], Any]:
    """Return a change that sets attributes."""

    def change(encoder: Any) -> None:
        for name, value in values.items():
            setattr(encoder, name, value)

    return change


def returning(name: str, value: object) -> Callable[[Any], Any]:
    """Return a change that makes a method return a value."""
    return attributes(**{name: lambda *_, **__: value})


def after_first(name: str, value: object) -> Callable[[Any], Any]:
    """Return a change of the results of a method, except for the first block."""

    def change(encoder: Any) -> None:
        method = getattr(encoder, name)
        setattr(
            encoder,
            name,
            lambda index, *args, **named: value if index else method(index, *args, **named),
        )

    return change


def encoding(change: Callable[[bytes], object]) -> Callable[[Any], Any]:
    """Return a change of encoded blocks."""

    def apply(encoder: Any) -> None:
        method = encoder.encode
        encoder.encode = lambda index, block, last: change(method(index, block, last=last))

    return apply


def without(name: str) -> Callable[[Any], Any]:
    """Return a change that hides a method."""

    class Hiding:
        def __init__(self, encoder: object) -> None:
            self._encoder = encoder

        def __getattr__(self, wanted: str) -> object:
            if wanted == name:
                raise AttributeError(wanted)
            return getattr(self._encoder, wanted)

    return Hiding


BUGS: dict[str, Callable[[Any], Any]] = {
    # Blocks.
    "no block size": returning("block_size", 0),
    "negative block size": returning("block_size", -1),
    "large block size": returning("block_size", MAX_BLOCK + 1),
    "fraction as a block size": returning("block_size", 1000.0),
    "block size is None": returning("block_size", None),
    "switch as a block size": returning("block_size", value=True),
    "no size of later blocks": attributes(
        block_size=lambda index: 0 if index else BLOCK, encoded_size=lambda _: None
    ),
    "text as a block": encoding(lambda encoded: encoded.decode("latin-1")),
    "list as a block": encoding(list),
    "array as a block": encoding(
        lambda encoded: array.array("I", encoded[: len(encoded) // 4 * 4])
    ),
    "view of numbers": encoding(
        lambda encoded: memoryview(encoded[: len(encoded) // 4 * 4]).cast("I")
    ),
    "view with gaps": encoding(lambda encoded: memoryview(encoded)[::2]),
    "empty blocks": encoding(lambda _: b""),
    "long blocks": encoding(lambda encoded: encoded + bytes(MAX_EXPANSION)),
    "undecided later": after_first("encode", None),
    "empty later": after_first("encode", b""),
    "text later": after_first("encode", "text"),
    # Header and trailer.
    "text as a header": attributes(header="HEAD"),
    "no header": attributes(header=None),
    "writable header": attributes(header=bytearray(HEADER)),
    "text as a trailer": returning("trailer", "END"),
    "no trailer": returning("trailer", None),
    "number as a trailer": returning("trailer", 7),
    # The record.
    "no record": returning("record", None),
    "text as a record": returning("record", "{}"),
    "list as a record": returning("record", [("a", 1)]),
    "fraction in the record": returning("record", {"a": 0.5}),
    "bytes in the record": returning("record", {"a": b"secret"}),
    "nested record": returning("record", {"a": {}}),
    "nothing in the record": returning("record", {"a": None}),
    "number as a name": returning("record", {1: "a"}),
    "huge number in the record": returning("record", {"a": 10**5000}),
    # Sizes of the encoded form.
    "negative encoded size": returning("encoded_size", -1),
    "fraction as an encoded size": returning("encoded_size", 0.5),
    "text as an encoded size": returning("encoded_size", "10"),
    "no encoded bytes": returning("encoded_size", 0),
    "small encoded size": lambda encoder: attributes(
        encoded_size=lambda size, method=encoder.encoded_size: method(size) - 1
    )(encoder),
    "large encoded size": lambda encoder: attributes(
        encoded_size=lambda size, method=encoder.encoded_size: method(size) + 1
    )(encoder),
    "huge encoded size": returning("encoded_size", 1 << 80),
    # Other objects.
    "text as an inline size": attributes(inline_size="large"),
    "not an encoder": lambda _: object(),
    **{
        f"without {name}": without(name)
        for name in ("header", "block_size", "encoded_size", "encode", "trailer", "record")
    },
}

INTO_BUGS: dict[str, Callable[[Any], Any]] = {
    "negative overhead": attributes(overhead=-1),
    "no overhead": attributes(overhead=0),
    "large overhead": attributes(overhead=OVERHEAD + 1),
    "huge overhead": attributes(overhead=MAX_EXPANSION + 1),
    "text as an overhead": attributes(overhead="4"),
    "overhead is None": attributes(overhead=None),
    "without an overhead": without("overhead"),
}


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 100 * KiB):
        yield body[at : at + 100 * KiB]


def stacks(broken: Middleware) -> dict[str, Sequence[Middleware]]:
    aes = Encryption(RING, segment_size=64 * KiB)
    return {"alone": [broken], "above": [broken, aes], "below": [aes, broken]}


BODIES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: LARGE,
    "small bytes": lambda: SMALL,
    "stream": lambda: chunks(LARGE),
    "small stream": lambda: chunks(SMALL),
}


@pytest.mark.parametrize("place", ["alone", "above", "below"])
@pytest.mark.parametrize("bug", [*BUGS, *INTO_BUGS])
async def test_broken_encoder_stores_nothing_that_cannot_be_read(bug: str, place: str) -> None:
    broken = Broken((BUGS | INTO_BUGS)[bug], into=bug in INTO_BUGS)
    fake = Fake(min_part=256 * KiB)
    pool = BufferPool(8 * MiB)
    refused = 0
    async with store_of(fake, middleware=stacks(broken)[place], pool=pool) as store:
        for kind, make_body in BODIES.items():
            error = await error_of(store.put("bucket", kind, make_body()))
            assert_idle(store, fake)
            if error is None:
                expected = SMALL if "small" in kind else LARGE
                broken.change = lambda _: None
                assert await store.read("bucket", kind) == expected
                continue
            refused += 1
            with pytest.raises(ObjectNotFoundError):
                await store.head("bucket", kind)
            if isinstance(error, NotSupportedError):
                assert bug == "huge encoded size"  # the backend or the encryption has a limit
                continue
            assert "'framed' has a bug" in str(error)
            assert "Nothing was stored" in str(error)
            assert "secret" not in str(error)
            assert (error.backend, error.bucket, error.key) == ("default", "bucket", kind)
    assert refused


async def error_of(put: Awaitable[object]) -> IntegrityError | NotSupportedError | None:
    try:
        await put
    except (IntegrityError, NotSupportedError) as error:
        return error
    return None


@pytest.mark.parametrize("bug", ["text later", "large encoded size", "huge number in the record"])
async def test_broken_encoder_leaves_the_old_object(bug: str) -> None:
    broken = Broken(lambda _: None)
    async with store_of(Fake(), middleware=[broken]) as store:
        await store.put("bucket", "key", SMALL)
        broken.change = BUGS[bug]
        with pytest.raises(IntegrityError, match="has a bug"):
            await store.put("bucket", "key", LARGE)
        assert await store.read("bucket", "key") == SMALL


async def test_broken_encoder_of_a_copy_leaves_both_objects() -> None:
    broken = Broken(BUGS["text later"])
    plain = Fake()
    async with store_of(plain) as store:
        await store.put("bucket", "key", LARGE)
    async with store_of(plain, middleware=[broken]) as store:
        for name in ("key", "copy"):
            with pytest.raises(IntegrityError, match="has a bug"):
                await store.copy("bucket", "key", "bucket", name)
        assert await store.read("bucket", "key") == LARGE
        assert not await store.exists("bucket", "copy")


@pytest.mark.parametrize("inspector", [None, object(), "text"])
@pytest.mark.parametrize("body", BODIES)
async def test_inspection_that_returns_no_inspector_stores_nothing(
    inspector: Any, body: str
) -> None:
    class Inspecting:
        async def inspector(self, context: ObjectContext) -> Any:
            del context
            return inspector

        def __repr__(self) -> str:
            return "Inspecting()"

    fake = Fake()
    async with store_of(fake, middleware=[Inspecting()]) as store:  # type: ignore[list-item]  # no middleware
        with pytest.raises(TypeError, match=r"Inspecting\(\) must return an inspector"):
            await store.put("bucket", "key", BODIES[body]())
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)
