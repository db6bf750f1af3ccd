"""Keeps credentials out of messages, tracebacks and logs.

A service may quote a request in its response, and error reporters record the local variables of a
traceback. So secrets are stored in a `Secret`, sent in `Headers`, and removed from every message by a
`Redactor`. The variables in frames of other libraries cannot be controlled, so their exceptions are
chained without tracebacks (`disarmed`), or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar
from urllib.parse import quote, unquote

from .errors import TroveError

T = TypeVar("T")

REDACTED: Final = "[redacted]"

_PACKAGE: Final = str(Path(__file__).parent)
_DRIVER_PATHS: Final = tuple(str(Path(_PACKAGE) / name) for name in ("drivers", "_http"))

_MIN_LENGTH: Final = 8
"""Length of the shortest value that is removed. Shorter values occur in ordinary words."""

_HEAD_LENGTH: Final = 16
"""Length of the beginning that identifies a secret. A message may contain a truncated secret."""

_MAX_RENEWED: Final = 24
"""Maximum number of remembered forms of temporary credentials. A service may quote expired ones."""


class Secret(Generic[T]):
    """A value whose repr hides it.

    The class does not inherit from `str`, because error reporters show the text of strings.

    Args:
        value: The value that `reveal` returns.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value. Use it directly; do not store it in a local variable."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(...)"


class Headers(dict[str, str]):
    """Request headers whose repr shows only the names, because some values are credentials."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Headers({', '.join(self)})"


class Redactor:
    """Removes a driver's secrets from text: verbatim, percent-encoded or truncated."""

    __slots__ = ("_heads", "_permanent", "_renewed", "_values")

    def __init__(self) -> None:
        self._permanent: list[str] = []
        self._renewed: deque[str] = deque(maxlen=_MAX_RENEWED)
        self._values: tuple[str, ...] = ()
        self._heads: frozenset[str] = frozenset()  # the beginnings of the values

    def add(self, *values: str | None) -> None:
        """Remember values permanently. Short ones are ignored."""
        self._permanent += [form for form in _forms(values) if form not in self._values]
        self._update()

    def renew(self, *values: str | None) -> None:
        """Remember temporary values. Only the latest are remembered."""
        self._renewed.extend(form for form in _forms(values) if form not in self._values)
        self._update()

    def _update(self) -> None:
        self._values = (*self._permanent, *self._renewed)
        self._heads = frozenset(value[:_HEAD_LENGTH] for value in self._values)

    def add_urls(self, *urls: str) -> None:
        """Remember the user names and passwords in URLs."""
        for url in urls:
            userinfo, at, _ = url.partition("://")[2].rpartition("@")
            if at:
                self.add(userinfo, *(unquote(part) for part in userinfo.split(":", 1)))

    def redacted(self, text: str) -> str:
        """Return the text without the secrets."""
        # Look for the beginnings of the secrets: few texts contain one, and a truncated secret still
        # has its beginning.
        for head in self._heads:
            if head in text:
                values = [value for value in self._values if value.startswith(head)]
                text = _replace(text, head, values)
        return text

    def redact(self, error: TroveError) -> None:
        """Remove the secrets from an error's message, chained exceptions and frames of drivers."""
        message = self.redacted(error.message)
        if message != error.message:
            error.message = message
        self._sever(error, {id(error): False})
        drop_variables(error)

    def _sever(self, error: BaseException, shows_secret: dict[int, bool]) -> None:
        """Unlink chained exceptions that show a secret.

        Args:
            error: The exception that the others are chained to.
            shows_secret: Whether each exception checked so far shows a secret, by the exception's id.
        """
        for name in ("__cause__", "__context__"):
            link: BaseException | None = getattr(error, name)
            if link is None:
                continue
            if id(link) not in shows_secret:
                text = f"{link} {link!r}"
                shows_secret[id(link)] = self.redacted(text) != text
                if not shows_secret[id(link)]:
                    self._sever(link, shows_secret)
            if shows_secret[id(link)]:
                # Setting __cause__ sets __suppress_context__ as well, so restore it.
                suppressed = error.__suppress_context__
                setattr(error, name, None)
                error.__suppress_context__ = suppressed


async def redacted(work: Awaitable[T], redact: Callable[[TroveError], None]) -> T:
    """Return the result of `work`. If it raises a TroveError, redact the error first."""
    try:
        return await work
    except TroveError as error:
        redact(error)
        raise


def redact_nothing(error: TroveError) -> None:
    """Leave the error unchanged, for drivers without secrets."""


def _forms(values: Iterable[str | None]) -> list[str]:
    """Return the forms in which values may occur in a text: verbatim and percent-encoded."""
    secrets = [value for value in values if value is not None and len(value) >= _MIN_LENGTH]
    # With safe="" a slash is encoded, as in a query. By default the slash stays, as in a path.
    forms = [form for value in secrets for form in (value, quote(value, safe=""), quote(value))]
    return list(dict.fromkeys(forms))


def _replace(text: str, head: str, values: list[str]) -> str:
    """Return the text without the values, whole or truncated. All of them start with `head`."""
    pieces: list[str] = []
    at = 0
    while (start := text.find(head, at)) >= 0:
        pieces += [text[at:start], REDACTED]
        at = start + max(_common_length(text, start, value) for value in values)
    return "".join([*pieces, text[at:]])


def _common_length(text: str, start: int, value: str) -> int:
    """Return how many characters of a value the text contains from `start` on."""
    if text.startswith(value, start):
        return len(value)
    return next(n for n, char in enumerate(value) if text[start + n : start + n + 1] != char)


def drop_variables(error: BaseException) -> None:
    """Clear the local variables in frames of drivers, transports and the libraries that they called.

    The variables refer to requests and responses. Other frames of this library are not cleared: the
    traceback may contain a generator that has caught the error and continues, and clearing its frame
    would end it.
    """
    pending: list[BaseException | None] = [error]
    visited: set[int] = set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in visited:
            continue
        visited.add(id(current))
        pending += (current.__cause__, current.__context__)
        entry, below_driver = current.__traceback__, False
        while entry is not None:
            frame = entry.tb_frame
            path = frame.f_code.co_filename
            in_driver = path.startswith(_DRIVER_PATHS)
            below_driver = below_driver or in_driver
            if in_driver or (below_driver and not path.startswith(_PACKAGE)):
                with suppress(RuntimeError):  # the frame is still running
                    frame.clear()
            entry = entry.tb_next


def disarmed(error: BaseException) -> BaseException:
    """Return an exception of a different library without its traceback and chained exceptions.

    The local variables in that library's frames contain requests with their credentials.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
