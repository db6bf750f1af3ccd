"""An upload that is completing is not aborted: what it may have become is found out first."""

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
from trove_async._resilience import upload as room
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3 import driver as driver_module
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
COMPLETED = (
    "<CompleteMultipartUploadResult><ETag>&quot;e&quot;</ETag></CompleteMultipartUploadResult>"
)
SIZE = 6 * MiB


class Service(ScriptedTransport):
    """A service with an upload of two parts. The test sets the response to its completion."""

    def __init__(self) -> None:
        super().__init__()
        self.completing, self.go_on = asyncio.Event(), asyncio.Event()
        self.completion: FakeResponse | Exception = response(body=COMPLETED)
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
            await self.go_on.wait()
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

    def ours(self) -> FakeResponse:
        """Return the HEAD of the object that was made of the upload."""
        return response(headers={**OBJECT_HEADERS, "x-amz-meta-trove-write-id": self.write_id})


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    monkeypatch.setattr(driver_module, "transport_over", lambda *_, **__: service)
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


async def cancelled(service: Service, *, answered: bool = True) -> None:
    """Put in two parts, cancel it while it completes, and wait until it has ended."""
    async with Trove(driver(), retry=RetryPolicy(attempts=1)) as store:
        put = OwnedTask(store.put("data", "key", body()))
        await service.completing.wait()
        put._task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert service.aborts == 0
        if answered:
            assert not put.done
            put._task.cancel()
            service.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await put._task


async def test_upload_that_is_completed_after_the_cancel_is_not_aborted(service: Service) -> None:
    await cancelled(service)
    assert (service.aborts, service.heads) == (0, 0)


async def test_upload_whose_completion_is_refused_after_the_cancel_is_aborted(
    service: Service,
) -> None:
    service.completion = error_response(403, "AccessDenied")
    await cancelled(service)
    assert (service.aborts, service.heads) == (1, 0)


async def test_upload_whose_completion_is_never_answered_is_not_aborted(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "COMMIT_SECONDS", 0.01)
    await cancelled(service, answered=False)
    assert service.aborts == 0


@pytest.mark.parametrize("ours", [True, False])
async def test_upload_whose_completion_fails_is_aborted_only_if_it_is_no_object(
    service: Service, *, ours: bool
) -> None:
    service.completion = UnavailableError("the connection broke")
    async with Trove(driver(), retry=RetryPolicy(attempts=1)) as store:
        put = OwnedTask(store.put("data", "key", body()))
        await service.completing.wait()
        if ours:
            service.head = service.ours()
        service.go_on.set()
        with pytest.raises(UnavailableError):
            await put.result()
    assert (service.aborts, service.heads) == (0 if ours else 1, 1)


async def test_upload_is_not_aborted_where_it_cannot_be_found_out(service: Service) -> None:
    service.completion = UnavailableError("the connection broke")
    service.head = response(503)
    service.go_on.set()
    async with Trove(driver(), retry=RetryPolicy(attempts=1)) as store:
        with pytest.raises(UnavailableError):
            await store.put("data", "key", body())
    assert service.aborts == 0


async def refused_at_last(service: Service, lost: UnavailableError, *, ours: bool = False) -> None:
    """Commit an upload twice: the first request is not answered, the second one is refused."""
    service.go_on.set()
    one = driver()
    async with opened(one):
        with pytest.raises(PermissionDeniedError):
            async with one.upload("data", "key", PutOptions(write_id="w-1")) as upload:
                service.completion = lost
                with pytest.raises(UnavailableError):
                    await upload.commit({})
                service.completion = error_response(403, "AccessDenied")
                service.head = service.ours() if ours else None
                await upload.commit({})


@pytest.mark.parametrize("ours", [True, False])
async def test_upload_is_looked_for_if_an_earlier_completion_was_lost(
    service: Service, *, ours: bool
) -> None:
    await refused_at_last(service, UnavailableError("the connection broke"), ours=ours)
    assert (service.aborts, service.heads) == (0 if ours else 1, 1)


async def test_upload_is_not_aborted_while_an_earlier_completion_may_be_under_way(
    service: Service,
) -> None:
    await refused_at_last(service, TimedOutError("no response came"))
    assert service.aborts == 0


async def test_copy_in_pieces_that_is_completing_is_not_aborted(service: Service) -> None:
    source = ObjectInfo(bucket="data", key="from", size=200, etag="e", last_modified=now())
    options = CopyOptions(source=source, put=PutOptions(write_id="w-1"))
    one = driver()
    async with opened(one):
        copier = Copier(one._plane, one._known.exists, largest=100, piece=100)
        copy = OwnedTask(copier.copy("data", "from", "data", "to", options))
        await service.completing.wait()
        copy._task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not copy.done
        assert service.aborts == 0
        service.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await copy._task
    assert service.aborts == 0
