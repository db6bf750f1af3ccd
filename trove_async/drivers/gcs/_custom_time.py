"""Sets the custom time of an object, which lifecycle rules may count from.

Cloud Storage documentation, "Object metadata", Custom-Time: once set, it can be neither removed nor
set to an earlier time. A new body has none. A copy keeps that of its source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from trove_async.errors import (
    NotSupportedError,
    ObjectChangedError,
    PreconditionFailedError,
    UnavailableError,
)

from ._client import JSON
from ._encoding import encode_query
from ._resources import parse_number, parse_time

if TYPE_CHECKING:
    from ._client import Client

_FIELDS: Final = "generation,metageneration,customTime"


async def set_custom_time(client: Client, path: str, when: datetime, if_match: str | None) -> None:
    """Set an object's custom time. See `GCSDriver.set_custom_time`.

    Args:
        client: Sends requests.
        path: The path of the object.
        when: The time.
        if_match: The required generation. None: any.
    """
    # 1. Read the current generation and custom time.
    if when.tzinfo is None:
        raise ValueError("when must have a time zone, got a naive datetime")
    document = await client.request("GET", path + encode_query({"fields": _FIELDS}))
    try:
        generation = str(parse_number(document["generation"]))
        metageneration = str(parse_number(document["metageneration"]))
        current = _custom_time(document)
    except (KeyError, ValueError, TypeError) as error:
        raise UnavailableError(f"the service's response is malformed: {error!r}") from error
    # 2. Check the condition and the order of the times: the service's own errors do not name them.
    if if_match not in {None, generation}:
        raise PreconditionFailedError("if_match: the current version has another etag")
    if current is not None and when < current:
        raise NotSupportedError(
            f"when must not be before the current custom time, {current.isoformat()},"
            f" got {when.isoformat()}; nothing was changed"
        )
    # 3. Change it, unless the object changed since step 1. JSON API, "Objects: patch". The
    # metageneration is needed as well: a change of the metadata does not change the generation.
    query = encode_query(
        {
            "ifGenerationMatch": generation,
            "ifMetagenerationMatch": metageneration,
            "fields": "customTime",
        }
    )
    body = json.dumps({"customTime": when.astimezone(UTC).isoformat()}).encode()
    try:
        await client.request("PATCH", path + query, JSON, [memoryview(body)])
    except PreconditionFailedError as error:
        raise ObjectChangedError(
            "the object was changed during the call; nothing was changed"
        ) from error


def _custom_time(document: Mapping[str, Any]) -> datetime | None:
    value = document.get("customTime")
    return parse_time(value) if value else None
