"""The table of capabilities in docs/services.md is that of the drivers."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tests.docs.markdown import DOCS
from trove_async.driver import Capabilities
from trove_async.drivers import GCSDriver, LocalDriver, MemoryDriver, S3Driver
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trove_async.driver import AsyncDriver
    from trove_async.testing.servers import S3Server

KEYS: dict[str, Any] = {"region": "us-east-1", "access_key_id": "ID", "secret_access_key": "SECRET"}
SILENT = "http://127.0.0.1:9"
"""An endpoint to which a driver with a named dialect sends nothing when it is opened."""


def documented() -> Mapping[str, Mapping[str, bool]]:
    """Return the table: the capabilities by name, each with its value by service."""
    lines = (DOCS / "services.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| capability |"))
    _, *services = cells(lines[start])
    table = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *values = cells(line)
        assert set(values) <= {"yes", "no"}
        table[name.strip("`")] = dict(
            zip(services, (value == "yes" for value in values), strict=True)
        )
    return table


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


async def test_capabilities_are_those_of_the_drivers(tmp_path: Path, moto_server: S3Server) -> None:
    def compatible(url: str, **settings: Any) -> S3Driver:
        return S3Driver(**KEYS, endpoint_url=url, **settings)

    drivers: dict[str, AsyncDriver] = {
        "memory": MemoryDriver(),
        "local": LocalDriver(tmp_path),
        "Amazon S3": S3Driver(**KEYS),
        "S3 dialect": compatible(SILENT, dialect="s3"),
        "SeaweedFS": compatible(SILENT, dialect="seaweedfs"),
        "Ceph": compatible(SILENT, dialect="ceph"),
        "unknown": compatible(moto_server.endpoint_url),
        "GCS": GCSDriver(anonymous=True),
    }
    actual: dict[str, Capabilities] = {}
    for service, driver in drivers.items():
        async with opened(driver) as open_driver:
            actual[service] = open_driver.capabilities
    table = documented()
    assert set(table) <= {field.name for field in fields(Capabilities)}
    assert table == {
        name: {service: getattr(capabilities, name) for service, capabilities in actual.items()}
        for name in table
    }
