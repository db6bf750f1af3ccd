"""Errors for connections that could not be opened: host, port, reason and remedy."""

from __future__ import annotations

import errno
import socket
import ssl

from trove_async.errors import ConfigError, TimedOutError, TroveError, UnavailableError


def connect_error(error: BaseException, address: str) -> TroveError:
    """Return the error for a connection that could not be opened.

    Args:
        error: The exception of the socket, the resolver or TLS.
        address: Host and port, for the message.
    """
    prefix = f"cannot connect to {address}"
    if isinstance(error, ssl.CertificateError):
        return ConfigError(
            f"{prefix}: the certificate is not trusted ({_reason(error)}); "
            "pass an SSL context that trusts its issuer as `tls`"
        )
    if isinstance(error, ssl.SSLError):
        return UnavailableError(
            f"{prefix}: the TLS handshake failed ({_reason(error)}); "
            "check that the port of the endpoint serves HTTPS"
        )
    if isinstance(error, TimeoutError):
        return TimedOutError(
            f"{prefix}: the connection timed out; check the endpoint and the firewalls on the network path"
        )
    if isinstance(error, (socket.gaierror, UnicodeError)):
        advice = f"the host name does not resolve ({_reason(error)}); check the endpoint"
    elif _has_errno(error, errno.ECONNREFUSED):
        advice = "connection refused; check the port, and that the service is running"
    elif _has_errno(error, errno.ECONNRESET):
        advice = "the connection was reset; check the scheme and the port of the endpoint"
    else:
        advice = f"{_reason(error)}; check the endpoint and the network"
    return UnavailableError(f"{prefix}: {advice}")


def _has_errno(error: BaseException, code: int) -> bool:
    """Return whether a connection failed with `code` for at least one address of the host."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == code
    return f"[Errno {code}]" in str(error)  # asyncio joins the messages of several addresses


def _reason(error: BaseException) -> str:
    # The reason in words, from TLS or the operating system, without error codes.
    text = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    text = text or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)[:200]
