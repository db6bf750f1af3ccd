"""The keys of encrypted objects.

`Keyring` holds keys that the program has, `TenantKeys` selects the keys of a tenant, and
`trove_async.middlewares.kms.KmsKeys` requests keys from AWS KMS. Other sources implement `Keys`.

Each key has an id, which is stored in the record of every object that the key encrypts. It is not secret:
it can be read wherever the object's metadata can be read. To rotate keys, add a new one to the keyring of
every process, then make it the current one, and keep the old ones for the objects that they encrypt.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable
from pathlib import Path
from time import monotonic
from typing import Final, NoReturn, Protocol, TypeVar, runtime_checkable
from urllib.parse import quote
from weakref import WeakValueDictionary

from trove_async._concurrency import CloseStack, run_cleanup
from trove_async._secrets import Secret
from trove_async._settings import check_counts, check_numbers, check_texts
from trove_async.errors import ConfigError, DecryptionError
from trove_async.middleware import Closing, ObjectContext

T = TypeVar("T")

_logger = logging.getLogger("trove_async")

KEY_SIZE: Final = 32
"""The size of a key in bytes."""

_MAX_ID: Final = 256
"""Maximum length of an id. Longer than that of a keyring, because a key management service may have
long ids."""

_MAX_KEYRING_ID: Final = 64

_ID: Final = re.compile(r"[!-~]+")  # printable ASCII without the space

_GENERATE: Final = (
    "python -c 'from trove_async.middlewares.keys import Keyring; print(Keyring.generate_key())'"
)
_HOW_TO_SET: Final = (
    "set it to an id of your choice, a colon and a key, such as 2026-11:KEY, with the KEY that this prints:"
    f" {_GENERATE}"
)


@dataclass(frozen=True, slots=True, init=False, eq=False)
class DataKey:
    """A key that encrypts bodies. Its repr hides the secret, and it cannot be pickled.

    Args:
        id: The name of the key. 1 to 256 printable ASCII characters without spaces.
        secret: The key, 32 random bytes.
        wrapped: The key in an encrypted form that `Keys.for_read` needs. It is stored in the record of
            the object.

    Raises:
        ConfigError: The id or the size of the secret is not allowed.
        TypeError: An argument has the wrong type.
    """

    id: str
    secret: bytes = field(repr=False)
    wrapped: bytes | None = field(repr=False)

    # Written out because a generated __init__ would keep the secret in a variable, which error
    # reporters show.
    def __init__(self, *, id: str, secret: bytes, wrapped: bytes | None = None) -> None:
        object.__setattr__(self, "id", "")  # for the repr in error reports
        hidden = Secret(secret)
        del secret
        if not isinstance(id, str):
            raise TypeError(f"id must be a str, got {type(id).__name__}")
        if not is_key_id(id):
            raise ConfigError(
                f"the id of a key must be 1 to {_MAX_ID} printable ASCII characters without spaces"
            )
        if not isinstance(hidden.reveal(), bytes):
            raise TypeError(f"secret must be bytes, got {type(hidden.reveal()).__name__}")
        if len(hidden.reveal()) != KEY_SIZE:
            raise ConfigError(f"secret must have {KEY_SIZE} bytes, got {len(hidden.reveal())}")
        if wrapped is not None and not isinstance(wrapped, bytes):
            raise TypeError(f"wrapped must be bytes, got {type(wrapped).__name__}")
        # As generated code does it in a frozen dataclass.
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "secret", hidden.reveal())
        object.__setattr__(self, "wrapped", wrapped)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DataKey cannot be pickled or copied: its secret would be readable")


def is_key_id(text: str, max_length: int = _MAX_ID) -> bool:
    """Return whether a key may have this id."""
    return len(text) <= max_length and _ID.fullmatch(text) is not None


@runtime_checkable
class Keys(Protocol):
    """A source of keys. Implementations need not inherit from this protocol.

    The constructor does no I/O. One instance serves many stores and objects concurrently. The methods
    run on the event loop of the store's caller, with the caller's context variables. `for_write` is called
    for every put and copy, so a source that sends requests to a service must limit them. A source that
    keeps connections implements `trove_async.middleware.Closing` as well.
    """

    async def for_write(self, context: ObjectContext) -> DataKey:
        """Return the key that encrypts a new object.

        Args:
            context: The object.
        """
        ...

    async def for_read(self, context: ObjectContext, key_id: str, wrapped: bytes | None) -> DataKey:
        """Return the key that encrypted an object.

        Args:
            context: The object.
            key_id: The id of the key, from the object's record, which may be forged.
            wrapped: The wrapped form of the key, if the record contains one.

        Raises:
            DecryptionError: The key is unknown. The message names the id.
        """
        ...


def checked_key(key: DataKey) -> DataKey:
    """Return the key that an implementation of `Keys` returned. Raise TypeError if it is not one."""
    if not isinstance(key, DataKey):
        kind = type(key).__name__
        del key  # it may be a secret, and error reporters show variables
        raise TypeError(f"a Keys must return a DataKey, got {kind}")
    return key


class Keyring:
    """Keys that the program holds, by id. It cannot be pickled.

    ::

        Keyring({"2026-11": os.environ["NEW_KEY"], "2026-10": os.environ["OLD_KEY"]}, current="2026-11")

    Args:
        keys: The keys by id. A key is 32 bytes, or their base64 form (`generate_key`). An id is 1 to 64
            printable ASCII characters without spaces. Objects record it, so never use it for a different
            key, in this keyring or another one of the store.
        current: The id of the key that encrypts new objects. Not needed if there is only one key.

    Raises:
        ConfigError: A key or an id is not allowed, or no key is the current one.
        TypeError: An argument has the wrong type.
    """

    __slots__ = ("_current", "_keys")

    def __init__(self, keys: Mapping[str, bytes | str], current: str | None = None) -> None:
        self._keys: dict[str, DataKey] = {}  # the current one first
        if not isinstance(keys, Mapping):
            kind = type(keys).__name__
            del keys
            raise TypeError(f"keys must be a mapping of ids to keys, got {kind}")
        # Ids are hidden as well until they are valid: a user may have swapped ids and keys.
        entries = [(Secret[object](key_id), Secret[object](key)) for key_id, key in keys.items()]
        del keys
        check_texts(current=current)
        self._keys = _parsed(entries, "the keyring")
        if current is None and len(self._keys) == 1:
            (current,) = self._keys
        if current is None or current not in self._keys:
            ids = ", ".join(map(repr, self._keys)) or "none"
            raise ConfigError(f"current must be the id of a key of the keyring, which has {ids}")
        self._keys = {current: self._keys.pop(current), **self._keys}
        self._current = self._keys[current]

    @classmethod
    def from_env(cls, name: str = "TROVE_KEYS") -> Keyring:
        """Return the keys in an environment variable.

        The variable contains ``id:key`` pairs separated by commas, with the keys as `generate_key` returns
        them. The first key is the current one.

        Args:
            name: The name of the variable.

        Raises:
            ConfigError: The variable is missing or malformed.
        """
        text = Secret(os.environ.get(name, ""))
        source = f"the environment variable {name}"
        if not text.reveal().strip():
            raise ConfigError(f"{source} is not set: {_HOW_TO_SET}")
        return cls._from_entries([Secret(entry) for entry in text.reveal().split(",")], source)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Keyring:
        """Return the keys in a file, such as a secret that is mounted into a container.

        The file contains one ``id:key`` a line, with the keys as `generate_key` returns them. The first
        key is the current one.

        Args:
            path: The path of the file.

        Raises:
            ConfigError: The file is missing, cannot be read or is malformed.
        """
        source = f"the key file {os.fspath(path)!r}"
        try:
            text = Secret(Path(path).read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise ConfigError(f"{source} must contain text in UTF-8") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{source} cannot be read: {error}") from error
        lines = [Secret(line) for line in text.reveal().splitlines() if line.strip()]
        if not lines:
            raise ConfigError(f"{source} is empty: {_HOW_TO_SET}")
        return cls._from_entries(lines, source)

    @classmethod
    def _from_entries(cls, texts: Iterable[Secret[str]], source: str) -> Keyring:
        entries: list[tuple[Secret[object], Secret[object]]] = []
        for entry in texts:
            # Keys in base64 contain no colon, but ids may.
            if ":" not in entry.reveal():
                raise ConfigError(
                    f"{source}: key {len(entries) + 1} must have the form id:key, such as 2026-11:KEY"
                )
            key_id, key = map(Secret[object], map(str.strip, entry.reveal().rsplit(":", 1)))
            entries.append((key_id, key))
        keys = _parsed(entries, source)
        return cls({key.id: key.secret for key in keys.values()}, next(iter(keys)))

    @staticmethod
    def generate_key() -> str:
        """Return a new random key, in base64."""
        return base64.urlsafe_b64encode(os.urandom(KEY_SIZE)).decode()

    async def for_write(self, context: ObjectContext) -> DataKey:  # noqa: ARG002 - one key for all
        """Return the current key."""
        return self._current

    async def for_read(
        self,
        context: ObjectContext,  # noqa: ARG002 - the same keys for all
        key_id: str,
        wrapped: bytes | None,  # noqa: ARG002 - the keys are not wrapped
    ) -> DataKey:
        """Return the key with this id.

        Raises:
            DecryptionError: The keyring has no such key.
        """
        if key_id not in self._keys:
            raise DecryptionError(
                f"the object was encrypted with the key {key_id!r}, which {self!r} does not have: add it"
            )
        return self._keys[key_id]

    def __repr__(self) -> str:
        if not hasattr(self, "_keys"):
            return "<Keyring, not initialised>"  # its constructor raised
        return f"Keyring({', '.join(map(repr, self._keys))})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Keyring cannot be pickled or copied: create one in each process")


class TenantKeys:
    """The keys of the tenant that the current task works for.

    A tenant's keys are loaded when they are first needed, and kept for some time. The id of a key in a
    record begins with the name of the tenant (``acme/2026-11``, percent-encoded). So objects of one
    tenant are unreadable for all others, even if their keys have equal ids, and a copy to a different
    tenant is encrypted with that tenant's key. ::

        tenant = ContextVar[str]("tenant")
        TenantKeys(lambda context: tenant.get(), load_keyring)

    Args:
        tenant: Returns the name of the tenant. Called for every operation, in its task, so that it sees
            the task's context variables. It may also use the context, such as the bucket. May be async.
        load: Returns the keys of a tenant, given its name. Must not depend on anything else, because
            tasks share the result. Concurrent calls for one tenant wait for each other. A failure is not
            kept. Keys with connections (`Closing`) are closed when they are no longer kept and no task
            uses them, and when the store closes. May be async.
        max_tenants: The number of tenants whose keys are kept, the most recently used ones.
        ttl: The number of seconds for which the keys of a tenant are kept. A new key must be
            loadable for this long before it is made the current one.

    Raises:
        ConfigError: `max_tenants` or `ttl` is out of range.
        TypeError: An argument has the wrong type.
    """

    def __init__(
        self,
        tenant: Callable[[ObjectContext], str | Awaitable[str]],
        load: Callable[[str], Keys | Awaitable[Keys]],
        *,
        max_tenants: int = 1024,
        ttl: float = 300.0,
    ) -> None:
        for name, function in (("tenant", tenant), ("load", load)):
            if not callable(function):
                raise TypeError(f"{name} must be callable, got {type(function).__name__}")
        check_counts(max_tenants=max_tenants)
        check_numbers(ttl=ttl)
        if ttl < 0:
            raise ConfigError(f"ttl must not be negative, got {ttl}")
        self._tenant = tenant
        self._load = load
        self._max_tenants = max_tenants
        self._ttl = ttl
        self._cache: dict[str, tuple[Keys, float]] = {}  # by tenant, the least recently used first
        self._uses: dict[int, int] = {}  # the number of running calls, by the id of the keys
        self._dropped: dict[int, Keys] = {}  # no longer kept, and not closed yet
        self._cache_lock = threading.Lock()  # stores in several threads may share the keys
        # Locks exist while a task uses them. A lock works in one event loop only.
        self._load_locks: WeakValueDictionary[
            tuple[asyncio.AbstractEventLoop, str], asyncio.Lock
        ] = WeakValueDictionary()

    async def for_write(self, context: ObjectContext) -> DataKey:
        """Return the current key of the tenant."""
        tenant = await self._current_tenant(context)
        keys = await self._use(tenant)
        try:
            key = checked_key(await keys.for_write(context))
        finally:
            await self._end_use(keys)
        return _renamed(key, _prefix(tenant) + key.id)

    async def for_read(self, context: ObjectContext, key_id: str, wrapped: bytes | None) -> DataKey:
        """Return the key of the tenant with this id.

        Raises:
            DecryptionError: The key belongs to a different tenant, or the tenant has no such key.
        """
        tenant = await self._current_tenant(context)
        prefix = _prefix(tenant)
        if not key_id.startswith(prefix):
            raise DecryptionError(
                f"the object was encrypted with the key {key_id!r}, which does not belong to the current "
                f"tenant {tenant!r}: read it as the tenant that wrote it"
            )
        keys = await self._use(tenant)
        try:
            key = checked_key(await keys.for_read(context, key_id.removeprefix(prefix), wrapped))
        finally:
            await self._end_use(keys)
        return _renamed(key, key_id)

    async def _current_tenant(self, context: ObjectContext) -> str:
        tenant = await _result(self._tenant(context))
        if not isinstance(tenant, str):
            raise TypeError(f"tenant must return a str, got {type(tenant).__name__}")
        if not tenant:
            raise ConfigError("tenant must return the name of a tenant, got an empty str")
        return tenant

    async def _use(self, tenant: str) -> Keys:
        """Return the keys of a tenant. They stay open until `_end_use`."""
        keys = self._use_kept(tenant)
        if keys is None:
            place = asyncio.get_running_loop(), tenant
            lock = self._load_locks.setdefault(place, asyncio.Lock())
            # If the task that loads fails or is cancelled, the next one that waits loads the keys itself.
            async with lock:
                keys = self._use_kept(tenant)
                if keys is None:
                    keys = _checked_keys(await _result(self._load(tenant)))
                    self._keep(tenant, keys)
        return keys

    async def _end_use(self, keys: Keys) -> None:
        """End a use of keys. Close the keys that are no longer kept and not in use, even if cancelled."""
        with self._cache_lock:
            self._count_use(keys, -1)
            unused = [place for place in self._dropped if place not in self._uses]
            closing = [self._dropped.pop(place) for place in unused]
        if closing:
            try:
                await run_cleanup(_close(closing))
            except Exception:  # not of this operation, which may be that of a different tenant
                _logger.exception("the keys of a tenant that is no longer cached were not closed")

    async def aclose(self) -> None:
        """Close the connections of the keys that are kept. The store calls this when it closes."""
        with self._cache_lock:
            kept = [keys for keys, _ in self._cache.values()]
        await _close(kept)

    def _use_kept(self, tenant: str) -> Keys | None:
        """Return the keys that are kept, and count a use of them."""
        with self._cache_lock:
            entry = self._cache.get(tenant)
            if entry is None or monotonic() >= entry[1]:
                return None
            self._cache[tenant] = self._cache.pop(tenant)  # now the most recently used
            self._count_use(entry[0], 1)
            return entry[0]

    def _keep(self, tenant: str, keys: Keys) -> None:
        """Keep the keys of a tenant, and count a use of them. The keys that they replace are dropped."""
        with self._cache_lock:
            replaced = [self._cache.pop(tenant, None)]
            self._cache[tenant] = keys, monotonic() + self._ttl
            if len(self._cache) > self._max_tenants:
                replaced.append(self._cache.pop(next(iter(self._cache))))
            self._dropped.update(
                (id(entry[0]), entry[0]) for entry in replaced if entry is not None
            )
            for kept, _ in self._cache.values():  # tenants may share their keys
                self._dropped.pop(id(kept), None)
            self._count_use(keys, 1)

    def _count_use(self, keys: Keys, change: int) -> None:
        count = self._uses.pop(id(keys), 0) + change
        if count:
            self._uses[id(keys)] = count

    def __repr__(self) -> str:
        if not hasattr(self, "_load"):
            return "<TenantKeys, not initialised>"  # its constructor raised
        names = [getattr(f, "__qualname__", type(f).__name__) for f in (self._tenant, self._load)]
        return f"TenantKeys({', '.join(names)})"


def _parsed(
    entries: Iterable[tuple[Secret[object], Secret[object]]], source: str
) -> dict[str, DataKey]:
    """Return the keys by id. Errors number the keys, because a user may have swapped ids and keys."""
    keys: dict[str, DataKey] = {}
    for number, (key_id, key) in enumerate(entries, 1):
        place = f"{source}: key {number}"
        if not isinstance(key_id.reveal(), str):
            raise TypeError(
                f"{place} must have a str as its id, got {type(key_id.reveal()).__name__}"
            )
        if not is_key_id(str(key_id.reveal()), _MAX_KEYRING_ID):
            raise ConfigError(
                f"{place} must have an id of 1 to {_MAX_KEYRING_ID} printable ASCII characters without "
                "spaces"
            )
        if not isinstance(key.reveal(), (bytes, str)):
            raise TypeError(f"{place} must be bytes or a str, got {type(key.reveal()).__name__}")
        secret = _decoded(key)
        if len(secret.reveal()) != KEY_SIZE:
            raise ConfigError(
                f"{place} must be {KEY_SIZE} bytes, or their base64 form: make one with {_GENERATE}"
            )
        if str(key_id.reveal()) in keys:
            raise ConfigError(f"{place} has the id of an earlier key")
        keys[str(key_id.reveal())] = DataKey(id=str(key_id.reveal()), secret=secret.reveal())
    return keys


def _decoded(key: Secret[object]) -> Secret[bytes]:
    """Return a key as bytes. They are empty if it is a str that is not base64."""
    if isinstance(key.reveal(), bytes):
        return Secret(bytes(key.reveal()))  # type: ignore[call-overload]  # bytes, as checked
    try:
        return Secret(_from_base64(str(key.reveal())))
    except ValueError:
        # Raised by a caller instead: the frames of the standard library show the text in their variables.
        return Secret(b"")


def _from_base64(text: str) -> bytes:
    """Decode standard or URL-safe base64, with or without padding."""
    text = text.strip().rstrip("=").translate(str.maketrans("-_", "+/"))
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _checked_keys(keys: Keys) -> Keys:
    """Return the keys that `load` returned. Raise TypeError if they are not a source of keys."""
    if not isinstance(keys, Keys):
        kind = type(keys).__name__
        del keys  # it may contain secrets, and error reporters show variables
        raise TypeError(f"load must return Keys, got {kind}")
    return keys


async def _close(sources: Iterable[Keys]) -> None:
    """Close the sources of keys that have connections."""
    closers = CloseStack()
    for source in sources:
        if isinstance(source, Closing):
            closers.push(source.aclose)
    await closers.aclose()


def _prefix(tenant: str) -> str:
    """Return the prefix of the ids of a tenant's keys. No two tenants have the same one."""
    return quote(tenant, safe="", errors="surrogatepass") + "/"


def _renamed(key: DataKey, key_id: str) -> DataKey:
    """Return a key with a different id."""
    # `dataclasses.replace` would keep the secret in a variable, which error reporters show.
    return DataKey(id=key_id, secret=key.secret, wrapped=key.wrapped)


async def _result(value: T | Awaitable[T]) -> T:
    """Return the value that a callback returned, and await it if necessary."""
    return await value if isawaitable(value) else value
