"""In what services that speak as S3 does differ from it: as data, and told by how they answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from trove_async._concurrency import within
from trove_async.errors import TroveError

if TYPE_CHECKING:
    from trove_async._http import Transport

    from ._session import Endpoint

DialectName = Literal["auto", "s3", "seaweedfs"]

_ASK_SECONDS: Final = 3.0
"""How long a service may take to say what it is, before it is taken for one that nobody knows."""

_MAX_SEGMENT: Final = 255
"""Bytes of a segment that SeaweedFS takes: a segment is the name of one of its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a service speaks.

    Attributes:
        ordered: It lists in bytewise order of keys.
        delete_if_match: It honours a condition on a delete.
        directories: Keys are paths of its files, and some are mangled: it must not get those.
    """

    ordered: bool
    delete_if_match: bool
    directories: bool = False

    def refuses(self, key: str) -> str | None:
        """Return why the service cannot hold a key; None: it can."""
        if not self.directories:
            return None
        if "\\" in key:
            return "it takes a backslash for a slash"
        if "//" in key or key.startswith("/") or key.endswith("/"):
            return "it drops empty segments"
        if len(key) > _MAX_SEGMENT // 4 and any(
            len(segment.encode()) > _MAX_SEGMENT for segment in key.split("/")
        ):
            return f"it takes no segment of more than {_MAX_SEGMENT} bytes"
        return None


AMAZON: Final = Dialect(ordered=True, delete_if_match=True)
S3: Final = Dialect(ordered=True, delete_if_match=False)
SEAWEEDFS: Final = Dialect(ordered=False, delete_if_match=True, directories=True)
UNKNOWN: Final = Dialect(ordered=False, delete_if_match=False)
"""What nothing may be taken for granted of."""


async def dialect_of(name: DialectName, endpoint: Endpoint, transport: Transport) -> Dialect:
    """Return how the service at an endpoint speaks: asked once, unsigned, if nobody said.

    One that does not answer now is taken for `UNKNOWN`: that it may be down is no reason not to open.
    """
    if endpoint.aws:
        return AMAZON
    if name == "auto":
        try:
            answer = await within(
                _ASK_SECONDS, "no answer came", transport.send("GET", endpoint.origin, "/", {})
            )
        except TroveError:
            return UNKNOWN
        answer.close()
        name = "seaweedfs" if answer.headers.get("server", "").startswith("SeaweedFS") else "s3"
    return SEAWEEDFS if name == "seaweedfs" else S3
