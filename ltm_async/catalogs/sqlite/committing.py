"""Committing a batch: what is in one transaction, in the order of the commit protocol."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from ...entry import NEVER
from ...errors import ConflictError, FencedError
from ...protocols import Write, Written
from . import statements as sql
from . import texts, vectors


def commit(
    conn: sqlite3.Connection, now: int, namespace: str, writes: Sequence[Write], write_id: str
) -> Written:
    keys = json.dumps([write.key for write in writes])
    present = {row[0]: row for row in conn.execute(sql.PRESENT, (keys, namespace))}
    version, has_texts, has_vectors = conn.execute(sql.NEXT_VERSION).fetchone()
    fresh = [write.blob_id for write in writes if write.blob_id is not None]
    if fresh:
        live = conn.execute(sql.GO_LIVE, (namespace, json.dumps(fresh))).rowcount
        if live != len(fresh):
            raise FencedError(
                f"sqlite: {len(fresh) - live} of {len(fresh)} reservations have ended",
                store="sqlite",
            )
    kept, upserts, renewals = list(fresh), [], []
    unchanged: list[str] = []
    ends: dict[str, int] = {}
    had_blobs = False
    for write in writes:
        key, content_hash, byte_size, inlined, blob_id, metadata, expiry, expected, _, _ = write
        created_at = now
        held_hash = held_blob_id = None
        held = present.get(key)
        if held is not None:
            _, held_version, held_hash, held_blob_id, ends_at, made_at = held
            had_blobs = had_blobs or held_blob_id is not None
            if ends_at is None or ends_at > now:
                if 0 <= made_at <= now:  # a forged one heals
                    created_at = made_at
                if held_hash == content_hash:
                    unchanged.append(key)
                if expected is not None and expected != held_version:
                    raise ConflictError.between(key, expected, held_version)
            elif expected:
                raise ConflictError.between(key, expected, None)
        elif expected:
            raise ConflictError.between(key, expected, None)
        expires_at = None
        if expiry is not NEVER and (expires_at := expiry.resolve(now)) is not None:
            ends[key] = expires_at
        if inlined is None and blob_id is None:
            if held_blob_id is None or held_hash != content_hash:
                raise FencedError("sqlite: the value to renew changed", store="sqlite")
            kept.append(held_blob_id)
            renewals.append(
                (version, write_id, metadata, expires_at, created_at, now, namespace, key)
            )
        else:
            upserts.append(
                (
                    namespace,
                    key,
                    version,
                    write_id,
                    content_hash,
                    byte_size,
                    inlined,
                    blob_id,
                    metadata,
                    expires_at,
                    created_at,
                    now,
                )
            )
    if upserts:
        conn.executemany(sql.UPSERT, upserts)
    if renewals:
        conn.executemany(sql.RENEW, renewals)
    # No other writer is in a transaction now, so what was live is what the rows named.
    if had_blobs:
        conn.execute(sql.RETIRE_OTHERS, (now, namespace, keys, json.dumps(kept)))
    _index(conn, namespace, keys, writes, has_texts, has_vectors)
    return Written(version, unchanged, ends)


def _index(
    conn: sqlite3.Connection,
    namespace: str,
    keys: str,
    writes: Sequence[Write],
    has_texts: bool,
    has_vectors: bool,
) -> None:
    """Replace what the entries are found by; one that brings nothing has nothing."""
    if has_texts:
        texts.drop(conn, namespace, keys)
    if worded := [(write.key, write.words) for write in writes if write.words]:
        texts.add(conn, namespace, worded)
    if has_vectors and (without := [write.key for write in writes if not write.vector]):
        vectors.drop(conn, namespace, json.dumps(without))
    if placed := [(write.key, write.vector) for write in writes if write.vector]:
        vectors.keep(conn, namespace, placed)
