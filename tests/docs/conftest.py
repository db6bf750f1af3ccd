"""Fixtures that pages of the site name in ``<!-- fixtures: … -->``.

A fixture that returns a dict adds its items to the names of the page.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest
from distributed import Client, LocalCluster
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trove_async.testing.servers import GCSServer, S3Server

if not settings.configured:  # importing a storage needs them
    settings.configure(
        USE_TZ=True,
        TIME_ZONE="Asia/Tokyo",
        STATIC_URL="/static/",
        DEBUG=False,
        SECRET_KEY="test",  # noqa: S106 - a test
    )


@pytest.fixture
def s3(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Make S3 drivers without an endpoint and credentials use an empty moto, by the SDK's own variables."""
    httpx.post(f"{moto_server.endpoint_url}/moto-api/reset").raise_for_status()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto_server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto_server.secret_access_key)
    monkeypatch.setenv("AWS_CONFIG_FILE", f"/nonexistent/{uuid4().hex}")
    return moto_server


@pytest.fixture
def gcs(fake_gcs: GCSServer, monkeypatch: pytest.MonkeyPatch) -> GCSServer:
    """Make GCS drivers without an endpoint use fake-gcs-server, by the variable of Google's tools."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.endpoint_url)
    return fake_gcs


@pytest.fixture
def dask() -> Iterator[dict[str, Client]]:
    """Run a Dask cluster in this process. The page calls its client ``client``."""
    with (
        LocalCluster(
            processes=False,
            n_workers=1,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield {"client": client}
