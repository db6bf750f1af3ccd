"""Objects whose constructor raised have a repr, which debuggers and tracebacks show."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

import pytest

import trove_async
from trove_async.middlewares import Encryption

if TYPE_CHECKING:
    from collections.abc import Iterator


def classes() -> Iterator[type]:
    """Yield the classes that define `__repr__`, except named tuples and dataclasses."""
    for module in pkgutil.walk_packages(trove_async.__path__, "trove_async."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if (
                isinstance(value, type)
                and value.__module__ == module.name
                and "__repr__" in vars(value)
                and not issubclass(value, tuple)  # named tuples are complete once they exist
                and not hasattr(value, "__dataclass_fields__")
            ):
                yield value


def test_classes_are_found() -> None:
    assert {trove_async.Trove, trove_async.BufferPool, Encryption} <= set(classes())


@pytest.mark.parametrize("kind", sorted(set(classes()), key=str))
def test_repr_of_an_instance_without_attributes(kind: Any) -> None:
    assert kind.__name__ in repr(kind.__new__(kind))


def test_repr_of_a_store_whose_constructor_failed() -> None:
    instances: list[trove_async.Trove] = []

    class RecordedTrove(trove_async.Trove):
        def __init__(self, *urls: str) -> None:
            instances.append(self)
            super().__init__(*urls)

    with pytest.raises(trove_async.ConfigError):
        RecordedTrove("nonsense://")
    assert "Trove" in repr(instances[0])


def test_repr_of_encryption_whose_constructor_failed() -> None:
    instances: list[Encryption] = []

    class RecordedEncryption(Encryption):
        def __init__(self, keys: Any) -> None:
            instances.append(self)
            super().__init__(keys)

    with pytest.raises(TypeError, match="keys must be a Keyring"):
        RecordedEncryption("a secret")
    assert repr(instances[0]) == "<Encryption, not initialised>"
