"""Tests of a suite that a server cannot pass, where it is laxer or stranger than what it stands for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

Suite = TypeVar("Suite", bound=type)


def strange(
    reasons: dict[str, str],
    *,
    where: Callable[[dict[str, Any]], bool] = lambda _: True,
    always: bool = True,
) -> Callable[[Suite], Suite]:
    """Expect tests of a suite to fail, for a server's strangeness.

    Args:
        reasons: By the tests' names, what is strange.
        where: Which cases of the test, by their parameters.
        always: Whether it is a failure if such a case passes.
    """

    def mark(suite: Suite) -> Suite:
        for name, reason in reasons.items():
            setattr(suite, name, _failing(getattr(suite, name), reason, where, always=always))
        return suite

    return mark


def _failing(
    inherited: Any, reason: str, where: Callable[[dict[str, Any]], bool], *, always: bool
) -> Any:
    @functools.wraps(inherited)
    async def test(*args: Any, **given: Any) -> None:
        if not where(given):
            await inherited(*args, **given)
            return
        try:
            await inherited(*args, **given)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it comes to
            pytest.xfail(f"{reason} ({type(error).__name__})")
        if always:
            pytest.fail(f"this is no longer strange: {reason}")

    return test
