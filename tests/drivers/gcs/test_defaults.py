"""The default storage class and encryption key of a driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from tests.fault_proxy import FaultProxy
from trove_async import ConfigError
from trove_async.drivers.gcs import GCSDriver
from trove_async.options import CopyOptions, PutOptions
from trove_async.testing import opened
from trove_async.testing._harness import read, upload, write

if TYPE_CHECKING:
    from tests.fault_proxy import Request

KEY = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"


async def record_writes(**settings: Any) -> tuple[dict[str, Request], dict[str, str | None]]:
    """Create an object in every way. Return the requests by kind, and the storage classes by key."""
    async with gcs_server(InMemoryGCS()) as url, FaultProxy(url) as proxy:
        driver = GCSDriver(endpoint_url=proxy.endpoint_url, **settings)
        async with opened(driver) as backend:
            await backend.create_bucket("data")
            info = await write(backend, "data", "put", b"body")
            await upload(backend, "data", "parts", bytes(300 * 1024))
            await driver.copy(
                "data", "put", "data", "copy", CopyOptions(source=info, put=PutOptions())
            )
            await driver.compose("data", ["put", "copy"], "composed")
            await write(backend, "data", "explicit", b"", storage_class="ARCHIVE")
            assert await read(backend, "data", "composed") == b"bodybody"
            keys = ("put", "parts", "copy", "composed", "explicit")
            classes = {key: (await backend.head("data", key)).storage_class for key in keys}
        requests: dict[str, Request] = {}
        for request in proxy.requests:
            if request.query.get("uploadType") in {"multipart", "resumable"}:
                requests.setdefault(request.query["uploadType"], request)
            for name in ("rewriteTo", "compose"):
                if f"/{name}" in request.path and request.method == "POST":
                    requests.setdefault(name, request)
    assert requests.keys() == {"multipart", "resumable", "rewriteTo", "compose"}
    return requests, classes


async def test_storage_class_of_put_overrides_the_driver_default() -> None:
    _, classes = await record_writes(storage_class="COLDLINE")
    assert classes == {
        **dict.fromkeys(("put", "parts", "copy", "composed"), "COLDLINE"),
        "explicit": "ARCHIVE",
    }


async def test_kms_key_is_sent_with_every_write() -> None:
    requests, _ = await record_writes(kms_key_name=KEY)
    for name, request in requests.items():
        parameter = "destinationKmsKeyName" if name == "rewriteTo" else "kmsKeyName"
        assert request.query[parameter] == KEY, name


async def test_nothing_is_sent_without_defaults() -> None:
    requests, classes = await record_writes()
    for request in requests.values():
        assert not [name for name in request.query if "kms" in name.lower()]
    assert classes["put"] in {None, "STANDARD"}


@pytest.mark.parametrize("name", ["storage_class", "kms_key_name"])
@pytest.mark.parametrize("value", ["", "a b", "a\n", "gr\u00fcn"])
def test_invalid_defaults_are_rejected(name: str, value: str) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=name):
        GCSDriver(**options)
