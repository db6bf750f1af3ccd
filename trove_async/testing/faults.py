"""Faults in calls and in bodies, and a log of calls: the base of `Faulty`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Literal, NamedTuple

from trove_async.errors import UnavailableError

Operation = Literal[
    "open",
    "ping",
    "put",
    "get",
    "read",
    "head",
    "delete",
    "list_page",
    "create_bucket",
    "delete_bucket",
    "head_bucket",
    "list_buckets",
    "upload",
    "send",
    "commit",
    "copy",
    "delete_many",
    "presign",
    "version_page",
]
"""A call of the driver contract. ``get`` and ``upload`` mean entering their contexts. ``read``
includes ``readinto``, and ``send`` includes ``send_stream``. The bucket and key of ``copy`` are its
destination."""

When = Literal["before", "after"]


class Call(NamedTuple):
    """One call to the driver."""

    operation: Operation
    bucket: str | None = None
    key: str | None = None


class Hang:
    """A point at which calls wait until they are released or cancelled.

    Attributes:
        reached: Set once a call waits.
    """

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let all waiting calls and all later ones continue."""
        self._released.set()

    async def wait(self) -> None:
        """Wait until `release` is called."""
        self.reached.set()
        await self._released.wait()


@dataclass(slots=True, kw_only=True)
class _Target:
    """Selects the calls to which a fault applies."""

    operation: Operation
    when: When = "before"
    bucket: str | None = None
    key: str | None = None
    times: int | None = 1
    skip: int = 0
    every: int = 1
    matched: int = 0
    """The number of matching calls so far, not counting the skipped ones."""

    def matches(self, when: When, call: Call) -> bool:
        """Return whether the fault applies to this call, and count the call."""
        if (
            self.times == 0
            or (self.operation, self.when) != (call.operation, when)
            or self.bucket not in {None, call.bucket}
            or self.key not in {None, call.key}
        ):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.matched += 1
        if self.matched % self.every:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(slots=True, kw_only=True)
class Flaw:
    """A fault in the body of an object, at byte `at`. See `Faults.cut`, `short` and `flip`."""

    kind: Literal["cut", "short", "flip"]
    bucket: str | None
    key: str
    at: int
    times: int | None

    def applies_to(self, call: Call) -> bool:
        """Return whether the flaw is in the object that this call reads, and is not used up."""
        return self.times != 0 and self.bucket in {None, call.bucket} and self.key == call.key

    def count_use(self) -> None:
        """Count one use of the flaw."""
        if self.times is not None:
            self.times -= 1


class Faults:
    """A list of faults, and a log of calls.

    If several faults of `fail` and `hang` apply to a call, the first one added is used.

    Attributes:
        calls: All calls so far, including those that failed.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._faults: list[tuple[_Target, Exception | Hang]] = []
        self._flaws: list[Flaw] = []

    def fail(
        self,
        operation: Operation,
        error: Exception | None = None,
        *,
        times: int | None = 1,
        skip: int = 0,
        every: int = 1,
        when: When = "before",
        bucket: str | None = None,
        key: str | None = None,
    ) -> None:
        """Make calls fail.

        Args:
            operation: The kind of call that fails.
            error: The error to raise, copied for each call; None: an UnavailableError.
            times: The number of calls that fail; None: unlimited.
            skip: The number of matching calls that the fault leaves alone first.
            every: After `skip`, only every n-th matching call fails.
            when: ``"before"``: the driver is not called. ``"after"``: the driver is called and
                succeeds, and only its response is lost.
            bucket: The bucket of the calls; None: any.
            key: The key of the calls; None: any.
        """
        target = _Target(
            operation=operation,
            when=when,
            bucket=bucket,
            key=key,
            times=times,
            skip=skip,
            every=every,
        )
        self._faults.append(
            (
                target,
                error or UnavailableError(f"{operation} fails because the test added this fault"),
            )
        )

    def hang(
        self,
        operation: Operation,
        *,
        times: int | None = 1,
        skip: int = 0,
        every: int = 1,
        when: When = "before",
        bucket: str | None = None,
        key: str | None = None,
    ) -> Hang:
        """Make calls wait until `Hang.release` or `heal` is called. See `fail` for the arguments."""
        hang = Hang()
        target = _Target(
            operation=operation,
            when=when,
            bucket=bucket,
            key=key,
            times=times,
            skip=skip,
            every=every,
        )
        self._faults.append((target, hang))
        return hang

    def cut(self, key: str, *, at: int, times: int | None = 1, bucket: str | None = None) -> None:
        """Break the body before byte `at` of the object: the read raises UnavailableError.

        Args:
            key: The key of the object.
            at: The offset in the object, wherever the read starts.
            times: The number of bodies to damage; None: unlimited.
            bucket: The bucket of the object; None: any.
        """
        self._flaws.append(Flaw(kind="cut", bucket=bucket, key=key, at=at, times=times))

    def short(self, key: str, *, at: int, times: int | None = 1, bucket: str | None = None) -> None:
        """End the body before byte `at` of the object, as if it were complete. See `cut`."""
        self._flaws.append(Flaw(kind="short", bucket=bucket, key=key, at=at, times=times))

    def flip(self, key: str, *, at: int, times: int | None = 1, bucket: str | None = None) -> None:
        """Invert the bits of byte `at` of the object as it is read. See `cut`."""
        self._flaws.append(Flaw(kind="flip", bucket=bucket, key=key, at=at, times=times))

    def heal(self) -> None:
        """Remove all faults and release the calls that hang."""
        for _, fault in self._faults:
            if isinstance(fault, Hang):
                fault.release()
        self._faults.clear()
        self._flaws.clear()

    def count(self, operation: Operation) -> int:
        """Return the number of calls of one operation."""
        return sum(call.operation == operation for call in self.calls)

    async def begin(self, call: Call) -> None:
        """Log a call, and inject its faults with ``when="before"``."""
        self.calls.append(call)
        await self._inject("before", call)

    async def end(self, call: Call) -> None:
        """Inject the faults of a call with ``when="after"``."""
        await self._inject("after", call)

    def flaws(self, call: Call) -> Iterator[Flaw]:
        """Iterate over the flaws in the object that a call reads."""
        return (flaw for flaw in self._flaws if flaw.applies_to(call))

    async def _inject(self, when: When, call: Call) -> None:
        for target, fault in self._faults:
            if target.matches(when, call):
                if isinstance(fault, Hang):
                    await fault.wait()
                    return
                raise copy(fault)  # raising one instance twice would mix the tracebacks
