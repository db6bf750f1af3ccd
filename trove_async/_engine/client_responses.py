"""Detects HTTP responses and requests passed as a body, and names what to pass instead.

These objects look like files or iterables but are unsuitable as a body: `read` takes no size, or returns
nothing because the body was already read, or iteration yields 128 bytes at a time. Classes are
recognised by name, so that no library is imported.
"""

from __future__ import annotations

from typing import Final

_REQUESTS_ALTERNATIVE: Final = "response.iter_content(1024 * 1024) of a response requested with stream=True, or response.content"
_URLLIB3_ALTERNATIVE: Final = "response.stream(1024 * 1024) of a response requested with preload_content=False, or response.data"
_ALTERNATIVES: Final = {
    ("httpx", "Response"): "response.aiter_bytes() of a streamed response, or response.content",
    ("aiohttp", "ClientResponse"): "response.content, its stream",
    ("aiohttp", "BodyPartReader"): (
        "an async generator that yields `await part.read_chunk()` until that is empty"
    ),
    ("aiohttp", "MultipartReader"): (
        "the chunks of one of its parts: an async generator that yields `await part.read_chunk()`"
        " until that is empty"
    ),
    ("aiohttp", "FileField"): "its .file",
    ("aiohttp", "BaseRequest"): "request.content, its stream",
    ("requests", "Response"): _REQUESTS_ALTERNATIVE,
    ("niquests", "Response"): _REQUESTS_ALTERNATIVE,
    ("urllib3", "BaseHTTPResponse"): _URLLIB3_ALTERNATIVE,
    ("urllib3", "HTTPResponse"): _URLLIB3_ALTERNATIVE,
    ("starlette", "Request"): "request.stream()",
    ("fastapi", "Request"): "request.stream()",
}
"""What to pass instead of an object, by the package and name of its class or of a base class."""


def check_not_response(body: object) -> None:
    """Raise if the body is a response of an HTTP client, a request, or one of their parts.

    Raises:
        TypeError: The body is such an object. The message names what to pass instead.
    """
    kind = type(body)
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        alternative = _ALTERNATIVES.get((package, base.__name__))
        if alternative is not None:
            raise TypeError(f"a body must not be {package}'s {kind.__name__}: pass {alternative}")
    if hasattr(body, "aiter_bytes"):  # a client modelled on httpx
        raise TypeError(
            f"a body must not be a {kind.__name__}: pass its aiter_bytes(), or its content"
        )
