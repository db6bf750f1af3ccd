"""The transport seam that the HTTP drivers share, the two transports, and reading an object over one.

No redirect is followed, no cookie kept, no body decompressed, no request sent twice: whoever sends
decides about all of that. A body goes out as the views that it is in, and comes in as it is asked
for.
"""

from .aiohttp_transport import AiohttpTransport, translated
from .headers import (
    expires_of,
    field_text,
    parse_content_range,
    range_header,
    retry_after,
)
from .object_reader import Opened, Reader
from .proxies import check_proxy, check_tls, proxy_urls, transport_over
from .socket_transport import SocketTransport
from .transport import WINDOW, Origin, Response, Streamed, Transport

__all__ = [
    "WINDOW",
    "AiohttpTransport",
    "Opened",
    "Origin",
    "Reader",
    "Response",
    "SocketTransport",
    "Streamed",
    "Transport",
    "check_proxy",
    "check_tls",
    "expires_of",
    "field_text",
    "parse_content_range",
    "proxy_urls",
    "range_header",
    "retry_after",
    "translated",
    "transport_over",
]
