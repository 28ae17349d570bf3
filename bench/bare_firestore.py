"""The same work by hand, on Firestore: its AsyncClient, with the fields of the library's own."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1 import AsyncClient

if TYPE_CHECKING:
    from bench.sides import Entries


BATCH_SIZE = 500

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class BareFirestore:
    """One commit of blind sets, one request for reading; nothing is compared or verified."""

    def __init__(self, project: str) -> None:
        self._client = AsyncClient(project=project)
        self._home = self._client.collection("bare_entries")

    async def aclose(self) -> None:
        await self._client._firestore_api.transport.close()

    async def store_batch(self, entries: Entries) -> None:
        for start in range(0, len(entries), BATCH_SIZE):
            await self._commit(entries[start : start + BATCH_SIZE])

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for start in range(0, len(keys), BATCH_SIZE):
            found |= await self._read(keys[start : start + BATCH_SIZE])
        return found

    async def store(self, key: str, value: Any) -> None:
        await self._commit([{"key": key, "value": value}])

    async def retrieve(self, key: str) -> Any:
        return (await self._read([key]))[key]

    async def _commit(self, entries: Entries) -> None:
        batch = self._client.batch()
        now, write_id = time.time_ns() // 1000, os.urandom(16).hex()
        for entry in entries:
            text = _encode(entry["value"])
            name = _name(entry["key"])
            fields = {
                "namespace": "",
                "key": entry["key"],
                "place": "/" + entry["key"],
                "write_id": write_id,
                "content_hash": "sha256:" + hashlib.sha256(text.encode()).hexdigest(),
                "byte_size": len(text),
                "inlined_value": text,
                "blob_id": None,
                "metadata": "{}",
                "expires_at": None,
                "ends": None,
                "created_at": now,
                "updated_at": now,
            }
            batch.set(self._home.document(name), fields)
        await batch.commit(retry=None)

    async def _read(self, keys: Sequence[str]) -> dict[str, Any]:
        wanted = [self._home.document(_name(key)) for key in keys]
        found = {}
        async for snapshot in self._client.get_all(wanted, retry=None):
            fields = snapshot.to_dict()
            if fields is not None:
                found[fields["key"]] = json.loads(fields["inlined_value"])
        return found


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
