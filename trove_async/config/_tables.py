"""What the tables of a configuration have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from trove_async.errors import ConfigError, TroveError

from ._values import plain, problem


class Table(BaseModel):
    """A table whose keys are all known. Messages about it never show its values, which may be secret."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: object) -> object:
        """Raise an error that names the known keys. Pydantic's own error names only the unknown one."""
        if isinstance(values, Mapping) and cls.model_config.get("extra") == "forbid":
            known = sorted(field.alias or name for name, field in cls.model_fields.items())
            for key in values:
                if key not in known:
                    raise problem(_unknown(str(key), known))
        return values

    def options(self, *left_out: str) -> dict[str, Any]:
        """Return the values that were given, by name, as keyword arguments for a constructor.

        Values that were not given are left out, so every default has one place: the constructor.
        """
        names = [name for name in type(self).model_fields if name in self.model_fields_set]
        return {
            name: plain(getattr(self, name)) for name in names if name not in {"type", *left_out}
        }


class ImportedTable(Table):
    """A table whose ``type`` is ``package.module:name``, which is called with the other keys."""

    model_config = ConfigDict(extra="allow")

    def extra_options(self) -> dict[str, Any]:
        """Return the keys that this class does not know."""
        return dict(self.model_extra or {})


@dataclass(frozen=True, slots=True, eq=False)  # annotations must be hashable
class Shorthand:
    """An annotation: the table may also be written in a shorter form.

    Args:
        expand: Returns the table for the short form, and any other value unchanged.
        json_schema: The JSON schema of the short form.
    """

    expand: Callable[[object], object]
    json_schema: Mapping[str, Any]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [dict(self.json_schema), handler(schema)]}


def type_alone(value: object) -> object:
    """Return the table for a text that is its type."""
    return {"type": value} if isinstance(value, str) else value


def tag_of(value: object) -> str | None:
    """Return the tag that selects the model of a table with a ``type``, or of a model.

    Tags are enclosed in ``<>``, so that they can be removed from the paths of errors.
    """
    kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
    if not isinstance(kind, str):
        return None
    return "<import>" if ":" in kind else f"<{kind}>"


def _unknown(key: str, known: list[str]) -> str:
    similar = get_close_matches(key, known, n=1)
    hint = f": did you mean {similar[0]!r}?" if similar else "."
    return f"unknown key {key!r}{hint} The keys are {', '.join(known)}"


@contextmanager
def located(path: str) -> Iterator[None]:
    """Add the path of a table to the errors of the constructors that are called with its values.

    Raises:
        ConfigError: A value is not valid.
        ImportError: An extra is missing.
    """
    try:
        yield
    except (TroveError, TypeError, ValueError, PydanticCustomError, OSError) as error:
        text = error.message if isinstance(error, TroveError) else str(error)
        raise ConfigError(f"{path}: {text}") from error
    except ImportError as error:
        raise ImportError(f"{path}: {error}", name=error.name) from error
