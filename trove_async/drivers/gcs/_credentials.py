"""Fetches and caches access tokens, determines the project, and signs text.

The SDK's `Token` supports the types of credentials in `_REQUIRED_FIELDS`. This module checks their
fields, decides when to fetch a token, and translates failures: the SDK alone would make five attempts
over several minutes, in a background task. Requests to an issuer of tokens carry a signed assertion or a
client secret. Redirects are therefore rejected, and only Google's issuers are trusted unless the user
adds others.
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
"""The scope of the tokens. Cloud Storage documentation, "Cloud Storage authentication": scopes."""

_RENEW_BEFORE: Final = 300.0
"""A token is renewed this many seconds before it expires, because clocks differ and requests take time.
A token that is valid for less than twice as long is renewed after half of its validity."""

_MIN_VALIDITY: Final = 30.0
"""While the renewal of a token is in progress, or if it fails, the old token is used until this many seconds
before it expires."""

_FETCH_TIMEOUT: Final = 10  # seconds
_SIGN_URL = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{email}:signBlob"

_ISSUER_HOSTS: Final = frozenset({"googleapis.com", "accounts.google.com"})
"""Google's token endpoints have these hosts or subdomains of them. Regional endpoints and Private Service
Connect have subdomains of the first. Old credentials files name the second."""

_ISSUER_FIELDS: Final = ("token_uri", "token_url", "service_account_impersonation_url")
"""The fields of a credentials file with URLs to which the SDK sends an assertion, a secret or a token."""

_USER_FIELDS: Final = ("client_id", "client_secret", "refresh_token")

_REQUIRED_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "authorized_user": _USER_FIELDS,
    "external_account": ("audience", "credential_source", "subject_token_type", "token_url"),
    "impersonated_service_account": ("service_account_impersonation_url", "source_credentials"),
    "service_account": ("client_email", "private_key"),
}
"""The types of credentials that the SDK supports, and the fields that it reads when it fetches a token."""

_SUBJECT_SOURCES: Final = ("environment", "file", "url")
"""The types of a ``credential_source`` that the SDK supports. The SDK gets an external account's own token
from this source."""

_HEADER_SAFE = re.compile(r"[!-~]+").fullmatch
"""Matches a token that is valid in a header."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

CredentialsArgument = str | os.PathLike[str] | Mapping[str, Any] | None
"""The `credentials` argument of the driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The arguments of the driver that concern credentials.

    Attributes:
        credentials: The path of a credentials file, or its content. None: Application Default
            Credentials.
        project: The project for creating and listing buckets. None: see `Credentials.project`.
        token_origins: Origins that may issue tokens, in addition to Google's own.
    """

    credentials: Secret[CredentialsArgument]
    project: str | None
    token_origins: frozenset[Origin] = frozenset()


class _RedirectedError(Exception):
    """An issuer, a signer or the metadata server responded with a redirect."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that authorises requests.

    Attributes:
        value: The text after ``Bearer`` in the Authorization header.
    """

    value: str = field(repr=False)


class Credentials:
    """Fetches and caches access tokens, and signs URLs.

    Args:
        identity: The arguments of the driver.
        redactor: Records the secrets in the credentials, and every token.
        trust_env: Whether to use the proxies that the environment sets.
    """

    def __init__(self, identity: Identity, redactor: Redactor, *, trust_env: bool = True) -> None:
        self._identity = identity
        self._redactor = redactor
        self._trust_env = trust_env
        self._lock = asyncio.Lock()
        self._cached = AccessToken("")
        self._renew_at = self._expires_at = 0.0
        self._http: aiohttp.ClientSession | None = None
        self._token: Token | None = None

    async def open(self) -> None:
        """Read the credentials. The first request to the service fetches a token.

        Raises:
            ConfigError: The file is missing or invalid, has a type that the SDK does not support, lacks
                a field, or names an issuer that is neither Google's nor among the `token_origins`.
        """
        self._http = aiohttp.ClientSession(
            trust_env=self._trust_env, middlewares=(_reject_redirects,)
        )
        try:
            self._token = await in_thread(_load_sdk_token, self._identity.credentials, self._http)
            self._check_issuer()
        except BaseException:
            await self.aclose()
            raise
        for name in ("private_key", "client_secret", "refresh_token"):
            self._redactor.add(*_field_values(self._token.service_data, name))

    def _check_issuer(self) -> None:
        """Raise ConfigError if the credentials name an issuer that is not trusted."""
        for name in _ISSUER_FIELDS:
            for url in _field_values(self._sdk_token.service_data, name):
                if not _is_trusted(url, self._identity.token_origins):
                    # The message does not show the URL, which may contain secrets.
                    raise ConfigError(
                        f"the credentials' {name} must be an https URL on a Google host; to trust"
                        " another issuer, add its origin to token_origins"
                    )

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        if self._http is not None:
            await self._http.close()
        self._http = None

    # -- tokens ----------------------------------------------------------------------------------------

    def fresh_token(self) -> AccessToken | None:
        """Return the cached access token, or None if `token` must renew it."""
        return self._cached if asyncio.get_running_loop().time() < self._renew_at else None

    async def token(self) -> AccessToken:
        """Return the cached access token, or fetch a new one if it is due for renewal.

        Raises:
            UnauthenticatedError: There are no credentials, or the issuer rejects them.
            UnavailableError: The issuer is unavailable, and no cached token is valid.
        """
        now = asyncio.get_running_loop().time()
        # While another task renews the token, keep using the old one.
        if now < self._renew_at or (now < self._expires_at and self._lock.locked()):
            return self._cached
        async with self._lock:
            if now >= self._renew_at:
                try:
                    await self._fetch()
                except TroveError:
                    if now >= self._expires_at:
                        raise  # otherwise the cached token is still valid
            return self._cached

    async def renew(self, rejected: AccessToken) -> bool:
        """Replace a token that the service rejected. Return whether the cached token is different now."""
        async with self._lock:
            if self._cached == rejected:
                await self._fetch()
            return self._cached != rejected

    async def _fetch(self) -> None:
        token, seconds = await _call_sdk("fetching an access token", self._request_token)
        now = asyncio.get_running_loop().time()
        self._cached = token
        self._redactor.renew(token.value)
        self._expires_at = now + seconds - _MIN_VALIDITY
        self._renew_at = now + max(seconds - _RENEW_BEFORE, seconds / 2)

    async def _request_token(self) -> tuple[AccessToken, float]:
        """Return a new token and its validity in seconds."""
        response = await self._sdk_token.refresh(timeout=_FETCH_TIMEOUT)
        if not _HEADER_SAFE(response.value):
            raise ValueError("the token must be printable ASCII without spaces")
        return AccessToken(response.value), float(response.expires_in)

    @property
    def _sdk_token(self) -> Token:
        assert self._token is not None  # noqa: S101 - open
        return self._token

    # -- project and signatures ----------------------------------------------------------------------------

    async def project(self) -> str | None:
        """Return the project of the driver, the credentials, the environment or this machine.

        None: credentials were found, but no project.
        """
        if self._identity.project is not None:
            return self._identity.project
        document = self._sdk_token.service_data
        project = document.get("project_id") or document.get("quota_project_id")
        project = (
            project or os.environ.get("GOOGLE_CLOUD_PROJECT") or os.environ.get("GCLOUD_PROJECT")
        )
        if project:
            return str(project)
        return None if document else await self._metadata("/project/project-id")

    @property
    def can_sign(self) -> bool:
        """Whether URLs can be signed: with a service account's key, or by the IAM API on Google Cloud."""
        document = self._sdk_token.service_data
        return not document or bool(document.get("private_key"))

    async def email(self) -> str:
        """Return the email address of the service account that signs."""
        document = self._sdk_token.service_data
        if document:
            return str(document["client_email"])
        return await self._metadata("/instance/service-accounts/default/email")

    async def signature(self, text: str, email: str) -> bytes:
        """Sign a text as the service account. Requires `can_sign`."""
        if self._sdk_token.service_data.get("private_key"):
            return await in_thread(_sign_with_key, text, self._sdk_token)
        # Without a key, the IAM API signs for the service account of this machine.
        token = await self.token()

        async def sign_remotely() -> bytes:
            async with self._session.post(
                _SIGN_URL.format(email=email),
                json={"payload": b64encode(text.encode()).decode()},
                headers={"authorization": f"Bearer {token.value}"},
                timeout=aiohttp.ClientTimeout(total=_FETCH_TIMEOUT),
                raise_for_status=True,
            ) as response:
                return b64decode((await response.json())["signedBlob"])

        return await _call_sdk("signing a URL", sign_remotely)

    async def _metadata(self, path: str) -> str:
        """Return a value from the metadata server. Compute Engine documentation, "VM metadata"."""
        from gcloud.aio.auth.token import (  # noqa: PLC0415 - slow to import
            GCE_METADATA_BASE,
            GCE_METADATA_HEADERS,
        )

        async def fetch() -> str:
            async with self._session.get(
                GCE_METADATA_BASE + path,
                headers=GCE_METADATA_HEADERS,
                timeout=aiohttp.ClientTimeout(total=_FETCH_TIMEOUT),
                raise_for_status=True,
            ) as response:
                return await response.text()

        return await _call_sdk("reading the metadata of this machine", fetch)

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self._http is not None  # noqa: S101 - open
        return self._http


async def _reject_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request; raise an error instead of following a redirect."""
    response = await handler(request)
    if response.status in _REDIRECTS:
        response.close()
        raise _RedirectedError
    return response


def _field_values(document: Mapping[str, Any], name: str) -> list[str]:
    """Return the values of a field in credentials and in their nested source credentials."""
    source = document.get("source_credentials")
    documents = (document, source) if isinstance(source, Mapping) else (document,)
    return [str(fields[name]) for fields in documents if fields.get(name) is not None]


def _is_trusted(url: str, origins: Collection[Origin]) -> bool:
    """Return whether a URL belongs to Google or to one of the origins."""
    try:
        # The SDK's HTTP client parses the URL with yarl. A different parser might find a different host.
        parsed = yarl.URL(url)
        host, port = parsed.host_subcomponent, parsed.port
    except ValueError:
        return False
    if not host or port is None or parsed.user is not None or parsed.password is not None:
        return False
    if parsed.scheme == "https" and (
        host in _ISSUER_HOSTS or host.endswith(tuple(f".{parent}" for parent in _ISSUER_HOSTS))
    ):
        return True
    return any(
        (origin.scheme, origin.host, origin.port) == (parsed.scheme, host, port)
        for origin in origins
    )


def _load_sdk_token(
    credentials: Secret[CredentialsArgument], session: aiohttp.ClientSession
) -> Token:
    """Return the SDK's `Token` for the credentials.

    Errors are raised outside `except`, so that they have no context: a parser's error quotes the file.
    """
    try:
        return _create_sdk_token(credentials, session)
    except ConfigError as error:
        failure = ConfigError(error.message)
    except OSError as error:
        failure = ConfigError(f"the credentials cannot be read: {error.strerror}")
    except Exception:  # noqa: BLE001 - the SDK raises any exception for an invalid file
        failure = ConfigError(
            "the credentials must be a Google credentials file in JSON with a type, got something else"
        )
    raise failure


def _create_sdk_token(
    credentials: Secret[CredentialsArgument], session: aiohttp.ClientSession
) -> Token:
    from gcloud.aio.auth import Token  # noqa: PLC0415 - slow to import
    from gcloud.aio.auth.token import get_service_data  # noqa: PLC0415 - slow to import

    # 1. Read the file, because the SDK would ignore an unreadable one and try the next source.
    source = credentials.reveal()
    if source is None:
        source = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or None
    if source is not None:
        if isinstance(source, Mapping):
            document = dict(source)
        else:
            document = json.loads(Path(source).read_text("utf-8"))
    else:
        document = get_service_data(None)  # gcloud's file; without one, use the metadata server
    # 2. Check it: the SDK would fail with a KeyError, and only when it fetches a token.
    file = None
    if source is not None or document:
        _check_fields(document)
        file = StringIO(json.dumps(document))
    # 3. Create the SDK's token. The SDK annotates the session with the type of its synchronous variant.
    token = Token(service_file=file, session=cast("Any", session), scopes=[SCOPE])
    # 4. Check the key now: the SDK would fail only when it signs.
    if not _is_rsa_key(token.service_data.get("private_key")):
        raise ConfigError(
            "the credentials' private_key must be an RSA key in PEM: download the file again"
        )
    return token


def _check_fields(document: Mapping[str, Any]) -> None:
    """Raise ConfigError if the SDK does not support the type of credentials, or if they lack a field."""
    kind = document["type"]  # a file without a type is no credentials file
    required = _REQUIRED_FIELDS.get(kind) if isinstance(kind, str) else None
    if required is None:  # the message does not show the value, which may be a misplaced secret
        raise ConfigError(
            f"the credentials' type must be one that gcloud-aio-auth supports"
            f" ({', '.join(_REQUIRED_FIELDS)}), got another type"
        )
    missing = [name for name in required if not document.get(name)]
    # The SDK can impersonate a service account only with the credentials of a user.
    source = document.get("source_credentials")
    if kind == "impersonated_service_account" and isinstance(source, Mapping):
        missing += [f"source_credentials.{name}" for name in _USER_FIELDS if not source.get(name)]
    if missing:
        raise ConfigError(
            f"credentials of type {kind!r} must have values for {', '.join(missing)}:"
            " create the file again"
        )
    if kind == "external_account" and not _has_subject_token(document["credential_source"]):
        raise ConfigError(
            "the credential_source of credentials of type 'external_account' must be a file, a url or"
            " an environment variable: gcloud-aio-auth does not support aws and executable"
        )


def _has_subject_token(source: object) -> bool:
    """Return whether the SDK can get an external account's own token from a credential source."""
    if not isinstance(source, Mapping):
        return False
    if source.get("type"):
        return source["type"] in _SUBJECT_SOURCES
    is_aws = str(source.get("environment_id", "")).startswith("aws")
    return not is_aws and "executable" not in source and ("file" in source or "url" in source)


def _is_rsa_key(pem: object) -> bool:
    """Return whether the SDK can sign with a private key. True if it is None: there is no key to check."""
    from cryptography.hazmat.primitives.asymmetric.rsa import (  # noqa: PLC0415 - slow to import
        RSAPrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - slow to import
        load_pem_private_key,
    )

    if pem is None:
        return True
    try:
        return isinstance(load_pem_private_key(str(pem).encode(), password=None), RSAPrivateKey)
    except Exception:  # noqa: BLE001 - any error; its message may quote the key
        return False


def _sign_with_key(text: str, token: Token) -> bytes:
    from gcloud.aio.storage.blob import Blob  # noqa: PLC0415 - slow to import

    try:
        return Blob.get_pem_signature(text, str(token.service_data["private_key"]))
    except Exception:  # noqa: BLE001 - the SDK raises any exception for an invalid key
        failure = ConfigError("the credentials' private_key must be an RSA key in PKCS #8")
    raise failure


async def _call_sdk(action: str, call: Callable[[], Awaitable[T]]) -> T:
    """Return the result of a call to the SDK; translate its exceptions.

    Errors are raised outside `except`, and are chained to a socket error at most: the SDK's exceptions
    hold the request, which contains an assertion, a client secret or a token.

    Args:
        action: The name of the action, for messages: ``"fetching an access token"``.
        call: Calls the SDK, or the service with the SDK's session.
    """
    cause: BaseException | None = None
    try:
        return await call()
    except _RedirectedError:
        failure: TroveError = UnauthenticatedError(
            f"{action} failed: the server responded with a redirect, which credentials never follow"
        )
    except aiohttp.ClientResponseError as error:
        if error.status == HTTPStatus.TOO_MANY_REQUESTS or error.status >= 500:  # noqa: PLR2004
            failure = UnavailableError(f"{action} failed: the server responded with {error.status}")
        else:
            failure = UnauthenticatedError(
                f"{action} failed: the server rejected the credentials with {error.status}"
            )
    except aiohttp.ClientConnectorDNSError as error:
        cause = error.os_error
        failure = UnauthenticatedError(
            f"{action} failed: the host name of the server does not resolve. Unless this machine runs on"
            " Google Cloud, pass credentials or set GOOGLE_APPLICATION_CREDENTIALS"
        )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
        failure = UnavailableError(f"{action} failed: the server cannot be reached")
    except Exception as error:  # noqa: BLE001 - an invalid key, a response without a token, ...
        failure = UnauthenticatedError(
            f"{action} failed: the credentials or the server's response are malformed"
            f" ({type(error).__name__} in the SDK)"
        )
    raise failure from None if cause is None else disarmed(cause)


def describe_source(credentials: CredentialsArgument) -> str | None:
    """Return a prefix for messages that names the source of credentials but never shows their content.

    Return None if no credentials were passed: they come from the environment.
    """
    if credentials is None:
        return None
    if isinstance(credentials, Mapping):
        return "credentials: "
    if not isinstance(credentials, (str, os.PathLike)):
        kind = type(credentials).__name__
        del credentials  # may be the file's content; error reporters record local variables
        raise TypeError(f"credentials must be a path, or a file's content as a mapping, got {kind}")
    path = os.fspath(credentials)
    if not path:
        raise ConfigError(
            "credentials must not be empty: omit them to use those of the environment"
        )
    return _source_prefix("credentials", path)


def describe_environment_source() -> str:
    """Return a prefix for messages that names GOOGLE_APPLICATION_CREDENTIALS, if it is set."""
    path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    return _source_prefix("GOOGLE_APPLICATION_CREDENTIALS", path) if path else ""


def _source_prefix(source: str, path: str) -> str:
    # A user may have passed the content of the file instead of its path: do not show it.
    return f"{source}: " if {"{", "\n"} & set(path) else f"{source} {path!r}: "
