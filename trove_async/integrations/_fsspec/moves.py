"""Checks of moves."""

from __future__ import annotations

from collections.abc import Sequence


def check_targets(sources: Sequence[str], targets: Sequence[str]) -> None:
    """Check that each file has a path of its own to move to.

    Args:
        sources: The paths of the files, and of directories that contain some of them.
        targets: Where to move each.

    Raises:
        ValueError: Two files would be moved to one path, so that one of them would be lost.
    """
    directories = {source.rpartition("/")[0] for source in sources}
    source_of: dict[str, str] = {}
    for source, target in zip(sources, targets, strict=False):
        if source in directories:
            continue
        other = source_of.setdefault(target, source)
        if other != source:
            raise ValueError(f"both {other!r} and {source!r} would be moved to {target!r}")
