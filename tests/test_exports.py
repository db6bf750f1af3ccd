"""Every name in the signatures of `Trove` and `Bucket` can be imported from the package."""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import re
import types
import typing
from typing import Any

import pytest

import trove_async

NOT_FROM_THE_PACKAGE = {
    *dir(builtins), *dir(typing), *dir(collections.abc), *dir(types),
    "os", "datetime", "Exception",
    "CreateMissing",  # a union of literals, written out in the docstring
}  # fmt: skip


def signatures(kind: type[Any]) -> dict[str, inspect.Signature]:
    result = {"__init__": inspect.signature(kind)}
    for name, member in vars(kind).items():
        if isinstance(member, property):
            member = member.fget  # noqa: PLW2901 - the function of the property
        if name.startswith("_") or not callable(member):
            continue
        result[name] = inspect.signature(member)
    return result


@pytest.mark.parametrize("kind", [trove_async.Trove, trove_async.Bucket])
def test_every_name_in_a_public_signature_is_exported(kind: type[Any]) -> None:
    methods = signatures(kind)
    assert len(methods) > 10
    for method, signature in methods.items():
        annotations = [parameter.annotation for parameter in signature.parameters.values()]
        for annotation in [*annotations, signature.return_annotation]:
            if annotation is inspect.Signature.empty:
                continue  # self
            text = re.sub(r"[\"'][^\"']*[\"']", "", str(annotation))
            for name in re.findall(r"(?<![\w.])[A-Za-z_]\w*", text):
                importable = name in NOT_FROM_THE_PACKAGE or name in trove_async.__all__
                assert importable, f"{kind.__name__}.{method}: {name}"


def test_exported_names_exist_and_are_unique() -> None:
    names = trove_async.__all__
    assert len(set(names)) == len(names)
    assert all(hasattr(trove_async, name) for name in names)
