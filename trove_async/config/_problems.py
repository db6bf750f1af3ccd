"""Collects the problems of a configuration, so that one error reports all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from trove_async.errors import ConfigError

_MAX_SHOWN = 20
"""Maximum number of problems in a message."""


@contextmanager
def collected(problems: list[ConfigError]) -> Iterator[None]:
    """Add a `ConfigError` of the block to the problems instead of raising it."""
    try:
        yield
    except ConfigError as error:
        problems.append(error)


def message_of(source: str, problems: Iterable[str]) -> str:
    """Return the message of an error about a configuration: one line, or a list.

    Args:
        source: The name of the configuration.
        problems: Texts, each with the path of a value.
    """
    lines = list(dict.fromkeys(problems))
    if len(lines) == 1:
        return f"{source}: {lines[0]}"
    shown = lines[:_MAX_SHOWN]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    return "\n  ".join([f"{source} has {len(lines)} problems:", *shown])
