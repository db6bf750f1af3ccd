"""Moves objects between backends by their age, size and prefix."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trove_async import _names
from trove_async._settings import check_ints
from trove_async.errors import ConfigError
from trove_async.models import ObjectInfo
from trove_async.store import Trove

from ._job import WalkPage
from ._options import Executor, check_target, run_options
from ._placement import (
    CONFLICT,
    Move,
    completed,
    finds_anywhere,
    ranks_between,
    reading_order,
    relocate,
    router_of,
)
from ._ranges import KeyRange
from ._report import UNCHANGED, Outcome, ProgressCallback, Report
from ._run import run_job
from ._walks import ListedKey, first_key_after, is_ordered, walk_copies, walk_routed


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRule:
    """A rule that sends objects to a backend. All conditions that are passed must hold.

    Args:
        to: The name of the backend.
        after: The least time since the object was last modified. None: any.
        prefix: The start of the key.
        larger_than: The object must have more stored bytes than this. None: any size.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `after` or `larger_than` is negative.
        InvalidNameError: No key can have the prefix.

    Example:
        >>> TierRule(after=timedelta(days=30), to="cold")
        TierRule(to='cold', after=datetime.timedelta(days=30), prefix='', larger_than=None)
    """

    to: str
    after: timedelta | None = None
    prefix: str = ""
    larger_than: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.to, str):
            raise TypeError(f"to must be the name of a backend, got {type(self.to).__name__}")
        if not isinstance(self.after, timedelta | None):
            raise TypeError(f"after must be a timedelta, got {type(self.after).__name__}")
        if self.after is not None and self.after < timedelta():
            raise ValueError(f"after must not be negative, got {self.after}")
        _names.check_prefix(self.prefix)
        if self.larger_than is not None:
            check_ints(larger_than=self.larger_than)
            if self.larger_than < 0:
                raise ValueError(f"larger_than must not be negative, got {self.larger_than}")

    def matches(self, info: ObjectInfo, now: datetime) -> bool:
        """Return whether the rule applies to an object at the given time."""
        return (
            info.key.startswith(self.prefix)
            and (self.larger_than is None or info.stored_size > self.larger_than)
            and (self.after is None or now - info.last_modified >= self.after)
        )


async def tier(
    store: Trove,
    bucket: str,
    rules: Sequence[TierRule],
    *,
    prefix: str = "",
    now: datetime | None = None,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
    concurrency: int = 64,
    checkpoint: str | os.PathLike[str] | None = None,
    max_objects_per_second: float | None = None,
    max_bytes_per_second: float | None = None,
    on: Executor | None = None,
) -> Report:
    """Move the objects of a bucket to the backends that the rules name, by age, size and prefix.

    The first rule that matches an object decides; without one, the object stays. Moving an object gives it a
    new modification time on its backend. The store must find objects on any backend
    (``Trove(locate="anywhere")``), because the routes still name the backend that a put uses.

    A put of a key whose object was moved stores the new object at the routed backend, where it hides the old
    one. When that object is moved in turn, it replaces the hidden one. `rebalance` moves all objects back to
    the routed backends, so use either of them for a bucket.

    Args:
        store: The store, not a pinned handle.
        bucket: The bucket.
        rules: The rules, in order.
        prefix: Examine only keys that start with this.
        now: The time at which ages are computed: an aware datetime. None: the time of the examination.
        dry_run: Whether to count what would be done, and change nothing.
        progress: Called with a `JobProgress`, at most ten times a second. An exception that it raises ends
            the job and is raised.
        concurrency: The maximum number of objects in flight.
        checkpoint: Where the state is recorded, as in `rebalance`.
        max_objects_per_second: The maximum number of objects to process in a second.
        max_bytes_per_second: The maximum number of bytes to transfer in a second.
        on: Where to run. None: in this process.

    Returns:
        The report. An object is skipped as a ``"conflict"`` if a third backend has an object of its key, which
        would become visible.

    Raises:
        ConfigError: The store would not find the objects after the move.
        BackendNotFoundError: A rule names an unknown backend.
        Otherwise as `rebalance`.
    """
    check_target(store, bucket, prefix, dry_run=dry_run)
    checked = _checked_rules(store, rules)
    if now is not None and not isinstance(now, datetime):
        raise TypeError(f"now must be a datetime, got {type(now).__name__}")
    if now is not None and now.tzinfo is None:
        raise ValueError("now must be an aware datetime: pass a timezone")
    options = run_options(
        progress=progress,
        concurrency=concurrency,
        checkpoint=checkpoint,
        max_objects_per_second=max_objects_per_second,
        max_bytes_per_second=max_bytes_per_second,
        on=on,
    )
    job = Tier(store, bucket, prefix, checked, now=now, dry_run=dry_run)
    return await run_job(store, job, options)


def _checked_rules(store: Trove, rules: Sequence[TierRule]) -> Sequence[TierRule]:
    if isinstance(rules, TierRule):
        raise TypeError("rules must be a sequence of TierRule: pass [rule]")
    if not isinstance(rules, Iterable):
        raise TypeError(f"rules must be a sequence of TierRule, got {type(rules).__name__}")
    checked = list(rules)
    for rule in checked:
        if not isinstance(rule, TierRule):
            raise TypeError(f"a rule must be a TierRule, got {type(rule).__name__}")
        store._core.check_backend(rule.to)  # noqa: SLF001 - jobs are part of the library
    if not checked:
        raise ConfigError("rules must contain at least one rule")
    return checked


class Tier:
    """The job. See `Job`."""

    name = "tier"

    def __init__(
        self,
        store: Trove,
        bucket: str,
        prefix: str,
        rules: Sequence[TierRule],
        *,
        now: datetime | None,
        dry_run: bool,
    ) -> None:
        self._store = store
        self._router = router_of(store)
        self.bucket = bucket
        self._prefix = prefix
        self._rules = rules
        self._now = now
        self.dry_run = dry_run
        self._names = list(store.backends)

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments, and the fingerprint of the rules."""
        return {
            "bucket": self.bucket,
            "prefix": self._prefix,
            "rules": [
                {
                    "to": rule.to,
                    "after": None if rule.after is None else rule.after.total_seconds(),
                    "prefix": rule.prefix,
                    "larger_than": rule.larger_than,
                }
                for rule in self._rules
            ],
            "now": None if self._now is None else self._now.isoformat(),
            "dry_run": self.dry_run,
            "routes": self._router.fingerprint,
        }

    @property
    def ordered(self) -> bool:
        """Whether all backends list in key order."""
        return is_ordered(self._store)

    async def check(self) -> None:
        """Raise ConfigError if the store would not find the objects after the move."""
        if finds_anywhere(self._store):
            return
        for rule in self._rules:
            prefix = max(self._prefix, rule.prefix, key=len)
            if not (prefix.startswith(self._prefix) and prefix.startswith(rule.prefix)):
                continue  # no key of the job matches
            reached = await self._router.reaches(self.bucket, prefix)
            if set(reached) != {rule.to}:
                raise ConfigError(
                    f"the store would not find objects that are moved to {rule.to!r}: open it with"
                    " Trove(locate='anywhere'), or add a route that sends these keys there"
                )

    def walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[ListedKey], None]:
        """Walk the objects of all backends."""
        walk = walk_copies(self._store, self.bucket, self._prefix, key_range)
        return walk_routed(self._router, self.bucket, walk)

    async def first_after(self, key: str) -> str | None:
        """Return the next key on any backend."""
        return await first_key_after(
            self._store, self.bucket, self._prefix, key, include_shadowed=True
        )

    def peek(self, item: ListedKey) -> Outcome | None:
        """Return that nothing is to be done, if no object of the key has to move."""
        if not item.whole and len(self._names) > 1:
            return None
        now = self._time()
        if all(self._destination(info, now) in {None, info.backend} for info in item.infos):
            return UNCHANGED
        return None

    def weight(self, item: ListedKey) -> int:
        """Return the size of the object."""
        return item.infos[0].stored_size

    async def process(self, item: ListedKey) -> Outcome:
        """Move the object that users read, if a rule matches it."""
        # 1. Find that object: the routed backend's, or else the first one.
        listed = item
        item = await completed(self._store, item)
        routed = item.routed
        order = reading_order(self._store, routed)
        info = next(found for name in order if (found := item.on(name)) is not None)
        target = self._destination(info, self._time())
        if target is None or target == info.backend or listed.on(info.backend) is None:
            return UNCHANGED  # in an unordered listing, the object to move is an item of its own
        # 2. Leave it if the move would reveal a different object, which it hides now.
        between = ranks_between(order, info.backend, target)
        if any(item.on(name) is not None for name in between):
            return CONFLICT
        # 3. Move it. An object at the destination is replaced only if this one hides it: an object that
        # takes precedence was put since the listing, so it is newer.
        move = Move(info=info, to=target, replace=order.index(target) > order.index(info.backend))
        return await relocate(self._store, move, dry_run=self.dry_run)

    def _time(self) -> datetime:
        return self._now or datetime.now(UTC)

    def _destination(self, info: ObjectInfo, now: datetime) -> str | None:
        return next((rule.to for rule in self._rules if rule.matches(info, now)), None)
