"""Multipart uploads are not aborted while their completion may still succeed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.drivers.s3.scripted_transport import (
    OBJECT_HEADERS,
    SECRET,
    FakeResponse,
    ScriptedTransport,
    error_response,
    now,
    response,
)
from trove_async import (
    PermissionDeniedError,
    RetryPolicy,
    TimedOutError,
    Trove,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async._resilience import upload as upload_module
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3 import _components as components_module
from trove_async.drivers.s3._copy import Copier
from trove_async.models import MiB, ObjectInfo
from trove_async.options import CopyOptions, PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from trove_async._http import Origin, Response

CREATED = response(
    body="<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
)
COMPLETED_DOCUMENT = (
    "<CompleteMultipartUploadResult><ETag>&quot;e&quot;</ETag></CompleteMultipartUploadResult>"
)
SIZE = 6 * MiB


class UploadService(ScriptedTransport):
    """A service with an upload of two parts. The test sets the response to the completion."""

    def __init__(self) -> None:
        super().__init__()
        self.completing, self.may_complete = asyncio.Event(), asyncio.Event()
        self.completion: FakeResponse | Exception = response(body=COMPLETED_DOCUMENT)
        self.head: FakeResponse | None = None
        self.write_id = ""
        self.aborts = self.heads = 0

    async def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        views: Sequence[memoryview] = (),
        *,
        patient: bool = False,
    ) -> Response:
        if method == "POST" and "uploadId" in target:
            self.completing.set()
            await self.may_complete.wait()
            if isinstance(self.completion, Exception):
                raise self.completion
            self.responses.append(self.completion)
        elif method == "POST":
            self.write_id = headers.get("x-amz-meta-trove-write-id", "")
            self.responses.append(response(body=CREATED._body))
        elif method == "PUT":
            copied = "<CopyPartResult><ETag>&quot;p&quot;</ETag></CopyPartResult>"
            self.responses.append(
                response(body=copied if "partNumber" in target else b"", etag='"p"')
            )
        elif method == "DELETE":
            self.aborts += 1
            self.responses.append(response(204))
        else:
            self.heads += 1
            self.responses.append(self.head or response(404))
        return await super().send(method, origin, target, headers, views, patient=patient)

    def own_object(self) -> FakeResponse:
        """Return the response to a HEAD of the object that the upload created."""
        return response(headers={**OBJECT_HEADERS, "x-amz-meta-trove-write-id": self.write_id})


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> UploadService:
    service = UploadService()
    monkeypatch.setattr(components_module, "transport_over", lambda *_, **__: service)
    return service


def driver() -> S3Driver:
    return S3Driver(
        region="us-east-1",
        endpoint_url="https://s3.us-east-1.amazonaws.com",
        access_key_id="KEYID",
        secret_access_key=SECRET,
        checksums=False,
    )


async def body() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield bytes(4 * MiB)


async def put_and_cancel(service: UploadService, *, responds: bool = True) -> None:
    """Put an object in two parts, cancel it during the completion, and wait for its end."""
    async with Trove(driver(), retry=RetryPolicy(attempts=1)) as store:
        put = OwnedTask(store.put("data", "key", body()))
        await service.completing.wait()
        put._task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert service.aborts == 0
        if responds:
            assert not put.done
            put._task.cancel()
            service.may_complete.set()
        with pytest.raises(asyncio.CancelledError):
            await put._task


async def test_upload_that_completes_after_a_cancel_is_not_aborted(service: UploadService) -> None:
    await put_and_cancel(service)
    assert (service.aborts, service.heads) == (0, 0)


async def test_upload_whose_completion_fails_after_a_cancel_is_aborted(
    service: UploadService,
) -> None:
    service.completion = error_response(403, "AccessDenied")
    await put_and_cancel(service)
    assert (service.aborts, service.heads) == (1, 0)


async def test_upload_whose_completion_gets_no_response_is_not_aborted(
    service: UploadService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "COMMIT_SECONDS", 0.01)
    await put_and_cancel(service, responds=False)
    assert service.aborts == 0


@pytest.mark.parametrize("own", [True, False])
async def test_upload_is_aborted_only_if_the_lost_completion_created_no_object(
    service: UploadService, *, own: bool
) -> None:
    service.completion = UnavailableError("the connection broke")
    async with Trove(driver(), retry=RetryPolicy(attempts=1)) as store:
        put = OwnedTask(store.put("data", "key", body()))
        await service.completing.wait()
        if own:
            service.head = service.own_object()
        service.may_complete.set()
        with pytest.raises(UnavailableError):
            await put.result()
    assert (service.aborts, service.heads) == (0 if own else 1, 1)


async def test_upload_is_not_aborted_when_the_head_fails(service: UploadService) -> None:
    service.completion = UnavailableError("the connection broke")
    service.head = response(503)
    service.may_complete.set()
    async with Trove(driver(), retry=RetryPolicy(attempts=1)) as store:
        with pytest.raises(UnavailableError):
            await store.put("data", "key", body())
    assert service.aborts == 0


async def complete_twice(
    service: UploadService, lost: UnavailableError, *, own: bool = False
) -> None:
    """Complete an upload twice: the first response is lost, the second is an error."""
    service.may_complete.set()
    s3_driver = driver()
    async with opened(s3_driver):
        with pytest.raises(PermissionDeniedError):
            async with s3_driver.upload("data", "key", PutOptions(write_id="w-1")) as upload:
                service.completion = lost
                with pytest.raises(UnavailableError):
                    await upload.commit({})
                service.completion = error_response(403, "AccessDenied")
                service.head = service.own_object() if own else None
                await upload.commit({})


@pytest.mark.parametrize("own", [True, False])
async def test_failed_completion_after_a_lost_one_checks_for_the_object(
    service: UploadService, *, own: bool
) -> None:
    await complete_twice(service, UnavailableError("the connection broke"), own=own)
    assert (service.aborts, service.heads) == (0 if own else 1, 1)


async def test_upload_is_not_aborted_while_an_earlier_completion_may_be_in_flight(
    service: UploadService,
) -> None:
    await complete_twice(service, TimedOutError("no response came"))
    assert service.aborts == 0


async def test_copy_in_parts_is_not_aborted_during_its_completion(service: UploadService) -> None:
    source = ObjectInfo(bucket="data", key="from", size=200, etag="e", last_modified=now())
    options = CopyOptions(source=source, put=PutOptions(write_id="w-1"))
    s3_driver = driver()
    async with opened(s3_driver):
        copier = Copier(
            s3_driver._plane,
            s3_driver._open_components.known_buckets.exists,
            max_single_copy=100,
            part_size=100,
        )
        copy = OwnedTask(copier.copy("data", "from", "data", "to", options))
        await service.completing.wait()
        copy._task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not copy.done
        assert service.aborts == 0
        service.may_complete.set()
        with pytest.raises(asyncio.CancelledError):
            await copy._task
    assert service.aborts == 0
