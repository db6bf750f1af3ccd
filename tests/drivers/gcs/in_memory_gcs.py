"""An in-memory Cloud Storage that follows the documentation of Google's JSON API.

It is stricter than an emulator: it checks the conditions of every read and write, and the CRC-32C of
uploads. It can persist only a part of each chunk, and split a rewrite into several requests.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping

QUANTUM = 256 * 1024


class RejectedError(Exception):
    """Raised if the service rejects a request."""

    def __init__(self, status: int, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.status = status
        self.reason = reason


def not_found(message: str) -> RejectedError:
    return RejectedError(404, "notFound", message)


@dataclass(frozen=True)
class StoredObject:
    """One version of an object.

    Attributes:
        fields: The fields of the resource that the client set.
        deleted_at: The time at which the version was replaced or deleted. None: it is live.
        components: The number of components of a composite object. 0: it was not composed.
    """

    name: str
    body: bytes
    generation: int
    updated: str
    fields: Mapping[str, Any]
    metageneration: int = 1
    deleted_at: str | None = None
    components: int = 0

    def resource(self, bucket: str) -> dict[str, Any]:
        digest = hashlib.md5(self.body, usedforsecurity=False).digest()
        fields: dict[str, Any] = {
            "storageClass": "STANDARD",
            **self.fields,
            "kind": "storage#object",
            "name": self.name,
            "bucket": bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "size": str(len(self.body)),
            "updated": self.updated,
            "timeCreated": self.updated,
            "crc32c": encoded_crc32c(self.body),
            "md5Hash": b64encode(digest).decode(),
            "etag": "CP" + secrets.token_hex(4),  # the driver must not use the JSON API's ETag
        }
        if self.deleted_at is not None:
            fields["timeDeleted"] = self.deleted_at
        if self.components:  # Cloud Storage, "Composite objects": they have no MD5
            del fields["md5Hash"]
            fields["componentCount"] = self.components
        return fields


def encoded_crc32c(body: bytes) -> str:
    return b64encode(crc32c(body).to_bytes(4)).decode()


@dataclass
class Session:
    """The session of a resumable upload.

    Attributes:
        fields: The resource in the request that started the session.
        query: The query of that request.
        persisted: The bytes that the service has persisted.
        created: The object, once all bytes are persisted.
    """

    bucket: str
    fields: dict[str, Any]
    query: Mapping[str, str]
    persisted: bytearray = field(default_factory=bytearray)
    created: StoredObject | None = None


@dataclass
class Rewrite:
    """A copy that may take several requests.

    Attributes:
        addresses: The bucket and name of the source, then those of the copy.
        copied: The number of bytes copied.
    """

    addresses: tuple[str, ...]
    copied: int = 0


class InMemoryGCS:
    """The state and the behaviour of the service.

    Attributes:
        buckets: For each bucket, its live objects by name.
        noncurrent: For each bucket, the noncurrent versions of its objects by name.
        bucket_documents: The documents that created the buckets, with their projects.
        max_persisted: The maximum number of bytes of one request that a session persists. None: all.
        max_rewritten: The maximum number of bytes that one rewrite request copies.
        has_xml_api: Whether the XML API is available.
        valid_tokens: The valid access tokens. None: requests need no token.
        sends_dates: Whether responses of the XML API have a Last-Modified.
        sends_zero_sizes: Whether resources of empty objects include their size.
        supports_batches: Whether the service accepts batch requests.
        resolves_dots: Whether the server resolves dot segments in paths, even encoded ones.
    """

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, StoredObject]] = {}
        self.noncurrent: dict[str, dict[str, list[StoredObject]]] = {}
        self.versioned_buckets: set[str] = set()
        self.creation_times: dict[str, str] = {}
        self.bucket_documents: dict[str, dict[str, str]] = {}
        self.sessions: dict[str, Session] = {}
        self.rewrites: dict[str, Rewrite] = {}
        self.max_persisted: int | None = None
        self.max_rewritten = 1 << 40
        self.has_xml_api = True
        self.valid_tokens: set[str] | None = None
        self.sends_dates = self.sends_zero_sizes = self.supports_batches = True
        self.resolves_dots = False
        self._generations = count(1_700_000_000_000_001)

    # -- buckets -----------------------------------------------------------------------------------

    def bucket(self, name: str) -> dict[str, StoredObject]:
        try:
            return self.buckets[name]
        except KeyError:
            raise not_found("The specified bucket does not exist.") from None

    def create_bucket(self, name: str) -> None:
        if name in self.buckets:
            raise RejectedError(409, "conflict", "Your previous request to create it succeeded.")
        self.buckets[name] = {}
        self.creation_times[name] = _now()

    def delete_bucket(self, name: str) -> None:
        if self.bucket(name) or any(self.noncurrent.get(name, {}).values()):
            raise RejectedError(409, "conflict", "The bucket you tried to delete is not empty.")
        del self.buckets[name]

    # -- objects -----------------------------------------------------------------------------------

    def object(self, bucket: str, name: str, query: Mapping[str, str]) -> StoredObject:
        """Return the live object, or the version that a query selects, if the query's conditions hold."""
        live, requested = self.bucket(bucket).get(name), query.get("generation")
        noncurrent = self.noncurrent.get(bucket, {}).get(name, [])
        stored = live
        if requested is not None:
            versions = [*noncurrent, *([] if live is None else [live])]
            stored = next(
                (version for version in versions if str(version.generation) == requested), None
            )
        if stored is None:
            raise not_found(f"No such object: {bucket}/{name}")
        if query.get("ifGenerationNotMatch") == str(stored.generation):
            raise RejectedError(304, "")
        check_generation(stored, query.get("ifGenerationMatch"))
        return stored

    def insert(
        self, bucket: str, fields: Mapping[str, Any], body: bytes, query: Mapping[str, str]
    ) -> StoredObject:
        """Create an object if the condition holds and the checksum matches."""
        objects = self.bucket(bucket)
        name = fields.get("name") or query["name"]
        if not name or "\n" in name or "\r" in name or len(name.encode()) > 1024:
            raise RejectedError(400, "invalid", f"Disallowed unicode characters in {name!r}")
        check_generation(objects.get(name), query.get("ifGenerationMatch"))
        declared_checksum = fields.get("crc32c")
        if declared_checksum not in {None, encoded_crc32c(body)}:
            raise RejectedError(
                400,
                "invalid",
                f'Provided CRC32C "{declared_checksum}" doesn\'t match calculated CRC32C "{encoded_crc32c(body)}".',
            )
        # The service computes the checksums itself.
        stored_fields = {
            field: value for field, value in fields.items() if field not in {"crc32c", "md5Hash"}
        }
        created = StoredObject(name, bytes(body), next(self._generations), _now(), stored_fields)
        self._retire(bucket, name)
        objects[name] = created
        return created

    def delete(self, bucket: str, name: str, query: Mapping[str, str]) -> None:
        """Delete the live object, or permanently delete the version that the query selects."""
        stored = self.object(bucket, name, query)
        if "generation" not in query:
            self._retire(bucket, name)
        elif stored.deleted_at is None:
            del self.buckets[bucket][name]
        else:
            self.noncurrent[bucket][name].remove(stored)

    def _retire(self, bucket: str, name: str) -> None:
        """Remove the live object. A versioned bucket retains it as a noncurrent version."""
        live = self.buckets[bucket].pop(name, None)
        if live is not None and bucket in self.versioned_buckets:
            noncurrent = self.noncurrent.setdefault(bucket, {}).setdefault(name, [])
            noncurrent.append(replace(live, deleted_at=_now()))

    def patch_bucket(self, bucket: str, fields: Mapping[str, Any]) -> None:
        """Set the versioning of a bucket, the only field that the driver patches."""
        self.bucket(bucket)
        if fields["versioning"]["enabled"]:
            self.versioned_buckets.add(bucket)
        else:
            self.versioned_buckets.discard(bucket)

    def patch(
        self, bucket: str, name: str, fields: Mapping[str, Any], query: Mapping[str, str]
    ) -> StoredObject:
        """Change the metadata of an object. Its custom time can only move forward."""
        stored = self.object(bucket, name, query)
        if query.get("ifMetagenerationMatch") not in {None, str(stored.metageneration)}:
            raise RejectedError(
                412, "conditionNotMet", "At least one of the pre-conditions failed."
            )
        before, after = stored.fields.get("customTime"), fields.get("customTime")
        if before and after and datetime.fromisoformat(after) < datetime.fromisoformat(before):
            raise RejectedError(400, "invalid", "Custom time cannot be decreased.")
        changed = replace(
            stored, fields={**stored.fields, **fields}, metageneration=stored.metageneration + 1
        )
        self.buckets[bucket][name] = changed
        return changed

    def compose(
        self, bucket: str, name: str, fields: Mapping[str, Any], query: Mapping[str, str]
    ) -> StoredObject:
        """Concatenate 1 to 32 objects if the conditions on them and on the new object hold."""
        if not 1 <= len(fields["sourceObjects"]) <= 32:
            raise RejectedError(400, "invalid", "The number of source components is 1 to 32.")
        sources = []
        for source_document in fields["sourceObjects"]:
            source = self.object(bucket, source_document["name"], {})
            check_generation(
                source, source_document.get("objectPreconditions", {}).get("ifGenerationMatch")
            )
            sources.append(source)
        body = b"".join(source.body for source in sources)
        created = self.insert(bucket, {**fields["destination"], "name": name}, body, query)
        components = sum(source.components or 1 for source in sources)
        created = self.buckets[bucket][name] = replace(created, components=components)
        return created

    def rewrite(
        self,
        source: tuple[str, str],
        target: tuple[str, str],
        fields: Mapping[str, Any],
        query: Mapping[str, str],
    ) -> dict[str, Any]:
        """Copy up to `max_rewritten` bytes. Create the copy once all bytes are copied."""
        requested = query.get("sourceGeneration")
        stored = self.object(*source, {} if requested is None else {"generation": requested})
        check_generation(stored, query.get("ifSourceGenerationMatch"))
        check_generation(self.bucket(target[0]).get(target[1]), query.get("ifGenerationMatch"))
        token = query.get("rewriteToken") or secrets.token_hex(8)
        rewrite = self.rewrites.setdefault(token, Rewrite((*source, *target)))
        if rewrite.addresses != (*source, *target):
            raise RejectedError(400, "invalid", "The token belongs to another rewrite.")
        rewrite.copied = min(rewrite.copied + self.max_rewritten, len(stored.body))
        document: dict[str, Any] = {
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": str(rewrite.copied),
            "objectSize": str(len(stored.body)),
            "done": rewrite.copied == len(stored.body),
        }
        if not document["done"]:
            return {**document, "rewriteToken": token}
        created = self.insert(
            target[0], {**(fields or stored.fields), "name": target[1]}, stored.body, {}
        )
        return {**document, "resource": created.resource(target[0])}

    # -- listings ----------------------------------------------------------------------------------

    def list(self, bucket: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page. maxResults limits the number of objects and prefixes together."""
        if query.get("versions") == "true":
            return self._versions(bucket, query)
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        start, limit = query.get("startOffset", ""), min(int(query.get("maxResults", "1000")), 1000)
        after = query.get("pageToken", "")
        names: dict[str, StoredObject | None] = {}
        for name, stored in sorted(self.bucket(bucket).items()):
            if name.startswith(prefix) and name >= start:
                index = name.find(delimiter, len(prefix)) if delimiter else -1
                if index < 0:
                    names[name] = stored
                else:
                    names[name[: index + len(delimiter)]] = None  # a prefix
        remaining = sorted(name for name in names if not after or name > after)
        page = {name: names[name] for name in remaining[:limit]}
        document: dict[str, Any] = {"kind": "storage#objects"}
        items = [stored.resource(bucket) for stored in page.values() if stored is not None]
        prefixes = [name for name, stored in page.items() if stored is None]
        if items:
            document["items"] = items
        if prefixes:
            document["prefixes"] = prefixes
        if len(remaining) > limit:
            document["nextPageToken"] = remaining[limit - 1]
        return document

    def _versions(self, bucket: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of versions, ordered by name and generation."""
        prefix, start = query.get("prefix", ""), query.get("startOffset", "")
        limit = min(int(query.get("maxResults", "1000")), 1000)
        versions = [*self.bucket(bucket).values()]
        for noncurrent in self.noncurrent.get(bucket, {}).values():
            versions += noncurrent
        entries = {
            f"{version.name}\0{version.generation}": version
            for version in versions
            if version.name.startswith(prefix) and version.name >= start
        }
        remaining = sorted(
            position for position in entries if position > query.get("pageToken", "")
        )
        document: dict[str, Any] = {"kind": "storage#objects"}
        if remaining:
            document["items"] = [
                entries[position].resource(bucket) for position in remaining[:limit]
            ]
        if len(remaining) > limit:
            document["nextPageToken"] = remaining[limit - 1]
        return document


def check_generation(stored: StoredObject | None, generation: str | None) -> None:
    """Raise RejectedError if the object has a different generation. 0 requires that it does not exist."""
    current = "0" if stored is None else str(stored.generation)
    if generation not in {None, current}:
        raise RejectedError(412, "conditionNotMet", "At least one of the pre-conditions failed.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
