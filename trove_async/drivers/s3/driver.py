"""The S3 driver: implements the driver contract with S3's operations."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Awaitable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal

from trove_async._concurrency import CloseStack
from trove_async._http import Opening, Reader, check_proxy
from trove_async._http.services import map_condition_errors
from trove_async._secrets import Redactor, Secret
from trove_async.driver import (
    CannotCopyError,
    Capabilities,
    DriverContext,
    DriverInUseError,
    DriverReader,
    Upload,
)
from trove_async.errors import (
    ClosedError,
    NotFoundError,
    NotSupportedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
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

from . import _buckets
from ._capabilities import capabilities_of
from ._client import AddressingStyle
from ._components import Components, build_components
from ._credentials import Endpoint, Identity
from ._data_plane import DataPlane, UnconfirmedWriteError, confirm_stored
from ._dialects import UNKNOWN, Dialect, DialectName
from ._directories import raise_if_directory
from ._errors import bucket_not_found
from ._features import WriteKind
from ._multipart import MultipartUpload, abort_unfinished_uploads
from ._object_settings import ObjectSettings
from ._pages import list_objects_page, list_versions_page
from ._resumed_upload import ResumedUpload
from ._settings import Settings
from ._write_checks import check_get_conditions, check_storable

_AMAZON: Final = "https://s3.us-east-1.amazonaws.com"
"""The endpoint of a driver without `endpoint_url`, until `open` looks it up."""


class S3Driver:
    """A backend in Amazon S3 or an S3-compatible service.

    Missing settings are looked up as in the AWS SDKs: in the environment, the profile, and the
    metadata of the container or instance. Temporary credentials from there are renewed before they
    expire.

    Args:
        region: The region. us-east-1 if none is configured.
        endpoint_url: The URL of a service other than Amazon's, such as
            ``https://minio.example:9000``.
        access_key_id: The access key ID.
        secret_access_key: The secret access key.
        session_token: The session token of temporary credentials.
        profile: A profile in the SDK's configuration files.
        role_arn: A role to assume with these credentials.
        addressing_style: ``"path"`` puts the bucket in the URL's path, ``"virtual"`` in its host
            name. ``"auto"`` uses the host name on Amazon S3 if the bucket's name is valid there.
        expected_bucket_owner: The account that must own every bucket. A bucket of another owner
            raises PermissionDeniedError.
        max_connections: The maximum number of readers that hold a connection. If another
            reader waits, a store releases the connection of an idle one, which reconnects for its
            next read. The same limit applies separately to concurrent writes and to other
            concurrent requests.
        parallel_parts: The maximum number of parts of one upload in flight, and of ranges of one
            object that are read concurrently. An upload of bytes sends as many at once. Any other starts
            with 8 parts at once, or half of this if that is more, because each holds memory of the pool.
            It sends more only over a slow network, if that makes it faster.
        checksums: Whether to send a CRC-32C with each body for the service to verify and store, and
            to request checksums with reads. Pass False for services that reject them. Then only
            the size of a body is verified, and TLS or the signature protects it in transit.
        payload_signing: Whether to sign the SHA-256 of each body, which costs at least half a
            second of CPU per GiB. None signs over plain http only. With False over plain http, the
            CRC-32C detects corruption in transit but not tampering, because an attacker can change
            both the body and the CRC-32C.
        dialect: How the service deviates from Amazon S3, for which the value is ignored. ``"s3"``: it
            lists in order, keeps every key, and honours tags, encryption and all conditions except
            those of deletes. ``"seaweedfs"``: it lists in a different order and cannot hold all
            keys. ``"ceph"``: it ignores tags of multipart uploads and of copies, and conditions of
            all writes except puts in unversioned buckets.
            ``"auto"``: the driver sends a request to recognise the service when it is opened. If
            there is no response, the driver tries again when it first needs the dialect, and
            reports that listings are unordered. A service that responds but is not recognised is
            expected to list in order. Its only conditional writes are puts in one request.
            Unless the value is ``"s3"`` or the service is Amazon S3, the driver tests features that
            the service may ignore: conditions of a put, tags and encryption. It tests each feature
            once per bucket, before the first write that needs it. It also tests, once per service,
            whether unusual keys are kept (an empty segment, a leading or trailing slash, a
            backslash). For a test it writes one-byte objects, ``trove-probe-…``, next to the key if
            possible, and deletes them.
        tls: The TLS context, for a service with a private certificate authority.
        proxy: The URL of an HTTP proxy for all requests to the service. Requests for credentials use
            only the proxies of `trust_env`.
        trust_env: Whether to use HTTPS_PROXY, HTTP_PROXY and NO_PROXY: for requests to the service
            if `proxy` is None, and always for credentials.
        data_plane: ``"lean"`` signs and sends requests in this driver. ``"sdk"`` uses
            aiobotocore, which takes ten times the CPU time.
        storage_class: The storage class of puts and copies that do not set one. The service's
            default if None.
        server_side_encryption: How the service encrypts objects: ``"AES256"``, ``"aws:kms"`` or
            ``"aws:kms:dsse"``. The bucket's default if None. If a service other than Amazon's
            ignores it, a write raises NotSupportedError and stores nothing. With ``dialect="s3"``
            the driver does not test this.
        kms_key_id: The key to use with ``"aws:kms"`` or ``"aws:kms:dsse"``: its ID, ARN or alias.
        bucket_key_enabled: Whether to use a bucket key, which reduces requests to the key service.
        sse_customer_key: Your own 32-byte key (SSE-C). The service encrypts and decrypts with it
            and does not store it. If you lose it, the objects are lost. Requests contain it,
            so plain http is allowed to this machine only, and URLs cannot be presigned.
        requester_pays: Whether you pay for requests to Requester Pays buckets. URLs cannot be
            presigned then.
        resume_uploads: A directory in which uploads in parts are recorded. An upload that fails, or is
            interrupted or killed, is then kept, and the next put of the same key, with the same size and
            headers, sends only the parts whose bytes the service does not have. The parts cost storage
            until then, or until `gc_uploads`. Bodies that a middleware encodes differ in each put, so
            they are sent again. None: such an upload is aborted.

    Raises:
        ConfigError: An argument is invalid, or two contradict each other.
        TypeError: An argument has the wrong type.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        profile: str | None = None,
        role_arn: str | None = None,
        addressing_style: AddressingStyle = "auto",
        expected_bucket_owner: str | None = None,
        max_connections: int = 64,
        parallel_parts: int = 16,
        checksums: bool = True,
        payload_signing: bool | None = None,
        dialect: DialectName = "auto",
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        trust_env: bool = True,
        data_plane: Literal["lean", "sdk"] = "lean",
        storage_class: str | None = None,
        server_side_encryption: str | None = None,
        kms_key_id: str | None = None,
        bucket_key_enabled: bool | None = None,
        sse_customer_key: bytes | None = None,
        requester_pays: bool = False,
        resume_uploads: str | os.PathLike[str] | None = None,
    ) -> None:
        # 1. Collect the arguments, and delete the secrets from the local variables: a traceback that
        # records local variables would show them.
        self._identity = Identity(
            region=region,
            endpoint_url=endpoint_url,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            session_token=session_token,
            profile=profile,
            role_arn=role_arn,
            trust_env=trust_env,
        )
        self._object_settings = ObjectSettings(
            storage_class=storage_class,
            server_side_encryption=server_side_encryption,
            kms_key_id=kms_key_id,
            bucket_key_enabled=bucket_key_enabled,
            sse_customer_key=sse_customer_key,
            requester_pays=requester_pays,
        )
        secret_proxy = None if proxy is None else Secret(proxy)
        del secret_access_key, session_token, sse_customer_key, proxy
        # 2. Check the arguments.
        self._identity.check()
        self._object_settings.check()
        if secret_proxy is not None:
            secret_proxy = Secret(check_proxy(secret_proxy.reveal()))
        self._settings = Settings(
            addressing_style=addressing_style,
            bucket_owner=expected_bucket_owner,
            max_connections=max_connections,
            parallel_parts=parallel_parts,
            checksums=checksums,
            payload_signing=payload_signing,
            dialect=dialect,
            tls=tls,
            proxy=secret_proxy,
            trust_env=trust_env,
            data_plane=data_plane,
            resume_uploads=os.fspath(resume_uploads)
            if isinstance(resume_uploads, os.PathLike)
            else resume_uploads,
        )
        self._settings.check()
        # 3. Set the state of a driver that is not open.
        self._endpoint = Endpoint.from_url(endpoint_url or _AMAZON, region or "us-east-1")
        self._capabilities = self._capabilities_of(UNKNOWN)
        self._components: Components | None = None
        self._resources: CloseStack | None = None  # from the start of `open` to the end of `aclose`
        self._redactor = Redactor()
        self._redactor.add(*self._object_settings.secrets)

    def redact(self, error: TroveError) -> None:
        """Remove this driver's secrets from an error. See `Redacting.redact`."""
        self._redactor.redact(error)

    def __repr__(self) -> str:
        if not hasattr(self, "_endpoint"):
            return "<S3Driver, not initialised>"  # its constructor raised
        endpoint = self._endpoint  # final once the driver is open
        return f"<S3Driver at {'Amazon S3' if endpoint.is_standard_aws else endpoint.origin.url}>"

    @property
    def name(self) -> str:
        """The service's name."""
        return "s3"

    @property
    def capabilities(self) -> Capabilities:
        """The driver's capabilities. `open` updates them if it knows or recognises the service."""
        return self._capabilities

    def _capabilities_of(self, dialect: Dialect) -> Capabilities:
        return capabilities_of(
            self._endpoint,
            dialect,
            self._object_settings,
            lean=self._settings.data_plane == "lean",
            checksums=self._settings.checksums,
            parallel_parts=self._settings.parallel_parts,
            connections=self._settings.max_connections,
        )

    async def open(self, context: DriverContext) -> None:
        """Look up the endpoint, and recognise the service unless it is Amazon S3 or `dialect` names it.

        Raises:
            DriverInUseError: The driver is open, or being opened, in another store.
            ConfigError: The profile, the region or the endpoint is invalid.
        """
        if self._resources is not None:
            raise DriverInUseError(
                "this driver is open in another store: create one for each store"
            )
        # Set before the first await: another store may open the driver concurrently. `aclose` resets
        # it, also after an error.
        self._resources = CloseStack()
        components = await build_components(
            self._settings,
            self._identity,
            self._object_settings,
            redactor=self._redactor,
            context=context,
            resources=self._resources,
        )
        self._components = components
        self._endpoint = components.endpoint
        self._capabilities = self._capabilities_of(components.service.dialect)

    async def aclose(self) -> None:
        """Cancel probes that are running, and close all connections. Idempotent.

        A closed driver can be opened again. After a cancel, a second call continues.
        """
        self._components = None
        resources = self._resources
        if resources is None:
            return
        try:
            await resources.aclose()
        finally:
            # A concurrent call may have closed the driver, and a different store may have opened it.
            if resources.is_empty and resources is self._resources:
                self._resources = None

    @property
    def client(self) -> Awaitable[Any]:
        """An open client of the AWS SDK: ``client = await driver.client``.

        Use it for operations that the driver does not wrap: lifecycle rules, bucket policies, the
        tags of an existing object, encryption defaults, … It is aiobotocore's S3 client with this
        driver's endpoint, region and credentials. It is created on first use and closed with the
        driver. Its calls raise the SDK's errors, are not retried, and ignore
        `expected_bucket_owner` and `tls` (set AWS_CA_BUNDLE instead).

        Raises:
            ClosedError: The driver is not open.
        """
        return self._open_components.lazy_sdk.sdk()

    @property
    def _open_components(self) -> Components:
        if self._components is None:
            raise ClosedError("the driver is not open")
        return self._components

    @property
    def _plane(self) -> DataPlane:
        return self._open_components.plane

    async def ping(self) -> None:
        """List the buckets. PermissionDeniedError is ignored: it proves that the service is up."""
        with suppress(PermissionDeniedError):
            await self.list_buckets()

    def place(self, bucket: str, key: str) -> Hashable:
        """Return the physical location of an object."""
        return ("s3", self._endpoint.bucket_namespace, bucket, key)

    # -- objects -----------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request. See `AsyncDriver.put`."""
        components = self._components or self._open_components
        plane, checks = components.plane, components.write_checks
        if checks.write_needs_check("put", key, options):
            await checks.check_write("put", bucket, key, options)
        if self._object_settings.storage_class is not None:
            options = self._object_settings.with_storage_class(options)
        try:
            if options.if_match is options.if_none_match is None:  # nearly every put
                return await plane.put_object(bucket, key, views, options)
            with map_condition_errors(options):
                return await plane.put_object(bucket, key, views, options)
        except UnconfirmedWriteError as unconfirmed:
            return await confirm_stored(plane, unconfirmed.info)
        except ObjectExistsError as error:
            if components.service.dialect.directories:
                await raise_if_directory(plane, error, bucket, key)
            raise

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open an object's body. See `AsyncDriver.get`."""
        return Opening(self.fetch, bucket, key, options)

    async def fetch(self, bucket: str, key: str, options: GetOptions) -> Reader:
        """Open an object's body. See `Fetching.fetch`."""
        components = self._components or self._open_components
        if components.write_checks.key_needs_check(key):
            await components.write_checks.check_existing_key(bucket, key)
        result = await components.plane.get_object(bucket, key, options)
        if options.if_match is not None or options.if_none_match is not None:
            try:
                check_get_conditions(result.info, options)
            except PreconditionFailedError:
                result.body.close()
                raise
        return Reader(result, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return information about the object, including its tags. See `AsyncDriver.head`."""
        components = self._components or self._open_components
        if components.write_checks.key_needs_check(key):
            await components.write_checks.check_existing_key(bucket, key)
        try:
            return await components.plane.head_object(bucket, key, version_id)
        except NotFoundError as error:
            specific = await _buckets.specific_error(error, bucket, components.known_buckets.exists)
            if specific is error:
                raise
            raise specific from error

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. See `AsyncDriver.delete`."""
        if options.if_match is not None:
            with map_condition_errors(options):
                await self._delete(bucket, key, options)
            return
        with suppress(ObjectNotFoundError):
            await self._delete(bucket, key, options)

    async def _delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        components = self._components or self._open_components
        if components.write_checks.key_needs_check(key):
            await components.write_checks.check_existing_key(bucket, key, deletes=True)
        await components.plane.delete_object(bucket, key, options)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 1,000 keys. See `BulkDeleting.delete_many`."""
        components = self._open_components
        storable = await components.write_checks.storable_keys(bucket, keys)
        results = await components.plane.delete_objects(bucket, storable) if storable else []
        if len(storable) == len(keys):
            return results
        # No object has any of the other keys, so there is nothing to delete.
        absent = set(keys).difference(storable)
        return [*results, *(DeleteResult(key=key) for key in absent)]

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket's objects. See `AsyncDriver.list_page`."""
        components = self._open_components
        if await components.write_checks.excludes_prefix(bucket, options.prefix):
            return Page(entries=())
        return await list_objects_page(
            components.plane,
            components.service.dialect,
            bucket,
            options,
            ordered=self._capabilities.ordered,
        )

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of the versions of the bucket's objects. See `Versioned.version_page`."""
        components = self._open_components
        if await components.write_checks.excludes_prefix(bucket, options.prefix):
            return VersionPage(entries=())
        return await list_versions_page(
            components.plane,
            components.service.dialect,
            bucket,
            options,
            ordered=self._capabilities.ordered,
        )

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open a multipart upload. See `Uploading.upload`."""
        components = self._open_components
        directories = components.service.dialect.directories
        with_class = self._object_settings.with_storage_class(options)
        records = self._settings.resume_uploads
        upload: MultipartUpload
        if records is None:
            upload = MultipartUpload(
                components.plane, bucket, key, with_class, directories=directories
            )
        else:
            upload = ResumedUpload(
                components.plane,
                bucket,
                key,
                with_class,
                records=records,
                address=f"{self._endpoint.origin.url}/{bucket}/{key}",
                directories=directories,
            )
        checks = components.write_checks
        if checks.write_needs_check("upload", key, options):
            return checks.checked_upload(upload, bucket, key, options)
        return upload

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy an object within the service. See `Copying.copy`."""
        options = replace(options, put=self._object_settings.with_storage_class(options.put))
        components = self._open_components
        copier, checks = components.copier, components.write_checks
        if checks.key_needs_check(dst_key):
            await checks.check_key(dst_bucket, dst_key)
        if checks.key_needs_check(src_key):
            await checks.check_existing_key(src_bucket, src_key)
        kind: WriteKind = "upload" if copier.needs_multipart(options.source) else "copy"
        try:
            await checks.check_features(kind, dst_bucket, dst_key, options.put)
        except NotSupportedError as error:
            raise CannotCopyError(error.message) from error
        return await copier.copy(src_bucket, src_key, dst_bucket, dst_key, options)

    async def presign(
        self,
        method: str,
        bucket: str,
        key: str,
        expires: float,
        options: PresignOptions = NOTHING_FIXED,
    ) -> str:
        """Return a URL that allows one method for up to seven days. See `Presigning.presign`."""
        components = self._open_components
        if components.write_checks.key_needs_check(key):
            if method == "PUT":
                await components.write_checks.check_key(bucket, key)
            else:
                check_storable(components.service.dialect, bucket, key)
        return await components.plane.presign(method, bucket, key, math.ceil(expires), options)

    async def gc_uploads(self, bucket: str, *, older_than: float) -> int:
        """Abort the bucket's unfinished multipart uploads and return their number.

        If a process dies during an upload, the parts cost storage until the upload is aborted. Only
        its age distinguishes such an upload from one in progress.

        Args:
            bucket: The bucket.
            older_than: The minimum age in seconds of the uploads to abort. It must exceed the
                duration of any upload.

        Raises:
            ValueError: `older_than` is negative or NaN.
            BucketNotFoundError: The bucket does not exist.
            PermissionDeniedError: The credentials do not permit it.
            ClosedError: The driver is not open.
            UnavailableError: The service failed. Some uploads may have been aborted. Call again to
                abort the others.
        """
        if not older_than >= 0:
            raise ValueError(f"older_than must be a number of seconds, 0 or more, got {older_than}")
        return await abort_unfinished_uploads(self._plane, bucket, older_than)

    async def unfinished_uploads(self, bucket: str) -> Sequence[datetime]:
        """Return when the bucket's unfinished multipart uploads began, at most a thousand of them.

        Raises:
            BucketNotFoundError: The bucket does not exist.
            PermissionDeniedError: The credentials do not permit it.
            ClosedError: The driver is not open.
            UnavailableError: The service failed.
        """
        page = await self._plane.list_uploads(bucket, None)
        return [upload.initiated for upload in page.uploads]

    # -- buckets -----------------------------------------------------------------------------------

    async def set_versioning(self, bucket: str, enabled: bool) -> None:  # noqa: FBT001 - the only flag
        """Enable or suspend the versioning of a bucket.

        Existing versions stay until they are deleted by id. Versioning can be suspended but never
        removed. S3 User Guide, "Using versioning in S3 buckets".

        Args:
            bucket: An existing bucket.
            enabled: Whether the bucket keeps new versions.

        Raises:
            BucketNotFoundError: The bucket does not exist.
            PermissionDeniedError: The credentials do not permit it.
            ClosedError: The driver is not open.
        """
        try:
            await self._plane.set_versioning(bucket, enabled=enabled)
        finally:  # the change may have happened even if the response was lost
            self._forget(bucket)

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket in this driver's region. See `AsyncDriver.create_bucket`."""
        await _buckets.create(self._plane, bucket)
        self._forget(bucket)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket. See `AsyncDriver.delete_bucket`."""
        try:
            await self._plane.delete_bucket(bucket)
        except ObjectNotFoundError as error:
            # Ceph 16.2 returns this for a bucket that a concurrent request is deleting.
            raise bucket_not_found(error, bucket) from error
        finally:  # not earlier: a concurrent request may find the bucket until then
            self._forget(bucket)

    def _forget(self, bucket: str) -> None:
        """Discard what is cached about a bucket that may have changed."""
        components = self._components
        if components is not None:
            components.known_buckets.forget(bucket)
            components.write_checks.forget(bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return information about the bucket. See `AsyncDriver.head_bucket`."""
        return await _buckets.head(self._plane, bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own. See `AsyncDriver.list_buckets`."""
        return await _buckets.list_sorted(self._plane)
