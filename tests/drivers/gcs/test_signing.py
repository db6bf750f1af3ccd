"""Signed URLs, compared with those of the SDK."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from gcloud.aio.storage import blob as sdk
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drivers.gcs.service_account_key import EMAIL, service_account_key
from trove_async import Trove
from trove_async._http import Origin
from trove_async.drivers.gcs import GCSDriver
from trove_async.drivers.gcs import driver as driver_module
from trove_async.drivers.gcs._signing import build_url
from trove_async.errors import InvalidNameError, NotSupportedError
from trove_async.options import PresignOptions
from trove_async.testing import opened

GOOGLE = "https://storage.googleapis.com"

DOTS = {".", ".."}
"""Keys that the SDK does not encode. HTTP clients remove such segments, so its URLs name no object."""

keys = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1
).filter(lambda key: key not in DOTS)


async def sdk_url(method: str, key: str, expires: int) -> str:
    """Return the URL that the SDK signs for a key of `bucket`."""
    token: Any = SimpleNamespace(service_data=service_account_key())
    bucket: Any = SimpleNamespace(name="bucket", storage=SimpleNamespace(token=token))
    blob = sdk.Blob(bucket, key, {"size": 0})
    return await blob.get_signed_url(expires, http_method=method)


def signed_at(url: str) -> float:
    """Return the time at which a URL was signed, in seconds since 1970."""
    (timestamp,) = parse_qs(urlsplit(url).query)["X-Goog-Date"]
    return datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


@settings(max_examples=30, deadline=None)
@given(method=st.sampled_from(["GET", "PUT"]), key=keys, expires=st.integers(1, 604_800))
def test_url_matches_the_sdk(method: str, key: str, expires: int) -> None:
    url = asyncio.run(sdk_url(method, key, expires))
    origin = Origin.of(GOOGLE)
    unsigned = build_url(
        method, origin, "bucket", key, email=EMAIL, expires=expires, now=signed_at(url)
    )
    signature = sdk.Blob.get_pem_signature(unsigned.to_sign, service_account_key()["private_key"])
    assert unsigned.with_signature(signature) == url


@pytest.mark.parametrize("key", sorted(DOTS))
def test_key_of_dots_is_encoded(key: str) -> None:
    url = build_url("GET", Origin.of(GOOGLE), "bucket", key, email=EMAIL, expires=1, now=0).url
    assert url.partition("?")[0] == f"{GOOGLE}/bucket/{key.replace('.', '%2E')}"


@pytest.mark.parametrize(
    "endpoint", ["http://localhost:4443", "https://gcs.example", "https://gcs.example:8443"]
)
async def test_url_of_another_endpoint_matches_the_sdk(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme, _, host = endpoint.partition("://")
    monkeypatch.setattr(sdk, "HOST", host)
    expected = await sdk_url("GET", "a/b c", 60)
    clock = SimpleNamespace(time=lambda: signed_at(expected))
    monkeypatch.setattr(driver_module, "time", clock)
    driver = GCSDriver(endpoint_url=endpoint, credentials=service_account_key())
    async with opened(driver):
        assert driver.capabilities.presign
        url = await driver.presign("GET", "bucket", "a/b c", 59.5)
    # The signature covers the host but not the scheme, and the SDK always returns an https URL.
    assert url == expected.replace("https", scheme, 1)


async def test_validity_is_limited_to_seven_days() -> None:
    driver = GCSDriver(credentials=service_account_key())
    async with opened(driver):
        assert "X-Goog-Expires=604800&" in await driver.presign("GET", "bucket", "key", 604_800)
        for seconds in (0, -1, 604_801):
            with pytest.raises(NotSupportedError):
                await driver.presign("GET", "bucket", "key", seconds)


async def test_presign_rejects_a_key_with_a_line_break() -> None:
    driver = GCSDriver(credentials=service_account_key())
    async with opened(driver):
        with pytest.raises(InvalidNameError):
            await driver.presign("GET", "bucket", "a\nb", 60)


async def test_presign_without_private_key_is_not_supported() -> None:
    user_credentials = {
        "type": "authorized_user",
        "client_id": "i",
        "client_secret": "s",
        "refresh_token": "r",
    }
    for driver in (GCSDriver(anonymous=True), GCSDriver(credentials=user_credentials)):
        async with opened(driver):
            assert not driver.capabilities.presign
            with pytest.raises(NotSupportedError):
                await driver.presign("GET", "bucket", "key", 60)
    for driver in (GCSDriver(anonymous=True), GCSDriver(credentials=user_credentials)):
        async with Trove(driver) as store:
            with pytest.raises(
                NotSupportedError, match="requires the key file of a service account"
            ):
                await store.presign_get("bucket", "key")


OPTIONS = PresignOptions(
    version_id="17",
    response_content_type="text/plain; charset=utf-8",
    response_content_disposition='attachment; filename="a b.txt"',
)


def test_presign_options_are_signed_as_documented() -> None:
    # Cloud Storage documentation, "Canonical requests": the query is sorted by name; headers are
    # in lower case and sorted, and a list of their names follows them.
    unsigned = build_url(
        "GET", Origin.of(GOOGLE), "bucket", "a b", email="e", expires=60, now=0.0, options=OPTIONS
    )
    query = (
        "X-Goog-Algorithm=GOOG4-RSA-SHA256"
        "&X-Goog-Credential=e%2F19700101%2Fauto%2Fstorage%2Fgoog4_request"
        "&X-Goog-Date=19700101T000000Z&X-Goog-Expires=60&X-Goog-SignedHeaders=host"
        "&generation=17&response-content-disposition=attachment%3B%20filename%3D%22a%20b.txt%22"
        "&response-content-type=text%2Fplain%3B%20charset%3Dutf-8"
    )
    assert unsigned.url == f"{GOOGLE}/bucket/a%20b?{query}"
    canonical = (
        f"GET\n/bucket/a%20b\n{query}\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD"
    )
    assert unsigned.to_sign.endswith(f"\n{sha256(canonical.encode()).hexdigest()}")


def test_content_type_is_signed_as_a_header() -> None:
    unsigned = build_url(
        "PUT", Origin.of(GOOGLE), "bucket", "key", email="e", expires=60, now=0.0,
        options=PresignOptions(content_type="text/plain"),
    )  # fmt: skip
    query = urlsplit(unsigned.url).query
    assert query.endswith("&X-Goog-SignedHeaders=content-type%3Bhost")
    canonical = (
        f"PUT\n/bucket/key\n{query}\ncontent-type:text/plain\nhost:storage.googleapis.com\n\n"
        "content-type;host\nUNSIGNED-PAYLOAD"
    )
    assert unsigned.to_sign.endswith(f"\n{sha256(canonical.encode()).hexdigest()}")
