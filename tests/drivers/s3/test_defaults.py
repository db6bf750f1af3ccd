"""What a driver asks of the service for all of its objects: sent on every request that needs it."""

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
CUSTOMER = {
    f"{SSE}-customer-algorithm": "AES256",
    f"{SSE}-customer-key": b64encode(KEY).decode(),
    f"{SSE}-customer-key-md5": b64encode(md5(KEY, usedforsecurity=False).digest()).decode(),
}
SOURCE = {
    name.replace("x-amz-", "x-amz-copy-source-", 1): value for name, value in CUSTOMER.items()
}
MAKING = {"PutObject", "CopyObject", "CreateMultipartUpload"}
KEYED = {
    "PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy",
    "CompleteMultipartUpload", "GetObject", "HeadObject",
}  # fmt: skip
SOURCED = {"CopyObject", "UploadPartCopy"}

planes = pytest.mark.parametrize("plane", ["lean", "sdk"])


async def played(
    moto_server: S3Server, plane: str, **settings: Any
) -> list[tuple[str, Mapping[str, str]]]:
    """Do what can be done with objects; return the API's name and the headers of each request."""
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
            copier = Copier(driver._plane, driver._known.exists, largest=1, piece=4)
            pieces = CopyOptions(source=info, put=driver._defaults.applied(PutOptions()))
            await copier.copy(bucket, "put", bucket, "pieces", pieces)
            assert await read(backend, bucket, "put") == b"body"
            for key in ("put", "parts", "copy", "pieces"):
                await backend.head(bucket, key)
                await delete(backend, bucket, key)
            await backend.delete_bucket(bucket)
        done = [(operation_name(request), request.headers) for request in proxy.requests]
    assert {name for name, _ in done} >= KEYED
    return done


@planes
async def test_class_and_encryption_are_asked_for_whatever_makes_an_object(
    moto_server: S3Server, plane: str
) -> None:
    asked = {
        "x-amz-storage-class": "STANDARD_IA",
        SSE: "aws:kms",
        f"{SSE}-aws-kms-key-id": "alias/mine",
        f"{SSE}-bucket-key-enabled": "true",
    }
    done = await played(
        moto_server, plane, storage_class="STANDARD_IA", server_side_encryption="aws:kms",
        kms_key_id="alias/mine", bucket_key_enabled=True,
    )  # fmt: skip
    for name, headers in done:
        told = {header: headers[header] for header in asked if header in headers}
        assert told == (asked if name in MAKING else {}), name


@planes
async def test_key_of_the_customers_goes_with_all_that_touches_a_body(
    moto_server: S3Server, plane: str
) -> None:
    for name, headers in await played(moto_server, plane, sse_customer_key=KEY):
        told = {header: headers[header] for header in CUSTOMER if header in headers}
        assert told == (CUSTOMER if name in KEYED else {}), name
        told = {header: headers[header] for header in SOURCE if header in headers}
        assert told == (SOURCE if name in SOURCED else {}), name


async def test_key_of_the_customers_goes_with_the_request_for_a_size(scripted_driver: Any) -> None:
    unsized = {name: value for name, value in OBJECT_HEADERS.items() if name != "content-length"}
    ranged = response(206, b"b", content_range="bytes 0-0/4")
    transport, opened_driver = scripted_driver(
        response(headers=unsized), ranged, sse_customer_key=KEY
    )
    async with opened_driver as driver:
        assert (await driver.head("data", "key")).size == 4
    _, _, headers, _ = transport.requests[1]
    assert {name: headers[name] for name in CUSTOMER} == CUSTOMER


@planes
async def test_requester_pays_for_every_request(moto_server: S3Server, plane: str) -> None:
    for name, headers in await played(moto_server, plane, requester_pays=True):
        assert headers.get("x-amz-request-payer") == "requester", name


@planes
async def test_without_defaults_nothing_is_asked(moto_server: S3Server, plane: str) -> None:
    for _, headers in await played(moto_server, plane):
        assert not [name for name in headers if "encryption" in name or "payer" in name]
        assert "x-amz-storage-class" not in headers


@planes
async def test_class_of_a_put_comes_before_the_drivers(moto_server: S3Server, plane: str) -> None:
    driver = driver_of(moto_server, data_plane=plane, storage_class="STANDARD_IA")
    async with Trove(driver) as store:
        await store.create_bucket("classes", exist_ok=True)
        put = await store.put("classes", "default", b"body")
        assert put.storage_class == "STANDARD_IA"
        assert (await store.head("classes", "default")).storage_class == "STANDARD_IA"
        await store.put("classes", "given", b"body", storage_class="ONEZONE_IA")
        assert (await store.head("classes", "given")).storage_class == "ONEZONE_IA"
        await store.copy("classes", "given", "classes", "copy")
        assert (await store.head("classes", "copy")).storage_class == "STANDARD_IA"
        await store.delete_many("classes", ["default", "given", "copy"])


async def test_service_tells_that_it_encrypts(moto_server: S3Server) -> None:
    driver = driver_of(moto_server, server_side_encryption="AES256")
    async with Trove(driver) as store:
        await store.create_bucket("encrypted", exist_ok=True)
        await store.put("encrypted", "key", b"body")
        told = await (await driver.client).head_object(Bucket="encrypted", Key="key")
        assert told["ServerSideEncryption"] == "AES256"
        await store.delete("encrypted", "key")


@pytest.mark.parametrize("settings", [{"sse_customer_key": KEY}, {"requester_pays": True}])
async def test_urls_that_nobody_could_use_are_refused(
    moto_server: S3Server, settings: dict[str, Any]
) -> None:
    async with Trove(driver_of(moto_server, **settings)) as store:
        with pytest.raises(NotSupportedError, match="presigned"):
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
def test_defaults_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        S3Driver(**settings)
    assert "short" not in str(caught.value)


def test_key_of_the_customers_is_bytes_and_in_no_repr() -> None:
    with pytest.raises(TypeError, match="bytes"):
        S3Driver(sse_customer_key="k" * 32)  # type: ignore[arg-type]  # the point
    driver = S3Driver(sse_customer_key=KEY)
    for shown in (repr(driver), repr(driver._defaults)):
        assert repr(KEY)[2:-1] not in shown
        assert CUSTOMER[f"{SSE}-customer-key"] not in shown


@pytest.mark.parametrize("endpoint", ["http://minio.example:9000", "http://10.0.0.1"])
async def test_key_of_the_customers_does_not_leave_this_machine_in_the_clear(
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
async def test_key_of_the_customers_is_sent_over_https_or_on_this_machine(
    scripted_driver: Any, endpoint: str
) -> None:
    _, opened_driver = scripted_driver(endpoint_url=endpoint, sse_customer_key=KEY, dialect="s3")
    async with opened_driver as driver:
        assert not driver.capabilities.presign
