"""The records of an object's transforms, in the form in which they are stored in its metadata.

The records are a JSON array of ``[name, record]`` pairs, in the order in which the middlewares were applied.
A record of ``null`` states that a middleware was applied and left the body as it was, because encoding
would not have made it smaller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from trove_async.errors import IntegrityError
from trove_async.middleware import Record

MAX_RECORDS: Final = 16
"""The maximum number of middlewares of one object. Each may cost a request, and records may be forged."""


class Applied(NamedTuple):
    """One middleware that was applied to an object.

    Attributes:
        name: The name of the middleware.
        record: Its record. None: it left the body as it was.
    """

    name: str
    record: Record | None


def format_records(applied: Sequence[Applied]) -> str:
    """Return the text to store in an object's metadata."""
    return json.dumps(applied, separators=(",", ":"))


@lru_cache(maxsize=256)  # one read of an object parses its records several times
def parse_records(text: str | None) -> Sequence[Applied]:
    """Parse the text in an object's metadata. None: the object has no records.

    Raises:
        IntegrityError: The text is malformed.
    """
    if text is None:
        return ()
    try:
        applied = tuple(
            Applied(*_checked(name, record)) for name, record in _items(json.loads(text))
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise IntegrityError(
            "the records of the object's transforms are malformed, so it cannot be decoded: it was"
            " written by a newer version, or its metadata was altered"
        ) from error
    if len(applied) > MAX_RECORDS:
        raise IntegrityError(
            f"an object has the records of at most {MAX_RECORDS} transforms, got {len(applied)}: its"
            " metadata was altered"
        )
    return applied


def _items(parsed: object) -> Sequence[tuple[object, object]]:
    if not isinstance(parsed, list):
        raise TypeError("the records must be a list")
    return parsed


def _checked(name: object, record: object) -> tuple[str, Record | None]:
    if not isinstance(name, str):
        raise TypeError("a name must be a str")
    if record is None:
        return name, None
    if not isinstance(record, dict) or not _is_record(record):
        raise TypeError("a record must map names to texts, numbers or switches")
    return name, MappingProxyType(record)


def _is_record(record: Mapping[Any, object]) -> bool:
    return all(
        isinstance(name, str) and isinstance(value, (str, int, bool))
        for name, value in record.items()
    )
