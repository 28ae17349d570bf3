"""Programs from their first line to a first answer, which ``mark`` the end of each phase.

The bare ones do what a careful program without the library would.
"""

from __future__ import annotations

SQLITE = """
import ltm_async
mark("import ltm_async")
from ltm_async import LTMBackend
mark("import the backend, asyncio with it")
import asyncio
async def main(folder):
    mark("loop")
    ltm = LTMBackend(f"sqlite:///{folder}/ltm.db", f"{folder}/blobs")
    mark("constructor")
    await ltm.__aenter__()
    mark("open")
    assert (await ltm.store("key", {"turn": time.time()})).stored
    mark("first store")
    assert (await ltm.retrieve("key")).found
    mark("first retrieve")
asyncio.run(main(sys.argv[1]))
"""
BARE_SQLITE = """
import asyncio
from bench.bare_sqlite import BareSQLite
mark("imports")
async def main(folder):
    mark("loop")
    bare = BareSQLite(folder)
    mark("open")
    bare.store([{"key": "key", "value": {"turn": time.time()}}])
    mark("first store")
    assert bare.retrieve(["key"])
    mark("first retrieve")
asyncio.run(main(sys.argv[1]))
"""

POSTGRES = """
from ltm_async import LTMBackend
mark("import ltm_async, asyncio with it")
from ltm_async import PostgresCatalog
mark("import the driver")
import asyncio
async def main(dsn, name, known):
    mark("loop")
    options = {"install": False, "pooler": False} if known == "known" else {}
    ltm = LTMBackend(PostgresCatalog(dsn, schema=name, **options), "memory:")
    mark("constructor")
    async with ltm:
        mark("connect" if options else "connect, schema")
        assert (await ltm.store("key", {"turn": time.time()})).stored
        mark("first store")
        assert (await ltm.retrieve("key")).found
        mark("first retrieve")
asyncio.run(main(*sys.argv[1:]))
"""
BARE_POSTGRES = """
import asyncio
mark("import asyncio")
import asyncpg
from bench.bare_postgres import BarePostgres
mark("import the driver")
async def main(dsn, name, known):
    mark("loop")
    conn = await asyncpg.connect(dsn, ssl=False)
    mark("connect")
    bare = BarePostgres(conn, table=name)
    if known != "known":
        await bare.install()
        mark("schema")
    await bare.store("key", {"turn": time.time()})
    mark("first store")
    assert await bare.retrieve("key")
    mark("first retrieve")
    await conn.close()
asyncio.run(main(*sys.argv[1:]))
"""

SUPABASE = """
from ltm_async import LTMBackend
mark("import ltm_async, asyncio with it")
from ltm_async import SupabaseCatalog
mark("import the adapter")
import asyncio
async def main(url, schema, key, token, namespace):
    mark("loop")
    catalog = SupabaseCatalog(url, key=key, access_token=token, schema=schema, rest_path="/")
    ltm = LTMBackend(catalog, "memory:", namespace=namespace)
    mark("constructor")
    async with ltm:
        mark("driver, connect, check")
        assert (await ltm.store("key", {"turn": time.time()})).stored
        mark("first store")
        assert (await ltm.retrieve("key")).found
        mark("first retrieve")
asyncio.run(main(*sys.argv[1:]))
"""
BARE_SUPABASE = """
import asyncio
mark("import asyncio")
from bench.bare_supabase import bare_client
mark("import the driver")
async def main(url, schema, key, token, namespace):
    mark("loop")
    async with bare_client(url, schema, token, namespace) as bare:
        mark("client")
        await bare.store("key", {"turn": time.time()})
        mark("first store")
        assert await bare.retrieve("key")
        mark("first retrieve")
asyncio.run(main(*sys.argv[1:]))
"""

FIRESTORE = """
import ltm_async
mark("import ltm_async")
import asyncio
from ltm_async import FirestoreCatalog, LTMBackend
mark("import the backend, asyncio with it")
async def main(project, transport):
    catalog = FirestoreCatalog(project, transport=transport)
    ltm = LTMBackend(catalog, "memory:")
    mark("constructor")
    await catalog._documents()
    mark("import the driver in its thread, channel")
    await catalog.open()
    mark("first answered request")
    assert (await ltm.store("key", {"turn": time.time()})).stored
    mark("first store")
    assert (await ltm.retrieve("key")).found
    mark("first retrieve")
    await catalog.aclose()
asyncio.run(main(*sys.argv[1:]))
"""
BARE_FIRESTORE = """
import asyncio
from bench.bare_firestore import BareFirestore
mark("imports")
async def main(project, transport):
    bare = BareFirestore(project)
    await bare.retrieve_batch(["now"])
    mark("first answered request")
    await bare.store("key", {"turn": time.time()})
    mark("first store")
    assert await bare.retrieve("key")
    mark("first retrieve")
    await bare.aclose()
asyncio.run(main(*sys.argv[1:]))
"""

S3 = """
import asyncio
from ltm_async import @name@
mark("import @name@, asyncio with it")
async def main(uri, endpoint_url, key_id, secret):
    blobs = @name@(uri, endpoint_url=endpoint_url, access_key_id=key_id, secret_access_key=secret)
    mark("constructor")
    await blobs.open()
    mark("open")
    await blobs.put(f"{time.time()}", b"x" * 65536)
    mark("first put")
    await blobs.aclose()
asyncio.run(main(*sys.argv[1:]))
"""
BARE_S3 = """
import asyncio
from aiobotocore.session import get_session
mark("imports")
async def main(uri, endpoint_url, key_id, secret):
    _, _, bucket, prefix = uri.split("/", 3)
    async with get_session().create_client(
        "s3", endpoint_url=endpoint_url, region_name="us-east-1",
        aws_access_key_id=key_id, aws_secret_access_key=secret,
    ) as client:
        mark("open")
        await client.put_object(Bucket=bucket, Key=prefix + f"{time.time()}", Body=b"x" * 65536)
        mark("first put")
asyncio.run(main(*sys.argv[1:]))
"""

GCS = """
import asyncio
from ltm_async import GCSBlobStore
mark("import GCSBlobStore, asyncio with it")
async def main(uri, endpoint_url):
    blobs = GCSBlobStore(uri, endpoint_url=endpoint_url)
    mark("constructor")
    await blobs.open()
    mark("open")
    await blobs.put(f"{time.time()}", b"x" * 65536)
    mark("first put")
    await blobs.aclose()
asyncio.run(main(*sys.argv[1:]))
"""
BARE_GCS = """
import asyncio
from bench.bare_gcs import bare_gcs
mark("imports")
async def main(uri, endpoint_url):
    async with bare_gcs(endpoint_url, uri.split("/")[2]) as bare:
        mark("open")
        await bare.put({f"{time.time()}": b"x" * 65536})
        mark("first put")
asyncio.run(main(*sys.argv[1:]))
"""

AZURE = """
import asyncio
from ltm_async import AzureBlobStore
mark("import AzureBlobStore, asyncio with it")
async def main(uri, endpoint_url, account, key):
    blobs = AzureBlobStore(uri, endpoint_url=endpoint_url, account_name=account, account_key=key)
    mark("constructor")
    await blobs.open()
    mark("open")
    await blobs.put(f"{time.time()}", b"x" * 65536)
    mark("first put")
    await blobs.aclose()
asyncio.run(main(*sys.argv[1:]))
"""
BARE_AZURE = """
import asyncio, obstore
from obstore.store import AzureStore
mark("imports")
async def main(uri, endpoint_url, account, key):
    store = AzureStore(uri.split("/")[2], endpoint=endpoint_url, account_name=account,
                       account_key=key, client_options={"allow_http": True})
    mark("open")
    await obstore.put_async(store, f"{time.time()}", b"x" * 65536, mode="create")
    mark("first put")
    await asyncio.sleep(0.01)  # or one process in five aborts
asyncio.run(main(*sys.argv[1:]))
"""

ENGINE = """
import asyncio
from ltm_async import DuckDBQueryEngine, LTMBackend
mark("imports")
@before@
mark("import DuckDB beforehand")
async def main():
    engine = DuckDBQueryEngine(LTMBackend("memory:", "memory:"))
    mark("constructor")
    await engine.open()
    mark("open")
    assert (await engine.query("SELECT count(*) FROM entries")).rows == [(0,)]
    mark("first query")
    await engine.aclose()
asyncio.run(main())
"""
BARE_ENGINE = """
import duckdb
mark("imports")
base = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "512MB"})
mark("open")
assert base.execute("SELECT count(*) FROM (VALUES (1)) AS t").fetchall() == [(1,)]
mark("first query")
"""

IMPORT = """
import time
began = time.perf_counter()
import ltm_async
print((time.perf_counter() - began) * 1e3)
import sys
assert not {"asyncio", "sqlite3"} & {*sys.modules}
"""

STALL_OF_A_FIRST_PUT = """
import asyncio, sys, time
from ltm_async import GCSBlobStore
async def main():
    late, done = [], False
    async def watch():
        while not done:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - began - 0.001)
    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    blobs = GCSBlobStore(sys.argv[1], endpoint_url=sys.argv[2])
    await blobs.put(sys.argv[3], b"x")
    print(max(late) * 1e3)
    done = True
    await watcher
    await blobs.aclose()
asyncio.run(main())
"""
