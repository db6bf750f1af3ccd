"""The features that some services ignore without an error. Does no I/O."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from trove_async.options import PutOptions

WriteKind = Literal["put", "upload", "copy"]
"""How an object is written: in one request, in parts, or by a server-side copy."""


class Feature(Enum):
    """A feature that some services ignore without an error. The value is a phrase for messages."""

    IF_NONE_MATCH = "the if_none_match of a put"
    IF_MATCH = "the if_match of a put"
    PUT_TAGS = "the tags of a put"
    UPLOAD_TAGS = "the tags of an upload in parts"
    COPY_TAGS = "the tags of a copy"
    PUT_ENCRYPTION = "the requested encryption of a put"
    UPLOAD_ENCRYPTION = "the requested encryption of an upload in parts"
    COPY_ENCRYPTION = "the requested encryption of a copy"


ALL: Final = frozenset(Feature)
_NONE: Final = frozenset[Feature]()

CONDITIONS: Final = frozenset({Feature.IF_NONE_MATCH, Feature.IF_MATCH})
TAGS: Final[dict[WriteKind, Feature]] = {
    "put": Feature.PUT_TAGS,
    "upload": Feature.UPLOAD_TAGS,
    "copy": Feature.COPY_TAGS,
}
ENCRYPTION: Final[dict[WriteKind, Feature]] = {
    "put": Feature.PUT_ENCRYPTION,
    "upload": Feature.UPLOAD_ENCRYPTION,
    "copy": Feature.COPY_ENCRYPTION,
}


def features_of(kind: WriteKind, options: PutOptions, *, encrypts: bool) -> frozenset[Feature]:
    """Return the features that a write relies on.

    The result does not include conditions of uploads and copies. The driver sends them only to
    services whose `Dialect` honours them.

    Args:
        kind: How the object is written.
        options: The options of the write.
        encrypts: Whether the driver requests encryption.
    """
    features = set()
    if kind == "put" and options.if_none_match is not None:
        features.add(Feature.IF_NONE_MATCH)
    if kind == "put" and options.if_match is not None:
        features.add(Feature.IF_MATCH)
    if options.tags:
        features.add(TAGS[kind])
    if encrypts:
        features.add(ENCRYPTION[kind])
    return frozenset(features) if features else _NONE
