"""The same work by hand on Supabase: one ``rpc`` call by a bare httpx2 client, and no more.

The table has the library's columns, check, indexes and row-level security, and a function each for
a batch written and a batch read, which answers with one JSON value too. Values are encoded to the
same bytes and hashed. There is no ledger, no compare-and-swap, no look at what is replaced, no
check of a hash after reading, no deadline, no retry, no error that says more than its status.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from bench.sides import Entries


SCHEMA = """
CREATE TABLE {schema}.bare (
    namespace text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, version bigint NOT NULL,
    write_id text NOT NULL, content_hash text NOT NULL, byte_size bigint NOT NULL,
    inlined_value text, blob_id text, metadata text NOT NULL, expires_at bigint,
    created_at bigint NOT NULL, updated_at bigint NOT NULL,
    changed_by xid8 NOT NULL DEFAULT pg_current_xact_id(), PRIMARY KEY (namespace, key),
    CHECK ((inlined_value IS NULL) <> (blob_id IS NULL)));
CREATE INDEX ON {schema}.bare (namespace, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX ON {schema}.bare (namespace, changed_by, key) WHERE changed_by >= '0';
CREATE SEQUENCE {schema}.bare_version;
ALTER TABLE {schema}.bare ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON {schema}.bare TO authenticated
    USING (namespace = (SELECT current_setting('request.jwt.claims')::json ->> 'sub'));
CREATE FUNCTION {schema}.bare_store(
    namespace text, write_id text, keys text[], hashes text[], sizes bigint[], texts text[],
    metadata text[]) RETURNS void LANGUAGE sql AS $$
INSERT INTO {schema}.bare
SELECT $1, x.key, v.version, $2, x.hash, x.size, x.value, NULL, x.metadata, NULL, v.now, v.now,
    pg_current_xact_id()
FROM unnest($3, $4, $5, $6, $7) AS x (key, hash, size, value, metadata), (
    SELECT nextval('{schema}.bare_version'), (extract(epoch FROM now()) * 1000000)::bigint
) AS v (version, now)
ON CONFLICT (namespace, key) DO UPDATE SET
    version = excluded.version, write_id = excluded.write_id,
    content_hash = excluded.content_hash, byte_size = excluded.byte_size,
    inlined_value = excluded.inlined_value, metadata = excluded.metadata,
    expires_at = excluded.expires_at, updated_at = excluded.updated_at,
    changed_by = excluded.changed_by $$;
CREATE FUNCTION {schema}.bare_retrieve(namespace text, keys text[]) RETURNS json
LANGUAGE sql STABLE AS $$
SELECT coalesce(json_agg(json_build_array(key, version, content_hash, byte_size, inlined_value,
    blob_id, metadata, expires_at, created_at, updated_at)), '[]')
FROM {schema}.bare WHERE bare.namespace = $1 AND key = ANY ($2)
    AND (expires_at IS NULL OR expires_at > (extract(epoch FROM now()) * 1000000)::bigint) $$;
"""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class BareSupabase:
    def __init__(self, http: httpx2.AsyncClient, namespace: str, *, batch_size: int = 500) -> None:
        self._http = http
        self._namespace = namespace
        self._batch_size = batch_size

    async def store_batch(self, entries: Entries) -> None:
        for start in range(0, len(entries), self._batch_size):
            rows = sorted(map(_row, entries[start : start + self._batch_size]))
            columns = zip(*rows, strict=True)
            names = ("keys", "hashes", "sizes", "texts", "metadata")
            await self._call(
                "bare_store",
                write_id=os.urandom(16).hex(),
                **dict(zip(names, columns, strict=True)),
            )

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        found = {}
        for start in range(0, len(keys), self._batch_size):
            wanted = keys[start : start + self._batch_size]
            for row in await self._call("bare_retrieve", keys=wanted):
                found[row[0]] = json.loads(row[4])
        return found

    async def store(self, key: str, value: Any) -> None:
        await self.store_batch([{"key": key, "value": value}])

    async def retrieve(self, key: str) -> Any:
        return (await self.retrieve_batch([key]))[key]

    async def _call(self, function: str, **arguments: Any) -> Any:
        body = {"namespace": self._namespace, **arguments}
        reply = await self._http.post(f"/rpc/{function}", json=body)
        reply.raise_for_status()
        return reply.json() if reply.content else None


@contextlib.asynccontextmanager
async def bare_client(
    url: str, schema: str, token: str, namespace: str, *, batch_size: int = 500
) -> AsyncIterator[BareSupabase]:
    headers = {"Content-Profile": schema, "Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
        yield BareSupabase(http, namespace, batch_size=batch_size)


def _row(entry: Mapping[str, Any]) -> tuple[str, str, int, str, str]:
    text = _encode(entry["value"])
    content_hash = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    return entry["key"], content_hash, len(text), text, "{}"
