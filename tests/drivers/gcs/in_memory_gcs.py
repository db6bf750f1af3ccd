"""An in-memory Cloud Storage that follows the documentation of Google's JSON API.

It is stricter than an emulator: it checks the conditions of every request and the checksums of
uploads, persists only a part of a chunk, and splits rewrites into several requests.
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


class RefusedError(Exception):
    """The service rejects a request."""

    def __init__(self, status: int, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.status = status
        self.reason = reason


def not_found(message: str) -> RefusedError:
    return RefusedError(404, "notFound", message)


@dataclass(frozen=True)
class Stored:
    name: str
    body: bytes
    generation: int
    updated: str
    said: Mapping[str, Any]
    metageneration: int = 1
    deleted: str | None = None
    components: int = 0

    def resource(self, bucket: str) -> dict[str, Any]:
        digest = hashlib.md5(self.body, usedforsecurity=False).digest()
        said: dict[str, Any] = {
            "storageClass": "STANDARD",
            **self.said,
            "kind": "storage#object",
            "name": self.name,
            "bucket": bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "size": str(len(self.body)),
            "updated": self.updated,
            "timeCreated": self.updated,
            "crc32c": crc_of(self.body),
            "md5Hash": b64encode(digest).decode(),
            "etag": "CP" + secrets.token_hex(4),  # the driver must not use the JSON API's ETag
        }
        if self.deleted is not None:
            said["timeDeleted"] = self.deleted
        if self.components:  # Cloud Storage, "Composite objects": they have no MD5
            del said["md5Hash"]
            said["componentCount"] = self.components
        return said


def crc_of(body: bytes) -> str:
    return b64encode(crc32c(body).to_bytes(4)).decode()


@dataclass
class Session:
    """A resumable upload."""

    bucket: str
    said: dict[str, Any]
    query: Mapping[str, str]
    received: bytearray = field(default_factory=bytearray)
    made: Stored | None = None


@dataclass
class Rewrite:
    """A copy in several requests."""

    key: tuple[str, ...]
    done: int = 0


class Cloud:
    """The state and the behaviour of the service.

    Attributes:
        settings: The documents that created the buckets.
        keeps_at_most: Bytes that a session persists of one request. None: all.
        rewrites_at_most: Bytes that one rewrite request copies.
        xml: Whether the XML API is available.
        tokens: The valid access tokens. None: requests need no token.
        dates: Whether responses with bodies have a Last-Modified.
        tells_zero: Whether resources of empty objects include their size.
        batches: Whether the service accepts batch requests.
        normalises: Whether the server resolves dot segments in paths, even encoded ones.
    """

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, Stored]] = {}
        self.noncurrent: dict[str, dict[str, list[Stored]]] = {}
        self.versioned: set[str] = set()
        self.created: dict[str, str] = {}
        self.settings: dict[str, dict[str, str]] = {}
        self.sessions: dict[str, Session] = {}
        self.rewrites: dict[str, Rewrite] = {}
        self.keeps_at_most: int | None = None
        self.rewrites_at_most = 1 << 40
        self.xml = True
        self.tokens: set[str] | None = None
        self.dates = self.tells_zero = self.batches = True
        self.normalises = False
        self._generations = count(1_700_000_000_000_001)

    # -- buckets -----------------------------------------------------------------------------------

    def bucket(self, name: str) -> dict[str, Stored]:
        try:
            return self.buckets[name]
        except KeyError:
            raise not_found("The specified bucket does not exist.") from None

    def create_bucket(self, name: str) -> None:
        if name in self.buckets:
            raise RefusedError(409, "conflict", "Your previous request to create it succeeded.")
        self.buckets[name] = {}
        self.created[name] = _now()

    def delete_bucket(self, name: str) -> None:
        if self.bucket(name) or any(self.noncurrent.get(name, {}).values()):
            raise RefusedError(409, "conflict", "The bucket you tried to delete is not empty.")
        del self.buckets[name]

    # -- objects -----------------------------------------------------------------------------------

    def object(self, bucket: str, name: str, query: Mapping[str, str]) -> Stored:
        """Return the object that a read selects, if its conditions hold."""
        live, wanted = self.bucket(bucket).get(name), query.get("generation")
        kept = self.noncurrent.get(bucket, {}).get(name, [])
        held = live
        if wanted is not None:
            every = [*kept, *([] if live is None else [live])]
            held = next((one for one in every if str(one.generation) == wanted), None)
        if held is None:
            raise not_found(f"No such object: {bucket}/{name}")
        if query.get("ifGenerationNotMatch") == str(held.generation):
            raise RefusedError(304, "")
        check(held, query.get("ifGenerationMatch"))
        return held

    def insert(
        self, bucket: str, said: Mapping[str, Any], body: bytes, query: Mapping[str, str]
    ) -> Stored:
        """Create an object if the condition holds and the checksum matches."""
        home = self.bucket(bucket)
        name = said.get("name") or query["name"]
        if not name or "\n" in name or "\r" in name or len(name.encode()) > 1024:
            raise RefusedError(400, "invalid", f"Disallowed unicode characters in {name!r}")
        check(home.get(name), query.get("ifGenerationMatch"))
        announced = said.get("crc32c")
        if announced not in {None, crc_of(body)}:
            raise RefusedError(
                400,
                "invalid",
                f'Provided CRC32C "{announced}" doesn\'t match calculated CRC32C "{crc_of(body)}".',
            )
        kept = {key: value for key, value in said.items() if key not in {"crc32c", "md5Hash"}}
        made = Stored(name, bytes(body), next(self._generations), _now(), kept)
        self._retire(bucket, name)
        home[name] = made
        return made

    def delete(self, bucket: str, name: str, query: Mapping[str, str]) -> None:
        """Delete the live object (a versioned bucket retains it) or, permanently, one version."""
        held = self.object(bucket, name, query)
        if "generation" not in query:
            self._retire(bucket, name)
        elif held.deleted is None:
            del self.buckets[bucket][name]
        else:
            self.noncurrent[bucket][name].remove(held)

    def _retire(self, bucket: str, name: str) -> None:
        live = self.buckets[bucket].pop(name, None)
        if live is not None and bucket in self.versioned:
            kept = self.noncurrent.setdefault(bucket, {}).setdefault(name, [])
            kept.append(replace(live, deleted=_now()))

    def patch_bucket(self, bucket: str, said: Mapping[str, Any]) -> None:
        """Set the versioning of a bucket, the only field that the driver patches."""
        self.bucket(bucket)
        if said["versioning"]["enabled"]:
            self.versioned.add(bucket)
        else:
            self.versioned.discard(bucket)

    def patch(
        self, bucket: str, name: str, said: Mapping[str, Any], query: Mapping[str, str]
    ) -> Stored:
        """Change the metadata of an object; its custom time moves forward only."""
        held = self.object(bucket, name, query)
        if query.get("ifMetagenerationMatch") not in {None, str(held.metageneration)}:
            raise RefusedError(412, "conditionNotMet", "At least one of the pre-conditions failed.")
        before, after = held.said.get("customTime"), said.get("customTime")
        if before and after and datetime.fromisoformat(after) < datetime.fromisoformat(before):
            raise RefusedError(400, "invalid", "Custom time cannot be decreased.")
        changed = replace(held, said={**held.said, **said}, metageneration=held.metageneration + 1)
        self.buckets[bucket][name] = changed
        return changed

    def compose(
        self, bucket: str, name: str, said: Mapping[str, Any], query: Mapping[str, str]
    ) -> Stored:
        """Concatenate 1 to 32 objects if the condition of each holds."""
        if not 1 <= len(said["sourceObjects"]) <= 32:
            raise RefusedError(400, "invalid", "The number of source components is 1 to 32.")
        sources = []
        for asked in said["sourceObjects"]:
            source = self.object(bucket, asked["name"], {})
            check(source, asked.get("objectPreconditions", {}).get("ifGenerationMatch"))
            sources.append(source)
        body = b"".join(source.body for source in sources)
        made = self.insert(bucket, {**said["destination"], "name": name}, body, query)
        count = sum(source.components or 1 for source in sources)
        made = self.buckets[bucket][name] = replace(made, components=count)
        return made

    def rewrite(
        self,
        source: tuple[str, str],
        target: tuple[str, str],
        said: Mapping[str, Any],
        query: Mapping[str, str],
    ) -> dict[str, Any]:
        """Copy up to `rewrites_at_most` bytes."""
        wanted = query.get("sourceGeneration")
        held = self.object(*source, {} if wanted is None else {"generation": wanted})
        check(held, query.get("ifSourceGenerationMatch"))
        check(self.bucket(target[0]).get(target[1]), query.get("ifGenerationMatch"))
        token = query.get("rewriteToken") or secrets.token_hex(8)
        job = self.rewrites.setdefault(token, Rewrite((*source, *target)))
        if job.key != (*source, *target):
            raise RefusedError(400, "invalid", "The token is another rewrite's.")
        job.done = min(job.done + self.rewrites_at_most, len(held.body))
        answer: dict[str, Any] = {
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": str(job.done),
            "objectSize": str(len(held.body)),
            "done": job.done == len(held.body),
        }
        if not answer["done"]:
            return {**answer, "rewriteToken": token}
        made = self.insert(target[0], {**(said or held.said), "name": target[1]}, held.body, {})
        return {**answer, "resource": made.resource(target[0])}

    # -- listings ----------------------------------------------------------------------------------

    def list(self, bucket: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of at most maxResults objects and prefixes together."""
        if query.get("versions") == "true":
            return self._versions(bucket, query)
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        start, most = query.get("startOffset", ""), min(int(query.get("maxResults", "1000")), 1000)
        last = query.get("pageToken", "")
        names: dict[str, Stored | None] = {}
        for name, held in sorted(self.bucket(bucket).items()):
            if name.startswith(prefix) and name >= start:
                at = name.find(delimiter, len(prefix)) if delimiter else -1
                names[name if at < 0 else name[: at + len(delimiter)]] = held if at < 0 else None
        left = sorted(name for name in names if not last or name > last)
        page = {name: names[name] for name in left[:most]}
        answer: dict[str, Any] = {"kind": "storage#objects"}
        items = [held.resource(bucket) for held in page.values() if held is not None]
        prefixes = [name for name, held in page.items() if held is None]
        if items:
            answer["items"] = items
        if prefixes:
            answer["prefixes"] = prefixes
        if len(left) > most:
            answer["nextPageToken"] = left[most - 1]
        return answer

    def _versions(self, bucket: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of versions, ordered by name and generation."""
        prefix, start = query.get("prefix", ""), query.get("startOffset", "")
        most = min(int(query.get("maxResults", "1000")), 1000)
        every = [*self.bucket(bucket).values()]
        for kept in self.noncurrent.get(bucket, {}).values():
            every += kept
        places = {
            f"{one.name}\0{one.generation}": one
            for one in every
            if one.name.startswith(prefix) and one.name >= start
        }
        left = sorted(place for place in places if place > query.get("pageToken", ""))
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if left:
            answer["items"] = [places[place].resource(bucket) for place in left[:most]]
        if len(left) > most:
            answer["nextPageToken"] = left[most - 1]
        return answer


def check(held: Stored | None, generation: str | None) -> None:
    """Raise RefusedError if the generation differs; 0 requires that there is no object."""
    there = "0" if held is None else str(held.generation)
    if generation not in {None, there}:
        raise RefusedError(412, "conditionNotMet", "At least one of the pre-conditions failed.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
