"""The counts of a job: while it runs, in its checkpoint, and in its report."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, Self

from trove_async._quantities import size_text

MAX_KEYS: Final = 100
"""Maximum number of keys that a report lists for one kind of error. The counts are exact."""

MAX_KINDS: Final = 50
"""Maximum number of kinds of errors in a report. Further kinds are counted as ``"other"``."""

_MAX_MESSAGE: Final = 500
"""Maximum length of the message that is kept for a kind of error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a job did with one object.

    Attributes:
        result: ``"changed"``: the object was changed, or would be by a run that is not dry.
            ``"unchanged"``: nothing was to be done. ``"skipped"``: something was left as it is, for
            the given `reason`.
        bytes: The number of bytes of the object that were copied or read.
        reason: The kind of a skip, a short phrase such as ``"conflict"``.
    """

    result: Literal["changed", "unchanged", "skipped"]
    bytes: int = 0
    reason: str = ""


UNCHANGED: Final = Outcome(result="unchanged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Objects of one kind in a report: those with one kind of error, or skipped for one reason.

    Attributes:
        count: The number of objects.
        keys: The first keys, at most 100.
        message: The message of the first error; ``""`` for a skip.
    """

    count: int
    keys: Sequence[str]
    message: str = ""


class _Findings:
    """Counts findings by kind, and keeps a bounded number of keys."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, list[str], str]] = {}

    def add(self, kind: str, keys: Sequence[str], count: int, message: str) -> None:
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            kind = "other"
        known, kept, first_message = self._kinds.get(kind, (0, [], message[:_MAX_MESSAGE]))
        kept.extend(keys[: MAX_KEYS - len(kept)])
        self._kinds[kind] = known + count, kept, first_message

    def total(self) -> int:
        return sum(count for count, _, _ in self._kinds.values())

    def public(self) -> Mapping[str, Finding]:
        return {
            kind: Finding(count=count, keys=tuple(keys), message=message)
            for kind, (count, keys, message) in sorted(self._kinds.items())
        }

    def to_json(self) -> dict[str, Any]:
        return {kind: list(values) for kind, values in self._kinds.items()}


class Tally:
    """The running counts of a job or of one of its ranges. `merge` adds those of another range.

    Attributes:
        examined: The number of objects examined.
        changed: The number of objects changed.
        unchanged: The number of objects with nothing to do.
        bytes: The number of bytes copied or read.
        ranges_done: The number of key ranges completed.
    """

    __slots__ = ("bytes", "changed", "errors", "examined", "ranges_done", "skips", "unchanged")

    def __init__(self) -> None:
        self.examined = self.changed = self.unchanged = self.bytes = self.ranges_done = 0
        self.errors = _Findings()
        self.skips = _Findings()

    @property
    def failed(self) -> int:
        """The number of objects with an error."""
        return self.errors.total()

    @property
    def skipped(self) -> int:
        """The number of objects skipped for a reason."""
        return self.skips.total()

    def add(self, key: str, outcome: Outcome) -> None:
        """Count an object that was examined."""
        self.examined += 1
        self.bytes += outcome.bytes
        if outcome.result == "changed":
            self.changed += 1
        elif outcome.result == "unchanged":
            self.unchanged += 1
        else:
            self.skips.add(outcome.reason, [key], 1, "")

    def add_error(self, key: str, error: Exception) -> None:
        """Count an object that could not be examined or changed."""
        self.examined += 1
        self.errors.add(type(error).__name__, [key], 1, str(error))

    def merge(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.examined += other.examined
        self.changed += other.changed
        self.unchanged += other.unchanged
        self.bytes += other.bytes
        self.ranges_done += other.ranges_done
        for mine, theirs in ((self.errors, other.errors), (self.skips, other.skips)):
            for kind, finding in theirs.public().items():
                mine.add(kind, finding.keys, finding.count, finding.message)

    def to_json(self) -> dict[str, Any]:
        """Return the tally as JSON values."""
        return {
            "examined": self.examined,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "bytes": self.bytes,
            "ranges_done": self.ranges_done,
            "errors": self.errors.to_json(),
            "skips": self.skips.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the tally that `to_json` has encoded.

        Raises:
            ValueError: The values are malformed.
        """
        tally = cls()
        try:
            for name in ("examined", "changed", "unchanged", "bytes", "ranges_done"):
                setattr(tally, name, _count(values[name]))
            for name, findings in (("errors", tally.errors), ("skips", tally.skips)):
                for kind, (count, keys, message) in values[name].items():
                    findings.add(str(kind), [str(key) for key in keys], _count(count), str(message))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"malformed counts: {error!r}") from error
        return tally


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a count must be an int of at least 0, got {value!r}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """The state of a running job, passed to its progress callback.

    Attributes:
        job: The name of the job: ``"rebalance"``.
        bucket: The bucket.
        examined: The number of objects examined so far, including those of an earlier run that the
            checkpoint has recorded. It is the sum of the next four.
        changed: The number of objects changed: moved, copied, deleted or encoded again.
        unchanged: The number of objects with nothing to do.
        skipped: The number of objects left as they are for a reason that the report names.
        failed: The number of objects with an error.
        bytes: The number of bytes copied or read.
        ranges_done: The number of key ranges completed.
        ranges: The number of key ranges known. It grows while the job runs.
        elapsed: Seconds since the start of this run.
    """

    job: str
    bucket: str
    examined: int
    changed: int
    unchanged: int
    skipped: int
    failed: int
    bytes: int
    ranges_done: int
    ranges: int
    elapsed: float


class ProgressCallback(Protocol):
    """A user's callback for the progress of a job."""

    def __call__(self, progress: JobProgress, /) -> None:
        """Receive the progress. Called on the event loop, so it must return quickly."""
        ...


def call_back(callback: ProgressCallback, progress: JobProgress) -> None:
    """Call a user's callback.

    Raises:
        TypeError: It returned a coroutine, which would not be awaited.
        Exception: It raised it.
    """
    result: object = callback(progress)  # type: ignore[func-returns-value] # of a lambda, for example
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("progress must be a plain function, and not return a coroutine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a job.

    Attributes:
        job: The name of the job: ``"rebalance"``.
        bucket: The bucket.
        dry_run: Whether nothing was changed. `changed` and `bytes` then count what a run would change.
        examined: The number of objects examined. It is the sum of the next four. After a resumed run that
            was killed, objects since its last checkpoint are examined twice or, if they were moved, not
            listed again.
        changed: The number of objects changed: moved, copied, deleted or encoded again.
        unchanged: The number of objects with nothing to do.
        skipped: The number of objects left as they are, by reason in `skips`.
        failed: The number of objects with an error, by class in `errors`.
        bytes: The number of bytes copied or read.
        errors: The errors of single objects, by the name of their class.
        skips: The objects that were skipped, by reason.
        ranges: The number of key ranges.
        duration: Seconds that this run took.
    """

    job: str
    bucket: str
    dry_run: bool
    examined: int
    changed: int
    unchanged: int
    skipped: int
    failed: int
    bytes: int
    errors: Mapping[str, Finding] = field(hash=False)
    skips: Mapping[str, Finding] = field(hash=False)
    ranges: int
    duration: float

    @property
    def ok(self) -> bool:
        """Whether no object failed."""
        return not self.failed

    def __str__(self) -> str:
        verb = "would change" if self.dry_run else "changed"
        summary = (
            f"{self.job} of {self.bucket!r}: {self.examined:,} objects examined, {verb} {self.changed:,}"
            f" ({size_text(self.bytes)}), unchanged {self.unchanged:,}, skipped {self.skipped:,},"
            f" failed {self.failed:,}, in {self.duration:.1f} s"
        )
        lines = [summary]
        for title, findings in (("skipped", self.skips), ("failed", self.errors)):
            for kind, finding in findings.items():
                keys = ", ".join(map(repr, finding.keys[:3]))
                more = ", …" if finding.count > len(finding.keys[:3]) else ""
                message = f": {finding.message}" if finding.message else ""
                lines.append(f"  {title}, {kind}: {finding.count:,} ({keys}{more}){message}")
        return "\n".join(lines)
