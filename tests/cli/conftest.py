"""Runs the command line in this process, on stores in temporary directories and on SeaweedFS."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from trove_async.cli import main
from trove_async.testing.servers import S3Server

SRC = """
default = "file://{root}/hot"
locate = "anywhere"
routes = [["*.log", "cold"], {{ prefix = "archive/", backend = "archive" }}]

[backends]
cold = "file://{root}/cold"
archive = "file://{root}/archive"
"""


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str
    raw: bytes

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


Trove = Callable[..., Result]


@pytest.fixture
def trove(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Trove:
    """Return a function that runs one command."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "TROVE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["trove", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        code = caught.value.code
        assert isinstance(code, int)
        return Result(
            code, captured.out.decode("utf-8", "replace"), captured.err.decode(), captured.out
        )

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration with three local backends."""
    path = tmp_path / "trove.toml"
    path.write_text(SRC.format(root=tmp_path / "stores"))
    return path


@pytest.fixture
def configured(trove: Trove, config: Path, monkeypatch: pytest.MonkeyPatch) -> Trove:
    """Return `trove` with a configured store that has the bucket "data" on all backends."""
    monkeypatch.setenv("TROVE_CONFIG", str(config))
    assert trove("mb", "data", "--on", "all", "--quiet").code == 0
    return trove


@pytest.fixture
def s3(seaweed: S3Server, trove: Trove, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a new bucket on SeaweedFS, whose address and keys are in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_access_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", seaweed.region)
    url = f"s3://cli-{uuid4().hex}"
    assert trove("mb", url, "--quiet").code == 0
    return url


def tree(root: Path, files: dict[str, bytes]) -> Path:
    """Make a directory with files."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def contents(root: Path) -> dict[str, bytes]:
    """Return the files below a directory."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
