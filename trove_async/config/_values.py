"""Values of a configuration that are written as text: sizes, durations, permissions and functions."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, BeforeValidator, SecretStr, WithJsonSchema
from pydantic_core import PydanticCustomError

from trove_async._named_objects import NAME
from trove_async._quantities import parse_duration, parse_size

_OCTAL: Final = re.compile(r"(?:0o?)?([0-7]{3,4})")


def problem(message: str) -> PydanticCustomError:
    """Return an error of a value, which the validation reports with the path of the value."""
    return PydanticCustomError("config", "{message}", {"message": message})


def _import_path(value: str) -> str:
    if not NAME.fullmatch(value):
        raise problem("must have the form 'package.module:name'")
    return value


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_size(value)
    except ValueError as error:
        raise problem(str(error)) from None


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except ValueError as error:
        raise problem(str(error)) from None


def _mode(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _OCTAL.fullmatch(value)
    if match is None:
        raise problem('must be permissions in octal, such as "0640"')
    return int(match[1], 8)


Size: TypeAlias = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"type": ["integer", "string"], "examples": ["64MiB", "20GB", 1048576]}),
]
Seconds: TypeAlias = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": ["number", "string"], "examples": ["30s", "500ms", "1h30m", 2.5]}),
]
Permissions: TypeAlias = Annotated[
    int,
    BeforeValidator(_mode),
    WithJsonSchema({"type": ["integer", "string"], "examples": ["0640"]}),
]
ImportPath: TypeAlias = Annotated[
    str,
    AfterValidator(_import_path),
    WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"}),
]


def plain(value: object) -> object:
    """Return a value of a table as constructors take it: secrets revealed, lists as tuples."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return tuple(value) if isinstance(value, list) else value
