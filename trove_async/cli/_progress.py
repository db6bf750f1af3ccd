"""Shows the progress of long work on standard error: a line that is redrawn on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from trove_async._quantities import size_text
from trove_async.events import Event

from ._output import Output, count_text, duration_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_LINE_SECONDS: Final = 10.0
"""Seconds between two lines where there is no terminal, so that a log shows that work goes on."""

_REDRAW_SECONDS: Final = 0.1


class Progress:
    """The progress of one command. Its end prints a summary, also after an interrupt.

    Args:
        output: Prints the lines.
        verb: What is done, for the summary: ``"copied"``.
        show: Whether to show anything before the summary.
        total_bytes: The number of bytes in total. None: unknown.
        total_objects: The number of objects in total. None: unknown.

    Attributes:
        objects: The number of objects that are done.
        bytes: The number of bytes that are done, including those of unfinished objects.
        deleted: The number of objects that a sync has deleted, which are not among `objects`.
    """

    def __init__(
        self,
        output: Output,
        verb: str,
        *,
        show: bool,
        total_bytes: int | None = None,
        total_objects: int | None = None,
    ) -> None:
        self._output = output
        self._verb = verb
        self.total_bytes = total_bytes
        self.total_objects = total_objects
        self.objects = 0
        self.bytes = 0
        self.deleted = 0
        self._failures = output.failures  # those of before
        self._show = show and not output.quiet
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._started_at = self._shown_at = monotonic()

    def __enter__(self) -> Self:
        if self._show and sys.stderr.isatty():
            self._open_bars()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._draw()
            self._bars.stop()
        if error is None or self.objects or self.bytes:
            self._output.note(("" if error is None else "stopped: ") + self.summary())

    @property
    def is_drawn(self) -> bool:
        """Whether a bar is drawn on a terminal."""
        return self._bars is not None

    def add(self, objects: int = 0, size: int = 0) -> None:
        """Count objects and bytes."""
        self.objects += objects
        self.bytes += size
        self.redraw()

    def redraw(self) -> None:
        """Show the counts, if enough time has passed."""
        if not self._show:
            return
        now = monotonic()
        pause = _LINE_SECONDS if self._bars is None else _REDRAW_SECONDS
        if now - self._shown_at < pause:
            return
        self._shown_at = now
        if self._bars is None:
            self._output.note(f"{self.summary()}{self._time_left(now)}")
        else:
            self._draw()

    def of_object(self) -> Callable[[int, int | None], None]:
        """Return a progress callback for one object of which bytes are counted as they are transferred."""
        before = 0

        def count(done: int, _total: int | None) -> None:
            nonlocal before
            self.add(size=done - before)
            before = done

        return count

    def summary(self) -> str:
        """Return the counts as a sentence."""
        seconds = monotonic() - self._started_at
        failed = self._output.failures - self._failures
        return (
            f"{self._verb} {count_text(self.objects, 'object')}, {size_text(self.bytes)}, in"
            f" {duration_text(seconds)}"
            + (
                f" ({size_text(round(self.bytes / seconds))}/s)"
                if self.bytes and seconds > 1
                else ""
            )
            + (f"; deleted {self.deleted:,}" if self.deleted else "")
            + (f"; {failed:,} failed" if failed else "")
        )

    def _time_left(self, now: float) -> str:
        if not self.total_bytes or not self.bytes:
            return ""
        left = (self.total_bytes - self.bytes) * (now - self._started_at) / self.bytes
        share = 100 * self.bytes / self.total_bytes
        return (
            f" ({share:.0f} % of {size_text(self.total_bytes)}, {duration_text(max(left, 0))} left)"
        )

    def _open_bars(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only a terminal needs rich
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[objects]}"),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[speed]}"),  # that of rich has units of 1,000
            TextColumn("eta"),
            TimeRemainingColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            auto_refresh=False,  # a thread of rich's own would run beside the event loop
            transient=True,
            expand=True,
        )
        self._task = self._bars.add_task("", total=self.total_bytes, objects="", speed="")
        self._bars.start()

    def _draw(self) -> None:
        if self._bars is None or self._task is None:
            return
        objects = f"{self.objects:,}"
        if self.total_objects:
            objects += f"/{self.total_objects:,}"
        speed = self._bars.tasks[0].speed
        self._bars.update(
            self._task,
            completed=self.bytes,
            total=self.total_bytes,
            objects=f"{objects} objects",
            speed=f"{size_text(round(speed))}/s" if speed else "",
            refresh=True,
        )


class PartCounter:
    """Counts the bytes of parts that uploads have stored, before their objects are done.

    Subscribe it to the events of a store. `finished` returns what is left to count once an object is done.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._counted: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Count a part."""
        if event.kind == "part" and event.error is None and event.key is not None:
            self._counted[event.key] = self._counted.get(event.key, 0) + event.size
            self._progress.add(size=event.size)

    def finished(self, key: str, size: int) -> int:
        """Return the bytes of an object that no part has counted."""
        return size - self._counted.pop(key, 0)
