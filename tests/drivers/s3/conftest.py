"""A fixture for drivers over a transport that returns scripted responses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.drivers.s3.scripted_transport import SECRET, FakeResponse, ScriptedTransport
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3 import _components as components_module
from trove_async.testing import opened


@pytest.fixture
def scripted_driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that creates a transport and a context manager for a driver over it.

    Its arguments are the scripted responses and settings of the driver.
    """

    def driver_over(*responses: FakeResponse, **settings: Any) -> tuple[ScriptedTransport, Any]:
        transport = ScriptedTransport(*responses)
        monkeypatch.setattr(components_module, "transport_over", lambda *_, **__: transport)
        arguments: dict[str, Any] = {
            "region": "us-east-1",
            "endpoint_url": "https://s3.us-east-1.amazonaws.com",
            "access_key_id": "KEYID",
            "secret_access_key": SECRET,
            **settings,
        }
        return transport, opened(S3Driver(**arguments))

    return driver_over
