"""The SDK's client: made of our session's credentials, its calls and its failures in our terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioDeferredRefreshableCredentials
from botocore import exceptions
from botocore.credentials import CredentialProvider
from botocore.parsers import ResponseParserError

from trove_async._http import WINDOW, translate_error
from trove_async._secrets import Secret, disarmed
from trove_async.errors import (
    BackendError,
    NotSupportedError,
    TimedOutError,
    TroveError,
    UnavailableError,
)
from trove_async.models import Timeout

from ._client import AddressingStyle
from ._credentials import Endpoint, Identity, Session, on_sdk
from ._encoding import check_bucket
from ._errors import failure
from ._sdk_parameters import parameters as named
from ._sdk_session import sdk_session
from ._xml import MalformedResponse

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

_RENEWED: Final = timedelta(minutes=20)
"""How long the SDK takes our session's credentials for good: it asks again a quarter before."""

_FAILURES: Final[tuple[tuple[type[Exception], type[TroveError], str], ...]] = (
    # The first that fits.
    (exceptions.ConnectTimeoutError, TimedOutError, "no connection came about in time"),
    (exceptions.ReadTimeoutError, TimedOutError, "nothing arrived in time"),
    (exceptions.ParamValidationError, NotSupportedError, "the SDK cannot say so"),
    (ResponseParserError, UnavailableError, "the service's answer makes no sense"),
    (exceptions.HTTPClientError, UnavailableError, "the connection broke"),
    (exceptions.BotoCoreError, BackendError, "the SDK failed"),
    (MalformedResponse, UnavailableError, "the service's answer makes no sense"),
    (ValueError, UnavailableError, "the service's answer makes no sense"),  # a date, say
    (KeyError, UnavailableError, "the service's answer leaves out"),  # an element
)

_SHOWN: Final = 300
"""Characters of the SDK's sentence that are shown: it may quote the service."""


@contextmanager
def edge() -> Iterator[None]:
    """Raise our error for the SDK's, chained to it without its traceback: its frames hold requests."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _refused(error.response) from disarmed(error)
    except TroveError:
        raise  # its credentials are ours
    except Exception as error:
        for kind, ours, message in _FAILURES:
            if isinstance(error, kind):
                told = " ".join(str(error).split())[:_SHOWN]
                raise ours(f"{message}: {told}") from disarmed(error)
        let_through = translate_error(error)
        if let_through is None:
            raise
        raise let_through from disarmed(error)


def _refused(answer: Mapping[str, Any]) -> TroveError:
    told, about = answer.get("Error", {}), answer.get("ResponseMetadata", {})
    code = str(told.get("Code", ""))
    return failure(
        about.get("HTTPStatusCode", HTTPStatus.OK),
        "" if code.isdigit() else code,  # the SDK's stand-in where no document tells
        str(told.get("Message", "")),
        about.get("HTTPHeaders", {}),
    )


class _Ours(CredentialProvider):  # type: ignore[misc]  # the SDK has no types
    """A provider of the SDK's chain that has what our session has."""

    METHOD = CANONICAL_NAME = "custom-trove"

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    async def load(self) -> object:
        """Return credentials that ask our session again and again."""
        return AioDeferredRefreshableCredentials(self._metadata, method=self.METHOD)

    async def _metadata(self) -> dict[str, str | None]:
        held = await self._session.credentials()
        return {
            "access_key": held.access_key,
            "secret_key": held.secret_key,
            "token": held.token,
            "expiry_time": (datetime.now(UTC) + _RENEWED).isoformat(),
        }


class SdkClient:
    """aiobotocore's client of one endpoint.

    Args:
        identity: Of the configuration, the profile.
        session: Who signs.
        endpoint: Where to.
        timeout: Its connect, first_byte and idle are kept.
        addressing: Whether a bucket stands in the path or in the host's name.
        connections: How many there may be.
        proxies: The URLs of proxies, by scheme; None: those of the environment.
        headers: Sent with each request.
        hidden: The values of secret headers, which `call` is told stand-ins for.
    """

    def __init__(
        self,
        identity: Identity,
        session: Session,
        endpoint: Endpoint,
        timeout: Timeout,
        *,
        addressing: AddressingStyle,
        connections: int,
        proxies: dict[str, str] | None,
        headers: Mapping[str, str],
        hidden: Secret[Mapping[str, str]] | None = None,
    ) -> None:
        self._headers = headers
        self._hidden = None if hidden is None else Secret(named(hidden.reveal()))
        self._profile, self._trust_env = identity.profile, identity.trust_env
        self._session = session
        self._endpoint = endpoint
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._config = AioConfig(
            signature_version="s3v4",
            retries={"total_max_attempts": 1},
            max_pool_connections=3
            * connections,  # readers, writers and the others have their limits
            connect_timeout=timeout.connect,
            read_timeout=max(timeout.first_byte, timeout.idle),
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies=proxies,
            s3={"addressing_style": addressing},
        )

    async def open(self) -> None:
        """Make the client: what it reads for that is read in a worker thread."""
        session = await on_sdk(self._warmed)
        session.get_component("credential_provider").insert_before("env", _Ours(self._session))
        with edge():
            self._client = await self._stack.enter_async_context(self._made(session))
        self._client.meta.events.register("before-sign.s3", _expect_nothing)
        if self._headers:
            self._client.meta.events.register("before-sign.s3", self._add_headers)

    def _made(self, session: AioSession, **keys: str) -> Any:  # noqa: ANN401 - the SDK has no types
        return session.create_client(
            "s3",
            region_name=self._endpoint.region,
            endpoint_url=self._endpoint.origin.url,
            config=self._config,
            **keys,
        )

    async def _warmed(self) -> AioSession:
        session = sdk_session(self._profile, trust_env=self._trust_env)
        async with self._made(session, aws_access_key_id="-", aws_secret_access_key="-"):  # noqa: S106 - never used
            session.get_component("credential_provider")
            session.get_scoped_config()
        return session

    def _add_headers(self, request: Any, **_: object) -> None:  # noqa: ANN401 - the SDK has no types
        for name, value in self._headers.items():
            request.headers[name] = value

    @property
    def sdk(self) -> Any:  # noqa: ANN401 - the SDK has no types
        """The client itself."""
        return self._client

    async def aclose(self) -> None:
        """Close all connections."""
        await self._stack.aclose()

    async def call(
        self,
        operation: str,
        **parameters: Any,  # noqa: ANN401 - the SDK has no types
    ) -> tuple[Any, Mapping[str, str]]:
        """Return what an operation answers, and the answer's headers."""
        if "Bucket" in parameters:
            check_bucket(parameters["Bucket"])
        if self._hidden is not None:
            values = self._hidden.reveal
            parameters.update((name, values()[name]) for name in values() if name in parameters)
        with edge():
            sending = getattr(self._client, operation)(**parameters)
            del parameters  # a customer's key, which a recorded traceback would show
            answer = await sending
        return answer, answer["ResponseMetadata"]["HTTPHeaders"]

    async def presign(self, operation: str, seconds: int, **parameters: str) -> str:
        """Return a URL that carries a signature of an operation."""
        check_bucket(parameters["Bucket"])
        with edge():
            url: str = await self._client.generate_presigned_url(
                operation, Params=parameters, ExpiresIn=seconds
            )
        return url


def _expect_nothing(request: Any, **_: object) -> None:  # noqa: ANN401 - the SDK has no types
    """Do not ask before a body is sent: aiohttp would wait for the answer without a limit."""
    del request.headers["Expect"]


class SdkBody:
    """A body of the SDK's."""

    def __init__(self, body: Any) -> None:  # noqa: ANN401 - the SDK has no types
        self._body = body

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, ``b""`` at the end."""
        with edge():
            # More would let as much pile up unread.
            data: bytes = await self._body.read(min(size, WINDOW))
        return data

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with the next bytes; return how many."""
        data = await self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        self._body.close()
