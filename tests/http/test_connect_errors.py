"""Errors for connections that cannot be opened or that break, and what their messages contain."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.http.scripted_server import ServerConnection, respond_with, serving
from trove_async._http import Origin
from trove_async._http.connect_errors import connect_error
from trove_async.errors import ConfigError, TimedOutError, TroveError, UnavailableError

if TYPE_CHECKING:
    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop


async def failure(transport: Transport, origin: Origin) -> TroveError:
    with pytest.raises(TroveError) as caught:
        await transport.send("GET", origin, "/", {})
    return caught.value


async def test_refused_connection_names_host_and_port(transport: Transport) -> None:
    async with serving(respond_with()) as server:
        origin = server.origin
    error = await failure(transport, origin)
    assert type(error) is UnavailableError
    assert f"127.0.0.1:{origin.port}: connection refused; check" in str(error)


async def test_unresolvable_host_is_reported(transport: Transport) -> None:
    error = await failure(transport, Origin("https", "no-such-host.invalid", 443))
    assert type(error) is UnavailableError
    assert "no-such-host.invalid:443: the host name does not resolve (" in str(error)


async def test_untrusted_certificate_is_reported_with_reason(
    transport: Transport, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async with serving(respond_with(), tls[0]) as server:
        error = await failure(transport, server.origin)
        assert type(error) is ConfigError
        message = f"127.0.0.1:{server.origin.port}: the certificate is not trusted ("
        assert message in str(error)
        assert "certificate" in str(error).split("(")[1]
        assert "`tls`" in str(error)


async def test_port_without_tls_is_reported(transport: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.reader.read(100)
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(handler) as server:
        error = await failure(transport, Origin("https", "127.0.0.1", server.origin.port))
        assert type(error) is UnavailableError
        assert f"127.0.0.1:{server.origin.port}" in str(error)
        assert "TLS" in str(error)


async def test_broken_connection_names_host_and_port(transport: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        connection.reset()

    async with serving(handler) as server:
        error = await failure(transport, server.origin)
        assert type(error) is UnavailableError
        assert f"127.0.0.1:{server.origin.port}" in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (TimeoutError(), TimedOutError, "the connection timed"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), UnavailableError, "refused"),
        (OSError("Multiple exceptions: [Errno 111] a, [Errno 111] b"), UnavailableError, "refused"),
        (ConnectionResetError(errno.ECONNRESET, "x"), UnavailableError, "was reset"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), UnavailableError, "is unreachable"),
        (socket.gaierror(-2, "Name or service not known"), UnavailableError, "(Name or service"),
        (UnicodeError("label too long"), UnavailableError, "(label too long"),
        (ssl.SSLError(1, "x"), UnavailableError, "TLS handshake failed"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:20],
)
def test_each_connect_error_states_its_reason(
    error: Exception, kind: type[TroveError], reason: str
) -> None:
    connect_failure = connect_error(error, "host:443")
    assert type(connect_failure) is kind
    assert str(connect_failure).startswith("cannot connect to host:443: ")
    assert reason in str(connect_failure)
