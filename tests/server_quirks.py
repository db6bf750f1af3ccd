"""Expected failures of conformance suites, where a server deviates from the real service.

Emulators and S3-compatible servers do not behave as S3 or GCS do in every detail. The deviations are
listed next to the suites, with their reasons. A test whose deviation is gone fails until its entry is
removed, unless the deviation does not always occur.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

Suite = TypeVar("Suite", bound=type)


def expect_failures(
    reasons: dict[str, str],
    *,
    where: Callable[[dict[str, Any]], bool] = lambda _: True,
    always: bool = True,
    raises: type[Exception] | None = None,
) -> Callable[[Suite], Suite]:
    """Return a class decorator for a suite, some of whose tests are expected to fail.

    Args:
        reasons: How the server deviates, by the name of the test that fails.
        where: Receives the arguments of one case of a test, and returns whether it is expected to fail.
        always: Fail if such a case passes. False is for deviations that do not always occur.
        raises: The expected error. None: any error, including a failed assertion.
    """

    def mark(suite: Suite) -> Suite:
        for name, reason in reasons.items():
            test = _failing(getattr(suite, name), reason, where, always=always, raises=raises)
            setattr(suite, name, test)
        return suite

    return mark


def _failing(
    inherited: Any,
    reason: str,
    where: Callable[[dict[str, Any]], bool],
    *,
    always: bool,
    raises: type[Exception] | None,
) -> Any:
    expected = (Exception, pytest.fail.Exception) if raises is None else raises

    @functools.wraps(inherited)
    async def test(*args: Any, **parameters: Any) -> None:
        if not where(parameters):
            await inherited(*args, **parameters)
            return
        try:
            await inherited(*args, **parameters)
        except expected as error:
            pytest.xfail(f"{reason} ({type(error).__name__})")
        if always:
            pytest.fail(f"expected to fail, but passed; remove the entry: {reason}")

    return test
