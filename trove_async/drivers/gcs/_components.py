"""Creates the components of an open driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trove_async._http.services import BucketExistenceCache

from ._batch_delete import Deleter
from ._buckets import Buckets
from ._copy import Copier
from ._download import Downloader
from ._lost_responses import LostResponses

if TYPE_CHECKING:
    from ._batch_delete import Delete
    from ._client import Client
    from ._copy import Head
    from ._defaults import Defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The components of an open driver.

    Attributes:
        client: Sends the requests.
        buckets: Creates, deletes, lists and configures buckets.
        bucket_cache: Caches which buckets exist.
        lost_responses: Finds out whether a write whose response was lost took effect.
        downloader: Opens bodies.
        deleter: Deletes many objects.
        copier: Copies objects within the service.
    """

    client: Client
    buckets: Buckets
    bucket_cache: BucketExistenceCache
    lost_responses: LostResponses
    downloader: Downloader
    deleter: Deleter
    copier: Copier


def build_components(
    client: Client,
    head: Head,
    delete: Delete,
    *,
    location: str | None,
    bucket_storage_class: str | None,
    is_google: bool,
    backend: str,
    defaults: Defaults,
) -> Components:
    """Return the components that send their requests through `client`.

    Args:
        client: Sends the requests.
        head: Returns the metadata of an object.
        delete: Deletes an object.
        location: The location of new buckets. None: the service chooses.
        bucket_storage_class: The default storage class of new buckets. None: the service
            chooses.
        is_google: Whether the service is Google's own.
        backend: The backend's name.
        defaults: The driver's settings for all objects.
    """
    buckets = Buckets(client, location, bucket_storage_class)
    bucket_cache = BucketExistenceCache(buckets.head)
    lost_responses = LostResponses(client, bucket_cache, backend)
    return Components(
        client=client,
        buckets=buckets,
        bucket_cache=bucket_cache,
        lost_responses=lost_responses,
        # Servers other than Google's may lack the XML API: the first download finds out.
        downloader=Downloader(
            client, bucket_cache, head, has_xml_api=is_google or None, backend=backend
        ),
        deleter=Deleter(client, bucket_cache, delete),
        copier=Copier(client, bucket_cache, head, lost_responses, backend, defaults=defaults),
    )
