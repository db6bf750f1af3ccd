"""Sets the custom time of an object, a date that lifecycle rules can refer to.

Cloud Storage documentation, "Object metadata", Custom-Time: once set, it can be neither removed nor
set to an earlier time. A put creates an object without a custom time. A copy keeps its source's.
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
        when: The new custom time.
        if_match: The generation that the object must have. None: any.
    """
    if when.tzinfo is None:
        raise ValueError("when must have a time zone, got a naive datetime")
    # 1. Read the current generation and custom time.
    document = await client.request("GET", path + encode_query({"fields": _FIELDS}))
    try:
        generation = str(parse_number("generation", document["generation"]))
        metageneration = str(parse_number("metageneration", document["metageneration"]))
        current = _custom_time(document)
    except (KeyError, ValueError, TypeError) as error:
        raise UnavailableError(f"the service's response is malformed: {error!r}") from error
    # 2. Check the condition and the order of the times. The service checks both as well, but
    # its errors are less precise.
    if if_match not in {None, generation}:
        raise PreconditionFailedError("if_match: the current version has a different etag")
    if current is not None and when < current:
        raise NotSupportedError(
            f"when must not be before the current custom time, {current.isoformat()},"
            f" got {when.isoformat()}"
        )
    # 3. Set the custom time if the object is unchanged since step 1 (JSON API, "Objects: patch").
    # Changes of the metadata change only the metageneration.
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
            "another client changed the object during the call; its custom time was not set"
        ) from error


def _custom_time(document: Mapping[str, Any]) -> datetime | None:
    value = document.get("customTime")
    return parse_time("customTime", value) if value else None
