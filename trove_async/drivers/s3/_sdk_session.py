"""An aiobotocore session that does not follow redirects, and shares the SDK's data with all others.

aiobotocore sends requests through aiohttp, which follows redirects by default. A server could
redirect a request for credentials, with its session token or web identity, to any host. botocore
itself does not follow redirects. With this session, a redirect raises an error. The exception is a
redirect of S3 with the bucket's region in a header: the SDK then derives the new address from the
region, and ignores the redirect's host.

A client needs the SDK's description of its service, and a session of its own would parse it from files: 90 ms
of CPU time for S3.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader

if TYPE_CHECKING:
    import aiohttp


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class RedirectError(Exception):
    """Raised when the response is a redirect. The SDK wraps it in an HTTPClientError."""


class _NoRedirectSession:
    """Wraps an aiohttp session so that it does not follow redirects.

    It has only the method that the SDK calls.

    Args:
        session: The session to send through.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, *args: Any, **options: Any) -> aiohttp.ClientResponse:  # noqa: ANN401 - passed on
        """Send a request and return its response.

        Raises:
            RedirectError: The response is a redirect without a region header. The SDK would request
                the region from the same server, and be redirected again and again.
        """
        pending = self._session.request(*args, **{**options, "allow_redirects": False})
        del args, options  # a traceback that records local variables would show credentials
        response = await pending
        if response.status in _REDIRECTS and "x-amz-bucket-region" not in response.headers:
            response.close()
            raise RedirectError(
                f"redirects are not followed, but the server responded with {response.status}"
            )
        return response


def _disable_redirects(http: Any) -> None:  # noqa: ANN401 - the SDK has no types
    """Patch one of the SDK's HTTP sessions so that it does not follow redirects."""
    get_session = http._get_session  # noqa: SLF001 - the SDK has no public hook

    async def get_wrapped_session(*args: object) -> _NoRedirectSession:
        return _NoRedirectSession(await get_session(*args))

    http._get_session = get_wrapped_session  # noqa: SLF001 - see above


class _HTTPSession(AIOHTTPSession):  # type: ignore[misc]  # the SDK has no types
    """The class of the HTTP sessions that clients of `_Session` use."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        _disable_redirects(self)


@cache
def _shared_loader(data_path: str | None) -> Loader:
    """Return the loader of the SDK's data files, which keeps what it has loaded.

    Args:
        data_path: The directories of further files, from the SDK's configuration.
    """
    return create_loader(data_path)


class _Session(AioSession):  # type: ignore[misc]  # the SDK has no types
    """A session whose clients do not follow redirects, and that parses no file that another one has parsed.

    This includes the clients that credential providers create.

    Attributes:
        trust_env: Whether the clients use the environment's proxies.
    """

    trust_env = True

    def _register_data_loader(self) -> None:
        # Overridden, because there is no public hook before the session itself needs the loader. If a release
        # renames this method, each session parses the files.
        self._components.lazy_register_component(
            "data_loader", lambda: _shared_loader(self.get_config_variable("data_path"))
        )

    def create_client(
        self,
        *args: object,
        config: Any = None,  # noqa: ANN401 - the SDK has no types
        **options: object,
    ) -> Any:  # noqa: ANN401 - the SDK has no types
        """Return the SDK's context manager, which opens and closes a client."""
        merged = AioConfig(http_session_cls=_HTTPSession, proxies=None if self.trust_env else {})
        if config is not None:
            merged = merged.merge(config)
            merged.http_session_cls = _HTTPSession  # older releases drop it when they merge
        return super().create_client(*args, config=merged, **options)


def sdk_session(profile: str | None, *, trust_env: bool = True) -> AioSession:
    """Return an SDK session that does not follow redirects.

    Args:
        profile: A profile in the SDK's configuration files. None lets the SDK choose.
        trust_env: Whether clients without explicit proxies use the environment's proxies.
    """
    session = _Session(profile=profile)
    session.trust_env = trust_env
    for provider in session.get_component("credential_provider").providers:
        # The providers of instance and container credentials send requests without a client.
        for name in ("_role_fetcher", "_fetcher"):
            http = getattr(getattr(provider, name, None), "_session", None)
            if isinstance(http, AIOHTTPSession):
                _disable_redirects(http)
    return session
