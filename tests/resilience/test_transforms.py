"""Transformed objects over connections that break or are slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.fakes import Fake, assert_idle, content, store_of
from trove_async import BufferPool
from trove_async._resilience import download
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from trove_async import ObjectReader
    from trove_async.middleware import Middleware
    from trove_async.options import Part

pytestmark = pytest.mark.idle_time

SEGMENT = 64 * KiB
RING = Keyring({"key": bytes(range(32))})
BODY = content(6 * SEGMENT + 1000)
TEXT = content(5 * MiB).hex().encode()

STACKS: dict[str, tuple[Sequence[Middleware], bytes]] = {
    "aes": ([Encryption(RING, segment_size=SEGMENT)], BODY),
    "zstd": ([Compression(frame_size=SEGMENT)], TEXT[: 16 * SEGMENT]),
    "both": (
        [Compression(frame_size=SEGMENT), Encryption(RING, segment_size=SEGMENT)],
        TEXT[: 12 * SEGMENT],
    ),
}


async def read_to_end(reader: ObjectReader, size: int) -> bytes:
    pieces = []
    while piece := await reader.read(size):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("kind", ["cuts", "shorts"])
@pytest.mark.parametrize("stack", STACKS)
async def test_download_broken_at_any_segment_is_resumed(stack: str, kind: str) -> None:
    middleware, body = STACKS[stack]
    fake = Fake()
    async with store_of(fake, middleware=middleware) as store:
        info = await store.put("bucket", "key", body)
        borders = [*range(0, info.stored_size, SEGMENT), info.stored_size]
        breaks = sorted({border + offset for border in [*borders, 40] for offset in (-1, 0, 1)})
        for at in breaks:
            if not 0 <= at < info.stored_size:
                continue
            getattr(fake, kind).append(at)
            async with store.get("bucket", "key") as obj:
                assert await read_to_end(obj, 50_000) == body
            assert not getattr(fake, kind), f"the body did not break at byte {at}"
        assert_idle(store, fake)


@pytest.mark.parametrize("stack", STACKS)
async def test_download_broken_at_every_segment_is_resumed(stack: str) -> None:
    middleware, body = STACKS[stack]
    fake = Fake()
    async with store_of(fake, middleware=middleware) as store:
        info = await store.put("bucket", "key", body)
        fake.cuts = list(range(0, info.stored_size, SEGMENT))
        assert await store.read("bucket", "key") == body
        assert not fake.cuts
        assert_idle(store, fake)


@pytest.mark.parametrize("stack", STACKS)
async def test_range_broken_at_its_segments_is_resumed(stack: str) -> None:
    middleware, body = STACKS[stack]
    bounds = SEGMENT + 10, 3 * SEGMENT + 10
    fake = Fake()
    async with store_of(fake, middleware=middleware) as store:
        info = await store.put("bucket", "key", body)
        for at in range(0, info.stored_size, SEGMENT // 3):
            fake.cuts = [at]
            assert await store.read("bucket", "key", range=bounds) == body[slice(*bounds)]
            fake.cuts = [at]
            pieces = await store.get_ranges("bucket", "key", [(0, 5), bounds])
            assert pieces == [body[:5], body[slice(*bounds)]]
        assert_idle(store, fake)


@pytest.mark.parametrize("stack", STACKS)
async def test_replaced_object_is_never_mixed_with_its_old_segments(stack: str) -> None:
    middleware, body = STACKS[stack]
    fake = Fake()
    async with store_of(fake, middleware=middleware) as store:
        info = await store.put("bucket", "key", body)
        async with store.get("bucket", "key") as obj:
            received = await obj.read(1000)
            await store.put("bucket", "key", body[::-1])
            fake.cuts = [info.stored_size * 3 // 4]
            with pytest.raises(Exception, match="replaced or deleted"):
                while piece := await obj.read(1000):
                    received += piece
            assert body.startswith(received)
        assert_idle(store, fake)


async def test_read_ahead_fetches_pieces_of_a_transformed_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "SLOW_SECONDS_PER_BYTE", 0)
    monkeypatch.setattr(download, "TRIAL_BYTES", 0)
    body = content(13 * MiB + 123)
    fake = Fake(parallel_reads=3)
    pool = BufferPool(32 * MiB, 1 * MiB)
    async with store_of(fake, pool=pool, middleware=[Encryption(RING)]) as store:
        await store.put("bucket", "key", body)
        fake.steps.clear()
        async with store.get("bucket", "key") as obj:
            assert await read_to_end(obj, MiB) == body
        assert fake.count("get") > 1
        assert_idle(store, fake)


class Recording(Fake):
    """Records the bytes of every attempt to send a part, even of one whose response is lost."""

    attempts: list[tuple[int, bytes]]

    def upload(self, bucket: str, key: str, options: Any) -> Any:
        return _RecordingUpload(self, super().upload(bucket, key, options))


class _RecordingUpload:
    def __init__(self, fake: Recording, inner: Any) -> None:
        self._fake = fake
        self._inner = inner

    async def __aenter__(self) -> Self:
        self._upload = await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> Any:
        return await self._inner.__aexit__(*error)

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        self._fake.attempts.append((part.number, b"".join(views)))
        await self._upload.send(part, views)

    async def commit(self, checksums: Mapping[str, str]) -> Any:
        return await self._upload.commit(checksums)


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 300_000):
        yield body[at : at + 300_000]


@pytest.mark.parametrize(
    "middleware",
    [[Encryption(RING)], [Compression(), Encryption(RING)]],
    ids=["aes", "both"],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_retried_part_sends_identical_bytes(
    middleware: Sequence[Middleware], *, streamed: bool
) -> None:
    fake = Recording()
    fake.attempts = []
    async with store_of(fake, middleware=middleware, pool=BufferPool(16 * MiB, MiB)) as store:
        fake.fail("send", times=2)
        fake.fail("send.done", times=2)
        await store.put("bucket", "key", chunks(TEXT) if streamed else TEXT)
        assert await store.read("bucket", "key") == TEXT
        bodies_by_part = dict(fake.attempts)
        assert len(fake.attempts) > len(bodies_by_part)
        assert all(body == bodies_by_part[number] for number, body in fake.attempts)
        assert_idle(store, fake)
