"""Builds the components of an open driver."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from trove_async._http import proxy_urls, transport_over
from trove_async._http.services import BucketExistenceCache

from . import _buckets
from ._copy import Copier
from ._credentials import Endpoint, Identity, Session
from ._dialects import Service
from ._lazy_sdk import LazySdkClient, make_sdk_plane, open_sdk_client
from ._operations import make_http_plane
from ._write_checks import WriteChecks

if TYPE_CHECKING:
    from trove_async._concurrency import CloseStack
    from trove_async._secrets import Redactor
    from trove_async.driver import DriverContext

    from ._data_plane import DataPlane
    from ._object_settings import ObjectSettings
    from ._settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The components of an open driver.

    Attributes:
        endpoint: The service's endpoint.
        service: The service and its dialect.
        plane: Sends the requests.
        lazy_sdk: The SDK's client, created on first use.
        known_buckets: Caches which buckets exist.
        write_checks: Checks keys, and features that some services ignore.
        copier: Copies objects within the service.
    """

    endpoint: Endpoint
    service: Service
    plane: DataPlane
    lazy_sdk: LazySdkClient
    known_buckets: BucketExistenceCache
    write_checks: WriteChecks
    copier: Copier


async def build_components(
    settings: Settings,
    identity: Identity,
    object_settings: ObjectSettings,
    *,
    redactor: Redactor,
    context: DriverContext,
    resources: CloseStack,
) -> Components:
    """Look up the endpoint, recognise the service and return the components.

    Args:
        settings: The driver's settings for requests and connections.
        identity: The driver's settings for the credentials and the endpoint.
        object_settings: The driver's settings for all objects.
        redactor: Receives the secrets of the proxies and of the credentials.
        context: The context of `AsyncDriver.open`.
        resources: Receives the components to close, even if this function raises.
    """
    # 1. Resolve the endpoint.
    redactor.add_urls(*proxy_urls(settings.proxy_url, trust_env=settings.trust_env))
    session = Session(identity, redactor)
    endpoint = await session.endpoint()
    object_settings.check_endpoint(endpoint)
    # 2. Recognise the service.
    transport = transport_over(
        context.timeout, tls=settings.tls, proxy=settings.proxy_url, trust_env=settings.trust_env
    )
    resources.push(transport.aclose)
    service = Service(settings.dialect, endpoint, transport)
    await service.recognise()
    # 3. Create the data plane. Users may request the SDK's client even if the data plane needs none.
    lazy_sdk = LazySdkClient(
        lambda: open_sdk_client(
            identity,
            session,
            endpoint,
            context.timeout,
            addressing=settings.addressing_style,
            connections=settings.max_connections,
            proxy=settings.proxy_url,
            trust_env=settings.trust_env,
            headers=object_settings.request_headers,
            secret_headers=object_settings.secret_headers,
        )
    )
    resources.push(lazy_sdk.aclose)
    plane: DataPlane
    if settings.data_plane == "sdk":
        plane = await make_sdk_plane(
            await lazy_sdk.client(),
            endpoint,
            context.backend,
            service,
            owner=settings.bucket_owner,
            checksums=settings.checksums,
            object_settings=object_settings,
        )
    else:
        plane = make_http_plane(
            transport,
            session,
            endpoint,
            context.backend,
            service,
            addressing=settings.addressing_style,
            owner=settings.bucket_owner,
            checksums=settings.checksums,
            payload_signing=settings.payload_signing,
            object_settings=object_settings,
            credentials_timeout=context.timeout.first_byte,
        )
    # 4. Create the components that send their requests through the data plane.
    known_buckets = BucketExistenceCache(partial(_buckets.head, plane))
    write_checks = WriteChecks(service, plane, object_settings, known_buckets.exists)
    resources.push(write_checks.aclose)
    return Components(
        endpoint=endpoint,
        service=service,
        plane=plane,
        lazy_sdk=lazy_sdk,
        known_buckets=known_buckets,
        write_checks=write_checks,
        copier=Copier(plane, known_buckets.exists),
    )
