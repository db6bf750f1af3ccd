"""The arguments, results and exceptions of obspec, for the store's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from obspec import Attributes, GetOptions, ListResult, ObjectMeta, PutMode, PutResult, exceptions

from trove_async import ByteRange, ObjectInfo, Prefix
from trove_async.errors import (
    AlreadyExistsError,
    InvalidNameError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    TroveError,
    UnauthenticatedError,
)

HEADERS: Final[Mapping[str, str]] = {
    "Content-Disposition": "content_disposition",
    "Content-Encoding": "content_encoding",
    "Content-Language": "content_language",
    "Content-Type": "content_type",
    "Cache-Control": "cache_control",
}
"""The arguments of `Trove.put` by the attributes that are not metadata."""

_EXCEPTIONS: Final[Mapping[type[TroveError], type[exceptions.BaseError]]] = {
    NotFoundError: exceptions.NotFoundError,
    AlreadyExistsError: exceptions.AlreadyExistsError,
    PreconditionFailedError: exceptions.PreconditionError,
    InvalidNameError: exceptions.InvalidPathError,
    NotSupportedError: exceptions.NotSupportedError,
    PermissionDeniedError: exceptions.PermissionDeniedError,
    UnauthenticatedError: exceptions.UnauthenticatedError,
}


@contextmanager
def translated(options: GetOptions | None = None) -> Iterator[None]:
    """Raise the exceptions that obspec names. Errors of other kinds pass unchanged.

    Args:
        options: The options of a get, which decide what a failed condition means.
    """
    try:
        yield
    except TroveError as error:
        for kind, named in _EXCEPTIONS.items():
            if isinstance(error, kind):
                is_unmodified = kind is PreconditionFailedError and (options or {}).get(
                    "if_none_match"
                )
                raise (exceptions.NotModifiedError if is_unmodified else named)(
                    str(error)
                ) from error
        raise


def get_arguments(options: GetOptions | None) -> dict[str, Any]:
    """Return the arguments of `Trove.get`.

    Raises:
        NotSupportedError: An option has no equivalent: it is refused, not dropped.
    """
    asked = {name: value for name, value in (options or {}).items() if value not in (None, False)}
    arguments = {
        "if_match": asked.pop("if_match", None),
        "if_none_match": asked.pop("if_none_match", None),
        "version_id": asked.pop("version", None),
        "range": _range_option(asked.pop("range", None)),
    }
    if asked:
        raise NotSupportedError(f"a get cannot honour the options {', '.join(sorted(asked))}")
    return arguments


def _range_option(asked: Any) -> ByteRange | None:  # noqa: ANN401 - one of the types of obspec
    if asked is None:
        return None
    if not isinstance(asked, Mapping):
        start, end = asked
        return ByteRange(start, end)
    return ByteRange.last(asked["suffix"]) if "suffix" in asked else ByteRange(asked["offset"])


def byte_range(start: int, end: int | None, length: int | None) -> ByteRange:
    if (end is None) == (length is None):
        raise ValueError("pass either the end or the length of a range")
    return ByteRange(start, start + length if length is not None else end)


def byte_ranges(
    starts: Sequence[int], ends: Sequence[int] | None, lengths: Sequence[int] | None
) -> Sequence[ByteRange]:
    if (ends is None) == (lengths is None):
        raise ValueError("pass either the ends or the lengths of the ranges")
    if ends is None:
        ends = [start + length for start, length in zip(starts, lengths or (), strict=True)]
    return [ByteRange(start, end) for start, end in zip(starts, ends, strict=True)]


def put_arguments(attributes: Attributes | None, mode: PutMode | None) -> dict[str, Any]:
    """Return the arguments of `Trove.put` for obspec's attributes and mode."""
    arguments: dict[str, Any] = {"metadata": {}}
    for name, value in (attributes or {}).items():
        if name in HEADERS:
            arguments[HEADERS[name]] = value
        else:
            arguments["metadata"][name] = value
    if mode == "create":
        arguments["if_none_match"] = "*"
    elif isinstance(mode, Mapping):
        if mode.get("e_tag") is None:
            raise NotSupportedError("an update needs the e_tag of the version that it replaces")
        arguments["if_match"] = mode["e_tag"]
    elif mode not in {None, "overwrite"}:
        raise ValueError(f"mode must be 'create', 'overwrite' or a version, got {mode!r}")
    return arguments


def directory(prefix: str | None) -> str:
    """Return the prefix of the keys in a directory. obspec compares whole segments."""
    return f"{prefix.rstrip('/')}/" if prefix else ""


def meta(info: ObjectInfo) -> ObjectMeta:
    return {
        "path": info.key,
        "last_modified": info.last_modified,
        "size": info.size,
        "e_tag": info.etag,
        "version": info.version_id,
    }


def result(info: ObjectInfo) -> PutResult:
    return {"e_tag": info.etag, "version": info.version_id}


def separated(entries: Sequence[ObjectInfo | Prefix]) -> ListResult[Sequence[ObjectMeta]]:
    return {
        "common_prefixes": [
            entry.prefix.rstrip("/") for entry in entries if isinstance(entry, Prefix)
        ],
        "objects": [meta(entry) for entry in entries if isinstance(entry, ObjectInfo)],
    }
