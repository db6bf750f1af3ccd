"""Access tokens, the project and signatures, fetched through the SDK and cached.

The SDK's `Token` fetches a token by every kind of credentials that Google has. When to fetch, and
what a failure means, is decided here: it would try five times by itself, up to minutes, in a task of
its own. Where a token is fetched is checked here as well: requests to an issuer carry a signed
assertion or a client's secret, so redirects are refused, and issuers are Google's own unless the
user named others.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import aiohttp
import yarl

from trove_async._concurrency import in_thread
from trove_async._http import Origin
from trove_async._secrets import Redactor, Secret, disarmed
from trove_async.errors import (
    ConfigError,
    TroveError,
    UnauthenticatedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from gcloud.aio.auth import Token

T = TypeVar("T")

SCOPE: Final = "https://www.googleapis.com/auth/devstorage.full_control"
"""What the tokens are for. Cloud Storage documentation, "Cloud Storage authentication": scopes."""

_RENEW_BEFORE: Final = 300.0
"""Seconds before its end from which a token is renewed: clocks differ, and requests take time."""

_ENOUGH: Final = 30.0
"""Seconds for which a token that could not be renewed is still used."""

_FETCH_SECONDS: Final = 10
_SIGN = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{email}:signBlob"


_ISSUERS: Final = frozenset({"googleapis.com", "accounts.google.com"})
"""Hosts of Google's token endpoints. Subdomains of the first are Google's as well, those of regions
and of Private Service Connect among them; `accounts.google.com` stands in old files."""

_SENT_TO: Final = ("token_uri", "token_url", "service_account_impersonation_url")
"""Fields of a credentials file that name where the SDK sends an assertion, a secret or a token."""

_SENDABLE = re.compile(r"[!-~]+").fullmatch
"""What a header may carry as a token."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

Told = str | os.PathLike[str] | Mapping[str, Any] | None
"""Credentials as a user gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The credentials that the driver was given.

    Attributes:
        credentials: A file of credentials, or its content; None: as Google's own tools find them.
        project: The project that buckets are made in; None: the credentials'.
        token_origins: Origins that tokens may be fetched from, besides Google's own.
    """

    credentials: Secret[Told]
    project: str | None
    token_origins: frozenset[Origin] = frozenset()


class _RedirectedError(Exception):
    """An issuer redirects."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that authorises requests.

    Attributes:
        value: What follows ``Bearer`` in the header.
    """

    value: str = field(repr=False)


class Credentials:
    """Fetches and caches what an identity is asked for.

    Args:
        identity: The credentials that the driver was given.
        redactor: Is told every secret that is sent.
        trust_env: Whether the environment's proxies are heeded.
    """

    def __init__(self, identity: Identity, redactor: Redactor, *, trust_env: bool = True) -> None:
        self._identity = identity
        self._redactor = redactor
        self._trust_env = trust_env
        self._lock = asyncio.Lock()
        self._held = AccessToken("")
        self._renew_at = self._ends_at = 0.0
        self._http: aiohttp.ClientSession | None = None
        self._token: Token | None = None

    async def open(self) -> None:
        """Read the credentials: no token is fetched before one is needed.

        Raises:
            ConfigError: There is no such file, it holds nothing that the SDK knows, or it names a
                token endpoint that is neither Google's nor among the `token_origins`.
        """
        self._http = aiohttp.ClientSession(trust_env=self._trust_env, middlewares=(_unredirected,))
        try:
            self._token = await in_thread(_loaded, self._identity.credentials, self._http)
            self._check_issuer()
        except BaseException:
            await self.aclose()
            raise
        for name in ("private_key", "client_secret", "refresh_token"):
            self._redactor.add(*_values(self._token.service_data, name))

    def _check_issuer(self) -> None:
        """Raise ConfigError if the credentials are to be sent to a host that is not trusted."""
        for name in _SENT_TO:
            for url in _values(self._source.service_data, name):
                if not _is_trusted(url, self._identity.token_origins):
                    # The URL is not shown: it may hold what its author took for a place for secrets.
                    raise ConfigError(
                        f"the credentials' {name} is no https URL of Google's: if you trust it, name"
                        " its origin in token_origins"
                    )

    async def aclose(self) -> None:
        """Let go of connections. Idempotent."""
        session, self._http = self._http, None
        if session is not None:
            await session.close()

    # -- tokens ----------------------------------------------------------------------------------------

    async def token(self) -> AccessToken:
        """Return an access token; from memory, but for the moments when it is renewed.

        Raises:
            UnauthenticatedError: There are no credentials, or they are not accepted.
            UnavailableError: No token could be fetched now.
        """
        now = asyncio.get_running_loop().time()
        if now < self._renew_at or (now < self._ends_at and self._lock.locked()):
            return self._held
        async with self._lock:
            if now >= self._renew_at:
                try:
                    await self._fetch()
                except TroveError:
                    if now >= self._ends_at:
                        raise
            return self._held

    async def renewed(self, stale: AccessToken) -> bool:
        """Return whether there is another token than the one that the service does not accept."""
        async with self._lock:
            if self._held == stale:
                await self._fetch()
            return self._held != stale

    async def _fetch(self) -> None:
        token, seconds = await _asked(self._asked_for)
        now = asyncio.get_running_loop().time()
        self._held = token
        self._redactor.renew(token.value)
        self._ends_at = now + seconds - _ENOUGH
        self._renew_at = now + max(seconds - _RENEW_BEFORE, seconds / 2)

    async def _asked_for(self) -> tuple[AccessToken, float]:
        """Return a new token, and for how many seconds it is good."""
        answer = await self._source.refresh(timeout=_FETCH_SECONDS)
        if not _SENDABLE(answer.value):
            raise ValueError("a token that no header carries")
        return AccessToken(answer.value), float(answer.expires_in)

    @property
    def _source(self) -> Token:
        assert self._token is not None  # noqa: S101 - open
        return self._token

    # -- who -------------------------------------------------------------------------------------------

    async def project(self) -> str | None:
        """Return the project, as it was told or as the credentials have it; None: neither says."""
        if self._identity.project is not None:
            return self._identity.project
        said = self._source.service_data
        named = said.get("project_id") or said.get("quota_project_id")
        named = named or os.environ.get("GOOGLE_CLOUD_PROJECT") or os.environ.get("GCLOUD_PROJECT")
        if named:
            return str(named)
        return None if said else await self._metadata("/project/project-id")

    @property
    def can_sign(self) -> bool:
        """Whether URLs can be signed: by a service account's key, or for it on Google's machines."""
        return bool(self._source.service_data.get("private_key")) or not self._source.service_data

    async def email(self) -> str:
        """Return the service account that signs."""
        said = self._source.service_data
        if said:
            return str(said["client_email"])
        return await self._metadata("/instance/service-accounts/default/email")

    async def signature(self, text: str, email: str) -> bytes:
        """Sign a text as the service account, where there is one (`can_sign`)."""
        if self._source.service_data.get("private_key"):
            return await in_thread(_signature, text, self._source)
        token = await self.token()

        async def ask() -> bytes:
            async with self._session.post(
                _SIGN.format(email=email),
                json={"payload": b64encode(text.encode()).decode()},
                headers={"authorization": f"Bearer {token.value}"},
                timeout=aiohttp.ClientTimeout(total=_FETCH_SECONDS),
                raise_for_status=True,
            ) as answer:
                return b64decode((await answer.json())["signedBlob"])

        return await _asked(ask)

    async def _metadata(self, path: str) -> str:
        """Return what the machine that this runs on tells. Compute Engine, "VM metadata"."""
        from gcloud.aio.auth.token import (  # noqa: PLC0415 - slow to import
            GCE_METADATA_BASE,
            GCE_METADATA_HEADERS,
        )

        async def ask() -> str:
            async with self._session.get(
                GCE_METADATA_BASE + path,
                headers=GCE_METADATA_HEADERS,
                timeout=aiohttp.ClientTimeout(total=_FETCH_SECONDS),
                raise_for_status=True,
            ) as answer:
                return await answer.text()

        return await _asked(ask)

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self._http is not None  # noqa: S101 - open
        return self._http


async def _unredirected(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request, and refuse to follow where its response leads."""
    response = await handler(request)
    if response.status in _REDIRECTS:
        response.close()
        raise _RedirectedError
    return response


def _values(said: Mapping[str, Any], name: str) -> list[str]:
    """Return a field of credentials, and that of those which they are made from."""
    inner = said.get("source_credentials")
    places = (said, inner) if isinstance(inner, Mapping) else (said,)
    return [str(place[name]) for place in places if place.get(name) is not None]


def _is_trusted(url: str, origins: Collection[Origin]) -> bool:
    """Return whether credentials may be sent to a URL: parsed as the SDK's HTTP client parses it."""
    try:
        parsed = yarl.URL(url)
        host, port = parsed.host_subcomponent, parsed.port
    except ValueError:
        return False
    if not host or port is None or parsed.user is not None or parsed.password is not None:
        return False
    if parsed.scheme == "https" and (
        host in _ISSUERS or host.endswith(tuple(f".{one}" for one in _ISSUERS))
    ):
        return True
    return any((one.scheme, one.host, one.port) == (parsed.scheme, host, port) for one in origins)


def _loaded(credentials: Secret[Told], session: aiohttp.ClientSession) -> Token:
    """Return the SDK's token of the credentials.

    What is raised here is raised outside `except`: a parser's error quotes the file.
    """
    try:
        return _parsed(credentials, session)
    except ConfigError as error:
        failure = ConfigError(error.message)
    except OSError as error:
        failure = ConfigError(f"the credentials cannot be read: {error.strerror}")
    except Exception:  # noqa: BLE001 - whatever the SDK makes of what it does not know
        failure = ConfigError("the credentials are none of Google's: a JSON file with a type")
    raise failure


def _parsed(credentials: Secret[Told], session: aiohttp.ClientSession) -> Token:
    from gcloud.aio.auth import Token  # noqa: PLC0415 - slow to import

    # The SDK takes a file that it cannot read for none at all, and goes on to the next kind.
    file = None
    told = credentials.reveal()
    if told is None:
        told = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or None
    if told is not None:
        if isinstance(told, Mapping):
            said = dict(told)
        else:
            said = json.loads(Path(told).read_text("utf-8"))
        said["type"]
        file = StringIO(json.dumps(said))
    # To its types, a session is of another library, which its twin package uses.
    token = Token(service_file=file, session=cast("Any", session), scopes=[SCOPE])
    if not _is_key(token.service_data.get("private_key")):
        raise ConfigError("the credentials' private_key is no RSA key in PEM: get the file anew")
    return token


def _is_key(pem: object) -> bool:
    """Tell whether the SDK can sign with a key; no key at all is none to complain of."""
    from cryptography.hazmat.primitives.asymmetric.rsa import (  # noqa: PLC0415 - slow to import
        RSAPrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - likewise
        load_pem_private_key,
    )

    if pem is None:
        return True
    try:
        return isinstance(load_pem_private_key(str(pem).encode(), password=None), RSAPrivateKey)
    except Exception:  # noqa: BLE001 - whatever is wrong with it; what is said may quote it
        return False


def _signature(text: str, source: Token) -> bytes:
    from gcloud.aio.storage.blob import Blob  # noqa: PLC0415 - slow to import

    try:
        return Blob.get_pem_signature(text, str(source.service_data["private_key"]))
    except Exception:  # noqa: BLE001 - whatever the SDK makes of a key that is none
        failure = ConfigError("the credentials' private_key is no RSA key in PKCS #8")
    raise failure


async def _asked(ask: Callable[[], Awaitable[T]]) -> T:
    """Return the result of a call of the SDK's, or raise our error for its failure.

    It is raised outside `except`, and chained to nothing that holds the request: an assertion, a
    client's secret or a token is in it.
    """
    cause: BaseException | None = None
    try:
        return await ask()
    except _RedirectedError:
        failure: TroveError = UnauthenticatedError(
            "no token: the issuer redirects, and credentials are sent nowhere else"
        )
    except aiohttp.ClientResponseError as error:
        if error.status == HTTPStatus.TOO_MANY_REQUESTS or error.status >= 500:  # noqa: PLR2004
            failure = UnavailableError(f"no token: the issuer answers {error.status}")
        else:
            failure = UnauthenticatedError(
                f"no token: the issuer refuses the credentials with {error.status}"
            )
    except aiohttp.ClientConnectorDNSError as error:
        cause = error.os_error
        failure = UnauthenticatedError(
            "no credentials: none were given, there are none in GOOGLE_APPLICATION_CREDENTIALS or"
            " the SDK's files, and this is no machine of Google's; or the issuer has no address"
        )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
        failure = UnavailableError("no token: the issuer cannot be reached")
    except Exception as error:  # noqa: BLE001 - a key that is none, a response without a token, ...
        failure = UnauthenticatedError(
            f"no token: the credentials or the issuer's response are malformed"
            f" ({type(error).__name__} in the SDK)"
        )
    raise failure from None if cause is None else disarmed(cause)
