"""A driver over a transport that returns scripted responses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.drivers.s3.scripted_transport import SECRET, FakeResponse, ScriptedTransport
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3 import _components as components_module
from trove_async.testing import opened


@pytest.fixture
def scripted_driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a transport with scripted responses, and opens a driver over it."""

    def start(*responses: FakeResponse, **settings: Any) -> tuple[ScriptedTransport, Any]:
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

    return start
