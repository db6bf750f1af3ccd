"""Cancels at each point of an operation: no resource leaks, and no object is damaged."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.drivers.s3.proxied_store import boto3_client, proxied_store
from tests.fakes import assert_idle
from tests.http_faults import Response, Stall
from trove_async._concurrency import OwnedTask, task_group
from trove_async._resilience import upload as upload_module
from trove_async.errors import ClosedError
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from tests.drivers.s3.proxied_store import ProxiedStore
    from trove_async.testing.servers import S3Server

OLD = b"old"
SMALL = hashlib.sha256(b"small").digest() * 2048 * 64  # 4 MiB: more than socket buffers hold
LARGE = SMALL * 3  # three parts


@pytest.fixture(scope="module")
def client(seaweed: S3Server) -> Any:
    return boto3_client(seaweed)


@pytest_asyncio.fixture
async def proxied(seaweed: S3Server, client: Any) -> AsyncIterator[ProxiedStore]:
    async with proxied_store(seaweed, client, max_connections=4) as proxied:
        await proxied.put_directly("key", OLD)
        await proxied.put_directly("source", LARGE)
        yield proxied


async def cancel_at_stall(
    proxied: ProxiedStore,
    stall: Stall,
    operation: Coroutine[Any, Any, object],
    *,
    release: bool = False,
) -> None:
    """Start an operation, cancel it at a stall, and assert that it leaves nothing behind.

    If the stall leaves part of a request unread, the proxy cannot see that the client disconnects.
    `release` ends the stall after the cancel, so that the proxy reads the rest and sees it.
    """
    task = OwnedTask(operation)
    await stall.reached.wait()
    assert not task.done
    await task.aclose()
    if release:
        stall.release()
    await assert_nothing_left(proxied)


async def assert_nothing_left(proxied: ProxiedStore) -> None:
    await proxied.proxy.wait_until_idle()
    assert_idle(proxied.store)
    assert await proxied.unfinished_uploads() == []
    # All connections are still usable.
    async with task_group() as group:
        for _ in range(8):
            group.start_soon(proxied.store.read, proxied.bucket, "key")


@pytest.mark.parametrize(
    ("point", "byte"),
    [
        ("request head", 0),
        ("request body", 0),
        ("request body", MiB),
    ],
)
async def test_put_cancelled_before_its_last_byte_leaves_the_old_object(
    proxied: ProxiedStore, point: Any, byte: int
) -> None:
    stall = proxied.proxy.arm(Stall(point, byte), method="PUT")
    await cancel_at_stall(
        proxied, stall, proxied.store.put(proxied.bucket, "key", SMALL), release=True
    )
    assert await proxied.stored_body("key") == OLD
    assert proxied.operation_counts["PutObject"] == 1


async def test_put_cancelled_after_its_last_byte_stores_the_new_object(
    proxied: ProxiedStore,
) -> None:
    stall = proxied.proxy.arm(Stall("response head"), method="PUT")
    await cancel_at_stall(proxied, stall, proxied.store.put(proxied.bucket, "key", SMALL))
    assert await proxied.stored_body("key") == SMALL
    assert proxied.operation_counts["PutObject"] == 1


@pytest.mark.parametrize(
    ("method", "target", "point", "byte"),
    [
        ("POST", "*uploads*", "request head", 0),
        ("PUT", "*partNumber=1*", "request head", 0),
        ("PUT", "*partNumber=2*", "request body", MiB),
        ("PUT", "*partNumber=3*", "response head", 0),
    ],
    ids=["creating the upload", "before a part", "in a part", "after a part"],
)
async def test_large_put_cancelled_before_its_completion_leaves_the_old_object(
    proxied: ProxiedStore, method: str, target: str, point: Any, byte: int
) -> None:
    stall = proxied.proxy.arm(Stall(point, byte), method=method, target=target)
    release = method == "PUT" and point != "response head"
    await cancel_at_stall(
        proxied, stall, proxied.store.put(proxied.bucket, "key", LARGE), release=release
    )
    assert await proxied.stored_body("key") == OLD
    assert proxied.operation_counts["CompleteMultipartUpload"] == 0


@pytest.mark.parametrize("point", ["request head", "response head"])
async def test_large_put_cancelled_in_its_completion_stores_the_object(
    proxied: ProxiedStore, point: Any
) -> None:
    stall = proxied.proxy.arm(Stall(point), method="POST", target="*uploadId*")
    task = OwnedTask(proxied.store.put(proxied.bucket, "key", LARGE))
    await stall.reached.wait()
    async with task_group() as group:
        group.start_soon(task.aclose)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done
        stall.release()
    await assert_nothing_left(proxied)
    assert await proxied.stored_body("key") == LARGE
    assert proxied.operation_counts["AbortMultipartUpload"] == 0


async def test_large_put_cancelled_in_a_completion_without_response_leaves_the_upload(
    proxied: ProxiedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "COMMIT_SECONDS", 0.1)
    stall = proxied.proxy.arm(Stall("request head"), method="POST", target="*uploadId*")
    task = OwnedTask(proxied.store.put(proxied.bucket, "key", LARGE))
    await stall.reached.wait()
    await task.aclose()
    await proxied.proxy.wait_until_idle()
    # An abort could destroy the completed object.
    assert proxied.operation_counts["AbortMultipartUpload"] == 0
    assert await proxied.driver.gc_uploads(proxied.bucket, older_than=0) == 1
    await assert_nothing_left(proxied)
    assert await proxied.stored_body("key") == OLD


async def test_large_put_cancelled_while_it_creates_the_upload_aborts_it(
    proxied: ProxiedStore,
) -> None:
    stall = proxied.proxy.arm(Stall("response head"), method="POST", target="*uploads*")
    task = OwnedTask(proxied.store.put(proxied.bucket, "key", LARGE))
    await stall.reached.wait()
    async with task_group() as group:
        group.start_soon(task.aclose)
        await asyncio.sleep(0)
        group.start_soon(task.aclose)  # a second cancel
        await asyncio.sleep(0)
        stall.release()
    await assert_nothing_left(proxied)
    assert await proxied.stored_body("key") == OLD
    assert (
        proxied.operation_counts["AbortMultipartUpload"]
        == proxied.operation_counts["CreateMultipartUpload"]
        == 1
    )


async def test_large_put_cancelled_before_its_upload_id_arrives_leaves_the_upload(
    proxied: ProxiedStore,
) -> None:
    stall = proxied.proxy.arm(Stall("response head"), method="POST", target="*uploads*")
    task = OwnedTask(proxied.store.put(proxied.bucket, "key", LARGE))
    await stall.reached.wait()
    await task.aclose()
    await proxied.proxy.wait_until_idle()
    assert await proxied.driver.gc_uploads(proxied.bucket, older_than=0) == 1
    await assert_nothing_left(proxied)
    assert await proxied.stored_body("key") == OLD


async def test_large_put_cancelled_after_its_completion_stores_the_object(
    proxied: ProxiedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "COMMIT_SECONDS", 0.1)  # the response never arrives
    stall = proxied.proxy.arm(Stall("response head"), method="POST", target="*uploadId*")
    await cancel_at_stall(proxied, stall, proxied.store.put(proxied.bucket, "key", LARGE))
    assert await proxied.stored_body("key") == LARGE


async def test_large_put_cancelled_between_two_parts_leaves_the_old_object(
    proxied: ProxiedStore,
) -> None:
    stall = Stall("request body")

    async def source() -> AsyncIterator[bytes]:
        yield LARGE[: 6 * MiB]
        await stall.wait()
        pytest.fail("the source is read after the cancel")

    await cancel_at_stall(proxied, stall, proxied.store.put(proxied.bucket, "key", source()))
    assert await proxied.stored_body("key") == OLD
    assert (
        proxied.operation_counts["AbortMultipartUpload"]
        == proxied.operation_counts["CreateMultipartUpload"]
        == 1
    )


async def test_abort_of_a_large_put_continues_after_a_cancel(
    proxied: ProxiedStore,
) -> None:
    proxied.proxy.arm(Response(403), method="PUT", target="*partNumber=2*")
    stall = proxied.proxy.arm(Stall("request head"), method="DELETE")
    task = OwnedTask(proxied.store.put(proxied.bucket, "key", LARGE))
    await stall.reached.wait()
    async with task_group() as group:
        group.start_soon(task.aclose)
        for _ in range(20):  # enough for a cancelled abort to end
            await asyncio.sleep(0)
        assert not task.done
        stall.release()
    await assert_nothing_left(proxied)
    assert await proxied.stored_body("key") == OLD
    assert proxied.operation_counts["AbortMultipartUpload"] == 1


async def test_large_put_cancelled_in_a_part_and_in_its_abort_leaves_the_old_object(
    proxied: ProxiedStore,
) -> None:
    part_stall = proxied.proxy.arm(
        Stall("request body", MiB), method="PUT", target="*partNumber=2*"
    )
    abort_stall = proxied.proxy.arm(Stall("request head"), method="DELETE")
    task = OwnedTask(proxied.store.put(proxied.bucket, "key", LARGE))
    await part_stall.reached.wait()
    async with task_group() as group:
        group.start_soon(task.aclose)
        await abort_stall.reached.wait()
        group.start_soon(task.aclose)  # a second cancel
        await asyncio.sleep(0)
        part_stall.release()
        abort_stall.release()
    await proxied.proxy.wait_until_idle()
    assert_idle(proxied.store)
    assert await proxied.stored_body("key") == OLD
    # If the second cancel ends the abort, the upload stays, but the object is not damaged.
    assert len(await proxied.unfinished_uploads()) <= 1


@pytest.mark.parametrize(
    ("point", "byte"),
    [("request head", 0), ("response head", 0), ("response body", 0), ("response body", MiB)],
)
async def test_get_cancelled_at_any_point_leaves_no_connection(
    proxied: ProxiedStore, point: Any, byte: int
) -> None:
    async def read() -> None:
        async with proxied.store.get(proxied.bucket, "source") as reader:
            while await reader.read(64 * KiB):
                pass

    stall = proxied.proxy.arm(Stall(point, byte), method="GET")
    await cancel_at_stall(proxied, stall, read())


@pytest.mark.parametrize("point", ["request head", "response head"])
async def test_copy_cancelled_at_any_point_leaves_the_old_or_new_object(
    proxied: ProxiedStore, point: Any
) -> None:
    stall = proxied.proxy.arm(Stall(point), method="PUT")
    await cancel_at_stall(
        proxied, stall, proxied.store.copy(proxied.bucket, "source", proxied.bucket, "key")
    )
    assert await proxied.stored_body("key") == (OLD if point == "request head" else LARGE)
    assert proxied.operation_counts["CopyObject"] == 1


@pytest.mark.parametrize(
    ("method", "operation"),
    [("HEAD", "head"), ("DELETE", "delete")],
)
@pytest.mark.parametrize("point", ["request head", "response head"])
async def test_head_and_delete_cancelled_at_any_point_leave_no_connection(
    proxied: ProxiedStore, method: str, operation: str, point: Any
) -> None:
    await proxied.put_directly("other", OLD)
    stall = proxied.proxy.arm(Stall(point), method=method)
    await cancel_at_stall(
        proxied, stall, getattr(proxied.store, operation)(proxied.bucket, "other")
    )


@pytest.mark.parametrize("point", ["request head", "response head", "response body"])
async def test_list_cancelled_at_any_point_leaves_no_connection(
    proxied: ProxiedStore, point: Any
) -> None:
    stall = proxied.proxy.arm(Stall(point), target="*list-type*")
    await cancel_at_stall(proxied, stall, proxied.store.list(proxied.bucket).all())


async def test_store_closed_during_a_read_leaves_nothing(proxied: ProxiedStore) -> None:
    stall = proxied.proxy.arm(Stall("response body", MiB), method="GET")
    reader = await proxied.store.get(proxied.bucket, "source")
    task = OwnedTask(reader.read())
    await stall.reached.wait()
    await proxied.store.aclose()
    await task.aclose()
    await reader.aclose()


async def test_store_closed_in_the_completion_of_a_large_put_waits_for_it(
    proxied: ProxiedStore,
) -> None:
    stall = proxied.proxy.arm(Stall("request head"), method="POST", target="*uploadId*")
    put_task = OwnedTask(proxied.store.put(proxied.bucket, "key", LARGE))
    await stall.reached.wait()
    async with task_group() as group:
        group.start_soon(proxied.store.aclose)
        for _ in range(20):
            await asyncio.sleep(0)
        stall.release()
    with pytest.raises(ClosedError, match="closed during the operation"):
        await put_task.result()
    assert proxied.operation_counts["AbortMultipartUpload"] == 0
    assert await proxied.unfinished_uploads() == []
    assert await proxied.stored_body("key") == LARGE


async def test_store_closed_during_a_large_put_aborts_it(proxied: ProxiedStore) -> None:
    stall = proxied.proxy.arm(Stall("request body"), method="PUT", target="*partNumber=2*")
    put_task = OwnedTask(proxied.store.put(proxied.bucket, "key", LARGE))
    await stall.reached.wait()
    await proxied.store.aclose()
    stall.release()  # the proxy sees the disconnect once it has read what was sent
    with pytest.raises(ClosedError, match="closed during the operation"):
        await put_task.result()
    assert proxied.operation_counts["AbortMultipartUpload"] == 1
    assert await proxied.unfinished_uploads() == []
