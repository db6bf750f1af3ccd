"""Random operations on a store, each compared with a dict as the model."""

from __future__ import annotations

import asyncio
import operator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import shake_128
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.fakes import CallLog, Unordered
from trove_async import (
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    BufferPool,
    CursorError,
    ObjectExistsError,
    ObjectInfo,
    ObjectNotFoundError,
    PreconditionFailedError,
    Prefix,
    RangeError,
    Route,
    Trove,
)
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.layers import Mapped
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB, MiB
from trove_async.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from trove_async.middleware import Middleware

T = TypeVar("T")


ROUTES: Sequence[Route | tuple[str, str]] = [
    ("*.log", "cold"),
    Route.prefix("b/", "cold"),
    Route.suffix("z", "third"),
]


RING = Keyring({"key": bytes(range(32))})
AES = Encryption(RING, segment_size=64 * KiB)
ZSTD = Compression(level=1, frame_size=128 * KiB)
KEYS_ONLY = (Encryption(RING), ~Scope.everything())
"""Encrypts no object. A store that has it can read the objects of an earlier stack."""

STACKS: dict[str, Sequence[Middleware | tuple[Middleware, Scope]]] = {
    "plain": [KEYS_ONLY],
    "zstd": [ZSTD, KEYS_ONLY],
    "aes": [AES],
    "both": [ZSTD, AES],
    "by backend": [(ZSTD, Scope.backends("cold")), (AES, ~Scope.backends("cold"))],
    "bound": [Encryption(RING, segment_size=64 * KiB, bind=True)],
}
"""By name: the middlewares of a store."""


def routed(
    default: Any,
    cold: Any,
    third: Any,
    *,
    part_size: int = MiB,
    middleware: Sequence[Middleware | tuple[Middleware, Scope]] = (),
) -> Trove:
    return Trove(
        default,
        backends={"cold": cold, "third": third},
        routes=ROUTES,
        pool=BufferPool(4 * part_size, part_size=part_size),
        middleware=middleware,
    )


OpenStore: TypeAlias = "Callable[[Sequence[Middleware | tuple[Middleware, Scope]]], Trove]"
"""Returns a store with these middlewares. A later call returns one of the same objects."""


def over(*drivers: Any) -> OpenStore:
    """Return a function that returns stores of drivers which can be opened repeatedly."""
    return lambda middleware: routed(*drivers, middleware=middleware)


def one_memory_behind_two_backends(_: str) -> OpenStore:
    """Let the first two backends share one memory, with different bucket names."""
    shared = MemoryDriver()
    names = {"data": "hidden-data", "other": "hidden-other"}
    return over(shared, Mapped(shared, buckets=names), Mapped(MemoryDriver(), into="box"))


def local_and_memory(root: str) -> OpenStore:
    memory = MemoryDriver()
    return lambda middleware: routed(
        LocalDriver(f"{root}/hot", fsync=False),
        memory,
        LocalDriver(f"{root}/third", fsync=False),
        middleware=middleware,
    )


STORES: dict[str, Callable[[str], OpenStore]] = {
    "memory": lambda _: over(MemoryDriver(), MemoryDriver(), MemoryDriver()),
    "plain": lambda _: over(
        MemoryDriver(), CallLog(server_copy=False, bulk_delete=0, delete_if_match=False), CallLog()
    ),
    "unordered": lambda _: over(MemoryDriver(), Unordered(), Unordered()),
    "layered": one_memory_behind_two_backends,
    "local": local_and_memory,
}
"""By name: a function that receives the path of a directory for files, and returns empty stores."""

buckets = st.sampled_from(["data", "other"])
keys = st.sampled_from(
    ["a", "a.log", "a/1", "a/2.log", "b/1", "b/z", "c/d/e", "c/z", "z", "é", "é.log"]
)
sizes = st.sampled_from([0, 1, 17, 70_001, MiB, MiB + 5, 2 * MiB])


DATE_TOLERANCE = timedelta(seconds=2)


@dataclass
class StoredObject:
    """One object in the model."""

    body: bytes
    info: ObjectInfo
    metadata: dict[str, str] = field(default_factory=dict)


def agree(actual: ObjectInfo, expected: ObjectInfo) -> bool:
    """Return whether two infos of one object agree, except in close dates and unreported checksums.

    A service may report the checksums of a copy later. Some dates are in whole seconds, and the date
    that a put returns may be the date of its response, so dates may differ by `DATE_TOLERANCE`.
    """
    common = actual.checksums.keys() & expected.checksums.keys()
    if abs(actual.last_modified - expected.last_modified) < DATE_TOLERANCE:
        actual = replace(actual, last_modified=expected.last_modified)
    return all(actual.checksums[name] == expected.checksums[name] for name in common) and (
        replace(actual, checksums=expected.checksums) == expected
    )


class StoreMachine(RuleBasedStateMachine):
    """Plays random operations on a store.

    Args:
        open_store: Opens the store, which is empty. It is closed and opened again with other middlewares.
        agree: Compares two infos of one object.
    """

    def __init__(
        self,
        open_store: OpenStore,
        agree: Callable[[ObjectInfo, ObjectInfo], bool] = operator.eq,
    ) -> None:
        super().__init__()
        self.open_store = open_store
        self.agree = agree
        self.model: dict[str, dict[str, StoredObject]] = {}
        self.runner = asyncio.Runner()
        self.store = open_store(())
        self.run(self.store.__aenter__())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        self.close_store()
        self.runner.close()

    def close_store(self) -> None:
        self.run(self.store.aclose())
        assert self.store.pool.statistics().leased == 0

    @initialize()
    def begin_with_a_bucket(self) -> None:
        self.create_bucket("data")

    @rule(stack=st.sampled_from(list(STACKS)))
    def open_with_other_middlewares(self, stack: str) -> None:
        self.close_store()
        self.store = self.open_store(STACKS[stack])
        self.run(self.store.__aenter__())

    # -- buckets ---------------------------------------------------------------------------------

    @rule(bucket=buckets)
    def create_bucket(self, bucket: str) -> None:
        if bucket in self.model:
            with pytest.raises(BucketExistsError):
                self.run(self.store.create_bucket(bucket))
        else:
            self.run(self.store.create_bucket(bucket))
            self.model[bucket] = {}

    @rule(bucket=buckets)
    def delete_bucket(self, bucket: str) -> None:
        if bucket not in self.model:
            with pytest.raises(BucketNotFoundError):
                self.run(self.store.delete_bucket(bucket))
        elif self.model[bucket]:
            with pytest.raises(BucketNotEmptyError):
                self.run(self.store.delete_bucket(bucket))
        else:
            self.run(self.store.delete_bucket(bucket))
            del self.model[bucket]

    # -- objects ---------------------------------------------------------------------------------

    @rule(
        bucket=buckets,
        key=keys,
        size=sizes,
        seed=st.integers(0, 3),
        condition=st.sampled_from([None, "create", "match", "stale"]),
        streamed=st.booleans(),
        metadata=st.sampled_from([{}, {"a": "1"}, {"a": "2", "b": ""}]),
    )
    def put(
        self,
        *,
        bucket: str,
        key: str,
        size: int,
        seed: int,
        condition: str | None,
        streamed: bool,
        metadata: dict[str, str],
    ) -> None:
        body = shake_128(bytes([seed])).digest(size)
        if seed % 2:
            body = body.hex().encode()[:size]  # it can be compressed
        stored = self.model.get(bucket, {}).get(key)
        options: dict[str, Any] = {"metadata": metadata}
        expected_error: type[Exception] | tuple[type[Exception], ...] | None = None
        if bucket not in self.model:
            expected_error = BucketNotFoundError
            if condition == "stale":  # both apply, and a backend may check either one first
                expected_error = BucketNotFoundError, PreconditionFailedError
        if condition == "create":
            options["if_none_match"] = "*"
            expected_error = expected_error or (ObjectExistsError if stored else None)
        elif condition == "match" and stored:
            options["if_match"] = stored.info
        elif condition == "stale":
            options["if_match"] = "0-stale"
            expected_error = expected_error or PreconditionFailedError
        pieces = [body[at : at + 70_001] for at in range(0, len(body), 70_001)]
        source = pieces if streamed else body
        if expected_error is not None:
            with pytest.raises(expected_error):
                self.run(self.store.put(bucket, key, source, **options))
            return
        info = self.run(self.store.put(bucket, key, source, **options))
        assert (info.bucket, info.key, info.size) == (bucket, key, len(body))
        assert info.metadata == metadata
        self.model[bucket][key] = StoredObject(body, info, metadata)

    @rule(bucket=buckets, key=keys, data=st.data())
    def read(self, bucket: str, key: str, data: st.DataObject) -> None:
        stored = self.model.get(bucket, {}).get(key)
        if stored is None:
            expected_error = ObjectNotFoundError if bucket in self.model else BucketNotFoundError
            with pytest.raises(expected_error):
                self.run(self.store.read(bucket, key))
            with pytest.raises(expected_error):
                self.run(self.store.head(bucket, key))
            return
        assert self.run(self.store.read(bucket, key)) == stored.body
        assert self.agree(self.run(self.store.head(bucket, key)), stored.info)
        assert self.run(self.store.read(bucket, key, if_match=stored.info)) == stored.body
        start = data.draw(st.integers(0, len(stored.body) + 2))
        end = data.draw(st.integers(start + 1, len(stored.body) + 5) | st.none())
        if start < len(stored.body):
            assert (
                self.run(self.store.read(bucket, key, range=(start, end)))
                == (stored.body[start:end])
            )
            assert self.run(self.store.get_ranges(bucket, key, [(start, end), (0, 1)])) == [
                stored.body[start:end], stored.body[:1],
            ]  # fmt: skip
        else:
            with pytest.raises(RangeError):
                self.run(self.store.read(bucket, key, range=(start, end)))

    @rule(bucket=buckets, key=keys)
    def delete(self, bucket: str, key: str) -> None:
        if bucket not in self.model:
            with pytest.raises(BucketNotFoundError):
                self.run(self.store.delete(bucket, key))
            return
        self.run(self.store.delete(bucket, key))
        self.model[bucket].pop(key, None)

    @rule(bucket=buckets, chosen=st.lists(keys, max_size=5))
    def delete_many(self, bucket: str, chosen: list[str]) -> None:
        async def results() -> list[tuple[str, type | None]]:
            return [
                (result.key, None if result.error is None else type(result.error))
                async for result in self.store.delete_many(bucket, chosen)
            ]

        expected_error = None if bucket in self.model else BucketNotFoundError
        assert self.run(results()) == [(key, expected_error) for key in chosen]
        for key in chosen:
            self.model.get(bucket, {}).pop(key, None)

    @rule(
        source=st.tuples(buckets, keys),
        destination=st.tuples(buckets, keys),
        move=st.booleans(),
        metadata=st.sampled_from([None, {}, {"new": "1"}]),
        create=st.booleans(),
    )
    def copy_or_move(
        self,
        *,
        source: tuple[str, str],
        destination: tuple[str, str],
        move: bool,
        metadata: dict[str, str] | None,
        create: bool,
    ) -> None:
        stored = self.model.get(source[0], {}).get(source[1])
        options: dict[str, Any] = {"metadata": metadata}
        expected_error: type[Exception] | None = None
        if stored is None:
            expected_error = ObjectNotFoundError if source[0] in self.model else BucketNotFoundError
        elif destination[0] not in self.model:
            expected_error = BucketNotFoundError
        if create:
            options["if_none_match"] = "*"
            existing = self.model.get(destination[0], {}).get(destination[1])
            expected_error = expected_error or (ObjectExistsError if existing else None)
        operation = self.store.move if move else self.store.copy
        if expected_error is not None:
            with pytest.raises(expected_error):
                self.run(operation(*source, *destination, **options))
            return
        assert stored is not None
        info = self.run(operation(*source, *destination, **options))
        assert (info.bucket, info.key, info.size) == (*destination, len(stored.body))
        expected = stored.metadata if metadata is None else metadata
        assert info.metadata == expected
        self.model[destination[0]][destination[1]] = StoredObject(stored.body, info, expected)
        if move and source != destination:
            del self.model[source[0]][source[1]]

    # -- listings --------------------------------------------------------------------------------

    @rule(
        bucket=buckets,
        prefix=st.sampled_from(["", "a", "a/", "b/", "c/", "é", "nothing"]),
        delimiter=st.sampled_from([None, "/"]),
        page_size=st.integers(1, 5),
        resume_after=st.integers(0, 12),
    )
    def list_all(
        self, *, bucket: str, prefix: str, delimiter: str | None, page_size: int, resume_after: int
    ) -> None:
        arguments: dict[str, Any] = {"prefix": prefix, "delimiter": delimiter}

        async def list_in_two_steps() -> tuple[list[ObjectInfo | Prefix], bool]:
            listing = self.store.list(bucket, page_size=page_size, **arguments)
            first: list[ObjectInfo | Prefix] = []
            async for entry in listing:
                first.append(entry)
                if len(first) > resume_after:
                    break
            remaining = await self._resume(bucket, listing.cursor, **arguments) if first else []
            return [*first, *remaining], bool(listing.ordered)

        if bucket not in self.model:
            with pytest.raises(BucketNotFoundError):
                self.run(list_in_two_steps())
            return
        expected = set()
        for key in self.model[bucket]:
            if key.startswith(prefix):
                end = -1 if delimiter is None else key.find(delimiter, len(prefix))
                expected.add(key if end < 0 else key[: end + 1])
        entries, ordered = self.run(list_in_two_steps())
        names = [entry.key for entry in entries]
        assert sorted(names) == sorted(expected)
        assert not ordered or names == sorted(names)
        for entry in entries:
            if isinstance(entry, ObjectInfo) and entry.complete:
                assert self.agree(entry, self.model[bucket][entry.key].info)

    async def _resume(
        self, bucket: str, cursor: str | None, **arguments: Any
    ) -> Sequence[ObjectInfo | Prefix]:
        if cursor is None:
            return []  # the listing has ended
        with pytest.raises(CursorError):
            await self.store.list(bucket, prefix="?", cursor=cursor).all()
        return await self.store.list(bucket, cursor=cursor, **arguments).all()

    @invariant()
    @precondition(lambda self: self.model)
    def list_and_head_agree(self) -> None:
        async def listed_and_found(bucket: str) -> tuple[set[str], set[str]]:
            listed = {info.key for info in await self.store.list(bucket).all()}
            names = ["a", "a.log", "a/1", "a/2.log", "b/1", "b/z", "c/d/e", "c/z", "z", "é"]
            return listed, {
                key for key in [*names, "é.log"] if await self.store.exists(bucket, key)
            }

        for bucket, objects in self.model.items():
            listed, found = self.run(listed_and_found(bucket))
            assert listed == found == set(objects)


def run_machine(
    name: str,
    root: Path,
    agree: Callable[[ObjectInfo, ObjectInfo], bool] = operator.eq,
    **limits: int,
) -> None:
    directories = count()
    run_state_machine_as_test(
        # Hypothesis accepts a function here, although the annotation requires a class.
        lambda: StoreMachine(STORES[name](f"{root}/{next(directories)}"), agree),  # type: ignore[arg-type]
        settings=settings(
            deadline=None,
            phases=(Phase.generate, Phase.shrink),  # the explain phase takes minutes
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            **limits,  # type: ignore[arg-type]  # numbers, by name
        ),
    )


@pytest.mark.parametrize("name", STORES)
def test_store_behaves_like_a_dict(name: str, tmp_path: Path) -> None:
    run_machine(name, tmp_path, max_examples=12, stateful_step_count=25)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", STORES)
def test_store_behaves_like_a_dict_in_long_runs(name: str, tmp_path: Path) -> None:
    run_machine(name, tmp_path, max_examples=1500, stateful_step_count=60)
