"""Fixtures and hooks for all tests."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import pytest_timeout  # type: ignore[import-untyped]
import uvloop
from blockbuster import blockbuster_ctx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import settings

from tests.clock import IdleTimeLoop
from trove_async.testing import servers

# A deadline for each example would fail on a busy machine. Every test has a timeout as a whole.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from trove_async.testing.servers import GCSServer, S3Server


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the event loops of a test: asyncio's, and uvloop's if the test has the mark ``uvloop``.

    A test with the mark ``idle_time`` runs only on `IdleTimeLoop`.
    """
    del config
    if item.get_closest_marker("idle_time") is not None:
        return {"idle": IdleTimeLoop}
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("uvloop") is not None:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes for ``--numprocesses=auto``: two for each core.

    Two thirds of the time of a run are spent waiting for servers and timers.
    """
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Start a new timeout for the fixtures, because a test's timeout fires only once."""
    hooks, settings = item.config.hook, pytest_timeout._get_item_settings(item)
    hooks.pytest_timeout_cancel_timer(item=item)
    if settings.timeout and not settings.func_only:
        hooks.pytest_timeout_set_timer(item=item, settings=settings)
    yield


@pytest.fixture(scope="session", autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """Make blocking calls raise if they run on an event loop below a frame of the package."""
    with blockbuster_ctx("trove_async", excluded_modules=["trove_async.testing"]) as guard:
        # `aclose` joins a thread whose only call was already awaited, so the thread is about to end.
        guard.functions["threading.Lock.acquire"].can_block_in("local/_threads.py", "aclose")
        # The SDK runs on a separate event loop in a worker thread.
        for function in guard.functions.values():
            function.can_block_in("s3/_credentials.py", "_run")
            # The blocking facade blocks the loop of its caller, if there is one, and waits for its own loop.
            function.can_block_in("blocking/_loop.py", "run")
        yield


@pytest.fixture(scope="session")
def seaweed() -> Iterator[S3Server]:
    """Run SeaweedFS for all tests of this process. Tests fail if it is not installed."""
    with servers.seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """Run moto for all tests of this process. Tests fail if it is not installed."""
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[GCSServer]:
    """Run fake-gcs-server for all tests of this process. Tests fail if it is not installed."""
    with servers.fake_gcs() as server:
        yield server


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server context and a client context for a new self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    certificate_pem = certificate.public_bytes(pem)
    plain, pkcs8 = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    chain = tmp_path_factory.mktemp("tls") / "chain.pem"
    chain.write_bytes(key.private_bytes(pem, pkcs8, plain) + certificate_pem)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(chain)
    return server, ssl.create_default_context(cadata=certificate_pem.decode())
