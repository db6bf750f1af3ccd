"""The SDK's session, made to follow no redirect.

aiobotocore leaves redirects to aiohttp, which follows them: a request for credentials, with a
session's token or a role's web identity in it, would go wherever a response says. botocore itself
follows none. Here a redirect fails the request, but for S3's own, which names a bucket's region: the
SDK knows the address there by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession

if TYPE_CHECKING:
    import aiohttp


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class RedirectedError(Exception):
    """The server redirects; the SDK raises its own error for it."""


class _Unfollowing:
    """aiohttp's session, as the SDK uses it.

    Args:
        session: The session.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, *args: Any, **options: Any) -> aiohttp.ClientResponse:  # noqa: ANN401 - passed on
        """Send a request; return its response.

        Raises:
            RedirectedError: It is a redirect that names no bucket's region. Asked for the region by
                the SDK, such a server would redirect again, without an end.
        """
        sending = self._session.request(*args, **{**options, "allow_redirects": False})
        del args, options  # a traceback that is recorded with its variables would show credentials
        response = await sending
        if response.status in _REDIRECTS and "x-amz-bucket-region" not in response.headers:
            response.close()
            raise RedirectedError(f"the server redirects ({response.status}): none is followed")
        return response


def _unfollow(http: Any) -> None:  # noqa: ANN401 - the SDK has no types
    """Make an HTTP session of the SDK's follow no redirect."""
    followed = http._get_session  # noqa: SLF001 - the SDK offers no other place

    async def unfollowing(*args: object) -> _Unfollowing:
        return _Unfollowing(await followed(*args))

    http._get_session = unfollowing  # noqa: SLF001 - likewise


class _HTTPSession(AIOHTTPSession):  # type: ignore[misc]  # the SDK has no types
    """The HTTP session of every client that our session makes."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        _unfollow(self)


class _Session(AioSession):  # type: ignore[misc]  # the SDK has no types
    """A session whose clients, those that providers make for themselves included, follow nothing.

    Attributes:
        trust_env: Whether they heed the environment's proxies.
    """

    trust_env = True

    def create_client(
        self,
        *args: object,
        config: Any = None,  # noqa: ANN401 - the SDK has no types
        **options: object,
    ) -> Any:  # noqa: ANN401 - likewise
        """Return the SDK's context manager of a client."""
        merged = AioConfig(http_session_cls=_HTTPSession, proxies=None if self.trust_env else {})
        if config is not None:
            merged = merged.merge(config)
            merged.http_session_cls = _HTTPSession  # which early releases lose while merging
        return super().create_client(*args, config=merged, **options)


def sdk_session(profile: str | None, *, trust_env: bool = True) -> AioSession:
    """Return a session of the SDK's that follows no redirect.

    Args:
        profile: A section of the SDK's configuration files; None: as the SDK chooses.
        trust_env: Whether its clients heed the environment's proxies, where they are given none.
    """
    session = _Session(profile=profile)
    session.trust_env = trust_env
    for provider in session.get_component("credential_provider").providers:
        # The instance's metadata and the container's are asked without a client.
        for name in ("_role_fetcher", "_fetcher"):
            http = getattr(getattr(provider, name, None), "_session", None)
            if isinstance(http, AIOHTTPSession):
                _unfollow(http)
    return session
