"""What is refused before any I/O, and what a user's arguments become on their way to a driver."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from trove_async import _names
from trove_async.driver import AsyncDriver
from trove_async.errors import ConfigError, InvalidNameError, NotSupportedError
from trove_async.models import ByteRange, ObjectInfo, Timeout
from trove_async.options import DeleteOptions, GetOptions, ListOptions, PresignOptions, PutOptions
from trove_async.pool import BufferPool
from trove_async.retry import RetryPolicy
from trove_async.router import DEFAULT

from .backends import Backend
from .copy import CopyOverrides


def checked_backends(
    backends: Mapping[str, AsyncDriver | str] | None,
) -> Mapping[str, AsyncDriver | str]:
    """Check the names of a store's backends.

    Raises:
        TypeError: They are no names of drivers.
        ConfigError: One is empty, or taken.
    """
    if backends is None:
        return {}
    if not isinstance(backends, Mapping):
        raise TypeError(
            f"backends maps names to drivers or URLs, {type(backends).__name__} does not"
        )
    for name in backends:
        if not isinstance(name, str):
            raise TypeError(f"a backend's name is a str, not {type(name).__name__}")
        if not name:
            raise ConfigError("a backend's name is empty, which routes take for no answer")
        if name == DEFAULT:
            raise ConfigError(f"{DEFAULT!r} names the store's first argument: choose another name")
    return backends


def check_store_options(
    pool: BufferPool | None,
    retry: RetryPolicy | None,
    timeout: Timeout | None,
    create_missing: object,
) -> None:
    """Check what a store is made with, here rather than at its first use.

    Raises:
        TypeError: A value of another type.
        ConfigError: `create_missing` is none of its three.
    """
    for name, value, wanted in (
        ("pool", pool, BufferPool),
        ("retry", retry, RetryPolicy),
        ("timeout", timeout, Timeout),
    ):
        if value is not None and not isinstance(value, wanted):
            raise TypeError(f"{name} is a {wanted.__name__}, not {type(value).__name__}")
    if not (isinstance(create_missing, bool) or create_missing == "auto"):
        raise ConfigError(
            f'create_missing_buckets is True, False or "auto", not {create_missing!r}'
        )


def check_progress(callback: object) -> None:
    """Check a callback while nothing is stored yet."""
    if callback is None:
        return
    if inspect.iscoroutinefunction(callback):
        raise TypeError("progress is called, not awaited: give a plain function")
    if not callable(callback):
        raise TypeError(
            f"progress is called with (done, total), which {type(callback).__name__} cannot be"
        )


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
    """Check a put's options by themselves, and pack them.

    Raises:
        InvalidNameError: A value that no header can carry, or a metadata name of our own.
        ValueError: A negative size, an ``if_none_match`` other than ``"*"``, or `expires` is a
            naive datetime.
    """
    if size is not None:
        if not isinstance(size, int):
            raise TypeError(f"size is the body's bytes, an int, not {type(size).__name__}")
        if size < 0:
            raise ValueError(f"size is the body's bytes, not {size}")
    if if_none_match is not None:
        if if_none_match != "*":
            raise ValueError('if_none_match of a put is "*": create only, never replace')
        if if_match is not None:
            raise ValueError("if_match replaces a version, if_none_match creates: not both")
    _names.check_header("content_type", content_type)
    _names.check_header("cache_control", cache_control)
    _names.check_header("content_disposition", content_disposition)
    _names.check_header("content_encoding", content_encoding)
    _names.check_header("content_language", content_language)
    _names.check_header("storage_class", storage_class)
    return PutOptions(
        size=size,
        content_type=content_type or None,
        metadata={} if metadata is None else checked_metadata(metadata),
        tags={} if tags is None else _checked_tags(tags),
        storage_class=storage_class or None,
        cache_control=cache_control or None,
        content_disposition=content_disposition or None,
        content_encoding=content_encoding or None,
        content_language=content_language or None,
        expires=None if expires is None else _whole_seconds("expires", expires),
        if_match=etag_of(if_match),
        if_none_match=if_none_match,
        write_id=write_id,
    )


def _whole_seconds(name: str, moment: datetime) -> datetime:
    """Return a moment in UTC without its fraction of a second: all that an HTTP date can hold."""
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
    """Check the options of a copy by themselves, and pack them."""
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
    """Check user metadata, and put its names in lower case, as HTTP services do."""
    metadata = _checked_mapping("metadata", metadata)
    if not metadata:
        return {}
    _names.check_metadata(metadata)
    lowered = {name.lower(): value for name, value in metadata.items()}
    if len(lowered) < len(metadata):
        seen: dict[str, str] = {}
        for name in metadata:
            other = seen.setdefault(name.lower(), name)
            if other != name:
                raise InvalidNameError(
                    f"metadata names {other!r} and {name!r} differ by case only, which HTTP does"
                    " not keep"
                )
    return lowered


def carried_over(options: PutOptions) -> PutOptions:
    """Check what a copy takes from its source as if a user had given it to put.

    Services keep what others refuse: Cloud Storage takes any text for the name of metadata.

    Args:
        options: What the destination is to have.

    Returns:
        The same, with the names of metadata in lower case.

    Raises:
        InvalidNameError: A name or a value that no header can carry, or a name of our own.
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
            _names.check_text("a tag", text)
            _names.check_header("a tag", text)
    return dict(tags)


def _checked_mapping(what: str, mapping: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{what} maps names to values, {type(mapping).__name__} does not")
    return mapping


def etag_of(condition: str | ObjectInfo | None) -> str | None:
    """Return the etag that a user named, or had in hand.

    Raises:
        TypeError: It is neither an etag nor an ObjectInfo.
        InvalidNameError: No header can carry it.
        ValueError: It names no version: ``"*"`` means something else on every service, a weak etag
            may stay when the content changes, and some services give none.
    """
    if condition is None:
        return None
    if isinstance(condition, ObjectInfo):
        etag = condition.etag
        if etag is None:
            raise ValueError(
                f"object {condition.key!r} has no etag to make a condition of: its service gives no"
                " strong validator"
            )
    else:
        etag = condition
    _names.check_text("an etag", etag)
    _names.check_header("an etag", etag)
    if etag in {"", "*"} or etag.startswith("W/"):
        raise ValueError(f"an etag names one version, {etag!r} does not: use ObjectInfo.etag")
    return etag


_HEADERS = (
    "content_type",
    "cache_control",
    "content_disposition",
    "content_encoding",
    "content_language",
)
"""What is kept with an object as a header's value, word by word."""

_PUT_NEEDS = (
    ("if_none_match", "put_if_none_match", "create only (if_none_match)"),
    ("if_match", "put_if_match", "replace one version only (if_match)"),
    ("metadata", "metadata", "keep metadata"),
    ("tags", "tags", "keep tags"),
    ("storage_class", "storage_class", "choose a storage class"),
    ("content_type", "headers", "keep content_type"),
    ("cache_control", "headers", "keep cache_control"),
    ("content_disposition", "headers", "keep content_disposition"),
    ("content_encoding", "headers", "keep content_encoding"),
    ("content_language", "headers", "keep content_language"),
    ("expires", "expires", "keep expires"),
)
"""What options a backend may lack: the option, the capability, and what it is in words."""


def check_put(backend: Backend, key: str, options: PutOptions) -> None:
    """Refuse what the backend would have to drop.

    Raises:
        NotSupportedError: It cannot honour one of the options.
        InvalidNameError: The key is longer than it takes.
    """
    check_key_length(backend, key)
    can = backend.capabilities
    for option, capability, what in _PUT_NEEDS:
        if not getattr(can, capability) and getattr(options, option) not in (None, {}):
            raise _not_supported(backend, what)
    if options.metadata:
        size = sum(len(name) + len(value.encode()) for name, value in options.metadata.items())
        if size > can.max_metadata_bytes:
            raise NotSupportedError(
                f"the metadata has {size} bytes, and the backend keeps {can.max_metadata_bytes}",
                backend=backend.name,
            )


def check_addressable(backend: Backend, key: str) -> None:
    """Refuse a key that the backend's protocol resolves to another one, or to no object at all."""
    if not backend.capabilities.dot_segments and _names.has_dot_segment(key):
        raise InvalidNameError(
            "a key may have no '.' or '..' segment on this backend", key=key, backend=backend.name
        )


def check_key_length(backend: Backend, key: str) -> None:
    """Refuse a key that is longer than the backend takes, though others take it."""
    most = backend.capabilities.max_key_bytes
    if most < _names.MAX_KEY_BYTES and len(key.encode()) > most:
        raise InvalidNameError(
            f"a key may have {most} bytes of UTF-8 on this backend", backend=backend.name
        )


def get_options(
    *,
    range: ByteRange | tuple[int, int | None] | None,
    version_id: str | None,
    if_match: str | ObjectInfo | None,
    if_none_match: str | ObjectInfo | None,
) -> GetOptions:
    """Check a get's options by themselves, and pack them."""
    _names.check_header("version_id", version_id)
    return GetOptions(
        range=None if range is None else ByteRange.of(range),
        version_id=version_id,
        if_match=etag_of(if_match),
        if_none_match=etag_of(if_none_match),
    )


def check_read_limit(limit: int | None) -> None:
    """Check how many bytes a read may return."""
    if limit is None:
        return
    if not isinstance(limit, int):
        raise TypeError(f"limit is an int, of bytes, not {type(limit).__name__}")
    if limit < 0:
        raise ValueError(f"limit is not negative, {limit} is")


def check_version(backend: Backend, version_id: str | None) -> None:
    """Refuse the id of a version on a backend that has none."""
    if version_id is not None and not backend.capabilities.versions:
        raise _not_supported(backend, "read a version by its id")


def check_get(backend: Backend, options: GetOptions) -> None:
    """Refuse what the backend would have to ignore."""
    can = backend.capabilities
    if options.range is not None and not can.ranges:
        raise _not_supported(backend, "read a range")
    conditional = options.if_match is not None or options.if_none_match is not None
    if conditional and not can.get_conditions:
        raise _not_supported(backend, "read on a condition (if_match, if_none_match)")
    check_version(backend, options.version_id)


_MAX_EXPIRES = 7 * 24 * 3600.0  # AWS Signature Version 4, "X-Amz-Expires"; GCS V4 signing: the same


def presign_options(
    expires: float,
    *,
    version_id: str | None = None,
    response_content_type: str | None = None,
    response_content_disposition: str | None = None,
    content_type: str | None = None,
) -> PresignOptions:
    """Check the options of a signed URL by themselves, and pack them.

    Raises:
        InvalidNameError: A value that no header can carry.
        ValueError: `expires` is not between 1 second and 7 days.
    """
    if not isinstance(expires, (int, float)):
        raise TypeError(f"expires is a number of seconds, not {type(expires).__name__}")
    if not 1 <= expires <= _MAX_EXPIRES:
        raise ValueError(f"expires is 1 to {_MAX_EXPIRES:.0f} seconds, not {expires}")
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
    """Check a delete's options by themselves, and pack them."""
    _names.check_header("version_id", version_id)
    return DeleteOptions(version_id=version_id, if_match=etag_of(if_match), write_id=write_id)


def check_delete(backend: Backend, options: DeleteOptions) -> None:
    """Refuse what the backend would have to ignore."""
    can = backend.capabilities
    if options.if_match is not None and not can.delete_if_match:
        raise _not_supported(backend, "delete one version only (if_match)")
    if options.version_id is not None and not can.versions:
        raise _not_supported(backend, "delete a version by its id")


def check_versions(backend: Backend, others: Sequence[Backend]) -> None:
    """Refuse to list the versions of a backend that keeps none; say which of the others does."""
    if not backend.capabilities.versions:
        error = _not_supported(backend, "list versions")
        able = next((one.name for one in others if one.capabilities.versions), None)
        if able is not None:
            error.message += f": store.backend({able!r}).list_versions asks only one that can"
        raise error


def list_options(
    *,
    prefix: str,
    delimiter: str | None,
    start_after: str | None,
    cursor: str | None,
    page_size: int,
) -> ListOptions:
    """Check a listing's options by themselves, and pack all but the cursor.

    Raises:
        InvalidNameError: No key can begin, or be divided, so.
        ValueError: A page of no entries, an empty delimiter, or two places to start.
    """
    _names.check_prefix(prefix)
    if delimiter is not None:
        _names.check_text("a delimiter", delimiter)
        if not delimiter:
            raise ValueError("a delimiter has at least one character; None: no delimiter")
    if start_after is not None:
        _names.check_text("start_after", start_after)
    if cursor is not None:
        if not isinstance(cursor, str):
            raise TypeError(f"a cursor is a str, not {type(cursor).__name__}")
        if start_after is not None:
            raise ValueError("a cursor says where to start: give no start_after beside it")
    if not isinstance(page_size, int):
        raise TypeError(f"page_size is an int, not {type(page_size).__name__}")
    if page_size < 1:
        raise ValueError(f"page_size is at least 1, not {page_size}")
    return ListOptions(prefix=prefix, delimiter=delimiter, start_after=start_after, limit=page_size)


def _not_supported(backend: Backend, what: str) -> NotSupportedError:
    return NotSupportedError(
        f"{backend.driver.name} cannot {what}; nothing was done", backend=backend.name
    )
