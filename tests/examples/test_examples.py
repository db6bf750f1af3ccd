"""Every program in examples/ runs and prints what it demonstrates, except the web services."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trove_async
from trove_async.middlewares import Keyring

ROOT = Path(trove_async.__file__).parent.parent
EXAMPLES = ROOT / "examples"

OUTPUT = {
    "multi_backend.py": ["On archive:", "archive/2023.csv", "disk.iso  4096 bytes on archive"],
    "route_by_extension.py": ["app.log              -> cold", "logs/2024/app.log    -> archive"],
    "route_by_bucket.py": ["large-files/body.bin: 1000000 bytes on large"],
    "per_tenant.py": ["tenant-acme/invoice.txt is on acme", "for tenant-acme"],
    "custom_driver.py": [],
    "virus_scan.py": [
        "runs with a fake that knows only EICAR",
        "clean.txt was stored: 20 bytes",
        "eicar.com was blocked: the body contains a virus: Eicar-Test-Signature",
        "eicar.com exists: False",
    ],
    "compressed_logs.py": [
        "bytes are stored as",
        "4 KiB at 1000000: requests: 3,",
        "4 KiB at 9000000: requests: 1,",
    ],
    "cache.py": [
        "a range:                     1 get, 0 head",
        "both again:                  0 get, ",
        "after a replacement: b'replaced'",
        "8.0 of 64 MiB used",
    ],
    "encryption.py": [
        "11012 bytes are stored as 11068 bytes by aes256-gcm-hkdf",
        "plaintext in it: False",
        "read through the store: b'name,salary'",
        "readable with both keys: True",
        "readable with the new key alone: True",
        "with the old key alone: the object was encrypted with the key 'next'",
        "decrypted with Tink: True",
    ],
    "hot_cold_archive.py": [
        "objects by backend",
        "MiB stored",
        "archive",
        "the pool held at most",
        "objects misplaced",
        "rebalance of 'stdlib'",
        "reads meanwhile, all verified",
    ],
    "migrate.py": [
        "before: default",
        "changed 199",
        "after: new",
        "left to copy: 0",
        "equal: 199 - different: reports/007.txt",
        "rewritten during the migration",
    ],
    "tiering.py": [
        "after 0 days, 1 moved: notes.txt on default, pinned/logo.svg on default, video.bin on cold",
        "notes.txt on archive",
        "put again: default",
        "moved again: cold b'new notes'",
    ],
}

SERVICES = {"fastapi_service.py", "aiohttp_service.py"}
"""Programs that run until they are stopped. They are tested in test_services.py."""


def run(script: str, *arguments: str, demo: str = "", **environment: str) -> str:
    process = subprocess.run(  # noqa: S603 - our own examples
        [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "100", "TROVE_DEMO": demo, **environment},
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == OUTPUT.keys() | SERVICES


@pytest.mark.parametrize("script", OUTPUT.keys() - {"hot_cold_archive.py"})
def test_example_runs_and_prints_the_expected_lines(script: str) -> None:
    output = run(script)
    for line in OUTPUT[script]:
        assert line in output


def test_encryption_example_uses_the_keys_of_the_environment() -> None:
    output = run("encryption.py", TROVE_KEYS=f"mine:{Keyring.generate_key()}")
    assert "TROVE_KEYS is not set" not in output
    assert "which Keyring('mine') does not have" in output


def test_compression_example_uses_the_zstd_command_if_it_is_installed() -> None:
    output = run("compressed_logs.py")
    if shutil.which("zstd", path=os.defpath) is None:
        assert "install zstd to decompress" in output
    else:
        assert "the file, decompressed by zstd -dc, is the log: True" in output
    assert "install zstd to decompress" in run("compressed_logs.py", PATH="/nowhere")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    names = ("a.py", "doc/readme.txt", "__pycache__/a.pyc", "pack.zip", "test/test_a.py")
    for name in (*names, "package/module.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(name.encode() * 1000)
    return tree


def test_main_example_runs_on_a_directory(tree: Path, tmp_path: Path) -> None:
    output = run("hot_cold_archive.py", str(tree), "--root", str(tmp_path / "store"))
    for line in OUTPUT["hot_cold_archive.py"]:
        assert line in output
    # The last act has moved the sources to the cold backend.
    cold = tmp_path / "store" / "cold" / "stdlib"
    assert (cold / "a.py").read_bytes() == b"a.py" * 1000
    assert (cold / "pack.zip").exists()
    assert (cold / "retired" / "test" / "test_a.py").exists()
    source = cold / "package" / "module.py"
    assert source.read_bytes().startswith(b"\x28\xb5\x2f\xfd")  # a zstd frame
    archived = tmp_path / "store" / "archive" / "stdlib" / "doc" / "readme.txt"
    assert archived.read_bytes()[0] == 40  # the size of the header of Tink's format
    assert b"readme" not in archived.read_bytes()


def test_main_example_skips_installed_packages_only_below_the_tree(
    tree: Path, tmp_path: Path
) -> None:
    package = tmp_path / "site-packages" / "package"
    shutil.copytree(tree, package)
    shutil.copytree(tree, package / "site-packages")
    run("hot_cold_archive.py", str(package), "--root", str(tmp_path / "store"))
    assert (tmp_path / "store" / "cold" / "stdlib" / "a.py").exists()
    assert not (tmp_path / "store" / "cold" / "stdlib" / "site-packages").exists()


def test_main_example_runs_with_s3_as_cold_backend(tree: Path, tmp_path: Path) -> None:
    output = run("hot_cold_archive.py", str(tree), "--root", str(tmp_path / "store"), demo="s3")
    for line in ("cold is SeaweedFS at http://127.0.0.1:", *OUTPUT["hot_cold_archive.py"]):
        assert line in output
    assert not (tmp_path / "store" / "cold").exists()


def test_main_example_runs_over_three_protocols(tree: Path, tmp_path: Path) -> None:
    output = run("hot_cold_archive.py", str(tree), "--root", str(tmp_path / "store"), demo="cloud")
    for line in (
        "cold is SeaweedFS at http://127.0.0.1:",
        "archive is fake-gcs-server at http://127.0.0.1:",
        *OUTPUT["hot_cold_archive.py"],
    ):
        assert line in output
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["hot"]
