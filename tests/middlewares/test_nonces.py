"""Salts and nonce prefixes of encryption never repeat."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import trove_async
from trove_async.middleware import ObjectContext
from trove_async.middlewares import Encryption, Keyring

CONTEXT = ObjectContext(bucket="bucket", key="key", backend="default")

FORKING_PROGRAM = """
import asyncio, os, sys
from trove_async.middleware import ObjectContext
from trove_async.middlewares import Encryption, Keyring

CONTEXT = ObjectContext(bucket="bucket", key="key", backend="default")
encryption = Encryption(Keyring({"key": bytes(32)}))

async def headers(count):
    return [(await encryption.encoder(CONTEXT)).header for _ in range(count)]

count = int(sys.argv[1])
found = asyncio.run(headers(count))
for _ in range(4):
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            pipe.write(b"".join(asyncio.run(headers(count))))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    found += [data[at : at + 40] for at in range(0, len(data), 40)]
found += asyncio.run(headers(count))
assert len(found) == len(set(found)) == 6 * count
assert len({header[1:33] for header in found}) == 6 * count  # the salts alone
"""


async def check_headers(count: int) -> None:
    encryption = Encryption(Keyring({"key": bytes(32)}))
    headers = [(await encryption.encoder(CONTEXT)).header for _ in range(count)]
    assert len(set(headers)) == count
    assert len({header[1:33] for header in headers}) == count


def check_forks(count: int) -> None:
    result = subprocess.run(  # noqa: S603 - runs the program above
        [sys.executable, "-W", "error", "-c", FORKING_PROGRAM, str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(trove_async.__file__).parent.parent)},
    )
    assert (result.returncode, result.stderr) == (0, "")


async def test_encoders_have_distinct_salts() -> None:
    await check_headers(10_000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_encoders_of_forked_processes_have_distinct_salts() -> None:
    check_forks(1000)


async def test_salts_are_distinct_while_the_clock_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for clock in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, clock, lambda: 0.0)
    for clock in ("time_ns", "monotonic_ns", "perf_counter_ns"):
        monkeypatch.setattr(time, clock, lambda: 0)
    encryption = Encryption(Keyring({"key": bytes(32)}))
    headers = {(await encryption.encoder(CONTEXT)).header for _ in range(100)}
    assert len(headers) == 100


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_very_many_encoders_have_distinct_salts() -> None:
    await check_headers(100_000)
    check_forks(20_000)
