"""A store that uses an S3 server through a fault proxy, and a client that bypasses the proxy."""

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
"""Operations of the S3 API: the name, the method, whether the path has a key, and the required query
parameters and headers. A request is for the first operation that it matches."""


def operation_name(request: Request) -> str:
    """Return the name of the S3 operation that a request is for."""
    has_key = "/" in request.path[1:].rstrip("/")
    names = request.query.keys() | request.headers.keys()
    return next(
        name
        for name, method, needs_key, required_names in OPERATIONS
        if (method, needs_key) == (request.method, has_key) and required_names <= names
    )


@dataclass(kw_only=True)
class ProxiedStore:
    """A store behind a fault proxy.

    Attributes:
        store: The store.
        driver: The driver of the store.
        proxy: The proxy.
        bucket: The name of a bucket that was empty when the store was opened.
        client: A boto3 client for the same server that bypasses the proxy.
    """

    store: Trove
    driver: S3Driver
    proxy: FaultProxy
    bucket: str = BUCKET
    client: Any = field(repr=False)

    @property
    def operations(self) -> list[str]:
        """The operations that were requested from the proxy, in order.

        Requests to which the server itself responded with a 500, as it may on a busy machine, are
        not included.
        """
        return [operation_name(request) for request in self.proxy.requests if not request.failed]

    @property
    def operation_counts(self) -> Counter[str]:
        """How often each of the `operations` was requested."""
        return Counter(self.operations)

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self.proxy.requests.clear()

    async def stored_body(self, key: str) -> bytes | None:
        """Return the body of an object on the server, or None if there is no object."""
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
        """Return the keys of the multipart uploads that were neither completed nor aborted."""
        response = await self._call(self.client.list_multipart_uploads)
        return [upload["Key"] for upload in response.get("Uploads", ())]

    async def _call(self, method: Callable[..., Any], **options: Any) -> Any:
        return await asyncio.to_thread(method, Bucket=self.bucket, **options)


def _make_empty_bucket(client: Any) -> None:
    """Empty or create the bucket. It is reused, because a new bucket's first object takes 0.2 s."""
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET)
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])


def boto3_client(server: S3Server) -> Any:
    """Return a blocking client for a server."""
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
    driver_class: Callable[..., S3Driver] = S3Driver,
    pool: BufferPool | None = None,
) -> AsyncIterator[ProxiedStore]:
    """Open a store behind a fault proxy, with an empty bucket.

    On exit, assert that no buffer, permit, connection or task is left. By default, parts have
    5 MiB, the minimum of S3.
    """
    await asyncio.to_thread(_make_empty_bucket, client)
    async with FaultProxy(server.endpoint_url) as proxy:
        driver = driver_class(
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
            proxied.clear_requests()  # forget the request that recognises the service
            yield proxied
            await proxy.wait_until_idle()
            assert_idle(store)
        await proxy.wait_until_disconnected()
    leftover_tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not leftover_tasks, leftover_tasks
