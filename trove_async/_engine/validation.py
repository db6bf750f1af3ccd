"""Checks a user's arguments before any I/O, and packs them into the options of the driver contract."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, cast

from trove_async import _names
from trove_async._settings import check_ints, check_switches
from trove_async.driver import AsyncDriver
from trove_async.errors import ConfigError, InvalidNameError
from trove_async.middleware import MAX_BLOCK, MAX_EXPANSION, Inspecting, Middleware, Segmented
from trove_async.models import ByteRange, ObjectInfo, Timeout
from trove_async.options import DeleteOptions, GetOptions, ListOptions, PresignOptions, PutOptions
from trove_async.pool import BufferPool
from trove_async.retry import RetryPolicy
from trove_async.router import DEFAULT
from trove_async.scope import Scope

from .copy_overrides import CopyOverrides
from .transforms import ScopedItem, check_scopes


def checked_backends(
    backends: Mapping[str, AsyncDriver | str] | None,
) -> Mapping[str, AsyncDriver | str]:
    """Check the names of a store's backends.

    Raises:
        TypeError: The mapping or a name has the wrong type.
        ConfigError: A name is empty or reserved.
    """
    if backends is None:
        return {}
    if not isinstance(backends, Mapping):
        raise TypeError(
            f"backends must map names to drivers or URLs, got {type(backends).__name__}"
        )
    for name in backends:
        if not isinstance(name, str):
            raise TypeError(f"a backend's name must be a str, got {type(name).__name__}")
        if not name:
            raise ConfigError(
                "a backend's name must not be empty, because a route function returns '' to pass"
            )
        if name == DEFAULT:
            raise ConfigError(
                f"{DEFAULT!r} is reserved for the default backend: choose a different name"
            )
    return backends


def checked_middleware(
    middleware: Sequence[Middleware | Inspecting | tuple[Middleware | Inspecting, Scope]],
    backends: Sequence[str],
) -> Sequence[ScopedItem]:
    """Check the middlewares and inspections of a store, and return each with its scope.

    Raises:
        TypeError: An item is neither a middleware or inspection, nor a pair of one and a scope, or its
            name or segment size has the wrong type.
        ConfigError: The name or segment size of a middleware is not possible.
        BackendNotFoundError: A scope names an unknown backend.
    """
    if isinstance(middleware, (Middleware, Inspecting)) or not isinstance(middleware, Iterable):
        raise TypeError("middleware must be a list: pass [middleware] or [(middleware, scope)]")
    listed: list[ScopedItem] = []
    for item in middleware:
        pair = item if isinstance(item, tuple) else (item, Scope.everything())
        if len(pair) != 2 or not isinstance(pair[1], Scope):  # noqa: PLR2004 - a pair
            raise TypeError(f"an item of middleware must be (middleware, scope), got {item!r}")
        if isinstance(pair[0], type) or not isinstance(pair[0], (Middleware, Inspecting)):
            name = pair[0].__name__ if isinstance(pair[0], type) else type(pair[0]).__name__
            raise TypeError(
                f"an item of middleware must be a middleware or an inspection, got {name}"
            )
        if isinstance(pair[0], Middleware):
            _check_properties(pair[0])
        listed.append(pair)
    check_scopes(listed, backends)
    return listed


def _check_properties(middleware: Middleware) -> None:
    """Check what the store uses of a middleware before any object is read or written."""
    name: object = middleware.name
    if not isinstance(name, str):
        raise TypeError(f"the name of {middleware!r} must be a str, got {type(name).__name__}")
    if not name:
        raise ConfigError(f"the name of {middleware!r} must not be empty")
    if isinstance(middleware, Segmented):
        size: object = middleware.segment_size
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"segment_size of {name!r} must be an int, got {type(size).__name__}")
        # This many bytes of an object are read into memory at once.
        if not 0 < size <= MAX_BLOCK + MAX_EXPANSION:
            raise ConfigError(
                f"segment_size of {name!r} must be 1 to {MAX_BLOCK + MAX_EXPANSION} bytes, got {size}"
            )


def check_store_options(
    pool: BufferPool | None,
    retry: RetryPolicy | None,
    timeout: Timeout | None,
    create_missing: object,
) -> None:
    """Check a store's options when it is created rather than at first use.

    Raises:
        TypeError: A value has the wrong type.
        ConfigError: `create_missing` is not one of its three values.
    """
    for name, value, expected in (
        ("pool", pool, BufferPool),
        ("retry", retry, RetryPolicy),
        ("timeout", timeout, Timeout),
    ):
        if value is not None and not isinstance(value, expected):
            raise TypeError(f"{name} must be a {expected.__name__}, got {type(value).__name__}")
    if not (isinstance(create_missing, bool) or create_missing == "auto"):
        raise ConfigError(
            f'create_missing_buckets must be True, False or "auto", got {create_missing!r}'
        )


def check_locate(locate: object) -> None:
    """Check where a store looks for objects.

    Raises:
        TypeError: The value is not a str.
        ConfigError: It is neither of the two values.
    """
    if not isinstance(locate, str):
        raise TypeError(f"locate must be a str, got {type(locate).__name__}")
    if locate not in {"routed", "anywhere"}:
        raise ConfigError(f'locate must be "routed" or "anywhere", got {locate!r}')


def check_progress(callback: object) -> None:
    """Check a progress callback before anything is stored."""
    if callback is None:
        return
    if inspect.iscoroutinefunction(callback):
        raise TypeError("progress must be a plain function, got a coroutine function")
    if not callable(callback):
        raise TypeError(
            f"progress must be callable with (done, total), got {type(callback).__name__}"
        )


def check_decode(decode: object, *, functions: bool) -> None:
    """Check the `decode` argument of a get or a read.

    Args:
        decode: The argument.
        functions: Whether it may be a function.

    Raises:
        TypeError: It has the wrong type.
    """
    if isinstance(decode, bool):
        return
    if not (functions and callable(decode)):
        alternative = " or a function" if functions else ""
        raise TypeError(f"decode must be a bool{alternative}, got {type(decode).__name__}")
    if inspect.iscoroutinefunction(decode):
        raise TypeError("decode must be a plain function, got a coroutine function")


def put_options(
    *,
    size: int | None = None,
    content_type: str | None = None,
    metadata: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    storage_class: str | None = None,
    cache_control: str | None = None,
    content_disposition: str | None = None,
    content_encoding: str | None = None,
    content_language: str | None = None,
    expires: datetime | None = None,
    if_none_match: str | None = None,
    if_match: str | ObjectInfo | None = None,
    write_id: str | None = None,
) -> PutOptions:
    """Check the options of a put and pack them.

    Raises:
        TypeError: A value has the wrong type.
        InvalidNameError: A value cannot be a header, or a metadata name is reserved.
        ValueError: The size is negative, ``if_none_match`` is not ``"*"`` or is combined with
            ``if_match``, ``if_match`` does not identify a version, or `expires` is a naive datetime or
            outside the years 1 to 9999 of UTC.
    """
    # Every put runs through this function, so it calls others only for unusual options.
    # 1. Check the size and the conditions.
    if size is not None:
        _check_size(size)
    if if_none_match is not None:
        _check_creation(if_none_match, if_match)
    # 2. Check the headers, and pack them. Most puts have at most a content type. An empty header is not stored.
    values: dict[str, object] = {"size": size, "checksums": {}, "write_id": write_id}
    for name, value in (
        ("content_type", content_type),
        ("cache_control", cache_control),
        ("content_disposition", content_disposition),
        ("content_encoding", content_encoding),
        ("content_language", content_language),
        ("storage_class", storage_class),
    ):
        if value is not None:
            if not (type(value) is str and _names.is_usual_header(value)):
                _names.check_header(name, value)
            values[name] = value or None
    # 3. Pack the others.
    values["metadata"] = {} if metadata is None else checked_metadata(metadata)
    values["tags"] = {} if tags is None else _checked_tags(tags)
    if expires is not None:
        values["expires"] = _truncated_to_seconds("expires", expires)
    if if_match is not None:
        values["if_match"] = _etag_of("if_match", if_match)
    if if_none_match is not None:
        values["if_none_match"] = if_none_match
    options = object.__new__(PutOptions)  # as in `PutOptions.of_body`
    options.__dict__.update(values)
    return options


def _check_size(size: object) -> None:
    check_ints(size=size)
    if cast("int", size) < 0:
        raise ValueError(f"size must not be negative, got {size}")


def _check_creation(if_none_match: object, if_match: object) -> None:
    """Check the condition of a put that creates an object."""
    if if_none_match != "*":
        raise ValueError(
            f'if_none_match of a put must be "*", which creates and never replaces, got {if_none_match!r}'
        )
    if if_match is not None:
        raise ValueError(
            "if_match and if_none_match exclude each other: the first replaces, the second creates"
        )


def _truncated_to_seconds(name: str, moment: datetime) -> datetime:
    """Return a time in UTC in whole seconds, the resolution of HTTP dates."""
    if not isinstance(moment, datetime):
        raise TypeError(f"{name} must be a datetime, got {type(moment).__name__}")
    if moment.utcoffset() is None:
        raise ValueError(f"{name} must be an aware datetime: give it a time zone, such as UTC")
    try:
        return moment.astimezone(UTC).replace(microsecond=0)
    except OverflowError:
        raise ValueError(f"{name} must be in the years 1 to 9999 of UTC, got {moment}") from None


def copy_overrides(
    *,
    metadata: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    content_type: str | None = None,
    cache_control: str | None = None,
    content_disposition: str | None = None,
    content_encoding: str | None = None,
    content_language: str | None = None,
    expires: datetime | Literal[""] | None = None,
    storage_class: str | None = None,
    if_match: str | ObjectInfo | None = None,
    if_none_match: str | None = None,
    write_id: str,
) -> CopyOverrides:
    """Check the options of a copy and pack them."""
    put = put_options(
        metadata=metadata,
        tags=tags,
        content_type=content_type,
        cache_control=cache_control,
        content_disposition=content_disposition,
        content_encoding=content_encoding,
        content_language=content_language,
        expires=None if expires == "" else expires,
        storage_class=storage_class,
        if_match=if_match,
        if_none_match=if_none_match,
        write_id=write_id,
    )
    return CopyOverrides(
        metadata=metadata,
        tags=tags,
        content_type=content_type,
        cache_control=cache_control,
        content_disposition=content_disposition,
        content_encoding=content_encoding,
        content_language=content_language,
        expires=expires,
        put=put,
    )


def checked_metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Check user metadata and lower-case its names, as HTTP services do."""
    metadata = _checked_mapping("metadata", metadata)
    if not metadata:
        return {}
    _names.check_metadata(metadata)
    lowered = {name.lower(): value for name, value in metadata.items()}
    if len(lowered) < len(metadata):
        spellings: dict[str, str] = {}
        for name in metadata:
            other = spellings.setdefault(name.lower(), name)
            if other != name:
                raise InvalidNameError(
                    f"metadata names must differ by more than case, got {other!r} and {name!r}:"
                    " HTTP does not keep the case"
                )
    return lowered


def checked_inherited(options: PutOptions) -> PutOptions:
    """Check the values that a copy inherits from its source like those of a put.

    A service may store values that others do not accept: Cloud Storage allows any text as a metadata
    name.

    Args:
        options: The options of the destination.

    Returns:
        The options with metadata names in lower case.

    Raises:
        InvalidNameError: A name or a value cannot be a header, or a name is reserved.
    """
    for name in _HEADERS:
        _names.check_header(name, getattr(options, name))
    if options.tags:
        _checked_tags(options.tags)
    if not options.metadata:
        return options
    return replace(options, metadata=checked_metadata(options.metadata))


def _checked_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in _checked_mapping("tags", tags).items():
        for text in (name, value):
            _names.check_line("a tag", text)
    return dict(tags)


def _checked_mapping(name: str, mapping: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{name} must map names to values, got {type(mapping).__name__}")
    return mapping


def _etag_of(name: str, condition: str | ObjectInfo | None) -> str | None:
    """Return the etag that a condition requires. The condition is an etag or an ObjectInfo.

    Raises:
        TypeError: The condition is neither.
        InvalidNameError: The etag cannot be a header.
        ValueError: The etag does not identify a version. The meaning of ``"*"`` depends on the
            service, a weak etag may stay the same when the content changes, and some objects have
            no etag.
    """
    if condition is None:
        return None
    if isinstance(condition, ObjectInfo):
        etag = condition.etag
        if etag is None:
            raise ValueError(
                f"{name} must have an etag, but that of object {condition.key!r} is None: its service"
                " returned no strong validator"
            )
    else:
        etag = condition
    if not isinstance(etag, str):
        raise TypeError(f"{name} must be an etag or an ObjectInfo, got {type(etag).__name__}")
    _names.check_header(name, etag)
    if etag in {"", "*"} or etag.startswith("W/"):
        raise ValueError(
            f"{name} must identify one version, got {etag!r}: pass an ObjectInfo or its etag"
        )
    return etag


_HEADERS = (
    "content_type",
    "cache_control",
    "content_disposition",
    "content_encoding",
    "content_language",
)
"""The text options that a copy inherits and that are stored as HTTP headers."""


def get_options(
    *,
    range: ByteRange | tuple[int, int | None] | None,
    version_id: str | None,
    if_match: str | ObjectInfo | None,
    if_none_match: str | ObjectInfo | None,
) -> GetOptions:
    """Check the options of a get and pack them."""
    _names.check_header("version_id", version_id)
    return GetOptions(
        range=None if range is None else ByteRange.of(range),
        version_id=version_id,
        if_match=_etag_of("if_match", if_match),
        if_none_match=_etag_of("if_none_match", if_none_match),
    )


def byte_ranges(
    ranges: Iterable[ByteRange | tuple[int, int | None]],
) -> Sequence[ByteRange]:
    """Check the ranges of a get_ranges, and return them as ByteRanges.

    Raises:
        TypeError: `ranges` is not iterable, or an item is not a range.
        RangeError: A range is empty or starts before 0.
    """
    if not isinstance(ranges, Iterable):
        raise TypeError(f"ranges must be an iterable of ranges, got {type(ranges).__name__}")
    return [ByteRange.of(byte_range) for byte_range in ranges]


def check_read_limit(limit: int | None) -> None:
    """Check the limit of a read."""
    if limit is None:
        return
    check_ints(limit=limit)
    if limit < 0:
        raise ValueError(f"limit must not be negative, got {limit}")


_MAX_EXPIRES = 7 * 24 * 3600.0  # AWS Signature Version 4, "X-Amz-Expires"; GCS V4 signing: the same


def presign_options(
    expires: float,
    *,
    version_id: str | None = None,
    response_content_type: str | None = None,
    response_content_disposition: str | None = None,
    content_type: str | None = None,
) -> PresignOptions:
    """Check the options of a presigned URL and pack them.

    Raises:
        TypeError: A value has the wrong type.
        InvalidNameError: A value cannot be a header.
        ValueError: `expires` is not between 1 second and 7 days.
    """
    if not isinstance(expires, (int, float)) or isinstance(expires, bool):
        raise TypeError(f"expires must be a number of seconds, got {type(expires).__name__}")
    if not 1 <= expires <= _MAX_EXPIRES:
        raise ValueError(f"expires must be 1 to {_MAX_EXPIRES:.0f} seconds, got {expires}")
    _names.check_header("version_id", version_id)
    _names.check_header("response_content_type", response_content_type)
    _names.check_header("response_content_disposition", response_content_disposition)
    _names.check_header("content_type", content_type)
    return PresignOptions(
        version_id=version_id,
        response_content_type=response_content_type or None,
        response_content_disposition=response_content_disposition or None,
        content_type=content_type or None,
    )


def delete_options(
    *, version_id: str | None, if_match: str | ObjectInfo | None, write_id: str
) -> DeleteOptions:
    """Check the options of a delete and pack them."""
    _names.check_header("version_id", version_id)
    return DeleteOptions(
        version_id=version_id, if_match=_etag_of("if_match", if_match), write_id=write_id
    )


def list_options(
    *,
    prefix: str,
    delimiter: str | None,
    start_after: str | None,
    cursor: str | None,
    page_size: int,
    details: bool = False,
    include_shadowed: bool = False,
) -> ListOptions:
    """Check the options of a listing, and pack those that a backend needs.

    Raises:
        InvalidNameError: The prefix, delimiter or start cannot be part of a key.
        TypeError: A value has the wrong type.
        ValueError: `page_size` is less than 1, the delimiter is empty, or both `start_after` and
            `cursor` are passed.
    """
    _names.check_prefix(prefix)
    if delimiter is not None:
        _names.check_text("a delimiter", delimiter)
        if not delimiter:
            raise ValueError(
                "a delimiter must have at least one character: pass None for no delimiter"
            )
    if start_after is not None:
        _names.check_text("start_after", start_after)
    if cursor is not None:
        if not isinstance(cursor, str):
            raise TypeError(f"a cursor must be a str, got {type(cursor).__name__}")
        if start_after is not None:
            raise ValueError(
                "cursor and start_after exclude each other: a cursor includes the start"
            )
    check_ints(page_size=page_size)
    check_switches(details=details, include_shadowed=include_shadowed)
    if page_size < 1:
        raise ValueError(f"page_size must be at least 1, got {page_size}")
    return ListOptions(prefix=prefix, delimiter=delimiter, start_after=start_after, limit=page_size)
