"""Raises for options and operations that a backend does not support, before any I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trove_async import _names
from trove_async.errors import InvalidNameError, NotSupportedError
from trove_async.models import RECORDS
from trove_async.options import DeleteOptions, GetOptions, PutOptions

from .backends import Backend


def check_writable(backend: Backend, action: str) -> None:
    """Raise NotSupportedError if the backend refuses all writes.

    Args:
        backend: The backend.
        action: What would be written, for the message: ``"store an object"``.
    """
    if not backend.capabilities.writable:
        raise NotSupportedError(
            f"this backend is read-only, so it cannot {action}; nothing was done",
            backend=backend.name,
        )


def check_put(backend: Backend, key: str, options: PutOptions) -> None:
    """Raise if the backend refuses all writes, or would have to drop an option of this put.

    Raises:
        NotSupportedError: The backend is read-only, does not support an option, or the metadata is too
            large for it.
        InvalidNameError: The key is too long for the backend.
    """
    # Every put runs through this function, so it calls others only if they may raise.
    capabilities = backend.capabilities
    if not capabilities.writable:
        check_writable(backend, "store an object")
    if capabilities.max_key_bytes < _names.MAX_KEY_BYTES:
        check_key_length(backend, key)
    for option, action in backend.refused_options:
        if getattr(options, option) not in (None, {}):
            raise _not_supported_error(backend, action)
    if options.metadata:
        check_metadata_size(backend, options.metadata)


def check_metadata_size(backend: Backend, metadata: Mapping[str, str]) -> None:
    """Raise NotSupportedError if the metadata is too large for the backend."""
    if not metadata:
        return
    max_bytes = backend.capabilities.max_metadata_bytes
    size = sum(len(name) + len(value.encode()) for name, value in metadata.items())
    if size > max_bytes:
        records = len(RECORDS) + len(metadata[RECORDS]) if RECORDS in metadata else 0
        advice = f", of which {records} are the records of the middlewares" if records else ""
        raise NotSupportedError(
            f"metadata on this backend must have at most {max_bytes} bytes, got {size}{advice}",
            backend=backend.name,
        )


def check_transformable(backend: Backend) -> None:
    """Raise NotSupportedError if how a body was transformed cannot be stored."""
    if not backend.capabilities.metadata:
        raise _not_supported_error(
            backend, "store a transformed object, because it stores no metadata"
        )


def check_addressable(backend: Backend, key: str) -> None:
    """Raise if the backend's protocol would resolve the key to a different one."""
    if not backend.capabilities.dot_segments and _names.has_dot_segment(key):
        raise InvalidNameError(
            "a key on this backend must not have a '.' or '..' segment",
            key=key,
            backend=backend.name,
        )


def check_key_length(backend: Backend, key: str) -> None:
    """Raise if the key is too long for this backend."""
    max_bytes = backend.capabilities.max_key_bytes
    if max_bytes < _names.MAX_KEY_BYTES and (size := len(key.encode())) > max_bytes:
        raise InvalidNameError(
            f"a key on this backend must have at most {max_bytes} bytes of UTF-8, got {size}",
            backend=backend.name,
        )


def check_version(backend: Backend, version_id: str | None) -> None:
    """Raise NotSupportedError for a version id on a backend without versions."""
    if version_id is not None and not backend.capabilities.versions:
        raise _not_supported_error(backend, "read a version by its id")


def check_get(backend: Backend, options: GetOptions) -> None:
    """Raise NotSupportedError if the backend would have to ignore an option."""
    capabilities = backend.capabilities
    if options.range is not None and not capabilities.ranges:
        raise _not_supported_error(backend, "read a range")
    conditional = options.if_match is not None or options.if_none_match is not None
    if conditional and not capabilities.get_conditions:
        raise _not_supported_error(backend, "read on a condition (if_match, if_none_match)")
    check_version(backend, options.version_id)


def check_delete(backend: Backend, options: DeleteOptions) -> None:
    """Raise NotSupportedError if the backend is read-only, or would have to ignore an option."""
    check_writable(backend, "delete an object")
    capabilities = backend.capabilities
    if options.if_match is not None and not capabilities.delete_if_match:
        raise _not_supported_error(backend, "delete on a condition (if_match)")
    if options.version_id is not None and not capabilities.versions:
        raise _not_supported_error(backend, "delete a version by its id")


def check_versions(backend: Backend, others: Sequence[Backend]) -> None:
    """Raise NotSupportedError if the backend has no versions. Name one of `others` that has them."""
    if not backend.capabilities.versions:
        error = _not_supported_error(backend, "list versions")
        alternative = next(
            (backend.name for backend in others if backend.capabilities.versions), None
        )
        if alternative is not None:
            error.message += f": use store.backend({alternative!r}).list_versions"
        raise error


def _not_supported_error(backend: Backend, action: str) -> NotSupportedError:
    return NotSupportedError(
        f"{backend.driver.name} cannot {action}; nothing was done", backend=backend.name
    )
