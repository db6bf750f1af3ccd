"""An aiobotocore session that follows no redirects.

aiobotocore sends through aiohttp, which follows redirects. A response could redirect a request for
credentials, with its session token or web identity, to any host. botocore itself follows none. Here
a redirect fails the request. The exception is S3's redirect that contains a bucket's region: the SDK
derives the new address from the region.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession

if TYPE_CHECKING:
    import aiohttp


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class RedirectError(Exception):
    """Raised for a redirect. The SDK converts it to one of its errors."""


class _NoRedirectSession:
    """Wraps an aiohttp session so that it follows no redirects. It has the one method that the SDK calls.

    Args:
        session: The session to send through.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, *args: Any, **options: Any) -> aiohttp.ClientResponse:  # noqa: ANN401 - passed on
        """Send a request and return its response.

        Raises:
            RedirectError: The response is a redirect without a bucket's region. The SDK would request
                the region from such a server and be redirected again, without end.
        """
        sending = self._session.request(*args, **{**options, "allow_redirects": False})
        del args, options  # a traceback recorded with its variables would show credentials
        response = await sending
        if response.status in _REDIRECTS and "x-amz-bucket-region" not in response.headers:
            response.close()
            raise RedirectError(
                f"redirects are not followed, but the server responded with {response.status}"
            )
        return response


def _disable_redirects(http: Any) -> None:  # noqa: ANN401 - the SDK has no types
    """Make one of the SDK's HTTP sessions follow no redirects."""
    get_session = http._get_session  # noqa: SLF001 - the SDK has no public hook

    async def get_wrapped_session(*args: object) -> _NoRedirectSession:
        return _NoRedirectSession(await get_session(*args))

    http._get_session = get_wrapped_session  # noqa: SLF001 - see above


class _HTTPSession(AIOHTTPSession):  # type: ignore[misc]  # the SDK has no types
    """The HTTP session of every client of `_Session`."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        _disable_redirects(self)


class _Session(AioSession):  # type: ignore[misc]  # the SDK has no types
    """A session whose clients follow no redirects, including the clients of credential providers.

    Attributes:
        trust_env: Whether the clients use the environment's proxies.
    """

    trust_env = True

    def create_client(
        self,
        *args: object,
        config: Any = None,  # noqa: ANN401 - the SDK has no types
        **options: object,
    ) -> Any:  # noqa: ANN401 - the SDK has no types
        """Return the SDK's context manager of a client."""
        merged = AioConfig(http_session_cls=_HTTPSession, proxies=None if self.trust_env else {})
        if config is not None:
            merged = merged.merge(config)
            merged.http_session_cls = _HTTPSession  # early releases lose it in the merge
        return super().create_client(*args, config=merged, **options)


def sdk_session(profile: str | None, *, trust_env: bool = True) -> AioSession:
    """Return an SDK session that follows no redirects.

    Args:
        profile: A section of the SDK's configuration files. None for the SDK's choice.
        trust_env: Whether clients without explicit proxies use the environment's.
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
