"""Credentials kept out of messages, tracebacks and logs.

A service may quote a request in its response, and a traceback that is recorded with its local
variables shows whatever they hold. So secrets are held in a `Secret`, sent in `Headers`, and
removed from every message by a `Redactor`. What other libraries keep in their own frames is out of
reach: their exceptions are chained without tracebacks (`disarmed`), or not at all.
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
_ROOMS: Final = tuple(str(Path(_PACKAGE) / name) for name in ("drivers", "_http"))

_SHORTEST: Final = 8
"""Characters of the shortest value that is removed: a shorter one is part of ordinary words."""

_HEAD: Final = 16
"""Characters by which a long secret is recognised: a message may have been cut in its middle."""

_REMEMBERED: Final = 24
"""Forms of temporary credentials that are remembered: a service may quote one that was renewed."""


class Secret(Generic[T]):
    """A value whose repr hides it.

    Not a `str`: error reporters show the text of strings, subclasses included.

    Args:
        value: What `reveal` returns.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value. Use it where it is needed rather than keep it in a local variable."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(...)"


class Headers(dict[str, str]):
    """Request headers whose repr shows their names only: some of the values are credentials."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Headers({', '.join(self)})"


class Redactor:
    """Removes a driver's secrets from text.

    It finds them as they are and percent-encoded, and also the beginning of one that was cut off.
    """

    __slots__ = ("_heads", "_kept", "_renewed", "_values")

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._renewed: deque[str] = deque(maxlen=_REMEMBERED)
        self._values: tuple[str, ...] = ()
        self._heads: frozenset[str] = frozenset()  # how the values begin

    def add(self, *values: str | None) -> None:
        """Remember values for good; short ones are ignored."""
        self._kept += [form for form in _forms(values) if form not in self._values]
        self._look()

    def renew(self, *values: str | None) -> None:
        """Remember values that take the place of earlier ones, which are forgotten in time."""
        self._renewed.extend(form for form in _forms(values) if form not in self._values)
        self._look()

    def _look(self) -> None:
        self._values = (*self._kept, *self._renewed)
        self._heads = frozenset(value[:_HEAD] for value in self._values)

    def add_urls(self, *urls: str) -> None:
        """Remember what URLs have before their hosts: a user's name and password."""
        for url in urls:
            who, at, _ = url.partition("://")[2].rpartition("@")
            if at:
                self.add(who, *(unquote(part) for part in who.split(":", 1)))

    def redacted(self, text: str) -> str:
        """Return the text without the secrets."""
        for head in self._heads:
            if head in text:
                text = _without(text, head, [one for one in self._values if one.startswith(head)])
        return text

    def redact(self, error: TroveError) -> None:
        """Remove the secrets from an error: its message, chained exceptions, frames of drivers."""
        message = self.redacted(error.message)
        if message != error.message:
            error.message = message
        self._sever(error, {id(error): False})
        drop_variables(error)

    def _sever(self, error: BaseException, shows: dict[int, bool]) -> None:
        """Cut off what an exception is chained to and shows a secret.

        Args:
            error: The exception.
            shows: By id, whether those that were looked at do.
        """
        for name in ("__cause__", "__context__"):
            link: BaseException | None = getattr(error, name)
            if link is None:
                continue
            if id(link) not in shows:
                shown = f"{link} {link!r}"
                shows[id(link)] = self.redacted(shown) != shown
                if not shows[id(link)]:
                    self._sever(link, shows)
            if shows[id(link)]:
                suppressed = error.__suppress_context__
                setattr(error, name, None)
                error.__suppress_context__ = suppressed


async def redacted(work: Awaitable[T], redact: Callable[[TroveError], None]) -> T:
    """Return what work results in; an error of it is raised without secrets."""
    try:
        return await work
    except TroveError as error:
        redact(error)
        raise


def unredacted(error: TroveError) -> None:
    """Remove nothing from an error: the driver has no secrets."""


def _forms(values: Iterable[str | None]) -> list[str]:
    """Return how values may stand in a text: as they are, and percent-encoded."""
    told = [value for value in values if value is not None and len(value) >= _SHORTEST]
    forms = [form for value in told for form in (value, quote(value, safe=""), quote(value))]
    return list(dict.fromkeys(forms))


def _without(text: str, head: str, values: list[str]) -> str:
    """Return the text without the values, which begin alike, or as much of one as stands there."""
    kept: list[str] = []
    at = 0
    while (start := text.find(head, at)) >= 0:
        kept += [text[at:start], REDACTED]
        at = start + max(_shared(text, start, value) for value in values)
    return "".join([*kept, text[at:]])


def _shared(text: str, start: int, value: str) -> int:
    """Return how many characters of a value the text has from `start` on."""
    if text.startswith(value, start):
        return len(value)
    return next(n for n, one in enumerate(value) if text[start + n : start + n + 1] != one)


def drop_variables(error: BaseException) -> None:
    """Drop the local variables of the frames of drivers, and of all that they called.

    They hold requests and responses. This library's other frames are left alone: one that has caught
    an error and goes on is in its traceback, too, and to clear it would end it.
    """
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += (one.__cause__, one.__context__)
        at, inside = one.__traceback__, False
        while at is not None:
            frame = at.tb_frame
            name = frame.f_code.co_filename
            driver = name.startswith(_ROOMS)
            inside = inside or driver
            if driver or (inside and not name.startswith(_PACKAGE)):
                with suppress(RuntimeError):  # it is running
                    frame.clear()
            at = at.tb_next


def disarmed(error: BaseException) -> BaseException:
    """Return another library's exception without its traceback and what it is chained to.

    The local variables of that library's frames hold requests with their credentials.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
