"""Reads the values of a configuration, and remembers where each one comes from."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from trove_async.errors import ConfigError

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys and indexes that lead to a value."""

OVERRIDES: Final = "TROVE__"
"""The start of the names of environment variables that override a value."""

_REFERENCE: Final = re.compile(r"\$(?:(\$\{)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\{))")
"""``$${`` (a literal ``${``), ``${NAME}``, ``${NAME:-default}``, or a malformed ``${``."""


@dataclass(frozen=True, slots=True)
class Values:
    """The values of a configuration.

    Attributes:
        source: The name of the file, or ``"the configuration"``.
        tree: The values in nested dicts and lists, with references to the environment replaced.
        origins: Where the values of some paths come from, if it is not the source alone.
    """

    source: str
    tree: dict[str, Any]
    origins: Mapping[KeyPath, str]


def read(config: str | os.PathLike[str] | Mapping[str, Any]) -> Values:
    """Return the values of a TOML file or a mapping.

    Variables ``TROVE__…`` override the values of a file, but not those of a mapping: a program that passes
    values means these.

    Raises:
        ConfigError: The file cannot be read, it is not valid TOML, or a variable is not set.
        TypeError: `config` has the wrong type.
    """
    if isinstance(config, Mapping):
        return _replaced("the configuration", _copied(config), overrides={})
    if not isinstance(config, (str, os.PathLike)):
        raise TypeError(f"config must be a path or a mapping, got {type(config).__name__}")
    path = os.fsdecode(config)
    overrides = {name: value for name, value in os.environ.items() if name.startswith(OVERRIDES)}
    return _replaced(path, _parsed(path), overrides)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Return the values of TOML.

    Raises:
        ConfigError: It is not valid. The message contains the position, and no part of the text.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The message of the parser may show a part of a value.
        where = str(error).rpartition("(")[2].rstrip(")")
        raise ConfigError(f"{source} is not valid TOML ({where})") from None


def dotted(path: KeyPath) -> str:
    """Return the text of a path, such as ``backends.cold.region``."""
    return ".".join(map(str, path))


def leaves(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Yield the path and the value of everything in a tree that is no table and no list of tables."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path, value


def _parsed(path: str) -> dict[str, Any]:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"the configuration file {path!r} does not exist") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"the configuration file {path!r} cannot be read: {error}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML (byte {error.start} is not UTF-8)") from None
    return parse_toml(text, path)


def _copied(value: Any) -> Any:  # noqa: ANN401 - values have any type
    """Return a copy whose mappings are dicts and whose sequences are lists."""
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(inner) for inner in value]
    return value


def _replaced(source: str, tree: dict[str, Any], overrides: Mapping[str, str]) -> Values:
    origins: dict[KeyPath, str] = {}
    replaced = _with_environment(tree, (), source, origins)
    for name in sorted(overrides):
        path = _override(replaced, name, overrides[name])
        origins[path] = f"environment ({name})"
    return Values(source, replaced, origins)


def _with_environment(value: Any, path: KeyPath, source: str, origins: dict[KeyPath, str]) -> Any:  # noqa: ANN401
    """Return the value with references to environment variables replaced in every text."""
    if isinstance(value, dict):
        return {
            key: _with_environment(inner, (*path, key), source, origins)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [
            _with_environment(inner, (*path, index), source, origins)
            for index, inner in enumerate(value)
        ]
    if not isinstance(value, str) or "${" not in value:
        return value
    used: list[str] = []

    def replace(match: re.Match[str]) -> str:
        escaped, name, default, malformed = match.groups()
        if escaped:
            return "${"
        if malformed:
            raise ConfigError(
                f"{source}: {dotted(path)}: a reference must have the form ${{NAME}} or"
                " ${NAME:-default}; write $${ for a literal ${"
            )
        used.append(name)
        # As in a shell, a default also replaces an empty value.
        found = os.environ.get(name) or default
        if found is None:
            found = os.environ.get(name)
        if found is None:
            raise ConfigError(
                f"{source}: {dotted(path)}: the environment variable {name} is not set: set it, or write"
                f" ${{{name}:-default}}"
            )
        return found

    text = _REFERENCE.sub(replace, value)
    if used:
        origins[path] = f"{source} ({', '.join(f'${{{name}}}' for name in used)})"
    return text


def _override(tree: dict[str, Any], name: str, text: str) -> KeyPath:
    """Set the value that a variable such as ``TROVE__backends__cold__region`` names; return its path."""
    keys = name.removeprefix(OVERRIDES).split("__")
    if not all(keys):
        raise ConfigError(
            f"the environment variable {name} must name a value, such as {OVERRIDES}backends__cold__region"
        )
    # 1. Find or create the table.
    table: Any = tree
    path: list[str | int] = []
    for key in keys[:-1]:
        where = _index(table, key, name, path)
        if isinstance(table, dict):
            table.setdefault(where, {})
        table = table[where]
        path.append(where)
    # 2. Set the value.
    last = _index(table, keys[-1], name, path)
    table[last] = _override_value(text)
    return (*path, last)


def _override_value(text: str) -> object:
    """Return a list or a table that is written in TOML. Everything else is a text, such as a password ``{abc``."""
    if text.startswith(("[", "{")):
        with suppress(tomllib.TOMLDecodeError):
            return tomllib.loads(f"value = {text}")["value"]
    return text


def _index(table: object, key: str, name: str, path: list[str | int]) -> str | int:
    """Return the key of a table, or the index of a list."""
    if isinstance(table, MutableMapping):
        return key
    if isinstance(table, list) and key.isascii() and key.isdigit() and int(key) < len(table):
        return int(key)
    kind = f"a list of {len(table)}" if isinstance(table, list) else "not a table"
    raise ConfigError(
        f"the environment variable {name} cannot set {key!r}: {dotted(tuple(path))} is {kind}"
    )
