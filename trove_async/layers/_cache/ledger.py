"""The ledger of a cache that several processes share: how many bytes each of them may store.

The ledger is one object in the cache, changed only by conditional puts. It has an entry for each member, which is
an open layer in some process:

* Its *allowance*: the bytes that it may store. The sum of all allowances is at most ``max_bytes``, and each
  member evicts its own blocks to stay within its allowance. So no coordination is needed to write a block.
* Its *owners*: the first parts of the names of its blocks. One is its own id. The others it has adopted from
  members that left, or that have died.
* Its ``max_bytes``. The smallest one of all living members holds for all of them, once each has renewed.
* The time of its last renewal. A member renews its entry before it stores a block, if the last renewal is
  `RENEW_AFTER` seconds old, so an idle cache has no traffic. A member whose renewal is `LEASE` seconds old is
  dead, and so is one whose process no longer exists on the same machine.

A new member gets what is not allowed to others, which may be nothing. When the others renew, they see that it has
less than a fair share, evict down to their own fair share, and only then publish their lower allowance. The new
member gets the rest at its next renewal.

A member that was taken for dead, for example because its machine slept, finds that its entry is gone. It joins again
under a new id, and its earlier blocks belong to the member that adopted them.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from trove_async.driver import AsyncDriver
from trove_async.errors import (
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.models import MiB
from trove_async.options import GetOptions, PutOptions

from .calls import CacheCalls

T = TypeVar("T")

LEDGER: Final = "ledger"
"""The key of the ledger. The names of blocks contain a slash."""

RENEW_AFTER: Final = 5.0
LEASE: Final = 30.0
"""Seconds. A renewal precedes each block that is stored, so the lease must only outlast `RENEW_AFTER`, the write of
one block, and the difference between the clocks of two machines."""

_ATTEMPTS: Final = 20
"""Maximum number of attempts to change the ledger while other members change it as well."""

_FIELD: Final = "ledger"


class LostMembershipError(UnavailableError):
    """This member was taken for dead, and its blocks were adopted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """One entry of the ledger."""

    allowance: int
    renewed: float
    owners: frozenset[str]
    host: str
    pid: int
    max_bytes: int

    def is_dead(self, now: float) -> bool:
        """Return whether the member has left, or no longer stores blocks."""
        if abs(now - self.renewed) >= LEASE:
            return True
        return bool(self.host) and self.host == _HOST and not _is_running(self.pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The result of a renewal.

    Attributes:
        allowance: The bytes that this member may store, once it has counted the adopted blocks.
        adopted: The owners whose blocks are now those of this member.
    """

    allowance: int
    adopted: frozenset[str] = field(default_factory=frozenset)


class Ledger:
    """The membership of one layer.

    Args:
        cache: The open driver of the cache. It must honour the conditions of a put.
        bucket: The bucket of the cache.
        max_bytes: The maximum sum of all allowances.
        calls: Runs the calls to the driver.

    Attributes:
        member: The id of this member.
        allowance: The bytes that this member may store; 0 until it has joined.
        owners: The owners of this member's blocks.
    """

    def __init__(self, cache: AsyncDriver, bucket: str, max_bytes: int, calls: CacheCalls) -> None:
        self._cache = cache
        self._bucket = bucket
        self._max_bytes = max_bytes
        self._calls = calls
        self._run = calls.run
        self._renewed = 0.0
        self.member = secrets.token_hex(4)
        self.allowance = 0
        self.owners: frozenset[str] = frozenset()

    @property
    def is_due(self) -> bool:
        """Whether the membership must be renewed before a block is stored."""
        return not 0 <= time.time() - self._renewed < RENEW_AFTER

    async def join(self, listed: frozenset[str]) -> None:
        """Join, and adopt the blocks of members that are dead or unknown.

        Args:
            listed: The owners of the blocks in the cache, as listed before this call. An owner that is
                not in the ledger is unknown: a member is entered before it writes its first block.
        """
        self.member = secrets.token_hex(4)

        def change(members: Mapping[str, _Member]) -> tuple[dict[str, _Member], Renewal]:
            alive, adopted = self._survey(members)
            foreign = frozenset[str]().union(*(member.owners for member in alive.values()))
            adopted |= listed - foreign
            renewal = Renewal(allowance=self._share(alive), adopted=adopted)
            return {**alive, self.member: self._entry(renewal.allowance, adopted)}, renewal

        renewal = await self._change(change)
        self.owners = frozenset({self.member}) | renewal.adopted
        self.allowance = renewal.allowance

    async def renew(self, make_room: Callable[[], Awaitable[bool]]) -> Renewal:
        """Renew the membership, adopt the blocks of dead members, and agree on the allowance.

        The allowance is lowered at once. The caller raises it to that of the result, once it has
        counted the adopted blocks.

        Args:
            make_room: Evicts blocks down to `allowance`. Returns whether that succeeded.

        Raises:
            LostMembershipError: This member is not in the ledger: `join` again.
        """
        # 1. A lower allowance is published only once the blocks above it have been evicted.
        members, _ = await self._read()
        self._check_membership(members)
        share = self._share(self._survey(members)[0])
        is_lowered = False
        if share < self.allowance:
            self.allowance = share
            is_lowered = await make_room()

        # 2. Publish. The others may have changed in between, so this may take a further renewal to settle.
        def change(members: Mapping[str, _Member]) -> tuple[dict[str, _Member], Renewal]:
            self._check_membership(members)
            alive, adopted = self._survey(members)
            published = members[self.member].allowance
            floor = min(self.allowance, published) if is_lowered else published
            renewal = Renewal(allowance=max(self._share(alive), floor), adopted=adopted)
            entry = self._entry(renewal.allowance, self.owners | adopted)
            return {**alive, self.member: entry}, renewal

        renewal = await self._change(change)
        self.owners |= renewal.adopted
        return renewal

    async def leave(self) -> None:
        """Mark this member as dead. Its blocks stay for the next one. The layer's tasks have ended."""
        self._run = self._calls.run_last

        def change(members: Mapping[str, _Member]) -> tuple[dict[str, _Member], None]:
            changed = dict(members)
            if self.member in changed:
                changed[self.member] = replace(changed[self.member], renewed=0.0)
            return changed, None

        await self._change(change)

    # -- allowances ------------------------------------------------------------------------------

    def _survey(self, members: Mapping[str, _Member]) -> tuple[dict[str, _Member], frozenset[str]]:
        """Return the other living members, and the owners of the dead ones."""
        now = time.time()
        others = {name: member for name, member in members.items() if name != self.member}
        dead = [member for member in others.values() if member.is_dead(now)]
        alive = {name: member for name, member in others.items() if member not in dead}
        return alive, frozenset[str]().union(*(member.owners for member in dead))

    def _share(self, alive: Mapping[str, _Member]) -> int:
        """Return the allowance of this member, beside those of the others."""
        allowances = [member.allowance for member in alive.values()]
        limit = min([self._max_bytes, *(member.max_bytes for member in alive.values())])
        rest = max(0, limit - sum(allowances))
        fair = limit // (len(allowances) + 1)
        return min(rest, fair) if any(other < fair for other in allowances) else rest

    def _entry(self, allowance: int, owners: frozenset[str]) -> _Member:
        return _Member(
            allowance=allowance,
            renewed=time.time(),
            owners=owners | {self.member},
            host=_HOST,
            pid=os.getpid(),
            max_bytes=self._max_bytes,
        )

    def _check_membership(self, members: Mapping[str, _Member]) -> None:
        if self.member not in members:
            raise LostMembershipError("another process has taken over the blocks of this one")

    # -- the object ------------------------------------------------------------------------------

    async def _change(
        self, change: Callable[[Mapping[str, _Member]], tuple[Mapping[str, _Member], T]]
    ) -> T:
        """Change the ledger atomically. `change` is repeated if another member was faster."""
        for _ in range(_ATTEMPTS):
            members, etag = await self._read()
            changed, result = change(members)
            started = time.time()
            try:
                await self._run(self._write(changed, etag))
            except (PreconditionFailedError, ObjectExistsError):
                continue
            self._renewed = started
            return result
        raise UnavailableError(f"the cache's ledger was not changed in {_ATTEMPTS} attempts")

    async def _read(self) -> tuple[Mapping[str, _Member], str | None]:
        """Return the members, and the etag of the ledger; None if it does not exist."""
        return await self._run(self._get())

    async def _get(self) -> tuple[Mapping[str, _Member], str | None]:
        try:
            async with self._cache.get(self._bucket, LEDGER, GetOptions()) as reader:
                text = reader.info.metadata.get(_FIELD)
                if text is None:
                    text = (await reader.read(MiB)).decode(errors="replace")
                etag = reader.info.etag
        except ObjectNotFoundError:
            return {}, None
        try:
            return {name: _parse(entry) for name, entry in json.loads(text).items()}, etag
        except (ValueError, TypeError, AttributeError, KeyError):
            return {}, etag  # damaged: its members join again

    async def _write(self, members: Mapping[str, _Member], etag: str | None) -> None:
        text = json.dumps({name: _format(entry) for name, entry in members.items()})
        # As metadata it takes no bytes of `max_bytes`. A service's etag may be the hash of the body alone.
        capabilities = self._cache.capabilities
        in_metadata = (
            capabilities.embedded
            and capabilities.metadata
            and len(text) + len(_FIELD) <= capabilities.max_metadata_bytes
        )
        body = b"" if in_metadata else text.encode()
        options = PutOptions(
            size=len(body),
            metadata={_FIELD: text} if in_metadata else {},
            if_match=etag,
            if_none_match="*" if etag is None else None,
        )
        await self._cache.put(self._bucket, LEDGER, [memoryview(body)] if body else [], options)


def _format(member: _Member) -> list[object]:
    owners = " ".join(sorted(member.owners))
    return [
        member.allowance,
        round(member.renewed, 3),
        owners,
        member.host,
        member.pid,
        member.max_bytes,
    ]


def _parse(entry: list[str | int | float]) -> _Member:
    allowance, renewed, owners, host, pid, max_bytes = entry
    return _Member(
        allowance=int(allowance),
        renewed=float(renewed),
        owners=frozenset(str(owners).split()),
        host=str(host),
        pid=int(pid),
        max_bytes=int(max_bytes),
    )


def _host() -> str:
    """Return an id of this machine since it was booted, and of this namespace of processes; or ""."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except (OSError, UnicodeError):
        return ""
    return f"{boot[:8]}{namespace:x}"


_HOST: Final = _host()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it belongs to another user
    return True
