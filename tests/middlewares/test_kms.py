"""Data keys that AWS KMS wraps: against moto, and a fake server for states and failures."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.endpoint import AioEndpoint
from aiobotocore.session import get_session
from botocore import exceptions as sdk_exceptions
from botocore.loaders import create_loader

from tests.concurrency.steps import let_tasks_run
from tests.drivers import secret_canaries as canaries
from tests.middlewares.fake_kms import ACCOUNT, ARN, KEY, OTHER_ARN, FakeKms, KmsError, serving
from trove_async import Trove
from trove_async.drivers import MemoryDriver
from trove_async.errors import (
    BackendError,
    ClosedError,
    ConfigError,
    DecryptionError,
    PermissionDeniedError,
    TimedOutError,
    TroveError,
    UnauthenticatedError,
    UnavailableError,
)
from trove_async.middleware import Closing, ObjectContext
from trove_async.middlewares import Encryption, _kms_client, _kms_errors
from trove_async.middlewares import kms as kms_module
from trove_async.middlewares.keys import Keys
from trove_async.middlewares.kms import KmsKeys
from trove_async.models import Timeout
from trove_async.testing.servers import S3Server

CONTEXT = ObjectContext(bucket="data", key="a/b", backend="default")
BODY = b"plain text" * 100


@pytest.fixture(autouse=True)
def isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def no_pause_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(_endpoint: object, _seconds: float) -> None:
        await asyncio.sleep(0)

    # Earlier versions have no such method: there the pauses are real.
    monkeypatch.setattr(AioEndpoint, "_sleep", sleep, raising=False)


LOADER = create_loader()
"""The models of the SDK. Loading them for every client takes most of the time of a test."""


@pytest.fixture(autouse=True)
def shared_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.loaders.create_loader", lambda *_: LOADER)


@pytest.fixture(scope="module", autouse=True)
def small_collections() -> Iterator[None]:
    gc.freeze()  # otherwise every collection visits the objects of all other tests
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def sessions_are_closed() -> Iterator[None]:
    """Fail if a test leaves an aiohttp session open, which warns when it is collected."""
    yield
    gc.collect()


@pytest.fixture
async def kms() -> AsyncIterator[FakeKms]:
    async with serving(FakeKms()) as server:
        yield server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(kms_module, "monotonic", lambda: now[0])
    return now


def keys_at(url: str, key_id: str = "alias/objects", **options: Any) -> KmsKeys:
    settings: dict[str, Any] = {
        "endpoint_url": url,
        "region": None if str(key_id).startswith("arn:") else "us-east-1",
        "access_key_id": "AKIDEXAMPLE",
        "secret_access_key": canaries.SECRET_KEY,
        "session_token": canaries.SESSION_TOKEN,
    }
    return KmsKeys(key_id, **{**settings, **options})


def store_of(keys: Keys, driver: MemoryDriver | None = None) -> Trove:
    return Trove(driver or MemoryDriver(), middleware=[Encryption(keys)])


# -- moto ------------------------------------------------------------------------------------------


@asynccontextmanager
async def moto_admin(server: S3Server) -> AsyncIterator[Any]:
    session = get_session()
    async with session.create_client(
        "kms",
        region_name=server.region,
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
    ) as client:
        yield client


async def new_moto_key(server: S3Server) -> str:
    async with moto_admin(server) as admin:
        return str((await admin.create_key())["KeyMetadata"]["Arn"])


async def test_objects_in_moto_are_encrypted_read_and_encrypted_anew_for_a_moved_alias(
    moto_server: S3Server,
) -> None:
    old, new = await new_moto_key(moto_server), await new_moto_key(moto_server)
    async with moto_admin(moto_server) as admin:
        await admin.create_alias(AliasName="alias/test", TargetKeyId=old)
    driver, keys = MemoryDriver(), keys_at(moto_server.endpoint_url, "alias/test")
    async with store_of(keys, driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", BODY)
        assert await store.read("data", "key") == BODY
        await keys.aclose()  # drops the data key
        assert await store.read("data", "key", range=(5, 50)) == BODY[5:50]
    async with Trove(driver) as plain:
        [record] = json.loads((await plain.head("data", "key")).records or "")
        assert old in str(record)
        with pytest.raises(DecryptionError, match="no keys"):
            await plain.read("data", "key")
    async with moto_admin(moto_server) as admin:
        await admin.update_alias(AliasName="alias/test", TargetKeyId=new)
    async with store_of(keys, driver) as store:
        assert await store.read("data", "key") == BODY  # with the old key
        info = await store.copy("data", "key", "data", "key")
        assert new in (info.records or "")
        assert await store.read("data", "key") == BODY


async def test_moto_refuses_a_different_context_and_a_forged_blob(moto_server: S3Server) -> None:
    arn = await new_moto_key(moto_server)
    written = keys_at(moto_server.endpoint_url, arn, encryption_context={"app": "a"})
    read = keys_at(moto_server.endpoint_url, arn, encryption_context={"app": "b"})
    async with written, read:
        key = await written.for_write(CONTEXT)
        assert key.wrapped is not None
        forged_id = (await read.for_write(CONTEXT)).id  # with the digest of the other context
        for blob in (key.wrapped, key.wrapped[:-1], b"x"):
            with pytest.raises(
                DecryptionError, match="altered, or the encryption context"
            ) as caught:
                await read.for_read(CONTEXT, forged_id, blob)
            assert arn in str(caught.value)
        await written.aclose()
        again = await written.for_read(CONTEXT, key.id, key.wrapped)
        assert (again.id, again.secret, again.wrapped) == (key.id, key.secret, key.wrapped)


FORKING_PROGRAM = """
import asyncio, os, sys
from trove_async.middleware import ObjectContext
from trove_async.middlewares.kms import KmsKeys

context = ObjectContext(bucket="data", key="a", backend="memory")
keys = KmsKeys(
    sys.argv[1], endpoint_url=sys.argv[2], access_key_id="a", secret_access_key="b", max_objects=100
)

async def use():
    async with keys:
        before = await keys.for_write(context)
        child = os.fork()
        if child == 0:
            async def use_in_child():
                async with keys:
                    assert (await keys.for_write(context)).secret != before.secret
                    read = await keys.for_read(context, before.id, before.wrapped)
                    assert read.secret == before.secret

            try:
                asyncio.events._set_running_loop(None)
                asyncio.new_event_loop().run_until_complete(use_in_child())
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(2)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (await keys.for_write(context)) is before
        # The parent's connection still works.
        assert (await keys.rewrap(context, before.id, before.wrapped))[0] == before.id

asyncio.run(use())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
async def test_a_forked_process_uses_its_own_connections_and_data_keys(
    moto_server: S3Server,
) -> None:
    arn = await new_moto_key(moto_server)
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", FORKING_PROGRAM, arn, moto_server.endpoint_url],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (result.returncode, result.stderr) == (0, "")


async def test_state_of_the_parent_process_is_neither_used_nor_closed(
    kms: FakeKms, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_at(kms.url)
    before = await keys.for_write(CONTEXT)
    parent = os.getpid()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: parent + 1)
        await keys.aclose()  # of the parent
        assert len(kms.writers) == 1
        assert (await keys.for_write(CONTEXT)).secret != before.secret
        assert len(kms.writers) == 2
        await keys.aclose()
    [states] = keys._inherited
    for state in states.values():
        await state.aclose()


# -- the number of requests ------------------------------------------------------------------------


async def test_a_data_key_is_used_for_max_objects(kms: FakeKms) -> None:
    async with store_of(keys_at(kms.url, max_objects=10)) as store:
        await store.create_bucket("data")
        for number in range(25):
            await store.put("data", f"{number}", BODY)
        assert kms.names() == ["GenerateDataKey"] * 3
        for number in range(25):
            assert await store.read("data", f"{number}") == BODY
        assert kms.names() == []


async def test_a_data_key_is_used_for_max_age(kms: FakeKms, clock: list[float]) -> None:
    async with keys_at(kms.url, max_age=60) as keys:
        for now in (1000.0, 1059.9, 1060.0):
            clock[0] = now
            await keys.for_write(CONTEXT)
        clock[0] = 1119.0
        key = await keys.for_write(CONTEXT)
        assert kms.names() == ["GenerateDataKey"] * 2
        await keys.for_read(CONTEXT, key.id, key.wrapped)
        assert kms.names() == []
        for _ in range(2):
            clock[0] += 59
            await keys.for_read(CONTEXT, key.id, key.wrapped)
        assert kms.names() == ["Decrypt"]


async def test_a_step_of_the_clock_changes_nothing(
    kms: FakeKms, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keys_at(kms.url, max_age=60) as keys:
        await keys.for_write(CONTEXT)
        for step in (-1e6, 1e6):
            monkeypatch.setattr("time.time", lambda step=step: 1.8e9 + step)
            await keys.for_write(CONTEXT)
        assert kms.names() == ["GenerateDataKey"]


async def test_a_data_key_that_arrives_after_max_age_is_used(
    kms: FakeKms, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late() -> float:
        clock[0] += 1
        return clock[0]

    monkeypatch.setattr(kms_module, "monotonic", late)
    async with keys_at(kms.url, max_age=0.5) as keys:
        await keys.for_write(CONTEXT)
        assert kms.names() == ["GenerateDataKey"]


@pytest.mark.uvloop
async def test_hundred_concurrent_puts_share_one_request(kms: FakeKms) -> None:
    async with store_of(keys_at(kms.url)) as store:
        await store.create_bucket("data")
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(store.put("data", f"{number}", BODY))
        assert kms.names() == ["GenerateDataKey"]


async def test_hundred_concurrent_writes_of_ten_objects_a_key_send_ten_requests(
    kms: FakeKms,
) -> None:
    async with keys_at(kms.url, max_objects=10) as keys:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(keys.for_write(CONTEXT)) for _ in range(100)]
        secrets = [task.result().secret for task in tasks]
        assert {secrets.count(secret) for secret in secrets} == {10}
        assert kms.names() == ["GenerateDataKey"] * 10


async def test_concurrent_reads_share_one_request_a_data_key(kms: FakeKms) -> None:
    async with keys_at(kms.url, max_objects=1) as keys:
        written = [await keys.for_write(CONTEXT) for _ in range(2)]
        await keys.aclose()
        kms.names()
        async with asyncio.TaskGroup() as group:
            for key in written * 20:
                group.create_task(keys.for_read(CONTEXT, key.id, key.wrapped))
        assert kms.names() == ["Decrypt"] * 2


async def test_only_the_most_recently_used_data_keys_are_kept(kms: FakeKms) -> None:
    async with keys_at(kms.url, max_objects=1, max_cached=2) as keys:
        first, second, third = [await keys.for_write(CONTEXT) for _ in range(3)]
        kms.names()
        for key in (second, third, first, third, second):
            assert (await keys.for_read(CONTEXT, key.id, key.wrapped)).secret == key.secret
        assert kms.names() == ["Decrypt"] * 2  # the first, and the second after its eviction


async def test_each_context_has_its_own_data_key(kms: FakeKms) -> None:
    keys = keys_at(kms.url, encryption_context=lambda context: {"bucket": context.bucket})
    driver = MemoryDriver()
    async with store_of(keys, driver) as store:
        for bucket in ("a", "b"):
            await store.create_bucket(bucket)
            for key in ("1", "2"):
                await store.put(bucket, key, BODY)
        contexts = [request["EncryptionContext"] for _, request in kms.requests]
        assert contexts == [{"bucket": "a"}, {"bucket": "b"}]
        # A copy to a different context gets a key that can be decrypted there.
        await store.copy("a", "1", "b", "copy")
        await store.copy("a", "1", "a", "copy")
    kms.names()
    async with store_of(keys, driver) as store:
        assert await store.read("b", "copy") == BODY
        assert await store.read("a", "copy") == BODY
        assert [request["EncryptionContext"] for _, request in kms.requests] == [
            {"bucket": "b"},
            {"bucket": "a"},
        ]


# -- cancellation and closing ----------------------------------------------------------------------


async def test_cancel_of_the_first_caller_does_not_fail_the_others(kms: FakeKms) -> None:
    kms.gate.clear()
    async with keys_at(kms.url) as keys:
        loop = asyncio.get_running_loop()
        first = loop.create_task(keys.for_write(CONTEXT))
        await kms.arrived.wait()
        others = [loop.create_task(keys.for_write(CONTEXT)) for _ in range(3)]
        await let_tasks_run()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        kms.gate.set()
        assert len({(await other).secret for other in others}) == 1
        assert kms.names() == ["GenerateDataKey"]


async def test_request_whose_callers_were_cancelled_is_used_by_later_ones(kms: FakeKms) -> None:
    kms.gate.clear()
    async with keys_at(kms.url) as keys:
        only = asyncio.get_running_loop().create_task(keys.for_write(CONTEXT))
        await kms.arrived.wait()
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        kms.gate.set()
        await keys.for_write(CONTEXT)
        assert kms.names() == ["GenerateDataKey"]


async def test_the_store_closes_the_connections(kms: FakeKms) -> None:
    async with store_of(keys_at(kms.url)) as store:
        await store.create_bucket("data")
        await store.put("data", "key", BODY)
        assert len(kms.writers) == 1
    while kms.writers:
        await asyncio.sleep(0)


@pytest.mark.uvloop
async def test_closed_keys_connect_again_and_have_forgotten_data_keys(kms: FakeKms) -> None:
    keys = keys_at(kms.url)
    assert isinstance(keys, Keys)
    assert isinstance(keys, Closing)
    async with keys:
        await keys.aclose()  # nothing to close yet
        first = await keys.for_write(CONTEXT)
        await keys.aclose()
        await keys.aclose()
        assert (await keys.for_write(CONTEXT)).secret != first.secret
        assert kms.names() == ["GenerateDataKey"] * 2


async def test_close_of_one_store_does_not_fail_requests_of_another(kms: FakeKms) -> None:
    keys = keys_at(kms.url)
    async with store_of(keys) as one, store_of(keys) as two:
        await two.create_bucket("data")
        kms.gate.clear()
        put = asyncio.get_running_loop().create_task(two.put("data", "key", BODY))
        await kms.arrived.wait()
        closing = asyncio.get_running_loop().create_task(one.aclose())
        await let_tasks_run()
        assert not closing.done()
        kms.gate.set()
        await closing
        await put
        assert await two.read("data", "key") == BODY


async def test_close_cancels_requests_that_do_not_end(
    kms: FakeKms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kms_module, "_CLOSE_SECONDS", 0.01)
    kms.gate.clear()
    keys = keys_at(kms.url)
    waiting = asyncio.get_running_loop().create_task(keys.for_write(CONTEXT))
    await kms.arrived.wait()
    await keys.aclose()
    with pytest.raises(ClosedError):
        await waiting


async def test_cancelled_close_closes_nevertheless(kms: FakeKms) -> None:
    kms.gate.clear()
    keys = keys_at(kms.url)
    waiting = asyncio.get_running_loop().create_task(keys.for_write(CONTEXT))
    await kms.arrived.wait()
    closing = asyncio.get_running_loop().create_task(keys.aclose())
    await let_tasks_run()
    closing.cancel()
    await let_tasks_run()
    kms.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await waiting


def test_each_event_loop_has_its_own_connections(moto_server: S3Server) -> None:
    arn = asyncio.run(new_moto_key(moto_server))
    keys = keys_at(moto_server.endpoint_url, arn)
    secrets: list[bytes] = []
    together = threading.Barrier(2, timeout=30)

    async def use() -> None:
        async with keys:
            key = await keys.for_write(CONTEXT)
            secrets.append(key.secret)
            await asyncio.to_thread(together.wait)
            read = await keys.for_read(CONTEXT, key.id, key.wrapped)
            assert read.secret == key.secret

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(secrets)) == 2
    assert keys._states == {}


def test_state_of_a_closed_event_loop_is_dropped() -> None:
    keys = keys_at("http://127.0.0.1:9")

    async def start() -> None:
        keys._state()

    for _ in range(3):
        asyncio.run(start())
    assert len(keys._states) == 1


# -- forged records --------------------------------------------------------------------------------


FORGED_IDS = [
    f"arn:aws:kms:us-east-1:999999999999:key/{KEY}",
    f"arn:aws-cn:kms:us-east-1:{ACCOUNT}:key/{KEY}",
    f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/{KEY}",
    f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/objects",
    f"arn:aws:s3:us-east-1:{ACCOUNT}:key/{KEY}",
    f"{ARN}#0123456789abcdef",
    f"{ARN}/../other",
    KEY,
    "alias/objects",
    "2026-11",
]


@pytest.mark.parametrize("key_id", [ARN, f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/objects"])
async def test_nothing_is_sent_for_a_key_elsewhere(kms: FakeKms, key_id: str) -> None:
    async with keys_at(kms.url, key_id) as keys:
        written = await keys.for_write(CONTEXT)
        assert written.id == ARN
        kms.names()
        for forged in FORGED_IDS:
            for call in (keys.for_read, keys.rewrap):
                with pytest.raises(DecryptionError) as caught:
                    await call(CONTEXT, forged, written.wrapped or b"")
                assert repr(forged) in caught.value.message
        assert kms.names() == []


@pytest.mark.parametrize("wrapped", [None, b"", b"x" * 6145])
async def test_nothing_is_sent_for_a_record_without_a_wrapped_key(
    kms: FakeKms, wrapped: bytes | None
) -> None:
    async with keys_at(kms.url) as keys:
        with pytest.raises(DecryptionError):
            await keys.for_read(CONTEXT, ARN, wrapped)
    assert kms.names() == []


async def test_an_unqualified_key_is_looked_up_in_the_own_account(kms: FakeKms) -> None:
    async with keys_at(kms.url) as keys:
        written = await keys.for_write(CONTEXT)
        await keys.aclose()
        kms.requests.clear()
        forged = f"arn:aws:kms:us-east-1:999999999999:key/{KEY}"
        with pytest.raises(DecryptionError, match="the record was altered"):
            await keys.for_read(CONTEXT, forged, written.wrapped)
        assert [request["KeyId"] for _, request in kms.requests] == [KEY]
        with pytest.raises(DecryptionError, match="does not exist"):
            await keys.for_read(CONTEXT, f"{ARN[:-1]}f", written.wrapped)
        with pytest.raises(DecryptionError, match="did not encrypt the data key"):
            await keys.for_read(CONTEXT, OTHER_ARN, written.wrapped)
        assert (await keys.for_read(CONTEXT, ARN, written.wrapped)).secret == written.secret


async def test_a_replica_of_a_multi_region_key_is_used(kms: FakeKms) -> None:
    kms.states["mrk-1"] = ""
    here = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/mrk-1"
    there = here.replace("us-east-1", "eu-west-1")
    for key_id in (here, "mrk-1"):
        async with keys_at(kms.url, key_id) as keys:
            written = await keys.for_write(CONTEXT)
            await keys.aclose()
            kms.requests.clear()
            read = await keys.for_read(CONTEXT, there, written.wrapped)
            assert (read.id, read.secret) == (there, written.secret)
            assert [request["KeyId"] for _, request in kms.requests] == [key_id]


async def test_a_wrapped_key_of_a_different_size_is_refused(kms: FakeKms) -> None:
    blob = kms.wrap(KEY, {}, b"password")
    async with keys_at(kms.url) as keys:
        with pytest.raises(DecryptionError, match="not a key of 32 bytes"):
            await keys.for_read(CONTEXT, ARN, blob)


async def test_the_second_encryption_of_a_store_reads_objects_of_its_account(kms: FakeKms) -> None:
    async with serving(FakeKms()) as abroad:
        driver = MemoryDriver()
        foreign = keys_at(abroad.url, ARN)
        async with store_of(foreign, driver) as store:
            await store.create_bucket("data")
            await store.put("data", "key", BODY)
        own = keys_at(kms.url, f"arn:aws:kms:us-east-1:999999999999:key/{KEY}")
        middleware = [Encryption(own), Encryption(foreign)]
        async with Trove(driver, middleware=middleware) as store:
            assert await store.read("data", "key") == BODY
        assert kms.names() == []


# -- rotation --------------------------------------------------------------------------------------


async def test_rewrap_changes_the_wrapping_key_and_keeps_the_data_key(kms: FakeKms) -> None:
    async with keys_at(kms.url, encryption_context={"app": "a"}) as keys:
        written = await keys.for_write(CONTEXT)
        assert written.wrapped is not None
        kms.aliases["alias/objects"] = "other"
        key_id, wrapped = await keys.rewrap(CONTEXT, written.id, written.wrapped)
        assert key_id == written.id.replace(ARN, OTHER_ARN)
        assert wrapped != written.wrapped
        kms.states[KEY] = "DisabledException"
        assert (await keys.for_read(CONTEXT, key_id, wrapped)).secret == written.secret
        assert kms.names() == ["GenerateDataKey", "ReEncrypt", "Decrypt"]
        with pytest.raises(DecryptionError, match="is disabled"):
            await keys.rewrap(CONTEXT, written.id, written.wrapped)
        with pytest.raises(DecryptionError, match="6145 bytes"):
            await keys.rewrap(CONTEXT, written.id, b"x" * 6145)


# -- errors ----------------------------------------------------------------------------------------


async def test_key_that_cannot_be_used_is_named(kms: FakeKms) -> None:
    async with keys_at(kms.url) as keys:
        written = await keys.for_write(CONTEXT)
    async with keys_at(kms.url) as keys, store_of(keys) as store:
        await store.create_bucket("data")
        for code, advice in _kms_errors.KEY_CODES.items():
            kms.states[KEY] = code
            with pytest.raises(ConfigError) as refused:
                await store.put("data", "key", BODY)
            assert f"{advice} (AWS KMS, key 'alias/objects': 400 {code}" in refused.value.message
            assert not await store.exists("data", "key")
            with pytest.raises(DecryptionError) as lost:
                await keys.for_read(CONTEXT, ARN, written.wrapped)
            assert f"{advice} (AWS KMS, key '{KEY}': 400 {code}" in lost.value.message


async def test_disabled_key_works_where_it_is_cached(kms: FakeKms, clock: list[float]) -> None:
    async with store_of(keys_at(kms.url, max_age=60)) as store:
        await store.create_bucket("data")
        await store.put("data", "key", BODY)
        kms.states[KEY] = "DisabledException"
        clock[0] += 59
        await store.put("data", "other", BODY)
        assert await store.read("data", "key") == BODY
        clock[0] += 1
        with pytest.raises(ConfigError, match="is disabled"):
            await store.put("data", "other", BODY)
        with pytest.raises(DecryptionError, match="is disabled"):
            await store.read("data", "key")


async def test_codes_of_the_service_are_translated(kms: FakeKms) -> None:
    async with keys_at(kms.url) as keys:
        for code, mapping in _kms_errors.CODES.items():
            kms.faults = [KmsError(code, "the reason")] * 3
            with pytest.raises(mapping.kind) as caught:
                await keys.for_write(CONTEXT)
            assert mapping.advice in caught.value.message
            assert f"key 'alias/objects': 400 {code}: the reason" in caught.value.message
            assert isinstance(caught.value.__cause__, sdk_exceptions.ClientError)
            assert caught.value.__cause__.__traceback__ is caught.value.__context__ is None
            kms.faults.clear()
        await keys.for_write(CONTEXT)  # failures are not kept


async def test_status_decides_if_the_code_is_unknown(kms: FakeKms) -> None:
    kinds = {
        400: BackendError,
        401: UnauthenticatedError,
        403: PermissionDeniedError,
        408: TimedOutError,
        429: UnavailableError,
        500: UnavailableError,
        503: UnavailableError,
    }
    async with keys_at(kms.url) as keys:
        for status, kind in kinds.items():
            kms.faults = [KmsError("NewException", status=status)] * 3
            with pytest.raises(TroveError) as caught:
                await keys.for_write(CONTEXT)
            assert type(caught.value) is kind
            kms.faults.clear()


async def test_failure_of_a_shared_request_is_located_for_each_caller(kms: FakeKms) -> None:
    kms.gate.clear()
    kms.faults = [KmsError("AccessDeniedException")]
    async with store_of(keys_at(kms.url)) as store:
        await store.create_bucket("data")
        loop = asyncio.get_running_loop()
        puts = [loop.create_task(store.put("data", f"{n}", BODY)) for n in range(3)]
        await kms.arrived.wait()
        await let_tasks_run()
        kms.gate.set()
        errors = (await asyncio.wait(puts)) and [put.exception() for put in puts]
        assert [type(error) for error in errors] == [PermissionDeniedError] * 3
        assert [error.key for error in errors if isinstance(error, TroveError)] == ["0", "1", "2"]
    assert kms.names() == ["GenerateDataKey"]


async def test_throttled_requests_are_repeated(kms: FakeKms) -> None:
    kms.faults = [KmsError("ThrottlingException"), KmsError("InternalFailure", status=500)]
    async with keys_at(kms.url) as keys:
        await keys.for_write(CONTEXT)
    assert kms.names() == ["GenerateDataKey"] * 3


async def test_service_that_is_down_is_unavailable(unused_tcp_port: int) -> None:
    async with store_of(keys_at(f"http://127.0.0.1:{unused_tcp_port}")) as store:
        await store.create_bucket("data")
        with pytest.raises(UnavailableError, match="connection failed: check the region") as caught:
            await store.put("data", "key", BODY)
        assert "alias/objects" in caught.value.message
        assert not isinstance(caught.value, TimedOutError)


@pytest.mark.parametrize("limits", [{"first_byte": 0.05}, {"total": 0.05}])
async def test_service_that_does_not_respond_times_out(
    kms: FakeKms, limits: dict[str, float]
) -> None:
    kms.gate.clear()
    async with keys_at(kms.url, timeout=Timeout(**limits)) as keys:
        with pytest.raises(TimedOutError):
            await keys.for_write(CONTEXT)


MALFORMED: dict[str, str | bytes] = {
    "nothing": "",
    "no JSON": "<html>",
    "a list": "[1]",
    "a str": '"text"',
    "no key": json.dumps({"KeyId": ARN, "CiphertextBlob": "AAAA"}),
    "a short key": json.dumps({"KeyId": ARN, "CiphertextBlob": "AAAA", "Plaintext": "AAAA"}),
    "no base64": json.dumps({"KeyId": ARN, "CiphertextBlob": "AAAA", "Plaintext": "A"}),
    "no ARN": json.dumps({"CiphertextBlob": "AAAA", "Plaintext": b64encode(bytes(32)).decode()}),
    "no blob": json.dumps({"KeyId": ARN, "Plaintext": b64encode(bytes(32)).decode()}),
    "a long blob": json.dumps(
        {
            "KeyId": ARN,
            "CiphertextBlob": b64encode(bytes(6145)).decode(),
            "Plaintext": b64encode(bytes(32)).decode(),
        }
    ),
    **{
        f"the ARN {arn}": json.dumps(
            {
                "KeyId": arn,
                "CiphertextBlob": "AAAA",
                "Plaintext": b64encode(bytes(32)).decode(),
            }
        )
        for arn in (
            "arn:a b",
            "arn:aws:kms:eu-west-1:123:key/k",
            "arn:aws:kms:eu-west-1:123456789012:alias/k",
            "arn:minio:kms:::key/k",
        )
    },
    "invalid UTF-8": b"\xff",
    "endless": " " * (70 << 10),
}


async def test_malformed_response_is_unavailable(kms: FakeKms) -> None:
    async with keys_at(kms.url) as keys:
        for name, body in MALFORMED.items():
            kms.faults = [body, body, body]
            message = "more than 65536 bytes" if name == "endless" else "malformed"
            with pytest.raises(UnavailableError, match=message):
                await keys.for_write(CONTEXT)
            kms.faults.clear()


async def test_redirects_are_not_followed(kms: FakeKms) -> None:
    kms.faults = [KmsError("Moved", status=307)] * 3
    async with keys_at(kms.url) as keys:
        with pytest.raises(UnavailableError, match="redirects are not followed"):
            await keys.for_write(CONTEXT)


async def test_missing_credentials_are_unauthenticated(kms: FakeKms) -> None:
    async with KmsKeys("alias/objects", region="us-east-1", endpoint_url=kms.url) as keys:
        with pytest.raises(UnauthenticatedError, match="no credentials found"):
            await keys.for_write(CONTEXT)
    assert kms.names() == []


async def test_environment_supplies_credentials_region_and_endpoint(
    kms: FakeKms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    keys = KmsKeys("alias/objects")
    with pytest.raises(ConfigError, match="no region is configured"):
        await keys.for_write(CONTEXT)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for url, message in {
        "http://kms.example": "requires an https endpoint",
        "http://kms.example/path": "an endpoint must be",
        "nonsense": "endpoint_url in the SDK's configuration is invalid",
    }.items():
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
        with pytest.raises(ConfigError, match=message):
            await keys.for_write(CONTEXT)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", kms.url)
    assert (await keys.for_write(CONTEXT)).id == ARN
    await keys.aclose()
    keys = KmsKeys("alias/objects", profile="missing")
    with pytest.raises(ConfigError, match="missing"):
        await keys.for_write(CONTEXT)
    await keys.aclose()


def test_exceptions_of_the_sdk_are_translated() -> None:
    for sdk_error, kind, message in _kms_client._TRANSLATIONS:
        assert issubclass(sdk_error, sdk_exceptions.BotoCoreError)
        error = sdk_error(endpoint_url="http://host", error="the cause", report="the report")  # type: ignore[call-arg]  # the SDK has no types
        _, translated = _kms_client._translated(error, "alias/x")
        assert type(translated) is kind
        assert message in translated.message
        assert "'alias/x'" in translated.message
    cause, translated = _kms_client._translated(
        sdk_exceptions.DataNotFoundError(data_path="x"), "k"
    )
    assert (cause, type(translated)) == (None, BackendError)


# -- secrets ---------------------------------------------------------------------------------------


async def test_no_secret_is_shown_if_a_response_quotes_it(kms: FakeKms) -> None:
    kms.quotes = lambda headers: (
        f"{canaries.SESSION_TOKEN[:40]} {canaries.SECRET_KEY} {canaries.SESSION_TOKEN} {headers}"
    )
    async with store_of(keys_at(kms.url)) as store:
        await store.create_bucket("data")
        for code in (
            "InvalidSignatureException",
            "AccessDeniedException",
            "NotFoundException",
            "?",
        ):
            kms.faults = [KmsError(code)]
            with pytest.raises(TroveError) as caught:
                await store.put("data", "key", BODY)
            assert "redacted" in caught.value.message
            assert canaries.leaks_of(caught.value) == []


@pytest.mark.parametrize("case", ["refused", "hangs", "malformed", "too large", "no ARN", "record"])
async def test_no_secret_is_shown_by_errors(kms: FakeKms, case: str, unused_tcp_port: int) -> None:
    kms.secret = canaries.CUSTOMER_KEY.encode()
    key = {"Plaintext": canaries.ENCODED_CUSTOMER_KEY, "CiphertextBlob": "AAAA"}
    url, timeout = kms.url, Timeout()
    match case:
        case "refused":
            url = f"http://127.0.0.1:{unused_tcp_port}"
        case "hangs":
            kms.gate.clear()
            timeout = Timeout(total=0.05)
        case "malformed":
            kms.faults = [json.dumps({**key, "KeyId": ARN})[:-1]]
        case "too large":
            kms.faults = [json.dumps({**key, "KeyId": ARN}) + " " * (70 << 10)] * 3
        case "no ARN":
            kms.faults = [json.dumps(key)]
    async with keys_at(url, timeout=timeout) as keys:
        with pytest.raises(TroveError) as caught:
            if case == "record":
                written = await keys.for_write(CONTEXT)
                await keys.aclose()
                forged = f"arn:aws:kms:us-east-1:999999999999:key/{KEY}"
                wrapped = written.wrapped
                del written
                await keys.for_read(CONTEXT, forged, wrapped)
            await keys.for_write(CONTEXT)
        assert canaries.leaks_of(caught.value) == []


async def test_logs_do_not_contain_data_keys(kms: FakeKms) -> None:
    kms.secret = canaries.CUSTOMER_KEY.encode()
    output = io.StringIO()
    handler, root = logging.StreamHandler(output), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(1)
    try:
        async with keys_at(kms.url) as keys:
            written = await keys.for_write(CONTEXT)
            await keys.aclose()
            read = await keys.for_read(CONTEXT, written.id, written.wrapped)
            assert read.secret == written.secret == kms.secret
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    log = output.getvalue()
    assert "Response body:\n<_HiddenBody>" in log
    assert canaries.CUSTOMER_KEY not in log
    assert canaries.ENCODED_CUSTOMER_KEY not in log
    assert canaries.SECRET_KEY not in log


async def test_keys_show_no_secret_and_cannot_be_pickled(kms: FakeKms) -> None:
    async with keys_at(kms.url) as keys:
        key = await keys.for_write(CONTEXT)
        assert repr(keys) == "KmsKeys('alias/objects')"
        assert repr(key) == f"DataKey(id='{ARN}')"
        assert canaries.canaries_in(repr(vars(keys))) == []
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(keys)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"key_id": "no such form"}, ConfigError, "key_id must be"),
        ({"key_id": "arn:aws:s3:::bucket"}, ConfigError, "key_id must be"),
        ({"key_id": 5}, TypeError, "key_id must be a str"),
        ({"key_id": ARN, "region": "eu-west-1"}, ConfigError, "key_id is in 'us-east-1'"),
        ({"region": "not a region"}, ConfigError, "region must be"),
        ({"endpoint_url": "http://kms.example"}, ConfigError, "must be https"),
        ({"endpoint_url": "kms.example"}, ConfigError, "an endpoint must be"),
        ({"access_key_id": None}, ConfigError, "access_key_id"),
        ({"trust_env": "no"}, TypeError, "trust_env must be a bool"),
        ({"max_objects": 0}, ConfigError, "max_objects must be at least 1"),
        ({"max_objects": 2**32 + 1}, ConfigError, "max_objects must be at most"),
        ({"max_cached": 0}, ConfigError, "max_cached"),
        ({"max_age": 0}, ConfigError, "max_age must be more than 0"),
        ({"timeout": 5}, TypeError, "timeout must be a Timeout"),
        ({"encryption_context": "text"}, TypeError, "mapping of str to str, got str"),
        ({"encryption_context": {"a": 1}}, TypeError, "mapping of str to str, got int"),
    ],
)
def test_arguments_are_checked(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        keys_at("http://localhost:1", **{"key_id": "alias/objects", **options})
    assert canaries.leaks_of(caught.value) == []


async def test_context_of_a_function_is_checked() -> None:
    keys = keys_at("http://localhost:1", encryption_context=lambda _: {"a": None})
    with pytest.raises(TypeError, match="mapping of str to str, got NoneType"):
        await keys.for_write(CONTEXT)


WITHOUT_SDK = """
import sys
sys.modules["aiobotocore"] = None
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "aiobotocore" else find_spec(name, *rest)
try:
    import trove_async.middlewares.kms
except ImportError as error:
    assert "pip install 'trove-async[s3]'" in str(error), error
else:
    sys.exit("imported")
"""

LAZY = """
import sys
from trove_async.middlewares.kms import KmsKeys
KmsKeys("alias/x")
assert "botocore.session" not in sys.modules
"""


@pytest.mark.parametrize("program", [WITHOUT_SDK, LAZY])
def test_the_sdk_is_optional_and_imported_late(program: str) -> None:
    result = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (result.returncode, result.stderr) == (0, "")
