"""What is refused before any I/O, and what a user's arguments become on their way to a driver."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import _names
from ._copy import Changes
from .errors import ConfigError, InvalidNameError, NotSupportedError
from .models import (
    ByteRange,
    DeleteOptions,
    GetOptions,
    ListOptions,
    ObjectInfo,
    PutOptions,
    Timeout,
)
from .pool import BufferPool
from .retry import RetryPolicy
from .router import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._backends import Backend
    from .driver import AsyncDriver


def store_backends(
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


def store_options(
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


def progress(callback: object) -> None:
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
    if_none_match: str | None = None,
    if_match: str | ObjectInfo | None = None,
    write_id: str | None = None,
) -> PutOptions:
    """Check a put's options by themselves, and pack them.

    Raises:
        InvalidNameError: A value that no header can carry, or a metadata name of our own.
        ValueError: A negative size, or an ``if_none_match`` other than ``"*"``.
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
    _names.check_header("storage_class", storage_class)
    return PutOptions(
        size=size,
        content_type=content_type,
        metadata={} if metadata is None else checked_metadata(metadata),
        tags={} if tags is None else _checked_tags(tags),
        storage_class=storage_class,
        cache_control=cache_control,
        content_disposition=content_disposition,
        content_encoding=content_encoding,
        if_match=etag_of(if_match),
        if_none_match=if_none_match,
        write_id=write_id,
    )


def changes(
    metadata: Mapping[str, str] | None,
    storage_class: str | None,
    if_match: str | ObjectInfo | None,
    if_none_match: str | None,
    write_id: str,
) -> Changes:
    """Check the options of a copy by themselves, and pack them."""
    checked = put_options(
        metadata=metadata,
        storage_class=storage_class,
        if_match=if_match,
        if_none_match=if_none_match,
    )
    return Changes(
        metadata=None if metadata is None else checked.metadata,
        storage_class=storage_class,
        if_match=checked.if_match,
        if_none_match=if_none_match,
        write_id=write_id,
    )


def checked_metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Check user metadata, and put its names in lower case, as HTTP services do."""
    metadata = _checked_mapping("metadata", metadata)
    if not metadata:
        return {}
    _names.check_metadata(metadata)
    lowered = {name.lower(): value for name, value in metadata.items()}
    if len(lowered) < len(metadata):
        raise InvalidNameError("two metadata names differ by case only, which HTTP does not keep")
    return lowered


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
        ValueError: It names no version: ``"*"`` means something else on every service.
    """
    if condition is None:
        return None
    etag = condition.etag if isinstance(condition, ObjectInfo) else condition
    _names.check_text("an etag", etag)
    _names.check_header("an etag", etag)
    if etag in {"", "*"}:
        raise ValueError(f"an etag names one version, {etag!r} does not: use ObjectInfo.etag")
    return etag


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
            raise _refused(backend, what)
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


def read_limit(limit: int | None) -> None:
    """Check how many bytes a read may return."""
    if limit is None:
        return
    if not isinstance(limit, int):
        raise TypeError(f"limit is an int, of bytes, not {type(limit).__name__}")
    if limit < 0:
        raise ValueError(f"limit is not negative, {limit} is")


def check_get(backend: Backend, options: GetOptions) -> None:
    """Refuse what the backend would have to ignore."""
    can = backend.capabilities
    if options.range is not None and not can.ranges:
        raise _refused(backend, "read a range")
    conditional = options.if_match is not None or options.if_none_match is not None
    if conditional and not can.get_conditions:
        raise _refused(backend, "read on a condition (if_match, if_none_match)")
    if options.version_id is not None and not can.versions:
        raise _refused(backend, "read a version by its id")


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
        raise _refused(backend, "delete one version only (if_match)")
    if options.version_id is not None and not can.versions:
        raise _refused(backend, "delete a version by its id")


def check_versions(backend: Backend, others: Sequence[Backend]) -> None:
    """Refuse to list the versions of a backend that keeps none; say which of the others does."""
    if not backend.capabilities.versions:
        error = _refused(backend, "list versions")
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


def _refused(backend: Backend, what: str) -> NotSupportedError:
    return NotSupportedError(
        f"{backend.driver.name} cannot {what}; nothing was done", backend=backend.name
    )
