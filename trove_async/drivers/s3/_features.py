"""The features that some services ignore without an error, and which of them a write relies on."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from trove_async.options import PutOptions

WriteKind = Literal["put", "upload", "copy"]
"""How an object is written: in one request, as a multipart upload, or by a server-side copy."""


class Feature(Enum):
    """A feature that some services ignore without an error. The value is a phrase for messages."""

    IF_NONE_MATCH = "if_none_match on a put"
    IF_MATCH = "if_match on a put"
    PUT_TAGS = "tags on a put"
    UPLOAD_TAGS = "tags on a multipart upload"
    COPY_TAGS = "tags on a copy"
    PUT_ENCRYPTION = "encryption on a put"
    UPLOAD_ENCRYPTION = "encryption on a multipart upload"
    COPY_ENCRYPTION = "encryption on a copy"


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
