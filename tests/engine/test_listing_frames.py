"""The number of library frames that a listed key takes, on the S3 driver over a socket.

The cost of a listing is in the calls for each key, so their number has a budget. It is counted with
`sys.setprofile`, and does not depend on the speed of the machine. The frames of a page (the request, its
signature, the response) are part of it, divided among the keys of the page.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

import trove_async
from tests.drivers.s3.listing_documents import AWS, PLAIN, ListingStyle
from tests.drivers.s3.scripted_transport import SECRET
from tests.listening import listening
from trove_async import Route, Trove
from trove_async.drivers import S3Driver

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator
    from types import FrameType

    from trove_async import RouteFunction

PACKAGE = f"{Path(trove_async.__file__).parent}/"
PAGE = 1000
PAGES = 4


@asynccontextmanager
async def serving_listing(style: ListingStyle) -> AsyncIterator[str]:
    """Serve `PAGES` pages of keys, the same in every bucket; yield the URL."""
    pages = []
    for number in range(PAGES):
        items = [
            {
                "Key": f"logs/{number}/{n:04}{'.log' if n % 2 else '.txt'}",
                "LastModified": "2025-01-01T00:00:00.000Z",
                "ETag": f"{n:032x}",
                "Size": str(n),
                "StorageClass": "STANDARD",
            }
            for n in range(PAGE)
        ]
        token = str(number + 1) if number + 1 < PAGES else None
        pages.append(style.document(items, [], token))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            query = parse_qs(urlsplit(head.split(b" ")[1].decode()).query)
            body = pages[int(query.get("continuation-token", ["0"])[0])]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with listening(handle) as port:
        yield f"http://127.0.0.1:{port}"


def driver(url: str) -> S3Driver:
    return S3Driver(
        endpoint_url=url, region="us-east-1", access_key_id="KEYID", secret_access_key=SECRET
    )


class Frames:
    """Counts the calls of functions of the library, and the resumptions of its coroutines."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.count += 1


async def frames_for_a_key(store: Trove, expected_keys: int) -> float:
    """Return the library frames for each key that a listing yields after its first page."""
    listing = store.list("data", prefix="logs/", page_size=PAGE)
    for _ in range(PAGE):
        await anext(listing)
    frames, keys = Frames(), 0
    sys.setprofile(frames)
    try:
        async for _ in listing:
            keys += 1
    finally:
        sys.setprofile(None)
    assert PAGE + keys == expected_keys
    return frames.count / keys


@pytest.mark.parametrize("style", [AWS, PLAIN], ids=["encoded", "plain"])
async def test_listing_of_one_backend_takes_one_frame_for_a_key(style: ListingStyle) -> None:
    async with serving_listing(style) as url, Trove(driver(url)) as store:
        frames = await frames_for_a_key(store, PAGE * PAGES)
    # 1 of the iterator, and about 350 of the page.
    assert 1 <= frames <= 1.5


def by_suffix(_bucket: str, key: str) -> str:
    return "cold" if key.endswith(".log") else ""


async def by_suffix_later(bucket: str, key: str) -> str:
    return by_suffix(bucket, key)


@pytest.mark.parametrize(
    ("routing", "budget"),
    [
        # 1 of the iterator, 1 of the index of the routes, 1 for each match, and those of two pages.
        ({"routes": [Route.suffix(".log", "cold")]}, 3.5),
        ({"routes": [Route.prefix("logs/2/", "cold"), Route.suffix(".gz", "cold")]}, 3.5),
        # 1 more to test the pattern.
        ({"routes": [("logs/*/*.log", "cold")]}, 4.5),
        # 1 to resolve the key, and 2 more if the function passes.
        ({"route_functions": [by_suffix]}, 3.5),
        ({"route_functions": [by_suffix], "routes": [Route.suffix(".gz", "cold")]}, 4.5),
    ],
    ids=["suffix", "prefix and suffix", "pattern", "function", "function and suffix"],
)
async def test_merged_listing_takes_few_frames_for_a_key(
    routing: dict[str, Any], budget: float
) -> None:
    # Both backends list every key, so two keys are listed for each one that is shown.
    async with (
        serving_listing(AWS) as url,
        Trove(driver(url), backends={"cold": driver(url)}, **routing) as store,
    ):
        frames = await frames_for_a_key(store, PAGE * PAGES)
    assert 1 <= frames <= budget


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_frames_of_many_routes_are_those_of_a_few(*, asynchronous: bool) -> None:
    routes = [Route.prefix(f"tenant-{n}/", "cold") for n in range(10_000)]
    functions: list[RouteFunction] = [by_suffix_later if asynchronous else by_suffix]
    async with serving_listing(AWS) as url:
        counts = []
        for count in (10, 10_000):
            async with Trove(
                driver(url),
                backends={"cold": driver(url)},
                routes=[*routes[:count], ("logs/**", "cold")],
                route_functions=functions,
            ) as store:
                counts.append(await frames_for_a_key(store, PAGE * PAGES))
    assert counts[1] <= counts[0] * 1.25
