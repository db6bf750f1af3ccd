"""Settings of a driver that apply to all objects: encryption, storage class and requester pays."""

from __future__ import annotations

from base64 import b64encode
from hashlib import md5
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.drivers.s3.proxied_store import operation_name
from tests.drivers.s3.scripted_transport import OBJECT_HEADERS, response
from tests.drivers.s3.test_conformance import driver_of
from tests.fault_proxy import FaultProxy
from trove_async import ConfigError, NotSupportedError, Trove
from trove_async.drivers import S3Driver
from trove_async.drivers.s3._copy import Copier
from trove_async.models import MiB
from trove_async.options import CopyOptions, PutOptions
from trove_async.testing import opened
from trove_async.testing._harness import delete, read, upload, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trove_async.testing.servers import S3Server

KEY = bytes(range(32))
SSE = "x-amz-server-side-encryption"
CUSTOMER_KEY_HEADERS = {
    f"{SSE}-customer-algorithm": "AES256",
    f"{SSE}-customer-key": b64encode(KEY).decode(),
    f"{SSE}-customer-key-md5": b64encode(md5(KEY, usedforsecurity=False).digest()).decode(),
}
SOURCE_KEY_HEADERS = {
    name.replace("x-amz-", "x-amz-copy-source-", 1): value
    for name, value in CUSTOMER_KEY_HEADERS.items()
}
CREATING_OPERATIONS = {"PutObject", "CopyObject", "CreateMultipartUpload"}
CUSTOMER_KEY_OPERATIONS = {
    "PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy",
    "CompleteMultipartUpload", "GetObject", "HeadObject",
}  # fmt: skip
SOURCE_KEY_OPERATIONS = {"CopyObject", "UploadPartCopy"}

both_planes = pytest.mark.parametrize("plane", ["lean", "sdk"])


async def run_operations(
    moto_server: S3Server, plane: str, **settings: Any
) -> list[tuple[str, Mapping[str, str]]]:
    """Write, copy, read and delete objects; return each request's S3 operation and headers."""
    async with FaultProxy(moto_server.endpoint_url) as proxy:
        driver = S3Driver(
            region=moto_server.region,
            endpoint_url=proxy.endpoint_url,
            access_key_id=moto_server.access_key_id,
            secret_access_key=moto_server.secret_access_key,
            data_plane="sdk" if plane == "sdk" else "lean",
            addressing_style="path",
            dialect="s3",
            **settings,
        )
        bucket = f"defaults-{uuid4().hex}"
        async with opened(driver) as backend:
            await backend.create_bucket(bucket)
            info = await write(backend, bucket, "put", b"body")
            await upload(backend, bucket, "parts", bytes(6 * MiB))
            options = CopyOptions(source=info, put=PutOptions())
            await driver.copy(bucket, "put", bucket, "copy", options)
            copier = Copier(
                driver._plane,
                driver._open_components.known_buckets.exists,
                max_single_copy=1,
                part_size=4,
            )
            part_options = CopyOptions(
                source=info, put=driver._object_settings.with_storage_class(PutOptions())
            )
            await copier.copy(bucket, "put", bucket, "parts copy", part_options)
            assert await read(backend, bucket, "put") == b"body"
            for key in ("put", "parts", "copy", "parts copy"):
                await backend.head(bucket, key)
                await delete(backend, bucket, key)
            await backend.delete_bucket(bucket)
        requests = [(operation_name(request), request.headers) for request in proxy.requests]
    assert {name for name, _ in requests} >= CUSTOMER_KEY_OPERATIONS
    return requests


@both_planes
async def test_storage_class_and_encryption_are_sent_when_an_object_is_created(
    moto_server: S3Server, plane: str
) -> None:
    expected = {
        "x-amz-storage-class": "STANDARD_IA",
        SSE: "aws:kms",
        f"{SSE}-aws-kms-key-id": "alias/mine",
        f"{SSE}-bucket-key-enabled": "true",
    }
    requests = await run_operations(
        moto_server, plane, storage_class="STANDARD_IA", server_side_encryption="aws:kms",
        kms_key_id="alias/mine", bucket_key_enabled=True,
    )  # fmt: skip
    for name, headers in requests:
        sent = {header: headers[header] for header in expected if header in headers}
        assert sent == (expected if name in CREATING_OPERATIONS else {}), name


@both_planes
async def test_customer_key_is_sent_with_every_operation_that_requires_it(
    moto_server: S3Server, plane: str
) -> None:
    for name, headers in await run_operations(moto_server, plane, sse_customer_key=KEY):
        sent = {header: headers[header] for header in CUSTOMER_KEY_HEADERS if header in headers}
        assert sent == (CUSTOMER_KEY_HEADERS if name in CUSTOMER_KEY_OPERATIONS else {}), name
        sent = {header: headers[header] for header in SOURCE_KEY_HEADERS if header in headers}
        assert sent == (SOURCE_KEY_HEADERS if name in SOURCE_KEY_OPERATIONS else {}), name


async def test_customer_key_is_sent_with_a_range_request_for_the_size(scripted_driver: Any) -> None:
    headers_without_size = {
        name: value for name, value in OBJECT_HEADERS.items() if name != "content-length"
    }
    range_response = response(206, b"b", content_range="bytes 0-0/4")
    transport, opened_driver = scripted_driver(
        response(headers=headers_without_size), range_response, sse_customer_key=KEY
    )
    async with opened_driver as driver:
        assert (await driver.head("data", "key")).size == 4
    headers = transport.requests[1].headers
    assert {name: headers[name] for name in CUSTOMER_KEY_HEADERS} == CUSTOMER_KEY_HEADERS


@both_planes
async def test_requester_pays_is_sent_with_every_request(moto_server: S3Server, plane: str) -> None:
    for name, headers in await run_operations(moto_server, plane, requester_pays=True):
        assert headers.get("x-amz-request-payer") == "requester", name


@both_planes
async def test_default_object_settings_add_no_headers(moto_server: S3Server, plane: str) -> None:
    for _, headers in await run_operations(moto_server, plane):
        assert not [name for name in headers if "encryption" in name or "payer" in name]
        assert "x-amz-storage-class" not in headers


@both_planes
async def test_storage_class_of_a_put_overrides_the_default(
    moto_server: S3Server, plane: str
) -> None:
    driver = driver_of(moto_server, data_plane=plane, storage_class="STANDARD_IA")
    async with Trove(driver) as store:
        await store.create_bucket("classes", exist_ok=True)
        info = await store.put("classes", "default", b"body")
        assert info.storage_class == "STANDARD_IA"
        assert (await store.head("classes", "default")).storage_class == "STANDARD_IA"
        await store.put("classes", "explicit", b"body", storage_class="ONEZONE_IA")
        assert (await store.head("classes", "explicit")).storage_class == "ONEZONE_IA"
        await store.copy("classes", "explicit", "classes", "copy")
        assert (await store.head("classes", "copy")).storage_class == "STANDARD_IA"
        await store.delete_many("classes", ["default", "explicit", "copy"])


async def test_object_is_encrypted(moto_server: S3Server) -> None:
    driver = driver_of(moto_server, server_side_encryption="AES256")
    async with Trove(driver) as store:
        await store.create_bucket("encrypted", exist_ok=True)
        await store.put("encrypted", "key", b"body")
        head = await (await driver.client).head_object(Bucket="encrypted", Key="key")
        assert head["ServerSideEncryption"] == "AES256"
        await store.delete("encrypted", "key")


@pytest.mark.parametrize("settings", [{"sse_customer_key": KEY}, {"requester_pays": True}])
async def test_presigned_urls_that_would_need_headers_raise(
    moto_server: S3Server, settings: dict[str, Any]
) -> None:
    async with Trove(driver_of(moto_server, **settings)) as store:
        with pytest.raises(NotSupportedError, match="requires a driver without sse_customer_key"):
            await store.presign_get("data", "key")


@pytest.mark.parametrize(
    "settings",
    [
        {"storage_class": ""},
        {"storage_class": "a\r\nb: c"},
        {"server_side_encryption": "gr\u00fcn"},
        {"server_side_encryption": "AES265"},
        {"kms_key_id": "k"},
        {"kms_key_id": "k", "server_side_encryption": "AES256"},
        {"bucket_key_enabled": False},
        {"sse_customer_key": b"short"},
        {"sse_customer_key": KEY, "server_side_encryption": "AES256"},
    ],
)
def test_invalid_object_settings_raise_config_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        S3Driver(**settings)
    assert "short" not in str(caught.value)


def test_customer_key_is_bytes_and_not_in_the_repr() -> None:
    with pytest.raises(TypeError, match="bytes"):
        S3Driver(sse_customer_key="k" * 32)  # type: ignore[arg-type]  # raises
    driver = S3Driver(sse_customer_key=KEY)
    for text in (repr(driver), repr(driver._object_settings)):
        assert repr(KEY)[2:-1] not in text
        assert CUSTOMER_KEY_HEADERS[f"{SSE}-customer-key"] not in text


@pytest.mark.parametrize("endpoint", ["http://minio.example:9000", "http://10.0.0.1"])
async def test_customer_key_raises_config_error_over_plain_http(
    scripted_driver: Any, endpoint: str
) -> None:
    _, opened_driver = scripted_driver(endpoint_url=endpoint, sse_customer_key=KEY, dialect="s3")
    with pytest.raises(ConfigError, match="https"):
        async with opened_driver:
            pass


@pytest.mark.parametrize(
    "endpoint",
    ["https://minio.example", "http://127.0.0.2:9000", "http://[::1]:9000", "http://localhost"],
)
async def test_customer_key_is_accepted_over_https_or_for_a_loopback_address(
    scripted_driver: Any, endpoint: str
) -> None:
    _, opened_driver = scripted_driver(endpoint_url=endpoint, sse_customer_key=KEY, dialect="s3")
    async with opened_driver as driver:
        assert not driver.capabilities.presign
