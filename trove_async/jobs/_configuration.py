"""Builds stores from a configuration that can be sent to other processes."""

from __future__ import annotations

import pickle
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from trove_async.errors import ConfigError
from trove_async.store import Trove

Configuration: TypeAlias = Mapping[str, Any] | str | Callable[[], Trove]
"""The configuration of a store.

- A mapping of arguments of `Trove`: URLs and plain values, such as ``{"default": "file:///srv/objects",
  "backends": {"cold": "s3://…"}, "routes": [["*.log", "cold"]], "locate": "anywhere"}``.
- The same as TOML text.
- A function without arguments that returns a new `Trove`. Other processes must be able to import it.
"""

_KEYS: Final = ("default", "backends", "routes", "locate", "create_missing_buckets")


def store_from(configuration: Configuration) -> Trove:
    """Return a new store, which is not open.

    Raises:
        ConfigError: The configuration is malformed. The message shows none of its values.
        TypeError: The configuration or one of its values has the wrong type.
        TroveError: As `Trove`.
    """
    if callable(configuration):
        store = configuration()
        if not isinstance(store, Trove):
            raise TypeError(f"the store's function must return a Trove, got {type(store).__name__}")
        return store
    arguments = dict(_mapping_of(configuration))
    unknown = sorted(str(key) for key in arguments.keys() - set(_KEYS))
    if unknown:
        raise ConfigError(
            f"the store's configuration has unknown keys ({', '.join(unknown)}): it may have"
            f" {', '.join(_KEYS)}. Pass a function that returns a Trove for everything else"
        )
    if "default" not in arguments:
        raise ConfigError(
            "the store's configuration has no 'default': the URL of the default backend"
        )
    backends = arguments.get("backends", {})
    if not isinstance(backends, Mapping):
        raise TypeError("the store's 'backends' must be a mapping of names to URLs")
    for name, url in {"default": arguments["default"], **backends}.items():
        if not isinstance(url, str):
            raise TypeError(
                f"the store's backend {name!r} must be a URL, got {type(url).__name__}: pass a function that"
                " returns a Trove if a driver has no URL"
            )
    if "routes" in arguments:
        arguments["routes"] = [_route_of(route) for route in arguments["routes"]]
    return Trove(arguments.pop("default"), **arguments)


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


def _mapping_of(configuration: Mapping[str, Any] | str) -> Mapping[str, Any]:
    if isinstance(configuration, Mapping):
        return configuration
    try:
        return tomllib.loads(configuration)
    except tomllib.TOMLDecodeError as error:
        # The message of the parser may show a part of a value.
        where = str(error).rpartition("(")[2].rstrip(")")
        raise ConfigError(f"the store's configuration is not valid TOML ({where})") from None


def _route_of(route: object) -> tuple[str, str]:
    match route:
        case [str(pattern), str(backend)] if isinstance(route, Sequence):
            return pattern, backend
    raise TypeError("each of the store's 'routes' must be a pair: [pattern, backend]")
