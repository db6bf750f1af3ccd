"""Drivers whose service answers by a script."""

from __future__ import annotations

from typing import Any

import pytest

from tests.drivers.s3.scripted_transport import SECRET, FakeResponse, Script
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3 import driver as driver_room
from trove_async.testing import opened


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open a driver whose service answers by a script."""

    def start(*answers: FakeResponse, **settings: Any) -> tuple[Script, Any]:
        script = Script(*answers)
        monkeypatch.setattr(driver_room, "transport_over", lambda *_, **__: script)
        given: dict[str, Any] = {
            "region": "us-east-1",
            "endpoint_url": "https://s3.us-east-1.amazonaws.com",
            "access_key_id": "KEYID",
            "secret_access_key": SECRET,
            **settings,
        }
        return script, opened(S3Driver(**given))

    return start
