"""Objects are encoded again as today's middlewares ask, and damaged ones are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes import Fake, WithoutEtags, small_pool
from tests.jobs.stores import BUCKET, Backends
from trove_async import BackendNotFoundError, ConfigError, Scope, Trove
from trove_async.jobs import _run, reencode, verify
from trove_async.middlewares import Compression, Encryption, Keyring

if TYPE_CHECKING:
    from pathlib import Path

    from trove_async.jobs import JobProgress

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
TEXT = b"all work and no play " * 500


async def test_reencoding_compresses_and_rotates_keys_once() -> None:
    backends = Backends()
    old = Keyring({"old": OLD}, current="old")
    both = Keyring({"old": OLD, "new": NEW}, current="new")
    async with backends.store(middleware=[Encryption(old)]) as store:
        for key in ("a.txt", "b.txt", "c.bin"):
            await store.put(BUCKET, key, TEXT, metadata={"m": "1"}, tags={"t": "2"})
    listed = [(Compression(), Scope.content_types("text/*")), Encryption(both)]
    async with backends.store(middleware=listed) as store:
        dry = await reencode(store, BUCKET, dry_run=True)
        assert (dry.changed, backends.count_writes()) == (3, 0)
        report = await reencode(store, BUCKET)
        assert (report.examined, report.changed, report.failed) == (3, 3, 0)
        info = await store.head(BUCKET, "a.txt")
        assert info.transforms == ("zstd", "aes256-gcm-hkdf")
        assert (info.metadata, info.tags) == ({"m": "1"}, {"t": "2"})
        writes = backends.count_writes()
        again = await reencode(store, BUCKET)
        assert (again.changed, again.unchanged) == (0, 3)
        assert backends.count_writes() == writes
    async with backends.store(
        middleware=[Encryption(Keyring({"new": NEW}, current="new"))]
    ) as store:
        assert await store.read(BUCKET, "a.txt") == TEXT


async def test_checkpoint_of_an_older_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "_PROGRESS_SECONDS", 0.0)
    backends, state = Backends(), tmp_path / "state"
    keys = {"1": OLD, "2": NEW, "3": bytes(32)}

    def encryption(current: str) -> list[Encryption]:
        return [Encryption(Keyring(keys, current=current))]

    async with backends.store(middleware=encryption("1")) as store:
        for number in range(20):
            await store.put(BUCKET, f"k{number:02}", TEXT)
    done = 0

    def stop(progress: JobProgress) -> None:
        nonlocal done
        done = progress.changed
        if done:
            raise InterruptedError

    async with backends.store(middleware=encryption("2")) as store:
        with pytest.raises(InterruptedError):
            await reencode(store, BUCKET, checkpoint=state, progress=stop, concurrency=1)
    assert 0 < done < 20
    async with backends.store(middleware=encryption("3")) as store:
        with pytest.raises(ConfigError, match="routes or middlewares"):
            await reencode(store, BUCKET, checkpoint=state)
    async with backends.store(middleware=encryption("2")) as store:
        report = await reencode(store, BUCKET, checkpoint=state)
        assert (report.examined, report.changed) == (20, 20)


async def test_object_with_an_unknown_key_stays_as_it_is() -> None:
    backends = Backends()
    async with backends.store(middleware=[Encryption(Keyring({"x": OLD}, current="x"))]) as store:
        await store.put(BUCKET, "lost", TEXT)
    async with backends.store(middleware=[Encryption(Keyring({"y": NEW}, current="y"))]) as store:
        await store.put(BUCKET, "good", TEXT)
        report = await reencode(store, BUCKET)
        assert report.errors["DecryptionError"].keys == ("lost",)
        assert report.unchanged == 1
        assert (await verify(store, BUCKET)).errors["DecryptionError"].keys == ("lost",)


async def test_misplaced_object_is_encoded_where_it_is() -> None:
    backends = Backends()
    async with backends.store() as store:
        await store.backend("third").put(BUCKET, "k.txt", TEXT)
    async with backends.store(middleware=[Compression()]) as store:
        assert (await reencode(store, BUCKET)).changed == 1
        assert (await store.head(BUCKET, "k.txt")).backend == "third"


async def test_without_middleware_nothing_is_written() -> None:
    backends = Backends()
    async with backends.store() as store:
        await store.put(BUCKET, "k", TEXT)
        writes = backends.count_writes()
        assert (await reencode(store, BUCKET)).unchanged == 1
        assert backends.count_writes() == writes


# -- verify -----------------------------------------------------------------------------------------


async def test_every_object_is_read_and_damage_is_found() -> None:
    fake = Fake()
    async with Trove(fake, pool=small_pool()) as store:
        await store.create_bucket(BUCKET)
        for key in ("a", "b", "c"):
            await store.put(BUCKET, key, TEXT)
        report = await verify(store, BUCKET)
        assert (report.examined, report.unchanged, report.bytes) == (3, 3, 3 * len(TEXT))
        fake.corrupt(BUCKET, "b", TEXT[:-1] + b"!")
        report = await verify(store, BUCKET)
        assert report.errors["IntegrityError"].keys == ("b",)
        assert (report.unchanged, report.failed) == (2, 1)


async def test_object_without_checksum_is_not_called_intact() -> None:
    class WithoutChecksums(WithoutEtags):
        def __init__(self) -> None:
            super().__init__(checksums=frozenset())
            self.change_info = lambda info: info

    fake = WithoutChecksums()
    async with Trove(fake, pool=small_pool()) as store:
        await store.create_bucket(BUCKET)
        await store.put(BUCKET, "k", TEXT)
        objects = fake._buckets[BUCKET].objects
        stored = objects["k"].info
        object.__setattr__(stored, "checksums", {})
        report = await verify(store, BUCKET)
        assert (report.unchanged, report.skipped, report.bytes) == (0, 1, len(TEXT))
        assert report.skips["unverifiable"].keys == ("k",)


async def test_comparison_finds_missing_and_different_objects() -> None:
    backends = Backends()
    async with backends.store(middleware=[(Compression(), Scope.backends("cold"))]) as store:
        for key in ("different", "missing", "same"):
            await store.put(BUCKET, key, TEXT)
        cold = store.backend("cold")
        await cold.put(BUCKET, "same", TEXT)
        await cold.put(BUCKET, "different", TEXT[:-1] + b"!")
        report = await verify(store, BUCKET, backend="default", against="cold")
        assert report.errors["ObjectNotFoundError"].keys == ("missing",)
        assert report.errors["IntegrityError"].keys == ("different",)
        assert (report.unchanged, report.bytes) == (1, 2 * len(TEXT))


async def test_bad_arguments_raise() -> None:
    async with Backends().store() as store:
        with pytest.raises(BackendNotFoundError):
            await verify(store, BUCKET, backend="nowhere")
        with pytest.raises(ConfigError, match="different"):
            await verify(store, BUCKET, backend="cold", against="cold")
