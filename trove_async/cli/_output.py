"""Prints results to standard output, as text or JSON lines, and everything else to standard error."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from trove_async._quantities import size_text


class Output:
    """The output of one run of a command.

    Args:
        as_json: Whether results are JSON objects, one a line.
        quiet: Whether notes are left out.
        verbose: Whether details are printed, and warnings of the library.

    Attributes:
        failures: The number of errors that were reported.
    """

    def __init__(self, *, as_json: bool, quiet: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self.failures = 0
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # for terminals without Unicode
        if verbose:
            logging.basicConfig(format="trove: %(message)s", level=logging.WARNING)

    def result(self, text: str, **values: object) -> None:
        """Print one result: the text, or the values as JSON."""
        line = json.dumps(values, default=_json_value, ensure_ascii=False) if self.as_json else text
        sys.stdout.write(f"{printable(line)}\n")

    def note(self, text: str) -> None:
        """Print something about the run."""
        if not self.quiet:
            self._to_stderr(text)

    def detail(self, text: str) -> None:
        """Print something that is shown with ``--verbose`` only."""
        if self.verbose:
            self._to_stderr(text)

    def error(self, text: str, error: BaseException | None = None) -> None:
        """Report a failure, and count it."""
        self.failures += 1
        if self.as_json:
            kind = type(error).__name__ if error is not None else "Error"
            sys.stderr.write(
                f"{json.dumps({'error': kind, 'message': text}, ensure_ascii=False)}\n"
            )
        else:
            self._to_stderr(text)

    def flush(self) -> None:
        """Write what is buffered."""
        sys.stdout.flush()

    def _to_stderr(self, text: str) -> None:
        sys.stderr.write(f"trove: {printable(text)}\n")
        sys.stderr.flush()


def printable(text: str) -> str:
    """Return a text without characters that control a terminal. Keys may contain any."""
    if text.isprintable():
        return text
    # A tab is harmless, and JSON escapes control characters itself.
    return "".join(
        one
        if one.isprintable() or one == "\t"
        else one.encode("unicode_escape", "replace").decode()
        for one in text
    )


def shown_size(size: int, *, exact: bool) -> str:
    """Return a size, in bytes or for people."""
    return str(size) if exact else size_text(size)


def time_text(time: datetime | None) -> str:
    """Return a time in UTC, to the second."""
    return "-" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration_text(seconds: float) -> str:
    """Return a duration, such as ``1:02:03`` or ``2.5 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def count_text(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1,234 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _json_value(value: object) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    return str(value)
