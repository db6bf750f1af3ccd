"""The custom time of an object, which lifecycle rules count from: set, and moved forward, never back.

Cloud Storage documentation, "Object metadata", Custom-Time: once set it can be neither removed nor
set to an earlier time; writing the object anew begins afresh. Copies are given their source's.
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
from ._resources import moment, number

if TYPE_CHECKING:
    from ._client import Client

_FACTS: Final = "generation,metageneration,customTime"


async def set_custom_time(client: Client, path: str, when: datetime, if_match: str | None) -> None:
    """Set an object's custom time. See `GCSDriver.set_custom_time`.

    Args:
        client: Sends requests.
        path: Where the object is.
        when: The time.
        if_match: The generation that it must be.
    """
    if when.tzinfo is None:
        raise ValueError("when has a time zone, or nobody knows what time it is")
    said = await client.ask("GET", path + encode_query({"fields": _FACTS}))
    try:
        generation = str(number(said["generation"]))
        metageneration = str(number(said["metageneration"]))
        now = _custom_time(said)
    except (KeyError, ValueError, TypeError) as error:
        raise UnavailableError(f"the service's answer makes no sense: {error!r}") from error
    if if_match not in {None, generation}:
        raise PreconditionFailedError("if_match: another version is there")
    if now is not None and when < now:
        raise NotSupportedError(
            f"a custom time moves forward only, and it is {now.isoformat()}; nothing was done"
        )
    # JSON API, "Objects: patch". Both, as a generation stays while what is said of it changes.
    query = encode_query(
        {
            "ifGenerationMatch": generation,
            "ifMetagenerationMatch": metageneration,
            "fields": "customTime",
        }
    )
    body = json.dumps({"customTime": when.astimezone(UTC).isoformat()}).encode()
    try:
        await client.ask("PATCH", path + query, JSON, [memoryview(body)])
    except PreconditionFailedError as error:
        raise ObjectChangedError("the object was changed meanwhile; nothing was done") from error


def _custom_time(said: Mapping[str, Any]) -> datetime | None:
    told = said.get("customTime")
    return moment(told) if told else None
