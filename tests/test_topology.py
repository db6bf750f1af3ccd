"""One store on three kinds of backends: hot files on disk, cold ones in S3, an archive in GCS."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import ExitStack
from itertools import permutations
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.fault_proxy import FaultProxy
from tests.http_faults import Cut
from tests.test_docs import SNIPPETS
from trove_async import (
    BufferPool,
    ObjectNotFoundError,
    RetryPolicy,
    Route,
    Timeout,
    Trove,
    UnavailableError,
)
from trove_async.drivers import GCSDriver, LocalDriver, S3Driver
from trove_async.models import MiB
from trove_async.testing import servers
from trove_async.testing.servers import GCSServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trove_async.testing.servers import S3Server

NAMES = ("default", "cold", "archive")
ROUTES = [Route.prefix("cold/", "cold"), Route.prefix("archive/", "archive")]
FAST_FAILURE: dict[str, Any] = {
    "retry": RetryPolicy(attempts=2, base_delay=0),
    "timeout": Timeout(connect=2, first_byte=5, idle=5),
}
LARGE = hashlib.shake_128(b"large").digest(MiB) * 12 + b"end"


def s3_driver(server: S3Server) -> S3Driver:
    return S3Driver(
        region=server.region,
        endpoint_url=server.endpoint_url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
    )


def topology(root: Path, s3: S3Server, gcs: GCSServer, **settings: Any) -> Trove:
    return Trove(
        LocalDriver(root, fsync=False),
        backends={"cold": s3_driver(s3), "archive": GCSDriver(endpoint_url=gcs.endpoint_url)},
        routes=ROUTES,
        pool=BufferPool(64 * MiB, part_size=5 * MiB),
        **settings,
    )


@pytest.fixture
def bucket() -> str:
    return f"topology-{uuid4().hex[:20]}"


@pytest_asyncio.fixture
async def store(
    tmp_path: Path, seaweed: S3Server, fake_gcs: GCSServer, bucket: str
) -> AsyncIterator[Trove]:
    async with topology(tmp_path, seaweed, fake_gcs) as store:
        await store.create_bucket(bucket, backends="all")
        yield store
        assert store.pool.statistics().leased == 0


def key_on(name: str, suffix: str) -> str:
    return suffix if name == "default" else f"{name}/{suffix}"


async def test_local_program_of_the_readme_runs_on_real_protocols(
    tmp_path: Path,
    seaweed: S3Server,
    fake_gcs: GCSServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    physical = f"my-archive-{uuid4().hex[:20]}"
    endpoint = fake_gcs.endpoint_url
    async with Trove(GCSDriver(endpoint_url=endpoint)) as archive:
        await archive.create_bucket(physical)
    [program] = [snippet for snippet in SNIPPETS if "local://./archive" in snippet]
    for placeholder, actual in [
        ("MemoryDriver()", "cold()"),
        ("local://./archive", f"gcs://{physical}/objects?endpoint={endpoint}"),
        ("asyncio.run(main())", ""),
        ('"data"', f'"data-{physical}"'),  # all tests share one SeaweedFS
    ]:
        assert placeholder in program
        program = program.replace(placeholder, actual)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"cold": lambda: s3_driver(seaweed)}
    exec(compile(program, "README.md", "exec"), names)  # noqa: S102 - our own README
    await names["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "b'started\\n'"
    assert sorted(lines[1:]) == ["app.log 8 cold", "config.json 16 default"]


@pytest.mark.parametrize("size", [0, 1, len(LARGE)])
@pytest.mark.parametrize(("source", "target"), list(permutations(NAMES, 2)))
async def test_object_moves_between_any_two_backends(
    store: Trove, bucket: str, source: str, target: str, size: int
) -> None:
    source_key, target_key = key_on(source, "a/b.bin"), key_on(target, "moved.bin")
    put = await store.put(
        bucket,
        source_key,
        LARGE[:size],
        content_type="image/png",
        metadata={"author": "gr\u00fc\u00df"},
    )
    assert put.backend == source
    moved = await store.move(bucket, source_key, bucket, target_key)
    assert (moved.backend, moved.size) == (target, size)
    assert await store.read(bucket, target_key) == LARGE[:size]
    head = await store.head(bucket, target_key)
    assert (head.content_type, dict(head.metadata)) == ("image/png", {"author": "gr\u00fc\u00df"})
    with pytest.raises(ObjectNotFoundError):
        await store.head(bucket, source_key)
    backends = [name for name in NAMES if await store.backend(name).list(bucket).all()]
    assert backends == [target]


async def test_listing_merges_all_backends(store: Trove, bucket: str) -> None:
    keys = [key_on(name, f"{n:02}/x") for n in range(12) for name in NAMES]
    for key in keys:
        await store.put(bucket, key, key.encode())
    for page_size in (1000, 3):
        entries = await store.list(bucket, page_size=page_size).all()
        assert sorted(entry.key for entry in entries) == sorted(keys)
        assert {entry.key: entry.backend for entry in entries} == {
            key: next((n for n in NAMES if key.startswith(f"{n}/")), "default") for key in keys
        }
    top_level = await store.list(bucket, delimiter="/").all()
    assert sorted(entry.key for entry in top_level) == sorted(
        {"cold/", "archive/", *(f"{n:02}/" for n in range(12))}
    )
    # Only the archive has keys with this prefix, and it lists them in bytewise order.
    listing = store.list(bucket, prefix="archive/", page_size=5)
    assert [entry.key async for entry in listing] == sorted(k for k in keys if "archive" in k)
    assert listing.ordered


# -- one backend dies --------------------------------------------------------------------------------


class KillableServer:
    """A GCS server that can be killed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.server = self._stack.enter_context(servers.fake_gcs())

    def kill(self) -> None:
        self._stack.close()


@pytest.fixture
def killable() -> Iterator[KillableServer]:
    killable = KillableServer()
    yield killable
    killable.kill()


@pytest_asyncio.fixture
async def store_on_killable(
    tmp_path: Path, seaweed: S3Server, killable: KillableServer, bucket: str
) -> AsyncIterator[Trove]:
    async with topology(tmp_path, seaweed, killable.server, **FAST_FAILURE) as store:
        await store.create_bucket(bucket, backends="all")
        yield store
        assert store.pool.statistics().leased == 0


async def test_listing_raises_when_a_backend_dies(
    store_on_killable: Trove, killable: KillableServer, bucket: str
) -> None:
    for n in range(12):
        for name in NAMES:
            await store_on_killable.put(bucket, key_on(name, f"{n:02}"), b"x")
    listed = []
    with pytest.raises(UnavailableError) as caught:
        async for entry in store_on_killable.list(bucket, page_size=3):
            listed.append(entry.key)
            if len(listed) == 1:
                await asyncio.to_thread(killable.kill)
    assert caught.value.backend == "archive"
    assert len(listed) < 36
    for name in ("default", "cold"):  # the other backends keep working
        assert len(await store_on_killable.backend(name).list(bucket).all()) == 12
    health = await store_on_killable.health()
    assert [health[name].ok for name in NAMES] == [True, True, False]


@pytest.mark.parametrize(
    ("source", "target", "request_target", "fault"),
    [
        ("cold", "archive", "*upload_id=*", Cut("request body", 3 * MiB)),
        ("default", "archive", "*upload_id=*", Cut("request body", 3 * MiB)),
        ("archive", "cold", "*alt=media*", Cut("response body", 7 * MiB)),
        ("archive", "default", "*alt=media*", Cut("response body", 7 * MiB)),
    ],
)
async def test_move_leaves_only_the_source_when_a_backend_dies(
    *,
    tmp_path: Path,
    seaweed: S3Server,
    fake_gcs: GCSServer,
    bucket: str,
    source: str,
    target: str,
    request_target: str,
    fault: Cut,
) -> None:
    async with FaultProxy(fake_gcs.endpoint_url) as proxy:
        dying = GCSServer(endpoint_url=proxy.endpoint_url)
        async with topology(tmp_path, seaweed, dying, **FAST_FAILURE) as store:
            await store.create_bucket(bucket, backends="all")
            source_key, target_key = key_on(source, "large"), key_on(target, "copy")
            await store.put(bucket, source_key, LARGE)
            # The first request breaks midway, and every later one before its head.
            proxy.arm(fault, target=request_target)
            proxy.arm(Cut("request head"), target=request_target, times=None)
            with pytest.raises(UnavailableError) as caught:
                await store.move(bucket, source_key, bucket, target_key)
            assert caught.value.backend == "archive"
            await store.put(bucket, "hot", b"still works")
            assert await store.read(bucket, "hot") == b"still works"
            assert store.pool.statistics().leased == 0
    # Without the proxy, the backend works again.
    async with topology(tmp_path, seaweed, fake_gcs) as store:
        assert not await store.exists(bucket, target_key)
        assert await store.read(bucket, source_key) == LARGE
