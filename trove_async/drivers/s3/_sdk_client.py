"""aiobotocore's client with the driver's credentials, and the translation of the SDK's errors."""

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

from trove_async._http import WINDOW
from trove_async._http.aiohttp_transport import translate_error
from trove_async._http.services import one_line
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
from ._credentials import Endpoint, Identity, Session, run_sdk
from ._encoding import check_bucket
from ._errors import failure
from ._sdk_parameters import header_parameters
from ._sdk_session import sdk_session
from ._xml import MalformedResponse

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

_LIFETIME: Final = timedelta(minutes=20)
"""Lifetime of the credentials that the SDK receives. The SDK fetches new ones fifteen minutes
before they expire."""

_TRANSLATIONS: Final[tuple[tuple[type[Exception], type[TroveError], str], ...]] = (
    # The first match applies.
    (exceptions.ConnectTimeoutError, TimedOutError, "the connection was not established in time"),
    (exceptions.ReadTimeoutError, TimedOutError, "no data arrived in time"),
    (exceptions.ParamValidationError, NotSupportedError, "the SDK does not accept the parameters"),
    (ResponseParserError, UnavailableError, "the service's response is malformed"),
    (exceptions.HTTPClientError, UnavailableError, "the connection broke"),
    (exceptions.BotoCoreError, BackendError, "the SDK failed"),
    (MalformedResponse, UnavailableError, "the service's response is malformed"),
    (ValueError, UnavailableError, "the service's response is malformed"),  # a bad date
    (KeyError, UnavailableError, "the service's response lacks an element"),
)


@contextmanager
def translate_sdk_errors() -> Iterator[None]:
    """Translate the SDK's errors.

    The SDK's error is chained without its traceback, because its frames hold requests.
    """
    try:
        yield
    except exceptions.ClientError as error:
        raise _service_error(error.response) from disarmed(error)
    except TroveError:
        raise  # already translated: the error comes from the driver's session
    except Exception as error:
        for sdk_error, trove_error, message in _TRANSLATIONS:
            if isinstance(error, sdk_error):
                raise trove_error(f"{message}: {one_line(str(error))}") from disarmed(error)
        transport_error = translate_error(error)  # an error that the SDK did not wrap
        if transport_error is None:
            raise
        raise transport_error from disarmed(error)


def _service_error(response: Mapping[str, Any]) -> TroveError:
    """Return the error for an error response, as the SDK parsed it."""
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    code = str(error.get("Code", ""))
    return failure(
        metadata.get("HTTPStatusCode", HTTPStatus.OK),
        "" if code.isdigit() else code,  # without a document, the SDK uses the status as the code
        str(error.get("Message", "")),
        metadata.get("HTTPHeaders", {}),
    )


class SessionCredentialProvider(CredentialProvider):  # type: ignore[misc]  # the SDK has no types
    """A credential provider for the SDK's chain that returns the driver's credentials."""

    METHOD = CANONICAL_NAME = "custom-trove"

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    async def load(self) -> object:
        """Return credentials that the SDK refreshes from the driver's session."""
        return AioDeferredRefreshableCredentials(self._metadata, method=self.METHOD)

    async def _metadata(self) -> dict[str, str | None]:
        credentials = await self._session.credentials()
        return {
            "access_key": credentials.access_key,
            "secret_key": credentials.secret_key,
            "token": credentials.token,
            "expiry_time": (datetime.now(UTC) + _LIFETIME).isoformat(),
        }


class SdkClient:
    """aiobotocore's client for one endpoint.

    Args:
        identity: Supplies the profile and `trust_env`.
        session: Supplies the credentials.
        endpoint: The service's endpoint.
        timeout: Supplies the connect, first_byte and idle timeouts.
        addressing: Whether the bucket is in the path or in the host name.
        connections: The maximum number of readers. The same limit applies separately to writers and
            to other requests.
        proxies: The proxies' URLs, by scheme. None to use the environment's.
        headers: The headers to add to every request.
        secret_headers: The values of secret headers. `call` receives placeholders and inserts the values.
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
        secret_headers: Secret[Mapping[str, str]] | None = None,
    ) -> None:
        self._headers = headers
        self._secret_headers = (
            None if secret_headers is None else Secret(header_parameters(secret_headers.reveal()))
        )
        self._profile, self._trust_env = identity.profile, identity.trust_env
        self._session = session
        self._endpoint = endpoint
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._config = AioConfig(
            signature_version="s3v4",
            retries={"total_max_attempts": 1},
            # Readers, writers and other requests each have this limit.
            max_pool_connections=3 * connections,
            connect_timeout=timeout.connect,
            read_timeout=max(timeout.first_byte, timeout.idle),
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies=proxies,
            s3={"addressing_style": addressing},
        )

    async def open(self) -> None:
        """Create the client.

        A worker thread loads the SDK's data files first, so that the loop is not blocked.
        """
        session = await run_sdk(self._load_session)
        session.get_component("credential_provider").insert_before(
            "env", SessionCredentialProvider(self._session)
        )
        with translate_sdk_errors():
            self._client = await self._stack.enter_async_context(self._make_client(session))
        self._client.meta.events.register("before-sign.s3", _remove_expect)
        if self._headers:
            self._client.meta.events.register("before-sign.s3", self._add_headers)

    def _make_client(self, session: AioSession, **keys: str) -> Any:  # noqa: ANN401 - the SDK has no types
        return session.create_client(
            "s3",
            region_name=self._endpoint.region,
            endpoint_url=self._endpoint.origin.url,
            config=self._config,
            **keys,
        )

    async def _load_session(self) -> AioSession:
        session = sdk_session(self._profile, trust_env=self._trust_env)
        async with self._make_client(session, aws_access_key_id="-", aws_secret_access_key="-"):  # noqa: S106 - never used
            session.get_component("credential_provider")
            session.get_scoped_config()
        return session

    def _add_headers(self, request: Any, **_: object) -> None:  # noqa: ANN401 - the SDK has no types
        for name, value in self._headers.items():
            request.headers[name] = value

    @property
    def sdk(self) -> Any:  # noqa: ANN401 - the SDK has no types
        """The SDK's client object."""
        return self._client

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._stack.aclose()

    async def call(
        self,
        operation: str,
        **parameters: Any,  # noqa: ANN401 - the SDK has no types
    ) -> tuple[Any, Mapping[str, str]]:
        """Run an operation and return its parsed response and the response's headers."""
        if "Bucket" in parameters:
            check_bucket(parameters["Bucket"])
        if self._secret_headers is not None:
            values = self._secret_headers.reveal
            parameters.update((name, values()[name]) for name in values() if name in parameters)
        with translate_sdk_errors():
            pending = getattr(self._client, operation)(**parameters)
            del parameters  # a traceback that records local variables would show the customer's key
            response = await pending
        return response, response["ResponseMetadata"]["HTTPHeaders"]

    async def presign(self, operation: str, seconds: int, **parameters: str) -> str:
        """Return a presigned URL for an operation."""
        check_bucket(parameters["Bucket"])
        with translate_sdk_errors():
            url: str = await self._client.generate_presigned_url(
                operation, Params=parameters, ExpiresIn=seconds
            )
        return url


def _remove_expect(request: Any, **_: object) -> None:  # noqa: ANN401 - the SDK has no types
    """Remove ``Expect: 100-continue``, because aiohttp has no timeout for the interim response."""
    del request.headers["Expect"]


class SdkBody:
    """Reads a response body of the SDK and translates its errors."""

    def __init__(self, body: Any) -> None:  # noqa: ANN401 - the SDK has no types
        self._body = body

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end."""
        with translate_sdk_errors():
            # aiohttp buffers up to as many bytes as one read requests.
            data: bytes = await self._body.read(min(size, WINDOW))
        return data

    async def readinto(self, buffer: memoryview) -> int:
        """Read into `buffer` and return the number of bytes, which is 0 at the end."""
        data = await self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the body and release its connection. Idempotent."""
        self._body.close()
