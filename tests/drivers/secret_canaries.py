"""Canary secrets, and functions that search errors for them."""

from __future__ import annotations

import pickle
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import trove_async

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = str(Path(trove_async.__file__).parent)

SECRET_KEY = "canary/secret+access=key/0123456789abcdef"
SESSION_TOKEN = "canary/session+token=" + "0123456789abcdef" * 20
BEARER = "ya29.canary-bearer-token-0123456789abcdef0123456789"
PROXY_USER = "canary-proxy-user"
PROXY_PASSWORD = "canary-proxy-password"
CLIENT_SECRET = "canary-client-secret-0123456789"
REFRESH_TOKEN = "canary-refresh-token-0123456789"
CUSTOMER_KEY = "canary-customer-key-0123456789ab"
ENCODED_CUSTOMER_KEY = b64encode(CUSTOMER_KEY.encode()).decode()

ALL = (
    SECRET_KEY,
    SESSION_TOKEN,
    BEARER,
    PROXY_USER,
    PROXY_PASSWORD,
    CLIENT_SECRET,
    REFRESH_TOKEN,
    CUSTOMER_KEY,
    ENCODED_CUSTOMER_KEY,
)


def canaries_in(text: str) -> list[str]:
    """Return the canaries that a text shows: their first 16 characters, plain or percent-encoded."""
    forms = [(secret, form) for secret in ALL for form in (secret, quote(secret, safe=""))]
    return [secret for secret, form in forms if form[:16] in text]


def texts_of(value: object, depth: int = 4) -> Iterator[str]:
    """Yield the texts that an error reporter shows for a variable: its repr, and strings in containers."""
    yield repr(value)
    if isinstance(value, str):
        yield value[:]
    elif isinstance(value, (bytes, bytearray)):
        yield bytes(value).decode("latin-1")
    elif depth and isinstance(value, dict):
        for name, inner in value.items():
            yield from texts_of(name, depth - 1)
            yield from texts_of(inner, depth - 1)
    elif depth and isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from texts_of(inner, depth - 1)


def chain_of(error: BaseException) -> list[BaseException]:
    """Return an exception with its causes, contexts and grouped exceptions."""
    chain: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is None or any(link is earlier for earlier in chain):
            continue
        chain.append(link)
        pending += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            pending += link.exceptions
    return chain


def leaks_of(error: BaseException) -> list[str]:
    """Return the places where an error shows a canary.

    This searches the messages and reprs of the error's chain, the local variables in the package's
    frames, and the error's pickle.
    """
    leaks: list[str] = []

    def search(where: str, text: str) -> None:
        leaks.extend(f"{where}: {secret[:12]}" for secret in canaries_in(text))

    for link in chain_of(error):
        search(f"str of {type(link).__name__}", str(link))
        search(f"repr of {type(link).__name__}", repr(link))
        for frame, name, value in variables_of(link):
            for text in texts_of(value):
                search(f"{frame}: {name}", text)
    if isinstance(error, trove_async.TroveError):
        search("pickle", pickle.dumps(error).decode("latin-1"))
    return leaks


def variables_of(error: BaseException) -> Iterator[tuple[str, str, Any]]:
    """Yield the local variables of the package's frames in an exception's traceback."""
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename.startswith(PACKAGE):
            where = f"{Path(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}"
            for name, value in list(traceback.tb_frame.f_locals.items()):
                yield where, name, value
        traceback = traceback.tb_next
