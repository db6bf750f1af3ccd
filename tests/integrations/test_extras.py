"""Imports of integrations without their extras."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.modules[{missing!r}] = None
try:
    import trove_async.integrations.{module}
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("starlette", "starlette", "fastapi"),
        ("starlette", "python_multipart", "fastapi"),
        ("aiohttp", "aiohttp", "aiohttp"),
        ("aiohttp", "python_multipart", "aiohttp"),
        ("otel", "opentelemetry", "otel"),
        ("fsspec", "fsspec", "fsspec"),
        ("obspec", "obspec", "obspec"),
        ("django", "django", "django"),
    ],
)
def test_missing_extra_is_named_in_error(module: str, missing: str, extra: str) -> None:
    process = subprocess.run(  # noqa: S603 - constant arguments
        [sys.executable, "-c", PROGRAM.format(missing=missing, module=module)],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert f"pip install 'trove-async[{extra}]'" in process.stdout


def test_missing_package_of_upath_is_named_in_error() -> None:
    process = subprocess.run(  # noqa: S603 - constant arguments
        [sys.executable, "-c", PROGRAM.format(missing="upath", module="upath")],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert "pip install 'universal_pathlib" in process.stdout


def test_logs_integration_imports_no_extra() -> None:
    names = ("starlette", "fastapi", "aiohttp", "opentelemetry", "python_multipart", "django")
    query = f"print([name for name in {names} if name in sys.modules])"
    process = subprocess.run(  # noqa: S603 - constant arguments
        [sys.executable, "-c", f"import sys, trove_async.integrations.logs; {query}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert process.stdout == "[]\n"
