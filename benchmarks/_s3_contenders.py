"""The contenders that `s3_vs_peers` compares: libraries, some of them tuned, and bare aiohttp."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import os
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import obstore
import opendal
import s3fs  # type: ignore[import-untyped]  # has no types
from _harness import MiB, concurrently
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from obstore.store import S3Store
from yarl import URL

from trove_async import BufferPool, ObjectInfo, Trove
from trove_async.drivers import S3Driver
from trove_async.testing.servers import S3Server

BUCKET = "bench"
PART = 8 * MiB
CONCURRENT_PARTS = 4


class Contender(Protocol):
    """One library, opened for one bucket."""

    async def put(self, key: str, body: bytes) -> object:
        """Store bytes, in parts if the body is large."""
        ...

    async def put_file(self, key: str, path: Path) -> object:
        """Store a file."""
        ...

    async def get(self, key: str) -> bytes:
        """Return a small object."""
        ...

    async def head(self, key: str) -> int:
        """Return an object's size."""
        ...

    async def delete(self, key: str) -> object:
        """Delete an object."""
        ...

    async def stream(self, key: str) -> int:
        """Read a large object in chunks, and return its size."""
        ...

    async def list(self, prefix: str) -> int:
        """List the keys below a prefix with their sizes, and return their number."""
        ...


class TroveAsync:
    """trove_async, through a store."""

    def __init__(self, store: Trove) -> None:
        self._store = store

    async def put(self, key: str, body: bytes) -> object:
        return await self._store.put(BUCKET, key, body)

    async def put_file(self, key: str, path: Path) -> object:
        return await self._store.put(BUCKET, key, path)

    async def get(self, key: str) -> bytes:
        return await self._store.read(BUCKET, key)

    async def head(self, key: str) -> int:
        return (await self._store.head(BUCKET, key)).size

    async def delete(self, key: str) -> object:
        await self._store.delete(BUCKET, key)
        return None

    async def stream(self, key: str) -> int:
        size = 0
        async with self._store.get(BUCKET, key) as reader:
            async for chunk in reader:
                size += len(chunk)
        return size

    async def list(self, prefix: str) -> int:
        count = 0
        async for entry in self._store.list(BUCKET, prefix=prefix):
            count += isinstance(entry, ObjectInfo) and entry.size >= 0
        return count


class Obstore:
    """obstore, which wraps Rust's object_store."""

    def __init__(self, server: S3Server) -> None:
        self._store = S3Store(
            BUCKET,
            endpoint=server.endpoint_url,
            region=server.region,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    async def put(self, key: str, body: bytes) -> object:
        return await obstore.put_async(self._store, key, body)

    async def put_file(self, key: str, path: Path) -> object:
        return await obstore.put_async(self._store, key, path)

    async def get(self, key: str) -> bytes:
        return bytes(await (await obstore.get_async(self._store, key)).bytes_async())

    async def head(self, key: str) -> int:
        return (await obstore.head_async(self._store, key))["size"]

    async def delete(self, key: str) -> object:
        await obstore.delete_async(self._store, key)
        return None

    async def stream(self, key: str) -> int:
        size = 0
        async for chunk in (await obstore.get_async(self._store, key)).stream():
            size += len(chunk)
        return size

    async def list(self, prefix: str) -> int:
        count = 0
        async for batch in obstore.list(self._store, prefix=prefix, chunk_size=1000):
            for meta in batch:
                count += meta["size"] >= 0
        return count


class OpenDAL:
    """OpenDAL's s3 service, with `PART` and `CONCURRENT_PARTS` for large objects."""

    def __init__(self, server: S3Server) -> None:
        self._operator = opendal.AsyncOperator(
            "s3",
            bucket=BUCKET,
            endpoint=server.endpoint_url,
            region=server.region,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
        )

    async def put(self, key: str, body: bytes) -> object:
        if len(body) <= PART:
            await self._operator.write(key, body)
        else:
            await self._operator.write(key, body, chunk=PART, concurrent=CONCURRENT_PARTS)
        return None

    async def put_file(self, key: str, path: Path) -> object:
        file = await self._operator.open(key, "wb", chunk=PART, concurrent=CONCURRENT_PARTS)
        with path.open("rb") as source:
            while piece := source.read(MiB):
                await file.write(piece)
        await file.close()
        return None

    async def get(self, key: str) -> bytes:
        return bytes(await self._operator.read(key))

    async def head(self, key: str) -> int:
        return (await self._operator.stat(key)).content_length

    async def delete(self, key: str) -> object:
        await self._operator.delete(key)
        return None

    async def stream(self, key: str) -> int:
        size = 0
        file = await self._operator.open(key, "rb", chunk=PART, concurrent=CONCURRENT_PARTS)
        while chunk := await file.read(MiB):
            size += len(chunk)
        await file.close()
        return size

    async def list(self, prefix: str) -> int:
        count = 0
        async for entry in await self._operator.list(prefix, recursive=True):
            count += entry.metadata.mode.is_file() and entry.metadata.content_length >= 0
        return count


class S3FS:
    """s3fs, through its asynchronous API, without its listings cache."""

    def __init__(self, fs: Any) -> None:  # noqa: ANN401 - s3fs has no types
        self._fs = fs

    async def put(self, key: str, body: bytes) -> object:
        return await self._fs._pipe_file(f"{BUCKET}/{key}", body)  # noqa: SLF001 - its async API

    async def put_file(self, key: str, path: Path) -> object:
        return await self._fs._put_file(str(path), f"{BUCKET}/{key}")  # noqa: SLF001

    async def get(self, key: str) -> bytes:
        return bytes(await self._fs._cat_file(f"{BUCKET}/{key}"))  # noqa: SLF001

    async def head(self, key: str) -> int:
        return int((await self._fs._info(f"{BUCKET}/{key}"))["size"])  # noqa: SLF001

    async def delete(self, key: str) -> object:
        return await self._fs._rm_file(f"{BUCKET}/{key}")  # noqa: SLF001

    async def stream(self, key: str) -> int:
        size = 0
        file = await self._fs.open_async(f"{BUCKET}/{key}", "rb")
        while chunk := await file.read(MiB):
            size += len(chunk)
        return size

    async def list(self, prefix: str) -> int:
        infos = await self._fs._find(f"{BUCKET}/{prefix}", detail=True)  # noqa: SLF001
        return sum(info["size"] >= 0 for info in infos.values())


class Aiobotocore:
    """aiobotocore's client, with the code that users must write to upload in parts."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - its methods are created at run time
        self._client = client

    async def put(self, key: str, body: bytes) -> object:
        if len(body) <= PART:
            return await self._client.put_object(Bucket=BUCKET, Key=key, Body=body)
        # botocore does not accept a memoryview, so each part is a copy.
        return await self._parts(key, len(body), lambda start: body[start : start + PART])

    async def put_file(self, key: str, path: Path) -> object:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            return await self._parts(key, size, partial(os.pread, source.fileno(), PART))

    async def _parts(self, key: str, size: int, part: Callable[[int], bytes]) -> object:
        target = {"Bucket": BUCKET, "Key": key}
        upload_id = (await self._client.create_multipart_upload(**target))["UploadId"]
        parts: dict[int, dict[str, object]] = {}

        async def send(number: int) -> None:
            response = await self._client.upload_part(
                **target, UploadId=upload_id, PartNumber=number + 1, Body=part(number * PART)
            )
            fields = {
                name: response[name] for name in response if name.startswith(("ETag", "ChecksumC"))
            }
            parts[number] = {"PartNumber": number + 1, **fields}

        await concurrently(-(-size // PART), CONCURRENT_PARTS, send)
        completed = {"Parts": [parts[number] for number in sorted(parts)]}
        return await self._client.complete_multipart_upload(
            **target, UploadId=upload_id, MultipartUpload=completed
        )

    async def get(self, key: str) -> bytes:
        response = await self._client.get_object(Bucket=BUCKET, Key=key)
        async with response["Body"] as body:
            return cast("bytes", await body.read())

    async def head(self, key: str) -> int:
        response = await self._client.head_object(Bucket=BUCKET, Key=key)
        return int(response["ContentLength"])

    async def delete(self, key: str) -> object:
        return await self._client.delete_object(Bucket=BUCKET, Key=key)

    async def stream(self, key: str) -> int:
        size = 0
        response = await self._client.get_object(Bucket=BUCKET, Key=key)
        async with response["Body"] as body:
            async for chunk in body.iter_chunks(MiB):
                size += len(chunk)
        return size

    async def list(self, prefix: str) -> int:
        count = 0
        paginator = self._client.get_paginator("list_objects_v2")
        async for page in paginator.paginate(Bucket=BUCKET, Prefix=prefix):
            for entry in page.get("Contents", ()):
                count += entry["Size"] >= 0
        return count


class Plain:
    """aiohttp with a signer of twenty lines, without checks, retries or verification: the lowest cost."""

    def __init__(self, server: S3Server, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session
        self._host = urlsplit(server.endpoint_url).netloc

    def _request(
        self,
        method: str,
        key: str = "",
        body: bytes | memoryview = b"",
        query: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        path = f"/{BUCKET}/{quote(key)}" if key else f"/{BUCKET}"
        encoded_query = urlencode(sorted((query or {}).items()), quote_via=quote, safe="")
        now = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
        headers = {
            "host": self._host,
            "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
            "x-amz-date": now,
        }
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"{method}\n{path}\n{encoded_query}\n{lines}\n{names}\nUNSIGNED-PAYLOAD"
        scope = f"{now[:8]}/{self._server.region}/s3/aws4_request"
        digest = hashlib.sha256(request.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
        secret = _day_key(self._server.secret_access_key, now[:8], self._server.region)
        signature = hmac.digest(secret, to_sign.encode(), "sha256").hex()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._server.access_key_id}/{scope},"
            f" SignedHeaders={names}, Signature={signature}"
        )
        url = f"{self._server.endpoint_url}{path}" + (f"?{encoded_query}" if encoded_query else "")
        data = _pieces(body) if len(body) > MiB else body
        if body:
            headers["Content-Length"] = str(len(body))
        return self._session.request(
            method, URL(url, encoded=True), headers=headers, data=data or None
        )

    async def _send(
        self,
        method: str,
        key: str,
        body: bytes | memoryview = b"",
        query: Mapping[str, str] | None = None,
    ) -> Mapping[str, str]:
        async with self._request(method, key, body, query) as response:
            response.raise_for_status()
            await response.read()
            return response.headers

    async def create_bucket(self) -> None:
        """Create the bucket that all contenders use."""
        await self._send("PUT", "")

    async def put(self, key: str, body: bytes) -> object:
        if len(body) <= PART:
            return await self._send("PUT", key, body)
        return await self._parts(
            key, len(body), lambda start: memoryview(body)[start : start + PART]
        )

    async def put_file(self, key: str, path: Path) -> object:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            return await self._parts(key, size, partial(os.pread, source.fileno(), PART))

    async def _parts(
        self, key: str, size: int, part: Callable[[int], bytes | memoryview]
    ) -> object:
        async with self._request("POST", key, query={"uploads": ""}) as response:
            upload_id = ET.fromstring(await response.read()).findtext("{*}UploadId") or ""  # noqa: S314
        etags: dict[int, str] = {}

        async def send(number: int) -> None:
            query = {"partNumber": str(number + 1), "uploadId": upload_id}
            etags[number] = (await self._send("PUT", key, part(number * PART), query))["ETag"]

        await concurrently(-(-size // PART), CONCURRENT_PARTS, send)
        parts = "".join(
            f"<Part><PartNumber>{number + 1}</PartNumber><ETag>{etags[number]}</ETag></Part>"
            for number in sorted(etags)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        return await self._send("POST", key, body, {"uploadId": upload_id})

    async def get(self, key: str) -> bytes:
        async with self._request("GET", key) as response:
            response.raise_for_status()
            return await response.read()

    async def head(self, key: str) -> int:
        return int((await self._send("HEAD", key))["Content-Length"])

    async def delete(self, key: str) -> object:
        return await self._send("DELETE", key)

    async def stream(self, key: str) -> int:
        size = 0
        async with self._request("GET", key) as response:
            async for chunk in response.content.iter_any():
                size += len(chunk)
        return size

    async def list(self, prefix: str) -> int:
        count = 0
        query = {"list-type": "2", "prefix": prefix}
        while True:
            async with self._request("GET", query=query) as response:
                page = ET.fromstring(await response.read())  # noqa: S314 - our own server
            for entry in page.iterfind("{*}Contents"):
                count += int(entry.findtext("{*}Size") or -1) >= 0
            query["continuation-token"] = page.findtext("{*}NextContinuationToken") or ""
            if not query["continuation-token"]:
                return count


async def _pieces(body: bytes | memoryview) -> AsyncIterator[bytes | memoryview]:
    view = memoryview(body)
    for start in range(0, len(view), MiB // 4):
        yield view[start : start + MiB // 4]


@lru_cache
def _day_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


# -- opening -------------------------------------------------------------------------------

NAMES = (
    "trove_async",
    "trove_async, uvloop",
    "trove_async, unsigned",
    "trove_async, unsigned, uvloop",
    "obstore",
    "obstore, uvloop",
    "OpenDAL",
    "s3fs",
    "aiobotocore",
    "aiobotocore, tuned",
    "aiohttp, uvloop",
)
"""The contenders, trove_async first. Those with ``uvloop`` in their name run on uvloop, the others on asyncio.
*Unsigned* means ``payload_signing=False``, which is the default over https."""

CONNECTIONS = 64

TUNED = AioConfig(
    max_pool_connections=CONNECTIONS,
    parameter_validation=False,
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    retries={"max_attempts": 0},
    s3={"addressing_style": "path", "payload_signing_enabled": False},
)


@asynccontextmanager
async def opened(
    name: str, server: S3Server, pool_size: int | None = None
) -> AsyncIterator[Contender]:
    """Open a contender.

    Args:
        name: One of `NAMES`.
        server: The server.
        pool_size: The size of trove_async's pool in bytes. None: the default.
    """
    library = name.split(",", maxsplit=1)[0]
    async with AsyncExitStack() as stack:
        match library:
            case "trove_async":
                driver = S3Driver(
                    region=server.region,
                    endpoint_url=server.endpoint_url,
                    access_key_id=server.access_key_id,
                    secret_access_key=server.secret_access_key,
                    addressing_style="path",
                    max_connections=CONNECTIONS,
                    payload_signing=False if "unsigned" in name else None,
                )
                pool = None if pool_size is None else BufferPool(max_bytes=pool_size)
                yield TroveAsync(await stack.enter_async_context(Trove(driver, pool=pool)))
            case "obstore":
                yield Obstore(server)
            case "OpenDAL":
                yield OpenDAL(server)
            case "s3fs":
                fs = s3fs.S3FileSystem(
                    key=server.access_key_id,
                    secret=server.secret_access_key,
                    endpoint_url=server.endpoint_url,
                    asynchronous=True,
                    use_listings_cache=False,
                    skip_instance_cache=True,
                    config_kwargs={"max_pool_connections": CONNECTIONS},
                )
                client = await fs.set_session()
                yield S3FS(fs)
                await client.close()
            case "aiobotocore":
                yield Aiobotocore(
                    await stack.enter_async_context(
                        get_session().create_client(
                            "s3",
                            region_name=server.region,
                            endpoint_url=server.endpoint_url,
                            aws_access_key_id=server.access_key_id,
                            aws_secret_access_key=server.secret_access_key,
                            config=TUNED if name.endswith("tuned") else None,
                        )
                    )
                )
            case _:
                yield await stack.enter_async_context(plain(server))


@asynccontextmanager
async def plain(server: S3Server) -> AsyncIterator[Plain]:
    """Open bare aiohttp."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        auto_decompress=False,
        read_bufsize=MiB // 4,
    ) as session:
        yield Plain(server, session)
