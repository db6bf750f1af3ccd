"""The requests to AWS KMS, sent by aiobotocore.

A response contains a data key in plain text. So the parsed response is kept in a `Secret`, the SDK's log
lines do not show its body, and errors are raised without the frames of the SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.config import AioConfig
from botocore import exceptions

from trove_async._http import Origin, proxy_urls
from trove_async._http.services import one_line
from trove_async._secrets import Redactor, Secret, disarmed
from trove_async.drivers.s3._credentials import Identity, Session, run_sdk
from trove_async.drivers.s3._sdk_client import SessionCredentialProvider
from trove_async.drivers.s3._sdk_session import sdk_session
from trove_async.errors import (
    BackendError,
    ConfigError,
    DecryptionError,
    TimedOutError,
    TroveError,
    UnauthenticatedError,
    UnavailableError,
)
from trove_async.models import KiB, Timeout

from ._kms_errors import failure
from .keys import KEY_SIZE, DataKey, is_key_id

if TYPE_CHECKING:
    import aiohttp
    from aiobotocore.session import AioSession

_ATTEMPTS: Final = 3
"""Maximum number of attempts of a request. The SDK retries throttled requests and broken connections."""

_MAX_RESPONSE: Final = 64 * KiB
"""Maximum size of a response. The largest fields have 6,144 and 4,096 bytes."""

_MAX_WRAPPED: Final = 6144
"""Maximum size of a wrapped key. Source: AWS KMS API Reference, "Decrypt", CiphertextBlob."""

_TRANSLATIONS: Final[tuple[tuple[type[Exception], type[TroveError], str], ...]] = (
    # The first match applies.
    (exceptions.ConnectTimeoutError, TimedOutError, "the connection was not established in time"),
    (exceptions.ReadTimeoutError, TimedOutError, "no response arrived in time"),
    (
        exceptions.EndpointConnectionError,
        UnavailableError,
        "the connection failed: check the region, the endpoint and the network",
    ),
    (
        exceptions.ParamValidationError,
        ConfigError,
        "the SDK does not accept the key or the encryption context",
    ),
    (exceptions.NoCredentialsError, UnauthenticatedError, "the SDK found no credentials"),
    (exceptions.HTTPClientError, UnavailableError, "the connection broke"),
)


class KmsClient:
    """A client of AWS KMS for one event loop.

    Args:
        identity: The settings for credentials and endpoint.
        timeout: Supplies the time limits `connect` and `first_byte`.
    """

    def __init__(self, identity: Identity, timeout: Timeout) -> None:
        self._identity = identity
        redactor = Redactor()
        redactor.add_urls(*proxy_urls(None, trust_env=identity.trust_env))
        self._session = Session(identity, redactor)
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._config = AioConfig(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            connect_timeout=timeout.connect,
            read_timeout=timeout.first_byte,
            proxies=None if identity.trust_env else {},
        )

    async def open(self) -> None:
        """Create the SDK's client.

        A worker thread loads the SDK's data files first, so that the loop is not blocked.

        Raises:
            ConfigError: The region is missing, or the profile, the region or the endpoint is invalid.
        """
        session = await run_sdk(self._load_session)
        session.get_component("credential_provider").insert_before(
            "env", SessionCredentialProvider(self._session)
        )
        try:
            self._client = await self._stack.enter_async_context(self._make_client(session))
        except BaseException:
            await self._stack.aclose()
            raise
        self._client.meta.events.register("before-parse.kms.*", _hide_body)
        _limit_responses(self._client._endpoint.http_session)  # noqa: SLF001 - the SDK has no public hook

    async def _load_session(self) -> AioSession:
        session = sdk_session(self._identity.profile, trust_env=self._identity.trust_env)
        url = ""
        try:
            async with self._make_client(
                session,
                aws_access_key_id="-",
                aws_secret_access_key="-",  # noqa: S106 - never used
            ) as client:
                url = client.meta.endpoint_url
        except exceptions.NoRegionError:
            pass
        except exceptions.BotoCoreError:
            raise  # `run_sdk` translates it
        except ValueError:  # the error for a malformed URL, which may contain a password
            raise ConfigError("the endpoint_url in the SDK's configuration is invalid") from None
        if not url:
            raise ConfigError(
                "no region is configured for AWS KMS: set region, or pass a key's ARN"
            )
        if not Origin.of(url).keeps_secrets:
            raise ConfigError("AWS KMS requires an https endpoint, because responses contain keys")
        return session

    def _make_client(self, session: AioSession, **keys: str) -> Any:  # noqa: ANN401 - the SDK has no types
        return session.create_client(
            "kms",
            region_name=self._identity.region,
            endpoint_url=self._identity.endpoint_url,
            config=self._config,
            **keys,
        )

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._stack.aclose()

    async def generate(self, key_id: str, context: Mapping[str, str]) -> DataKey:
        """Return a new data key. Its id is the ARN of the key that wraps it."""
        response = await self._call(
            "generate_data_key",
            key_id,
            reading=False,
            KeyId=key_id,
            KeySpec="AES_256",
            EncryptionContext=dict(context),
        )
        arn, wrapped = _arn_of(response), _wrapped_of(response)
        if not _has_key(response):
            raise _malformed("Plaintext")
        return DataKey(id=arn, secret=response.reveal()["Plaintext"], wrapped=wrapped)

    async def decrypt(self, key_id: str, wrapped: bytes, context: Mapping[str, str]) -> DataKey:
        """Return a wrapped data key. Its id is the ARN of the key that wraps it."""
        _check_wrapped(wrapped)
        response = await self._call(
            "decrypt",
            key_id,
            reading=True,
            KeyId=key_id,
            CiphertextBlob=wrapped,
            EncryptionContext=dict(context),
        )
        arn = _arn_of(response)
        if not _has_key(response):
            raise DecryptionError(f"the wrapped key of the object is not a key of {KEY_SIZE} bytes")
        return DataKey(id=arn, secret=response.reveal()["Plaintext"], wrapped=wrapped)

    async def re_encrypt(
        self, source: str, wrapped: bytes, destination: str, context: Mapping[str, str]
    ) -> tuple[str, bytes]:
        """Wrap a data key with a different key. Return the ARN of that key, and the new wrapped key."""
        _check_wrapped(wrapped)
        response = await self._call(
            "re_encrypt",
            f"{source} or {destination}",
            reading=True,
            SourceKeyId=source,
            CiphertextBlob=wrapped,
            SourceEncryptionContext=dict(context),
            DestinationKeyId=destination,
            DestinationEncryptionContext=dict(context),
        )
        return _arn_of(response), _wrapped_of(response)

    async def _call(
        self,
        operation: str,
        key_id: str,
        *,
        reading: bool,
        **parameters: Any,  # noqa: ANN401 - the SDK has no types
    ) -> Secret[Mapping[str, Any]]:
        """Return the parsed response to a request.

        The SDK's error is chained without its traceback, because its frames hold requests and responses.
        """
        cause: Exception | None = None
        # The error is raised outside `except`, so that it has no context.
        try:
            return Secret(await getattr(self._client, operation)(**parameters))
        except TroveError:
            raise  # the error comes from the session of the credentials
        except exceptions.ClientError as error:
            cause, problem = error, failure(error.response, key_id, reading=reading)
        except Exception as error:  # noqa: BLE001 - the SDK's parsers may raise anything
            cause, problem = _translated(error, key_id)
        problem.__cause__ = None if cause is None else disarmed(cause)
        self._session.redact(problem)
        raise problem


def _translated(error: Exception, key_id: str) -> tuple[Exception | None, TroveError]:
    """Return the cause to chain and the error for an exception of the SDK that is not a response."""
    place = f"(AWS KMS, key {key_id!r})"
    for sdk_error, kind, message in _TRANSLATIONS:
        if isinstance(error, sdk_error):
            return error, kind(f"{message}: {one_line(str(error))} {place}")
    # Other messages may quote a response.
    name = type(error).__name__
    if isinstance(error, exceptions.BotoCoreError):
        return None, BackendError(f"the SDK failed: {name} {place}")
    return None, UnavailableError(f"the service's response is malformed: {name} {place}")


def _check_wrapped(wrapped: bytes) -> None:
    if len(wrapped) > _MAX_WRAPPED:
        raise DecryptionError(
            f"the wrapped key of the object has {len(wrapped)} bytes, but AWS KMS accepts {_MAX_WRAPPED}:"
            " the object's record was altered"
        )


def _arn_of(response: Secret[Mapping[str, Any]]) -> str:
    arn = response.reveal().get("KeyId")
    if not isinstance(arn, str) or not arn.startswith("arn:") or not is_key_id(arn):
        raise _malformed("KeyId")
    return arn


def _wrapped_of(response: Secret[Mapping[str, Any]]) -> bytes:
    wrapped = response.reveal().get("CiphertextBlob")
    if not isinstance(wrapped, bytes) or not 1 <= len(wrapped) <= _MAX_WRAPPED:
        raise _malformed("CiphertextBlob")
    return wrapped


def _has_key(response: Secret[Mapping[str, Any]]) -> bool:
    return (
        isinstance(response.reveal().get("Plaintext"), bytes)
        and len(response.reveal()["Plaintext"]) == KEY_SIZE
    )


def _malformed(name: str) -> UnavailableError:
    return UnavailableError(f"the response of AWS KMS is malformed: {name!r} is missing or invalid")


class _HiddenBody(bytes):
    """The body of a response. The SDK logs it at the level DEBUG."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<_HiddenBody>"

    __str__ = __repr__


def _hide_body(response_dict: dict[str, Any], **_: object) -> None:
    """Hide the body of a response from the SDK's log. A handler of the event ``before-parse``."""
    response_dict["body"] = _HiddenBody(response_dict["body"])


class ResponseTooLargeError(Exception):
    """Raised when a response exceeds the limit. The SDK wraps it in an HTTPClientError."""


class _LimitedSession:
    """Wraps an aiohttp session so that it reads responses of a limited size.

    It has only the method that the SDK calls.
    """

    def __init__(self, session: Any) -> None:  # noqa: ANN401 - a session, or a wrapper of one
        self._session = session

    async def request(self, *args: Any, **options: Any) -> _LimitedResponse:  # noqa: ANN401 - passed on
        """Send a request and return its response."""
        pending = self._session.request(*args, **options)
        del args, options  # a traceback that records local variables would show credentials
        return _LimitedResponse(await pending)


class _LimitedResponse:
    """The part of aiohttp's response that the SDK uses."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.url = response.url
        self.status = response.status
        self.raw_headers = response.raw_headers

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            ResponseTooLargeError: The body exceeds the limit.
        """
        body = bytearray()
        try:
            async for chunk in self._response.content.iter_any():
                body += chunk
                if len(body) > _MAX_RESPONSE:
                    raise ResponseTooLargeError(  # noqa: TRY301 - the handler closes the connection
                        f"the response has more than {_MAX_RESPONSE} bytes"
                    )
        except BaseException:
            self._response.close()
            raise
        return bytes(body)


def _limit_responses(http: Any) -> None:  # noqa: ANN401 - the SDK has no types
    """Patch one of the SDK's HTTP sessions so that its responses have a limited size."""
    get_session = http._get_session  # noqa: SLF001 - the SDK has no public hook

    async def get_limited_session(*args: object) -> _LimitedSession:
        return _LimitedSession(await get_session(*args))

    http._get_session = get_limited_session  # noqa: SLF001 - see above
