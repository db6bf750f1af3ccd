"""The store suite on stores with routes, layers, limits, unordered listings and faults."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from trove_async import BufferPool, RetryPolicy, Trove
from trove_async.driver import Capabilities
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.layers import Mapped
from trove_async.models import KiB, MiB
from trove_async.testing import Faulty, Operation, StoreSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def small_pool() -> BufferPool:
    return BufferPool(4 * MiB, 1 * MiB, spill_after=0.05)


class TestMemory(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        async with Trove(MemoryDriver(), pool=small_pool()) as store:
            yield store


class TestPinnedHandle(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        backends = {"cold": MemoryDriver()}
        async with Trove(MemoryDriver(), backends=backends, pool=small_pool()) as store:
            yield store.backend("cold")


class TestRouted(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        async with Trove(
            MemoryDriver(),
            backends={"one": MemoryDriver(), "two": MemoryDriver(), "unused": MemoryDriver()},
            routes=[("*/1", "one"), ("[a-k]*", "two"), ("to*", "one")],
            route_functions=[
                lambda _, key: "two" if key.endswith("x") else None,
                self._route_async,
            ],
            pool=small_pool(),
        ) as store:
            yield store

    @staticmethod
    async def _route_async(_: str, key: str) -> str:
        return "one" if "%" in key or "\U0010ffff" in key else ""


class TestOneConnection(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        driver = MemoryDriver(parallel_parts=1, max_connections=1)
        async with Trove(driver, pool=small_pool()) as store:
            yield store


class TestDriverWithMinimalCapabilities(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        minimal = Capabilities(private_namespace=True)
        driver = Faulty(MemoryDriver(), capabilities=minimal)
        async with Trove(driver, pool=small_pool()) as store:
            yield store


class TestPutSupportsMoreThanUploadsAndCopies(StoreSuite):
    """Some S3-compatible services ignore the conditions and tags of uploads and copies."""

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        inner = MemoryDriver()
        claimed = replace(
            inner.capabilities,
            commit_conditions=False,
            copy_conditions=False,
            upload_tags=False,
            copy_tags=False,
            max_copy=2 * MiB,
            min_part=MiB,
        )
        driver = Faulty(inner, capabilities=claimed)
        async with Trove(driver, pool=small_pool()) as store:
            yield store


class TestUnordered(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        inner = MemoryDriver()
        unordered = replace(inner.capabilities, ordered=False, embedded=False)
        async with Trove(Faulty(inner, capabilities=unordered), pool=small_pool()) as store:
            yield store


class TestOrderedAndUnordered(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        inner = MemoryDriver()
        unordered = replace(inner.capabilities, ordered=False)
        async with Trove(
            MemoryDriver(),
            backends={
                "unordered": Faulty(inner, capabilities=unordered),
                "ordered": MemoryDriver(),
            },
            routes=[("a*", "unordered"), ("*1", "ordered")],
            pool=small_pool(),
        ) as store:
            yield store


class TestPartsWithLimits(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        inner = MemoryDriver()
        limited = replace(
            inner.capabilities,
            min_part=256 * KiB,
            max_part=512 * KiB,
            part_multiple=256 * KiB,
            max_put=300 * KiB,
            bulk_delete=3,
            server_copy=False,
            delete_if_match=False,
        )
        async with Trove(Faulty(inner, capabilities=limited), pool=small_pool()) as store:
            yield store


OPERATIONS: list[Operation] = [
    "put",
    "get",
    "head",
    "delete",
    "delete_many",
    "list_page",
    "upload",
    "send",
    "commit",
    "copy",
    "create_bucket",
    "delete_bucket",
]

MANY_ATTEMPTS = RetryPolicy(attempts=30, base_delay=0, budget=10**6)


class TestEveryThirdCallFails(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        faulty = Faulty(MemoryDriver())
        faulty.fail("read", times=None, every=3)
        for operation in OPERATIONS:
            faulty.fail(operation, times=None, every=3)
        async with Trove(faulty, pool=small_pool(), retry=MANY_ATTEMPTS) as store:
            yield store


class TestEverySecondResponseIsLost(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        faulty = Faulty(MemoryDriver())
        for operation in OPERATIONS:
            faulty.fail(operation, times=None, every=2, when="after")
        async with Trove(faulty, pool=small_pool(), retry=MANY_ATTEMPTS) as store:
            yield store
        assert (faulty.open_readers, faulty.open_uploads) == (0, 0)


class TestMappedIntoOneBucket(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        driver = Mapped(MemoryDriver(), into="everything", prefix="team/")
        async with Trove(driver, pool=small_pool()) as store:
            yield store


class TestLocal(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Trove]:  # type: ignore[override]  # a fixture
        async with Trove(LocalDriver(tmp_path / "store", fsync=False), pool=small_pool()) as store:
            yield store


class TestMappedOntoFiles(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Trove]:  # type: ignore[override]  # a fixture
        driver = Mapped(LocalDriver(tmp_path / "store", fsync=False), into="everything")
        async with Trove(driver, pool=small_pool()) as store:
            yield store


class TestRoutedOverFilesAndMemory(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Trove]:  # type: ignore[override]  # a fixture
        async with Trove(
            LocalDriver(tmp_path / "hot", fsync=False),
            backends={
                "memory": MemoryDriver(),
                "files": LocalDriver(tmp_path / "cold", fsync=False),
                "mapped": Mapped(MemoryDriver(), into="everything", prefix="team/"),
            },
            routes=[("*/1", "memory"), ("[a-k]*", "files"), ("to*", "mapped")],
            pool=small_pool(),
        ) as store:
            yield store


ROUTES = [("*/1", "one"), ("[a-k]*", "two"), ("to*", "one")]


@pytest.mark.soak  # the other ones that locate anywhere are run always
class TestLocatedAnywhere(StoreSuite):
    """Objects of all backends are looked for, and each name is routed."""

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        async with Trove(
            MemoryDriver(),
            backends={"one": MemoryDriver(), "two": MemoryDriver(), "unused": MemoryDriver()},
            routes=ROUTES,
            locate="anywhere",
            pool=small_pool(),
        ) as store:
            yield store


class TestLocatedAnywhereOnMemoryAndFiles(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Trove]:  # type: ignore[override]  # a fixture
        async with Trove(
            LocalDriver(tmp_path / "hot", fsync=False),
            backends={
                "one": MemoryDriver(),
                "two": Mapped(LocalDriver(tmp_path / "cold", fsync=False), into="everything"),
            },
            routes=ROUTES,
            locate="anywhere",
            pool=small_pool(),
        ) as store:
            yield store


class TestLocatedAnywhereOnOrderedAndUnordered(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        inner = MemoryDriver()
        unordered = replace(inner.capabilities, ordered=False)
        async with Trove(
            MemoryDriver(),
            backends={"one": Faulty(inner, capabilities=unordered), "two": MemoryDriver()},
            routes=ROUTES,
            locate="anywhere",
            pool=small_pool(),
        ) as store:
            yield store


class TestLocatedAnywhereWithMinimalCapabilities(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        minimal = Capabilities(private_namespace=True)
        async with Trove(
            Faulty(MemoryDriver(), capabilities=minimal),
            backends={
                name: Faulty(MemoryDriver(), capabilities=minimal) for name in ("one", "two")
            },
            routes=ROUTES,
            locate="anywhere",
            pool=small_pool(),
        ) as store:
            yield store
