"""Builds stores from a configuration that can be sent to other processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from trove_async.config import parse_toml
from trove_async.errors import ConfigError
from trove_async.store import Trove

Configuration: TypeAlias = Mapping[str, Any] | str | Callable[[], Trove]
"""The configuration of a store.

- A mapping, as for `Trove.from_config`, such as ``{"default": "file:///srv/objects", "backends": {"cold": "s3://…"},
  "routes": [["*.log", "cold"]], "locate": "anywhere"}``. References such as ``${NAME}`` are replaced in each
  process.
- The same as TOML text.
- A function without arguments that returns a new `Trove`. Other processes must be able to import it.
"""


def store_from(configuration: Configuration) -> Trove:
    """Return a new store, which is not open.

    Raises:
        ConfigError: The configuration is malformed. The message shows none of its values.
        TypeError: The function did not return a store.
        TroveError: As `Trove`.
    """
    if callable(configuration):
        store = configuration()
        if not isinstance(store, Trove):
            raise TypeError(f"the store's function must return a Trove, got {type(store).__name__}")
        return store
    if isinstance(configuration, str):
        configuration = parse_toml(configuration, "the store's configuration")
    return Trove.from_config(configuration)


def check_configuration(configuration: object) -> bytes:
    """Check a configuration as far as possible without I/O, and return it encoded for other processes.

    A function is not called.

    Raises:
        ConfigError: It is malformed.
        TypeError: It has the wrong type.
        TroveError: As `Trove`.
    """
    if callable(configuration) and not isinstance(configuration, type):
        try:
            return pickle.dumps(configuration)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                "the store's function must be importable by other processes: define it at the top level of a"
                " module"
            ) from error
    if not isinstance(configuration, Mapping | str):
        raise TypeError(
            "store must be a mapping, TOML text, or a function that returns a Trove, got"
            f" {type(configuration).__name__}"
        )
    store_from(configuration)
    plain = configuration if isinstance(configuration, str) else dict(configuration)
    return pickle.dumps(plain)
