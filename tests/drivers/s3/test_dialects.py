"""Recognition of the service, and the driver's behaviour until then."""

from __future__ import annotations

from typing import Any

import pytest

from tests.drivers.s3.scripted_transport import response
from trove_async.drivers.s3._credentials import Endpoint
from trove_async.drivers.s3._dialects import SEAWEEDFS, UNKNOWN, UNRECOGNISED, Service
from trove_async.drivers.s3._unusual_keys import Oddity
from trove_async.errors import UnavailableError
from trove_async.options import ListOptions

REQUEST_ID = "18EC50252504BF6573C47796"  # of SeaweedFS 4.48, generated at DATE
DATE = "Sat, 28 Nov 2026 20:41:11 GMT"
DENIED = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'
    "<Message>Access Denied.</Message><Resource>/</Resource>"
    f"<RequestId>{REQUEST_ID}</RequestId></Error>"
)
DENIED_WITHOUT_ID = "<Error><Code>AccessDenied</Code></Error>"


@pytest.mark.parametrize(
    ("document", "headers"),
    [
        (DENIED_WITHOUT_ID, {"server": "SeaweedFS 8000GB 4.48"}),
        (DENIED_WITHOUT_ID, {"server": "nginx/1.2", "x-amz-request-id": REQUEST_ID, "date": DATE}),
        (DENIED, {"server": "nginx/1.2", "date": DATE}),
    ],
    ids=["Server header", "request id behind a proxy", "request id in the document alone"],
)
async def test_seaweedfs_is_recognised(
    scripted_driver: Any, document: str, headers: dict[str, str]
) -> None:
    _, opened_driver = scripted_driver(response(403, document, headers), endpoint_url="http://h:9")
    async with opened_driver as driver:
        assert not driver.capabilities.ordered
        assert driver.capabilities.delete_if_match


@pytest.mark.parametrize(
    "headers",
    [
        {"server": "MinIO", "x-amz-request-id": "18EC50252504BF65", "date": DATE},
        {"server": "AmazonS3", "x-amz-request-id": "TX8D0E2EHFZ1QXGB", "date": DATE},
        {"server": "nginx", "x-amz-request-id": REQUEST_ID.lower(), "date": DATE},
        {
            "server": "nginx",
            "x-amz-request-id": REQUEST_ID,
            "date": "Sat, 28 Nov 2020 20:41:11 GMT",
        },
    ],
    ids=["MinIO", "Amazon", "lower-case request id", "request id of another time"],
)
async def test_other_services_are_not_recognised_as_seaweedfs(
    scripted_driver: Any, headers: dict[str, str]
) -> None:
    _, opened_driver = scripted_driver(
        response(403, DENIED_WITHOUT_ID, headers), endpoint_url="http://h:9"
    )
    async with opened_driver as driver:
        assert driver.capabilities.ordered


class FlakyTransport:
    """A transport that returns or raises the given outcomes in order."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.requests = 0

    async def send(self, *_: object, **__: object) -> Any:
        self.requests += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    "failure", [UnavailableError("refused"), response(502, "Bad Gateway", server="nginx")]
)
async def test_recognition_is_retried_after_a_failure(failure: Any) -> None:
    transport = FlakyTransport(
        failure, response(403, DENIED_WITHOUT_ID, server="SeaweedFS 8000GB 4.48")
    )
    service = Service("auto", Endpoint.from_url("http://h:9", "us-east-1"), transport)
    assert not await service.recognise()
    assert service.dialect is UNKNOWN
    assert await service.recognise()
    assert service.dialect is SEAWEEDFS
    assert await service.recognise()
    assert transport.requests == 2


@pytest.mark.parametrize("call", ["list_page", "version_page"])
async def test_recognition_is_retried_before_a_listing(scripted_driver: Any, call: str) -> None:
    transport, opened_driver = scripted_driver(
        response(503),
        response(403, DENIED_WITHOUT_ID, server="SeaweedFS 8000GB 4.48"),
        # No key on SeaweedFS has an empty segment, so the driver only checks that the bucket exists.
        response(200),
        endpoint_url="http://h:9",
    )
    async with opened_driver as driver:
        page = await getattr(driver, call)("data", ListOptions(prefix="a//"))
    assert not page.entries
    assert transport.request_lines[-1] == "HEAD http://h:9/data"


async def test_service_that_returns_a_web_page_is_unrecognised() -> None:
    transport = FlakyTransport(response(200, b"<html>welcome</html>"))
    service = Service("auto", Endpoint.from_url("http://h:9", "us-east-1"), transport)
    assert await service.recognise()
    assert service.dialect is UNRECOGNISED
    assert not service.dialect.keeps


async def test_amazon_and_a_named_dialect_are_known_without_a_request() -> None:
    transport = FlakyTransport()
    amazon = Endpoint.from_url("https://s3.eu-west-1.amazonaws.com", "eu-west-1")
    other = Endpoint.from_url("http://h:9", "us-east-1")
    for service in (
        Service("auto", amazon, transport),
        Service("s3", other, transport),
        Service("seaweedfs", other, transport),
    ):
        assert await service.recognise()
        assert all(map(service.dialect.knows, Oddity))
    assert not transport.requests
