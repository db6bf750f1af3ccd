"""The content coding zstd (RFC 8878): objects that have a zstd form, and clients that accept it.

An object that is stored as zstd has two representations (RFC 9110, section 3.2): the *zstd form*, which
is its stored bytes, and the *decoded form*. All other objects have only the decoded form. A client must
decode several frames and ignore the skippable frame with the seek table (RFC 8878, sections 3 and
3.1.2). The frames need a window of at most 1 MiB, and a content coding may require 8 MiB (RFC 9659).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from trove_async import ObjectInfo

ZSTD: Final = "zstd"
"""The content coding, and the name of the transform in `ObjectInfo.transforms`."""

VARY: Final = {"Vary": "Accept-Encoding"}
"""The header of every response that depends on the form of an object (RFC 9110, section 12.5.5)."""

# RFC 9110, sections 12.4.2 and 12.5.3: codings [ OWS ";" OWS "q=" qvalue ]
_MEMBER = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]++)(?:[ \t]*+;[ \t]*+[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)


class AcceptedCodings(NamedTuple):
    """What an Accept-Encoding header states about the forms of an object.

    Attributes:
        zstd: Whether the client accepts the zstd form, and does not prefer the decoded form.
        decoded: Whether the client accepts the decoded form.
    """

    zstd: bool
    decoded: bool

    @classmethod
    def parse(cls, header: str | None) -> AcceptedCodings:
        """Parse a header by RFC 9110, section 12.5.3. Malformed members are ignored.

        Without a header, a client accepts any coding, but only one that names zstd or ``*`` is known to
        decode it.
        """
        qualities: dict[str, float] = {}
        for member in (header or "").split(","):
            if match := _MEMBER.fullmatch(member.strip(" \t")):
                name, quality = match[1].lower(), float(match[2] or 1)
                # If a coding is repeated, the lower quality is the safe one.
                qualities[name] = min(quality, qualities.get(name, quality))
        other = qualities.get("*", 0.0)
        zstd = qualities.get(ZSTD, other)
        decoded = qualities.get("identity")
        return cls(
            zstd=zstd > 0 and (decoded is None or zstd >= decoded),
            # It is acceptable unless it is excluded, if only by "*;q=0".
            decoded=bool(qualities.get("*", 1.0) if decoded is None else decoded),
        )


def may_accept_zstd(header: str) -> bool:
    """Return whether `AcceptedCodings.parse` may find that the client accepts zstd. This is a quick check."""
    return "*" in header or ZSTD in header.lower()


def has_zstd_form(info: ObjectInfo) -> bool:
    """Return whether the stored bytes of an object can be sent with ``Content-Encoding: zstd``.

    They cannot if another transform was applied as well, such as encryption, or if the object itself
    has a Content-Encoding.
    """
    return info.transforms == (ZSTD,) and not info.content_encoding
