"""Imports of integrations without their extras."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.modules[{missing!r}] = None
try:
    import trove_async.integrations.{room}
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("room", "missing", "extra"),
    [
        ("starlette", "starlette", "fastapi"),
        ("starlette", "python_multipart", "fastapi"),
        ("aiohttp", "aiohttp", "aiohttp"),
        ("aiohttp", "python_multipart", "aiohttp"),
        ("otel", "opentelemetry", "otel"),
    ],
)
def test_missing_extra_is_named_in_error(room: str, missing: str, extra: str) -> None:
    ran = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", PROGRAM.format(missing=missing, room=room)],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert f"pip install 'trove-async[{extra}]'" in ran.stdout


def test_logs_integration_imports_no_extra() -> None:
    names = ("starlette", "fastapi", "aiohttp", "opentelemetry", "python_multipart")
    asks = f"print([name for name in {names} if name in sys.modules])"
    ran = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", f"import sys, trove_async.integrations.logs; {asks}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert ran.stdout == "[]\n"
