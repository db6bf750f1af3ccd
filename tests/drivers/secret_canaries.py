"""Secrets that are easy to find, and where they may not be found."""

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
SENT_CUSTOMER_KEY = b64encode(CUSTOMER_KEY.encode()).decode()

ALL = (
    SECRET_KEY,
    SESSION_TOKEN,
    BEARER,
    PROXY_USER,
    PROXY_PASSWORD,
    CLIENT_SECRET,
    REFRESH_TOKEN,
    CUSTOMER_KEY,
    SENT_CUSTOMER_KEY,
)


def found_in(text: str) -> list[str]:
    """Return the secrets that a text has, or the beginnings of."""
    forms = [(one, form) for one in ALL for form in (one, quote(one, safe=""))]
    return [one for one, form in forms if form[:16] in text]


def texts_of(value: object, depth: int = 4) -> Iterator[str]:
    """Yield what an error reporter shows of a variable: strings and containers as they are."""
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
    """Return an exception and all that it is chained to."""
    chain: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or any(one is known for known in chain):
            continue
        chain.append(one)
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
    return chain


def leaks_of(error: BaseException) -> list[str]:
    """Return where an error shows a secret: its chain, our frames' variables, its pickle."""
    leaks: list[str] = []

    def look(where: str, text: str) -> None:
        leaks.extend(f"{where}: {one[:12]}" for one in found_in(text))

    for one in chain_of(error):
        look(f"str of {type(one).__name__}", str(one))
        look(f"repr of {type(one).__name__}", repr(one))
        for frame, name, value in variables_of(one):
            for text in texts_of(value):
                look(f"{frame}: {name}", text)
    if isinstance(error, trove_async.TroveError):
        look("pickle", pickle.dumps(error).decode("latin-1"))
    return leaks


def variables_of(error: BaseException) -> Iterator[tuple[str, str, Any]]:
    """Yield the local variables of the package's frames in an exception's traceback."""
    at = error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        if code.co_filename.startswith(PACKAGE):
            where = f"{Path(code.co_filename).name}:{at.tb_lineno} {code.co_name}"
            for name, value in list(at.tb_frame.f_locals.items()):
                yield where, name, value
        at = at.tb_next
