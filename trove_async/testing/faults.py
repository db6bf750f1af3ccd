"""What is to go wrong with a driver's calls, told beforehand, and what calls there were."""

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
"""A call of the contract. ``get`` and ``upload`` are the entering of their contexts; ``copy`` is
known by its destination."""

When = Literal["before", "after"]


class Call(NamedTuple):
    """One call that reached the driver."""

    operation: Operation
    bucket: str | None = None
    key: str | None = None


class Hang:
    """A call that waits until it is released, or cancelled.

    Attributes:
        reached: Set once a call waits here.
    """

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let the call go on, and all that come after it."""
        self._released.set()

    async def wait(self) -> None:
        """Wait as a call does."""
        self.reached.set()
        await self._released.wait()


@dataclass(slots=True, kw_only=True)
class _Aim:
    """What a fault is meant for, and how often."""

    operation: Operation
    when: When = "before"
    bucket: str | None = None
    key: str | None = None
    times: int | None = 1
    skip: int = 0
    every: int = 1
    met: int = 0

    def meets(self, when: When, call: Call) -> bool:
        """Whether it strikes at this call, which counts as once."""
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
        self.met += 1
        if self.met % self.every:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(slots=True, kw_only=True)
class Flaw:
    """A fault in the body of a get, at a byte of the object."""

    kind: Literal["cut", "short", "flip"]
    bucket: str | None
    key: str
    at: int
    times: int | None

    def lies_in(self, call: Call) -> bool:
        return self.times != 0 and self.bucket in {None, call.bucket} and self.key == call.key

    def strike(self) -> None:
        if self.times is not None:
            self.times -= 1


class Faults:
    """Faults by call and by byte; of several that suit, the one told first strikes.

    Attributes:
        calls: Every call so far, failed ones included.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._faults: list[tuple[_Aim, Exception | Hang]] = []
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
            operation: Which calls.
            error: What they raise, a copy each time; None: an UnavailableError.
            times: How many of them; None: all.
            skip: How many succeed first.
            every: Of those after that, only each so-manieth fails.
            when: ``"before"`` anything happens, or ``"after"`` all of it has: the answer is lost.
            bucket: Only calls for this bucket.
            key: Only calls for this key.
        """
        aim = _Aim(
            operation=operation,
            when=when,
            bucket=bucket,
            key=key,
            times=times,
            skip=skip,
            every=every,
        )
        self._faults.append((aim, error or UnavailableError(f"{operation} fails as it was told")))

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
        """Make calls wait until they are released; see `fail` for the arguments."""
        hang = Hang()
        aim = _Aim(
            operation=operation,
            when=when,
            bucket=bucket,
            key=key,
            times=times,
            skip=skip,
            every=every,
        )
        self._faults.append((aim, hang))
        return hang

    def cut(self, key: str, *, at: int, times: int | None = 1, bucket: str | None = None) -> None:
        """Break bodies where byte `at` of the object would come, with an UnavailableError."""
        self._flaws.append(Flaw(kind="cut", bucket=bucket, key=key, at=at, times=times))

    def short(self, key: str, *, at: int, times: int | None = 1, bucket: str | None = None) -> None:
        """End bodies before byte `at` of the object, as though they were complete."""
        self._flaws.append(Flaw(kind="short", bucket=bucket, key=key, at=at, times=times))

    def flip(self, key: str, *, at: int, times: int | None = 1, bucket: str | None = None) -> None:
        """Change byte `at` of the object on its way."""
        self._flaws.append(Flaw(kind="flip", bucket=bucket, key=key, at=at, times=times))

    def heal(self) -> None:
        """Forget all faults, and let go of what hangs."""
        for _, fault in self._faults:
            if isinstance(fault, Hang):
                fault.release()
        self._faults.clear()
        self._flaws.clear()

    def count(self, operation: Operation) -> int:
        """Return how many calls of one kind there were."""
        return sum(call.operation == operation for call in self.calls)

    async def begin(self, call: Call) -> None:
        """Note a call, and let strike what is told for before it."""
        self.calls.append(call)
        await self._meet("before", call)

    async def end(self, call: Call) -> None:
        """Let strike what is told for after a call."""
        await self._meet("after", call)

    def flaws(self, call: Call) -> Iterator[Flaw]:
        """Iterate over the flaws that lie in the object of a call."""
        return (flaw for flaw in self._flaws if flaw.lies_in(call))

    async def _meet(self, when: When, call: Call) -> None:
        for aim, fault in self._faults:
            if aim.meets(when, call):
                if isinstance(fault, Hang):
                    await fault.wait()
                    return
                raise copy(fault)
