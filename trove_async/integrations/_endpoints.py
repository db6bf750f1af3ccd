"""`object_response` and `store_upload`, independent of the web framework.

The module of each framework creates one `Endpoints` object and exports its methods as functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, Unpack

from trove_async import Trove
from trove_async._settings import check_texts

from ._conditions import Header
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
        read_head: Returns the method and the headers of the framework's request, for a download.
        read_request: Converts the framework's request, for an upload.
        make_object_response: Creates the framework's response to a download.
        make_upload_response: Creates the framework's response to an upload.
    """

    read_head: Callable[[RequestT], tuple[str, Header]]
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
        """Respond to a GET or HEAD request with an object. Conditions and ranges follow RFC 9110.

        An object that is stored as zstd (see `trove_async.middlewares.Compression`) is sent as it is to
        a client that accepts ``Content-Encoding: zstd``, and decoded to others. Each form has its own
        ETag. Ranges are of the decoded form.

        The object is opened before this returns, so a failure can still become an error response.
        A body of more than 256 KiB is read while the response is sent. Return the response, or
        close it with `ObjectResponse.aclose`.

        Args:
            store: The store to read from.
            bucket: The bucket.
            key: The key. It may come from the client: no key refers to anything outside the bucket.
            request: The request.
            download_name: Send the object as a download with this file name. It may contain any
                characters: unsafe ones are replaced or encoded.
            cache_control: The Cache-Control header; None uses that of the object, or ``private``.
            redirect: ``"presign"`` redirects a GET to a presigned URL of the backend, valid for
                five minutes, if the backend supports it and no middleware applies to the key
                (`Trove.presign_get`). The backend then sends its own headers, and `download_name`,
                `cache_control` and `trusted` have no effect. It sends the stored bytes: do not use this
                if objects may be encoded for another reason, such as the media type of their put.
            trusted: Send every object with its own type, without a sandbox. Scripts in it then run
                in your origin, so use this only for objects that you control. If False, browsers
                show images (except SVG), audio, video, PDF, JSON and plain text. All other types
                are downloads, scripts and malformed types are sent as
                ``application/octet-stream``, and a Content-Security-Policy with ``sandbox``
                prevents scripts from running.

        Raises:
            ObjectNotFoundError: The object does not exist.
            TroveError: The store failed.
            ValueError: `cache_control` cannot be sent in a header, or `redirect` is unknown.
            TypeError: An argument has the wrong type.
        """
        if redirect not in ("never", "presign"):
            raise ValueError(f"redirect must be 'never' or 'presign', got {redirect!r}")
        method, header = self.read_head(request)
        response = await serve_object(
            store,
            bucket,
            key,
            method,
            header,
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

        The body is streamed as fast as the client sends and the backend stores it. If the client
        disconnects or exceeds a limit, the put fails and nothing is stored. ``If-Match``,
        ``If-None-Match`` and ``If-Unmodified-Since`` are applied atomically. On a backend that
        does not support this, they raise NotSupportedError (a 501).

        Args:
            store: The store to write to.
            bucket: The bucket.
            key: The key.
            request: The request. Its body must not have been read.
            max_size: The maximum size of the object in bytes, enforced while the body is read; None
                for no limit.
            min_rate: The minimum rate at which the client must send, in bytes per second; None for
                no limit. A client that falls behind by twenty seconds gets a 408. Time spent
                waiting for the backend does not count.
            field: The name of the form field with the file; None for the only field that has a
                file name. The other fields, up to 64 KiB in total, are in `UploadResponse.form`.
            location: The URL of the object for the Location header; None uses the path of the
                request.
            **fields: Arguments of `Trove.put`, such as ``content_type``, whose default is the
                Content-Type from the client.

        Returns:
            201 with Location, and with ETag unless the framework decoded the body or the backend has no
            etags; or 400, 408, 412 or 413 as problem details. A body that does not match its
            Content-MD5 or Content-Digest gets a 400 and is not stored.

        Raises:
            TroveError: The store failed.
            ValueError: `max_size` is negative, or `min_rate` is not positive.
            TypeError: An argument has the wrong type.
        """
        check_texts(field=field, location=location)
        server_request = self.read_request(request)
        if location is not None:
            server_request = replace(server_request, location=location)
        limits = Limits(max_size=max_size, min_rate=min_rate)
        result = await store_body(
            store, bucket, key, server_request, limits=limits, field=field, put_fields=fields
        )
        return self.make_upload_response(result, request)
