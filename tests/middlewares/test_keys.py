"""Keys come from a keyring or from a tenant's keys, and their secrets are shown nowhere."""

from __future__ import annotations

import asyncio
import base64
import copy
import logging
import pickle
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from trove_async.errors import ConfigError, DecryptionError
from trove_async.middleware import ObjectContext
from trove_async.middlewares import Encryption
from trove_async.middlewares import keys as keys_module
from trove_async.middlewares.keys import DataKey, Keyring, Keys, TenantKeys

OLD = bytes(range(32))
NEW = bytes(range(200, 232))
NEW_TEXT = base64.b64encode(NEW).decode()
CONTEXT = ObjectContext(bucket="data", key="a/b", backend="memory")

current_tenant: ContextVar[str] = ContextVar("current_tenant")


def tenant_of_the_task(context: ObjectContext) -> str:  # noqa: ARG001 - it reads the task's variable
    return current_tenant.get()


def shown(error: BaseException) -> str:
    """Return what an error reporter shows of an error: messages, and variables of the library."""
    text = ""
    chain: BaseException | None = error
    while chain is not None:
        report = traceback.TracebackException.from_exception(chain, capture_locals=True)
        text += f"{chain} {chain!r}"
        for frame in report.stack:
            if frame.filename != __file__:
                text += "".join(
                    f"\n{name} = {value}" for name, value in (frame.locals or {}).items()
                )
        chain = chain.__cause__ or chain.__context__
    return text


def forms(secret: bytes) -> list[str]:
    """Return texts that reveal a secret, or enough of it."""
    return [
        base64.b64encode(secret).decode()[:10],
        base64.urlsafe_b64encode(secret).decode()[:10],
        repr(secret)[2:20],
        secret.hex()[:10],
    ]


def assert_hidden(secret: bytes, text: str) -> None:
    for form in forms(secret):
        assert form not in text


# -- DataKey ---------------------------------------------------------------------------------------


def test_data_key_hides_its_secret() -> None:
    key = DataKey(id="2026-11", secret=NEW, wrapped=b"wrapped")
    assert (key.id, key.secret, key.wrapped) == ("2026-11", NEW, b"wrapped")
    assert repr(key) == str(key) == "DataKey(id='2026-11')"
    assert_hidden(NEW, f"{key} {[key]} {(key.id, key)}")


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy])
def test_keys_cannot_be_pickled(leak: Callable[[object], object]) -> None:
    for value in (DataKey(id="a", secret=NEW), Keyring({"a": NEW})):
        with pytest.raises(TypeError, match="cannot be pickled") as caught:
            leak(value)
        assert_hidden(NEW, shown(caught.value))


def test_data_key_is_immutable_and_can_be_renamed() -> None:
    key = DataKey(id="a", secret=NEW)
    with pytest.raises(FrozenInstanceError):
        key.secret = OLD  # type: ignore[misc]  # what is tested
    renamed = replace(key, id="b")
    assert (renamed.id, renamed.secret) == ("b", NEW)


def test_data_keys_are_compared_by_identity() -> None:
    # A comparison of secrets would take longer the more bytes are equal.
    assert DataKey(id="a", secret=NEW) != DataKey(id="a", secret=NEW)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_data_key_with_a_secret_of_a_different_size_is_refused(size: int) -> None:
    secret = (NEW + NEW)[:size]
    with pytest.raises(ConfigError, match=f"secret must have 32 bytes, got {size}") as caught:
        DataKey(id="a", secret=secret)
    if size:
        assert_hidden(NEW[:16], shown(caught.value))


@pytest.mark.parametrize("key_id", ["", "a b", "é", "a\n", "x" * 257])
def test_data_key_with_a_bad_id_is_refused(key_id: str) -> None:
    with pytest.raises(ConfigError, match="printable ASCII"):
        DataKey(id=key_id, secret=NEW)


def test_data_key_of_wrong_types_is_refused() -> None:
    with pytest.raises(TypeError, match="id must be a str"):
        DataKey(id=None, secret=NEW)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match="secret must be bytes, got str") as caught:
        DataKey(id="a", secret=NEW_TEXT)  # type: ignore[arg-type]  # what is tested
    assert_hidden(NEW, shown(caught.value))
    with pytest.raises(TypeError, match="wrapped must be bytes"):
        DataKey(id="a", secret=NEW, wrapped="")  # type: ignore[arg-type]  # what is tested


# -- Keyring ---------------------------------------------------------------------------------------


async def test_keyring_writes_with_the_current_key_and_reads_with_any() -> None:
    keyring = Keyring({"2026-10": OLD, "2026-11": NEW}, current="2026-11")
    written = await keyring.for_write(CONTEXT)
    assert (written.id, written.secret, written.wrapped) == ("2026-11", NEW, None)
    assert (await keyring.for_read(CONTEXT, "2026-10", None)).secret == OLD
    assert isinstance(keyring, Keys)


async def test_the_only_key_is_the_current_one() -> None:
    assert (await Keyring({"a": NEW}).for_write(CONTEXT)).id == "a"


def test_keyring_shows_its_ids_only_the_current_one_first() -> None:
    keyring = Keyring({"2026-10": OLD, "2026-11": NEW}, current="2026-11")
    assert repr(keyring) == str(keyring) == "Keyring('2026-11', '2026-10')"
    assert not hasattr(keyring, "__dict__")


def test_keyring_shows_nothing_in_logs(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("trove_async.test").warning("%s %r", Keyring({"a": NEW}), Keyring({"a": NEW}))
    assert "Keyring('a')" in caplog.text
    assert_hidden(NEW, caplog.text)


async def test_unknown_key_is_named_with_advice() -> None:
    keyring = Keyring({"2026-11": NEW})
    with pytest.raises(DecryptionError, match=r"'2025-01'.*Keyring\('2026-11'\).*add it") as caught:
        await keyring.for_read(CONTEXT, "2025-01", None)
    assert_hidden(NEW, shown(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(NEW).decode(),
        base64.urlsafe_b64encode(NEW).decode(),
        base64.urlsafe_b64encode(NEW).decode().rstrip("="),
        f"  {base64.b64encode(NEW).decode()}\n",
    ],
)
async def test_key_may_be_base64_of_any_kind(text: str) -> None:
    assert (await Keyring({"a": text}).for_write(CONTEXT)).secret == NEW


@pytest.mark.parametrize(
    "key",
    [
        NEW[:31],
        NEW + b"x",
        b"",
        "",
        base64.b64encode(NEW[:31]).decode(),
        base64.b64encode(NEW).decode()[:-3],  # one character is missing
        base64.b64encode(NEW).decode().replace("y", "!"),
        base64.b64encode(NEW).decode() + "é",
        NEW.hex(),
    ],
)
def test_malformed_key_is_refused_without_showing_it(key: bytes | str) -> None:
    with pytest.raises(ConfigError, match=r"key 2 must be 32 bytes.*generate_key\(\)") as caught:
        Keyring({"a": OLD, "b": key}, current="a")
    for secret in (NEW, OLD):
        assert_hidden(secret, shown(caught.value))


@pytest.mark.parametrize("key_id", ["", "a b", "é", "a\n", "x" * 65])
def test_malformed_id_is_refused(key_id: str) -> None:
    with pytest.raises(ConfigError, match="the keyring: key 1 must have an id"):
        Keyring({key_id: NEW})


def test_swapped_ids_and_keys_are_refused_without_showing_them() -> None:
    with pytest.raises(ConfigError) as caught:
        Keyring({NEW_TEXT: "2026-11"})
    assert_hidden(NEW, shown(caught.value))


@pytest.mark.parametrize("keys", [{}, {"a": OLD, "b": NEW}])
def test_current_must_be_given_unless_there_is_one_key(keys: dict[str, bytes]) -> None:
    with pytest.raises(ConfigError, match="current must be the id of a key"):
        Keyring(keys)


def test_current_must_be_in_the_keyring() -> None:
    with pytest.raises(ConfigError, match="which has 'a'"):
        Keyring({"a": NEW}, current="b")


@pytest.mark.parametrize(
    "keys", [NEW, NEW_TEXT, [("a", NEW)], {1: NEW}, {"a": 1}, {"a": bytearray(NEW)}]
)
def test_keyring_of_wrong_types_is_refused(keys: object) -> None:
    with pytest.raises(TypeError) as caught:
        Keyring(keys)  # type: ignore[arg-type]  # what is tested
    assert_hidden(NEW, shown(caught.value))


async def test_later_changes_of_the_mapping_have_no_effect() -> None:
    keys: dict[str, bytes | str] = {"a": NEW}
    keyring = Keyring(keys)
    keys["a"] = OLD
    assert (await keyring.for_write(CONTEXT)).secret == NEW


def test_generated_keys_are_random_and_usable() -> None:
    first, second = Keyring.generate_key(), Keyring.generate_key()
    assert first != second
    assert len(base64.urlsafe_b64decode(first)) == 32
    Keyring({"a": first})


# -- Keyring.from_env ------------------------------------------------------------------------------


async def test_first_key_of_the_variable_is_the_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = base64.b64encode(OLD).decode(), base64.urlsafe_b64encode(NEW).decode()
    monkeypatch.setenv("TROVE_KEYS", f" 2026-11:{new} , team:2026-10:{old}\n")
    keyring = Keyring.from_env()
    assert repr(keyring) == "Keyring('2026-11', 'team:2026-10')"
    assert (await keyring.for_write(CONTEXT)).secret == NEW
    assert (await keyring.for_read(CONTEXT, "team:2026-10", None)).secret == OLD


async def test_the_variable_can_have_a_different_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", f"a:{NEW_TEXT}")
    assert (await Keyring.from_env("OTHER").for_write(CONTEXT)).secret == NEW


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_missing_variable_raises_with_advice(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("TROVE_KEYS", raising=False)
    if value is not None:
        monkeypatch.setenv("TROVE_KEYS", value)
    with pytest.raises(ConfigError, match=r"TROVE_KEYS is not set.*Keyring\.generate_key\(\)"):
        Keyring.from_env()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (NEW_TEXT, "TROVE_KEYS: key 1 must have the form id:key"),
        (f"a:{NEW_TEXT},", "TROVE_KEYS: key 2 must have the form id:key"),
        (f"a:{NEW_TEXT} b:{NEW_TEXT}", "TROVE_KEYS: key 1 must have an id of"),
        (f":{NEW_TEXT}", "TROVE_KEYS: key 1 must have an id of"),
        (f"a b:{NEW_TEXT}", "TROVE_KEYS: key 1 must have an id of"),
        (f"a:{NEW_TEXT[:-4]}", "TROVE_KEYS: key 1 must be 32 bytes"),
        (f"{NEW_TEXT}:a", "TROVE_KEYS: key 1 must be 32 bytes"),
        (f"a:{NEW_TEXT},a:{NEW_TEXT}", "TROVE_KEYS: key 2 has the id of an earlier key"),
    ],
)
def test_malformed_variable_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("TROVE_KEYS", value)
    with pytest.raises(ConfigError) as caught:
        Keyring.from_env()
    assert message in str(caught.value)
    assert_hidden(NEW, shown(caught.value))


# -- Keyring.from_file -----------------------------------------------------------------------------


async def test_file_has_a_key_a_line_and_the_first_is_current(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"2026-11:{NEW_TEXT}\r\n\n2026-10:{base64.b64encode(OLD).decode()}\n")
    keyring = await asyncio.to_thread(Keyring.from_file, file)  # it reads the file
    assert (await keyring.for_write(CONTEXT)).secret == NEW
    assert (await keyring.for_read(CONTEXT, "2026-10", None)).secret == OLD


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (None, "cannot be read: .*No such file"),
        (b"", "is empty: set it to an id"),
        (b" \n", "is empty"),
        (b"canary-no-colon", "key 1 must have the form id:key"),
        (b"\xff", "must contain text in UTF-8"),
    ],
)
def test_malformed_file_raises(tmp_path: Path, data: bytes | None, problem: str) -> None:
    file = tmp_path / "keys"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(ConfigError, match=rf"the key file '.*/keys':? {problem}") as caught:
        Keyring.from_file(file)
    assert "canary" not in str(caught.value)


# -- TenantKeys ------------------------------------------------------------------------------------


class Loader:
    """Loads keyrings whose keys have equal ids, and counts the loads."""

    def __init__(self) -> None:
        self.loads: list[str] = []

    def __call__(self, tenant: str) -> Keyring:
        self.loads.append(tenant)
        return Keyring({"2026-11": tenant.encode().ljust(32, b".")})


async def test_each_task_uses_the_keys_of_its_tenant() -> None:
    load = Loader()
    keys = TenantKeys(tenant_of_the_task, load)
    assert isinstance(keys, Keys)
    together = asyncio.Barrier(2)

    async def write(tenant: str) -> DataKey:
        current_tenant.set(tenant)
        await together.wait()
        return await keys.for_write(CONTEXT)

    tasks = [asyncio.get_running_loop().create_task(write(name)) for name in ("acme", "globex")]
    acme, globex = [await task for task in tasks]
    assert (acme.id, acme.secret[:5]) == ("acme/2026-11", b"acme.")
    assert (globex.id, globex.secret[:7]) == ("globex/2026-11", b"globex.")
    assert sorted(load.loads) == ["acme", "globex"]


async def test_a_tenant_reads_its_own_objects_only() -> None:
    keys = TenantKeys(tenant_of_the_task, Loader())
    current_tenant.set("acme")
    written = await keys.for_write(CONTEXT)
    read = await keys.for_read(CONTEXT, written.id, None)
    assert (read.id, read.secret) == (written.id, written.secret)

    for other in ("globex", "acm", "acme/2026-11"):
        current_tenant.set(other)
        with pytest.raises(DecryptionError, match=r"'acme/2026-11'.*does not belong"):
            await keys.for_read(CONTEXT, written.id, None)


async def test_unknown_key_of_a_tenant_is_refused() -> None:
    current_tenant.set("acme")
    keys = TenantKeys(tenant_of_the_task, Loader())
    for key_id in ("acme/2025-01", "acme/"):
        with pytest.raises(DecryptionError, match="does not have"):
            await keys.for_read(CONTEXT, key_id, None)


async def test_names_of_tenants_are_quoted_in_ids() -> None:
    current_tenant.set("a/é %")
    keys = TenantKeys(tenant_of_the_task, Loader())
    assert (await keys.for_write(CONTEXT)).id == "a%2F%C3%A9%20%25/2026-11"
    current_tenant.set("\udce9")  # no text of Unicode, but a str
    keys = TenantKeys(tenant_of_the_task, lambda _: Keyring({"1": NEW}))
    assert (await keys.for_write(CONTEXT)).id == "%ED%B3%A9/1"


async def test_too_long_name_of_a_tenant_is_refused_without_showing_the_key() -> None:
    current_tenant.set("a" * 256)
    keys = TenantKeys(tenant_of_the_task, lambda _: Keyring({"1": NEW}))
    with pytest.raises(ConfigError, match="1 to 256") as caught:
        await keys.for_write(CONTEXT)
    assert not any(form in shown(caught.value) for form in forms(NEW))


async def test_the_context_may_select_the_tenant_and_functions_may_be_async() -> None:
    async def tenant_of_the_bucket(context: ObjectContext) -> str:
        return context.bucket

    async def load(tenant: str) -> Keyring:
        return Loader()(tenant)

    keys = TenantKeys(tenant_of_the_bucket, load)
    assert (await keys.for_write(CONTEXT)).id == "data/2026-11"


async def test_wrapped_key_reaches_the_keys_of_the_tenant() -> None:
    seen: list[tuple[str, bytes | None]] = []

    class Wrapping:
        async def for_write(self, context: ObjectContext) -> DataKey:
            del context
            return DataKey(id="master", secret=NEW, wrapped=b"wrapped")

        async def for_read(
            self, context: ObjectContext, key_id: str, wrapped: bytes | None
        ) -> DataKey:
            del context
            seen.append((key_id, wrapped))
            return DataKey(id=key_id, secret=NEW)

    current_tenant.set("acme")
    keys = TenantKeys(tenant_of_the_task, lambda _: Wrapping())
    written = await keys.for_write(CONTEXT)
    assert written.wrapped == b"wrapped"
    await keys.for_read(CONTEXT, written.id, written.wrapped)
    assert seen == [("master", b"wrapped")]


async def test_concurrent_first_calls_load_once() -> None:
    release, loads = asyncio.Event(), Loader()

    async def load(tenant: str) -> Keyring:
        keyring = loads(tenant)
        await release.wait()
        return keyring

    keys = TenantKeys(lambda _: "acme", load)
    tasks = [asyncio.get_running_loop().create_task(keys.for_write(CONTEXT)) for _ in range(10)]
    while not loads.loads:
        await asyncio.sleep(0)
    release.set()
    assert {(await task).id for task in tasks} == {"acme/2026-11"}
    assert loads.loads == ["acme"]
    assert not keys._load_locks


async def test_cancelled_first_call_does_not_fail_the_others() -> None:
    loading, loads = asyncio.Event(), Loader()

    async def load(tenant: str) -> Keyring:
        keyring = loads(tenant)
        if len(loads.loads) == 1:
            loading.set()
            await asyncio.Event().wait()
        return keyring

    keys = TenantKeys(lambda _: "acme", load)
    first, second = (
        asyncio.get_running_loop().create_task(keys.for_write(CONTEXT)) for _ in range(2)
    )
    await loading.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).id == "acme/2026-11"
    assert loads.loads == ["acme", "acme"]


async def test_failed_load_is_not_kept() -> None:
    loads = Loader()

    def load(tenant: str) -> Keyring:
        keyring = loads(tenant)
        if len(loads.loads) == 1:
            raise ConnectionError("the secret manager is away")
        return keyring

    keys = TenantKeys(lambda _: "acme", load)
    with pytest.raises(ConnectionError):
        await keys.for_write(CONTEXT)
    assert (await keys.for_write(CONTEXT)).id == "acme/2026-11"


async def test_least_recently_used_tenant_is_dropped() -> None:
    load = Loader()
    keys = TenantKeys(tenant_of_the_task, load, max_tenants=2)
    for tenant in ("a", "b", "a", "c", "a", "b"):
        current_tenant.set(tenant)
        await keys.for_write(CONTEXT)
    assert load.loads == ["a", "b", "c", "b"]


async def test_keys_are_loaded_again_after_the_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(keys_module, "monotonic", lambda: clock[0])
    load = Loader()
    keys = TenantKeys(lambda _: "acme", load, ttl=60)
    for now in (1000.0, 1059.9, 1060.0, 1061.0):
        clock[0] = now
        await keys.for_write(CONTEXT)
    assert load.loads == ["acme", "acme"]


async def test_keys_that_tenants_share_stay_open_while_one_of_them_is_kept() -> None:
    closed: list[str] = []

    class ClosingKeys(Keyring):
        __slots__ = ()

        async def aclose(self) -> None:
            closed.append(current_tenant.get())

    shared = ClosingKeys({"1": NEW})
    keys = TenantKeys(
        tenant_of_the_task,
        lambda name: shared if name in "abc" else Keyring({"1": NEW}),
        max_tenants=2,
    )
    for name in "abcde":
        current_tenant.set(name)
        await keys.for_write(CONTEXT)
    assert closed == ["e"]


async def test_keys_of_a_tenant_are_closed_when_they_are_dropped_and_with_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []

    class ClosingKeys(Keyring):
        __slots__ = ("tenant",)

        tenant: str

        async def aclose(self) -> None:
            closed.append(self.tenant)

    def load(tenant: str) -> Keyring:
        keys = ClosingKeys({"2026-11": NEW})
        keys.tenant = tenant
        return Keyring({"2026-11": NEW}) if tenant == "without connections" else keys

    clock = [1000.0]
    monkeypatch.setattr(keys_module, "monotonic", lambda: clock[0])
    keys = TenantKeys(tenant_of_the_task, load, max_tenants=2, ttl=60)
    for tenant in ("a", "without connections", "b"):
        current_tenant.set(tenant)
        await keys.for_write(CONTEXT)
    assert closed == ["a"]  # evicted
    clock[0] += 60
    await keys.for_write(CONTEXT)
    assert closed == ["a", "b"]  # expired
    await Encryption(keys).aclose()
    assert closed == ["a", "b", "b"]


class SlowKeys(Keyring):
    """Keys that wait in `for_read` and `for_write`, and in `aclose`, until they may continue."""

    __slots__ = ("closes", "may_close", "may_return", "reached")

    def __init__(self) -> None:
        super().__init__({"1": NEW})
        self.reached = asyncio.Event()
        self.may_return = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.closes: list[str] = []

    async def for_read(self, context: ObjectContext, key_id: str, wrapped: bytes | None) -> DataKey:
        await self._wait()
        return await super().for_read(context, key_id, wrapped)

    async def for_write(self, context: ObjectContext) -> DataKey:
        await self._wait()
        return await super().for_write(context)

    async def _wait(self) -> None:
        assert not self.closes, "the keys were closed while they were used"
        self.reached.set()
        await self.may_return.wait()
        assert not self.closes, "the keys were closed while they were used"

    async def aclose(self) -> None:
        await self.may_close.wait()
        self.closes.append("closed")


async def push_out(keys: TenantKeys) -> None:
    """Use the keys of as many other tenants as are kept."""
    for tenant in ("x", "y"):
        current_tenant.set(tenant)
        await keys.for_write(CONTEXT)


def keys_of_slow_tenant() -> tuple[TenantKeys, SlowKeys]:
    """Return keys of tenants, of which two are kept, and those of the tenant ``slow``."""
    slow = SlowKeys()
    keys = TenantKeys(
        tenant_of_the_task,
        lambda name: slow if name == "slow" else Keyring({"1": NEW}),
        max_tenants=2,
    )
    return keys, slow


@pytest.mark.parametrize("users", [1, 3])
@pytest.mark.parametrize("method", ["for_read", "for_write"])
async def test_dropped_keys_are_closed_once_after_their_last_user(method: str, users: int) -> None:
    keys, slow = keys_of_slow_tenant()

    async def use() -> None:
        current_tenant.set("slow")
        if method == "for_read":
            await keys.for_read(CONTEXT, "slow/1", None)
        else:
            await keys.for_write(CONTEXT)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(use()) for _ in range(users)]
        await slow.reached.wait()
        for task in tasks[1:]:
            task.cancel()
        await push_out(keys)
        await push_out(keys)
        assert not slow.closes
        slow.may_return.set()
    assert slow.closes == ["closed"]
    await push_out(keys)
    await keys.aclose()
    assert slow.closes == ["closed"]


async def test_dropped_keys_whose_user_is_cancelled_are_closed() -> None:
    keys, slow = keys_of_slow_tenant()
    current_tenant.set("slow")
    user = asyncio.get_running_loop().create_task(keys.for_write(CONTEXT))
    await slow.reached.wait()
    await push_out(keys)
    slow.may_close.clear()
    for _ in range(5):
        user.cancel()
        await asyncio.sleep(0)
    assert not user.done()
    slow.may_close.set()
    with pytest.raises(asyncio.CancelledError):
        await user
    assert slow.closes == ["closed"]


async def test_close_of_dropped_keys_completes_although_their_last_user_is_cancelled() -> None:
    keys, slow = keys_of_slow_tenant()
    slow.may_return.set()
    current_tenant.set("slow")
    await keys.for_write(CONTEXT)
    slow.may_close.clear()
    evicting = asyncio.get_running_loop().create_task(push_out(keys))
    for _ in range(5):
        await asyncio.sleep(0)
    evicting.cancel()
    await asyncio.sleep(0)
    slow.may_close.set()
    with pytest.raises(asyncio.CancelledError):
        await evicting
    assert slow.closes == ["closed"]


async def test_dropped_keys_that_are_loaded_again_while_they_are_used_stay_open() -> None:
    keys, slow = keys_of_slow_tenant()
    current_tenant.set("slow")
    first = asyncio.get_running_loop().create_task(keys.for_write(CONTEXT))
    await slow.reached.wait()
    await push_out(keys)
    slow.reached.clear()
    current_tenant.set("slow")
    second = asyncio.get_running_loop().create_task(keys.for_write(CONTEXT))
    await slow.reached.wait()
    slow.may_return.set()
    await asyncio.wait([first, second])
    assert (await first).id == (await second).id == "slow/1"
    await keys.for_write(CONTEXT)
    assert not slow.closes
    await push_out(keys)
    assert slow.closes == ["closed"]


async def test_failed_use_ends() -> None:
    keys, slow = keys_of_slow_tenant()
    slow.may_return.set()
    current_tenant.set("slow")
    with pytest.raises(DecryptionError):
        await keys.for_read(CONTEXT, "slow/unknown", None)
    await push_out(keys)
    assert slow.closes == ["closed"]


async def test_unset_tenant_is_refused() -> None:
    for result, error in ((None, TypeError), (b"acme", TypeError), ("", ConfigError)):
        keys = TenantKeys(lambda _, result=result: result, Loader())  # type: ignore[misc]  # what is tested
        with pytest.raises(error, match="tenant must return"):
            await keys.for_write(CONTEXT)


async def test_load_must_return_keys() -> None:
    keys = TenantKeys(lambda _: "acme", lambda _: {"a": NEW})  # type: ignore[arg-type,return-value]  # what is tested
    with pytest.raises(TypeError, match="load must return Keys, got dict") as caught:
        await keys.for_write(CONTEXT)
    assert_hidden(NEW, shown(caught.value))


async def test_keys_of_a_tenant_must_return_data_keys() -> None:
    class RawKeys:
        async def for_write(self, context: ObjectContext) -> Any:
            del context
            return NEW

        async def for_read(self, context: ObjectContext, key_id: str, wrapped: Any) -> Any:
            del context, key_id, wrapped
            return NEW

    keys = TenantKeys(lambda _: "acme", lambda _: RawKeys())
    for call in (keys.for_write, lambda context: keys.for_read(context, "acme/a", None)):
        with pytest.raises(TypeError, match="must return a DataKey, got bytes") as caught:
            await call(CONTEXT)
        assert_hidden(NEW, shown(caught.value))


def test_settings_of_tenant_keys_are_checked() -> None:
    with pytest.raises(TypeError, match="tenant must be callable"):
        TenantKeys("acme", Loader())  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match="load must be callable"):
        TenantKeys(tenant_of_the_task, Keyring({"a": NEW}))  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ConfigError, match="max_tenants"):
        TenantKeys(tenant_of_the_task, Loader(), max_tenants=0)
    with pytest.raises(ConfigError, match="ttl"):
        TenantKeys(tenant_of_the_task, Loader(), ttl=-1)


def test_tenant_keys_show_their_functions() -> None:
    assert (
        repr(TenantKeys(tenant_of_the_task, Loader())) == "TenantKeys(tenant_of_the_task, Loader)"
    )


def test_tenant_keys_serve_several_event_loops() -> None:
    load = Loader()
    keys = TenantKeys(lambda _: "acme", load, ttl=0)
    for _ in range(2):
        assert asyncio.run(keys.for_write(CONTEXT)).id == "acme/2026-11"
    assert load.loads == ["acme", "acme"]


async def test_failed_close_of_dropped_keys_does_not_fail_the_operation_of_another_tenant(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Unclosable(SlowKeys):
        async def aclose(self) -> None:
            raise ConnectionResetError("not closed")

    unclosable = Unclosable()
    unclosable.may_return.set()
    keys = TenantKeys(
        tenant_of_the_task,
        lambda name: unclosable if name == "slow" else Keyring({"1": NEW}),
        max_tenants=1,
    )
    current_tenant.set("slow")
    await keys.for_write(CONTEXT)
    current_tenant.set("other")
    assert (await keys.for_write(CONTEXT)).id == "other/1"
    assert "no longer cached were not closed" in caplog.text
