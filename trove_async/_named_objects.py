"""Objects that users name as ``package.module:name``, in configurations and options."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, Final

from .errors import ConfigError

NAME: Final = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*(?:\.\w+)*")
"""The form of a name."""


def named_object(name: str) -> Any:  # noqa: ANN401 - users name anything
    """Return the object with this name.

    Raises:
        ConfigError: The name is malformed, or the object cannot be imported.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} must have the form 'package.module:name'")
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name!r} cannot be imported: {error}") from error
    return found
