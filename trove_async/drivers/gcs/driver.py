"""The GCS driver: what the contract asks for, out of Cloud Storage's requests."""

from __future__ import annotations

import math
import os
import ssl
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final, NamedTuple

from trove_async._http import (
    Origin,
    Reader,
    Transport,
    check_proxy,
    check_tls,
    proxy_urls,
    transport_over,
)
from trove_async._http.services import BucketExistenceCache, map_condition_errors
from trove_async._secrets import Redactor, Secret
from trove_async._settings import check_counts, check_switches, check_texts
from trove_async.driver import Capabilities, DriverContext, DriverReader, Upload
from trove_async.errors import (
    BucketNotFoundError,
    ClosedError,
    ConfigError,
    NotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import BucketInfo, DeleteResult, KiB, ObjectInfo, TiB
from trove_async.options import (
    NOTHING_FIXED,
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    PresignOptions,
    PutOptions,
    VersionPage,
)

from ._batch_delete import MOST as BATCH
from ._batch_delete import Deleter
from ._buckets import Buckets
from ._client import Client
from ._compose import Composer
from ._copy import Copier
from ._credentials import Credentials, Identity
from ._custom_time import set_custom_time
from ._defaults import Defaults
from ._download import Bodies
from ._encoding import check_key, encode_query, is_dots, object_path, upload_path
from ._list_objects import list_page
from ._lost_responses import Doubts, found, replaced_meanwhile
from ._multipart import related
from ._resources import DEFAULT_TYPE, FIELDS, generation_of, info_of, precondition, resource_of
from ._resumable import QUANTUM
from ._signing import MOST_SECONDS, unsigned
from ._upload import ResumableUpload
from ._versions import version_page

GOOGLE: Final = "https://storage.googleapis.com"
_GOOGLES: Final = ".googleapis.com"

_MAX_OBJECT: Final = 5 * TiB
"""Cloud Storage documentation, "Quotas and limits": maximum size of an object."""

_MAX_METADATA: Final = 8 * KiB - 256
"""Bytes of custom metadata ("Quotas and limits": 8 KiB), less what the driver adds to it."""

_PARALLEL_READS: Final = 3
"""Ranges of one slow body at once: three times the speed of one, in less than 16 MiB."""

_INSERT: Final = encode_query({"uploadType": "multipart", "fields": FIELDS})
_FACTS: Final = encode_query({"fields": FIELDS})

_NO_PROJECT: Final = "-"
"""What servers that know no projects are told; Google's answers that it is none."""


class GCSDriver:
    """A backend in Google Cloud Storage, or in a server that speaks as it does.

    Credentials that are not given are found as Google's own tools find them: by
    ``GOOGLE_APPLICATION_CREDENTIALS``, in the file that ``gcloud auth application-default login``
    leaves, or from the metadata server of a machine of Google's.

    An etag here is an object's generation, which is its ``version_id`` as well. In a bucket without
    versioning, only the one that is live can be read.

    The names of metadata are told in lower case. The service minds their case: where other tools stored
    two names that differ in case only, both keep their spelling.

    Args:
        project: The project that buckets are made and listed in; the credentials' where not given.
        credentials: A file with a service account's key, or whatever else the SDK knows; or what
            is in it.
        endpoint_url: Where the service is, if it is not Google's: ``http://localhost:4443``.
            ``STORAGE_EMULATOR_HOST`` is heeded where it is not given.
        anonymous: Send no credentials. None: only if there is another endpoint, and no
            credentials were given.
        location: Where new buckets are made (``"EU"``, ``"us-east1"``); the service chooses, if it
            is not given.
        token_origins: Where tokens may be fetched besides Google's own hosts, as
            ``https://host[:port]``: a private mirror, another universe, or a test's server over
            ``http``. Otherwise credentials that name such an issuer are refused, as the file would
            decide where a signed assertion or a client's secret is sent.
        bucket_storage_class: The class of objects in new buckets that are given none.
        max_connections: Readers that may be open at once, writes likewise, and as many other
            requests.
        tls: Whom to trust, for a server with a certificate of its own making.
        proxy: The URL of an HTTP proxy to send everything through.
        trust_env: Whether HTTPS_PROXY, HTTP_PROXY and NO_PROXY are heeded, where `proxy` is None.
        storage_class: The class of objects whose put chooses none, of copies as well; the bucket's
            default where it is not given.
        kms_key_name: The Cloud KMS key that encrypts what is stored, copies as well:
            ``projects/P/locations/L/keyRings/R/cryptoKeys/K``. The bucket's default where it is
            not given.

    Raises:
        ConfigError: Arguments that do not go together.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        credentials: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        endpoint_url: str | None = None,
        anonymous: bool | None = None,
        location: str | None = None,
        token_origins: str | Collection[str] = (),
        bucket_storage_class: str | None = None,
        max_connections: int = 64,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        trust_env: bool = True,
        storage_class: str | None = None,
        kms_key_name: str | None = None,
    ) -> None:
        given, told = credentials is not None, Secret(credentials)
        self._credentials_from = _source_of(credentials)
        hidden = None if proxy is None else Secret(proxy)
        del credentials, proxy  # a traceback that is recorded with its variables would show them
        if anonymous and given:
            raise ConfigError("anonymous sends no credentials: give one of the two")
        check_texts(project=project, location=location, bucket_storage_class=bucket_storage_class)
        check_switches(anonymous=anonymous, trust_env=trust_env)
        check_counts(max_connections=max_connections)
        check_tls(tls)
        origins = (token_origins,) if isinstance(token_origins, str) else token_origins
        if not isinstance(origins, Collection):
            raise TypeError(f"token_origins must be URLs, got {type(origins).__name__}")
        self._defaults = Defaults(storage_class=storage_class, kms_key_name=kms_key_name)
        self._identity = Identity(
            credentials=told, project=project, token_origins=frozenset(map(Origin.of, origins))
        )
        self._origin = Origin.of(endpoint_url or _emulator() or GOOGLE)
        self._google = self._origin.host.endswith(_GOOGLES)
        self._anonymous = not (self._google or given) if anonymous is None else anonymous
        self._location = location
        self._bucket_storage_class = bucket_storage_class
        self._max_connections = max_connections
        self._tls = tls
        self._proxy = None if hidden is None else Secret(check_proxy(hidden.reveal()))
        self._trust_env = trust_env
        self._capabilities = self._claimed(signs=not self._anonymous)
        self._credentials: Credentials | None = None
        self._transport: Transport | None = None
        self._open: _Open | None = None
        self._backend = ""
        self._redactor = Redactor()

    @property
    def _proxy_url(self) -> str | None:
        return None if self._proxy is None else self._proxy.reveal()

    def redact(self, error: TroveError) -> None:
        """Remove this driver's secrets from an error. See `Redacting.redact`."""
        self._redactor.redact(error)

    def __repr__(self) -> str:
        if not hasattr(self, "_origin"):
            return "<GCSDriver, never made>"  # its constructor raised
        return f"<GCSDriver at {self._origin.url}>"

    @property
    def name(self) -> str:
        """``"gcs"``."""
        return "gcs"

    @property
    def capabilities(self) -> Capabilities:
        """What it can honour; whether URLs can be signed is settled once it is open."""
        return self._capabilities

    def _claimed(self, *, signs: bool) -> Capabilities:
        return Capabilities(
            put_if_none_match=True,
            put_if_match=True,
            get_conditions=True,
            delete_if_match=True,
            ranges=True,
            checksums=frozenset({"crc32c"}),
            metadata=True,
            headers=True,
            storage_class=True,
            upload=True,
            parallel_parts=1,
            parallel_reads=_PARALLEL_READS,
            min_part=QUANTUM,
            part_multiple=QUANTUM,
            max_part=_MAX_OBJECT,
            max_parts=_MAX_OBJECT // QUANTUM,
            max_object=_MAX_OBJECT,
            server_copy=True,
            bulk_delete=BATCH,
            presign=signs,
            settles_doubt=True,
            versions=True,
            exact_keys=self._google,
            private_namespace=not self._google,
            dot_segments=True,
            max_reads=self._max_connections,
            max_writes=self._max_connections,
            max_requests=self._max_connections,
            max_metadata_bytes=_MAX_METADATA,
        )

    async def open(self, context: DriverContext) -> None:
        """Read the credentials; nobody is asked anything yet."""
        if self._open is not None:
            raise ClosedError("this driver is open in another store: make one for each")
        self._redactor.add_urls(*proxy_urls(self._proxy_url, trust_env=self._trust_env))
        self._backend = context.backend
        if not self._anonymous:
            self._credentials = Credentials(
                self._identity, self._redactor, trust_env=self._trust_env
            )
            try:
                await self._credentials.open()
            except ConfigError as error:
                source = self._credentials_from or _source_in_environment()
                error.message = f"{source}{error.message}"
                raise
            self._capabilities = self._claimed(signs=self._credentials.can_sign)
        self._transport = transport_over(
            context.timeout, tls=self._tls, proxy=self._proxy_url, trust_env=self._trust_env
        )
        client = Client(self._transport, self._origin, self._credentials, self._redactor)
        buckets = Buckets(client, self._location, self._bucket_storage_class)
        known = BucketExistenceCache(buckets.head)
        doubts = Doubts(client, known, self._backend)
        self._open = _Open(
            client=client,
            buckets=buckets,
            known=known,
            doubts=doubts,
            bodies=Bodies(
                client, known, self._head, xml=self._google or None, backend=self._backend
            ),
            deleter=Deleter(client, known, self.delete),
            copier=Copier(
                client, known, self._head, doubts, self._backend, defaults=self._defaults
            ),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        self._open = None
        credentials, self._credentials = self._credentials, None
        transport, self._transport = self._transport, None
        if credentials is not None:
            await credentials.aclose()
        if transport is not None:
            await transport.aclose()

    @property
    def _opened(self) -> _Open:
        if self._open is None:
            raise ClosedError("the driver is not open")
        return self._open

    @property
    def _client(self) -> Client:
        return self._opened.client

    async def ping(self) -> None:
        """Ask for a bucket; that one may not see any is an answer, too."""
        await self._opened.buckets.ping(_NO_PROJECT)

    def place(self, bucket: str, key: str) -> Hashable:
        """Tell where the object lies physically: Google's bucket names are one space."""
        return ("gcs", "googleapis" if self._google else self._origin, bucket, key)

    # -- objects ---------------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request. See `AsyncDriver.put`."""
        check_key(bucket, key)
        options = self._defaults.applied(options)
        content_type, body = related(
            resource_of(options, key), options.content_type or DEFAULT_TYPE, views
        )
        target = upload_path(bucket) + _INSERT + self._defaults.more
        headers = {"content-type": content_type}
        try:
            if options.conditional:
                with map_condition_errors(options):
                    target += _more(await self._precondition(bucket, options))
                    said = await self._client.ask("POST", target, headers, body)
            elif options.in_doubt_since is not None:
                settled = await self._opened.doubts.of_put(bucket, key, options)
                if isinstance(settled, ObjectInfo):
                    return settled
                with replaced_meanwhile():
                    said = await self._client.ask("POST", target + _more(settled), headers, body)
            else:
                said = await self._client.ask("POST", target, headers, body)
        except NotFoundError as error:
            raise BucketNotFoundError(error.message) from error
        return info_of(said, bucket=bucket, backend=self._backend)

    async def _precondition(self, bucket: str, options: PutOptions) -> Mapping[str, str]:
        try:
            return precondition(options)
        except PreconditionFailedError:
            await self._opened.buckets.head(bucket)  # a missing bucket comes before a condition
            raise

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open an object's body, as it is stored. See `AsyncDriver.get`."""
        return Reader(self._opened.bodies.open, bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return what is known of the object. See `AsyncDriver.head`."""
        return await self._head(bucket, key, version_id)

    async def _head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        target = object_path(bucket, key) + _FACTS
        if version_id is not None:
            target += _more({"generation": version_id})
        said = await found(self._opened.known, bucket, key, self._client.ask("GET", target))
        if is_dots(key) and said.get("name") != key:
            # The server took the key for a step in the path: this is a bucket, or a listing.
            raise ObjectNotFoundError("the service has no object of that key that it can address")
        return info_of(said, bucket=bucket, backend=self._backend)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. See `AsyncDriver.delete`."""
        query = {}
        if options.version_id is not None:
            query["generation"] = options.version_id
        try:
            if options.in_doubt_since is not None and not (options.if_match or query):
                query = await self._opened.doubts.of_delete(bucket, key, options)
                with replaced_meanwhile():
                    await self._delete(bucket, key, query)
                return
            with map_condition_errors(options):
                if options.if_match is not None:
                    query["ifGenerationMatch"] = generation_of(options.if_match)
                await self._delete(bucket, key, query)
        except ObjectNotFoundError:
            pass  # it is gone

    async def _delete(self, bucket: str, key: str, query: Mapping[str, str]) -> None:
        if is_dots(key):
            await self._head(bucket, key)  # what is not addressed by its key is not deleted either
        target = object_path(bucket, key) + encode_query(query)
        await found(self._opened.known, bucket, key, self._client.done("DELETE", target))

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 100 keys in one request. See `BulkDeleting.delete_many`."""
        return await self._opened.deleter.delete(bucket, keys)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket's objects. See `AsyncDriver.list_page`."""
        try:
            return await list_page(self._client, bucket, options, self._backend)
        except NotFoundError as error:
            raise BucketNotFoundError(error.message) from error

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload in parts. See `Uploading.upload`."""
        check_key(bucket, key)
        return ResumableUpload(
            self._client, bucket, key, options, self._backend, defaults=self._defaults
        )

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy on the service's side. See `Copying.copy`."""
        check_key(dst_bucket, dst_key)
        return await self._opened.copier.copy(src_bucket, src_key, dst_bucket, dst_key, options)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of the versions of the bucket's objects. See `Versioned.version_page`.

        All versions of one key are held at once: the service tells the oldest first.
        """
        try:
            return await version_page(self._client, bucket, options, self._backend)
        except NotFoundError as error:
            raise BucketNotFoundError(error.message) from error

    async def compose(
        self, bucket: str, keys: Sequence[str], key: str, options: PutOptions | None = None
    ) -> ObjectInfo:
        """Make one object out of others of its bucket, one after the other, on the service's side.

        The sources stay. The object's size, and its CRC-32C where that of each source is known, are
        compared with theirs; it may be one of them, which then grows. It is made atomically.

        Args:
            bucket: An existing bucket.
            keys: The sources, 1 to 32, in the order of their content; one may come repeatedly. Each
                is held to the version that it has at the beginning.
            key: The object's key.
            options: What is said of the object, and its conditions, as of `put`.

        Returns:
            The object as stored.

        Raises:
            ValueError: There are no sources, or more than 32.
            ObjectNotFoundError: There is no such source.
            ObjectChangedError: A source was replaced or deleted meanwhile; nothing was made.
            IntegrityError: The object is not what the sources are, or they are not what was
                promised in `options`.
            Otherwise as `put`.
        """
        check_key(bucket, key)
        composer = Composer(self._client, self.head, self._backend, defaults=self._defaults)
        return await composer.compose(bucket, keys, key, options or PutOptions())

    async def set_custom_time(
        self, bucket: str, key: str, when: datetime, *, if_match: str | ObjectInfo | None = None
    ) -> None:
        """Set the object's custom time, which lifecycle rules may count from.

        It moves forward only. A copy within this backend has it too, a new body has none.

        Args:
            bucket: The bucket.
            key: The object's key.
            when: An aware time.
            if_match: Only of this version: its etag, or its ObjectInfo.

        Raises:
            NotSupportedError: It is later already; nothing was done.
            ObjectNotFoundError: There is no such object. BucketNotFoundError: no such bucket.
            PreconditionFailedError: ``if_match`` and another version is there.
            ObjectChangedError: It, or what is said of it, was changed meanwhile; nothing was done.
            ValueError: `when` has no time zone.
        """
        etag = if_match.etag if isinstance(if_match, ObjectInfo) else if_match
        client, path = self._client, object_path(bucket, key)
        await found(self._opened.known, bucket, key, set_custom_time(client, path, when, etag))

    async def presign(
        self,
        method: str,
        bucket: str,
        key: str,
        expires: float,
        options: PresignOptions = NOTHING_FIXED,
    ) -> str:
        """Return a URL that allows one method for up to seven days. See `Presigning.presign`."""
        check_key(bucket, key)
        if not {".", ".."}.isdisjoint(key.split("/")):
            raise NotSupportedError("in a URL, a key's segment of dots leads to another object")
        seconds = math.ceil(expires)
        if not 0 < seconds <= MOST_SECONDS:
            raise NotSupportedError(f"a URL is good for up to {MOST_SECONDS} seconds")
        credentials = self._credentials
        if credentials is None or not credentials.can_sign:
            raise NotSupportedError("nobody signs: a service account does, and there is none")
        email = await credentials.email()
        url = unsigned(
            method,
            self._origin,
            bucket,
            key,
            email=email,
            expires=seconds,
            now=time.time(),
            options=options,
        )
        return url.signed(await credentials.signature(url.to_sign, email))

    # -- buckets ---------------------------------------------------------------------------------------

    async def set_versioning(self, bucket: str, enabled: bool) -> None:  # noqa: FBT001 - the verb's
        """Make the bucket keep what its objects were before, or keep no more from now on.

        What it kept stays, until it is deleted by its id. Cloud Storage documentation, "Object
        Versioning".

        Args:
            bucket: An existing bucket.
            enabled: Whether versions are kept.

        Raises:
            BucketNotFoundError: There is no such bucket.
            PermissionDeniedError: These credentials may not do so.
            ClosedError: The driver is not open.
        """
        await self._opened.buckets.set_versioning(bucket, enabled=enabled)

    async def create_bucket(self, bucket: str) -> None:
        """Make the bucket, in the project. See `AsyncDriver.create_bucket`."""
        project = await self._project()
        await self._opened.buckets.create(bucket, project)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket. See `AsyncDriver.delete_bucket`."""
        opened = self._opened
        opened.known.forget(bucket)
        await opened.buckets.delete(bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return what is known of the bucket. See `AsyncDriver.head_bucket`."""
        return await self._opened.buckets.head(bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the project's buckets. See `AsyncDriver.list_buckets`."""
        project = await self._project()
        return await self._opened.buckets.list(project)

    async def _project(self) -> str:
        project = self._identity.project
        if project is None and self._credentials is not None:
            project = await self._credentials.project()
        if project is None and self._google:
            raise ConfigError("buckets are made and listed in a project: give the driver one")
        return project or _NO_PROJECT


class _Open(NamedTuple):
    """What there is while the driver is open."""

    client: Client
    buckets: Buckets
    known: BucketExistenceCache
    doubts: Doubts
    bodies: Bodies
    deleter: Deleter
    copier: Copier


def _emulator() -> str | None:
    """Return the server that Google's own libraries are told of for tests."""
    host = os.environ.get("STORAGE_EMULATOR_HOST")
    if not host:
        return None
    return (host if "://" in host else f"http://{host}").rstrip("/")


def _more(query: Mapping[str, str]) -> str:
    """Return what is to follow a query."""
    return "".join([f"&{name}={value}" for name, value in query.items()])


def _source_of(credentials: str | os.PathLike[str] | Mapping[str, Any] | None) -> str | None:
    """Return where credentials are read from, to begin a message with: never their content.

    None: from where Google's own tools look.
    """
    if credentials is None:
        return None
    if isinstance(credentials, Mapping):
        return "credentials: "
    if not isinstance(credentials, (str, os.PathLike)):
        kind = type(credentials).__name__
        del credentials  # perhaps the content of the file, as bytes
        raise TypeError(f"credentials must be a path, or a file's content as a mapping, got {kind}")
    path = os.fspath(credentials)
    if not path:
        raise ConfigError("credentials must not be empty: leave them out to use the environment's")
    return _named("credentials", path)


def _source_in_environment() -> str:
    """Return where Google's own tools are told to look, to begin a message with."""
    path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    return _named("GOOGLE_APPLICATION_CREDENTIALS", path) if path else ""


def _named(by: str, path: str) -> str:
    # Somebody may have passed the content of the file in place of its path.
    return f"{by}: " if {"{", "\n"} & set(path) else f"{by} {path!r}: "
