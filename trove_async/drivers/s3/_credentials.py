"""Who signs, for which region and where to: what the SDK's session knows, asked as seldom as can be.

The SDK reads files, imports modules and may call other services to find that out, so it does so in
a worker thread, on an event loop of its own. Where everything was given, it is not even imported.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from trove_async._http import Origin
from trove_async._secrets import Redactor, disarmed
from trove_async._settings import check_texts
from trove_async.errors import ConfigError, TroveError, UnauthenticatedError, UnavailableError

from ._sigv4 import Credentials

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

T = TypeVar("T")

DEFAULT_REGION: Final = "us-east-1"
"""What requests are signed for where nobody says: the SDKs' own choice for S3."""

_LOOK_SECONDS: Final = 60.0
"""How often temporary credentials are asked whether they are to be renewed: the SDK renews them
fifteen minutes before their end."""

# Endpoints of the SDK's partitions: s3.eu-west-1.amazonaws.com, s3-fips.dualstack.us-gov-west-1.…
_AWS = re.compile(
    r"(?P<service>s3(?:-fips)?(?:\.dualstack)?)(?:\.(?P<region>[a-z]{2,}(?:-[a-z]+)+-\d))?"
    r"\.(?P<suffix>amazonaws\.com(?:\.cn)?|c2s\.ic\.gov|sc2s\.sgov\.gov)"
)

_AMAZONS = re.compile(r"(?!.*s3express).*\.(?:amazonaws\.com(?:\.cn)?|api\.aws)").fullmatch
"""Other hosts of Amazon S3: of a VPC, an access point, acceleration. Directory buckets (S3 Express)
deviate from it: they list in no order."""

_SENDABLE = re.compile(r"[!-~]+").fullmatch
"""What a word in a header may have."""

_REGION = re.compile(r"[A-Za-z0-9._-]+").fullmatch
"""A region is a label of Amazon's host names; other services choose their own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The credentials and the place that the driver was given; None: as the SDK finds it.

    Attributes:
        region: The region.
        endpoint_url: Where the service is.
        access_key_id: The access key's id.
        secret_access_key: Its secret.
        session_token: Its token, if it is temporary.
        profile: A section of the SDK's configuration files.
        role_arn: A role to take on.
        trust_env: Whether the environment's proxies are heeded.
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
        """Check what was given.

        Not while it is made: the arguments would be in the traceback.

        Raises:
            ConfigError: The settings do not go together, or one can have no such value.
            TypeError: One is no str.
        """
        for name in ("access_key_id", "secret_access_key", "session_token"):
            if not isinstance(getattr(self, name), (str, type(None))):  # no local holds a secret
                raise TypeError(f"{name} must be a str, got {type(getattr(self, name)).__name__}")
        check_texts(region=self.region, profile=self.profile, role_arn=self.role_arn)
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigError("access_key_id and secret_access_key go together")
        if self.session_token is not None and self.access_key_id is None:
            raise ConfigError("session_token goes with access_key_id and secret_access_key")
        for name in ("region", "access_key_id", "session_token"):
            if not _SENDABLE(getattr(self, name) or "-"):
                raise ConfigError(f"{name} stands in a header: it has no blanks and line breaks")
        if self.region is not None and not _REGION(self.region):
            raise ConfigError("region must be a name, such as eu-west-1")
        if self.endpoint_url is not None:
            Origin.of(self.endpoint_url)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service is.

    Attributes:
        origin: Its address.
        region: The region that it is in.
        aws: Whether it is Amazon's own, in which each region has an address.
    """

    origin: Origin
    region: str
    aws: bool

    @classmethod
    def of(cls, url: str, region: str) -> Endpoint:
        """Return the endpoint at a URL."""
        origin = Origin.of(url)
        return cls(origin, region, _AWS.fullmatch(origin.host) is not None)

    @property
    def is_amazon_s3(self) -> bool:
        """Whether the service is Amazon S3, at the endpoint of a region or at another one."""
        return self.aws or _AMAZONS(self.origin.host) is not None

    @property
    def names_in(self) -> Hashable:
        """Return the space of bucket names: on Amazon a partition, elsewhere the service itself.

        S3 User Guide, "General purpose bucket naming rules": names are unique within a partition. Each
        partition has a domain of its own, but for GovCloud.
        """
        found = _AWS.fullmatch(self.origin.host)
        if found is None:
            return self.origin
        region = found["region"] or self.region
        return found["suffix"], region.startswith("us-gov-")

    def in_region(self, region: str) -> Endpoint:
        """Return Amazon's endpoint of the same kind in another region."""
        found = _AWS.fullmatch(self.origin.host)
        assert found is not None  # noqa: S101 - only asked where `aws`
        host = f"{found['service']}.{region}.{found['suffix']}"
        return Endpoint(Origin(self.origin.scheme, host, self.origin.port), region, aws=True)


class _Source(Protocol):
    """Credentials as the SDK holds them, so far as we look at them."""

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        """Tell whether they end soon, or within so many seconds."""
        ...


class Session:
    """Fetches and caches what an identity is asked for.

    Args:
        identity: The credentials and the place that the driver was given.
        redactor: Is told every secret that requests are signed with.
    """

    def __init__(self, identity: Identity, redactor: Redactor | None = None) -> None:
        self._identity = identity
        self._redactor = redactor or Redactor()
        self._redactor.add(identity.secret_access_key, identity.session_token)
        self._lock = asyncio.Lock()
        self._source: _Source | None = None
        self._credentials: Credentials | None = None
        self._look_at = 0.0

    async def endpoint(self) -> Endpoint:
        """Return where the service is.

        Raises:
            ConfigError: The profile, the region or the endpoint is none.
        """
        told = self._identity
        if told.endpoint_url and told.region and told.profile is None:
            return Endpoint.of(told.endpoint_url, told.region)
        region, url = await on_sdk(partial(_resolved, told))
        return Endpoint.of(url, region)

    async def credentials(self) -> Credentials:
        """Return what to sign with; from memory, but for the moments when they are renewed.

        Raises:
            UnauthenticatedError: There are none.
            UnavailableError: They could not be fetched.
        """
        now = asyncio.get_running_loop().time()
        held = self._credentials
        if held is not None and (now < self._look_at or self._lock.locked()):
            return held
        async with self._lock:
            if self._credentials is None or now >= self._look_at:
                await self._look(now)
            assert self._credentials is not None  # noqa: S101 - or `_look` has raised
            return self._credentials

    async def renewed(self, stale: Credentials) -> Credentials | None:
        """Return others than those that the service takes no more; None: there are none."""
        async with self._lock:
            if self._credentials is stale:
                if self._source is None:
                    return None
                await self._load()
            return self._credentials if self._credentials != stale else None

    def redact(self, error: TroveError) -> None:
        """Remove the secrets from an error: services quote requests."""
        self._redactor.redact(error)

    async def _look(self, now: float) -> None:
        if self._credentials is None or (self._source and self._source.refresh_needed()):
            try:
                await self._load()
            except TroveError:
                # There is a quarter of an hour left to try again.
                if self._credentials is None or (
                    self._source is not None and self._source.refresh_needed(0)
                ):
                    raise
        self._look_at = now + _LOOK_SECONDS

    async def _load(self) -> None:
        told = self._identity
        if told.access_key_id is not None and told.role_arn is None:
            assert told.secret_access_key is not None  # noqa: S101 - they go together
            self._credentials = Credentials(
                told.access_key_id, told.secret_access_key, told.session_token
            )
            return
        held, self._source = await on_sdk(partial(_found, told))
        self._redactor.renew(held.secret_key, held.token)
        self._credentials = held


async def on_sdk(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what a call of the SDK's returns, made in a worker thread.

    A cancel leaves the thread to its end: it holds nothing of ours.
    """
    return await asyncio.get_running_loop().run_in_executor(None, _run, work)


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    from botocore import exceptions  # noqa: PLC0415 - slow, and seldom needed

    # Raised outside `except`, and chained without a traceback: the SDK's frames hold requests.
    try:
        return asyncio.run(work())
    except TroveError:
        raise
    except (exceptions.ProfileNotFound, exceptions.ConfigParseError) as error:
        cause: Exception = error
        failure: TroveError = ConfigError(f"the SDK's configuration: {error}")
    except (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.InvalidConfigError,
        exceptions.InvalidRegionError,
        exceptions.UnknownEndpointError,
    ) as error:
        cause = error
        failure = UnauthenticatedError(f"no credentials: {error}")
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        cause = error
        failure = UnavailableError(f"the SDK found no credentials: {error}")
    except Exception as error:  # noqa: BLE001 - whatever a parser of the SDK's makes of a response
        cause = error
        failure = UnavailableError(f"the SDK found no credentials: {type(error).__name__} in it")
    raise failure from disarmed(cause)


def _sdk(told: Identity) -> AioSession:
    from ._sdk_session import sdk_session  # noqa: PLC0415 - the SDK is slow, and seldom needed

    return sdk_session(told.profile, trust_env=told.trust_env)


async def _resolved(told: Identity) -> tuple[str, str]:
    # Any credentials do here: that there are none shows when they are needed.
    async with _sdk(told).create_client(
        "s3",
        region_name=told.region,
        endpoint_url=told.endpoint_url,
        aws_access_key_id="-",
        aws_secret_access_key="-",  # noqa: S106 - see above
    ) as client:
        region: str = client.meta.region_name or DEFAULT_REGION
        url: str = client.meta.endpoint_url
    # What the SDK calls the global region is us-east-1 by its old name.
    return DEFAULT_REGION if region == "aws-global" else region, url


async def _found(told: Identity) -> tuple[Credentials, _Source | None]:
    from aiobotocore import credentials as sdk  # noqa: PLC0415 - slow, and seldom needed

    session = _sdk(told)
    if told.access_key_id is not None:
        source = sdk.AioCredentials(told.access_key_id, told.secret_access_key, told.session_token)
    else:
        source = await session.get_credentials()
    if source is None:
        raise UnauthenticatedError(
            "no credentials: there are none in the environment, the SDK's files, the container or"
            " the instance; give access_key_id and secret_access_key, or a profile"
        )
    if told.role_arn is not None:
        fetcher = sdk.AioAssumeRoleCredentialFetcher(
            partial(session.create_client, region_name=told.region),
            source,
            told.role_arn,
            extra_args={"RoleSessionName": "trove-async"},
        )
        source = sdk.AioDeferredRefreshableCredentials(
            fetcher.fetch_credentials, method="assume-role"
        )
    frozen = await source.get_frozen_credentials()
    held = Credentials(frozen.access_key, frozen.secret_key, frozen.token)
    return held, source if hasattr(source, "refresh_needed") else None
