"""Tables for middlewares, their scopes and their keys."""

from __future__ import annotations

from abc import abstractmethod
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from trove_async import middlewares
from trove_async._named_objects import named_object
from trove_async.middleware import Inspecting, Middleware
from trove_async.middlewares.keys import Keyring, Keys
from trove_async.scope import Scope

from ._credentials import AwsIdentity, SharedCredentials
from ._tables import ImportedTable, Shorthand, Table, tag_of, type_alone
from ._values import ImportPath, Seconds, Size, problem

Texts: TypeAlias = Annotated[
    list[str],
    Field(min_length=1),
    Shorthand(lambda value: [value] if isinstance(value, str) else value, {"type": "string"}),
]
"""One or more texts. One may be written without the list."""


# -- scopes ------------------------------------------------------------------------------------------


class ScopeTable(Table):
    """The objects that a middleware applies to. Several keys are combined with "and"."""

    buckets: Texts | None = None
    """Patterns of buckets."""
    keys: Texts | None = None
    """Patterns of keys."""
    content_types: Texts | None = None
    """Patterns of media types."""
    backends: Texts | None = None
    """Names of backends."""
    when: ImportPath | None = None
    """A function of bucket and key."""
    any: Annotated[list[ScopeTable], Field(min_length=1)] | None = None
    """Scopes of which at least one must include the object."""
    except_: Annotated[ScopeTable | None, Field(alias="not")] = None
    """A scope that must not include the object."""

    def scope(self) -> Scope:
        """Return the scope.

        Raises:
            PatternError: A pattern is malformed.
        """
        parts = [
            make(*texts)
            for texts, make in (
                (self.buckets, Scope.buckets),
                (self.keys, Scope.keys),
                (self.content_types, Scope.content_types),
                (self.backends, Scope.backends),
            )
            if texts is not None
        ]
        if self.any is not None:
            parts.append(reduce(or_, [part.scope() for part in self.any]))
        if self.except_ is not None:
            parts.append(~self.except_.scope())
        if self.when is not None:  # last, because calling a function costs most
            parts.append(Scope.when(named_object(self.when)))
        return reduce(and_, parts) if parts else Scope.everything()


# -- keys --------------------------------------------------------------------------------------------


class KeysTable(Table):
    """A source of keys."""

    @abstractmethod
    def source(self, shared: SharedCredentials) -> Keys:
        """Return the source."""


class EnvironmentKeysTable(KeysTable):
    """Keys in an environment variable. The text ``"env:NAME"`` means the same."""

    type: Literal["env"]
    name: str
    """The name of the variable, which contains ``id:key,…``."""

    def source(self, shared: SharedCredentials) -> Keys:  # noqa: ARG002 - as the others
        return Keyring.from_env(self.name)


class FileKeysTable(KeysTable):
    """Keys in a file. The text ``"file:PATH"`` means the same."""

    type: Literal["file"]
    path: str
    """The path of the file, which contains one ``id:key`` a line, the current key first."""

    def source(self, shared: SharedCredentials) -> Keys:  # noqa: ARG002 - as the others
        return Keyring.from_file(Path(self.path))


class KmsKeysTable(KeysTable, AwsIdentity):
    """Keys that AWS KMS protects. The text ``"kms:KEY_ID"`` means the same."""

    type: Literal["kms"]
    key_id: str
    """The id, the ARN or the alias of the key."""
    region: str | None = None
    """The region. Without it, that of the ARN, or of the SDK's configuration."""
    endpoint_url: str | None = None
    """The URL of the service, if it is not AWS KMS."""
    trust_env: bool | None = None
    """Whether the environment may name a proxy."""
    max_objects: int | None = None
    """The maximum number of objects that one data key encrypts."""
    max_age: Seconds | None = None
    """For how long a data key encrypts new objects."""
    max_cached: int | None = None
    """The maximum number of data keys that are kept for reads."""

    def source(self, shared: SharedCredentials) -> Keys:
        options = self.options("key_id", "credentials")
        options |= self.shared_options(shared)
        return middlewares.KmsKeys(self.key_id, **options)


class ImportedKeysTable(KeysTable, ImportedTable):
    """A source of your own: the object is called with the other keys of the table."""

    type: ImportPath

    def source(self, shared: SharedCredentials) -> Keys:  # noqa: ARG002 - as the others
        keys = named_object(self.type)(**self.extra_options())
        if not isinstance(keys, Keys):
            raise problem(f"{self.type!r} must return a Keys, got {type(keys).__name__}")
        return keys


_KEYS_MESSAGE = (
    "must be 'env:NAME', 'file:PATH', 'kms:KEY_ID', or a table whose 'type' is 'env', 'file', 'kms' or"
    " 'package.module:name'"
)


def _keys_table(value: object) -> object:
    """Return the table for a text such as ``env:NAME``."""
    if not isinstance(value, str):
        return value
    kind, _, rest = value.partition(":")
    name = {"env": "name", "file": "path", "kms": "key_id"}.get(kind)
    if name is None or not rest:
        # The text may be a key that was meant for a variable, so the message does not quote it.
        raise problem(_KEYS_MESSAGE)
    return {"type": kind, name: rest}


AnyKeys: TypeAlias = Annotated[
    Annotated[EnvironmentKeysTable, Tag("<env>")]
    | Annotated[FileKeysTable, Tag("<file>")]
    | Annotated[KmsKeysTable, Tag("<kms>")]
    | Annotated[ImportedKeysTable, Tag("<import>")],
    Discriminator(tag_of, custom_error_type="config", custom_error_message=_KEYS_MESSAGE),
    Shorthand(_keys_table, {"type": "string", "pattern": "^(env|file|kms):"}),
]
"""A source of keys: a text such as ``"env:TROVE_KEYS"``, or a table."""


# -- middlewares -------------------------------------------------------------------------------------


class MiddlewareTable(Table):
    """A middleware."""

    scope: ScopeTable | None = None
    """The objects that it applies to. Without it, all."""

    @abstractmethod
    def middleware(self, shared: SharedCredentials) -> Middleware | Inspecting:
        """Return the middleware."""


class CompressionTable(MiddlewareTable):
    """Compression in the Zstandard Seekable Format."""

    type: Literal["compression"]
    level: int | None = None
    """The level of the compression."""
    frame_size: Size | None = None
    """The size of a frame before compression."""
    min_size: Size | None = None
    """The size below which bodies are stored as they are."""
    skip: list[str] | None = None
    """Patterns of media types that are stored as they are."""

    def middleware(self, shared: SharedCredentials) -> Middleware:  # noqa: ARG002 - as the others
        return middlewares.Compression(**self.options("scope"))


class EncryptionTable(MiddlewareTable):
    """Encryption in the format of Tink's streaming AEAD."""

    type: Literal["encryption"]
    keys: AnyKeys
    """The source of keys."""
    bind: bool | None = None
    """Whether an object is bound to its bucket and key."""
    require: bool | None = None
    """Whether to refuse objects that are not encrypted."""
    segment_size: Size | None = None
    """The size of a segment."""

    def middleware(self, shared: SharedCredentials) -> Middleware:
        return middlewares.Encryption(self.keys.source(shared), **self.options("scope", "keys"))


class InspectionTable(MiddlewareTable):
    """Passes the bodies of puts to an inspector of your own."""

    type: Literal["inspection"]
    function: ImportPath
    """A function of bucket, key and media type that returns the inspector of one body."""

    def middleware(self, shared: SharedCredentials) -> Inspecting:  # noqa: ARG002 - as the others
        return middlewares.Inspection(named_object(self.function))


class ImportedMiddlewareTable(MiddlewareTable, ImportedTable):
    """A middleware of your own: the object is called with the other keys of the table."""

    type: ImportPath

    def middleware(self, shared: SharedCredentials) -> Middleware | Inspecting:  # noqa: ARG002 - as the others
        made = named_object(self.type)(**self.extra_options())
        if not isinstance(made, Middleware | Inspecting):
            raise problem(f"{self.type!r} must return a middleware, got {type(made).__name__}")
        return made


AnyMiddleware: TypeAlias = Annotated[
    Annotated[CompressionTable, Tag("<compression>")]
    | Annotated[EncryptionTable, Tag("<encryption>")]
    | Annotated[InspectionTable, Tag("<inspection>")]
    | Annotated[ImportedMiddlewareTable, Tag("<import>")],
    Discriminator(
        tag_of,
        custom_error_type="config",
        custom_error_message=(
            "must be a table whose 'type' is 'compression', 'encryption', 'inspection' or"
            " 'package.module:name'"
        ),
    ),
    Shorthand(type_alone, {"enum": ["compression"]}),
]
"""A middleware: a table, or the type alone if it has no other keys."""
