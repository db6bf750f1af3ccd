"""URLs that carry a signature.

Cloud Storage documentation, "V4 signing process with your own program" and "Canonical requests".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from trove_async._http import Origin
from trove_async.options import NOTHING_FIXED, PresignOptions

from ._encoding import encode, media_path

ALGORITHM: Final = "GOOG4-RSA-SHA256"
MOST_SECONDS: Final = 7 * 24 * 3600
"""How long a URL may be good for. "Signed URLs": expiration."""


_QUERY: Final = {
    "version_id": "generation",
    "response_content_disposition": "response-content-disposition",
    "response_content_type": "response-content-type",
}
"""What the query says of the response, in the order in which it is signed: by name, and behind all
that is in upper case. XML API, "GET object"."""


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A URL that lacks its signature.

    Attributes:
        url: What is there of it.
        to_sign: What its signature is made of.
    """

    url: str
    to_sign: str

    def signed(self, signature: bytes) -> str:
        """Return the URL, complete."""
        return f"{self.url}&X-Goog-Signature={signature.hex()}"


def unsigned(
    method: str,
    origin: Origin,
    bucket: str,
    key: str,
    *,
    email: str,
    expires: int,
    now: float,
    options: PresignOptions = NOTHING_FIXED,
) -> Unsigned:
    """Return a URL that is to be signed.

    Args:
        method: The one method that it allows.
        origin: Where the service is; only there it holds.
        bucket: The bucket.
        key: The key.
        email: The service account that signs.
        expires: Seconds from `now` on.
        now: Seconds since 1970.
        options: What else it fixes.
    """
    moment = datetime.fromtimestamp(now, UTC)
    stamp = moment.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/auto/storage/goog4_request"
    # Slashes stay: the canonical path has them as they are.
    path = media_path(bucket, key).replace("%2F", "/")
    lines, names = f"host:{origin.authority}\n", "host"
    if options.content_type is not None:
        lines = f"content-type:{' '.join(options.content_type.split())}\n{lines}"
        names = "content-type;host"
    query = (
        f"X-Goog-Algorithm={ALGORITHM}&X-Goog-Credential={encode(f'{email}/{scope}')}"
        f"&X-Goog-Date={stamp}&X-Goog-Expires={expires}&X-Goog-SignedHeaders={encode(names)}"
    )
    for ours, theirs in _QUERY.items():
        value = getattr(options, ours)
        if value is not None:
            query += f"&{theirs}={encode(value)}"
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\nUNSIGNED-PAYLOAD"
    digest = sha256(canonical.encode()).hexdigest()
    return Unsigned(
        url=f"{origin.url}{path}?{query}", to_sign=f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}"
    )
