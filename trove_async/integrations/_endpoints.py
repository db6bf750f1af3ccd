"""`object_response` and `store_upload`, independent of the web framework.

The module of each framework creates one `Endpoints` and exports its two methods as functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, Unpack

from trove_async import Trove

from ._download import Redirect, serve_object
from ._headers import Presentation
from ._response import ServerResponse
from ._upload import MIN_RATE, Limits, PutFields, ServerRequest, UploadResult, store_body

RequestT = TypeVar("RequestT")
ObjectResponseT = TypeVar("ObjectResponseT")
UploadResponseT = TypeVar("UploadResponseT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints(Generic[RequestT, ObjectResponseT, UploadResponseT]):
    """Downloads and uploads for one framework.

    Attributes:
        read_request: Converts the framework's request.
        make_object_response: Creates the framework's response to a download.
        make_upload_response: Creates the framework's response to an upload.
    """

    read_request: Callable[[RequestT], ServerRequest]
    make_object_response: Callable[[ServerResponse, RequestT], ObjectResponseT]
    make_upload_response: Callable[[UploadResult, RequestT], UploadResponseT]

    async def object_response(
        self,
        store: Trove,
        bucket: str,
        key: str,
        request: RequestT,
        *,
        download_name: str | None = None,
        cache_control: str | None = None,
        redirect: Redirect = "never",
        trusted: bool = False,
    ) -> ObjectResponseT:
        """Answer a GET or HEAD request with an object: conditions and ranges follow RFC 9110.

        The object is opened here, so that an error can still become an error response. Its body is
        sent with the response. Return the response, or close it with `ObjectResponse.aclose`.

        Args:
            store: The store to read from.
            bucket: The bucket.
            key: The key. It may come from the client: it never reaches outside the bucket.
            request: The request.
            download_name: Offer the object as a download with this file name, in any script.
            cache_control: The Cache-Control header; None: the object's own, or else ``private``.
            redirect: ``"presign"`` redirects a GET to a presigned URL of the backend, valid for
                five minutes, if the backend can presign. The backend then chooses the headers.
            trusted: Serve every type unchanged, in your origin: only for objects of your own.
                Otherwise browsers show images (no SVG), audio, video, PDF, JSON and plain text;
                all other types are downloads, a malformed Content-Type is sent as
                ``application/octet-stream``, and a Content-Security-Policy with ``sandbox``
                prevents scripts from running.

        Raises:
            ObjectNotFoundError: The object does not exist. Other errors of the store pass as well.
            ValueError: `cache_control` cannot be sent in a header.
        """
        server_request = self.read_request(request)
        response = await serve_object(
            store,
            bucket,
            key,
            server_request.method,
            server_request.header,
            presentation=Presentation(
                download_name=download_name, cache_control=cache_control, trusted=trusted
            ),
            redirect=redirect,
        )
        return self.make_object_response(response, request)

    async def store_upload(
        self,
        store: Trove,
        bucket: str,
        key: str,
        request: RequestT,
        *,
        max_size: int | None,
        min_rate: float | None = MIN_RATE,
        field: str | None = None,
        location: str | None = None,
        **fields: Unpack[PutFields],
    ) -> UploadResponseT:
        """Store the body of a request: a raw body, or the file of a multipart/form-data form.

        The body is streamed at the pace of the slower side. If the client disconnects or exceeds
        a limit, the put is cancelled and nothing is stored. ``If-Match``, ``If-None-Match`` and
        ``If-Unmodified-Since`` are applied atomically; a backend that cannot do so raises
        NotSupportedError (a 501).

        Args:
            store: The store to write to.
            bucket: The bucket.
            key: The key.
            request: The request. Its body must not have been read.
            max_size: The most bytes of the object, enforced while the body is read; None: no limit.
            min_rate: The least rate at which the client must send, in bytes per second; None: no
                limit. A client that falls behind by twenty seconds gets a 408. Time spent waiting
                for the backend does not count.
            field: The name of the form field with the file; None: the field with a file name. The
                other fields, up to 64 KiB in total, are in `UploadResponse.form`.
            location: The URL of the object; None: the path of the request.
            **fields: Arguments of `Trove.put`: ``content_type`` (default: the client's), …

        Returns:
            201 with Location and ETag; else 400, 408, 412 or 413 as problem details. A body that
            does not match its Content-MD5 or Content-Digest gets a 400 and is not stored.

        Raises:
            TroveError: The store failed.
        """
        server_request = self.read_request(request)
        if location is not None:
            server_request = replace(server_request, location=location)
        limits = Limits(max_size=max_size, min_rate=min_rate)
        result = await store_body(
            store, bucket, key, server_request, limits=limits, field=field, fields=fields
        )
        return self.make_upload_response(result, request)
