"""URLs of the servers that the fixtures start."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:
    from trove_async.testing.servers import S3Server


def s3_url(server: S3Server) -> str:
    query = urlencode({"endpoint": server.endpoint_url})
    return f"s3://{server.access_key_id}:{server.secret_access_key}@{server.region}/?{query}"
