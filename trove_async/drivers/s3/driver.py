"""The S3 driver: what the contract asks for, out of S3's operations."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from trove_async._concurrency import in_thread
from trove_async._http import (
    GetResult,
    Reader,
    Transport,
    check_proxy,
    check_tls,
    proxy_urls,
    transport_over,
)
from trove_async._http.services import BucketExistenceCache, map_condition_errors
from trove_async._secrets import Redactor, Secret
from trove_async._settings import check_counts, check_switches
from trove_async.driver import CannotCopyError, Capabilities, DriverContext, DriverReader, Upload
from trove_async.errors import (
    BucketNotFoundError,
    ClosedError,
    ConfigError,
    InvalidNameError,
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
from trove_async.paging import TokenCycle

from . import _buckets
from ._capabilities import claimed
from ._ceph import page_from_within
from ._client import AddressingStyle, Client
from ._control import ControlPlane
from ._copy import Copier
from ._credentials import Endpoint, Identity, Session
from ._data_plane import Plane, UntoldError, settled
from ._defaults import Defaults, check_owner
from ._dialects import UNKNOWN, Dialect, DialectName, Service
from ._directories import check_object_exists, holds_none, page_of
from ._feature_probe import FeatureProbe
from ._features import Feature, WriteKind, features_of
from ._key_probe import KeyProbe
from ._list_objects import check_order
from ._multipart import PartedUpload, abort_forgotten
from ._operations import LeanPlane
from ._trials import Trials
from ._unusual_keys import is_usual
from ._versions import page_behind_markers, page_of_all, page_of_whole_keys

if TYPE_CHECKING:
    from ._sdk import SdkPlane
    from ._sdk_client import SdkClient

P = TypeVar("P", Page, VersionPage)

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
        dialect: How the service deviates from Amazon S3. ``"s3"``: it lists in order, keeps every
            key, and honours conditions, tags and encryption everywhere. ``"seaweedfs"``: it lists in
            another order and cannot hold all keys. ``"ceph"``: it drops conditions and tags of
            uploads in parts and of copies, and conditions in buckets that keep versions. ``"auto"``:
            the service is recognised when the driver is opened. One that does not respond then is
            asked again when it matters; its listings are in no order. One that is not recognised is
            expected to list in order, and conditions are sent to it with puts in one request only.
            With every value but ``"s3"``, and on every service but Amazon's, the driver tests what
            the service may ignore, once for each bucket, before it first relies on it: conditions of
            a put, tags, encryption and unusual keys (an empty segment, a leading or trailing slash,
            a backslash). It writes an object of one byte, ``trove-probe-…``, next to the key if it
            can, and deletes it.
        tls: Whom to trust, for a service with a certificate of its own making.
        proxy: The URL of an HTTP proxy to send everything through.
        trust_env: Whether HTTPS_PROXY, HTTP_PROXY and NO_PROXY are heeded, where `proxy` is None.
        data_plane: ``"lean"``: requests are signed and sent by this driver. ``"sdk"``: by
            aiobotocore, at ten times the cost.
        storage_class: The class of objects whose put chooses none, of copies as well; the service's
            default where it is not given.
        server_side_encryption: How the service encrypts what is stored: ``"AES256"``, ``"aws:kms"``
            or ``"aws:kms:dsse"``. The bucket's default where it is not given. If a service other than
            Amazon's ignores it, a write raises NotSupportedError and stores nothing. With
            ``dialect="s3"`` that is not tested.
        kms_key_id: The key to use with ``"aws:kms"``: its id or ARN.
        bucket_key_enabled: Whether a bucket key saves requests to the key service.
        sse_customer_key: A key of your own, 32 bytes (SSE-C). The service encrypts and decrypts with
            it and does not keep it. If you lose it, the objects are lost. It is sent with each
            request, so plain http is refused but to this machine, and there are no presigned URLs.
        requester_pays: Whether you pay for requests to buckets whose owner does not. There are no
            presigned URLs then.

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
        trust_env: bool = True,
        data_plane: Literal["lean", "sdk"] = "lean",
        storage_class: str | None = None,
        server_side_encryption: str | None = None,
        kms_key_id: str | None = None,
        bucket_key_enabled: bool | None = None,
        sse_customer_key: bytes | None = None,
        requester_pays: bool = False,
    ) -> None:
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
        self._defaults = Defaults(
            storage_class=storage_class,
            server_side_encryption=server_side_encryption,
            kms_key_id=kms_key_id,
            bucket_key_enabled=bucket_key_enabled,
            sse_customer_key=sse_customer_key,
            requester_pays=requester_pays,
        )
        # A traceback that is recorded with its variables would show them.
        hidden = None if proxy is None else Secret(proxy)
        del secret_access_key, session_token, sse_customer_key, proxy
        self._identity.check()
        self._defaults.check()
        self._encrypts = bool(self._defaults.made)
        check_switches(checksums=checksums, payload_signing=payload_signing, trust_env=trust_env)
        check_counts(max_connections=max_connections, parallel_parts=parallel_parts)
        check_tls(tls)
        if addressing_style not in {"auto", "path", "virtual"}:
            raise ConfigError("addressing_style is 'auto', 'path' or 'virtual'")
        if dialect not in get_args(DialectName):
            raise ConfigError(f"dialect is one of {', '.join(map(repr, get_args(DialectName)))}")
        if data_plane == "sdk" and tls is not None:
            raise ConfigError("the SDK takes no tls: set AWS_CA_BUNDLE")
        if data_plane not in {"lean", "sdk"}:
            raise ConfigError("data_plane is 'lean' or 'sdk'")
        if data_plane == "sdk" and payload_signing is not None:
            raise ConfigError("the SDK decides itself on payload_signing: only 'lean' takes it")
        if payload_signing is False and not checksums:
            raise ConfigError("without checksums and payload_signing nothing protects a body")
        check_owner(expected_bucket_owner)
        self._addressing: AddressingStyle = addressing_style
        self._owner = expected_bucket_owner
        self._max_connections = max_connections
        self._parallel_parts = parallel_parts
        self._checksums = checksums
        self._payload_signing = payload_signing
        self._dialect_name: DialectName = dialect
        self._service: Service | None = None
        self._tls = tls
        self._proxy = None if hidden is None else Secret(check_proxy(hidden.reveal()))
        self._trust_env = trust_env
        self._data_plane = data_plane
        self._endpoint = Endpoint.of(endpoint_url or _AMAZON, region or "us-east-1")
        self._capabilities = self._claimed()
        self._open: Plane | None = None
        self._transport: Transport | None = None
        self._control: ControlPlane | None = None
        self._known = BucketExistenceCache(self._head_bucket)
        self._trials = Trials()  # anew whenever the driver is opened
        self._redactor = Redactor()
        self._redactor.add(*self._defaults.secrets)

    @property
    def _proxy_url(self) -> str | None:
        return None if self._proxy is None else self._proxy.reveal()

    def redact(self, error: TroveError) -> None:
        """Remove this driver's secrets from an error. See `Redacting.redact`."""
        self._redactor.redact(error)

    def __repr__(self) -> str:
        if not hasattr(self, "_endpoint"):
            return "<S3Driver, never made>"  # its constructor raised
        endpoint = self._endpoint  # Amazon's is settled once it is open
        return f"<S3Driver at {'Amazon S3' if endpoint.aws else endpoint.origin.url}>"

    @property
    def name(self) -> str:
        """The service's name."""
        return "s3"

    @property
    def capabilities(self) -> Capabilities:
        """What it can honour; what depends on the endpoint is settled once it is open."""
        return self._capabilities

    @property
    def _dialect(self) -> Dialect:
        return UNKNOWN if self._service is None else self._service.dialect

    def _claimed(self) -> Capabilities:
        return claimed(
            self._endpoint,
            self._dialect,
            self._defaults,
            lean=self._data_plane == "lean",
            checksums=self._checksums,
            parallel_parts=self._parallel_parts,
            connections=self._max_connections,
        )

    async def open(self, context: DriverContext) -> None:
        """Find out where the service is and, unless that was said, what it is."""
        if self._open is not None:
            raise ClosedError("this driver is open in another store: make one for each")
        self._redactor.add_urls(*proxy_urls(self._proxy_url, trust_env=self._trust_env))
        session = Session(self._identity, self._redactor)
        self._endpoint = endpoint = self._defaults.checked(await session.endpoint())
        self._transport = transport = transport_over(
            context.timeout, tls=self._tls, proxy=self._proxy_url, trust_env=self._trust_env
        )
        self._service = Service(self._dialect_name, endpoint, transport)
        self._open = self._lean(transport, session, context, self._service)
        await self._service.recognise()
        self._control = ControlPlane(lambda: self._sdk_client(session, context))
        if self._data_plane == "sdk":
            self._open = await self._by_sdk(await self._control.client(), context, self._service)
        self._trials = Trials()
        self._probe = KeyProbe(self._service, self._open, self._trials)
        self._features = FeatureProbe(self._service, self._open, self._defaults, self._trials)
        self._copier = Copier(self._open, self._known.exists)
        self._capabilities = self._claimed()

    def _lean(
        self, transport: Transport, session: Session, context: DriverContext, service: Service
    ) -> LeanPlane:
        headers = {"accept-encoding": "identity", "user-agent": "trove-async"}
        headers |= self._defaults.always
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
            hidden=self._defaults.hidden,
            signs_payload=endpoint.origin.scheme == "http" if signs is None else signs,
        )
        return LeanPlane(
            client,
            transport,
            context.backend,
            endpoint.region,
            service,
            owner=self._owner,
            checksums=self._checksums,
            defaults=self._defaults,
        )

    def _proxies(self) -> dict[str, str] | None:
        """Return the SDK's proxies, by scheme; None: those of the environment."""
        if self._proxy is not None:
            return dict.fromkeys(("http", "https"), self._proxy.reveal())
        return None if self._trust_env else {}

    async def _sdk_client(self, session: Session, context: DriverContext) -> SdkClient:
        # The SDK takes long to import, and reads files meanwhile.
        client: SdkClient = (
            await in_thread(import_module, f"{__package__}._sdk_client")
        ).SdkClient(
            self._identity,
            session,
            self._endpoint,
            context.timeout,
            addressing=self._addressing,
            connections=self._max_connections,
            proxies=self._proxies(),
            headers=self._defaults.always,
            hidden=self._defaults.hidden,
        )
        await client.open()
        return client

    async def _by_sdk(
        self, client: SdkClient, context: DriverContext, service: Service
    ) -> SdkPlane:
        plane: SdkPlane = (await in_thread(import_module, f"{__package__}._sdk")).SdkPlane(
            client,
            self._endpoint,
            context.backend,
            service,
            owner=self._owner,
            checksums=self._checksums,
            defaults=self._defaults,
        )
        return plane

    async def aclose(self) -> None:
        """Close all connections."""
        plane, self._open = self._open, None
        control, self._control = self._control, None
        transport, self._transport = self._transport, None
        self._known = BucketExistenceCache(self._head_bucket)
        async with AsyncExitStack() as closing:  # the last one first, each whatever the others do
            for one in (transport, plane, control):
                if one is not None:
                    closing.push_async_callback(one.aclose)
            closing.push_async_callback(self._trials.end)

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
        if self._is_doubtful(key):
            await self._check_key(bucket, key)
        needed = self._needs("put", options)
        if needed:
            await self._features.check(bucket, key, needed)
        options = self._defaults.applied(options)
        try:
            if not options.conditional:
                return await self._plane.put_object(bucket, key, views, options)
            with map_condition_errors(options):
                return await self._plane.put_object(bucket, key, views, options)
        except UntoldError as untold:
            return await settled(self._plane, untold.info)
        except ObjectExistsError as error:
            if self._dialect.directories:
                await check_object_exists(self._plane, error, bucket, key)
            raise

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open an object's body. See `AsyncDriver.get`."""
        return Reader(self._get, bucket, key, options)

    async def _get(self, bucket: str, key: str, options: GetOptions) -> GetResult:
        if self._is_doubtful(key):
            await self._check_held(bucket, key)
        opened = await self._plane.get_object(bucket, key, options)
        try:
            _check_conditions(opened.info, options)
        except PreconditionFailedError:
            opened.body.close()
            raise
        return opened

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return what is known of the object, its tags included. See `AsyncDriver.head`."""
        if self._is_doubtful(key):
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
        with map_condition_errors(options):
            try:
                if self._is_doubtful(key):
                    await self._check_held(bucket, key, deletes=True)
                await self._plane.delete_object(bucket, key, options)
            except ObjectNotFoundError:
                if options.if_match is not None:
                    raise

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 1,000 keys in one request. See `BulkDeleting.delete_many`."""
        for key in keys:
            if not is_usual(key):
                await self._probe.dialect_for_writing(bucket, key)
        held = [key for key in keys if self._dialect.hides(key) is None]
        results = await self._plane.delete_objects(bucket, held) if held else []
        if len(held) == len(keys):
            return results
        none = set(keys).difference(held)
        return [*results, *(DeleteResult(key=key) for key in none)]

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket's objects. See `AsyncDriver.list_page`."""
        ask = self._plane.list_objects
        if await self._holds_none(bucket, options.prefix):
            return Page(entries=())
        if self._dialect.directories:
            ask = partial(page_of, ask)
        elif not self._dialect.starts_within:
            ask = partial(page_from_within, ask)
        return await self._page(ask, bucket, options)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of the versions of the bucket's objects. See `Versioned.version_page`."""
        ask = self._plane.list_versions
        if await self._holds_none(bucket, options.prefix):
            return VersionPage(entries=())
        if self._dialect.directories:
            return await self._page(partial(page_of_all, ask), bucket, options)
        page = page_behind_markers if self._dialect.version_markers else page_of_whole_keys
        return await self._page(partial(page, ask), bucket, options)

    async def _holds_none(self, bucket: str, prefix: str) -> bool:
        """Return whether the service, once recognised, can hold no key with the prefix.

        Raises:
            BucketNotFoundError: It cannot, and there is no such bucket.
        """
        if self._service is not None:
            await self._service.recognise()
        if not (self._dialect.directories and holds_none(prefix)):
            return False
        await self._check_bucket(bucket)
        return True

    async def _page(
        self, ask: Callable[[str, ListOptions], Awaitable[P]], bucket: str, options: ListOptions
    ) -> P:
        cycle = TokenCycle(options.token)
        page = await ask(bucket, options)
        cycle.check(page.token, empty=not page.entries)
        while not page.entries and page.token is not None:
            page = await ask(bucket, replace(options, token=page.token))
            cycle.check(page.token, empty=not page.entries)
        if self._capabilities.ordered:
            check_order(page, options)
        return page

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload in parts. See `Uploading.upload`."""
        upload = PartedUpload(
            self._plane,
            bucket,
            key,
            self._defaults.applied(options),
            directories=self._dialect.directories,
        )
        needed = self._needs("upload", options)
        if needed or self._is_doubtful(key):
            return self._checked(upload, bucket, key, needed)
        return upload

    @asynccontextmanager
    async def _checked(
        self, upload: PartedUpload, bucket: str, key: str, needed: Collection[Feature]
    ) -> AsyncIterator[Upload]:
        if self._is_doubtful(key):
            await self._check_key(bucket, key)
        await self._features.check(bucket, key, needed)
        async with upload as opened:
            yield opened

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy on the service's side. See `Copying.copy`."""
        options = replace(options, put=self._defaults.applied(options.put))
        if self._is_doubtful(dst_key):
            await self._check_key(dst_bucket, dst_key)
        if self._is_doubtful(src_key):
            await self._check_held(src_bucket, src_key)
        pieces = self._copier.takes_pieces(options.source)
        try:
            needed = self._needs("upload" if pieces else "copy", options.put)
            await self._features.check(dst_bucket, dst_key, needed)
        except NotSupportedError as error:
            raise CannotCopyError(error.message) from error
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
        if self._is_doubtful(key):
            if method == "PUT":
                await self._check_key(bucket, key)
            else:
                _check(self._dialect, bucket, key)
        return await self._plane.presign(method, bucket, key, math.ceil(expires), options)

    def _is_doubtful(self, key: str) -> bool:
        """Return whether the service might not keep a key as it is."""
        return not is_usual(key) or self._dialect.refuses(key) is not None

    def _needs(self, way: WriteKind, options: PutOptions) -> Collection[Feature]:
        """Return the features that a write needs and some services ignore, this one perhaps."""
        if not (self._encrypts or options.tags or options.conditional):
            return ()
        return features_of(way, options, encrypts=self._encrypts) - self._dialect.honours

    async def _check_key(self, bucket: str, key: str) -> None:
        """Raise InvalidNameError for a key that the service would store under another name."""
        _check(await self._probe.dialect_for_writing(bucket, key), bucket, key)

    async def _check_held(self, bucket: str, key: str, *, deletes: bool = False) -> None:
        """Raise ObjectNotFoundError for a key that the service takes for another one."""
        if deletes:
            dialect = await self._probe.dialect_for_writing(bucket, key)
        else:
            dialect = await self._probe.dialect_for_reading(bucket, key)
        why = dialect.hides(key)
        maybe_directory = dialect.directories and key.endswith("/") and not deletes
        if why is None and maybe_directory and not await self._probe.has_exactly(bucket, key):
            why = "it has a directory of that name at most"
        if why is not None:
            await self._check_bucket(bucket)
            raise ObjectNotFoundError(f"the service holds no such object: {why}")

    async def _check_bucket(self, bucket: str) -> None:
        if not await self._known.exists(bucket):
            raise BucketNotFoundError("no such bucket", bucket=bucket)

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
        return await abort_forgotten(self._plane, bucket, older_than)

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
        try:
            await self._plane.set_versioning(bucket, enabled=enabled)
        finally:  # the response may have been lost
            self._forget(bucket)

    async def create_bucket(self, bucket: str) -> None:
        """Make the bucket, in this driver's region. See `AsyncDriver.create_bucket`."""
        await _buckets.create(self._plane, bucket)
        self._forget(bucket)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket. See `AsyncDriver.delete_bucket`."""
        try:
            await self._plane.delete_bucket(bucket)
        except ObjectNotFoundError as error:
            # Ceph 16.2 says so of a bucket that another request is just deleting.
            raise BucketNotFoundError(error.message, bucket=bucket) from error
        finally:  # not before: until then others find it there
            self._forget(bucket)

    def _forget(self, bucket: str) -> None:
        """Forget what was learnt of a bucket that has changed, or may have."""
        self._known.forget(bucket)
        if self._open is not None:
            self._features.forget(bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return what is known of the bucket. See `AsyncDriver.head_bucket`."""
        return await self._head_bucket(bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own. See `AsyncDriver.list_buckets`."""
        return await _buckets.in_order(self._plane)

    async def _head_bucket(self, bucket: str) -> BucketInfo:
        return await _buckets.head(self._plane, bucket)


def _check_conditions(info: ObjectInfo, options: GetOptions) -> None:
    """Raise PreconditionFailedError where the service ignored a condition on a GET."""
    if info.etag is None:
        return
    if options.if_match not in {None, info.etag}:
        raise PreconditionFailedError("if_match: the object is another version")
    if options.if_none_match == info.etag:
        raise PreconditionFailedError("if_none_match: the object is that version")


def _check(dialect: Dialect, bucket: str, key: str) -> None:
    why = dialect.refuses(key)
    if why is not None:
        raise InvalidNameError(f"the service cannot hold this key: {why}", bucket=bucket, key=key)
