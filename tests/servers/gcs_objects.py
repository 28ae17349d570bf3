"""The objects of a GCS and the rules they obey; nothing of HTTP is here."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import google_crc32c

MOST_LISTED = 1_000
MOST_NAME_BYTES = 1_024


class RefusedError(Exception):
    """What the caller gets instead, in the service's own words."""

    def __init__(
        self, status: int, reason: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.headers = dict(headers or {})


@dataclasses.dataclass(frozen=True, slots=True)
class StoredObject:
    """One object, whole; it is replaced, never changed."""

    bucket: str
    name: str
    data: bytes
    content_type: str
    generation: int
    created_us: int
    crc32c: str
    md5: str

    def resource(self) -> dict[str, Any]:
        """As https://cloud.google.com/storage/docs/json_api/v1/objects#resource has it."""
        created = rfc3339(self.created_us)
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": "1",
            "contentType": self.content_type,
            "storageClass": "STANDARD",
            "size": str(len(self.data)),
            "md5Hash": self.md5,
            "crc32c": self.crc32c,
            "etag": base64.b64encode(self.generation.to_bytes(8, "big")).decode(),
            "timeCreated": created,
            "updated": created,
        }


@dataclasses.dataclass(slots=True)
class Session:
    """A resumable upload under way, and the object once it is done."""

    bucket: str
    metadata: Mapping[str, Any]
    conditions: Mapping[str, str]
    received: bytearray = dataclasses.field(default_factory=bytearray)
    stored: StoredObject | None = None


class Buckets:
    """All buckets. Every method is one step of one thread, so that a race has one winner.

    Args:
        clock: Microseconds since the epoch, for when objects were made; it may be set.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self._buckets: dict[str, dict[str, StoredObject]] = {}
        self._generation = clock()

    def create(self, bucket: str) -> None:
        if bucket in self._buckets:
            raise RefusedError(
                409,
                "conflict",
                "Your previous request to create the named bucket succeeded and you already own "
                "it.",
            )
        self._buckets[bucket] = {}

    def look(self, bucket: str) -> Mapping[str, StoredObject]:
        """A bucket's objects by name, as of now."""
        return dict(self._buckets[bucket])

    def check_exists(self, bucket: str) -> None:
        self._objects(bucket)

    def put(
        self,
        bucket: str,
        data: bytes,
        metadata: Mapping[str, Any],
        conditions: Mapping[str, str],
    ) -> StoredObject:
        """Store an object unless a condition or a checksum does not hold."""
        objects = self._objects(bucket)
        name = _checked_name(metadata.get("name"))
        self.check_conditions(bucket, name, conditions)
        crc32c, md5 = checksums(data)
        for kind, given, found in (
            ("CRC32C", metadata.get("crc32c", crc32c), crc32c),
            ("MD5 hash", metadata.get("md5Hash", md5), md5),
        ):
            if given != found:
                raise RefusedError(
                    400,
                    "invalid",
                    f'Provided {kind} "{given}" doesn\'t match calculated {kind} "{found}".',
                )
        self._generation = max(self._generation + 1, self.clock())
        content_type = metadata.get("contentType") or "application/octet-stream"
        stored = objects[name] = StoredObject(
            bucket, name, data, content_type, self._generation, self.clock(), crc32c, md5
        )
        return stored

    def get(self, bucket: str, name: str) -> StoredObject:
        """Of a bucket that is not there the service says the same as of an object that is not:
        https://github.com/googleapis/nodejs-storage/issues/1183."""
        stored = self._buckets.get(bucket, {}).get(name)
        if stored is None:
            raise RefusedError(404, "notFound", f"No such object: {bucket}/{name}")
        return stored

    def delete(self, bucket: str, name: str, conditions: Mapping[str, str]) -> None:
        self.get(bucket, name)
        self.check_conditions(bucket, name, conditions)
        del self._buckets[bucket][name]

    def list(
        self, bucket: str, *, prefix: str, start: str, after: str, most: int
    ) -> tuple[list[StoredObject], str | None]:
        """Objects in the order of their names' UTF-8, and the last name if there are more."""
        found: list[StoredObject] = []
        for name in sorted(self._objects(bucket)):  # code points are in the order of their UTF-8
            if not name.startswith(prefix) or name < start or (after and name <= after):
                continue
            if len(found) == min(most, MOST_LISTED):
                return found, found[-1].name
            found.append(self._buckets[bucket][name])
        return found, None

    def check_conditions(self, bucket: str, name: object, conditions: Mapping[str, str]) -> None:
        """https://cloud.google.com/storage/docs/request-preconditions; 0 is *there is none*."""
        stored = self._objects(bucket).get(str(name))
        generation = stored.generation if stored else 0
        if int(conditions.get("ifGenerationMatch", generation)) != generation:
            raise RefusedError(
                412,
                "conditionNotMet",
                "At least one of the pre-conditions you specified did not hold.",
            )

    def _objects(self, bucket: str) -> dict[str, StoredObject]:
        if bucket not in self._buckets:
            raise RefusedError(404, "notFound", "The specified bucket does not exist.")
        return self._buckets[bucket]


def _checked_name(name: object) -> str:
    """https://cloud.google.com/storage/docs/objects#naming."""
    if not isinstance(name, str) or not name:
        raise RefusedError(400, "required", "Required parameter: name")
    too_long = len(name.encode()) > MOST_NAME_BYTES
    if too_long or name in (".", "..") or "\r" in name or "\n" in name:
        raise RefusedError(400, "invalid", "Invalid object name.")
    return name


def checksums(data: bytes) -> tuple[str, str]:
    """CRC32C and MD5 in base 64, the former in big-endian order:
    https://cloud.google.com/storage/docs/metadata#checksums."""
    crc32c = google_crc32c.value(data).to_bytes(4, "big")
    return base64.b64encode(crc32c).decode(), base64.b64encode(hashlib.md5(data).digest()).decode()


def rfc3339(instant_us: int) -> str:
    """With milliseconds, as the service writes it."""
    instant = datetime.fromtimestamp(instant_us // 1_000 / 1_000, UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
