"""The arguments that all jobs have in common."""

from __future__ import annotations

import inspect
import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from trove_async import _names
from trove_async._settings import check_counts, check_numbers, check_switches
from trove_async.errors import ConfigError
from trove_async.store import Trove

from ._job import HasKey, Job
from ._report import ProgressCallback, Report

T = TypeVar("T", bound=HasKey)


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A checkpoint in a local file."""

    path: Path


@dataclass(frozen=True, slots=True)
class ObjectTarget:
    """A checkpoint in an object of the store."""

    bucket: str
    key: str


class Executor(Protocol):
    """Runs the key ranges of a job elsewhere, such as on a cluster."""

    async def run(self, job: Job[T], store: Trove, options: RunOptions) -> Report:
        """Run a job whose arguments have been checked, and return its report."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to run a job.

    Attributes:
        progress: The user's callback.
        concurrency: The maximum number of objects in flight.
        checkpoint: The place of the checkpoint. None: the job cannot be resumed.
        max_objects_per_second: The maximum rate of objects to process.
        max_bytes_per_second: The maximum rate of bytes.
        on: The executor. None: this process.
    """

    progress: ProgressCallback | None = None
    concurrency: int = 64
    checkpoint: FileTarget | ObjectTarget | None = None
    max_objects_per_second: float | None = None
    max_bytes_per_second: float | None = None
    on: Executor | None = None


def run_options(
    *,
    progress: ProgressCallback | None,
    concurrency: int,
    checkpoint: str | os.PathLike[str] | None,
    max_objects_per_second: float | None,
    max_bytes_per_second: float | None,
    on: Executor | None,
) -> RunOptions:
    """Check the common arguments, without any I/O.

    Raises:
        TypeError: An argument has the wrong type.
        ConfigError: A value is not valid.
    """
    if progress is not None:
        check_progress(progress)
    check_counts(concurrency=concurrency)
    for name, rate in (
        ("max_objects_per_second", max_objects_per_second),
        ("max_bytes_per_second", max_bytes_per_second),
    ):
        if rate is not None:
            check_numbers(**{name: rate})
            if not 0 < rate < math.inf:
                raise ConfigError(f"{name} must be a finite number greater than 0, got {rate}")
    if on is not None and not inspect.iscoroutinefunction(getattr(on, "run", None)):
        raise TypeError(f"on must be an executor, such as DaskExecutor, got {type(on).__name__}")
    return RunOptions(
        progress=progress,
        concurrency=concurrency,
        checkpoint=None if checkpoint is None else checkpoint_target(checkpoint),
        max_objects_per_second=max_objects_per_second,
        max_bytes_per_second=max_bytes_per_second,
        on=on,
    )


def checkpoint_target(checkpoint: str | os.PathLike[str]) -> FileTarget | ObjectTarget:
    """Return the place of a checkpoint: an `os.PathLike`, a ``file://`` URL, or ``BUCKET/KEY`` in the store.

    A str without ``://`` is never a path, so that ``state/job`` is not stored at an unexpected place.

    Raises:
        TypeError: It is neither a str nor an `os.PathLike` of a str.
        ConfigError: It is malformed, or no file can have the path.
    """
    if isinstance(checkpoint, os.PathLike):
        path = os.fspath(checkpoint)
        if not isinstance(path, str):
            raise TypeError("checkpoint must be a path of type str, got bytes")
        return _file_target(path)
    if not isinstance(checkpoint, str):
        raise TypeError(
            f"checkpoint must be an os.PathLike, a 'file://' URL or 'BUCKET/KEY', got {type(checkpoint).__name__}"
        )
    if "://" in checkpoint:
        return _file_target(_path_of_url(checkpoint))
    bucket, _, key = checkpoint.partition("/")
    if not bucket or not key:
        raise ConfigError(
            "checkpoint must be 'BUCKET/KEY' in the store if it is a str: pass a file as 'file:///path' or"
            " pathlib.Path"
        )
    _names.check(bucket, key)
    return ObjectTarget(bucket, key)


def check_progress(progress: object) -> None:
    """Raise TypeError if a callback for the progress cannot be called, or is async."""
    check_callback("progress", progress)


def check_callback(name: str, callback: object) -> None:
    """Raise TypeError if a callback cannot be called, or is async."""
    if not callable(callback):
        raise TypeError(f"{name} must be callable, got {type(callback).__name__}")
    function: object = callback
    while isinstance(function, partial):
        function = function.func
    for candidate in (function, getattr(function, "__call__", None)):  # noqa: B004 - the method itself is inspected
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise TypeError(
                f"{name} must be a plain function, got an async one, which would not be awaited"
            )


def _path_of_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError("checkpoint is a malformed URL") from error
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or len(parts.path) <= 1:
        raise ConfigError(
            "checkpoint must be a URL of the form 'file:///path', 'BUCKET/KEY' in the store, or an os.PathLike"
        )
    if "?" in url or "#" in url:
        raise ConfigError(
            "checkpoint must be a 'file://' URL without '?' and '#': write %3F and %23 if the path contains them"
        )
    return unquote(parts.path)


def _file_target(text: str) -> FileTarget:
    path = Path(text)
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ConfigError("the path of the checkpoint cannot be encoded") from error
    if b"\0" in encoded or not path.name:
        raise ConfigError("the path of the checkpoint must name a file, and contain no NUL")
    return FileTarget(path)


def check_target(store: Trove, bucket: str, prefix: str, *, dry_run: bool) -> None:
    """Check the store, the bucket and the prefix of a job, without any I/O.

    Raises:
        TypeError: An argument has the wrong type.
        InvalidNameError: A name is not allowed.
        ClosedError: The store is not open.
    """
    if not isinstance(store, Trove):
        raise TypeError(f"store must be a Trove, got {type(store).__name__}")
    _names.check_bucket(bucket)
    _names.check_prefix(prefix)
    check_switches(dry_run=dry_run)
    store._core.check_usable()  # noqa: SLF001 - jobs are part of the library
