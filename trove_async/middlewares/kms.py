"""Keys that AWS KMS protects (envelope encryption).

An object is encrypted with a data key, which KMS generates and also returns wrapped: encrypted with a key
that never leaves KMS. The wrapped key is stored in the object's record. To read the object, KMS must
decrypt it. So IAM and the key's policy control the access, and CloudTrail logs every decryption.

**The id of a key** in a record is the ARN that KMS returns, never an alias. So if an alias is moved to a
new key, or a new `key_id` is configured, copying an older object onto itself encrypts it with the new key.
If there is an encryption context, its digest follows the ARN (``arn:…#9f86d081884c7d65``). So a copy whose
context is different is encrypted with a different data key.

**Forged records.** An attacker with write access to the storage could replace an object and its record by
an object that was encrypted with the attacker's own KMS key. To prevent this, KMS requests name only keys
in the account (and, except for multi-Region keys, in the region) of `key_id`, and the key that KMS has used
must be the one in the record. Grant the program kms:Decrypt for its own keys only.

**Reuse.** Several objects share a data key. Each object is encrypted with a key that is derived from the
data key and 32 random bytes (`_streaming_aead`), so nonces do not limit the number of objects: after 2**32
objects, the probability that two of them have the same key is less than 2**-190. The default is lower
because it limits what one data key reveals if it leaks.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import os
import re
from collections.abc import Callable, Coroutine, Hashable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Self, TypeAlias, TypeVar

if find_spec("aiobotocore") is None:
    raise ModuleNotFoundError(
        f"{__name__} needs aiobotocore: pip install 'trove-async[s3]'", name="aiobotocore"
    )

import anyio

from trove_async._concurrency import OwnedTask, in_thread, run_cleanup, within
from trove_async._http import Origin
from trove_async._secrets import disarmed
from trove_async._settings import check_counts, check_numbers, check_switches
from trove_async.drivers.s3._credentials import Identity
from trove_async.errors import ConfigError, DecryptionError, TroveError, UnavailableError
from trove_async.middleware import ObjectContext
from trove_async.models import Timeout

from .keys import DataKey

if TYPE_CHECKING:
    from ._kms_client import KmsClient

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

EncryptionContext: TypeAlias = Mapping[str, str] | Callable[[ObjectContext], Mapping[str, str]]
"""The encryption context of all objects, or a function that returns that of an object."""

_Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""An encryption context in its canonical order."""

MAX_OBJECTS: Final = 2**32
"""Upper limit of `max_objects`, as in the AWS Encryption SDK ("Data key caching", thresholds)."""

_CLOSE_SECONDS: Final = 5.0
"""Seconds that `aclose` waits for requests in flight, before it cancels them."""

_TIMEOUT: Final = Timeout(connect=5.0, first_byte=10.0, total=20.0)

# AWS KMS Developer Guide, "Key identifiers (KeyId)".
_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):kms:(?P<region>[a-z0-9-]+):(?P<account>\d{12})"
    r":(?P<key>key/(?P<id>[A-Za-z0-9-]{1,64})|alias/[A-Za-z0-9/_-]{1,250})"
)

_KEY_ID = re.compile(r"[A-Za-z0-9-]{1,64}|alias/[A-Za-z0-9/_-]{1,250}")


class KmsKeys:
    """Keys that AWS KMS protects. It cannot be pickled.

    ::

        Trove(driver, middleware=[Encryption(KmsKeys("alias/objects", region="eu-west-1"))])

    The store closes it. Otherwise call `aclose`, or use it in an ``async with`` block. It connects again
    when it is next used, so several stores may share it. It works in any number of event loops and forked
    processes, each of which has its own connections and data keys.

    The SDK retries a request up to twice. A key that is disabled or deleted in KMS continues to work for
    `max_age` seconds where it is cached. The SDK's log at the level DEBUG does not
    contain data keys, but signed requests, with the session tokens of temporary credentials.

    Args:
        key_id: The key that wraps the keys of new objects: a key id, an alias (``alias/name``), or the ARN
            of either. It must be symmetric.
        region: The region. None: that of the ARN, or of the SDK's configuration.
        endpoint_url: The URL of a service other than Amazon's. It must be https, except on this machine.
        access_key_id: The access key ID. Credentials are looked up as by `S3Driver`.
        secret_access_key: The secret access key.
        session_token: The session token of temporary credentials.
        profile: A profile in the SDK's configuration files.
        role_arn: A role to assume with these credentials.
        trust_env: Whether to use HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
        encryption_context: Names and values that KMS binds to a wrapped key and logs in CloudTrail. Policies
            can refer to them. Not secret. A function must return the same context when the object is
            read, so it must not depend on the size or the content type. Data keys are reused only
            within one context.
        max_objects: The number of objects that are encrypted with one data key, from 1 to 2**32. Concurrent
            puts wait for one request to KMS at a time, so a small number slows them down.
        max_age: The number of seconds for which a data key is used without a new request to KMS.
        max_cached: The number of data keys that are kept for reads, the most recently used ones; and of
            encryption contexts whose current data key is kept.
        timeout: The time limits of requests: `connect`, `first_byte`, and `total` including retries.

    Raises:
        ConfigError: An argument is invalid, or two contradict each other.
        TypeError: An argument has the wrong type.
    """

    def __init__(
        self,
        key_id: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        profile: str | None = None,
        role_arn: str | None = None,
        trust_env: bool = True,
        encryption_context: EncryptionContext | None = None,
        max_objects: int = 1000,
        max_age: float = 300.0,
        max_cached: int = 1024,
        timeout: Timeout = _TIMEOUT,
    ) -> None:
        # 1. Delete the secrets from the local variables: a traceback that records them would show them.
        arn = _ARN.fullmatch(key_id) if isinstance(key_id, str) else None
        self._identity = Identity(
            region=arn["region"] if region is None and arn is not None else region,
            endpoint_url=endpoint_url,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            session_token=session_token,
            profile=profile,
            role_arn=role_arn,
            trust_env=trust_env,
        )
        del secret_access_key, session_token
        # 2. Check the arguments.
        if not isinstance(key_id, str):
            raise TypeError(f"key_id must be a str, got {type(key_id).__name__}")
        if arn is None and not _KEY_ID.fullmatch(key_id):
            raise ConfigError(
                "key_id must be the id of a key in AWS KMS, an alias such as alias/name, or the ARN of either"
            )
        self._identity.check()
        check_switches(trust_env=trust_env)
        if arn is not None and region not in {None, arn["region"]}:
            raise ConfigError(
                f"region is {region!r}, but key_id is in {arn['region']!r}: omit region, or pass the key's"
                " replica in that region"
            )
        if endpoint_url is not None and not Origin.of(endpoint_url).keeps_secrets:
            raise ConfigError("endpoint_url must be https, because responses contain keys")
        check_counts(max_objects=max_objects, max_cached=max_cached)
        if max_objects > MAX_OBJECTS:
            raise ConfigError(f"max_objects must be at most {MAX_OBJECTS}, got {max_objects}")
        check_numbers(max_age=max_age)
        if max_age <= 0:
            raise ConfigError(f"max_age must be more than 0 seconds, got {max_age}")
        if not isinstance(timeout, Timeout):
            raise TypeError(f"timeout must be a Timeout, got {type(timeout).__name__}")
        # 3. Set the state.
        self._key_id = key_id
        self._arn = arn
        self._context_of = encryption_context if callable(encryption_context) else None
        self._context = () if callable(encryption_context) else _canonical(encryption_context or {})
        self._max_objects = max_objects
        self._max_age = max_age
        self._max_cached = max_cached
        self._timeout = timeout
        self._process = os.getpid()
        self._states: dict[asyncio.AbstractEventLoop, _LoopState] = {}
        # Those of the parent process, which are neither used nor closed.
        self._inherited: list[dict[asyncio.AbstractEventLoop, _LoopState]] = []

    async def for_write(self, context: ObjectContext) -> DataKey:
        """Return the current data key, after requesting a new one if necessary.

        A cancelled call does not cancel a request that other calls wait for.

        Raises:
            ConfigError: The key does not exist, or cannot encrypt.
            PermissionDeniedError: The credentials do not permit kms:GenerateDataKey.
            UnauthenticatedError: The credentials are missing or not valid.
            UnavailableError: KMS is not reachable, or throttles requests.
        """
        pairs = self._pairs(context)
        while True:
            state = self._state()
            key = state.write_keys.get(pairs)
            if key is None or not key.uses_left:
                key = await state.shared(("generate", pairs), partial(self._generate, state, pairs))
            # A key that has just arrived is used even if `max_age` is shorter than this took.
            if key.uses_left:
                key.uses_left -= 1
                return key.data_key

    async def for_read(self, context: ObjectContext, key_id: str, wrapped: bytes | None) -> DataKey:
        """Return a data key that KMS has wrapped.

        A cancelled call does not cancel a request that other calls wait for.

        Raises:
            DecryptionError: The key is not a key of AWS KMS, belongs to a different account or region, or
                no longer exists; or the record was altered, or the encryption context is different.
            PermissionDeniedError: The credentials do not permit kms:Decrypt.
            UnauthenticatedError: The credentials are missing or not valid.
            UnavailableError: KMS is not reachable, or throttles requests.
        """
        pairs = self._pairs(context)
        state = self._state()
        data_key = state.read_keys.get((key_id, wrapped, pairs))
        if data_key is None:
            target, wrapped = self._target(key_id, wrapped, pairs)
            name = "decrypt", key_id, wrapped, pairs
            work = partial(self._decrypt, state, target, key_id, wrapped, pairs)
            data_key = await state.shared(name, work)
        return data_key

    async def rewrap(
        self, context: ObjectContext, key_id: str, wrapped: bytes
    ) -> tuple[str, bytes]:
        """Return the id and the wrapped form of an object's data key under the current key.

        The data key stays the same, so the body does not change. Its plain form does not leave KMS. Needs
        the permissions kms:ReEncryptFrom and kms:ReEncryptTo.

        Args:
            context: The object.
            key_id: The id of the key, from the object's record.
            wrapped: The wrapped form of the key, from the object's record.

        Raises:
            DecryptionError: As for `for_read`, or the current key cannot encrypt.
            PermissionDeniedError: The credentials do not permit this.
            UnauthenticatedError: The credentials are missing or not valid.
            UnavailableError: KMS is not reachable, or throttles requests.
        """
        pairs = self._pairs(context)
        target, wrapped = self._target(key_id, wrapped, pairs)
        name = "rewrap", key_id, wrapped, pairs
        return await self._state().shared(
            name, lambda client: self._re_encrypt(client, target, wrapped, pairs)
        )

    async def aclose(self) -> None:
        """Close the connections and drop the data keys of this event loop. Idempotent.

        Requests in flight, which may be those of a different store, have five seconds to complete.
        """
        if self._process == os.getpid():
            state = self._states.pop(asyncio.get_running_loop(), None)
            if state is not None:
                await run_cleanup(state.aclose())

    async def __aenter__(self) -> Self:
        """Return the keys."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.aclose()

    def __repr__(self) -> str:
        return f"KmsKeys({getattr(self, '_key_id', '')!r})"  # '': its constructor raised

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KmsKeys cannot be pickled or copied: create one in each process")

    # -- requests ----------------------------------------------------------------------------------

    async def _generate(self, state: _LoopState, pairs: _Pairs, client: KmsClient) -> _WriteKey:
        data_key = await client.generate(self._key_id, dict(pairs))
        key_id = _id_of(_checked_arn(data_key.id), pairs)
        data_key = DataKey(id=key_id, secret=data_key.secret, wrapped=data_key.wrapped)
        key = _WriteKey(data_key, self._max_objects)
        state.write_keys.put(pairs, key)
        state.read_keys.put((key_id, data_key.wrapped, pairs), data_key)
        return key

    async def _decrypt(  # noqa: PLR0917 - private
        self,
        state: _LoopState,
        target: str,
        key_id: str,
        wrapped: bytes,
        pairs: _Pairs,
        client: KmsClient,
    ) -> DataKey:
        data_key = await client.decrypt(target, wrapped, dict(pairs))
        if not _are_same(data_key.id, key_id.partition("#")[0]):
            raise DecryptionError(
                f"the object's record names the key {key_id!r}, but AWS KMS decrypted its data key with"
                f" {data_key.id!r}: the record was altered"
            )
        data_key = DataKey(id=key_id, secret=data_key.secret, wrapped=wrapped)
        state.read_keys.put((key_id, wrapped, pairs), data_key)
        return data_key

    async def _re_encrypt(
        self, client: KmsClient, target: str, wrapped: bytes, pairs: _Pairs
    ) -> tuple[str, bytes]:
        arn, wrapped = await client.re_encrypt(target, wrapped, self._key_id, dict(pairs))
        return _id_of(_checked_arn(arn), pairs), wrapped

    def _target(self, key_id: str, wrapped: bytes | None, pairs: _Pairs) -> tuple[str, bytes]:
        """Return the key that KMS must use for an object, and the checked wrapped key.

        Only the last part of the key comes from the record. Without an account in `key_id`, KMS looks for
        the key in the account of the credentials.
        """
        arn = _ARN.fullmatch(key_id.partition("#")[0])
        if arn is None or arn["id"] is None or not wrapped:
            raise DecryptionError(
                f"the object was encrypted with the key {key_id!r}, which is not a key of AWS KMS: add the"
                " Encryption that wrote it"
            )
        if key_id != _id_of(arn.group(), pairs):
            raise DecryptionError(
                f"the object was encrypted with the key {key_id!r} and a different encryption context, or"
                " was stored under another name"
            )
        mine = self._arn
        if mine is None:
            return arn["id"], wrapped
        elsewhere = arn["region"] != mine["region"] and not arn["id"].startswith("mrk-")
        if elsewhere or (arn["partition"], arn["account"]) != (mine["partition"], mine["account"]):
            raise DecryptionError(
                f"the object was encrypted with the key {key_id!r}, which is in a different account or"
                f" region than {self._key_id!r}: add an Encryption for that account and region"
            )
        key = ":".join((mine["region"], mine["account"], arn["key"]))
        return f"arn:{mine['partition']}:kms:{key}", wrapped

    def _pairs(self, context: ObjectContext) -> _Pairs:
        if self._context_of is None:
            return self._context
        return _canonical(self._context_of(context))

    def _state(self) -> _LoopState:
        """Return the connections and data keys of the running event loop in this process."""
        if self._process != os.getpid():
            # Closing the connections would disturb the parent. Dropping them would emit warnings.
            self._inherited.append(self._states)
            self._states = {}
            self._process = os.getpid()
        loop = asyncio.get_running_loop()
        state = self._states.get(loop)
        if state is None:
            for other in list(self._states):
                if other.is_closed():
                    self._states.pop(other, None)
            state = _LoopState(
                self._open_client, self._timeout.total, self._max_cached, self._max_age
            )
            self._states[loop] = state
        return state

    async def _open_client(self) -> KmsClient:
        module = await in_thread(import_module, f"{__package__}._kms_client")  # slow to import
        client: KmsClient = module.KmsClient(self._identity, self._timeout)
        await client.open()
        return client


class _WriteKey:
    """A data key, and how many more objects may be encrypted with it."""

    __slots__ = ("data_key", "uses_left")

    def __init__(self, data_key: DataKey, uses: int) -> None:
        self.data_key = data_key
        self.uses_left = uses


class _LoopState:
    """The connections, the requests in flight and the data keys of one event loop.

    Args:
        open_client: Creates the client.
        total: The time limit of a request in seconds.
        max_cached: The size of each cache.
        max_age: The number of seconds for which keys are cached.
    """

    def __init__(
        self,
        open_client: Callable[[], Coroutine[Any, Any, KmsClient]],
        total: float | None,
        max_cached: int,
        max_age: float,
    ) -> None:
        self.write_keys: _Cache[_Pairs, _WriteKey] = _Cache(max_cached, max_age)
        self.read_keys: _Cache[tuple[str, bytes | None, _Pairs], DataKey] = _Cache(
            max_cached, max_age
        )
        self._open_client = open_client
        self._total = total
        self._client: KmsClient | None = None
        self._client_lock = asyncio.Lock()
        self._requests: dict[Hashable, OwnedTask[Any]] = {}

    async def shared(
        self, name: Hashable, work: Callable[[KmsClient], Coroutine[Any, Any, T]]
    ) -> T:
        """Return the result of a request. Concurrent calls with the same name share one request.

        Args:
            name: Identifies the request.
            work: Sends the request.
        """
        task = self._requests.get(name)
        if task is None:
            task = self._requests[name] = OwnedTask(self._outcome(work))
            task.when_done(partial(self._forget, name))
        outcome = await task.result()
        if isinstance(outcome, TroveError):
            raise _fresh(outcome)
        result: T = outcome
        return result

    def _forget(self, name: Hashable) -> None:
        del self._requests[name]

    async def aclose(self) -> None:
        """Wait for the requests in flight, and close the connections."""
        tasks = list(self._requests.values())
        try:
            with anyio.move_on_after(_CLOSE_SECONDS):
                for task in tasks:
                    await task.result()
        finally:
            for task in tasks:
                await task.aclose()
            if self._client is not None:
                await self._client.aclose()

    async def _outcome(self, work: Callable[[KmsClient], Coroutine[Any, Any, T]]) -> T | TroveError:
        """Return the result of a request, or its error, of which each caller raises a copy."""
        try:
            if self._total is None:
                return await self._send(work)
            return await within(self._total, "AWS KMS did not respond", self._send(work))
        except TroveError as error:
            return error

    async def _send(self, work: Callable[[KmsClient], Coroutine[Any, Any, T]]) -> T:
        async with self._client_lock:  # concurrent first requests share one client
            if self._client is None:
                self._client = await self._open_client()
        return await work(self._client)


class _Cache(Generic[K, T]):
    """The most recently used values, each for a limited time.

    Args:
        max_size: The maximum number of values.
        max_age: The number of seconds after which a value expires.
    """

    __slots__ = ("_entries", "_max_age", "_max_size")

    def __init__(self, max_size: int, max_age: float) -> None:
        self._max_size = max_size
        self._max_age = max_age
        self._entries: dict[K, tuple[T, float]] = {}  # the least recently used first

    def get(self, key: K) -> T | None:
        """Return a value that has not expired."""
        entry = self._entries.pop(key, None)
        if entry is None or monotonic() >= entry[1]:
            return None
        self._entries[key] = entry
        return entry[0]

    def put(self, key: K, value: T) -> None:
        """Add a value, and drop expired ones."""
        now = monotonic()
        self._entries.pop(key, None)
        for other in [other for other, (_, end) in self._entries.items() if now >= end]:
            del self._entries[other]
        self._entries[key] = value, now + self._max_age
        if len(self._entries) > self._max_size:
            del self._entries[next(iter(self._entries))]


def _canonical(context: Mapping[str, str]) -> _Pairs:
    """Return an encryption context in its canonical order. Raise TypeError if it is not one."""
    if not isinstance(context, Mapping):
        raise TypeError(
            f"the encryption context must be a mapping of str to str, got {type(context).__name__}"
        )
    for pair in context.items():
        for text in pair:
            if not isinstance(text, str):
                raise TypeError(
                    f"the encryption context must be a mapping of str to str, got {type(text).__name__}"
                )
    return tuple(sorted(context.items()))


def _id_of(arn: str, pairs: _Pairs) -> str:
    """Return the id of a key in records: the ARN, and a digest of the encryption context if there is one."""
    if not pairs:
        return arn
    return f"{arn}#{hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]}"


def _are_same(arn: str, other: str) -> bool:
    """Return whether two ARNs are equal, or those of replicas of a multi-Region key."""
    left, right = _ARN.fullmatch(arn), _ARN.fullmatch(other)
    if left is None or right is None:
        return False
    names = ["partition", "account", "key"]
    if not (left["id"] or "").startswith("mrk-"):
        names.append("region")
    return all(left[name] == right[name] for name in names)


def _checked_arn(arn: str) -> str:
    """Return the ARN of the key that has wrapped a data key, if objects with it can be read again.

    Raises:
        UnavailableError: It is not the ARN of a key.
    """
    match = _ARN.fullmatch(arn)
    if match is None or match["id"] is None:
        raise UnavailableError(
            "the response of AWS KMS is malformed: 'KeyId' must be the ARN of a key, as"
            " arn:aws:kms:REGION:ACCOUNT:key/ID"
        )
    return arn


def _fresh(error: TroveError) -> TroveError:
    """Return a copy of an error that several callers raise. The store adds a location to each.

    The copy has no traceback: the frames of the request belong to none of the callers.
    """
    fresh = copy.copy(error)
    fresh.__cause__ = None if error.__cause__ is None else disarmed(error.__cause__)
    return fresh
