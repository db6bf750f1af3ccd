"""Loads classes whose library is an optional extra."""

from __future__ import annotations

from importlib import import_module


def load(module: str, name: str) -> object:
    """Return a class of a module that needs an extra, or a placeholder if the extra is missing."""
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        return _placeholder(name, error)


def _placeholder(name: str, error: ModuleNotFoundError) -> type:
    """Return a class that raises ImportError when called.

    If the import raised the error, `hasattr`, `help` and ``import *`` would fail on the package that exports
    the class, even for users of other classes.
    """
    message = str(error)

    def raise_import_error(*_args: object, **_options: object) -> None:
        raise ImportError(message, name=error.name)

    return type(
        name, (), {"__init__": raise_import_error, "__doc__": message, "__module__": __name__}
    )
