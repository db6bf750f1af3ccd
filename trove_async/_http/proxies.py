"""Choice of a transport: direct, or through a proxy from an argument or the environment."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final
from urllib.request import (  # type: ignore[attr-defined] # typeshed lacks the second
    getproxies_environment,
    proxy_bypass_environment,
)

import yarl

from trove_async.errors import ConfigError
from trove_async.models import Timeout

from .socket_transport import SocketTransport

if TYPE_CHECKING:
    from .transport import Origin, Response, StreamedBody, Transport

_SCHEMES: Final = frozenset({"http", "https"})


def check_proxy(url: str, setting: str = "proxy") -> str:
    """Return the URL of an HTTP proxy if it is valid.

    Args:
        url: ``http://[user:password@]host[:port]``, or ``https://…``.
        setting: The name of the argument or the environment variable, for the message.

    Raises:
        ConfigError: The URL is malformed, or its scheme is neither http nor https. The message
            omits the URL, which may contain a password.
        TypeError: The URL is not a str.
    """
    if not isinstance(url, str):
        kind = type(url).__name__
        del url  # as below
        raise TypeError(f"{setting} must be a str, got {kind}")
    scheme = _scheme_of(url)
    if scheme not in _SCHEMES:
        # Without "://", the text before the colon is a user or a host.
        is_scheme = scheme.isalnum() and url.lower().startswith(f"{scheme}://")
        actual = f", got {scheme}://" if is_scheme else ""
        del url  # it may contain a password, which a recorded traceback would show
        raise ConfigError(f"{setting} must be http://host[:port] or https://host[:port]{actual}")
    return url


def check_tls(tls: object) -> None:
    """Raise TypeError unless `tls` is an SSL context or None."""
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"tls must be an ssl.SSLContext, got {type(tls).__name__}")


def _scheme_of(url: str) -> str:
    """Return the scheme of a proxy URL.

    Return ``""`` for a malformed URL, and for an http or https URL without a valid host and port.
    """
    try:
        parts = yarl.URL(url)
        is_usable = bool(parts.host) and parts.port is not None and url.isascii()
    except (ValueError, TypeError):
        return ""
    return parts.scheme if is_usable or parts.scheme not in _SCHEMES else ""


class Proxies:
    """The proxies of an environment: HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

    The rules are those of the Python standard library and the SDKs. Lower-case names take
    precedence. NO_PROXY is ``*`` or a list of ``host`` and ``host:port``. A host name includes its
    subdomains. In addition, NO_PROXY may list addresses and networks (``10.0.0.0/8``).

    Args:
        settings: The URL of the proxy for each scheme, and the value of NO_PROXY under ``"no"``;
            None reads the environment.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._settings = dict(getproxies_environment() if settings is None else settings)

    def __bool__(self) -> bool:
        return not _SCHEMES.isdisjoint(self._settings)

    def proxy_for(self, origin: Origin) -> str | None:
        """Return the URL of the proxy for an origin, or None to connect directly.

        Raises:
            ConfigError: The proxy in the environment is not an HTTP proxy.
        """
        url = self._settings.get(origin.scheme)
        if not url or self._is_bypassed(origin):
            return None
        return check_proxy(_absolute(url), f"{origin.scheme.upper()}_PROXY")

    @property
    def urls(self) -> Sequence[str]:
        """The URLs of the proxies. They may contain passwords, and may be malformed."""
        return [_absolute(url) for scheme, url in self._settings.items() if scheme in _SCHEMES]

    def _is_bypassed(self, origin: Origin) -> bool:
        host = origin.host.strip("[]")
        if proxy_bypass_environment(
            f"{host}:{origin.port}" if ":" not in host else host, self._settings
        ):
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        entries = self._settings.get("no", "").split(",")
        return any(_covers(entry.strip().strip("[]"), address) for entry in entries)


def _absolute(url: str) -> str:
    """Return a proxy URL with a scheme, which is optional in the environment."""
    return url if "://" in url else f"http://{url}"


def _covers(entry: str, address: object) -> bool:
    """Return whether an entry of NO_PROXY is a network that contains the address."""
    try:
        return address in ip_network(entry, strict=False)
    except ValueError:  # a host name
        return False


class RoutedTransport:
    """A `Transport` that sends each request through the proxy for its origin, or directly.

    Args:
        timeout: See `SocketTransport`.
        proxies: The proxies.
        tls: The TLS context; None uses the certificates that the system trusts.
    """

    def __init__(self, timeout: Timeout, proxies: Proxies, *, tls: ssl.SSLContext | None) -> None:
        self._timeout = timeout
        self._proxies = proxies
        self._tls = tls
        self._transports: dict[str | None, Transport] = {None: SocketTransport(timeout, tls=tls)}
        self._routes: dict[Origin, Transport] = {}

    async def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        views: Sequence[memoryview] | StreamedBody = (),
        *,
        patient: bool = False,
    ) -> Response:
        """Send a request. See `Transport.send`."""
        transport = self._routes.get(origin) or self._route(origin)
        request = transport.send(method, origin, target, headers, views, patient=patient)
        del headers  # a traceback recorded with locals would show the credentials
        return await request

    async def aclose(self) -> None:
        """Close all connections. See `Transport.aclose`."""
        for transport in self._transports.values():
            await transport.aclose()

    def _route(self, origin: Origin) -> Transport:
        """Return the transport for an origin. All origins of one proxy share a transport."""
        proxy = self._proxies.proxy_for(origin)
        transport = self._transports.get(proxy)
        if transport is None:
            transport = _over_proxy(self._timeout, tls=self._tls, proxy=proxy)
            self._transports[proxy] = transport
        self._routes[origin] = transport
        return transport


def proxy_urls(proxy: str | None, *, trust_env: bool) -> Sequence[str]:
    """Return the URLs of all proxies that `transport_over` may use."""
    if proxy is not None:
        return [proxy]
    return Proxies().urls if trust_env else []


def transport_over(
    timeout: Timeout, *, tls: ssl.SSLContext | None, proxy: str | None, trust_env: bool = True
) -> Transport:
    """Return a transport: over aiohttp for requests through a proxy, over sockets for all others.

    Args:
        timeout: See `SocketTransport`.
        tls: The TLS context; None uses the certificates that the system trusts.
        proxy: The URL of a proxy for all requests.
        trust_env: Whether to use the proxies of the environment if `proxy` is None.
    """
    if proxy is not None:
        return _over_proxy(timeout, tls=tls, proxy=proxy)
    proxies = Proxies() if trust_env else Proxies({})
    if proxies:
        return RoutedTransport(timeout, proxies, tls=tls)
    return SocketTransport(timeout, tls=tls)


def _over_proxy(timeout: Timeout, *, tls: ssl.SSLContext | None, proxy: str | None) -> Transport:
    from .aiohttp_transport import AiohttpTransport  # noqa: PLC0415 - slow to import, and rarely needed

    return AiohttpTransport(timeout, tls=tls, proxy=proxy)
