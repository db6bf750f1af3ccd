"""Errors while a store is created or opened name the backend, the setting and the path."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake
from trove_async import (
    BufferPool,
    ConfigError,
    PermissionDeniedError,
    Trove,
    TroveError,
    UnavailableError,
)
from trove_async.drivers import GCSDriver, LocalDriver, MemoryDriver
from trove_async.layers import Mapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from trove_async.driver import AsyncDriver


async def opening_error(cold: AsyncDriver | str) -> TroveError:
    """Return the error that opening a store with this backend raises."""
    with pytest.raises(TroveError) as caught:
        async with Trove(MemoryDriver(), backends={"cold": cold}):
            pass
    assert caught.value.backend == "cold"
    assert "on backend 'cold'" in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", ["missing", "file"])
async def test_error_names_a_spill_dir_that_is_not_a_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name
    with pytest.raises(ConfigError, match=f"spill_dir '{path}' must be a directory"):
        async with Trove(MemoryDriver(), pool=BufferPool(spill_dir=path)):
            pass
    async with Trove(MemoryDriver(), pool=BufferPool(spill_dir=path, spill_max_bytes=0)) as store:
        assert store.backends  # a pool that never spills needs no directory


LOCAL: list[tuple[str, dict[str, Any], str]] = [
    ("file", {}, "the root '{0}/file' is not a directory: it is a file"),
    ("file/below", {}, "the root '{0}/file/below' is not a directory: '{0}/file' is a file"),
    ("broken", {}, "the root '{0}/broken' is not a directory: it is a file or a broken link"),
    ("no", {"mkdir": False}, "the root '{0}/no' does not exist; create it, or pass mkdir=True"),
    ("no/such", {"mkdir": False}, "'{0}/no' is missing; create it"),
]


@pytest.mark.parametrize(("name", "settings", "message"), LOCAL, ids=lambda value: str(value)[:20])
async def test_error_names_a_root_that_is_not_a_directory(
    tmp_path: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "broken").symlink_to("nowhere")
    options = "?mkdir=false" if settings else ""
    for cold in (
        LocalDriver(tmp_path / name, **settings),
        f"file://{tmp_path / name}{options}",
        Mapped(LocalDriver(tmp_path / name, **settings), into="b"),
    ):
        error = await opening_error(cold)
        assert isinstance(error, ConfigError)
        assert message.format(tmp_path) in str(error)
        assert error.operation == "open"


async def test_error_names_a_root_that_cannot_be_created() -> None:
    error = await opening_error(LocalDriver("/proc/self/nothing"))
    assert "the root '/proc/self/nothing' does not exist and cannot be created" in str(error)


async def test_error_names_a_root_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open
    forbidden = ""

    def open_unless_forbidden(path: Any, *args: Any, **options: Any) -> int:
        if path == forbidden:
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, *args, **options)

    monkeypatch.setattr(os, "open", open_unless_forbidden)
    for path, message in ((str(tmp_path), "cannot be opened: "), (".trove", "at '.trove': ")):
        forbidden = path
        error = await opening_error(LocalDriver(tmp_path))
        assert isinstance(error, PermissionDeniedError)
        assert f"the root '{tmp_path}' cannot be opened" in str(error)
        assert message in str(error)
        assert "owner and mode" in str(error)


CREDENTIALS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(missing_ok=True),
    "directory": Path.mkdir,
    "malformed": lambda path: path.write_text("{nope SECRET"),
    "unknown": lambda path: path.write_text(json.dumps({"type": "SECRET", "private_key": "KEY"})),
}


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize("source", ["driver", "url", "environment"])
async def test_error_names_the_file_of_invalid_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, source: str
) -> None:
    path = tmp_path / "credentials.json"
    CREDENTIALS[kind](path)
    if source == "environment":
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    backends: dict[str, Callable[[], AsyncDriver | str]] = {
        "driver": lambda: GCSDriver(credentials=path),
        "url": lambda: f"gcs://bucket?credentials={path}",
        "environment": GCSDriver,
    }
    error = await opening_error(backends[source]())
    setting = "GOOGLE_APPLICATION_CREDENTIALS" if source == "environment" else "credentials"
    assert f"{setting} '{path}': " in str(error)
    assert "SECRET" not in str(error)
    assert "KEY" not in str(error)


async def test_error_does_not_show_credentials_passed_as_a_path() -> None:
    error = await opening_error(
        GCSDriver(credentials='{"type": "service_account", "private_key": "KEY"}')
    )
    assert "credentials: " in str(error)
    assert "KEY" not in str(error)


@pytest.mark.parametrize(
    ("url", "setting"),
    [
        ("file:///data?fsync=maybe", "option fsync"),
        ("file:///data?file_mode=rw", "option file_mode"),
        ("s3://bucket?endpoint=htp://x", "endpoint"),
        ("gcs://bucket?max_connections=few", "option max_connections"),
        ("ftp://host", "unknown scheme 'ftp'"),
    ],
)
def test_error_names_the_backend_of_an_invalid_url(url: str, setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Trove(MemoryDriver(), backends={"cold": url})
    assert setting in str(caught.value)
    assert str(caught.value).endswith("[on backend 'cold']")


async def test_error_names_an_unknown_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    error = await opening_error("s3://bucket?region=eu-west-1&profile=nobody")
    assert "config profile (nobody)" in str(error)


async def test_error_of_open_names_the_backend_and_the_operation() -> None:
    driver = Fake()
    driver.fail("open", UnavailableError("down"))
    error = await opening_error(driver)
    assert error.operation == "open"
