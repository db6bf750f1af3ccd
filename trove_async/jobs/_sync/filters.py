"""The include and exclude patterns of a sync."""

from __future__ import annotations

from collections.abc import Iterable

from trove_async._globs import Glob


class Filters:
    """Selects relative paths.

    A path is selected if an include pattern matches it, or if there are none, and no exclude pattern matches
    it. The order of the patterns does not matter.

    Args:
        include: The include patterns.
        exclude: The exclude patterns.

    Attributes:
        selects_all: Whether there are no patterns.

    Raises:
        PatternError: A pattern is malformed.
        TypeError: An argument is a str instead of a sequence, or a pattern is not a str.
    """

    def __init__(self, include: Iterable[str], exclude: Iterable[str]) -> None:
        self._include = _globs("include", include)
        self._exclude = _globs("exclude", exclude)
        self._include_tests = [glob.test for glob in self._include]
        self._exclude_tests = [glob.test for glob in self._exclude]
        self.selects_all = not (self._include or self._exclude)

    def selects(self, path: str) -> bool:
        """Return whether the path is selected."""
        if self.selects_all:
            return True
        if self._include and not any(test(path) for test in self._include_tests):
            return False
        return not any(test(path) for test in self._exclude_tests)

    def may_select_below(self, folder: str) -> bool:
        """Return whether a path that starts with `folder` may be selected. Only False is certain.

        Args:
            folder: A relative path that ends with a slash.
        """
        if self.selects_all:
            return True
        if self._include and not any(glob.can_match_below(folder) for glob in self._include):
            return False
        return not any(glob.covers(folder) for glob in self._exclude)


def _globs(name: str, patterns: Iterable[str]) -> list[Glob]:
    if isinstance(patterns, str | bytes) or not isinstance(patterns, Iterable):
        raise TypeError(
            f"{name} must be a sequence of patterns, got {type(patterns).__name__}: pass [pattern] for one"
        )
    return [Glob.parse(pattern) for pattern in patterns]
