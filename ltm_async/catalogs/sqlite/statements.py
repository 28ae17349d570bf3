"""The SQL of the catalog; every value is bound, lists as one JSON array."""

ROW = """key, version, content_hash, byte_size, inlined_value, blob_id, metadata,
    expires_at, created_at, updated_at"""
LIVE = "(expires_at IS NULL OR expires_at > :now)"

NEXT_VERSION = """
UPDATE ltm_version SET last = last + 1
RETURNING last, EXISTS (SELECT 1 FROM ltm_texts), EXISTS (SELECT 1 FROM ltm_vectors)"""
"""And whether there are any texts and vectors, whose tables most files need not be asked for."""
PRESENT = """
SELECT e.key, e.version, e.content_hash, e.blob_id, e.expires_at, e.created_at
FROM json_each(?) AS wanted
CROSS JOIN ltm_entries AS e ON e.namespace = ? AND e.key = wanted.value"""
UPSERT = """
INSERT INTO ltm_entries (namespace, key, version, write_id, content_hash, byte_size,
    inlined_value, blob_id, metadata, expires_at, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, key) DO UPDATE SET
    version = excluded.version, write_id = excluded.write_id,
    content_hash = excluded.content_hash, byte_size = excluded.byte_size,
    inlined_value = excluded.inlined_value, blob_id = excluded.blob_id,
    metadata = excluded.metadata, expires_at = excluded.expires_at,
    created_at = excluded.created_at, updated_at = excluded.updated_at"""
RENEW = """
UPDATE ltm_entries SET version = ?, write_id = ?, metadata = ?, expires_at = ?,
    created_at = ?, updated_at = ?
WHERE namespace = ? AND key = ?"""
GO_LIVE = """
UPDATE ltm_blobs SET state = 'live', committed = 1, due_at = NULL
WHERE namespace = ? AND state = 'pending' AND blob_id IN (SELECT value FROM json_each(?))"""
RETIRE_OTHERS = """
UPDATE ltm_blobs INDEXED BY ltm_blobs_live SET state = 'dead', due_at = ?
WHERE namespace = ? AND state = 'live' AND key IN (SELECT value FROM json_each(?))
  AND blob_id NOT IN (SELECT value FROM json_each(?))
RETURNING key, blob_id"""
GET = f"""
SELECT {ROW} FROM ltm_entries
WHERE namespace = :namespace AND key IN (SELECT value FROM json_each(:keys)) AND {LIVE}"""
TOUCH = f"""
UPDATE ltm_entries SET version = :version, write_id = :write_id, updated_at = :now,
    expires_at = CASE WHEN :new_expiry THEN :expires_at ELSE expires_at END,
    metadata = coalesce(:metadata, metadata)
WHERE namespace = :namespace AND key = :key AND {LIVE}
RETURNING {ROW}"""
DELETE = """
DELETE FROM ltm_entries WHERE namespace = ? AND key IN (SELECT value FROM json_each(?))"""
ENTOMB = """
INSERT INTO ltm_deletions (namespace, key, version, write_id, deleted_at, expired)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, key) DO UPDATE SET
    version = excluded.version, write_id = excluded.write_id, deleted_at = excluded.deleted_at,
    expired = excluded.expired"""
_WITHIN = """
SELECT key, version, content_hash, byte_size, NULL, blob_id, metadata,
    expires_at, created_at, updated_at
FROM ltm_entries
WHERE namespace = :namespace AND key >= :start AND key < :end"""
LIST = f"""{_WITHIN} AND {LIVE}
ORDER BY key LIMIT :limit"""
LOOK = f"""{_WITHIN}
ORDER BY key LIMIT :limit"""
EXPIRED = """
SELECT key FROM ltm_entries
WHERE namespace = ? AND expires_at <= ? ORDER BY expires_at LIMIT ?"""
RESERVE = """
INSERT INTO ltm_blobs (namespace, blob_id, key, state, committed, byte_size, due_at)
VALUES (?, ?, ?, 'pending', 0, ?, ?) ON CONFLICT (namespace, blob_id) DO NOTHING"""
ABANDON = """
UPDATE ltm_blobs SET state = 'dead', due_at = ?
WHERE namespace = ? AND state = 'pending' AND blob_id IN (SELECT value FROM json_each(?))"""
COMMITTED = """
SELECT count(*), coalesce(sum(committed), 0) FROM ltm_blobs
WHERE namespace = ? AND blob_id IN (SELECT value FROM json_each(?))"""
CARRIES = """
SELECT version FROM ltm_entries
WHERE namespace = ? AND key IN (SELECT value FROM json_each(?)) AND write_id = ? LIMIT 1"""
REMOVED_BY = """
SELECT key FROM ltm_deletions
WHERE namespace = ? AND key IN (SELECT value FROM json_each(?)) AND write_id = ?
    AND NOT expired"""
DUE = """
SELECT blob_id, byte_size FROM ltm_blobs
WHERE namespace = ? AND state <> 'live' AND due_at <= ? ORDER BY due_at LIMIT ?"""
PUT_OFF = """
UPDATE ltm_blobs SET state = 'dead', due_at = ?
WHERE namespace = ? AND blob_id IN (SELECT value FROM json_each(?))"""
PRUNE_DELETIONS = """
DELETE FROM ltm_deletions WHERE (namespace, key) IN (
    SELECT namespace, key FROM ltm_deletions WHERE namespace = ? AND deleted_at <= ? LIMIT ?)
RETURNING version"""
REMEMBER_PRUNED = """
INSERT INTO ltm_pruned (namespace, version) VALUES (?, ?)
ON CONFLICT (namespace) DO UPDATE SET version = max(version, excluded.version)"""
FORGET = """
DELETE FROM ltm_blobs
WHERE namespace = ? AND state = 'dead' AND blob_id IN (SELECT value FROM json_each(?))"""
LIST_BLOBS = """
SELECT b.blob_id, b.key, b.state, b.byte_size, e.blob_id IS b.blob_id
FROM ltm_blobs AS b LEFT JOIN ltm_entries AS e ON e.namespace = b.namespace AND e.key = b.key
WHERE b.namespace = ? AND b.blob_id > ? ORDER BY b.blob_id LIMIT ?"""
KNOWN = """
SELECT blob_id FROM ltm_blobs
WHERE namespace = ? AND blob_id IN (SELECT value FROM json_each(?))"""
ENTRY_STATS = """
SELECT count(*) FILTER (WHERE live), count(*) FILTER (WHERE NOT live),
    count(*) FILTER (WHERE live AND blob_id IS NULL),
    coalesce(sum(byte_size) FILTER (WHERE live AND blob_id IS NULL), 0)
FROM (SELECT expires_at IS NULL OR expires_at > ? AS live, blob_id, byte_size
      FROM ltm_entries WHERE namespace = ?)"""
BLOB_STATS = """
SELECT count(*) FILTER (WHERE state = 'live'),
    coalesce(sum(byte_size) FILTER (WHERE state = 'live'), 0),
    count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'dead')
FROM ltm_blobs WHERE namespace = ?"""
# Words are made by us, so the tokenizer has to split at spaces only. Of the index, a search reads
# the rows of its namespace only, for their numbers are side by side: a word that marks the
# namespace would be a row of each text, to be met and counted with those that are sought.
MAKE_INDEX = """
CREATE VIRTUAL TABLE IF NOT EXISTS ltm_words USING fts5 (words, tokenize = 'ascii')"""
DROP_WORDS = """
DELETE FROM ltm_words WHERE rowid IN (
    SELECT id FROM ltm_texts WHERE namespace = ? AND key IN (SELECT value FROM json_each(?)))"""
DROP_TEXTS = """
DELETE FROM ltm_texts WHERE namespace = ? AND key IN (SELECT value FROM json_each(?))"""
NAME_SPACE = "INSERT INTO ltm_spaces (namespace, texts) VALUES (?, 0) ON CONFLICT DO NOTHING"
SPACE = "SELECT id, texts FROM ltm_spaces WHERE namespace = ?"
COUNT_TEXTS = "UPDATE ltm_spaces SET texts = texts + ? WHERE namespace = ?"
LAST_TEXT = "SELECT max(id) FROM ltm_texts WHERE id BETWEEN ? AND ?"
NAME_TEXT = "INSERT INTO ltm_texts (id, namespace, key) VALUES (?, ?, ?)"
ADD_WORDS = "INSERT INTO ltm_words (rowid, words) VALUES (?, ?)"
HAS_TEXTS = "SELECT EXISTS (SELECT 1 FROM ltm_texts)"
COUNT_WORDS = """
SELECT count(*) FROM (
    SELECT 1 FROM ltm_words WHERE ltm_words MATCH ? AND rowid BETWEEN ? AND ? LIMIT ?)"""
_MATCHING = """
FROM ltm_words AS w
CROSS JOIN ltm_texts AS t ON t.id = w.rowid
CROSS JOIN ltm_entries AS e ON e.namespace = t.namespace AND e.key = t.key
WHERE w.ltm_words MATCH :match AND w.rowid BETWEEN :first AND :last
  AND e.namespace = :namespace
  AND (e.expires_at IS NULL OR e.expires_at > :now)
  AND (NOT :filtered OR ltm_wanted(CAST(e.metadata AS BLOB)))"""
COUNT_MATCHES = f"SELECT count(*) FROM (SELECT 1 {_MATCHING} LIMIT :most)"
_MATCHES = f"""
SELECT w.words, e.key, e.version, e.content_hash, e.byte_size, NULL, e.blob_id, e.metadata,
    e.expires_at, e.created_at, e.updated_at
{_MATCHING}"""
MATCHES = f"{_MATCHES} LIMIT :limit + 1"
# How rare a word is, FTS5 counts in all namespaces: good enough to choose those that are ranked.
BEST = f"{_MATCHES} ORDER BY w.rank LIMIT :limit"

KEEP_VECTOR = """
INSERT INTO ltm_vectors (namespace, key, vector) VALUES (?, ?, ?)
ON CONFLICT (namespace, key) DO UPDATE SET vector = excluded.vector
WHERE vector <> excluded.vector"""
DROP_VECTORS = """
DELETE FROM ltm_vectors WHERE namespace = ? AND key IN (SELECT value FROM json_each(?))"""
VECTORS = f"""
SELECT v.key, v.vector FROM ltm_vectors AS v
CROSS JOIN ltm_entries AS e ON e.namespace = v.namespace AND e.key = v.key
WHERE v.namespace = :namespace AND length(v.vector) = :size AND {LIVE}
  AND (NOT :filtered OR ltm_wanted(CAST(e.metadata AS BLOB)))"""
HEADS = f"""
SELECT key, version, content_hash, byte_size, NULL, blob_id, metadata,
    expires_at, created_at, updated_at
FROM ltm_entries
WHERE namespace = :namespace AND key IN (SELECT value FROM json_each(:keys)) AND {LIVE}"""

LAST_VERSION = "SELECT last FROM ltm_version"
PRUNED = "SELECT version FROM ltm_pruned WHERE namespace = ?"
CHANGES = f"""
SELECT * FROM (
    SELECT CASE WHEN {LIVE} THEN 'stored' ELSE 'expired' END AS kind, key, version, content_hash,
        byte_size, NULL, blob_id, metadata, expires_at, created_at, updated_at
    FROM ltm_entries INDEXED BY ltm_entries_changed
    WHERE namespace = :namespace AND (version, key) > (:version, :after) AND version <= :upper
    ORDER BY version, key LIMIT :limit)
UNION ALL
SELECT * FROM (
    SELECT CASE WHEN expired THEN 'expired' ELSE 'deleted' END, key, version, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM ltm_deletions AS d INDEXED BY ltm_deletions_changed
    WHERE namespace = :namespace AND (version, key) > (:version, :after) AND version <= :upper
        AND NOT EXISTS (
            SELECT 1 FROM ltm_entries AS e WHERE e.namespace = d.namespace AND e.key = d.key)
    ORDER BY version, key LIMIT :limit)
ORDER BY version, key LIMIT :limit"""
TAKE_SNAPSHOT = """
INSERT INTO ltm_snapshots (namespace, id, name, watermark, entry_count, total_bytes, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, id) DO NOTHING"""
SNAPSHOT = """
SELECT id, name, watermark, entry_count, total_bytes, created_at
FROM ltm_snapshots WHERE namespace = ? AND id = ?"""
DELETE_SNAPSHOT = "DELETE FROM ltm_snapshots WHERE namespace = ? AND id = ?"
MOMENT = """
SELECT (SELECT last FROM ltm_version), count(*), count(*) FILTER (WHERE live),
    coalesce(sum(byte_size) FILTER (WHERE live), 0)
FROM (SELECT byte_size, expires_at IS NULL OR expires_at > :now AS live
      FROM ltm_entries WHERE namespace = :namespace LIMIT :limit)"""
