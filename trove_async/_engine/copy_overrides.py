"""The options in which a copy differs from its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

from .copy_marks import marked


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOverrides:
    """The options in which the destination differs from the source.

    None keeps the source's value. An empty value (``""``, ``{}``) removes it.

    Attributes:
        put: The options of a put, with the conditions and the write_id, but without inherited and
            removed values. They can be checked before any request.
        marks_source: Whether the write_id names the version that was copied. See `copy_marks`.
        rewrite: Whether an object is copied onto itself although only its write_id changes.
    """

    metadata: Mapping[str, str] | None = None
    tags: Mapping[str, str] | None = None
    content_type: str | None = None
    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    expires: datetime | Literal[""] | None = None
    put: PutOptions
    marks_source: bool = False
    rewrite: bool = False

    def applied_to(self, source: ObjectInfo) -> PutOptions:
        """Return the put options of the destination."""
        put, write_id = self.put, self.put.write_id
        if self.marks_source and write_id is not None:
            write_id = marked(write_id, source)
        inherited = {
            name: getattr(source, name) for name in _INHERITED if getattr(self, name) is None
        }
        return replace(
            put,
            write_id=write_id,
            size=source.stored_size,
            checksums=source.checksums,
            **inherited,
        )

    @property
    def is_empty(self) -> bool:
        """Whether the copy inherits everything from its source."""
        return (
            not self.rewrite
            and self.put.storage_class is None
            and all(getattr(self, name) is None for name in _INHERITED)
        )


_INHERITED = (
    "metadata",
    "tags",
    "content_type",
    "cache_control",
    "content_disposition",
    "content_encoding",
    "content_language",
    "expires",
)
"""The put options that a copy inherits from its source by default. The storage class is not among them,
because each backend has different classes."""
