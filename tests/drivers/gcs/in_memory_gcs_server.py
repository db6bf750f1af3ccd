"""An HTTP server for `Cloud`: the JSON API, and the object reads of the XML API."""

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

from tests.drivers.gcs.in_memory_gcs import QUANTUM, Cloud, RefusedError, Session, crc_of, not_found

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.drivers.gcs.in_memory_gcs import Stored

_ROUTES = [
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
    ("PUT", r"/upload/storage/v1/b/([^/]+)/o", "chunk"),
    ("DELETE", r"/upload/storage/v1/b/([^/]+)/o", "cancel"),
    ("POST", r"/batch/storage/v1", "batch"),
    ("GET", r"/([^/]+)/(.+)", "read"),
]
ROUTES = [(method, re.compile(path), name) for method, path, name in _ROUTES]


@asynccontextmanager
async def serving(cloud: Cloud) -> AsyncIterator[str]:
    """Serve a cloud over HTTP in this event loop; yield its URL."""
    app = web.Application(client_max_size=1 << 40)
    app.router.add_route("*", "/{path:.*}", CloudServer(cloud).serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class CloudServer:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    async def serve(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_token(request.headers)
            return await self._serve(request)
        except RefusedError as error:
            if error.status == 304:
                return web.Response(status=304)
            return web.json_response(_error(error), status=error.status)

    def _check_token(self, headers: Mapping[str, str]) -> None:
        tokens = self.cloud.tokens
        if tokens is not None and headers.get("authorization", "")[len("Bearer ") :] not in tokens:
            raise RefusedError(401, "authError", "Invalid Credentials")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = urlsplit(request.raw_path).path
        if self.cloud.normalises:
            path = normpath(path.replace("%2E", "."))
        for method, pattern, name in ROUTES:
            found = pattern.fullmatch(path)
            if method == request.method and found is not None:
                names = [unquote(part) for part in found.groups()]
                answer: Any = await getattr(self, name)(request, *names)
                if isinstance(answer, web.StreamResponse):
                    return answer
                if not self.cloud.tells_zero:
                    answer = without_zeros(answer)
                fields = request.query.get("fields")
                return web.json_response(answer if fields is None else selected(answer, fields))
        raise RefusedError(405, "methodNotAllowed", request.path)

    # -- buckets -----------------------------------------------------------------------------------

    async def create_bucket(self, request: web.Request) -> dict[str, Any]:
        if not request.query.get("project"):
            raise RefusedError(400, "required", "Required parameter: project")
        said = await request.json()
        name = said["name"]
        self.cloud.create_bucket(name)
        self.cloud.settings[name] = {"project": request.query["project"], **said}
        return self._bucket(name)

    async def list_buckets(self, request: web.Request) -> dict[str, Any]:
        names = sorted(self.cloud.buckets)
        first = int(request.query.get("pageToken", "0"))
        page = names[first : first + 2]
        answer: dict[str, Any] = {"items": [self._bucket(name) for name in page]}
        if names[first + 2 :]:
            answer["nextPageToken"] = str(first + 2)
        return answer

    async def get_bucket(self, _: web.Request, bucket: str) -> dict[str, Any]:
        return self._bucket(bucket)

    async def patch_bucket(self, request: web.Request, bucket: str) -> dict[str, Any]:
        self.cloud.patch_bucket(bucket, await request.json())
        return self._bucket(bucket)

    async def delete_bucket(self, _: web.Request, bucket: str) -> web.Response:
        self.cloud.delete_bucket(bucket)
        return web.Response(status=204)

    def _bucket(self, name: str) -> dict[str, Any]:
        self.cloud.bucket(name)
        return {
            "kind": "storage#bucket",
            "name": name,
            "timeCreated": self.cloud.created[name],
        }

    # -- objects -----------------------------------------------------------------------------------

    async def list_objects(self, request: web.Request, bucket: str) -> dict[str, Any]:
        return self.cloud.list(bucket, request.query)

    async def get_object(self, request: web.Request, bucket: str, name: str) -> Any:
        held = self.cloud.object(bucket, name, request.query)
        said = held.resource(bucket)
        if request.query.get("alt") == "media":
            return _media(request, held, {**said, "metadata": {}})
        return said

    async def delete_object(self, request: web.Request, bucket: str, name: str) -> web.Response:
        self.cloud.delete(bucket, name, request.query)
        return web.Response(status=204)

    async def patch_object(self, request: web.Request, bucket: str, name: str) -> dict[str, Any]:
        return self.cloud.patch(bucket, name, await request.json(), request.query).resource(bucket)

    async def compose(self, request: web.Request, bucket: str, name: str) -> dict[str, Any]:
        said = await request.json()
        return self.cloud.compose(bucket, name, said, request.query).resource(bucket)

    async def rewrite(self, request: web.Request, *names: str) -> dict[str, Any]:
        said = json.loads(await request.read() or b"{}")
        return self.cloud.rewrite((names[0], names[1]), (names[2], names[3]), said, request.query)

    async def batch(self, request: web.Request) -> web.Response:
        if not self.cloud.batches:
            raise RefusedError(501, "", "Not implemented")
        boundary = request.headers["content-type"].partition("boundary=")[2]
        parts = []
        for part in (await request.text()).split(f"--{boundary}")[1:-1]:
            number = part.partition("+")[2].partition(">")[0]
            target = part.partition("DELETE ")[2].partition(" ")[0]
            bucket, name = map(unquote, re.findall(r"/(?:b|o)/([^/?]+)", target))
            try:
                self.cloud.delete(bucket, name, dict(parse_qsl(urlsplit(target).query)))
                answer = "HTTP/1.1 204 No Content\r\n\r\n"
            except RefusedError as error:
                document = json.dumps(_error(error))
                answer = f"HTTP/1.1 {error.status} No\r\nContent-Type: application/json\r\n\r\n"
                answer += document
            parts.append(
                "Content-Type: application/http\r\n"
                f"Content-ID: <response-delete+{number}>\r\n\r\n{answer}\r\n"
            )
        body = "".join([f"--them\r\n{part}" for part in reversed(parts)]) + "--them--\r\n"
        return web.Response(
            body=body.encode(), headers={"Content-Type": 'multipart/mixed; boundary="them"'}
        )

    # -- bodies in ---------------------------------------------------------------------------------

    async def upload(self, request: web.Request, bucket: str) -> Any:
        kind = request.query["uploadType"]
        if kind == "multipart":
            said, body = _parts(request.headers["content-type"], await request.read())
            return self.cloud.insert(bucket, said, body, request.query).resource(bucket)
        assert kind == "resumable"
        said = await request.json()
        self.cloud.bucket(bucket)
        said.setdefault("contentType", request.headers["x-upload-content-type"])
        token = secrets.token_hex(8)
        self.cloud.sessions[token] = Session(bucket, said, dict(request.query))
        location = f"https://storage.example{request.path}?uploadType=resumable&upload_id={token}"
        return web.Response(headers={"Location": location})

    async def chunk(self, request: web.Request, _: str) -> Any:
        token = request.query["upload_id"]
        session = self.cloud.sessions.get(token)
        if session is None:
            raise RefusedError(410, "gone", "The upload session is over.")
        span, _slash, total = request.headers["content-range"].removeprefix("bytes ").partition("/")
        await self._receive(request, session, span, last=total != "*")
        complete = total != "*" and len(session.received) == int(total)
        if session.made is None and complete:
            said = dict(session.said)
            for pair in request.headers.get("x-goog-hash", "").split(","):
                if pair.startswith("crc32c="):
                    said["crc32c"] = pair.removeprefix("crc32c=")
            session.made = self.cloud.insert(
                session.bucket, said, bytes(session.received), session.query
            )
        if session.made is not None:
            return session.made.resource(session.bucket)
        have = len(session.received)
        headers = {"Range": f"bytes=0-{have - 1}"} if have else {}
        return web.Response(status=308, headers=headers)

    async def _receive(
        self, request: web.Request, session: Session, span: str, *, last: bool
    ) -> None:
        body = bytearray()
        broken = False
        try:
            async for piece in request.content.iter_any():
                body += piece
        except (ConnectionError, ClientPayloadError, web.RequestPayloadError):
            broken = True
        if span == "*":
            return
        start, end = map(int, span.split("-"))
        if not broken and len(body) != end - start + 1:
            raise RefusedError(400, "invalid", "The body is not of the range's length.")
        if not last and not broken and len(body) % QUANTUM:
            raise RefusedError(400, "invalid", "A chunk is a multiple of 256 KiB.")
        have = len(session.received)
        if start > have:
            raise RefusedError(503, "backendError", f"Bytes from {have} on are missing.")
        fresh = body[have - start :]
        if self.cloud.keeps_at_most is not None and len(fresh) > self.cloud.keeps_at_most:
            fresh = fresh[: self.cloud.keeps_at_most]
            last = False
        if broken or not last:
            fresh = fresh[: len(fresh) // QUANTUM * QUANTUM]
        session.received += fresh

    async def cancel(self, request: web.Request, _: str) -> web.Response:
        if self.cloud.sessions.pop(request.query["upload_id"], None) is None:
            raise not_found("No such session")
        return web.Response(status=499)

    # -- bodies out --------------------------------------------------------------------------------

    async def read(self, request: web.Request, bucket: str, name: str) -> web.StreamResponse:
        """Respond as the XML API does."""
        if not self.cloud.xml:
            return web.Response(status=404, text="Not Found")
        wanted = dict(request.query)
        if "x-goog-if-generation-match" in request.headers:
            wanted["ifGenerationMatch"] = request.headers["x-goog-if-generation-match"]
        try:
            held = self.cloud.object(bucket, name, wanted)
        except RefusedError as error:
            code = "PreconditionFailed"
            if error.status == 404:
                code = "NoSuchKey" if bucket in self.cloud.buckets else "NoSuchBucket"
            return _xml(error.status, code, str(error))
        answer = _media(request, held, held.resource(bucket))
        if not self.cloud.dates:
            answer.headers.pop("Last-Modified", None)
        return answer


def without_zeros(said: Any) -> Any:
    """Return a document without sizes of zero, as some servers omit them."""
    if isinstance(said, dict):
        kept = {name: value for name, value in said.items() if (name, value) != ("size", "0")}
        return {name: without_zeros(value) for name, value in kept.items()}
    return [without_zeros(one) for one in said] if isinstance(said, list) else said


def _media(request: web.Request, held: Stored, said: Mapping[str, Any]) -> web.StreamResponse:
    body, status = held.body, 200
    answer = web.Response()
    headers = answer.headers
    stored = said.get("contentEncoding") or "identity"
    if stored == "gzip" and "gzip" not in request.headers.get("accept-encoding", ""):
        body = gzip.decompress(body)
    elif stored != "identity":
        headers["Content-Encoding"] = stored
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if asked is not None:
        first, last = asked.groups()
        start = int(first) if first else max(len(body) - int(last), 0)
        end = min(int(last) + 1, len(body)) if first and last else len(body)
        if start >= len(body):
            return _xml(416, "InvalidRange", "The requested range cannot be satisfied.")
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
        body = body[start:end]
    for name, value in said.get("metadata", {}).items():
        # A header loses characters that it cannot carry.
        headers.add(f"X-Goog-Meta-{name}", value.encode("ascii", "replace").decode().strip())
    headers["X-Goog-Generation"] = said["generation"]
    headers["X-Goog-Metageneration"] = said["metageneration"]
    headers["X-Goog-Stored-Content-Encoding"] = stored
    headers["X-Goog-Stored-Content-Length"] = said["size"]
    headers["X-Goog-Storage-Class"] = said["storageClass"]
    headers.add("X-Goog-Hash", f"crc32c={said['crc32c']}")
    if "md5Hash" in said:
        headers.add("X-Goog-Hash", f"md5={said['md5Hash']}")
    headers["Content-Type"] = said["contentType"]
    headers["Cache-Control"] = said.get("cacheControl", "private, max-age=0")
    if "contentDisposition" in said:
        headers["Content-Disposition"] = said["contentDisposition"]
    if "contentLanguage" in said:
        headers["Content-Language"] = said["contentLanguage"]
    updated = datetime.fromisoformat(held.updated)
    headers["Last-Modified"] = format_datetime(updated, usegmt=True)
    headers["ETag"] = f'"{said.get("md5Hash", said["etag"])}"'
    answer.set_status(status)
    answer.body = body
    return answer


def _xml(status: int, code: str, message: str) -> web.Response:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}"
    return web.Response(
        status=status, text=text + "</Message></Error>", content_type="application/xml"
    )


def _error(error: RefusedError) -> dict[str, Any]:
    told = {"domain": "global", "reason": error.reason, "message": str(error)}
    return {"error": {"code": error.status, "message": str(error), "errors": [told]}}


def _parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    boundary = content_type.partition("boundary=")[2].encode()
    assert body.endswith(b"\r\n--" + boundary + b"--\r\n")
    _, first, second = body[: -len(boundary) - 8].split(b"--" + boundary + b"\r\n")
    head, _, media = second.partition(b"\r\n\r\n")
    said = json.loads(first.partition(b"\r\n\r\n")[2])
    with suppress(IndexError):
        said.setdefault("contentType", head.decode().split(": ")[1])
    return said, media


def selected(answer: Any, fields: str) -> Any:
    """Return the part of a response that a `fields` parameter selects: ``a,b(c,d)``."""
    if isinstance(answer, list):
        return [selected(one, fields) for one in answer]
    wanted = {}
    for name, _, inner in re.findall(r"([A-Za-z0-9]+)(\(([^()]*)\))?", fields):
        if name in answer:
            wanted[name] = selected(answer[name], inner) if inner else answer[name]
    return wanted


__all__ = ["Cloud", "crc_of", "serving"]
