"""The S3 driver: what the contract asks for, out of S3's operations."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import islice
from operator import attrgetter, gt
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from trove_async._concurrency import Permits, in_thread
from trove_async._http import Reader, transport_over
from trove_async._secrets import Redactor, Secret
from trove_async._services import KnownBuckets, Permit, conditioned
from trove_async.driver import Capabilities
from trove_async.errors import (
    BackendError,
    BucketExistsError,
    BucketNotFoundError,
    ClosedError,
    ConfigError,
    InvalidNameError,
    NotFoundError,
    ObjectNotFoundError,
    PermissionDeniedError,
    TroveError,
)
from trove_async.models import NOTHING_FIXED, DeleteResult, GiB, MiB, Page, TiB, VersionPage

from ._client import Client
from ._control import ControlPlane
from ._copying import Copier
from ._dialects import UNKNOWN, dialect_of
from ._lean import LeanPlane
from ._session import Endpoint, Identity, Session
from ._uploads import PartedUpload, abort_forgotten
from ._versions import page_of_all

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Hashable, Sequence
    from contextlib import AbstractAsyncContextManager

    from trove_async._http import Opened, Transport
    from trove_async.driver import DriverContext, DriverReader, Upload
    from trove_async.models import (
        BucketInfo,
        CopyOptions,
        DeleteOptions,
        GetOptions,
        ListOptions,
        ObjectInfo,
        PresignOptions,
        PutOptions,
    )

    from ._client import AddressingStyle
    from ._dialects import DialectName
    from ._plane import Plane
    from ._sdk import SdkPlane
    from ._sdk_client import SdkClient

P = TypeVar("P", Page, VersionPage)

_MIN_PART: Final = 5 * MiB
_MAX_PART: Final = 5 * GiB
_MAX_PARTS: Final = 10_000
_MAX_OBJECT: Final = 5 * TiB
"""S3 User Guide, "Amazon S3 multipart upload limits"."""

_BULK: Final = 1000
"""Keys of one DeleteObjects. S3 API Reference, "DeleteObjects"."""

_ACCOUNT = re.compile(r"[A-Za-z0-9_-]+").fullmatch
"""Amazon's have twelve digits; other services have names of their own."""

_ROOMS: Final = "trove_async.drivers.s3"
_AMAZON: Final = "https://s3.us-east-1.amazonaws.com"
"""Where the service is until `open` has asked."""


class S3Driver:
    """A backend in Amazon S3, or in a service that speaks as S3 does.

    What is not given is found as the AWS SDKs find it: in the environment, the profile, the
    container's or the instance's metadata. Temporary credentials are renewed before they end.

    Args:
        region: The region; us-east-1 where nothing says another.
        endpoint_url: Where the service is, if it is not Amazon's: ``https://minio.example:9000``.
        access_key_id: The access key's id.
        secret_access_key: Its secret.
        session_token: Its token, if it is temporary.
        profile: A section of the SDK's configuration files.
        role_arn: A role to take on with these credentials.
        addressing_style: ``"path"``: the bucket stands in the URL's path. ``"virtual"``: in its
            host's name. ``"auto"``: in the host's name on Amazon's own, where it fits there.
        expected_bucket_owner: The account that every bucket must belong to, else
            PermissionDeniedError.
        max_connections: Readers that may be open at once, writes likewise, and as many other
            requests.
        parallel_parts: Parts of one upload that may be sent at once.
        checksums: Whether the service is sent a CRC-32C of each body, and keeps it. False for
            services that refuse it; a body is then compared by size only, and in transit by TLS or
            its signature.
        payload_signing: Whether a body's SHA-256 is signed, at half a second or more of CPU a GiB.
            None: only over plain http. False there: the CRC-32C shows what breaks on the way, and
            nothing shows what somebody on the way has changed together with it.
        dialect: How the service speaks: ``"s3"``, as Amazon's, or ``"seaweedfs"``, which lists in
            another order and cannot hold all keys. ``"auto"``: it is asked when the driver is
            opened; one that does not answer then is taken to list in no order.
        tls: Whom to trust, for a service with a certificate of its own making.
        proxy: The URL of an HTTP proxy to send everything through.
        data_plane: ``"lean"``: requests are signed and sent by this driver. ``"sdk"``: by
            aiobotocore, at ten times the cost.

    Raises:
        ConfigError: Arguments that do not go together.
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
        parallel_parts: int = 8,
        checksums: bool = True,
        payload_signing: bool | None = None,
        dialect: DialectName = "auto",
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        data_plane: Literal["lean", "sdk"] = "lean",
    ) -> None:
        self._identity = Identity(
            region=region,
            endpoint_url=endpoint_url,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            session_token=session_token,
            profile=profile,
            role_arn=role_arn,
        )
        # A traceback that is recorded with its variables would show them.
        hidden = None if proxy is None else Secret(proxy)
        del secret_access_key, session_token, proxy
        self._identity.check()
        if addressing_style not in {"auto", "path", "virtual"}:
            raise ConfigError("addressing_style is 'auto', 'path' or 'virtual'")
        if max_connections < 1 or parallel_parts < 1:
            raise ConfigError("max_connections and parallel_parts are at least 1")
        if dialect not in {"auto", "s3", "seaweedfs"}:
            raise ConfigError("dialect is 'auto', 's3' or 'seaweedfs'")
        if data_plane == "sdk" and tls is not None:
            raise ConfigError("the SDK takes no tls: set AWS_CA_BUNDLE")
        if data_plane not in {"lean", "sdk"}:
            raise ConfigError("data_plane is 'lean' or 'sdk'")
        if data_plane == "sdk" and payload_signing is not None:
            raise ConfigError("the SDK decides itself on payload_signing: only 'lean' takes it")
        if payload_signing is False and not checksums:
            raise ConfigError("without checksums and payload_signing nothing protects a body")
        if expected_bucket_owner is not None and not _ACCOUNT(expected_bucket_owner):
            raise ConfigError("expected_bucket_owner is an account's id, of digits and letters")
        self._addressing: AddressingStyle = addressing_style
        self._owner = expected_bucket_owner
        self._max_connections = max_connections
        self._parallel_parts = parallel_parts
        self._checksums = checksums
        self._payload_signing = payload_signing
        self._dialect_name: DialectName = dialect
        self._dialect = UNKNOWN
        self._tls = tls
        self._proxy = hidden
        self._data_plane = data_plane
        self._endpoint = Endpoint.of(endpoint_url or _AMAZON, region or "us-east-1")
        self._capabilities = self._claimed()
        self._open: Plane | None = None
        self._control: ControlPlane | None = None
        self._known = KnownBuckets(self._head_bucket)
        self._others = Permits(max_connections, "connection for other requests")
        self._permit_seconds = 0.0
        self._redactor = Redactor()
        if hidden is not None:
            self._redactor.add_url(hidden.reveal())

    @property
    def _proxy_url(self) -> str | None:
        return None if self._proxy is None else self._proxy.reveal()

    def redact(self, error: TroveError) -> None:
        """Remove this driver's secrets from an error. See `Redacting.redact`."""
        self._redactor.redact(error)

    @property
    def name(self) -> str:
        """The service's name."""
        return "s3"

    @property
    def capabilities(self) -> Capabilities:
        """What it can honour; what depends on the endpoint is settled once it is open."""
        return self._capabilities

    def _claimed(self) -> Capabilities:
        aws = self._endpoint.aws
        return Capabilities(
            put_if_none_match=True,
            put_if_match=True,
            get_conditions=True,
            delete_if_match=self._dialect.delete_if_match,
            ranges=True,
            checksums=frozenset({"crc32c"}) if self._checksums else frozenset(),
            metadata=True,
            headers=True,
            expires=True,
            tags=True,
            storage_class=True,
            upload=True,
            parallel_parts=self._parallel_parts,
            parallel_reads=self._parallel_parts,
            min_part=_MIN_PART,
            max_part=_MAX_PART,
            max_parts=_MAX_PARTS,
            streamed_parts=self._data_plane == "lean",
            max_put=_MAX_PART,
            max_object=_MAX_OBJECT,
            server_copy=True,
            bulk_delete=_BULK,
            presign=True,
            versions=True,
            ordered=self._dialect.ordered,
            exact_keys=aws,
            private_namespace=not aws,
            max_reads=self._max_connections,
            max_writes=self._max_connections,
        )

    async def open(self, context: DriverContext) -> None:
        """Find out where the service is and, unless that was said, what it is."""
        if self._open is not None:
            raise ClosedError("this driver is open in another store: make one for each")
        session = Session(self._identity, self._redactor)
        self._endpoint = endpoint = await session.endpoint()
        self._permit_seconds = context.timeout.permit
        transport = transport_over(context.timeout, tls=self._tls, proxy=self._proxy_url)
        self._open = lean = self._lean(transport, session, context)
        self._dialect = await dialect_of(self._dialect_name, endpoint, transport)
        self._control = ControlPlane(lambda: self._sdk_client(session, context))
        if self._data_plane == "sdk":
            await lean.aclose()
            self._open = await self._by_sdk(await self._control.client(), context)
        self._copier = Copier(self._open, self._known.exists)
        self._capabilities = self._claimed()

    def _lean(self, transport: Transport, session: Session, context: DriverContext) -> LeanPlane:
        headers = {"accept-encoding": "identity", "user-agent": "trove-async"}
        if self._owner is not None:
            headers["x-amz-expected-bucket-owner"] = self._owner
        endpoint = self._endpoint
        signs = self._payload_signing
        client = Client(
            transport,
            session,
            endpoint,
            addressing=self._addressing,
            headers=headers,
            signs_payload=endpoint.origin.scheme == "http" if signs is None else signs,
        )
        return LeanPlane(
            client,
            transport,
            context.backend,
            endpoint.region,
            owner=self._owner,
            checksums=self._checksums,
        )

    async def _sdk_client(self, session: Session, context: DriverContext) -> SdkClient:
        # The SDK takes long to import, and reads files meanwhile.
        client: SdkClient = (await in_thread(import_module, f"{_ROOMS}._sdk_client")).SdkClient(
            self._identity,
            session,
            self._endpoint,
            context.timeout,
            addressing=self._addressing,
            connections=self._max_connections,
            proxy=self._proxy_url,
        )
        await client.open()
        return client

    async def _by_sdk(self, client: SdkClient, context: DriverContext) -> SdkPlane:
        plane: SdkPlane = (await in_thread(import_module, f"{_ROOMS}._sdk")).SdkPlane(
            client,
            self._endpoint,
            context.backend,
            owner=self._owner,
            checksums=self._checksums,
        )
        return plane

    async def aclose(self) -> None:
        """Close all connections."""
        plane, self._open = self._open, None
        control, self._control = self._control, None
        self._known = KnownBuckets(self._head_bucket)
        try:
            if control is not None:
                await control.aclose()
        finally:
            if plane is not None:
                await plane.aclose()

    @property
    def client(self) -> Awaitable[Any]:
        """The AWS SDK's own client, open: ``client = await driver.client``.

        The way to all that is not wrapped here: lifecycle rules, bucket policies, the tags of an
        object that is there, encryption defaults, … It is aiobotocore's S3 client, with this
        driver's endpoint, region and credentials, made when it is first asked for and closed with
        the driver. Its calls raise the SDK's errors, are not tried again, and know nothing of
        `expected_bucket_owner` or of `tls` (it heeds AWS_CA_BUNDLE).

        Raises:
            ClosedError: The driver is not open.
        """
        if self._control is None:
            raise ClosedError("the driver is not open")
        return self._client_of(self._control)

    async def _client_of(self, control: ControlPlane) -> Any:  # noqa: ANN401 - the SDK has no types
        return (await control.client()).sdk

    @property
    def _plane(self) -> Plane:
        if self._open is None:
            raise ClosedError("the driver is not open")
        return self._open

    async def ping(self) -> None:
        """Ask for the list of buckets; that one may not see it is an answer, too."""
        with suppress(PermissionDeniedError):
            await self.list_buckets()

    def place(self, bucket: str, key: str) -> Hashable:
        """Tell where the object lies physically."""
        return ("s3", self._endpoint.names_in, bucket, key)

    # -- objects ---------------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request. See `AsyncDriver.put`."""
        self._check_key(bucket, key)
        if not options.conditional:
            return await self._plane.put_object(bucket, key, views, options)
        with conditioned(options):
            return await self._plane.put_object(bucket, key, views, options)

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open an object's body. See `AsyncDriver.get`."""
        return Reader(self._get, bucket, key, options)

    async def _get(self, bucket: str, key: str, options: GetOptions) -> Opened:
        if self._dialect.directories:
            await self._check_held(bucket, key)
        return await self._plane.get_object(bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return what is known of the object, its tags included. See `AsyncDriver.head`."""
        async with Permit(self._others, self._permit_seconds):
            if self._dialect.directories:
                await self._check_held(bucket, key)
            try:
                return await self._plane.head_object(bucket, key, version_id)
            except NotFoundError as error:
                if isinstance(error, (ObjectNotFoundError, BucketNotFoundError)):
                    raise
                # An answer to HEAD has no document that would say which of the two is missing.
                if await self._known.exists(bucket):
                    raise ObjectNotFoundError(error.message) from error
                raise BucketNotFoundError(error.message) from error

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. See `AsyncDriver.delete`."""
        async with Permit(self._others, self._permit_seconds):
            with conditioned(options):
                try:
                    if self._dialect.directories:
                        await self._check_held(bucket, key)
                    await self._plane.delete_object(bucket, key, options)
                except ObjectNotFoundError:
                    if options.if_match is not None:
                        raise

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 1,000 keys in one request. See `BulkDeleting.delete_many`."""
        async with Permit(self._others, self._permit_seconds):
            held = [key for key in keys if self._dialect.refuses(key) is None]
            results = await self._plane.delete_objects(bucket, held) if held else []
        if len(held) == len(keys):
            return results
        none = set(keys).difference(held)
        return [*results, *(DeleteResult(key=key) for key in none)]

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket's objects. See `AsyncDriver.list_page`."""
        return await self._page(self._plane.list_objects, bucket, options)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of the versions of the bucket's objects. See `Versioned.version_page`."""
        ask = self._plane.list_versions
        if self._dialect.directories:
            ask = partial(page_of_all, ask)
        return await self._page(ask, bucket, options)

    async def _page(
        self, ask: Callable[[str, ListOptions], Awaitable[P]], bucket: str, options: ListOptions
    ) -> P:
        async with Permit(self._others, self._permit_seconds):
            page = await _asked(ask, bucket, options)
            while not page.entries and page.token is not None:
                page = await _asked(ask, bucket, replace(options, token=page.token))
        if self._dialect.ordered:
            _check_order(page, options)
        return page

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload in parts. See `Uploading.upload`."""
        self._check_key(bucket, key)
        return PartedUpload(self._plane, bucket, key, options)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy on the service's side. See `Copying.copy`."""
        self._check_key(dst_bucket, dst_key)
        async with Permit(self._others, self._permit_seconds):
            return await self._copier.copy(src_bucket, src_key, dst_bucket, dst_key, options)

    async def presign(
        self,
        method: str,
        bucket: str,
        key: str,
        expires: float,
        options: PresignOptions = NOTHING_FIXED,
    ) -> str:
        """Return a URL that allows one method for up to seven days. See `Presigning.presign`."""
        self._check_key(bucket, key)
        return await self._plane.presign(method, bucket, key, math.ceil(expires), options)

    def _check_key(self, bucket: str, key: str) -> None:
        """Raise InvalidNameError for a key that the service would mangle."""
        why = self._dialect.refuses(key)
        if why is not None:
            raise InvalidNameError(
                f"the service cannot hold this key: {why}", bucket=bucket, key=key
            )

    async def _check_held(self, bucket: str, key: str) -> None:
        """Raise for a key that the service would take for another one: it has none of that name."""
        why = self._dialect.refuses(key)
        if why is not None:
            if not await self._known.exists(bucket):
                raise BucketNotFoundError("no such bucket", bucket=bucket)
            raise ObjectNotFoundError(f"the service holds no such keys: {why}")

    async def gc_uploads(self, bucket: str, *, older_than: float) -> int:
        """Abort the bucket's uploads in parts that nobody ended; return how many.

        An upload whose process died costs storage until then. It is told from one that is under
        way by its age alone.

        Args:
            bucket: The bucket.
            older_than: Seconds since its beginning from which an upload is taken to be forgotten;
                more than any upload may take.

        Raises:
            ValueError: `older_than` is negative.
            BucketNotFoundError: There is no such bucket.
            UnavailableError: The service failed; what was aborted stays so, and the next call does
                the rest.
        """
        if not older_than >= 0:
            raise ValueError(f"older_than is a number of seconds, 0 or more, not {older_than}")
        plane = self._plane
        async with Permit(self._others, self._permit_seconds):
            return await abort_forgotten(plane, bucket, older_than)

    # -- buckets ---------------------------------------------------------------------------------------

    async def set_versioning(self, bucket: str, enabled: bool) -> None:  # noqa: FBT001 - the verb's
        """Make the bucket keep what its objects were before, or keep no more from now on.

        What it kept stays, until it is deleted by its id: a bucket that ever kept versions can be
        suspended, not made to forget. S3 User Guide, "Using versioning in S3 buckets".

        Args:
            bucket: An existing bucket.
            enabled: Whether versions are kept.

        Raises:
            BucketNotFoundError: There is no such bucket.
            PermissionDeniedError: These credentials may not do so.
            ClosedError: The driver is not open.
        """
        async with Permit(self._others, self._permit_seconds):
            await self._plane.set_versioning(bucket, enabled=enabled)

    async def create_bucket(self, bucket: str) -> None:
        """Make the bucket, in this driver's region. See `AsyncDriver.create_bucket`."""
        async with Permit(self._others, self._permit_seconds):
            # us-east-1 takes a second making of one's own bucket for a success (S3 API Reference,
            # "CreateBucket": BucketAlreadyOwnedByYou). Of others' buckets it says that they exist.
            try:
                await self._head_bucket(bucket)
            except (BucketNotFoundError, PermissionDeniedError):
                await self._plane.create_bucket(bucket)
            else:
                raise BucketExistsError("the bucket exists", bucket=bucket)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket. See `AsyncDriver.delete_bucket`."""
        async with Permit(self._others, self._permit_seconds):
            try:
                await self._plane.delete_bucket(bucket)
            finally:  # not before: until then others find it there
                self._known.forget(bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return what is known of the bucket. See `AsyncDriver.head_bucket`."""
        async with Permit(self._others, self._permit_seconds):
            return await self._head_bucket(bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own. See `AsyncDriver.list_buckets`."""
        async with Permit(self._others, self._permit_seconds):
            buckets = await self._plane.list_buckets()
        return sorted(buckets, key=attrgetter("name"))

    async def _head_bucket(self, bucket: str) -> BucketInfo:
        try:
            return await self._plane.head_bucket(bucket)
        except NotFoundError as error:
            raise BucketNotFoundError(error.message) from error


async def _asked(
    ask: Callable[[str, ListOptions], Awaitable[P]], bucket: str, options: ListOptions
) -> P:
    page = await ask(bucket, options)
    if page.token is not None and page.token == options.token:
        raise BackendError("the service's listing leads to the same page again and again")
    return page


def _check_order(page: Page | VersionPage, options: ListOptions) -> None:
    """Raise if the service does not list in the order that merged listings rely on."""
    keys = list(map(_key_of, page.entries))
    if options.start_after is not None and options.token is None and keys:
        keys.insert(0, options.start_after)
    if any(map(gt, keys, islice(keys, 1, None))):
        raise BackendError(
            "the service does not list keys in bytewise order: give the driver dialect='seaweedfs'"
        )


_key_of = attrgetter("key")
