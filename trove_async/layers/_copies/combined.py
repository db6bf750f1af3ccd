"""The capabilities that several drivers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import reduce
from math import lcm
from typing import Any, Final

from trove_async.driver import Capabilities

_AT_LEAST: Final = ("min_part",)
"""Limits of which the largest applies to all."""


def common_capabilities(members: Sequence[Capabilities]) -> Capabilities:
    """Return what all members support, with limits that fit all of them."""
    combined = {
        capability.name: _combine(
            capability.name, [getattr(member, capability.name) for member in members]
        )
        for capability in fields(Capabilities)
    }
    common = Capabilities(**combined)
    # Parts whose sizes fit one member may fit no part of another one.
    multiple = common.part_multiple
    least = -(-common.min_part // multiple) * multiple
    return replace(common, upload=common.upload and least <= common.max_part)


def _combine(name: str, values: Sequence[Any]) -> Any:  # noqa: ANN401 - the type of any field
    first = values[0]
    if isinstance(first, bool):
        return all(values)
    if isinstance(first, frozenset):
        return reduce(frozenset.intersection, values)
    if isinstance(first, str):  # an explanation
        return next(filter(None, values), "")
    if name == "part_multiple":
        return lcm(*values)
    limits = [value for value in values if value is not None]
    if not limits:
        return None
    return max(limits) if name in _AT_LEAST else min(limits)
