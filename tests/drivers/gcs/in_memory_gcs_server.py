"""An HTTP server for `InMemoryGCS`: the JSON API, and the XML API for reading bodies."""

from __future__ import annotations

import gzip
import json
import re
import secrets
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from email.utils import format_datetime
from posixpath import normpath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from aiohttp import ClientPayloadError, web

from tests.drivers.gcs.in_memory_gcs import (
    QUANTUM,
    InMemoryGCS,
    RejectedError,
    Session,
    not_found,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.drivers.gcs.in_memory_gcs import StoredObject

ROUTES = [
    ("POST", r"/storage/v1/b", "create_bucket"),
    ("GET", r"/storage/v1/b", "list_buckets"),
    ("GET", r"/storage/v1/b/([^/]+)", "get_bucket"),
    ("DELETE", r"/storage/v1/b/([^/]+)", "delete_bucket"),
    ("PATCH", r"/storage/v1/b/([^/]+)", "patch_bucket"),
    ("GET", r"/storage/v1/b/([^/]+)/o", "list_objects"),
    ("GET", r"/storage/v1/b/([^/]+)/o/([^/]+)", "get_object"),
    ("PATCH", r"/storage/v1/b/([^/]+)/o/([^/]+)", "patch_object"),
    ("DELETE", r"/storage/v1/b/([^/]+)/o/([^/]+)", "delete_object"),
    ("POST", r"/storage/v1/b/([^/]+)/o/([^/]+)/compose", "compose"),
    ("POST", r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)", "rewrite"),
    ("POST", r"/upload/storage/v1/b/([^/]+)/o", "upload"),
    ("PUT", r"/upload/storage/v1/b/([^/]+)/o", "upload_chunk"),
    ("DELETE", r"/upload/storage/v1/b/([^/]+)/o", "cancel"),
    ("POST", r"/batch/storage/v1", "batch"),
    ("GET", r"/([^/]+)/(.+)", "read"),
]
"""The name of the handler for each method and path. The groups in the path are passed to the handler."""

BUCKETS_PER_PAGE = 2
"""So few that a listing of three buckets has two pages."""


@asynccontextmanager
async def gcs_server(service: InMemoryGCS) -> AsyncIterator[str]:
    """Serve an in-memory service over HTTP in this event loop; yield its URL."""
    app = web.Application(client_max_size=1 << 40)
    app.router.add_route("*", "/{path:.*}", Server(service).serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Server:
    """Parses requests and encodes responses.

    `ROUTES` names the handler of each request. A handler returns a response, or a document to send.
    """

    def __init__(self, service: InMemoryGCS) -> None:
        self.service = service

    async def serve(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_token(request.headers)
            return await self._serve(request)
        except RejectedError as error:
            if error.status == 304:
                return web.Response(status=304)
            return web.json_response(_error_document(error), status=error.status)

    def _check_token(self, headers: Mapping[str, str]) -> None:
        valid_tokens = self.service.valid_tokens
        if (
            valid_tokens is not None
            and headers.get("authorization", "")[len("Bearer ") :] not in valid_tokens
        ):
            raise RejectedError(401, "authError", "Invalid Credentials")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = urlsplit(request.raw_path).path
        if self.service.resolves_dots:
            path = normpath(path.replace("%2E", "."))
        for method, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, path)
            if method == request.method and match is not None:
                names = [unquote(group) for group in match.groups()]
                result: Any = await getattr(self, handler)(request, *names)
                if isinstance(result, web.StreamResponse):
                    return result
                if not self.service.sends_zero_sizes:
                    result = without_zero_sizes(result)
                fields = request.query.get("fields")
                return web.json_response(
                    result if fields is None else select_fields(result, fields)
                )
        raise RejectedError(405, "methodNotAllowed", request.path)

    # -- buckets -----------------------------------------------------------------------------------

    async def create_bucket(self, request: web.Request) -> dict[str, Any]:
        if not request.query.get("project"):
            raise RejectedError(400, "required", "Required parameter: project")
        fields = await request.json()
        name = fields["name"]
        self.service.create_bucket(name)
        self.service.bucket_documents[name] = {"project": request.query["project"], **fields}
        return self._bucket_document(name)

    async def list_buckets(self, request: web.Request) -> dict[str, Any]:
        names = sorted(self.service.buckets)
        first = int(request.query.get("pageToken", "0"))
        end = first + BUCKETS_PER_PAGE
        document: dict[str, Any] = {
            "items": [self._bucket_document(name) for name in names[first:end]]
        }
        if end < len(names):
            document["nextPageToken"] = str(end)
        return document

    async def get_bucket(self, _: web.Request, bucket: str) -> dict[str, Any]:
        return self._bucket_document(bucket)

    async def patch_bucket(self, request: web.Request, bucket: str) -> dict[str, Any]:
        self.service.patch_bucket(bucket, await request.json())
        return self._bucket_document(bucket)

    async def delete_bucket(self, _: web.Request, bucket: str) -> web.Response:
        self.service.delete_bucket(bucket)
        return web.Response(status=204)

    def _bucket_document(self, name: str) -> dict[str, Any]:
        self.service.bucket(name)
        return {
            "kind": "storage#bucket",
            "name": name,
            "timeCreated": self.service.creation_times[name],
        }

    # -- objects -----------------------------------------------------------------------------------

    async def list_objects(self, request: web.Request, bucket: str) -> dict[str, Any]:
        return self.service.list(bucket, request.query)

    async def get_object(self, request: web.Request, bucket: str, name: str) -> Any:
        stored = self.service.object(bucket, name, request.query)
        fields = stored.resource(bucket)
        if request.query.get("alt") == "media":
            # The JSON API, unlike the XML API, sends a body without the user's metadata.
            return _media_response(request, stored, {**fields, "metadata": {}})
        return fields

    async def delete_object(self, request: web.Request, bucket: str, name: str) -> web.Response:
        self.service.delete(bucket, name, request.query)
        return web.Response(status=204)

    async def patch_object(self, request: web.Request, bucket: str, name: str) -> dict[str, Any]:
        return self.service.patch(bucket, name, await request.json(), request.query).resource(
            bucket
        )

    async def compose(self, request: web.Request, bucket: str, name: str) -> dict[str, Any]:
        fields = await request.json()
        return self.service.compose(bucket, name, fields, request.query).resource(bucket)

    async def rewrite(self, request: web.Request, *names: str) -> dict[str, Any]:
        fields = json.loads(await request.read() or b"{}")
        return self.service.rewrite(
            (names[0], names[1]), (names[2], names[3]), fields, request.query
        )

    async def batch(self, request: web.Request) -> web.Response:
        if not self.service.supports_batches:
            raise RejectedError(501, "", "Not implemented")
        boundary = request.headers["content-type"].partition("boundary=")[2]
        parts = []
        for part in (await request.text()).split(f"--{boundary}")[1:-1]:
            number = part.partition("+")[2].partition(">")[0]
            target = part.partition("DELETE ")[2].partition(" ")[0]
            bucket, name = map(unquote, re.findall(r"/(?:b|o)/([^/?]+)", target))
            try:
                self.service.delete(bucket, name, dict(parse_qsl(urlsplit(target).query)))
                response = "HTTP/1.1 204 No Content\r\n\r\n"
            except RejectedError as error:
                document = json.dumps(_error_document(error))
                response = (
                    f"HTTP/1.1 {error.status} Error\r\nContent-Type: application/json\r\n\r\n"
                )
                response += document
            parts.append(
                "Content-Type: application/http\r\n"
                f"Content-ID: <response-delete+{number}>\r\n\r\n{response}\r\n"
            )
        # In reverse order: the client must match the parts by their Content-ID.
        body = "".join([f"--batch\r\n{part}" for part in reversed(parts)]) + "--batch--\r\n"
        return web.Response(
            body=body.encode(), headers={"Content-Type": 'multipart/mixed; boundary="batch"'}
        )

    # -- uploads -----------------------------------------------------------------------------------

    async def upload(self, request: web.Request, bucket: str) -> Any:
        upload_type = request.query["uploadType"]
        if upload_type == "multipart":
            fields, body = split_multipart(request.headers["content-type"], await request.read())
            return self.service.insert(bucket, fields, body, request.query).resource(bucket)
        assert upload_type == "resumable"
        fields = await request.json()
        self.service.bucket(bucket)
        fields.setdefault("contentType", request.headers["x-upload-content-type"])
        upload_id = secrets.token_hex(8)
        self.service.sessions[upload_id] = Session(bucket, fields, dict(request.query))
        location = (
            f"https://storage.example{request.path}?uploadType=resumable&upload_id={upload_id}"
        )
        return web.Response(headers={"Location": location})

    async def upload_chunk(self, request: web.Request, _: str) -> Any:
        session = self.service.sessions.get(request.query["upload_id"])
        if session is None:
            raise RejectedError(410, "gone", "The upload session does not exist.")
        byte_range, _slash, total = (
            request.headers["content-range"].removeprefix("bytes ").partition("/")
        )
        await self._receive(request, session, byte_range, is_last=total != "*")
        complete = total != "*" and len(session.persisted) == int(total)
        if session.created is None and complete:
            fields = dict(session.fields)
            for pair in request.headers.get("x-goog-hash", "").split(","):
                if pair.startswith("crc32c="):
                    fields["crc32c"] = pair.removeprefix("crc32c=")
            session.created = self.service.insert(
                session.bucket, fields, bytes(session.persisted), session.query
            )
        if session.created is not None:
            return session.created.resource(session.bucket)
        persisted_size = len(session.persisted)
        headers = {"Range": f"bytes=0-{persisted_size - 1}"} if persisted_size else {}
        return web.Response(status=308, headers=headers)

    async def _receive(
        self, request: web.Request, session: Session, byte_range: str, *, is_last: bool
    ) -> None:
        """Read the body of a request, and persist what the service would.

        The last chunk is persisted completely, unless it is cut off or longer than `max_persisted`. Of
        any other chunk, the largest possible multiple of `QUANTUM` bytes is persisted.
        """
        body = bytearray()
        is_cut = False
        try:
            async for chunk in request.content.iter_any():
                body += chunk
        except (ConnectionError, ClientPayloadError, web.RequestPayloadError):
            is_cut = True
        if byte_range == "*":
            return  # a status query
        start, end = map(int, byte_range.split("-"))
        if not is_cut and len(body) != end - start + 1:
            raise RejectedError(
                400, "invalid", "The length of the body differs from that of the range."
            )
        if not is_last and not is_cut and len(body) % QUANTUM:
            raise RejectedError(
                400, "invalid", "The size of a chunk must be a multiple of 256 KiB."
            )
        persisted_size = len(session.persisted)
        if start > persisted_size:
            raise RejectedError(
                503, "backendError", f"The next chunk must start at {persisted_size}."
            )
        new_bytes = body[persisted_size - start :]
        if self.service.max_persisted is not None and len(new_bytes) > self.service.max_persisted:
            new_bytes = new_bytes[: self.service.max_persisted]
            is_last = False
        if is_cut or not is_last:
            new_bytes = new_bytes[: len(new_bytes) // QUANTUM * QUANTUM]
        session.persisted += new_bytes

    async def cancel(self, request: web.Request, _: str) -> web.Response:
        if self.service.sessions.pop(request.query["upload_id"], None) is None:
            raise not_found("No such session")
        return web.Response(status=499)  # as documented in "Resumable uploads": cancel an upload

    # -- downloads ---------------------------------------------------------------------------------

    async def read(self, request: web.Request, bucket: str, name: str) -> web.StreamResponse:
        """Respond as the XML API does."""
        if not self.service.has_xml_api:
            return web.Response(status=404, text="Not Found")
        query = dict(request.query)
        if "x-goog-if-generation-match" in request.headers:
            query["ifGenerationMatch"] = request.headers["x-goog-if-generation-match"]
        try:
            stored = self.service.object(bucket, name, query)
        except RejectedError as error:
            code = "PreconditionFailed"
            if error.status == 404:
                code = "NoSuchKey" if bucket in self.service.buckets else "NoSuchBucket"
            return _xml_error(error.status, code, str(error))
        response = _media_response(request, stored, stored.resource(bucket))
        if not self.service.sends_dates:
            response.headers.pop("Last-Modified", None)
        return response


def without_zero_sizes(document: Any) -> Any:
    """Return a copy of a document that omits sizes of 0, as some servers do."""
    if isinstance(document, dict):
        return {
            name: without_zero_sizes(value)
            for name, value in document.items()
            if (name, value) != ("size", "0")
        }
    if isinstance(document, list):
        return [without_zero_sizes(item) for item in document]
    return document


def _media_response(
    request: web.Request, stored: StoredObject, fields: Mapping[str, Any]
) -> web.StreamResponse:
    """Return a response with an object's body, or a range of the body, and the metadata in headers."""
    # 1. Decompress the body for a client that does not accept gzip, then select the requested range.
    body, status = stored.body, 200
    response = web.Response()
    headers = response.headers
    encoding = fields.get("contentEncoding") or "identity"
    if encoding == "gzip" and "gzip" not in request.headers.get("accept-encoding", ""):
        body = gzip.decompress(body)
    elif encoding != "identity":
        headers["Content-Encoding"] = encoding
    byte_range = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if byte_range is not None:
        first, last = byte_range.groups()
        start = int(first) if first else max(len(body) - int(last), 0)
        end = min(int(last) + 1, len(body)) if first and last else len(body)
        if start >= len(body):
            return _xml_error(416, "InvalidRange", "The requested range cannot be satisfied.")
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
        body = body[start:end]
    # 2. Send the metadata as headers.
    for name, value in fields.get("metadata", {}).items():
        # Characters that a header cannot carry are replaced or removed.
        headers.add(f"X-Goog-Meta-{name}", value.encode("ascii", "replace").decode().strip())
    headers["X-Goog-Generation"] = fields["generation"]
    headers["X-Goog-Metageneration"] = fields["metageneration"]
    headers["X-Goog-Stored-Content-Encoding"] = encoding
    headers["X-Goog-Stored-Content-Length"] = fields["size"]
    headers["X-Goog-Storage-Class"] = fields["storageClass"]
    headers.add("X-Goog-Hash", f"crc32c={fields['crc32c']}")
    if "md5Hash" in fields:
        headers.add("X-Goog-Hash", f"md5={fields['md5Hash']}")
    headers["Content-Type"] = fields["contentType"]
    headers["Cache-Control"] = fields.get("cacheControl", "private, max-age=0")
    if "contentDisposition" in fields:
        headers["Content-Disposition"] = fields["contentDisposition"]
    if "contentLanguage" in fields:
        headers["Content-Language"] = fields["contentLanguage"]
    updated = datetime.fromisoformat(stored.updated)
    headers["Last-Modified"] = format_datetime(updated, usegmt=True)
    headers["ETag"] = f'"{fields.get("md5Hash", fields["etag"])}"'
    response.set_status(status)
    response.body = body
    return response


def _xml_error(status: int, code: str, message: str) -> web.Response:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}"
    return web.Response(
        status=status, text=text + "</Message></Error>", content_type="application/xml"
    )


def _error_document(error: RejectedError) -> dict[str, Any]:
    detail = {"domain": "global", "reason": error.reason, "message": str(error)}
    return {"error": {"code": error.status, "message": str(error), "errors": [detail]}}


def split_multipart(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Split the body of a multipart upload into the object's resource and its content."""
    boundary = content_type.partition("boundary=")[2].encode()
    assert body.endswith(b"\r\n--" + boundary + b"--\r\n")
    _, resource_part, media_part = body[: -len(boundary) - 8].split(b"--" + boundary + b"\r\n")
    media_headers, _, media = media_part.partition(b"\r\n\r\n")
    fields = json.loads(resource_part.partition(b"\r\n\r\n")[2])
    with suppress(IndexError):
        fields.setdefault("contentType", media_headers.decode().split(": ")[1])
    return fields, media


def select_fields(document: Any, fields: str) -> Any:
    """Return the part of a document that a `fields` parameter selects: ``a,b(c,d)``."""
    if isinstance(document, list):
        return [select_fields(item, fields) for item in document]
    selected = {}
    for name, _, inner in re.findall(r"([A-Za-z0-9]+)(\(([^()]*)\))?", fields):
        if name in document:
            selected[name] = select_fields(document[name], inner) if inner else document[name]
    return selected
