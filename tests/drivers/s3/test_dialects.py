"""How a service is recognised, and what the driver does until it is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.drivers.s3.scripted_transport import answer
from trove_async.drivers.s3._credentials import Endpoint
from trove_async.drivers.s3._dialects import SEAWEEDFS, UNKNOWN, UNRECOGNISED, Service
from trove_async.drivers.s3._unusual_keys import Oddity
from trove_async.errors import UnavailableError
from trove_async.options import ListOptions

REQUEST_ID = "18EC50252504BF6573C47796"  # made by SeaweedFS 4.48 at the time below
DATE = "Sat, 28 Nov 2026 20:41:11 GMT"
DENIED = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'
    "<Message>Access Denied.</Message><Resource>/</Resource>"
    f"<RequestId>{REQUEST_ID}</RequestId></Error>"
)
BARE = "<Error><Code>AccessDenied</Code></Error>"


@pytest.mark.parametrize(
    ("document", "headers"),
    [
        (BARE, {"server": "SeaweedFS 8000GB 4.48"}),
        (BARE, {"server": "nginx/1.2", "x-amz-request-id": REQUEST_ID, "date": DATE}),
        (DENIED, {"server": "nginx/1.2", "date": DATE}),
    ],
    ids=["Server header", "request id behind a proxy", "request id in the document alone"],
)
async def test_seaweedfs_is_recognised(play: Any, document: str, headers: dict[str, str]) -> None:
    _, opening = play(answer(403, document, headers), endpoint_url="http://h:9")
    async with opening as driver:
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
    ids=["MinIO", "Amazon", "lower case", "another time"],
)
async def test_other_services_are_not_taken_for_seaweedfs(
    play: Any, headers: dict[str, str]
) -> None:
    _, opening = play(answer(403, BARE, headers), endpoint_url="http://h:9")
    async with opening as driver:
        assert driver.capabilities.ordered


class Flaky:
    """A transport whose service comes up late."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.asked = 0

    async def send(self, *_: object, **__: object) -> Any:
        self.asked += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    "first", [UnavailableError("refused"), answer(502, "Bad Gateway", server="nginx")]
)
async def test_service_that_could_not_respond_is_asked_again(first: Any) -> None:
    transport = Flaky(first, answer(403, BARE, server="SeaweedFS 8000GB 4.48"))
    service = Service("auto", Endpoint.of("http://h:9", "us-east-1"), transport)
    assert not await service.recognise()
    assert service.dialect is UNKNOWN
    assert await service.recognise()
    assert service.dialect is SEAWEEDFS
    assert await service.recognise()
    assert transport.asked == 2


@pytest.mark.parametrize("call", ["list_page", "version_page"])
async def test_service_that_could_not_respond_is_asked_again_before_it_lists(
    play: Any, call: str
) -> None:
    script, opening = play(
        answer(503),
        answer(403, BARE, server="SeaweedFS 8000GB 4.48"),
        answer(200),  # whether there is a bucket: no key has a prefix with an empty segment
        endpoint_url="http://h:9",
    )
    async with opening as driver:
        page = await getattr(driver, call)("data", ListOptions(prefix="a//"))
    assert not page.entries
    assert script.asked[-1] == "HEAD http://h:9/data"


async def test_service_that_responds_with_a_page_of_its_own_is_recognised_as_none() -> None:
    transport = Flaky(answer(200, b"<html>welcome</html>"))
    service = Service("auto", Endpoint.of("http://h:9", "us-east-1"), transport)
    assert await service.recognise()
    assert service.dialect is UNRECOGNISED
    assert not service.dialect.keeps


async def test_amazon_and_a_named_dialect_are_not_asked() -> None:
    transport = Flaky()
    amazon = Endpoint.of("https://s3.eu-west-1.amazonaws.com", "eu-west-1")
    other = Endpoint.of("http://h:9", "us-east-1")
    for service in (
        Service("auto", amazon, transport),
        Service("s3", other, transport),
        Service("seaweedfs", other, transport),
    ):
        assert await service.recognise()
        assert all(map(service.dialect.knows, Oddity))
    assert not transport.asked
