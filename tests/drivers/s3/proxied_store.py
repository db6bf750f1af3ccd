"""A store whose S3 lies behind a proxy that breaks things, and a way round it to see what is so."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]  # it has no types
from botocore.config import Config

from tests.fakes import assert_idle
from tests.fault_proxy import FaultProxy
from trove_async import BufferPool, RetryPolicy, Timeout, Trove
from trove_async.drivers import S3Driver
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from tests.fault_proxy import Request
    from trove_async.testing.servers import S3Server

SOON = RetryPolicy(base_delay=0.05)
BUCKET = "links"
NEVER = RetryPolicy(attempts=1)


OPERATIONS: Sequence[tuple[str, str, bool, set[str]]] = [
    ("UploadPartCopy", "PUT", True, {"partNumber", "x-amz-copy-source"}),
    ("UploadPart", "PUT", True, {"partNumber"}),
    ("CopyObject", "PUT", True, {"x-amz-copy-source"}),
    ("PutObject", "PUT", True, set()),
    ("CreateBucket", "PUT", False, set()),
    ("CreateMultipartUpload", "POST", True, {"uploads"}),
    ("CompleteMultipartUpload", "POST", True, {"uploadId"}),
    ("DeleteObjects", "POST", False, {"delete"}),
    ("AbortMultipartUpload", "DELETE", True, {"uploadId"}),
    ("DeleteObject", "DELETE", True, set()),
    ("DeleteBucket", "DELETE", False, set()),
    ("ListObjectsV2", "GET", False, {"list-type"}),
    ("ListMultipartUploads", "GET", False, {"uploads"}),
    ("GetObject", "GET", True, set()),
    ("HeadObject", "HEAD", True, set()),
    ("HeadBucket", "HEAD", False, set()),
]
"""S3's operations: their method, whether they name a key, and what else tells them; first match."""


def operation(request: Request) -> str:
    """Return the S3 API's name for a request."""
    names_a_key = "/" in request.path[1:].rstrip("/")
    marks = request.query.keys() | request.headers.keys()
    return next(
        name
        for name, method, key, told_by in OPERATIONS
        if (method, key) == (request.method, names_a_key) and told_by <= marks
    )


@dataclass(kw_only=True)
class Link:
    """A store over a broken link, and the server itself, asked by boto3 past the link."""

    store: Trove
    driver: S3Driver
    proxy: FaultProxy
    bucket: str = BUCKET
    server: Any = field(repr=False)

    @property
    def done(self) -> list[str]:
        """The operations that the proxy saw, in order."""
        # A server may fail by itself where its machine is busy: that is tried again, and not counted.
        return [operation(request) for request in self.proxy.requests if not request.failed]

    @property
    def counted(self) -> Counter[str]:
        """How many of each it saw, where their order is open."""
        return Counter(self.done)

    def forget(self) -> None:
        """Count from now on."""
        self.proxy.requests.clear()

    async def stored(self, key: str) -> bytes | None:
        """Return what the server has under a key; None: nothing."""
        try:
            answer = await self._ask(self.server.get_object, Key=key)
        except self.server.exceptions.NoSuchKey:
            return None
        body: bytes = await asyncio.to_thread(answer["Body"].read)
        return body

    async def place(self, key: str, body: bytes, **options: Any) -> None:
        """Store an object past the link."""
        await self._ask(self.server.put_object, Key=key, Body=body, **options)

    async def uploads(self) -> list[str]:
        """Return the keys that the server has unfinished uploads for."""
        answer = await self._ask(self.server.list_multipart_uploads)
        return [upload["Key"] for upload in answer.get("Uploads", ())]

    async def _ask(self, call: Callable[..., Any], **options: Any) -> Any:
        return await asyncio.to_thread(call, Bucket=self.bucket, **options)


def _empty(client: Any) -> None:
    """Make the bucket, or make it empty: its first object takes a fifth of a second."""
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET)
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])
    for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])


def boto(server: S3Server) -> Any:
    """Return a client that goes straight to a server, and blocks."""
    return boto3.client(
        "s3",
        region_name=server.region,
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


@asynccontextmanager
async def linked(
    server: S3Server,
    client: Any,
    *,
    retry: RetryPolicy = SOON,
    timeout: Timeout | None = None,
    max_connections: int = 8,
    kind: type[S3Driver] = S3Driver,
    pool: BufferPool | None = None,
) -> AsyncIterator[Link]:
    """Open a store behind a proxy, with an empty bucket; leaving, nothing may be left here.

    Parts are of 5 MiB, the least that S3 takes.
    """
    await asyncio.to_thread(_empty, client)
    async with FaultProxy(server.endpoint_url) as proxy:
        driver = kind(
            region=server.region,
            endpoint_url=proxy.endpoint_url,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
            addressing_style="path",
            max_connections=max_connections,
        )
        pool = pool or BufferPool(max_bytes=40 * MiB, part_size=5 * MiB)
        async with Trove(driver, pool=pool, retry=retry, timeout=timeout) as store:
            link = Link(store=store, driver=driver, proxy=proxy, server=client)
            link.forget()  # how the driver found out what server this is
            yield link
            await proxy.quiet()
            assert_idle(store)
        await proxy.deserted()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left
