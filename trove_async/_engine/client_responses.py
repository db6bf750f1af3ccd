"""Detects HTTP clients' responses passed as a body, and names what to pass instead.

These objects look like files or iterables but do not work as a body: `read` takes no size, or returns
nothing because the body was already read, or iteration yields 128 bytes at a time. Classes are
recognised by name, so that no library is imported.
"""

from __future__ import annotations

from typing import Final

_ITERATED: Final = (
    "response.iter_content(1024 * 1024) of a response made with stream=True, or response.content"
)
_STREAMED: Final = (
    "response.stream(1024 * 1024) of a response made with preload_content=False, or response.data"
)
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
    ("requests", "Response"): _ITERATED,
    ("niquests", "Response"): _ITERATED,
    ("urllib3", "BaseHTTPResponse"): _STREAMED,
    ("urllib3", "HTTPResponse"): _STREAMED,
    ("starlette", "Request"): "request.stream()",
    ("fastapi", "Request"): "request.stream()",
}
"""What to pass instead, by package and name of a class or of one of its bases."""


def refuse_response(body: object) -> None:
    """Raise if the body is a response of an HTTP client, a request, or one of their parts.

    Raises:
        TypeError: It is one. The message names what to pass instead.
    """
    kind = type(body)
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        instead = _ALTERNATIVES.get((package, base.__name__))
        if instead is not None:
            raise TypeError(f"a body must not be {package}'s {kind.__name__}: pass {instead}")
    if hasattr(body, "aiter_bytes"):  # httpx's relatives
        raise TypeError(
            f"a body must not be a {kind.__name__}: pass its aiter_bytes(), or its content"
        )
