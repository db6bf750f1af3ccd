"""What the arguments of commands name: local paths, objects in a store, standard input and output."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

from trove_async.bucket import Bucket
from trove_async.drivers import address_from_url
from trove_async.drivers._urls import GCS_URL_OPTIONS, S3_URL_OPTIONS, is_region
from trove_async.errors import ConfigError
from trove_async.store import Trove

if TYPE_CHECKING:
    from trove_async.driver import AsyncDriver
    from trove_async.jobs._limits import RateLimit

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WILDCARD: Final = re.compile(r"[*?\[]")
_OPTIONS: Final = re.compile(r"\?((?:[a-z_]+=[^&]*)(?:&[a-z_]+=[^&]*)*)")
"""Options at the end of a URL. A ``?`` that no option follows is part of the key."""

_OPTION_NAMES: Final = S3_URL_OPTIONS | GCS_URL_OPTIONS
"""The options with which a query can begin. Other text after a ``?`` belongs to the key."""

_EXPLICIT_PATHS: Final = ("/", "./", "../", "~")


@dataclass(frozen=True, slots=True)
class Stream:
    """Standard input or output."""

    def __str__(self) -> str:
        return "-"


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A local file or directory.

    Attributes:
        path: The path.
        is_folder: Whether the argument ends with a slash, so that it names a directory.
    """

    path: str
    is_folder: bool = False

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Object:
    """A bucket, a folder or an object in a store.

    Attributes:
        store: The store, or a handle that is pinned to a backend.
        bucket_name: The bucket; ``""``: all buckets.
        key: The key, or the start of keys.
        label: What precedes the bucket where this is shown, such as ``s3://``.
        owner: The store that must be open.
    """

    store: Trove = field(repr=False)
    bucket_name: str
    key: str
    label: str
    owner: Trove = field(repr=False)

    @property
    def bucket(self) -> Bucket:
        """The handle on the bucket."""
        if not self.bucket_name:
            raise ConfigError(f"{self} must name a bucket")
        return self.store.bucket(self.bucket_name)

    @property
    def is_folder(self) -> bool:
        """Whether this is a bucket or a folder by its name."""
        return not self.key or self.key.endswith("/")

    def named(self, key: str) -> str:
        """Return the name of an object of the same bucket, as an argument would name it."""
        return f"{self.label}{self.bucket_name}/{key}"

    def at(self, key: str) -> Object:
        """Return another object of the same bucket."""
        return replace(self, key=key)

    def __str__(self) -> str:
        return self.named(self.key) if self.key else f"{self.label}{self.bucket_name}"


Place: TypeAlias = Stream | LocalPath | Object


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The options that say where buckets are.

    Attributes:
        config: The path of a configuration; None: arguments are URLs.
        backend: The backend of the configuration that is used alone.
        endpoint_url: The URL of the service, for URLs.
        region: The region, for ``s3`` URLs.
        profile: The profile of the SDK, for ``s3`` URLs.
        limit_rate: The maximum number of bytes a second of all transfers.
        resume: Whether interrupted uploads are kept and continued, for ``s3`` URLs.
    """

    config: str | None = None
    backend: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    limit_rate: float | None = None
    resume: bool = False


class Places:
    """Finds out what arguments name. Buckets of one service share a store."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._configured: Trove | None = None
        self._services: dict[tuple[str, str, str], Trove] = {}
        self._directories: dict[str, Trove] = {}
        self._rate: RateLimit | None = None
        if connection.backend is not None and connection.config is None:
            raise ConfigError("--backend names a backend of a configuration: pass --config as well")

    def parse(self, text: str) -> Place:
        """Return what an argument names. Does no I/O but reading the configuration.

        Raises:
            ConfigError: It names nothing, or the configuration is not valid.
        """
        if text == "-":
            return Stream()
        match = _SCHEME.match(text)
        if match is None:
            is_path = text.startswith(_EXPLICIT_PATHS) or text in {".", ".."}
            if self._connection.config is None or is_path:
                return _local_path(text)
            return self._in_configured(text, "")
        scheme, rest = match[1].lower(), text[match.end() :]
        if scheme in {"file", "local"}:
            if not rest.startswith("/") and scheme == "file":
                raise ConfigError(f"{text}: write file:///PATH, or the path alone")
            return _local_path(rest)
        if scheme == "trove":
            return self._in_configured(rest, "trove://")
        if scheme in {"s3", "gcs", "gs"}:
            return self._in_service(scheme, rest)
        raise ConfigError(
            f"{scheme}:// is not known here: use s3://, gcs://, file:// or a path, or a backend of a"
            " configuration with --config"
        )

    def readable(self, place: Place) -> Object:
        """Return a place as an object or folder of a store. A local path becomes one of a read-only store.

        Raises:
            ConfigError: It is standard input.
        """
        if isinstance(place, Stream):
            raise ConfigError("standard input cannot be listed: name a bucket, an object or a path")
        if isinstance(place, Object):
            return place
        path = Path(os.path.abspath(place.path))  # noqa: PTH100 - links are not resolved
        if path == path.parent:
            raise ConfigError("the root directory cannot be listed: name a directory in it")
        is_folder = place.is_folder or path.is_dir()
        # The directory is a bucket, in a store of the directory that contains it.
        directory = path if is_folder else path.parent
        parent = str(directory.parent)
        if parent not in self._directories:
            from trove_async.drivers import LocalDriver  # noqa: PLC0415 - few commands need it
            from trove_async.layers import ReadOnly  # noqa: PLC0415

            self._directories[parent] = Trove(ReadOnly(LocalDriver(parent, mkdir=False)))
        store = self._directories[parent]
        label = f"{parent.rstrip('/')}/"
        return Object(store, directory.name, "" if is_folder else path.name, label, store)

    def _in_configured(self, text: str, label: str) -> Object:
        if self._connection.config is None:
            raise ConfigError(
                "this needs a configured store: pass --config FILE, or name a URL such as s3://BUCKET"
            )
        if self._configured is None:
            self._configured = self._from_config(self._connection.config)
        store = self._configured
        handle = (
            store if self._connection.backend is None else store.backend(self._connection.backend)
        )
        bucket, _, key = text.partition("/")
        return Object(handle, bucket, key, label, store)

    def _from_config(self, config: str) -> Trove:
        if self._connection.limit_rate is None:
            return Trove.from_config(config)
        from trove_async.config import load  # noqa: PLC0415 - pydantic is slow to import

        arguments = load(config).arguments()
        arguments["default"] = self._throttled(arguments["default"])
        arguments["backends"] = {
            name: self._throttled(driver) for name, driver in arguments["backends"].items()
        }
        return Trove(**arguments)

    def _throttled(self, driver: AsyncDriver) -> AsyncDriver:
        if self._connection.limit_rate is None:
            return driver
        from trove_async.jobs._limits import RateLimit  # noqa: PLC0415 - few commands need it

        from ._throttle import Throttled  # noqa: PLC0415

        if self._rate is None:
            self._rate = RateLimit(self._connection.limit_rate)
        return Throttled(driver, self._rate)

    def _in_service(self, scheme: str, rest: str) -> Object:
        # 1. Take options, credentials and a region from the URL. The key is taken as it is.
        location, options = _split_options(rest)
        first, _, tail = location.partition("/")
        authority, bucket, key = "", first, tail
        if scheme == "s3":
            credentials, at, host = first.rpartition("@")
            if is_region(host):
                authority = f"{first}/"
                bucket, _, key = tail.partition("/")
            else:
                authority, bucket = credentials + at, host
            if ":" in bucket:  # no part of a secret may become the name of a bucket
                raise ConfigError(
                    "invalid s3:// URL: write '/' in a secret as %2F; a bucket must not contain ':'"
                )
        # 2. Use one store for all buckets of the same service.
        query = "&".join(
            [*options, *self._flags(scheme, options, has_region=authority.endswith("/"))]
        )
        service = (scheme, authority, query)
        if service not in self._services:
            driver = _driver(scheme, authority, bucket, query)
            self._services[service] = Trove(self._throttled(driver))
        store = self._services[service]
        return Object(store, bucket, key, f"{scheme}://", store)

    def _flags(self, scheme: str, options: Sequence[str], *, has_region: bool) -> list[str]:
        """Return the options of the command that a URL does not have itself."""
        flags = {"endpoint": self._connection.endpoint_url}
        if scheme == "s3":
            flags |= {"region": self._connection.region, "profile": self._connection.profile}
            if self._connection.resume:
                flags["resume_uploads"] = str(_cache_directory() / "uploads")
        given = {option.partition("=")[0] for option in options} | (
            {"region"} if has_region else set()
        )
        return [
            f"{name}={quote(value, safe='')}"
            for name, value in flags.items()
            if value is not None and name not in given
        ]


def split_wildcards(key: str) -> tuple[str, str]:
    """Split a key into the folder before its first wildcard, and the pattern below it.

    Example:
        >>> split_wildcards("logs/2026/*.gz")
        ('logs/2026/', '*.gz')
    """
    match = _WILDCARD.search(key)
    if match is None:
        return key, ""
    folder = key[: key.rfind("/", 0, match.start()) + 1]
    return folder, key[len(folder) :]


def _cache_directory() -> Path:
    """Return the directory for what later runs may use (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "trove"  # noqa: PTH117 - of a str


def _local_path(text: str) -> LocalPath:
    if not text or "\0" in text:
        raise ConfigError("an empty argument names nothing: pass a path, a URL or -")
    path = os.path.expanduser(text)  # noqa: PTH111 - Path would drop a slash at the end
    return LocalPath(path, is_folder=text.endswith("/") or text in {".", ".."})


def _split_options(rest: str) -> tuple[str, list[str]]:
    for match in _OPTIONS.finditer(rest):
        if match.end() == len(rest) and match[1].partition("=")[0] in _OPTION_NAMES:
            return rest[: match.start()], match[1].split("&")
    return rest, []


def _driver(scheme: str, authority: str, bucket: str, query: str) -> AsyncDriver:
    """Return the driver of a service, whose buckets have their own names."""
    url = f"{scheme}://{authority}"
    if scheme == "s3" and not is_region(authority.rpartition("@")[2].rstrip("/")):
        url += quote(bucket, safe="") or "any"
    return address_from_url(f"{url}?{query}" if query else url).driver
