"""HTTP for the drivers: transports, header fields, and the reader of an object.

A transport sends each request once. It does not follow redirects, store cookies or decompress bodies;
drivers do that if they need it. Request bodies are passed as views, and only small ones are joined.
Response bodies are received on demand.

`transport`         the `Transport` and `Response` protocols, and origins
`socket_transport`  HTTP/1.1 on asyncio's sockets; `connection`, `socket_response`: one connection and its response;
                    `http11`: heads and framing, without I/O
`aiohttp_transport` the same protocol over aiohttp, which supports proxies; imported when it is needed, because
                    that takes 0.1 s
`proxies`           proxies from an argument or the environment, and the choice of a transport
`connect_errors`    the error for a failed connection: host, port, reason and remedy
`headers`           Content-Range, Range, Expires, Retry-After, dates, and the decoding of field values
`object_reader`     the reader of one object's body
`services`          shared by the S3 and GCS drivers: error mappings, a cache of existing buckets, and a
                    function that creates a resource and undoes this after a cancel
"""

from .headers import (
    date_field,
    expires_of,
    field_text,
    parse_content_range,
    range_header,
    retry_after,
)
from .object_reader import GetResult, Opening, Reader
from .proxies import check_proxy, check_tls, proxy_urls, transport_over
from .socket_transport import SocketTransport
from .transport import WINDOW, Origin, Response, StreamedBody, Transport

__all__ = [
    "WINDOW",
    "GetResult",
    "Opening",
    "Origin",
    "Reader",
    "Response",
    "SocketTransport",
    "StreamedBody",
    "Transport",
    "check_proxy",
    "check_tls",
    "date_field",
    "expires_of",
    "field_text",
    "parse_content_range",
    "proxy_urls",
    "range_header",
    "retry_after",
    "transport_over",
]
