"""Create drivers from URLs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from trove_async._secrets import drop_variables
from trove_async.driver import AsyncDriver
from trove_async.errors import ConfigError, TroveError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

MODULES = {
    "GCSDriver": "trove_async.drivers.gcs",
    "LocalDriver": "trove_async.drivers.local",
    "MemoryDriver": "trove_async.drivers.memory",
    "S3Driver": "trove_async.drivers.s3",
}
"""The module of each driver, imported when the driver is first used."""

ENTRY_POINTS = "trove_async.drivers"
"""The group of entry points in which other packages register their schemes."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")  # RFC 3986, 3.1
_DIGITS = 9
"""Maximum number of digits in an option that is a number, so that `int` never parses a huge one."""
# Characters that must be percent-encoded. `urlsplit` silently drops tabs and line breaks.
_UNENCODED = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The driver for a URL, and the bucket and prefix if the URL names a bucket.

    Attributes:
        driver: The driver, not yet open.
        into: The physical bucket that contains all logical buckets, or None if buckets are not
            mapped.
        prefix: The prefix of the backend's keys in the physical bucket.
    """

    driver: AsyncDriver
    into: str | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitURL:
    """The parts of a URL. The repr shows only the scheme, because other parts may hold credentials.

    Attributes:
        scheme: The scheme, in lower case.
        host: The text between ``//`` and the path or query, decoded.
        netloc: The same text, not decoded.
        path: The text from the next ``/`` to the query, decoded.
        options: The options in the query by name, decoded.
    """

    scheme: str
    host: str = field(repr=False)
    netloc: str = field(repr=False)
    path: str = field(repr=False)
    options: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> SplitURL:
        """Split a URL.

        Raises:
            ConfigError: The URL is malformed or ambiguous.
        """
        # 1. Split and decode the parts.
        scheme = _scheme(url)
        if _UNENCODED.search(url):
            raise _error(
                scheme, "write spaces and control characters in percent-encoding, as in %20"
            )
        try:
            parts = urlsplit(url)
            host, path = _decode(parts.netloc), _decode(parts.path)
            options = [_option(text) for text in parts.query.split("&") if parts.query]
        except ValueError:
            # Not chained: the parser's message quotes the URL.
            raise _error(
                scheme,
                "it is malformed: percent-encoded text must be UTF-8, and a query must be"
                " name=value&…",
            ) from None
        # 2. Reject parts that are ambiguous or have no meaning.
        if parts.fragment:
            raise _error(scheme, "write '#' as %23")
        if "\0" in host + path:
            raise _error(scheme, "names must not contain NUL")
        if len(dict(options)) < len(options):
            raise _error(scheme, "an option occurs twice")
        return cls(scheme=scheme, host=host, netloc=parts.netloc, path=path, options=dict(options))

    def check_options(self, known: Collection[str] = ()) -> None:
        """Raise ConfigError for an option that is not among the known ones."""
        unknown = sorted(self.options.keys() - set(known))
        if unknown:
            hint = f"known options: {', '.join(sorted(known))}" if known else "it takes no options"
            raise _error(self.scheme, f"unknown option {unknown[0]!r}: {hint}")

    def switch(self, name: str, *, default: bool) -> bool:
        """Return the value of an option that must be ``true`` or ``false``."""
        value = self.options.get(name, str(default)).lower()
        if value not in {"true", "false"}:
            raise _error(self.scheme, f"option {name} must be true or false")
        return value == "true"

    def count(self, name: str) -> int:
        """Return the value of an option that must be a number above 0, of at most nine digits."""
        value = self.options[name]
        if not (value.isascii() and value.isdigit() and 0 < len(value) <= _DIGITS and int(value)):
            raise _error(self.scheme, f"option {name} must be a number from 1 to {10**_DIGITS - 1}")
        return int(value)

    def settings(
        self,
        texts: Mapping[str, str],
        *,
        switches: Collection[str] = (),
        counts: Collection[str] = (),
    ) -> dict[str, Any]:
        """Return driver arguments from the options.

        Args:
            texts: Text options, as a mapping from option to argument name.
            switches: Options that are ``true`` or ``false``, named like their arguments.
            counts: Options that are numbers above 0, named like their arguments.
        """
        arguments: dict[str, Any] = {
            argument: self.options[name] for name, argument in texts.items() if name in self.options
        }
        for name in self.options:
            if name in switches:
                arguments[name] = self.switch(name, default=False)
            elif name in counts:
                arguments[name] = self.count(name)
        return arguments


def address_from_url(url: str) -> Address:
    """Create the driver for a URL, without I/O except for imports.

    `trove_async.layers.driver_from_url` also maps the logical buckets into the URL's bucket.

    Args:
        url: A URL. Its scheme must be in the table of `trove_async.drivers`, or registered by an
            installed package.

    Raises:
        ConfigError: The URL is malformed, its scheme or an option is unknown, an option is invalid,
            or the package that registers its scheme cannot be used. The message contains no part of
            the URL that may be secret.
        ImportError: The driver's extra is not installed.
        TypeError: `url` is not a str.
    """
    try:
        return _address(url)
    except TroveError as error:
        del url
        drop_variables(error)  # variables in the traceback hold the URL and its parts
        raise


def _address(url: str) -> Address:
    scheme = _scheme(url)
    factory = _SCHEMES.get(scheme)
    if factory is None:
        return Address(driver=_plugin_driver(url, scheme))
    return factory(SplitURL.of(url))


def _scheme(url: str) -> str:
    if not isinstance(url, str):
        raise TypeError(f"a backend's URL must be a str, got {type(url).__name__}")
    match = _SCHEME.match(url)
    if match is None:
        raise ConfigError(
            "a backend's URL must begin with its scheme, such as file:///data or mem://; for a"
            " path, use LocalDriver"
        )
    return match[1].lower()


def _option(text: str) -> tuple[str, str]:
    # `parse_qsl` would decode "+" as a space, but credentials often contain a "+".
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError
    return _decode(name), _decode(value)


def _decode(text: str) -> str:
    return unquote(text, errors="strict")


_LOCAL_MODES = frozenset({"file_mode", "dir_mode"})
_LOCAL_COUNTS = frozenset({"threads", "max_reads", "max_writes"})


def _local_address(url: SplitURL) -> Address:
    url.check_options({"fsync", "mkdir", *_LOCAL_MODES, *_LOCAL_COUNTS})
    host = "" if url.scheme == "file" and url.host == "localhost" else url.host  # RFC 8089, 2
    if host and url.scheme == "file":
        raise _error(
            "file",
            "it must have three slashes and an absolute path; use local://./rel for a relative one",
        )
    root = host + url.path
    if not root:
        raise _error(url.scheme, "it must name a directory")
    fsync = url.switch("fsync", default=True)
    mkdir = url.switch("mkdir", default=True)
    numbers = {name: _mode(url, name) for name in _LOCAL_MODES if name in url.options}
    numbers |= url.settings({}, counts=_LOCAL_COUNTS)
    driver = _driver_class("LocalDriver")
    return Address(driver=driver(root, fsync=fsync, mkdir=mkdir, **numbers))


_MEMORY_COUNTS = frozenset({"parallel_parts", "max_connections"})


def _memory_address(url: SplitURL) -> Address:
    url.check_options(_MEMORY_COUNTS)
    if url.host or url.path not in {"", "/"}:
        raise _error(
            url.scheme, "it must have no host and no path: each URL creates a new, empty backend"
        )
    driver = _driver_class("MemoryDriver")
    return Address(driver=driver(**url.settings({}, counts=_MEMORY_COUNTS)))


# Names of AWS regions: us-east-1, ap-southeast-4, us-gov-west-1, cn-north-1, us-iso-east-1.
is_region = re.compile(r"[a-z]{2}(?:-[a-z]+){1,2}-[0-9]{1,2}").fullmatch

_S3_OPTIONS = {
    "endpoint": "endpoint_url",
    "profile": "profile",
    "role_arn": "role_arn",
    "dialect": "dialect",
    "expected_bucket_owner": "expected_bucket_owner",
    "proxy": "proxy",
    "session_token": "session_token",
    "addressing_style": "addressing_style",
    "data_plane": "data_plane",
    "storage_class": "storage_class",
    "server_side_encryption": "server_side_encryption",
    "kms_key_id": "kms_key_id",
    "resume_uploads": "resume_uploads",
}
_S3_SWITCHES = frozenset(
    {"payload_signing", "checksums", "bucket_key_enabled", "requester_pays", "trust_env"}
)
_S3_COUNTS = frozenset({"max_connections", "parallel_parts"})
S3_URL_OPTIONS = frozenset({*_S3_OPTIONS, *_S3_SWITCHES, *_S3_COUNTS, "region", "path_style"})


def _s3_address(url: SplitURL) -> Address:
    # 1. Take credentials from the text before "@". Split this text before it is decoded.
    url.check_options(S3_URL_OPTIONS)
    credentials, at, location = url.netloc.rpartition("@")
    key_id, colon, secret = credentials.partition(":")
    if at and not (key_id and colon and secret):
        raise _error(
            "s3", "the text before '@' must be an access key's ID and secret, separated by a colon"
        )
    settings = url.settings(_S3_OPTIONS, switches=_S3_SWITCHES, counts=_S3_COUNTS)
    if at:
        settings["access_key_id"] = _decode(key_id)
        settings["secret_access_key"] = _decode(secret)
    if not at and ":" in location:  # no part of a secret may become a bucket or key
        raise _error(
            "s3", "write '/' or '?' in a secret as %2F or %3F; a bucket must not contain ':'"
        )
    # 2. Take the region, the bucket and the prefix from the host and the path.
    bucket, _, prefix = f"{_decode(location)}{url.path}".partition("/")
    region = url.options.get("region")
    if is_region(bucket):
        if region is not None:
            raise _error("s3", "it must name one region, got two")
        region, (bucket, _, prefix) = bucket, prefix.partition("/")
    if prefix and not bucket:
        raise _error("s3", "it must name a bucket before the prefix")
    if not bucket and region is None:
        raise _error("s3", "it must name a bucket or a region, got neither")
    # 3. Translate the option path_style, and create the driver.
    if "path_style" in url.options and "addressing_style" in url.options:
        raise _error("s3", "use the option addressing_style or path_style, not both")
    if url.switch("path_style", default=False):
        settings["addressing_style"] = "path"
    driver = _driver_class("S3Driver")(region=region, **settings)
    return Address(driver=driver, into=bucket or None, prefix=prefix)


_GCS_OPTIONS = {
    "credentials": "credentials",
    "project": "project",
    "endpoint": "endpoint_url",
    "location": "location",
    "token_origins": "token_origins",
    "proxy": "proxy",
    "bucket_storage_class": "bucket_storage_class",
    "storage_class": "storage_class",
    "kms_key_name": "kms_key_name",
}
_GCS_SWITCHES = frozenset({"anonymous", "trust_env"})
_GCS_COUNTS = frozenset({"max_connections"})
GCS_URL_OPTIONS = frozenset({*_GCS_OPTIONS, *_GCS_SWITCHES, *_GCS_COUNTS})


def _gcs_address(url: SplitURL) -> Address:
    url.check_options(GCS_URL_OPTIONS)
    if not url.host and url.path not in {"", "/"}:
        raise _error(url.scheme, "it must name a bucket before the prefix")
    settings = url.settings(_GCS_OPTIONS, switches=_GCS_SWITCHES, counts=_GCS_COUNTS)
    driver = _driver_class("GCSDriver")(**settings)
    return Address(driver=driver, into=url.host or None, prefix=url.path[1:])


def _driver_class(name: str) -> Any:  # noqa: ANN401 - constructors differ
    """Import and return a driver's class."""
    return getattr(import_module(MODULES[name]), name)


def _mode(url: SplitURL, name: str) -> int:
    value = url.options[name]
    if not re.fullmatch(r"(?:0o?)?[0-7]{3,4}", value):
        raise _error(url.scheme, f"option {name} must be permissions in octal, such as 0640")
    return int(value.removeprefix("0o"), 8)


_SCHEMES: dict[str, Callable[[SplitURL], Address]] = {
    "file": _local_address,
    "gcs": _gcs_address,
    "gs": _gcs_address,
    "local": _local_address,
    "mem": _memory_address,
    "memory": _memory_address,
    "s3": _s3_address,
}


def _plugin_driver(url: str, scheme: str) -> AsyncDriver:
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow to import, and rarely needed

    # 1. Find the entry point. A package that is on sys.path twice is listed twice.
    registered = entry_points(group=ENTRY_POINTS)
    matching = {point.value: point for point in registered if point.name.lower() == scheme}
    if not matching:
        known = sorted({*_SCHEMES, *(point.name.lower() for point in registered)})
        raise ConfigError(f"unknown scheme {scheme!r}: known schemes are {', '.join(known)}")
    if len(matching) > 1:
        raise _error(
            scheme, f"several packages register this scheme: {', '.join(sorted(matching))}"
        )
    [point] = matching.values()
    # 2. Load it and create the driver.
    loaded = _load(point, scheme)
    factory = getattr(loaded, "from_url", loaded)
    if not callable(factory):
        raise _error(scheme, f"{point.value} must be callable or have a from_url")
    driver = factory(url)
    if not isinstance(driver, AsyncDriver):
        raise _error(scheme, f"{point.value} must return a driver, got {type(driver).__name__}")
    return driver


def _load(point: EntryPoint, scheme: str) -> object:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise _error(scheme, f"{point.value} cannot be imported: {error}") from error


def _error(scheme: str, problem: str) -> ConfigError:
    return ConfigError(f"invalid {scheme}:// URL: {problem}")
