"""The two verbs of every framework, said once: `object_response` and `store_upload`.

A framework's room makes a `Verbs` of how it reads a request and how it sends an answer, and its two
functions are that one's methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, Unpack

from trove_async import Trove

from ._download import Redirect, serve
from ._headers import Presentation
from ._response import ServerResponse
from ._upload import MIN_RATE, Limits, PutFields, Sent, Taken, take

RequestT = TypeVar("RequestT")
ObjectResponseT = TypeVar("ObjectResponseT")
UploadResponseT = TypeVar("UploadResponseT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbs(Generic[RequestT, ObjectResponseT, UploadResponseT]):
    """What a service says to a store, in the words of one framework.

    Attributes:
        sent: Reads a request.
        serving: Makes the response to one for an object.
        taken: Makes the response to one that brought an object.
    """

    sent: Callable[[RequestT], Sent]
    serving: Callable[[ServerResponse, RequestT], ObjectResponseT]
    taken: Callable[[Taken, RequestT], UploadResponseT]

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
        """ServerResponse a GET or HEAD request with an object: conditions, ranges and all, by RFC 9110.

        The object is opened here, so that what goes wrong can still be answered otherwise; it is
        sent when the response is. Return the response, or `ObjectResponse.aclose` it.

        Args:
            store: Where from.
            bucket: Its bucket.
            key: Its key; whatever a client makes of it, it is a key of that bucket and nothing else.
            request: The request.
            download_name: Offer it as a download of this name, which may be in any script.
            cache_control: In place of the object's own. If neither says anything: ``private``.
            redirect: ``"presign"`` sends a GET on to a presigned URL of the backend, good for five
                minutes, where it has such; what is said here of headers then does not hold.
            trusted: Serve every type as what it is, in your origin: only for objects of your own.
                Otherwise browsers show images (no SVG), audio, video, PDF, JSON and plain text;
                all other types are downloads, a malformed Content-Type is
                ``application/octet-stream``, and a Content-Security-Policy with ``sandbox`` keeps
                scripts from running.

        Raises:
            ObjectNotFoundError: There is no such object. Other errors of the store likewise.
            ValueError: No header can carry `cache_control`.
        """
        sent = self.sent(request)
        answer = await serve(
            store,
            bucket,
            key,
            sent.method,
            sent.header,
            presentation=Presentation(
                download_name=download_name, cache_control=cache_control, trusted=trusted
            ),
            redirect=redirect,
        )
        return self.serving(answer, request)

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
        """Store the body of a request: a raw one, or the file of a multipart/form-data one.

        It is streamed at the pace of the slower side. A client that leaves, or breaks a limit,
        cancels the put, and nothing is left behind. ``If-Match``, ``If-None-Match`` and
        ``If-Unmodified-Since`` are honoured atomically, or refused where the backend cannot
        (`NotSupportedError`, a 501).

        Args:
            store: Where to.
            bucket: The bucket.
            key: The key.
            request: The request; nothing has read its body yet.
            max_size: Bytes of the object, enforced while it is read; None: any number.
            min_rate: The least rate at which a client must send, in bytes a second, or None for no
                limit. A client that falls behind by twenty seconds gets a 408. Time that the
                backend takes does not count.
            field: The form field that has the file; None: whichever has a file name. Fields that are
                no files, of up to 64 KiB together, are in `UploadResponse.form`.
            location: The object's URL; None: the request's own path.
            **fields: Of the object, as to `Trove.put`: ``content_type`` (else the client's), …

        Returns:
            201 with Location and ETag; else 400, 408, 412 or 413 as problem details. A body that
            is not what its Content-MD5 or Content-Digest says is a 400, and is not stored.

        Raises:
            TroveError: The store failed.
        """
        sent = self.sent(request)
        if location is not None:
            sent = replace(sent, location=location)
        limits = Limits(max_size=max_size, min_rate=min_rate)
        taken = await take(store, bucket, key, sent, limits=limits, field=field, fields=fields)
        return self.taken(taken, request)
