"""The public function: checks arguments, and puts the parts of a sync together."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import (
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,  # noqa: F401 - the annotations that `SyncReport` inherits are resolved here
)
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from trove_async import _names
from trove_async._concurrency import in_thread
from trove_async._settings import check_switches
from trove_async.bucket import Bucket
from trove_async.driver import AsyncDriver, Layer, places_of
from trove_async.errors import ConfigError, InvalidNameError, ObjectChangedError
from trove_async.jobs._options import RunOptions, check_callback, run_options
from trove_async.jobs._report import (
    Finding,  # noqa: F401 - as above
    JobProgress,
    Outcome,
    ProgressCallback,
    Report,
    Tally,
    call_back,
)

from .buckets import may_transform, store_of
from .copies import Copy
from .direction import SyncChange
from .downloads import Download
from .entries import FileEntry, ObjectEntry
from .filters import Filters
from .rules import COMPARISONS, Comparison
from .run import SyncRun
from .sides import BucketSide, DirectorySide, NothingToCompare
from .source_files import SourceFiles
from .target_files import TargetDirectory
from .uploads import Upload
from .walk import Walk, WalkBatch

Place: TypeAlias = str | os.PathLike[str] | Bucket
"""One side of a sync: a directory, or a bucket of a store."""

_PROGRESS_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport(Report):
    """The result of a sync.

    Attributes:
        deleted: The number of objects or files deleted at the target. They are part of `changed`.
    """

    deleted: int


async def sync(
    source: Place,
    target: Place,
    *,
    source_prefix: str = "",
    target_prefix: str = "",
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    delete: bool = False,
    allow_empty: bool = False,
    compare: Comparison = "size_and_time",
    follow_symlinks: bool = True,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
    concurrency: int = 64,
    max_objects_per_second: float | None = None,
    max_bytes_per_second: float | None = None,
    notify: Callable[[SyncChange], None] | None = None,
) -> SyncReport:
    """Make a directory or bucket equal to another one: transfer what differs, and delete what is left over.

    At least one side is a bucket. The sides are compared by their listings, so a sync without changes costs
    only these. A sync is idempotent: to resume one that was stopped, run it again. So it needs no
    checkpoint. Errors of single files and objects are collected in the report and do not stop it.

    **What has changed.** Sizes are always compared. With ``compare="size_and_time"`` also

    * upload: whether the file was changed after the object was stored. Where the listing contains the
      metadata, the recorded time is compared instead, exactly.
    * download: which version of the object the file contains. A sync records it in an extended attribute of the
      file (``user.trove.sync``), with the file's time: a file that was changed since is replaced. For a file
      without a record, and on systems without such attributes: whether the object was stored after the
      file was created, or got its time. If such a file has the time that is recorded with the object, it is
      not written again.
    * bucket to bucket: whether the source was stored after the target.

    A change that keeps the size is missed if it is older than the object that it should replace: a file that
    is replaced by an older one (``mv``, ``cp -p``), and a change within the time by which two clocks differ.
    On services with whole seconds (S3), a file that was changed in the second in which its object was stored is
    compared with the object's MD5 if the etag is one, and is otherwise stored again.
    ``compare="size"`` compares nothing else. ``compare="checksum"`` compares the contents by the checksum in
    the listing, else by the one in the metadata (a HEAD an object), else by reading the object; it reads
    every file that has the size of its object. ``compare="none"`` transfers everything; a target bucket is
    then listed only for `delete`.

    **Time.** The time of a file is stored as metadata ``mtime``, in seconds with a fraction, as rclone does,
    and set when the object is downloaded. An object without one gives its file its own time.

    **Files.** Symbolic links in a source are followed, except to a directory that contains the link. Special
    files are skipped and never opened. Names that are not UTF-8 are errors. A file that changes while it is
    read is read again, and never stored torn. Downloads are written to a temporary file and renamed, with the
    mode of a new file; neither an error nor a cancel leaves one behind, and a later sync removes those of a
    process that was killed. A sync never writes or deletes through a symbolic link below its target: a link is
    replaced, or is an error if it is a directory of a key. Keys that are no paths below the directory are
    errors: with a ``.``, ``..`` or empty segment, absolute, or with a folder that another key has as a file.
    Keys that end with ``/`` (folder markers) are skipped, and empty directories are not stored.

    **Memory.** Both sides are read in key order and merged, so neither is held. The names of a large directory,
    and the listing of a service without key order, are sorted in temporary files beyond 20,000 entries or 8 MiB.
    A download of an unordered listing begins when that is complete.

    **Middleware.** If the store transforms bodies, listings do not contain the sizes to compare. Then every
    object is headed.

    Args:
        source: A directory, or a bucket (`Trove.bucket`), which may be pinned to a backend.
        target: The same. A missing directory is created; a missing bucket is an error.
        source_prefix: The folder within the source's bucket. ``"photos"`` and ``"photos/"`` are the same.
        target_prefix: The folder within the target's bucket.
        include: Patterns of the paths to sync, relative to the directory or folder. None: all. They are those
            of `Route`: ``*`` does not cross ``/``, and ``**/*.jpg`` matches in all folders.
        exclude: Patterns of paths to leave out. They win over `include`, whatever the order. What is left out
            is neither transferred nor deleted.
        delete: Whether to delete at the target what the source lacks, and directories that become empty.
            Nothing is deleted before the source has been listed completely, nor if a file or directory of
            it could not be examined, or a link leads nowhere (a disk that is not mounted): the report names
            each as an error. If the source has nothing to sync, it is a ConfigError: a mistyped prefix and
            an empty mount point look like that.
        allow_empty: Whether `delete` may empty the target because the source has nothing to sync.
        compare: How to find out what has changed.
        follow_symlinks: Whether to follow symbolic links in a source directory. False: they are skipped.
        dry_run: Whether to change nothing. The report counts what a run would do.
        progress: Called with a `JobProgress` up to ten times a second.
        concurrency: The maximum number of concurrent transfers.
        max_objects_per_second: The maximum rate of transfers and deletions.
        max_bytes_per_second: The maximum rate of bytes.
        notify: Called with a `SyncChange` for every object or file that is transferred or deleted, fails, or
            would be changed by a run that is not dry. An exception that it raises ends the sync.

    Returns:
        The report. `Report.ok` is True if everything was transferred.

    Raises:
        TypeError: A side is neither a directory nor a bucket, or an argument has the wrong type.
        ConfigError: Both sides are directories, overlap in one bucket, or a value is not valid. Or the source
            has nothing to sync, and `delete` would empty the target.
        PatternError: A pattern is malformed.
        FileNotFoundError: The source directory does not exist.
        NotADirectoryError: A directory is something else.
        BucketNotFoundError: A bucket does not exist.
        TroveError: A listing failed, or 100 transfers in a row because a backend was unavailable.
        OSError: The directory itself cannot be listed.
        Exception: The progress callback raised it.
    """
    # 1. Check the arguments before any I/O.
    options = run_options(
        progress=progress,
        concurrency=concurrency,
        checkpoint=None,
        max_objects_per_second=max_objects_per_second,
        max_bytes_per_second=max_bytes_per_second,
        on=None,
    )
    check_switches(
        delete=delete, allow_empty=allow_empty, follow_symlinks=follow_symlinks, dry_run=dry_run
    )
    if compare not in COMPARISONS:
        raise ConfigError(
            f"compare must be one of {', '.join(map(repr, COMPARISONS))}, got {compare!r}"
        )
    if notify is not None:
        check_callback("notify", notify)
    filters = Filters(include, exclude)
    left = _checked("source", source, source_prefix)
    right = _checked("target", target, target_prefix)
    _check_pair(left, right)
    # 2. Run in the direction that follows from the sides.
    job = _Sync(
        left,
        right,
        filters,
        compare,
        options,
        delete=delete,
        allow_empty=allow_empty,
        follow=follow_symlinks,
        dry_run=dry_run,
        notify=notify,
    )
    return await job.run()


@dataclass(frozen=True, slots=True)
class _Directory:
    path: str


@dataclass(frozen=True, slots=True)
class _Folder:
    """A bucket and a prefix, which is empty or ends with a slash."""

    bucket: Bucket
    prefix: str


def _checked(name: str, place: Place, prefix: str) -> _Directory | _Folder:
    _names.check_prefix(prefix)
    if isinstance(place, Bucket):
        store_of(place)._core.check_usable()  # noqa: SLF001 - jobs are part of the library
        return _Folder(place, prefix if not prefix or prefix.endswith("/") else prefix + "/")
    if not isinstance(place, str | os.PathLike):
        raise TypeError(
            f"{name} must be a directory or store.bucket(…), got {type(place).__name__}"
        )
    path = os.fspath(place)
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a path of type str, got {type(path).__name__}")
    if "://" in path:
        raise ConfigError(
            f"{name} must be a directory or store.bucket(…), got a URL: open a Trove of it first"
        )
    if not path or "\0" in path:
        raise ConfigError(f"{name} must be the path of a directory, got {path!r}")
    if prefix:
        raise ConfigError(
            f"{name}_prefix is only for a bucket: pass the path of the subdirectory as {name}"
        )
    return _Directory(path)


def _check_pair(source: _Directory | _Folder, target: _Directory | _Folder) -> None:
    if isinstance(source, _Directory) and isinstance(target, _Directory):
        raise ConfigError(
            "one side of a sync must be a bucket, got two directories: use rsync, or open one of them as"
            " a Trove(LocalDriver(…))"
        )
    if isinstance(source, _Directory) or isinstance(target, _Directory):
        return
    if _is_nested(source, target) and _may_overlap(source, target):
        raise ConfigError(
            "source and target overlap: they are folders of one bucket, and one contains the other"
        )


def _check_roots(directory: str, folder: _Folder) -> None:
    """Raise ConfigError if a directory overlaps with the files of a local backend: a sync would delete these.

    Blocks, because relative roots depend on the current directory.
    """
    store = store_of(folder.bucket)
    drivers = store._core.backends  # noqa: SLF001 - jobs are part of the library
    for name in store.backends:
        for root in _roots(drivers.driver(name)):
            one, other = Path(os.path.abspath(directory)), Path(os.path.abspath(root))  # noqa: PTH100 - links are not resolved
            if other.is_relative_to(one) or one.is_relative_to(other / folder.bucket.name):
                raise ConfigError(
                    f"the directory {directory!r} overlaps with the files of the backend {name!r}, in {root!r}"
                )


def _roots(driver: AsyncDriver) -> Iterator[str]:
    """Iterate over the directories of the local drivers below a driver."""
    if isinstance(driver, Layer):
        for inner in driver.inner:
            yield from _roots(inner)
    root = getattr(driver, "root", None)
    if isinstance(root, str):
        yield root


def _is_nested(source: _Folder, target: _Folder) -> bool:
    return source.prefix.startswith(target.prefix) or target.prefix.startswith(source.prefix)


def _may_overlap(source: _Folder, target: _Folder) -> bool:
    """Return whether an object of one nested folder may be one of the other."""
    one, other = store_of(source.bucket), store_of(target.bucket)
    if one._core is not other._core:  # noqa: SLF001 - jobs are part of the library
        # Two stores may lead to one bucket.
        return not _places(source).isdisjoint(_places(target))
    if source.bucket.name != target.bucket.name:
        return False
    names = set(one.backends), set(other.backends)
    return bool(names[0] & names[1]) and (names[0] == names[1] or source.prefix != target.prefix)


def _places(folder: _Folder) -> set[Hashable]:
    """Return the physical places of an example object of a bucket on all backends of its store."""
    store = store_of(folder.bucket)
    drivers = store._core.backends  # noqa: SLF001 - jobs are part of the library
    return {
        place
        for name in store.backends
        for place in places_of(drivers.driver(name), folder.bucket.name, "x", written=True)
    }


Side: TypeAlias = _Directory | _Folder


def _name_of(side: Side) -> str:
    """Return a side for an error message."""
    if isinstance(side, _Directory):
        return f"the directory {side.path!r}"
    bucket = f"the bucket {side.bucket.name!r}"
    return f"the folder {side.prefix!r} of {bucket}" if side.prefix else bucket


async def _absolute(side: Side) -> Side:
    """Return the side. The path of a directory is absolute."""
    if isinstance(side, _Folder):
        return side
    return _Directory(await in_thread(os.path.abspath, side.path))


class _Sync:
    """One sync, whose arguments have been checked."""

    def __init__(
        self,
        source: Side,
        target: Side,
        filters: Filters,
        comparison: Comparison,
        options: RunOptions,
        *,
        delete: bool,
        allow_empty: bool,
        follow: bool,
        dry_run: bool,
        notify: Callable[[SyncChange], None] | None,
    ) -> None:
        self._source = source
        self._target = target
        self._filters = filters
        self._comparison = comparison
        self._options = options
        self._delete = delete
        self._allow_empty = allow_empty
        self._follow = follow
        self._dry_run = dry_run
        self._notify = notify
        self._tally = Tally()
        self._incomplete = False
        self._orphans: list[str] = []
        self._started_at = self._reported_at = float("-inf")
        sides = [side.bucket.name for side in (target, source) if isinstance(side, _Folder)]
        self._bucket_name = sides[0]

    async def run(self) -> SyncReport:
        self._started_at = asyncio.get_running_loop().time()
        # A later change of the working directory must not lead elsewhere.
        self._source = await _absolute(self._source)
        self._target = await _absolute(self._target)
        for directory, folder in ((self._source, self._target), (self._target, self._source)):
            if isinstance(directory, _Directory) and isinstance(folder, _Folder):
                await in_thread(_check_roots, directory.path, folder)
        self._report_progress(at_once=True)
        if isinstance(self._source, _Directory):
            assert isinstance(self._target, _Folder)  # noqa: S101 - checked by the caller
            deleted = await self._upload(self._source.path, self._target)
        elif isinstance(self._target, _Directory):
            deleted = await self._download(self._source, self._target.path)
        else:
            deleted = await self._copy(self._source, self._target)
        self._report_progress(at_once=True)
        return self._report(deleted)

    # -- directions --------------------------------------------------------------------------------------

    async def _upload(self, path: str, target: _Folder) -> int:
        await in_thread(_check_directory, path)
        walk = Walk(path, self._filters, follow=self._follow)
        run = SyncRun(
            DirectorySide(walk, self._add_source_batch),
            self._target_side(target, skip_markers=True),
            Upload(
                SourceFiles(path, follow=self._follow),
                target.bucket,
                target.prefix,
                self._comparison,
            ),
            self._options,
            dry_run=self._dry_run,
            delete=self._delete,
            allow_empty=self._allow_empty,
            source_name=_name_of(self._source),
            tally=self._tally,
            source_is_complete=lambda: not self._incomplete,
            report_progress=self._report_progress,
            notify=self._notify,
        )
        await run.run()
        return run.deleted

    async def _download(self, source: _Folder, path: str) -> int:
        directory = TargetDirectory(path, clear_folders=self._delete)
        exists = await in_thread(_check_target_directory, path)
        try:
            # The first file creates a missing directory, so that a missing bucket does not.
            walk = Walk(path, self._filters, follow=False, read_records=True)
            run = SyncRun(
                self._side(source, skip_markers=True, is_source=True),
                DirectorySide(walk, self._add_target_batch)
                if exists
                else NothingToCompare[FileEntry](),
                Download(
                    source.bucket, directory, SourceFiles(path, follow=False), self._comparison
                ),
                self._options,
                dry_run=self._dry_run,
                delete=self._delete,
                allow_empty=self._allow_empty,
                source_name=_name_of(source),
                tally=self._tally,
                source_is_complete=lambda: True,
                report_progress=self._report_progress,
                notify=self._notify,
            )
            await run.run()
            if self._orphans and not self._dry_run:
                await in_thread(directory.remove_orphans, self._orphans)
            return run.deleted
        finally:
            await in_thread(directory.close)

    async def _copy(self, source: _Folder, target: _Folder) -> int:
        run = SyncRun(
            self._side(source, skip_markers=False, is_source=True),
            self._target_side(target, skip_markers=False),
            Copy(source.bucket, target.bucket, target.prefix, self._comparison),
            self._options,
            dry_run=self._dry_run,
            delete=self._delete,
            allow_empty=self._allow_empty,
            source_name=_name_of(self._source),
            tally=self._tally,
            source_is_complete=lambda: True,
            report_progress=self._report_progress,
            notify=self._notify,
        )
        await run.run()
        return run.deleted

    def _target_side(
        self, folder: _Folder, *, skip_markers: bool
    ) -> BucketSide | NothingToCompare[ObjectEntry]:
        if self._comparison == "none" and not self._delete:
            return NothingToCompare()
        return self._side(folder, skip_markers=skip_markers, is_source=False)

    def _side(self, folder: _Folder, *, skip_markers: bool, is_source: bool) -> BucketSide:
        def skip(key: str) -> None:
            if is_source:
                self._tally.add(key, Outcome(result="skipped", reason="folder marker"))

        return BucketSide(
            folder.bucket,
            folder.prefix,
            self._filters,
            details=may_transform(folder.bucket),
            skip=skip if skip_markers else None,
        )

    # -- reports -----------------------------------------------------------------------------------------

    def _add_source_batch(self, batch: WalkBatch) -> None:
        for key, error in batch.problems:
            self._tally.add_error(key, error)
            if self._notify is not None:
                self._notify(SyncChange(action="upload", key=key, error=error))
        for key, reason in batch.skips:
            self._tally.add(key, Outcome(result="skipped", reason=reason))
        self._incomplete = self._incomplete or batch.incomplete

    def _add_target_batch(self, batch: WalkBatch) -> None:
        for key, error in batch.problems:
            if isinstance(error, InvalidNameError):  # no object can have this name
                self._tally.add(key, Outcome(result="skipped", reason="not a key"))
            elif not isinstance(error, ObjectChangedError):  # the sync itself replaces directories
                self._tally.add_error(key, error)
        if len(self._orphans) < _MAX_ORPHANS:
            self._orphans += batch.temporaries

    def _report_progress(self, *, at_once: bool = False) -> None:
        callback = self._options.progress
        if callback is None:
            return
        now = asyncio.get_running_loop().time()
        if not at_once and now - self._reported_at < _PROGRESS_SECONDS:
            return
        self._reported_at = now
        tally = self._tally
        call_back(
            callback,
            JobProgress(
                job="sync",
                bucket=self._bucket_name,
                examined=tally.examined,
                changed=tally.changed,
                unchanged=tally.unchanged,
                skipped=tally.skipped,
                failed=tally.failed,
                bytes=tally.bytes,
                ranges_done=0,
                ranges=1,
                elapsed=now - self._started_at,
            ),
        )

    def _report(self, deleted: int) -> SyncReport:
        tally = self._tally
        return SyncReport(
            job="sync",
            bucket=self._bucket_name,
            dry_run=self._dry_run,
            examined=tally.examined,
            changed=tally.changed,
            unchanged=tally.unchanged,
            skipped=tally.skipped,
            failed=tally.failed,
            bytes=tally.bytes,
            errors=tally.errors.public(),
            skips=tally.skips.public(),
            ranges=1,
            duration=asyncio.get_running_loop().time() - self._started_at,
            deleted=deleted,
        )


_MAX_ORPHANS = 10_000
"""Maximum number of temporary files of other processes that one sync removes."""


def _check_directory(path: str) -> None:
    """Raise FileNotFoundError or NotADirectoryError unless the path is a directory."""
    if not stat.S_ISDIR(Path(path).stat().st_mode):
        raise NotADirectoryError(f"the source {path!r} is not a directory")


def _check_target_directory(path: str) -> bool:
    """Return whether the directory exists. Raise NotADirectoryError if the path is something else."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(f"the target {path!r} is not a directory")
    return True
