"""The members of a layer that wraps several drivers: reads that fail over, and values that name a member.

Every member has its own etags, version ids and page tokens. A value that the layer returns must be
accepted back, and must never be taken for a value of another member. So values of the first member are
passed as they are, and those of another member are tagged with its number. A request with a tagged value
goes to that member alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final, Literal, TypeVar

from trove_async.driver import (
    AsyncDriver,
    DriverContext,
    Layer,
    places_of,
)
from trove_async.errors import (
    AlreadyExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    ConfigError,
    CursorError,
    InvalidNameError,
    NotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
    PoolTimeoutError,
    PreconditionFailedError,
    TroveError,
    UnavailableError,
)
from trove_async.events import Event, Events
from trove_async.layers._attachment import Attachment
from trove_async.models import ObjectInfo, Prefix, VersionInfo
from trove_async.options import GetOptions, ListOptions, Page, VersionPage
from trove_async.paging import TokenCycle
from trove_async.pool import BufferPool

T = TypeVar("T")

_MARK: Final = "trove-member-"
"""The start of a tagged value, which continues with the number of the member and a colon."""


_PROBE: Final = ("trove-probe", "probe")
"""Names to compare the places of members with. No request uses them."""

_RESULTS: Final = (
    AlreadyExistsError,
    BucketNotEmptyError,
    InvalidNameError,
    NotFoundError,
    ObjectChangedError,
    PreconditionFailedError,
)
"""The errors of a member that works."""


def tag(member: int, value: str) -> str:
    """Return a member's value as the layer returns it."""
    # A value of the first member that looks like a tagged one comes from a layer inside it.
    return value if member == 0 and not value.startswith(_MARK) else f"{_MARK}{member}:{value}"


def untag(value: str) -> tuple[int, str]:
    """Return the number of the member that a value belongs to, and the member's own value."""
    number, colon, own = value.removeprefix(_MARK).partition(":")
    if not (value.startswith(_MARK) and colon and is_number(number)):
        return 0, value
    return int(number), own


def is_number(text: str) -> bool:
    """Return whether a part of a token is a number."""
    return text.isascii() and text.isdigit() and len(text) < 10  # noqa: PLR2004 - cheap to convert


def is_unavailable(error: Exception) -> bool:
    """Return whether an error means that a member is not available.

    Retries happen below the layer, so this is final. A PoolTimeoutError does not count: the request
    waited in a queue of this store and was not sent, so it says nothing about the service. Another
    member would hide that a setting is too small, and might have older objects.
    """
    return isinstance(error, UnavailableError) and not isinstance(error, PoolTimeoutError)


class Members:
    """The inner drivers of a layer, the primary first.

    Args:
        layer: The name of the layer's class, for messages.
        drivers: The drivers, as they were passed to the layer.
        other: What a member other than the primary is called: ``"replica"``.

    Raises:
        TypeError: One of them is not a driver.
        ConfigError: There is only one driver, one was passed twice, or two store at one place.
    """

    def __init__(self, layer: str, drivers: Sequence[AsyncDriver], other: str) -> None:
        self.attachment = Attachment(layer, drivers)
        if len(drivers) < 2:  # noqa: PLR2004 - the primary and another one
            raise ConfigError(f"{layer} requires a primary and at least one {other}")
        if len({id(driver) for driver in drivers}) < len(drivers):
            raise ConfigError(f"each driver of {layer} must be a different one, got one twice")
        self._layer = layer
        self.names = tuple(
            f"primary ({driver.name})" if number == 0 else f"{other} {number} ({driver.name})"
            for number, driver in enumerate(drivers)
        )
        self._check_distinct()
        self._nested = _has_members(drivers[0])
        self._context: DriverContext | None = None

    @property
    def drivers(self) -> tuple[AsyncDriver, ...]:
        """The open drivers. Raises ClosedError if the layer is not open."""
        return self.attachment.drivers

    @property
    def numbers(self) -> range:
        """The numbers of all members. 0 is the primary."""
        return range(len(self.names))

    @property
    def events(self) -> Events:
        """The events of the store."""
        assert self._context is not None  # noqa: S101 - set by `open`
        return self._context.events

    @property
    def pool(self) -> BufferPool:
        """The memory of the store."""
        assert self._context is not None  # noqa: S101 - set by `open`
        return self._context.pool

    def places(self, bucket: str, key: str, *, written: bool = False) -> Sequence[Hashable]:
        """Return the places of an object in all members that can have it, those of the primary first."""
        primary, *others = self.attachment.inner
        places = list(places_of(primary, bucket, key, written=written))
        for driver in others:
            with suppress(InvalidNameError):
                places += places_of(driver, bucket, key, written=written)
        return tuple(dict.fromkeys(places))

    async def open(self, context: DriverContext) -> None:
        """Open all members. See `Attachment.open`."""
        self.attachment.claim()
        self._context = context
        await self.attachment.attach(context)
        self._check_distinct()  # symbolic links are resolved now

    def _check_distinct(self) -> None:
        """Raise ConfigError if two members have an object of the same name at one place."""
        names: dict[Hashable, str] = {}
        for name, driver in zip(self.names, self.attachment.current, strict=True):
            with suppress(InvalidNameError):
                first = names.setdefault(driver.place(*_PROBE), name)
                if first is not name:
                    raise ConfigError(
                        f"the {first} and the {name} of {self._layer} store their objects at one place: each"
                        " member needs one of its own"
                    )

    def emit(
        self,
        kind: Literal["fallback", "missed"],
        operation: str,
        bucket: str | None,
        key: str | None,
        *,
        member: int,
        error: BaseException | None,
    ) -> None:
        """Emit a ``missed`` or ``fallback`` event about a member."""
        if self._context is not None and self.events:
            event = Event(
                kind=kind,
                operation=operation,
                backend=self._context.backend,
                bucket=bucket,
                key=key,
                error=error,
                member=self.names[member],
            )
            self.events.emit(event)

    @contextmanager
    def naming(self, member: int) -> Iterator[None]:
        """Name the member in an error of a request to it, unless the error is a result, such as a missing object."""
        try:
            yield
        except TroveError as error:
            self.name(member, error)
            raise

    def name(self, member: int, error: TroveError) -> None:
        """Name the member in an error, as `naming` does."""
        if error.member is None and not isinstance(error, _RESULTS):
            error.member = self.names[member]

    # -- values of one member --------------------------------------------------------------------

    def info(self, member: int, info: ObjectInfo) -> ObjectInfo:
        """Return a member's info as the layer returns it."""
        # The primary's etag is not looked at unless it may be tagged: listings compute it on demand.
        if member == 0 and not self._nested:
            return info
        return replace(
            info,
            etag=None if info.etag is None else tag(member, info.etag),
            version_id=None if info.version_id is None else tag(member, info.version_id),
        )

    def own_info(self, info: ObjectInfo) -> ObjectInfo:
        """Return an info that the layer has returned, with the values of its member."""
        return replace(
            info,
            etag=None if info.etag is None else self.untag(info.etag)[1],
            version_id=None if info.version_id is None else self.untag(info.version_id)[1],
        )

    def version(self, member: int, version: VersionInfo) -> VersionInfo:
        """Return a version of a member as the layer returns it."""
        return replace(
            version,
            etag=None if version.etag is None else tag(member, version.etag),
            version_id=tag(member, version.version_id),
        )

    def untag(self, value: str) -> tuple[int, str]:
        """Return the number of the member that a value belongs to, and the member's own value."""
        member, own = untag(value)
        return (member, own) if member < len(self.names) else (0, value)

    def owner(self, etag: str | None, version_id: str | None) -> int | None:
        """Return the member that an etag and a version id belong to; None: neither is given.

        Raises:
            PreconditionFailedError: They belong to different members.
        """
        owners = {self.untag(value)[0] for value in (etag, version_id) if value is not None}
        if len(owners) > 1:
            raise PreconditionFailedError(
                "if_match: the etag and the version id belong to different members of the layer"
            )
        return owners.pop() if owners else None

    def own(self, value: str | None) -> str | None:
        """Return the own value of its member."""
        return None if value is None else self.untag(value)[1]

    # -- reads -----------------------------------------------------------------------------------

    async def read(
        self,
        operation: str,
        bucket: str | None,
        key: str | None,
        call: Callable[[int, AsyncDriver], Awaitable[T]],
        *,
        only: int | None = None,
        on_missing: bool = False,
    ) -> T:
        """Return the result of the first member that is available.

        Args:
            operation: The operation, for events.
            bucket: The bucket, for events.
            key: The key, for events.
            call: Makes the request to a member.
            only: The only member to ask.
            on_missing: Whether to ask the next member also if one lacks the object or the bucket.

        Raises:
            UnavailableError: No member is available, or the only ones that are lack the object. It is the
                first error, with a note of the others.
            TroveError: A member has answered with an error.
        """
        drivers, failures = self.drivers, Failures(self.names)
        if only is not None:
            with self.naming(only):
                return await call(only, drivers[only])
        for member, driver in enumerate(drivers):
            try:
                with self.naming(member):
                    result = await call(member, driver)
            except (UnavailableError, NotFoundError, InvalidNameError) as error:
                if not failures.add(member, error, on_missing=on_missing):
                    raise
                continue
            if failures.unavailable is not None:
                self.emit(
                    "fallback", operation, bucket, key, member=member, error=failures.unavailable
                )
            return result
        raise failures.final()

    def get_options(self, member: int, options: GetOptions) -> GetOptions:
        """Return the options for one member. An etag of another member cannot match its object."""
        if (options.if_match, options.version_id, options.if_none_match) == (None, None, None):
            return options
        if_none_match = options.if_none_match
        if if_none_match is not None:
            owner, own = self.untag(if_none_match)
            if_none_match = own if owner == member else None
        return replace(
            options,
            if_match=self.own(options.if_match),
            version_id=self.own(options.version_id),
            if_none_match=if_none_match,
        )

    async def list_page(self, bucket: str, options: ListOptions, *, ordered: bool) -> Page:
        """Return one page from the first available member.

        The token contains the member and the last key of the page. If that member is not available,
        the listing continues at this key on the first one that is, unless a listing is not ordered.
        """

        async def first(member: int, driver: AsyncDriver) -> Page:
            return self._page(member, await driver.list_page(bucket, options))

        if options.token is None:
            return await self.read("list", bucket, None, first)
        member, last_key, token = _parse_token(options.token, len(self.names))
        try:
            with self.naming(member):
                page = await self.drivers[member].list_page(bucket, replace(options, token=token))
            return self._page(member, page)
        except UnavailableError as error:
            if not ordered or not is_unavailable(error):
                raise

        async def resume(other: int, driver: AsyncDriver) -> Page:
            return self._page(other, await page_after(driver, bucket, options, last_key or None))

        return await self.read("list", bucket, None, resume)

    def _page(self, member: int, page: Page) -> Page:
        entries: Sequence[ObjectInfo | Prefix] = page.entries
        if member or self._nested:
            entries = [
                entry if isinstance(entry, Prefix) else self.info(member, entry)
                for entry in entries
            ]
        return Page(entries=entries, token=_token(member, page))

    async def version_page(
        self,
        bucket: str,
        options: ListOptions,
        request: Callable[[AsyncDriver, ListOptions], Awaitable[VersionPage]],
    ) -> VersionPage:
        """Return one page of versions from the first available member.

        A listing that has begun continues on its member alone, whose version ids it has returned.
        """
        only, token = None, None
        if options.token is not None:
            only, _, token = _parse_token(options.token, len(self.names))
        own = replace(options, token=token)

        async def one(member: int, driver: AsyncDriver) -> VersionPage:
            page = await request(driver, own)
            entries = page.entries
            if member or self._nested:
                entries = [self.version(member, entry) for entry in entries]
            return VersionPage(entries=entries, token=_token(member, page))

        return await self.read("list_versions", bucket, None, one, only=only)


class Failures:
    """The errors of the members that were asked so far, and what they mean together.

    Attributes:
        unavailable: The first error of a member that is not available.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._errors: list[tuple[int, TroveError]] = []
        self.unavailable: TroveError | None = None

    def add(self, member: int, error: TroveError, *, on_missing: bool) -> bool:
        """Record a member's error. Return whether the next member must be asked."""
        if is_unavailable(error):
            self.unavailable = self.unavailable or error
        # A key whose name a further member cannot store is missing there.
        elif not (
            on_missing
            and (
                isinstance(error, NotFoundError) or (member and isinstance(error, InvalidNameError))
            )
        ):
            return False
        self._errors.append((member, error))
        return True

    def final(self) -> TroveError:
        """Return the error to raise after all members have failed."""
        raised = self.unavailable
        for kind in (ObjectNotFoundError, BucketNotFoundError, TroveError):
            for _, error in self._errors:
                if raised is None and isinstance(error, kind):
                    raised = error
        assert raised is not None  # noqa: S101 - called after an `add`
        for member, error in self._errors:
            if error is not raised:
                raised.add_note(f"({self._names[member]}: {type(error).__name__}: {error.message})")
        return raised


async def page_after(
    driver: AsyncDriver, bucket: str, options: ListOptions, position: str | None
) -> Page:
    """Return the first page of entries after the last one that was returned.

    Args:
        driver: The driver to list.
        bucket: The bucket.
        options: The options of the listing. Their token is not used.
        position: The last entry's key or common prefix; None: none was returned.
    """
    start_after = options.start_after
    if position is not None:
        start_after = max(position, start_after or "")
    options = replace(options, start_after=start_after, token=None)
    cycle = TokenCycle()
    while True:
        page = await driver.list_page(bucket, options)
        cycle.check(page.token, empty=not page.entries)
        entries = page.entries
        if position is not None:
            # A common prefix is listed again after itself, because its keys are greater.
            entries = [entry for entry in entries if entry.key > position]
        if entries or page.token is None:
            return Page(entries=entries, token=page.token)
        options = replace(options, token=page.token)


def cannot_have_bucket(bucket: str, error: InvalidNameError) -> BucketNotFoundError:
    """Return the error of a further member that cannot have a bucket of this name."""
    missing = BucketNotFoundError("the service cannot have a bucket of this name", bucket=bucket)
    missing.__cause__ = error
    return missing


def _token(member: int, page: Page | VersionPage) -> str | None:
    if page.token is None:
        return None
    last_key = page.entries[-1].key if page.entries else ""
    return f"{member}:{len(last_key)}:{last_key}{page.token}"


def _parse_token(token: str, members: int) -> tuple[int, str, str]:
    """Return the member of a page, the page's last key, and the member's own token.

    Raises:
        CursorError: The token is malformed.
    """
    member, _, rest = token.partition(":")
    length, colon, rest = rest.partition(":")
    if not (colon and is_number(member) and is_number(length)):
        raise CursorError("the token of the listing is malformed: list from the start")
    if int(member) >= members or int(length) > len(rest):
        raise CursorError("the token of the listing has other members: list from the start")
    return int(member), rest[: int(length)], rest[int(length) :]


def parse_stage(token: str | None, members: int) -> tuple[int, str | None]:
    """Return the member that a listing of one member after another is at, and the member's own token.

    Raises:
        CursorError: The token is malformed.
    """
    if token is None:
        return 0, None
    stage, colon, rest = token.partition(":")
    if not (colon and is_number(stage) and int(stage) < members):
        raise CursorError("the token is malformed: list from the start")
    return int(stage), rest or None


def _has_members(driver: AsyncDriver) -> bool:
    """Return whether a driver may return tagged values."""
    if not isinstance(driver, Layer):
        return False
    return len(driver.inner) > 1 or any(map(_has_members, driver.inner))
