"""Tables for backends: one for each driver, and one for each layer around it."""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, SecretStr, Tag

from trove_async import drivers
from trove_async._named_objects import named_object
from trove_async.driver import AsyncDriver
from trove_async.layers import (
    Fallback,
    Hedged,
    Mapped,
    Mirrored,
    ReadOnly,
    ReadThrough,
    driver_from_url,
)

from ._credentials import AwsIdentity, SharedCredentials, find_credentials
from ._tables import ImportedTable, Shorthand, Table, located, tag_of, type_alone
from ._values import ImportPath, Permissions, Seconds, Size, problem

_DIGITS = re.compile(r"[1-9][0-9]{0,3}")


# -- layers ------------------------------------------------------------------------------------------


class LayerTable(Table):
    """A layer around a driver."""

    def inner(self) -> Mapping[str, BackendTable]:
        """Return the other backends of the layer, by their paths in the table."""
        return {}

    @abstractmethod
    def around(self, driver: AsyncDriver, *inner: AsyncDriver) -> AsyncDriver:
        """Return the layer around a driver, given the drivers of the other backends."""


class ReadThroughTable(LayerTable):
    """A cache in front of the backend."""

    type: Literal["read_through"]
    cache: Backend
    """The backend that keeps the cached blocks."""
    max_bytes: Size
    """The maximum size of the cache."""
    block_size: Size | None = None
    """The size of a block."""
    revalidate: Seconds | None = None
    """For how long a cached object is used without asking the backend whether it has changed."""
    write: Literal["around", "through"] | None = None
    """Whether a put also fills the cache."""
    cache_timeout: Seconds | None = None
    """How long a request to the cache may take before it is bypassed."""

    def inner(self) -> Mapping[str, BackendTable]:
        return {"cache": self.cache}

    def around(self, driver: AsyncDriver, *inner: AsyncDriver) -> AsyncDriver:
        return ReadThrough(driver, *inner, **self.options("cache"))


def _copies(value: object) -> object:
    """Check the number of copies here: a union would report each of its types as a problem."""
    if type(value) is int and value > 0:
        return value
    if isinstance(value, str) and value in {"all", "primary"}:
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value):  # from the environment
        return int(value)
    raise problem("must be 'all', 'primary' or a number of copies")


class MirroredTable(LayerTable):
    """Copies of every object on further backends."""

    type: Literal["mirrored"]
    replicas: Annotated[list[Backend], Field(min_length=1)]
    """The further backends."""
    acknowledge: Annotated[Literal["all", "primary"] | int, BeforeValidator(_copies)] | None = None
    """The copies that a put waits for."""

    def inner(self) -> Mapping[str, BackendTable]:
        return {f"replicas.{index}": one for index, one in enumerate(self.replicas)}

    def around(self, driver: AsyncDriver, *inner: AsyncDriver) -> AsyncDriver:
        return Mirrored(driver, *inner, **self.options("replicas"))


class FallbackTable(LayerTable):
    """Further backends for reads while the backend is unavailable."""

    type: Literal["fallback"]
    others: Annotated[list[Backend], Field(min_length=1)]
    """The further backends, in order."""
    on_missing: bool | None = None
    """Whether they are also asked for objects that the backend does not have."""

    def inner(self) -> Mapping[str, BackendTable]:
        return {f"others.{index}": one for index, one in enumerate(self.others)}

    def around(self, driver: AsyncDriver, *inner: AsyncDriver) -> AsyncDriver:
        return Fallback(driver, *inner, **self.options("others"))


class HedgedTable(LayerTable):
    """Sends a slow read a second time."""

    type: Literal["hedged"]
    after: float | None = None
    """The quantile of the latencies after which a read is slow."""
    budget: float | None = None
    """The maximum share of reads that are sent twice."""

    def around(self, driver: AsyncDriver, *inner: AsyncDriver) -> AsyncDriver:  # noqa: ARG002 - as the others
        return Hedged(driver, **self.options())


class ReadOnlyTable(LayerTable):
    """Refuses every write."""

    type: Literal["read_only"]

    def around(self, driver: AsyncDriver, *inner: AsyncDriver) -> AsyncDriver:  # noqa: ARG002 - as the others
        return ReadOnly(driver)


class MappedTable(LayerTable):
    """Buckets under different names, or all buckets inside one."""

    type: Literal["mapped"]
    buckets: dict[str, str] | None = None
    """The physical bucket of each bucket."""
    into: str | None = None
    """The physical bucket that contains all buckets."""
    prefix: str | None = None
    """The prefix of all keys in the physical bucket."""

    def around(self, driver: AsyncDriver, *inner: AsyncDriver) -> AsyncDriver:  # noqa: ARG002 - as the others
        return Mapped(driver, **self.options())


class ImportedLayerTable(LayerTable, ImportedTable):
    """A layer of your own: the object is called with the driver and the other keys of the table."""

    type: ImportPath

    def around(self, driver: AsyncDriver, *inner: AsyncDriver) -> AsyncDriver:  # noqa: ARG002 - as the others
        return _checked(named_object(self.type)(driver, **self.extra_options()), self.type)


Layer: TypeAlias = Annotated[
    Annotated[ReadThroughTable, Tag("<read_through>")]
    | Annotated[MirroredTable, Tag("<mirrored>")]
    | Annotated[FallbackTable, Tag("<fallback>")]
    | Annotated[HedgedTable, Tag("<hedged>")]
    | Annotated[ReadOnlyTable, Tag("<read_only>")]
    | Annotated[MappedTable, Tag("<mapped>")]
    | Annotated[ImportedLayerTable, Tag("<import>")],
    Discriminator(
        tag_of,
        custom_error_type="config",
        custom_error_message=(
            "must be a table whose 'type' is 'read_through', 'mirrored', 'fallback', 'hedged', 'read_only',"
            " 'mapped' or 'package.module:name'"
        ),
    ),
    Shorthand(type_alone, {"enum": ["hedged", "read_only"]}),
]
"""A layer: a table, or the type alone if it has no other keys."""


# -- backends ----------------------------------------------------------------------------------------


class BackendTable(Table):
    """A backend."""

    layers: list[Layer] = Field(default_factory=list)
    """The layers around the driver, from the inside outwards."""

    @abstractmethod
    def driver(self, shared: SharedCredentials) -> AsyncDriver:
        """Return the driver, without the layers."""


class URLTable(BackendTable):
    """A backend that is named by its URL."""

    url: str
    """The URL of the backend."""

    def driver(self, shared: SharedCredentials) -> AsyncDriver:  # noqa: ARG002 - as the others
        return driver_from_url(self.url)


class LocalTable(BackendTable):
    """Files in a directory."""

    type: Literal["local"]
    root: str
    """The path of the directory."""
    fsync: bool | None = None
    """Whether a put waits until the data is on the disk."""
    mkdir: bool | None = None
    """Whether to create the directory."""
    file_mode: Permissions | None = None
    """The permissions of new files."""
    dir_mode: Permissions | None = None
    """The permissions of new directories."""
    threads: int | None = None
    """The number of threads for file operations."""
    max_reads: int | None = None
    """The maximum number of concurrent reads."""
    max_writes: int | None = None
    """The maximum number of concurrent writes."""

    def driver(self, shared: SharedCredentials) -> AsyncDriver:  # noqa: ARG002 - as the others
        return drivers.LocalDriver(**self.options("layers"))


class MemoryTable(BackendTable):
    """Objects in memory, for tests."""

    type: Literal["memory"]
    parallel_parts: int | None = None
    """The maximum number of concurrent parts of an upload."""
    max_connections: int | None = None
    """The maximum number of concurrent requests."""

    def driver(self, shared: SharedCredentials) -> AsyncDriver:  # noqa: ARG002 - as the others
        return drivers.MemoryDriver(**self.options("layers"))


class S3Table(BackendTable, AwsIdentity):
    """Amazon S3, or a service with the same protocol."""

    type: Literal["s3"]
    bucket: str | None = None
    """The physical bucket that contains all buckets of the store. Without it, each has one of its name."""
    prefix: str | None = None
    """The prefix of all keys in `bucket`."""
    region: str | None = None
    """The region. Without it, that of the SDK's configuration."""
    endpoint_url: str | None = None
    """The URL of the service, if it is not Amazon S3."""
    addressing_style: Literal["auto", "path", "virtual"] | None = None
    """Whether the bucket is in the host name or in the path."""
    expected_bucket_owner: str | None = None
    """The account that must own the buckets."""
    max_connections: int | None = None
    """The maximum number of connections."""
    parallel_parts: int | None = None
    """The maximum number of concurrent parts of an upload."""
    checksums: bool | None = None
    """Whether to send checksums."""
    payload_signing: bool | None = None
    """Whether bodies are part of the signature."""
    dialect: str | None = None
    """The service's deviations from Amazon S3."""
    ca_file: str | None = None
    """The path of the certificates (PEM) of the authorities to trust, instead of the system's."""
    proxy: str | None = None
    """The URL of an HTTP proxy."""
    trust_env: bool | None = None
    """Whether the environment may name a proxy."""
    data_plane: Literal["lean", "sdk"] | None = None
    """The implementation of requests for objects."""
    storage_class: str | None = None
    """The storage class of new objects."""
    server_side_encryption: str | None = None
    """The server-side encryption of new objects."""
    kms_key_id: str | None = None
    """The key of the server-side encryption."""
    bucket_key_enabled: bool | None = None
    """Whether to use S3 Bucket Keys."""
    sse_customer_key: SecretStr | None = None
    """The customer-provided key of the server-side encryption, in base64."""
    requester_pays: bool | None = None
    """Whether the requester pays."""
    resume_uploads: str | None = None
    """A directory in which uploads in parts are recorded, so that an interrupted one is continued later."""

    def driver(self, shared: SharedCredentials) -> AsyncDriver:
        options = self.options(
            "layers", "bucket", "prefix", "credentials", "ca_file", "sse_customer_key"
        )
        options |= self.shared_options(shared)
        if self.ca_file is not None:
            options["tls"] = _tls(self.ca_file)
        if self.sse_customer_key is not None:
            options["sse_customer_key"] = _base64(self.sse_customer_key)
        return _mapped(drivers.S3Driver(**options), self.bucket, self.prefix)


class GCSTable(BackendTable):
    """Google Cloud Storage."""

    type: Literal["gcs"]
    bucket: str | None = None
    """The physical bucket that contains all buckets of the store. Without it, each has one of its name."""
    prefix: str | None = None
    """The prefix of all keys in `bucket`."""
    project: str | None = None
    """The project, which creating and listing buckets needs."""
    credentials: str | None = None
    """The name of a table in ``[credentials]``, or the path of a service account's JSON file: a text with a
    ``/`` or a ``.``. Without it, the application default credentials apply."""
    endpoint_url: str | None = None
    """The URL of the service, if it is not Google Cloud Storage."""
    anonymous: bool | None = None
    """Whether to send no credentials."""
    location: str | None = None
    """The location of new buckets."""
    token_origins: list[str] | None = None
    """The origins from which tokens may be fetched."""
    bucket_storage_class: str | None = None
    """The storage class of new buckets."""
    max_connections: int | None = None
    """The maximum number of connections."""
    ca_file: str | None = None
    """The path of the certificates (PEM) of the authorities to trust, instead of the system's."""
    proxy: str | None = None
    """The URL of an HTTP proxy."""
    trust_env: bool | None = None
    """Whether the environment may name a proxy."""
    storage_class: str | None = None
    """The storage class of new objects."""
    kms_key_name: str | None = None
    """The key of the server-side encryption."""

    def driver(self, shared: SharedCredentials) -> AsyncDriver:
        options = self.options("layers", "bucket", "prefix", "ca_file")
        name = self.credentials
        if name is not None and name.lstrip().startswith("{"):
            # The other messages would show it.
            raise problem(
                "credentials: must be a name or the path of a file: write the JSON to a file"
            )
        if name is not None and not {"/", "."} & set(name):
            options["credentials"] = find_credentials(shared, name).of_google(name)
        if self.ca_file is not None:
            options["tls"] = _tls(self.ca_file)
        return _mapped(drivers.GCSDriver(**options), self.bucket, self.prefix)


class ImportedBackendTable(BackendTable, ImportedTable):
    """A driver of your own: the object is called with the other keys of the table."""

    type: ImportPath

    def driver(self, shared: SharedCredentials) -> AsyncDriver:  # noqa: ARG002 - as the others
        return _checked(named_object(self.type)(**self.extra_options()), self.type)


def _backend_tag(value: object) -> str | None:
    if isinstance(value, Mapping) and "url" in value:
        return "<url>"
    return "<url>" if isinstance(value, URLTable) else tag_of(value)


def _from_url(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


Backend: TypeAlias = Annotated[
    Annotated[URLTable, Tag("<url>")]
    | Annotated[LocalTable, Tag("<local>")]
    | Annotated[MemoryTable, Tag("<memory>")]
    | Annotated[S3Table, Tag("<s3>")]
    | Annotated[GCSTable, Tag("<gcs>")]
    | Annotated[ImportedBackendTable, Tag("<import>")],
    Discriminator(
        _backend_tag,
        custom_error_type="config",
        custom_error_message=(
            "must be a URL, or a table with 'url', or with a 'type': 'local', 'memory', 's3', 'gcs' or"
            " 'package.module:name'"
        ),
    ),
    Shorthand(_from_url, {"type": "string", "examples": ["file:///srv/objects", "s3://bucket"]}),
]
"""A backend: its URL, or a table."""


def driver_of(backend: BackendTable, path: str, shared: SharedCredentials) -> AsyncDriver:
    """Return the driver of a backend, with its layers.

    Args:
        backend: The backend.
        path: The path of the backend in the configuration, for errors.
        shared: The shared credentials.

    Raises:
        ConfigError: A value is not valid. The message contains the path.
        ImportError: An extra is missing.
    """
    with located(path):
        driver = backend.driver(shared)
    for index, layer in enumerate(backend.layers):
        here = f"{path}.layers.{index}"
        inner = [driver_of(one, f"{here}.{name}", shared) for name, one in layer.inner().items()]
        with located(here):
            driver = layer.around(driver, *inner)
    return driver


def _mapped(driver: AsyncDriver, bucket: str | None, prefix: str | None) -> AsyncDriver:
    if bucket is not None:
        return Mapped(driver, into=bucket, prefix=prefix or "")
    if prefix:
        raise problem("'prefix' needs 'bucket', the physical bucket that contains the keys")
    return driver


def _checked(driver: object, path: str) -> AsyncDriver:
    if not isinstance(driver, AsyncDriver):
        raise problem(f"{path!r} must return a driver, got {type(driver).__name__}")
    return driver


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is an OSError
        raise problem(f"ca_file: {ca_file!r} cannot be read as certificates: {error}") from error


def _base64(key: SecretStr) -> bytes:
    try:
        return base64.b64decode(key.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        raise problem(
            "sse_customer_key: must be base64"
        ) from None  # the parser's error has the text


for _model in (ReadThroughTable, MirroredTable, FallbackTable):
    _model.model_rebuild()  # they refer to backends, which are defined below them
