"""A store that reaches its S3 server through a fault proxy, and a client that bypasses the proxy."""

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

BUCKET = "proxied"
FAST_RETRY = RetryPolicy(base_delay=0.05)
NO_RETRY = RetryPolicy(attempts=1)


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
"""Operations of the S3 API: name, method, whether the path has a key, and the query parameters or
headers that identify it. The first match counts."""


def operation_name(request: Request) -> str:
    """Return the name of a request in the S3 API."""
    has_key = "/" in request.path[1:].rstrip("/")
    names = request.query.keys() | request.headers.keys()
    return next(
        name
        for name, method, with_key, identified_by in OPERATIONS
        if (method, with_key) == (request.method, has_key) and identified_by <= names
    )


@dataclass(kw_only=True)
class ProxiedStore:
    """A store behind a fault proxy.

    Attributes:
        store: The store.
        driver: Its driver.
        proxy: The proxy.
        bucket: An empty bucket.
        client: A boto3 client of the same server that bypasses the proxy.
    """

    store: Trove
    driver: S3Driver
    proxy: FaultProxy
    bucket: str = BUCKET
    client: Any = field(repr=False)

    @property
    def operations(self) -> list[str]:
        """The operations that passed the proxy, in order."""
        # On a busy machine the server itself may fail; the store retries, and that is not counted.
        return [operation_name(request) for request in self.proxy.requests if not request.failed]

    @property
    def operation_counts(self) -> Counter[str]:
        """How often each operation passed the proxy."""
        return Counter(self.operations)

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self.proxy.requests.clear()

    async def stored_body(self, key: str) -> bytes | None:
        """Return the body that the server has for a key; None if it has no object."""
        try:
            response = await self._call(self.client.get_object, Key=key)
        except self.client.exceptions.NoSuchKey:
            return None
        body: bytes = await asyncio.to_thread(response["Body"].read)
        return body

    async def put_directly(self, key: str, body: bytes, **options: Any) -> None:
        """Put an object, bypassing the proxy."""
        await self._call(self.client.put_object, Key=key, Body=body, **options)

    async def unfinished_uploads(self) -> list[str]:
        """Return the keys of the multipart uploads that the server has open."""
        response = await self._call(self.client.list_multipart_uploads)
        return [upload["Key"] for upload in response.get("Uploads", ())]

    async def _call(self, method: Callable[..., Any], **options: Any) -> Any:
        return await asyncio.to_thread(method, Bucket=self.bucket, **options)


def _make_empty_bucket(client: Any) -> None:
    """Create the bucket or empty it. A new bucket's first object takes 0.2 s, so it is reused."""
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET)
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])


def boto3_client(server: S3Server) -> Any:
    """Return a blocking client of a server."""
    return boto3.client(
        "s3",
        region_name=server.region,
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


@asynccontextmanager
async def proxied_store(
    server: S3Server,
    client: Any,
    *,
    retry: RetryPolicy = FAST_RETRY,
    timeout: Timeout | None = None,
    max_connections: int = 8,
    kind: type[S3Driver] = S3Driver,
    pool: BufferPool | None = None,
) -> AsyncIterator[ProxiedStore]:
    """Open a store behind a fault proxy, with an empty bucket.

    On exit, assert that no buffer, permit, connection or task is left. Parts have 5 MiB, the least
    that S3 accepts.
    """
    await asyncio.to_thread(_make_empty_bucket, client)
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
            proxied = ProxiedStore(store=store, driver=driver, proxy=proxy, client=client)
            proxied.clear_requests()  # without the one that recognises the service
            yield proxied
            await proxy.wait_until_idle()
            assert_idle(store)
        await proxy.wait_until_disconnected()
    leftover_tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not leftover_tasks, leftover_tasks
