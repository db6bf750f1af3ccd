"""What a failed connection is here: an error that names host, port, reason and remedy."""

from __future__ import annotations

import errno
import socket
import ssl

from trove_async.errors import ConfigError, TimedOutError, TroveError, UnavailableError


def unreachable(error: BaseException, address: str) -> TroveError:
    """Return our error for a connection that could not be made.

    Args:
        error: The failure, as the socket, the resolver or TLS raised it.
        address: Host and port, as the message names them.
    """
    tried = f"cannot connect to {address}"
    if isinstance(error, ssl.CertificateError):
        return ConfigError(
            f"{tried}: its certificate is not trusted ({_reason(error)}); "
            "pass an SSL context that trusts its issuer as `tls`"
        )
    if isinstance(error, ssl.SSLError):
        return UnavailableError(
            f"{tried}: the TLS handshake failed ({_reason(error)}); "
            "check that the endpoint's port speaks HTTPS"
        )
    if isinstance(error, TimeoutError):
        return TimedOutError(
            f"{tried}: no connection in time; check the endpoint and the firewalls on the way"
        )
    if isinstance(error, (socket.gaierror, UnicodeError)):
        advice = f"the host name does not resolve ({_reason(error)}); check the endpoint's name"
    elif _is(error, errno.ECONNREFUSED):
        advice = "connection refused; check the port, and that the service is running"
    elif _is(error, errno.ECONNRESET):
        advice = "the connection was reset; check that the endpoint's port speaks its scheme"
    else:
        advice = f"{_reason(error)}; check the endpoint and the network"
    return UnavailableError(f"{tried}: {advice}")


def _is(error: BaseException, code: int) -> bool:
    """Return whether a connection failed for one reason, of several addresses one of them."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == code
    return f"[Errno {code}]" in str(error)  # asyncio joins the texts of several failures


def _reason(error: BaseException) -> str:
    text = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    text = text or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)[:200]
