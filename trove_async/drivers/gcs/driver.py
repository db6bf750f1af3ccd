"""The GCS driver. It implements the driver contract on Cloud Storage's JSON and XML APIs."""

from __future__ import annotations

import math
import os
import ssl
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final

from trove_async._concurrency import CloseStack
from trove_async._http import (
    Opening,
    Origin,
    Reader,
    check_proxy,
    check_tls,
    proxy_urls,
    transport_over,
)
from trove_async._http.services import map_condition_errors
from trove_async._secrets import Redactor, Secret
from trove_async._settings import check_counts, check_switches, check_texts
from trove_async.driver import (
    Capabilities,
    DriverContext,
    DriverInUseError,
    DriverReader,
    Upload,
)
from trove_async.errors import (
    ClosedError,
    ConfigError,
    NotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import BucketInfo, DeleteResult, ObjectInfo
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

from ._capabilities import capabilities
from ._client import Client, default_endpoint
from ._components import Components, build_components
from ._compose import Composer
from ._credentials import Credentials, Identity, describe_environment_source, describe_source
from ._custom_time import set_custom_time
from ._defaults import Defaults
from ._encoding import (
    append_query,
    check_key,
    encode_query,
    is_dot_segment,
    object_path,
    upload_path,
)
from ._errors import bucket_not_found
from ._list_objects import list_page
from ._lost_responses import resolve_not_found, retry_if_replaced
from ._multipart import encode_related
from ._resources import (
    DEFAULT_TYPE,
    FIELDS,
    condition_query,
    encode_resource,
    info_from_resource,
    require_generation,
)
from ._signing import MAX_EXPIRES, build_url
from ._upload import ResumableUpload
from ._versions import version_page

_GOOGLE_DOMAIN: Final = ".googleapis.com"

_INSERT_QUERY: Final = encode_query({"uploadType": "multipart", "fields": FIELDS})
_FIELDS_QUERY: Final = encode_query({"fields": FIELDS})

_NO_PROJECT: Final = "-"
"""A placeholder for servers without projects, which ignore it. Google's service rejects it."""


class GCSDriver:
    """A backend in Google Cloud Storage, or in a server with the same API.

    Without `credentials`, the driver uses Application Default Credentials as Google's tools do:
    ``GOOGLE_APPLICATION_CREDENTIALS``, the file written by ``gcloud auth application-default
    login``, or the metadata server of a Google Cloud machine.

    The etag of an object is its generation, which is also its ``version_id``. Older generations
    can be read only if versioning of the bucket has kept them: see `set_versioning`.

    Metadata names are returned in lower case. The service distinguishes case: if other tools
    stored two names that differ only in case, both keep their spelling.

    Args:
        project: The project for creating and listing buckets. Default: the credentials' project,
            else ``GOOGLE_CLOUD_PROJECT`` or ``GCLOUD_PROJECT``, else that of the Google Cloud
            machine.
        credentials: The path of a credentials file, such as a service account's key, or its
            content as a mapping. Default: Application Default Credentials.
        endpoint_url: The URL of the service, for example ``http://localhost:4443``. Default:
            ``STORAGE_EMULATOR_HOST`` if it is set, else Google's service.
        anonymous: Whether to send no credentials. None: only if the endpoint is not Google's and
            `credentials` is None.
        location: The location of new buckets (``"EU"``, ``"us-east1"``). Default: the service
            chooses.
        token_origins: Origins that may issue tokens in addition to Google's own hosts, as
            ``https://host[:port]``: a private mirror, a different universe domain, or a test server
            over ``http``. Credentials that name any other issuer are rejected, because otherwise
            the credentials would decide where a signed assertion or a client secret is sent.
        bucket_storage_class: The default storage class of new buckets. Default: the service
            chooses.
        max_connections: The maximum number of open readers, of concurrent writes, and of other
            concurrent requests. Each of the three is counted separately.
        tls: The TLS context, for example to trust a private certificate authority.
        proxy: The URL of an HTTP proxy for all requests to the service. Requests for access tokens
            and remote signatures do not use this proxy: see `trust_env`.
        trust_env: Whether to use HTTPS_PROXY, HTTP_PROXY and NO_PROXY: for requests to the service
            if `proxy` is None, and always for access tokens and remote signatures.
        storage_class: The storage class of new objects if the options of the put, copy or compose
            specify none. Default: the bucket's.
        kms_key_name: The Cloud KMS key that encrypts new objects and copies:
            ``projects/P/locations/L/keyRings/R/cryptoKeys/K``. Default: the bucket's.

    Raises:
        ConfigError: The arguments contradict each other or have invalid values.
        TypeError: An argument has the wrong type.
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
        # 1. Wrap the secrets before anything can raise.
        has_credentials, secret_credentials = credentials is not None, Secret(credentials)
        self._credentials_source = describe_source(credentials)
        secret_proxy = None if proxy is None else Secret(proxy)
        del credentials, proxy  # error reporters record the local variables of a traceback
        # 2. Validate the arguments.
        if anonymous and has_credentials:
            raise ConfigError("anonymous and credentials exclude each other: pass one of the two")
        check_texts(project=project, location=location, bucket_storage_class=bucket_storage_class)
        check_switches(anonymous=anonymous, trust_env=trust_env)
        check_counts(max_connections=max_connections)
        check_tls(tls)
        origins = (token_origins,) if isinstance(token_origins, str) else token_origins
        if not isinstance(origins, Collection):
            raise TypeError(
                f"token_origins must be a URL or a collection of URLs, got {type(origins).__name__}"
            )
        # 3. Store them, and derive the defaults.
        self._defaults = Defaults(storage_class=storage_class, kms_key_name=kms_key_name)
        self._identity = Identity(
            credentials=secret_credentials,
            project=project,
            token_origins=frozenset(map(Origin.of, origins)),
        )
        self._origin = Origin.of(endpoint_url or default_endpoint())
        self._is_google = self._origin.host.endswith(_GOOGLE_DOMAIN)
        self._anonymous = (
            not (self._is_google or has_credentials) if anonymous is None else anonymous
        )
        self._location = location
        self._bucket_storage_class = bucket_storage_class
        self._max_connections = max_connections
        self._tls = tls
        self._proxy = None if secret_proxy is None else Secret(check_proxy(secret_proxy.reveal()))
        self._trust_env = trust_env
        self._capabilities = self._build_capabilities(can_sign=not self._anonymous)
        self._credentials: Credentials | None = None
        self._resources: CloseStack | None = None  # from the start of `open` to the end of `aclose`
        self._open_components: Components | None = None
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
            return "<GCSDriver, not initialised>"  # the constructor raised
        return f"<GCSDriver at {self._origin.url}>"

    @property
    def name(self) -> str:
        """``"gcs"``."""
        return "gcs"

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities. `presign` depends on the credentials, which `open` reads."""
        return self._capabilities

    def _build_capabilities(self, *, can_sign: bool) -> Capabilities:
        return capabilities(
            is_google=self._is_google, can_sign=can_sign, max_connections=self._max_connections
        )

    async def open(self, context: DriverContext) -> None:
        """Read the credentials. This sends no request to the service.

        Raises:
            DriverInUseError: The driver is open, or being opened, in another store.
            ConfigError: The credentials cannot be read, or are not valid.
        """
        if self._resources is not None:
            raise DriverInUseError(
                "this driver is open in another store: create one for each store"
            )
        # Before the first await, because another store may open the driver concurrently.
        self._resources = resources = CloseStack()
        # 1. Read the credentials.
        self._redactor.add_urls(*proxy_urls(self._proxy_url, trust_env=self._trust_env))
        self._backend = context.backend
        if not self._anonymous:
            self._credentials = Credentials(
                self._identity, self._redactor, trust_env=self._trust_env
            )
            resources.push(self._credentials.aclose)
            try:
                await self._credentials.open()
            except ConfigError as error:
                source = self._credentials_source or describe_environment_source()
                error.message = f"{source}{error.message}"
                raise
            self._capabilities = self._build_capabilities(can_sign=self._credentials.can_sign)
        # 2. Create the transport, which connects on demand, and the components that use it.
        transport = transport_over(
            context.timeout, tls=self._tls, proxy=self._proxy_url, trust_env=self._trust_env
        )
        resources.push(transport.aclose)
        self._open_components = build_components(
            Client(
                transport,
                self._origin,
                self._credentials,
                self._redactor,
                context.timeout.first_byte,
            ),
            self._head,
            self.delete,
            location=self._location,
            bucket_storage_class=self._bucket_storage_class,
            is_google=self._is_google,
            backend=self._backend,
            defaults=self._defaults,
        )

    async def aclose(self) -> None:
        """Close all connections. Idempotent. After a cancel, a second call continues."""
        self._open_components = None
        resources = self._resources
        if resources is None:
            return
        try:
            await resources.aclose()
        finally:
            # A concurrent call may have closed the driver, and a different store may have opened it.
            if resources.is_empty and resources is self._resources:
                self._credentials = None
                self._resources = None

    @property
    def _components(self) -> Components:
        """The components of the open driver. Raises ClosedError if it is not open."""
        if self._open_components is None:
            raise ClosedError("the driver is not open")
        return self._open_components

    @property
    def _client(self) -> Client:
        return self._components.client

    async def ping(self) -> None:
        """Check that the service responds, by listing at most one bucket.

        It is reachable even if it rejects the project or denies the permission.
        """
        await self._components.buckets.ping(_NO_PROJECT)

    def place(self, bucket: str, key: str) -> Hashable:
        """Return the physical location of an object. Google's bucket names are globally unique."""
        return ("gcs", "googleapis" if self._is_google else self._origin, bucket, key)

    # -- objects ---------------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request. See `AsyncDriver.put`."""
        check_key(bucket, key)
        options = self._defaults.apply(options)
        # 1. Build the request.
        content_type, body = encode_related(
            encode_resource(options, key), options.content_type or DEFAULT_TYPE, views
        )
        target = upload_path(bucket) + _INSERT_QUERY + self._defaults.create_suffix
        headers = {"content-type": content_type}
        # 2. Send it with the user's condition. Without one, a retry first finds out whether an
        # earlier attempt stored the object. If not, the retry is conditional on the current object.
        try:
            if options.conditional:
                with map_condition_errors(options):
                    target += append_query(await self._condition_query(bucket, options))
                    document = await self._client.request("POST", target, headers, body)
            elif options.in_doubt_since is not None:
                outcome = await self._components.lost_responses.before_put(bucket, key, options)
                if isinstance(outcome, ObjectInfo):
                    return outcome
                with retry_if_replaced():
                    document = await self._client.request(
                        "POST", target + append_query(outcome), headers, body
                    )
            else:
                document = await self._client.request("POST", target, headers, body)
        except NotFoundError as error:
            raise bucket_not_found(error) from error
        return info_from_resource(document, bucket=bucket, backend=self._backend)

    async def _condition_query(self, bucket: str, options: PutOptions) -> Mapping[str, str]:
        try:
            return condition_query(options)
        except PreconditionFailedError:
            # A missing bucket takes precedence over a condition.
            await self._components.buckets.head(bucket)
            raise

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open an object's body as stored. See `AsyncDriver.get`."""
        return Opening(self.fetch, bucket, key, options)

    async def fetch(self, bucket: str, key: str, options: GetOptions) -> Reader:
        """Open an object's body as stored. See `Fetching.fetch`."""
        return Reader(await self._components.downloader.open(bucket, key, options), options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the object's metadata. See `AsyncDriver.head`."""
        return await self._head(bucket, key, version_id)

    async def _head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        target = object_path(bucket, key) + _FIELDS_QUERY
        if version_id is not None:
            target += append_query({"generation": version_id})
        document = await resolve_not_found(
            self._components.bucket_cache, bucket, key, self._client.request("GET", target)
        )
        if is_dot_segment(key) and document.get("name") != key:
            # The server resolved the key as a path segment: this document is a bucket or a listing.
            raise ObjectNotFoundError("the service cannot address an object with this key")
        return info_from_resource(document, bucket=bucket, backend=self._backend)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. See `AsyncDriver.delete`."""
        query = {}
        if options.version_id is not None:
            query["generation"] = options.version_id
        try:
            if options.in_doubt_since is not None and not (options.if_match or query):
                query = await self._components.lost_responses.before_delete(bucket, key, options)
                with retry_if_replaced():
                    await self._delete(bucket, key, query)
                return
            with map_condition_errors(options):
                if options.if_match is not None:
                    query["ifGenerationMatch"] = require_generation(options.if_match)
                await self._delete(bucket, key, query)
        except ObjectNotFoundError:
            pass  # delete is idempotent

    async def _delete(self, bucket: str, key: str, query: Mapping[str, str]) -> None:
        if is_dot_segment(key):
            await self._head(bucket, key)  # a server that resolves the path would delete the bucket
        target = object_path(bucket, key) + encode_query(query)
        await resolve_not_found(
            self._components.bucket_cache, bucket, key, self._client.execute("DELETE", target)
        )

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 100 keys, if possible in one request. See `BulkDeleting.delete_many`."""
        return await self._components.deleter.delete(bucket, keys)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket's objects. See `AsyncDriver.list_page`."""
        try:
            return await list_page(self._client, bucket, options, self._backend)
        except NotFoundError as error:
            raise bucket_not_found(error) from error

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
        """Copy an object on the server. See `Copying.copy`."""
        check_key(dst_bucket, dst_key)
        return await self._components.copier.copy(src_bucket, src_key, dst_bucket, dst_key, options)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of the versions of the bucket's objects. See `Versioned.version_page`.

        All versions of one key are held in memory, because the service lists the oldest first.
        """
        try:
            return await version_page(self._client, bucket, options, self._backend)
        except NotFoundError as error:
            raise bucket_not_found(error) from error

    async def compose(
        self, bucket: str, keys: Sequence[str], key: str, options: PutOptions | None = None
    ) -> ObjectInfo:
        """Concatenate objects of one bucket on the server.

        The sources are not changed. `key` may be the key of a source, which the new object then
        replaces. The new object appears atomically. Its size is compared with the total size of the
        sources. Its CRC-32C is compared with theirs if every source has one, else with that in
        `options`. If either differs, the new object is deleted, unless it replaced a source.

        Args:
            bucket: An existing bucket.
            keys: The keys of 1 to 32 sources, in the order of their content. A key may occur more
                than once. Each source is pinned to its generation at the start.
            key: The key of the new object.
            options: Metadata and conditions, as for `put`, but without tags and expires.

        Returns:
            The metadata of the stored object.

        Raises:
            ValueError: There are no sources, or more than 32.
            NotSupportedError: The options have tags or expires.
            ObjectNotFoundError: A source does not exist.
            ObjectChangedError: A source was replaced or deleted during the call; nothing was
                stored.
            IntegrityError: The new object has an unexpected size or checksum, or the sources differ
                from `options`; in the second case, nothing was stored.
            TroveError: Otherwise as `put`.
        """
        check_key(bucket, key)
        composer = Composer(self._client, self.head, self._backend, defaults=self._defaults)
        return await composer.compose(bucket, keys, key, options or PutOptions())

    async def set_custom_time(
        self, bucket: str, key: str, when: datetime, *, if_match: str | ObjectInfo | None = None
    ) -> None:
        """Set the object's custom time, a date that lifecycle rules can refer to.

        It can only move forward. A copy within this backend keeps it. A put that replaces the
        object does not.

        Args:
            bucket: The bucket.
            key: The object's key.
            when: A datetime with a time zone.
            if_match: The etag or the ObjectInfo of the version to change. None: any version.

        Raises:
            NotSupportedError: The current custom time is later.
            ObjectNotFoundError: The object does not exist.
            BucketNotFoundError: The bucket does not exist.
            PreconditionFailedError: `if_match` names a version other than the current one.
            ObjectChangedError: Another client changed the object or its metadata during the call.
                The custom time was not set.
            ValueError: `when` has no time zone, or the ObjectInfo has no etag.
        """
        if isinstance(if_match, ObjectInfo):
            if if_match.etag is None:
                raise ValueError(f"if_match needs an etag, but object {if_match.key!r} has no etag")
            if_match = if_match.etag
        client, path = self._client, object_path(bucket, key)
        await resolve_not_found(
            self._components.bucket_cache,
            bucket,
            key,
            set_custom_time(client, path, when, if_match),
        )

    async def presign(
        self,
        method: str,
        bucket: str,
        key: str,
        expires: float,
        options: PresignOptions = NOTHING_FIXED,
    ) -> str:
        """Return a signed URL, valid for up to seven days. See `Presigning.presign`."""
        check_key(bucket, key)
        if not {".", ".."}.isdisjoint(key.split("/")):
            raise NotSupportedError(
                "a key with a `.` or `..` segment cannot be in a signed URL: clients would resolve it"
                " to a different path"
            )
        seconds = math.ceil(expires)
        if not 0 < seconds <= MAX_EXPIRES:
            raise NotSupportedError(
                f"expires must be more than 0 and at most {MAX_EXPIRES} seconds, got {expires}"
            )
        credentials = self._credentials
        if credentials is None or not credentials.can_sign:
            raise NotSupportedError(
                f"the credentials cannot sign URLs: this requires {self._capabilities.presign_requires}"
            )
        email = await credentials.email()
        url = build_url(
            method,
            self._origin,
            bucket,
            key,
            email=email,
            expires=seconds,
            now=time.time(),
            options=options,
        )
        return url.with_signature(await credentials.signature(url.to_sign, email))

    # -- buckets ---------------------------------------------------------------------------------------

    async def set_versioning(self, bucket: str, enabled: bool) -> None:  # noqa: FBT001 - the only flag
        """Turn versioning of the bucket on or off.

        Turning it off keeps the existing versions until they are deleted by their ids. Cloud
        Storage documentation, "Object Versioning".

        Args:
            bucket: An existing bucket.
            enabled: Whether the bucket keeps the versions that are replaced or deleted.

        Raises:
            BucketNotFoundError: The bucket does not exist.
            PermissionDeniedError: The credentials lack the permission.
            ClosedError: The driver is not open.
        """
        await self._components.buckets.set_versioning(bucket, enabled=enabled)

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket in the project. See `AsyncDriver.create_bucket`."""
        project = await self._project()
        await self._components.buckets.create(bucket, project)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket. See `AsyncDriver.delete_bucket`."""
        components = self._components
        try:
            await components.buckets.delete(bucket)
        finally:  # not earlier: until then, a concurrent request may cache that the bucket exists
            components.bucket_cache.forget(bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's metadata. See `AsyncDriver.head_bucket`."""
        return await self._components.buckets.head(bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the project's buckets. See `AsyncDriver.list_buckets`."""
        project = await self._project()
        return await self._components.buckets.list(project)

    async def _project(self) -> str:
        project = self._identity.project
        if project is None and self._credentials is not None:
            project = await self._credentials.project()
        if project is None and self._is_google:
            raise ConfigError(
                "creating and listing buckets requires a project: pass project=… to the driver"
            )
        return project or _NO_PROJECT
