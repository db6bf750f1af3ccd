"""Loads a configuration, and describes what one may contain."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trove_async.errors import ConfigError

from ._problems import message_of
from ._settings import Setting, settings_of
from ._sources import Values, dotted, read
from ._store import StoreTable

_MESSAGES: Final = {
    "missing": "is required",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "too_short": "must not be empty",
}
"""Messages for pydantic's types of errors, in the words of TOML. Others have pydantic's message."""


class Loaded:
    """A configuration that has been checked.

    Attributes:
        source: The name of the file, or ``"the configuration"``.
        settings: The values that it sets, without secrets. Everything else has its default.
    """

    def __init__(self, values: Values, table: StoreTable) -> None:
        self.source = values.source
        self.settings: Sequence[Setting] = settings_of(values)
        self._table = table

    def __repr__(self) -> str:
        if not hasattr(self, "_table"):
            return "<Loaded, not initialised>"  # its constructor raised
        return f"<Loaded {self.source}: {len(self.settings)} settings>"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `Trove`, with new drivers. `Trove.from_config` passes them.

        Raises:
            ConfigError: Values are not valid. The message contains the path of each.
            ImportError: An extra is missing.
        """
        return self._table.arguments(self.source)


def load(config: str | os.PathLike[str] | Mapping[str, Any]) -> Loaded:
    """Load and check a configuration. Reads the file and the environment, and sends no request.

    Args:
        config: The path of a TOML file, or a mapping with the same structure.

    Raises:
        ConfigError: The file cannot be read, or the configuration is not valid. The message names the path
            of each problem and the values that are allowed, and shows no value.
        TypeError: `config` is neither a path nor a mapping.
    """
    values = read(config)
    try:
        table = StoreTable.model_validate(values.tree)
    except ValidationError as error:
        # Not chained: the error refers to the values.
        problems = error.errors(include_url=False, include_input=False)
    else:
        return Loaded(values, table)
    raise ConfigError(message_of(values.source, map(_line, problems)))


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a configuration.

    A number or a switch may also be a text with a reference such as ``"${NAME}"``.
    """
    schema = StoreTable.model_json_schema()
    _allow_references(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _line(problem: ErrorDetails) -> str:
    # The tags of unions are not part of the path.
    path = tuple(part for part in problem["loc"] if not str(part).startswith("<"))
    message = _MESSAGES.get(problem["type"]) or problem["msg"].replace("Input should", "must")
    return f"{dotted(path)}: {message}" if path else message


def _allow_references(schema: Any) -> None:  # noqa: ANN401 - JSON
    """Allow texts with references wherever a schema asks for a number or a switch."""
    if isinstance(schema, list):
        for inner in schema:
            _allow_references(inner)
    elif isinstance(schema, dict):
        kind = schema.get("type")  # a dict, in the properties of a table that has a key "type"
        if (
            isinstance(kind, str)
            and kind in {"integer", "number", "boolean"}
            and "const" not in schema
        ):
            reference = {"type": "string", "pattern": r"\$\{"}
            schema["anyOf"] = [{"type": schema.pop("type")}, reference]
            return
        for inner in schema.values():
            _allow_references(inner)
