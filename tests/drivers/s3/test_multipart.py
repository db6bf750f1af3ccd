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


class UploadTransport(ScriptedTransport):
    """Responds to the requests of multipart uploads.

    Attributes:
        completing: Set when a completion has been requested.
        may_complete: Until it is set, completions get no response.
        completion: The response to completions, or the error that they raise.
        head: The response to a HEAD of the object, or None for a 404.
        write_id: The write id of the last upload.
        aborts: The number of aborts requested.
        heads: The number of HEADs requested.
    """

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
            copy_result = "<CopyPartResult><ETag>&quot;p&quot;</ETag></CopyPartResult>"
            self.responses.append(
                response(body=copy_result if "partNumber" in target else b"", etag='"p"')
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
def service(monkeypatch: pytest.MonkeyPatch) -> UploadTransport:
    service = UploadTransport()
    monkeypatch.setattr(components_module, "transport_over", lambda *_, **__: service)
    return service


def make_driver() -> S3Driver:
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


async def put_and_cancel(service: UploadTransport, *, responds: bool = True) -> None:
    """Put an object in two parts, cancel the put during the completion, and wait until it ends."""
    async with Trove(make_driver(), retry=RetryPolicy(attempts=1)) as store:
        put_task = OwnedTask(store.put("data", "key", body()))
        await service.completing.wait()
        put_task._task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert service.aborts == 0
        if responds:
            assert not put_task.done
            put_task._task.cancel()
            service.may_complete.set()
        with pytest.raises(asyncio.CancelledError):
            await put_task._task


async def test_upload_that_completes_after_a_cancel_is_not_aborted(
    service: UploadTransport,
) -> None:
    await put_and_cancel(service)
    assert (service.aborts, service.heads) == (0, 0)


async def test_upload_whose_completion_fails_after_a_cancel_is_aborted(
    service: UploadTransport,
) -> None:
    service.completion = error_response(403, "AccessDenied")
    await put_and_cancel(service)
    assert (service.aborts, service.heads) == (1, 0)


async def test_upload_whose_completion_gets_no_response_is_not_aborted(
    service: UploadTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "COMMIT_SECONDS", 0.01)
    await put_and_cancel(service, responds=False)
    assert service.aborts == 0


@pytest.mark.parametrize("created", [True, False])
async def test_upload_is_aborted_only_if_the_lost_completion_created_no_object(
    service: UploadTransport, *, created: bool
) -> None:
    service.completion = UnavailableError("the connection broke")
    async with Trove(make_driver(), retry=RetryPolicy(attempts=1)) as store:
        put_task = OwnedTask(store.put("data", "key", body()))
        await service.completing.wait()
        if created:
            service.head = service.own_object()
        service.may_complete.set()
        with pytest.raises(UnavailableError):
            await put_task.result()
    assert (service.aborts, service.heads) == (0 if created else 1, 1)


async def test_upload_is_not_aborted_when_the_head_fails(service: UploadTransport) -> None:
    service.completion = UnavailableError("the connection broke")
    service.head = response(503)
    service.may_complete.set()
    async with Trove(make_driver(), retry=RetryPolicy(attempts=1)) as store:
        with pytest.raises(UnavailableError):
            await store.put("data", "key", body())
    assert service.aborts == 0


async def complete_twice(
    service: UploadTransport, lost: UnavailableError, *, created: bool = False
) -> None:
    """Complete an upload twice. The first response is lost, the second is an error."""
    service.may_complete.set()
    driver = make_driver()
    async with opened(driver):
        with pytest.raises(PermissionDeniedError):
            async with driver.upload("data", "key", PutOptions(write_id="w-1")) as upload:
                service.completion = lost
                with pytest.raises(UnavailableError):
                    await upload.commit({})
                service.completion = error_response(403, "AccessDenied")
                service.head = service.own_object() if created else None
                await upload.commit({})


@pytest.mark.parametrize("created", [True, False])
async def test_failed_completion_after_a_lost_response_checks_for_the_object(
    service: UploadTransport, *, created: bool
) -> None:
    await complete_twice(service, UnavailableError("the connection broke"), created=created)
    assert (service.aborts, service.heads) == (0 if created else 1, 1)


async def test_upload_is_not_aborted_while_an_earlier_completion_may_be_in_flight(
    service: UploadTransport,
) -> None:
    await complete_twice(service, TimedOutError("no response came"))
    assert service.aborts == 0


async def test_copy_in_parts_is_not_aborted_during_its_completion(service: UploadTransport) -> None:
    source = ObjectInfo(bucket="data", key="from", size=200, etag="e", last_modified=now())
    options = CopyOptions(source=source, put=PutOptions(write_id="w-1"))
    driver = make_driver()
    async with opened(driver):
        copier = Copier(
            driver._plane,
            driver._open_components.known_buckets.exists,
            max_single_copy=100,
            part_size=100,
        )
        copy_task = OwnedTask(copier.copy("data", "from", "data", "to", options))
        await service.completing.wait()
        copy_task._task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not copy_task.done
        assert service.aborts == 0
        service.may_complete.set()
        with pytest.raises(asyncio.CancelledError):
            await copy_task._task
    assert service.aborts == 0
