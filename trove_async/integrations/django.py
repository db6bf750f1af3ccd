"""A storage backend for Django, over the blocking facade.

In the settings::

    STORAGES = {
        "default": {
            "BACKEND": "trove_async.integrations.django.TroveStorage",
            "OPTIONS": {"url": "s3://eu-central-1/media-bucket", "bucket": "media"},
        },
        "staticfiles": {
            "BACKEND": "trove_async.integrations.django.TroveManifestStorage",
            "OPTIONS": {"store": "project.storage.make_store", "bucket": "static", "base_url": "https://cdn.example/"},
        },
    }

Each process starts its own store when it first uses one, so servers that fork, such as gunicorn with
``--preload``, need no hooks. Storages with the same `url`, `config` or `store` share one store.
"""

from __future__ import annotations

import io
import os
import posixpath
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, cast
from urllib.parse import urljoin

try:
    from django import conf  # not `settings`, which cannot be looked at before it is configured
    from django.contrib.staticfiles.storage import ManifestFilesMixin
    from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
    from django.core.files.base import File
    from django.core.files.storage import Storage
    from django.utils.deconstruct import deconstructible
    from django.utils.encoding import filepath_to_uri
    from django.utils.module_loading import import_string
    from django.utils.timezone import get_default_timezone, make_naive
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} requires an extra: pip install 'trove-async[django]'", name=error.name
    ) from error

from trove_async import ObjectExistsError, ObjectInfo, Prefix, blocking

if TYPE_CHECKING:
    AnyFile: TypeAlias = File[Any]
else:
    AnyFile = File  # generic only in its stubs

_MAX_EXPIRES: Final = 604_800
"""Seconds: seven days, the limit of S3 and GCS."""

_MODES: Final[Mapping[str, Literal["rb", "wb", "xb"]]] = {
    "r": "rb",
    "w": "wb",
    "x": "xb",
    "rb": "rb",
    "wb": "wb",
    "xb": "xb",
}
"""The modes of `TroveStorage.open`, and those of the binary files below them."""


@deconstructible
class TroveStorage(Storage):
    """Stores the files of Django in one bucket of a store. Pass one of `url`, `config` and `store`.

    Args:
        url: The URL of the store's default backend.
        config: The configuration of a store: a file or a mapping. See `trove_async.Trove.from_config`.
        store: The path of a function without arguments that returns a `blocking.Trove`, or the function.
        bucket: The bucket, which must exist.
        location: A prefix of all keys.
        base_url: The URL of the public bucket, for `url`. None: URLs are presigned.
        expires: Seconds that presigned URLs are valid, 1 to 604,800.
        file_overwrite: Whether `save` replaces a file of the same name. Otherwise it stores the file
            under an alternative name, also if another process stores the same name at the same time.

    Raises:
        ImproperlyConfigured: Not exactly one store is passed, or an option is not valid.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        store: str | Callable[[], blocking.Trove] | None = None,
        bucket: str,
        location: str = "",
        base_url: str | None = None,
        expires: float = 3600,
        file_overwrite: bool = False,
    ) -> None:
        sources = {"url": url, "config": config, "store": store}
        passed = [(kind, value) for kind, value in sources.items() if value is not None]
        if len(passed) != 1:
            raise ImproperlyConfigured("pass exactly one of url, config and store to TroveStorage")
        if not bucket:
            raise ImproperlyConfigured("TroveStorage needs a bucket")
        if not 1 <= expires <= _MAX_EXPIRES:
            raise ImproperlyConfigured(
                f"expires must be 1 to {_MAX_EXPIRES:,} seconds, got {expires!r}"
            )
        if {".", ".."} & set(location.split("/")):
            raise ImproperlyConfigured(f"location must not contain '.' or '..', got {location!r}")
        [self._source] = passed
        self._bucket = bucket
        self._location = location.strip("/")
        self._base_url = base_url if base_url is None or base_url.endswith("/") else f"{base_url}/"
        self._expires = expires
        self._file_overwrite = file_overwrite

    @property
    def bucket(self) -> blocking.Bucket:
        """The bucket, of the store of this process."""
        return self._started_store().bucket(self._bucket)

    def delete(self, name: str) -> None:
        """Delete a file. A file that does not exist is no error.

        Raises:
            ValueError: The name is empty.
        """
        if not name:
            raise ValueError("the name of the file to delete must not be empty")
        self.bucket.delete(self.key_of(name))

    def exists(self, name: str) -> bool:
        """Return whether a file exists. A directory that only contains files does not."""
        return self.bucket.exists(self.key_of(name))

    def is_name_available(self, name: str, max_length: int | None = None) -> bool:
        """Return whether `save` can use the name: it is free, or may be overwritten."""
        if self._file_overwrite:
            return max_length is None or len(name) <= max_length
        return super().is_name_available(name, max_length=max_length)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of the directories and of the files in a directory.

        A directory exists only while it contains files. Without any, both lists are empty.
        """
        prefix = self._path_of(path)
        prefix = f"{prefix}/" if prefix else ""
        directories, files = [], []
        for entry in self.bucket.list(prefix=prefix, delimiter="/"):
            if isinstance(entry, Prefix):
                directories.append(entry.prefix.removeprefix(prefix).rstrip("/"))
            elif entry.key != prefix:  # other tools store an empty object for a directory
                files.append(entry.key.removeprefix(prefix))
        return directories, files

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self.bucket.head(self.key_of(name)).size

    def url(self, name: str | None) -> str:
        """Return the URL of a file: below `base_url`, or presigned.

        Raises:
            NotSupportedError: There is no `base_url`, and the backend cannot presign URLs.
        """
        if self._base_url is None:
            return self.bucket.presign_get(self.key_of(name or ""), expires=self._expires)
        return urljoin(self._base_url, filepath_to_uri(self._path_of(name or "")))

    def get_modified_time(self, name: str) -> datetime:
        """Return the time when a file was stored: aware if USE_TZ is set, else in TIME_ZONE and naive."""
        modified = self.bucket.head(self.key_of(name)).last_modified
        return modified if conf.settings.USE_TZ else make_naive(modified, get_default_timezone())

    def _open(self, name: str, mode: str = "rb") -> TroveFile:
        return TroveFile(self, name, mode)

    def save(self, name: str | None, content: IO[Any], max_length: int | None = None) -> str:
        """Store a file, and return its name: an alternative one if `name` is taken.

        Raises:
            ObjectExistsError: Another process has stored the name meanwhile, and `content` cannot be read again,
                because it is not seekable.
        """
        while True:
            try:
                return super().save(name, content, max_length)
            except ObjectExistsError:
                if not _is_seekable(content):
                    raise

    def _save(self, name: str, content: AnyFile) -> str:
        bucket, key = self.bucket, self.key_of(name)
        may_replace = self._file_overwrite or not self._can_create_only(bucket, key)
        bucket.put(key, _body_of(content), if_none_match=None if may_replace else "*")
        return name

    def _can_create_only(self, bucket: blocking.Bucket, key: str) -> bool:
        backend = bucket.explain(key).backend
        return self._started_store().backends[backend].capabilities.put_if_none_match

    def key_of(self, name: str) -> str:
        """Return the key of the object that is a file's body.

        Raises:
            SuspiciousFileOperation: The name is absolute, leads out of the storage, or names its root.
        """
        key = self._path_of(name)
        if key == self._location:
            raise SuspiciousFileOperation(f"the name {name!r} names the root, which is no file")
        return key

    def _path_of(self, name: str) -> str:
        """Return the key of a file, or the prefix of a directory, without a slash at its end."""
        path = posixpath.normpath(str(name).replace("\\", "/"))
        if path.startswith(("/", "../")) or path == "..":
            raise SuspiciousFileOperation(f"the name {name!r} leads out of the storage")
        return posixpath.join(self._location, "" if path == "." else path).rstrip("/")

    def _started_store(self) -> blocking.Trove:
        return _stores.get(*self._source)


class TroveManifestStorage(ManifestFilesMixin, TroveStorage):  # type: ignore[misc]  # `url` has one more argument
    """A `TroveStorage` for static files, as Django's `ManifestStaticFilesStorage`. It overwrites files.

    Args:
        options: The arguments of `TroveStorage`.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as `TroveStorage`
        super().__init__(**{"file_overwrite": True, **options})


class TroveFile(AnyFile):
    """An open file of a `TroveStorage`. A written one is stored when it is closed.

    If ``with`` is left by an exception, a written file is not stored.

    Args:
        storage: The storage.
        name: The name of the file.
        mode: ``"rb"``, ``"wb"``, ``"xb"``, or without the ``b`` for text in UTF-8.

    Raises:
        ValueError: The mode is unknown.
        FileNotFoundError: The file to read does not exist.
    """

    def __init__(self, storage: TroveStorage, name: str, mode: str) -> None:
        self._storage = storage
        super().__init__(self._opened(name, mode), name)
        self.mode = mode

    def _opened(self, name: str, mode: str) -> Any:  # noqa: ANN401 - a binary or a text file
        if mode not in _MODES:
            raise ValueError(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
        self._blocks = ExitStack()
        bucket, key = self._storage.bucket, self._storage.key_of(name)
        self._binary = binary = bucket.open(key, _MODES[mode])
        self._blocks.enter_context(binary)
        if "b" in mode:
            return binary
        return self._blocks.enter_context(io.TextIOWrapper(binary, "utf-8"))

    def __reduce__(self) -> str:
        raise TypeError(f"the open file {self.name!r} cannot be pickled: open it in each process")

    @property
    def size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]  # it is cached in Django
        """The size of the file in bytes, or the number of bytes written so far."""
        info = self._binary.info
        return info.size if isinstance(info, ObjectInfo) else self._binary.tell()

    def open(self, mode: str | None = None, *_: Any, **__: Any) -> Self:  # noqa: ANN401 - as in Django
        """Go to the start of the file. If it is closed, open it again."""
        if not self.closed:
            self.seek(0)
        else:
            self.mode = mode or self.mode
            self.file = self._opened(str(self.name), self.mode)
        return self

    def close(self) -> None:
        """Close the file. Store it, if it was written."""
        self._blocks.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._blocks.__exit__(kind, error, traceback)


class _Stores:
    """The stores that this process has started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stores: dict[Hashable, blocking.Trove] = {}
        os.register_at_fork(after_in_child=self._forget)

    def get(self, kind: str, value: Any) -> blocking.Trove:  # noqa: ANN401 - an option of `TroveStorage`
        """Return the store of a source. Make and start it if this process has none."""
        source = (kind, value if isinstance(value, Hashable) else repr(value))
        with self._lock:
            store = self._stores.get(source)
            if store is None:
                store = _make_store(kind, value)
                if not store.started:
                    store.start()
                self._stores[source] = store
            return store

    def _forget(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it
        self._stores = {}


_stores: Final = _Stores()


def _make_store(kind: str, value: Any) -> blocking.Trove:  # noqa: ANN401 - as `_Stores.get`
    if kind == "url":
        return blocking.Trove(value)
    if kind == "config":
        constructor: Any = blocking.Trove
        return cast("blocking.Trove", constructor.from_config(value))
    make = import_string(value) if isinstance(value, str) else value
    return cast("blocking.Trove", make())


def _body_of(content: AnyFile) -> bytes | Iterator[bytes]:
    """Return the body of a put of a file: its bytes if they fit in one chunk."""
    chunks = (chunk.encode() if isinstance(chunk, str) else chunk for chunk in content.chunks())
    try:
        is_small = not content.multiple_chunks()
    except (AttributeError, io.UnsupportedOperation):  # its size is unknown
        is_small = False
    return b"".join(chunks) if is_small else chunks


def _is_seekable(content: object) -> bool:
    """Return whether a file can be read twice. Django takes one without this method for seekable."""
    is_seekable = getattr(content, "seekable", None)
    return is_seekable is None or bool(is_seekable())
