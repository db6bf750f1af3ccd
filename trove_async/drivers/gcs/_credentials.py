"""Who asks: access tokens, the project and signatures, as the SDK makes them, asked as seldom as can be.

The SDK's `Token` fetches a token by every kind of credentials that Google has. When to fetch, and
what a failure means, is decided here: it would try five times by itself, up to minutes, in a task of
its own.
"""

from __future__ import annotations

import asyncio
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import aiohttp

from trove_async._concurrency import in_thread
from trove_async.errors import (
    ConfigError,
    TroveError,
    UnauthenticatedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the driver was told of who asks.

    Attributes:
        credentials: A file of credentials, or what is in it; None: as Google's own tools find them.
        project: The project that buckets are made in; None: the credentials'.
    """

    credentials: str | os.PathLike[str] | Mapping[str, Any] | None = field(repr=False)
    project: str | None


class Credentials:
    """An identity, in use.

    Args:
        identity: What the driver was told.
        trust_env: Whether the environment's proxies are heeded.
    """

    def __init__(self, identity: Identity, *, trust_env: bool = True) -> None:
        self._identity = identity
        self._trust_env = trust_env
        self._lock = asyncio.Lock()
        self._held = ""
        self._renew_at = self._ends_at = 0.0
        self._http: aiohttp.ClientSession | None = None
        self._token: Token | None = None

    async def open(self) -> None:
        """Read the credentials: no token is fetched before one is needed.

        Raises:
            ConfigError: There is no such file, or what it holds is nothing that the SDK knows.
        """
        self._http = aiohttp.ClientSession(trust_env=self._trust_env)
        self._token = await in_thread(_loaded, self._identity.credentials, self._http)

    async def aclose(self) -> None:
        """Let go of connections. Idempotent."""
        session, self._http = self._http, None
        if session is not None:
            await session.close()

    # -- tokens ----------------------------------------------------------------------------------------

    async def token(self) -> str:
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

    async def renewed(self, stale: str) -> bool:
        """Tell whether there is another token than the one that the service does not accept."""
        async with self._lock:
            if self._held == stale:
                await self._fetch()
            return self._held != stale

    async def _fetch(self) -> None:
        token = self._source
        answer = await _asked(lambda: token.refresh(timeout=_FETCH_SECONDS))
        now = asyncio.get_running_loop().time()
        self._held = answer.value
        self._ends_at = now + answer.expires_in - _ENOUGH
        self._renew_at = now + max(answer.expires_in - _RENEW_BEFORE, answer.expires_in / 2)

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
        key = self._source.service_data.get("private_key")
        if key:
            return await in_thread(_signature, text, str(key))
        token = await self.token()

        async def ask() -> bytes:
            async with self._session.post(
                _SIGN.format(email=email),
                json={"payload": b64encode(text.encode()).decode()},
                headers={"authorization": f"Bearer {token}"},
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


def _loaded(
    credentials: str | os.PathLike[str] | Mapping[str, Any] | None, session: aiohttp.ClientSession
) -> Token:
    from gcloud.aio.auth import Token  # noqa: PLC0415 - slow to import

    if credentials is None:
        credentials = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or None
    try:
        # The SDK takes a file that it cannot read for none at all, and goes on to the next kind.
        file = None
        if credentials is not None:
            if isinstance(credentials, Mapping):
                said = dict(credentials)
            else:
                said = json.loads(Path(credentials).read_text("utf-8"))
            said["type"]
            file = StringIO(json.dumps(said))
        # To its types, a session is of another library, which its twin package uses.
        token = Token(service_file=file, session=cast("Any", session), scopes=[SCOPE])
        usable = _is_key(token.service_data.get("private_key"))
    except OSError as error:
        raise ConfigError(f"the credentials cannot be read: {error.strerror}") from error
    except Exception:  # noqa: BLE001 - whatever the SDK makes of what it does not know
        # Not chained: what a parser says quotes the file.
        raise ConfigError("the credentials are none of Google's: a JSON file with a type") from None
    if not usable:
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


def _signature(text: str, key: str) -> bytes:
    from gcloud.aio.storage.blob import Blob  # noqa: PLC0415 - slow to import

    try:
        return Blob.get_pem_signature(text, key)
    except Exception:  # noqa: BLE001 - whatever the SDK's own parser makes of a key
        raise ConfigError("the credentials' private_key is no RSA key in PKCS #8") from None


async def _asked(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what the SDK is answered, or raise what its failure is here."""
    try:
        return await ask()
    except aiohttp.ClientResponseError as error:
        # Not chained: it holds the request, whose headers may hold a token.
        if error.status == HTTPStatus.TOO_MANY_REQUESTS or error.status >= 500:  # noqa: PLR2004
            raise UnavailableError(f"no token: the issuer answers {error.status}") from None
        raise UnauthenticatedError(
            f"no token: the issuer refuses the credentials with {error.status}"
        ) from None
    except aiohttp.ClientConnectorDNSError as error:
        raise UnauthenticatedError(
            "no credentials: none were given, there are none in GOOGLE_APPLICATION_CREDENTIALS or"
            " the SDK's files, and this is no machine of Google's; or the issuer has no address"
        ) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UnavailableError("no token: the issuer cannot be reached") from error
    except (KeyError, ValueError, TypeError) as error:
        raise UnauthenticatedError(f"no token: {type(error).__name__} in the SDK") from error
