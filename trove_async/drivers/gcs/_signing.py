"""Builds signed URLs.

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
MAX_EXPIRES: Final = 7 * 24 * 3600
"""The longest validity of a signed URL in seconds. Cloud Storage documentation, "Signed URLs": expiration."""


_QUERY_PARAMETERS: Final = {
    "version_id": "generation",
    "response_content_disposition": "response-content-disposition",
    "response_content_type": "response-content-type",
}
"""The query parameter of each option (XML API, "GET object"), in the order of the canonical request: sorted
by name, after the ``X-Goog`` parameters."""


@dataclass(frozen=True, slots=True)
class UnsignedURL:
    """A URL without its signature.

    Attributes:
        url: The URL without the query parameter for the signature.
        to_sign: The text to sign.
    """

    url: str
    to_sign: str

    def with_signature(self, signature: bytes) -> str:
        """Return the complete URL."""
        return f"{self.url}&X-Goog-Signature={signature.hex()}"


def build_url(
    method: str,
    origin: Origin,
    bucket: str,
    key: str,
    *,
    email: str,
    expires: int,
    now: float,
    options: PresignOptions = NOTHING_FIXED,
) -> UnsignedURL:
    """Return a URL to sign.

    Args:
        method: The only method that the URL allows.
        origin: The origin of the service. The signature covers its host and port.
        bucket: The bucket.
        key: The key.
        email: The email address of the service account that signs.
        expires: The validity in seconds from `now`.
        now: The time of the signature, in seconds since 1970.
        options: The query parameters and the header that the signature covers.
    """
    # 1. The credential scope: the day and the service.
    date = datetime.fromtimestamp(now, UTC)
    timestamp = date.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{timestamp[:8]}/auto/storage/goog4_request"
    # 2. The canonical request: path, query and headers. Slashes in the path are not encoded.
    path = media_path(bucket, key).replace("%2F", "/")
    header_lines, header_names = f"host:{origin.authority}\n", "host"
    if options.content_type is not None:
        header_lines = f"content-type:{' '.join(options.content_type.split())}\n{header_lines}"
        header_names = "content-type;host"
    query = (
        f"X-Goog-Algorithm={ALGORITHM}&X-Goog-Credential={encode(f'{email}/{scope}')}"
        f"&X-Goog-Date={timestamp}&X-Goog-Expires={expires}&X-Goog-SignedHeaders={encode(header_names)}"
    )
    for name, parameter in _QUERY_PARAMETERS.items():
        value = getattr(options, name)
        if value is not None:
            query += f"&{parameter}={encode(value)}"
    # 3. The text to sign.
    canonical = f"{method}\n{path}\n{query}\n{header_lines}\n{header_names}\nUNSIGNED-PAYLOAD"
    digest = sha256(canonical.encode()).hexdigest()
    return UnsignedURL(
        url=f"{origin.url}{path}?{query}", to_sign=f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}"
    )
