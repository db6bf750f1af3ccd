"""Values of a configuration that are written as text: sizes, durations, permissions and functions."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, BeforeValidator, SecretStr, WithJsonSchema
from pydantic_core import PydanticCustomError

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)", re.ASCII)
_SIZE_UNITS: Final = {
    "": 1,
    "b": 1,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}

_DURATION: Final = re.compile(
    r"(?:(?P<d>\d{1,6})d)?\s*(?:(?P<h>\d{1,6})h)?\s*(?:(?P<m>\d{1,6})m)?\s*"
    r"(?:(?P<s>\d{1,9}(?:\.\d{1,9})?)s)?\s*(?:(?P<ms>\d{1,9})ms)?",
    re.ASCII,
)
_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

_OCTAL: Final = re.compile(r"(?:0o?)?([0-7]{3,4})")

IMPORT_PATH: Final = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*(?:\.\w+)*")
"""The form of ``package.module:name``."""


def problem(message: str) -> PydanticCustomError:
    """Return an error of a value, which the validation reports with the path of the value."""
    return PydanticCustomError("config", "{message}", {"message": message})


def parse_size(text: str) -> int:
    """Return the number of bytes of a size such as ``64MiB``, ``1.5 GB`` or ``1024``.

    ``KiB``, ``MiB``, ``GiB`` and ``TiB`` are powers of 1,024; ``KB``, ``MB``, ``GB`` and ``TB`` powers of
    1,000 (IEC 80000-13). Case does not matter.

    Raises:
        ValueError: It is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = None if match is None else _SIZE_UNITS.get(match[2].lower())
    if match is None or unit is None:
        raise ValueError('must be a size, such as "64MiB", "20GB" or a number of bytes')
    number = float(match[1]) * unit if "." in match[1] else int(match[1]) * unit
    return int(number)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``30s``, ``500ms``, ``1h30m``, ``7d`` or ``2.5``.

    Raises:
        ValueError: It is not a duration.
    """
    text = text.strip()
    match = _DURATION.fullmatch(text)
    if match is not None and any(match.groups()):
        return sum(float(number) * _SECONDS[unit] for unit, number in match.groupdict("0").items())
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(
            'must be a duration, such as "30s", "500ms", "1h30m" or a number of seconds'
        )
    return seconds


def import_object(path: str) -> Any:  # noqa: ANN401 - users import anything
    """Return the object at ``package.module:name``.

    Raises:
        PydanticCustomError: It cannot be imported.
    """
    module, _, name = path.partition(":")
    try:
        found: Any = import_module(module)
        for attribute in name.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        raise problem(f"{path!r} cannot be imported: {error}") from error
    return found


def _import_path(value: str) -> str:
    if not IMPORT_PATH.fullmatch(value):
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
    WithJsonSchema({"type": "string", "pattern": f"^{IMPORT_PATH.pattern}$"}),
]


def plain(value: object) -> object:
    """Return a value of a table as constructors take it: secrets revealed, lists as tuples."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return tuple(value) if isinstance(value, list) else value
