"""Tests of a suite that a server cannot pass, where it is laxer or stranger than what it stands for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

Suite = TypeVar("Suite", bound=type)


def strange(reasons: dict[str, str], *, always: bool = True) -> Callable[[Suite], Suite]:
    """Mark tests of a suite that a server's strangeness makes fail."""

    def mark(suite: Suite) -> Suite:
        for name, reason in reasons.items():
            inherited = getattr(suite, name)

            @functools.wraps(inherited)
            async def test(*args: Any, _test: Any = inherited, **given: Any) -> None:
                await _test(*args, **given)

            setattr(suite, name, pytest.mark.xfail(reason=reason, strict=always)(test))
        return suite

    return mark
