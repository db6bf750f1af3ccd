"""Resolve the endpoint, the region and the credentials through the SDK, and cache the credentials.

The SDK blocks while it reads files and imports modules, and it may call other services. It therefore
runs in a worker thread with an event loop of its own. This module does not import the SDK if the
endpoint, the region and an access key are given or in the environment (`_environment`), without a profile
or a role.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from trove_async._concurrency import in_thread
from trove_async._http import Origin
from trove_async._http.services import one_line
from trove_async._secrets import Redactor, disarmed
from trove_async._settings import check_texts
from trove_async.errors import ConfigError, TroveError, UnauthenticatedError, UnavailableError

from ._environment import environment_credentials, environment_endpoint
from ._sigv4 import Credentials

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

T = TypeVar("T")

DEFAULT_REGION: Final = "us-east-1"
"""The region if none is configured."""

_CHECK_SECONDS: Final = 60.0
"""Seconds between checks of whether temporary credentials are due for renewal. The SDK considers them
due fifteen minutes before they expire."""

# Endpoints of the SDK's partitions: s3.eu-west-1.amazonaws.com, s3-fips.dualstack.us-gov-west-1.…
_REGIONAL_HOST = re.compile(
    r"(?P<service>s3(?:-fips)?(?:\.dualstack)?)(?:\.(?P<region>[a-z]{2,}(?:-[a-z]+)+-\d))?"
    r"\.(?P<suffix>amazonaws\.com(?:\.cn)?|c2s\.ic\.gov|sc2s\.sgov\.gov)"
)

_AMAZON_HOST = re.compile(r"(?!.*s3express).*\.(?:amazonaws\.com(?:\.cn)?|api\.aws)").fullmatch
"""Other hosts of Amazon S3: VPC endpoints, access points and transfer acceleration. Directory
buckets (S3 Express) are excluded, because their listings are not in order."""

# S3 User Guide, "AWS PrivateLink for Amazon S3", "Transfer Acceleration" and "Dual-stack endpoints".
_ALTERNATIVE_HOST = re.compile(
    r"(?:bucket\.vpce-[^.]+\.s3\.(?P<region>[^.]+)\.vpce|s3-accelerate(?:\.dualstack)?"
    r"|s3-[a-z]{2,}(?:-[a-z]+)*-\d)\.(?P<suffix>amazonaws\.com(?:\.cn)?)"
    r"|s3(?:-fips)?\.(?P<api_region>[^.]+)\.api\.aws"
).fullmatch
"""Hosts in `_AMAZON_HOST` that address the same buckets as the standard endpoints."""

_HEADER_VALUE = re.compile(r"[!-~]+").fullmatch
"""Matches a value that a header can carry: no whitespace, control characters or non-ASCII text."""

_REGION = re.compile(r"[A-Za-z0-9._-]+").fullmatch
"""Matches a region. Amazon's regions are host name labels. Other services choose other names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The settings for credentials and endpoint. The SDK looks up a missing endpoint, region or key.

    Attributes:
        region: The region.
        endpoint_url: The URL of the service.
        access_key_id: The access key ID.
        secret_access_key: The secret access key.
        session_token: The session token of a temporary access key.
        profile: A profile in the SDK's configuration files.
        role_arn: The role to assume.
        trust_env: Whether to use the environment's proxies.
    """

    region: str | None
    endpoint_url: str | None
    access_key_id: str | None = field(repr=False)
    secret_access_key: str | None = field(repr=False)
    session_token: str | None = field(repr=False)
    profile: str | None
    role_arn: str | None
    trust_env: bool = True

    def check(self) -> None:
        """Validate the settings.

        The constructor does not validate them, because its arguments would appear in the traceback.

        Raises:
            ConfigError: The settings contradict each other, or a value is invalid.
            TypeError: A setting is neither a str nor None.
        """
        for name in ("access_key_id", "secret_access_key", "session_token"):
            if not isinstance(
                getattr(self, name), (str, type(None))
            ):  # a local variable would hold a secret
                raise TypeError(f"{name} must be a str, got {type(getattr(self, name)).__name__}")
        check_texts(region=self.region, profile=self.profile, role_arn=self.role_arn)
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigError("access_key_id and secret_access_key must be set together")
        if self.session_token is not None and self.access_key_id is None:
            raise ConfigError("session_token requires access_key_id and secret_access_key")
        for name in ("region", "access_key_id", "session_token"):
            if getattr(self, name) is not None and not _HEADER_VALUE(getattr(self, name)):
                raise ConfigError(
                    f"{name} must be printable ASCII without whitespace and must not be empty,"
                    " because it is sent in a header"
                )
        if self.region is not None and not _REGION(self.region):
            raise ConfigError(
                "region must consist of ASCII letters, digits, dots, hyphens and underscores, such as eu-west-1"
            )
        if self.endpoint_url is not None:
            Origin.of(self.endpoint_url)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a service.

    Attributes:
        origin: The scheme, host and port.
        region: The region of the service.
        is_standard_aws: Whether it is a standard endpoint of Amazon S3, of one region or global. VPC
            endpoints and access points are not.
    """

    origin: Origin
    region: str
    is_standard_aws: bool

    @classmethod
    def from_url(cls, url: str, region: str) -> Endpoint:
        """Return the endpoint at a URL."""
        origin = Origin.of(url)
        return cls(origin, region, _REGIONAL_HOST.fullmatch(origin.host) is not None)

    @property
    def is_amazon_s3(self) -> bool:
        """Whether the service is Amazon S3, at a standard endpoint or another host."""
        return self.is_standard_aws or _AMAZON_HOST(self.origin.host) is not None

    @property
    def bucket_namespace(self) -> Hashable:
        """The namespace in which bucket names are unique: Amazon's partition, or another service.

        S3 User Guide, "General purpose bucket naming rules": names are unique within a partition.
        Each partition has a separate domain, except GovCloud. The host of an access point does not
        name the bucket, so it is a namespace of its own.
        """
        host = self.origin.host
        match = _REGIONAL_HOST.fullmatch(host) or _ALTERNATIVE_HOST(host)
        if match is None:
            return self.origin
        names = match.groupdict()
        region = names["region"] or names.get("api_region") or self.region
        return names["suffix"] or "amazonaws.com", region.startswith("us-gov-")

    def in_region(self, region: str) -> Endpoint:
        """Return the endpoint of the same kind in another of Amazon's regions."""
        match = _REGIONAL_HOST.fullmatch(self.origin.host)
        assert match is not None  # noqa: S101 - `is_standard_aws` is True
        host = f"{match['service']}.{region}.{match['suffix']}"
        return Endpoint(
            Origin(self.origin.scheme, host, self.origin.port), region, is_standard_aws=True
        )


class _RefreshableCredentials(Protocol):
    """The method of the SDK's refreshable credentials that this module uses."""

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        """Return whether they expire soon, or within `refresh_in` seconds."""
        ...


class Session:
    """Resolves the endpoint of an identity, and fetches, caches and renews its credentials.

    Args:
        identity: The settings for credentials and endpoint.
        redactor: Receives the secrets of the credentials, to remove them from errors.

    Attributes:
        cached: The credentials that were fetched last; None: none were.
        next_check: The time, by `time.monotonic`, until which they need not be checked.
    """

    def __init__(self, identity: Identity, redactor: Redactor | None = None) -> None:
        self._identity = identity
        self._redactor = redactor or Redactor()
        self._redactor.add(identity.secret_access_key, identity.session_token)
        self._lock = asyncio.Lock()
        self._refreshable: _RefreshableCredentials | None = None
        self.cached: Credentials | None = None
        self.next_check = 0.0

    async def endpoint(self) -> Endpoint:
        """Return the service's endpoint.

        Raises:
            ConfigError: The profile, the region or the endpoint is invalid.
        """
        identity = self._identity
        if identity.endpoint_url and identity.region and identity.profile is None:
            return Endpoint.from_url(identity.endpoint_url, identity.region)
        found: tuple[str, str] | None = None
        if identity.profile is None:
            found = await in_thread(environment_endpoint, identity.region, identity.endpoint_url)
        if found is None:
            found = await run_sdk(partial(_resolve_endpoint, identity))
        region, url = found
        return Endpoint.from_url(url, region)

    async def credentials(self) -> Credentials:
        """Return the cached credentials. Fetch new ones first if there are none or renewal is due.

        While one caller renews the credentials, other callers receive the cached ones.

        Raises:
            UnauthenticatedError: No credentials were found.
            ConfigError: The SDK's configuration is invalid.
            UnavailableError: Fetching the credentials failed.
        """
        now = time.monotonic()
        credentials = self.cached
        if credentials is not None and (now < self.next_check or self._lock.locked()):
            return credentials
        async with self._lock:
            if self.cached is None or now >= self.next_check:
                await self._renew_if_due(now)
            assert self.cached is not None  # noqa: S101 - or `_renew_if_due` has raised
            return self.cached

    async def renew(self, rejected: Credentials) -> Credentials | None:
        """Renew credentials that the service rejected. Return the new ones, or None if there are none.

        Concurrent callers share one renewal.

        Args:
            rejected: The credentials that the service rejected.
        """
        async with self._lock:
            if self.cached is rejected:
                if self._refreshable is None:
                    return None
                await self._load()
            return self.cached if self.cached != rejected else None

    def redact(self, error: TroveError) -> None:
        """Remove the secrets from an error, because services quote requests in their messages."""
        self._redactor.redact(error)

    async def _renew_if_due(self, now: float) -> None:
        if self.cached is None or (self._refreshable and self._refreshable.refresh_needed()):
            try:
                await self._load()
            except TroveError:
                # The old credentials stay valid for up to fifteen minutes, and a later call retries.
                if self.cached is None or (
                    self._refreshable is not None and self._refreshable.refresh_needed(0)
                ):
                    raise
        self.next_check = now + _CHECK_SECONDS

    async def _load(self) -> None:
        identity = self._identity
        if identity.access_key_id is not None and identity.role_arn is None:
            assert identity.secret_access_key is not None  # noqa: S101 - `check` requires both
            self.cached = Credentials(
                identity.access_key_id, identity.secret_access_key, identity.session_token
            )
            return
        found = None
        if (identity.access_key_id, identity.profile, identity.role_arn) == (None, None, None):
            found = environment_credentials()
        if found is not None:
            credentials = found
        else:
            credentials, self._refreshable = await run_sdk(partial(_find_credentials, identity))
        self._redactor.renew(credentials.secret_key, credentials.token)
        self.cached = credentials


async def run_sdk(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine that uses the SDK in a worker thread, and return its result.

    After a cancel, the thread finishes in the background. It holds no buffer or connection of this
    library.

    Args:
        start: Returns the coroutine. It is called in the thread.
    """
    return await asyncio.get_running_loop().run_in_executor(None, _run, start)


def _run(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    from botocore import exceptions  # noqa: PLC0415 - slow to import, and rarely needed

    # The error is raised outside `except`, and its cause has no traceback: the SDK's frames contain
    # requests.
    try:
        return asyncio.run(start())
    except TroveError:
        raise
    except (
        exceptions.ProfileNotFound,
        exceptions.ConfigParseError,
        exceptions.InvalidConfigError,
        exceptions.InvalidRegionError,
        exceptions.UnknownEndpointError,
    ) as error:
        cause: Exception = error
        failure: TroveError = ConfigError(
            f"the SDK's configuration is invalid: {one_line(str(error))}"
        )
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        cause = error
        failure = UnauthenticatedError(f"the SDK found no credentials: {one_line(str(error))}")
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        cause = error
        failure = UnavailableError(f"the SDK failed to fetch credentials: {one_line(str(error))}")
    except Exception as error:  # noqa: BLE001 - the SDK's parsers may raise anything
        cause = error
        failure = UnavailableError(f"the SDK failed to fetch credentials: {type(error).__name__}")
    raise failure from disarmed(cause)


def _make_sdk_session(identity: Identity) -> AioSession:
    from ._sdk_session import sdk_session  # noqa: PLC0415 - slow to import, and rarely needed

    return sdk_session(identity.profile, trust_env=identity.trust_env)


async def _resolve_endpoint(identity: Identity) -> tuple[str, str]:
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - slow to import, and rarely needed

    # Placeholder credentials suffice here. Missing ones raise later, when a request needs them.
    client_context = _make_sdk_session(identity).create_client(
        "s3",
        region_name=identity.region,
        endpoint_url=identity.endpoint_url,
        aws_access_key_id="-",
        aws_secret_access_key="-",  # noqa: S106 - see above
    )
    region, url = DEFAULT_REGION, None
    try:
        async with client_context as client:
            region = client.meta.region_name or DEFAULT_REGION
            url = client.meta.endpoint_url
    except BotoCoreError:
        raise  # `_run` translates it
    except ValueError:
        pass  # the error for a malformed URL, which may contain a password
    if url is None:
        raise ConfigError("the endpoint_url in the SDK's configuration is invalid")
    # "aws-global" is the SDK's name for the global endpoint, which is in us-east-1.
    return DEFAULT_REGION if region == "aws-global" else region, url


async def _find_credentials(
    identity: Identity,
) -> tuple[Credentials, _RefreshableCredentials | None]:
    from aiobotocore import credentials as sdk_module  # noqa: PLC0415 - slow to import, and rarely needed

    session = _make_sdk_session(identity)
    if identity.access_key_id is not None:
        sdk_credentials = sdk_module.AioCredentials(
            identity.access_key_id, identity.secret_access_key, identity.session_token
        )
    else:
        sdk_credentials = await session.get_credentials()
    if sdk_credentials is None:
        raise UnauthenticatedError(
            "no credentials found in the environment, the SDK's files, the container or the instance:"
            " set access_key_id and secret_access_key, or a profile"
        )
    if identity.role_arn is not None:
        fetcher = sdk_module.AioAssumeRoleCredentialFetcher(
            partial(session.create_client, region_name=identity.region),
            sdk_credentials,
            identity.role_arn,
            extra_args={"RoleSessionName": "trove-async"},
        )
        sdk_credentials = sdk_module.AioDeferredRefreshableCredentials(
            fetcher.fetch_credentials, method="assume-role"
        )
    frozen = await sdk_credentials.get_frozen_credentials()
    credentials = Credentials(frozen.access_key, frozen.secret_key, frozen.token)
    return credentials, sdk_credentials if hasattr(sdk_credentials, "refresh_needed") else None
