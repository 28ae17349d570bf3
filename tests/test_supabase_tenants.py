"""Row-level security under attack: by the library, and by requests made by hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import pytest

from ltm_async import (
    AccessDeniedError,
    ConfigError,
    LTMBackend,
    MemoryBlobStore,
    StoreError,
    SupabaseCatalog,
    WatermarkExpiredError,
    doctor,
)
from ltm_async.clock import system_clock
from ltm_async.entry import NEVER
from ltm_async.protocols import Outcome, Reservation, Write
from ltm_async.testing import ManualClock
from ltm_async.testing.writes import new_write_id, small

from .projects import Project
from .servers.postgrest import JWT_SECRET, PostgREST, signed, token_of

ALICE, BOB = "0a11ce00-sub", "00000b0b-sub"
CANARY = "c4n4ry"
LEASE_US = 60_000_000


class Neighbours:
    """Alice's memory, with all there can be in one, and Bob, who wants to have it."""

    def __init__(self, project: Project, clock: ManualClock) -> None:
        self.project = project
        self.clock = clock
        self.blobs = MemoryBlobStore(clock=clock)
        self._open: list[SupabaseCatalog] = []
        self._http = httpx2.AsyncClient(base_url=project.api.url, trust_env=False)

    def catalog(self, token: str) -> SupabaseCatalog:
        catalog = self.project.catalog(access_token=token)
        self._open.append(catalog)
        return catalog

    def memory(self, token: str, namespace: str) -> LTMBackend:
        return LTMBackend(
            self.catalog(token),
            self.blobs,
            namespace=namespace,
            on_unavailable="raise",
            index_text=True,
            embed=lambda texts: [[1.0, len(text)] for text in texts],
        )

    async def fill(self) -> None:
        for namespace in (ALICE, f"{ALICE}/notes"):
            alice = self.memory(token_of(ALICE), namespace)
            await alice.store("replaced", [CANARY, "x" * 2_000])
            await alice.store("replaced", CANARY)
            await alice.store("small", CANARY, metadata={"of": CANARY})
            await alice.store("large", [CANARY, "y" * 2_000])
            await alice.store("ended", CANARY, ttl=60)
            await alice.store("ended large", [CANARY, "z" * 2_000], ttl=60)
            await alice.store("deleted", CANARY)
            await alice.delete("deleted")
            await alice.create_snapshot(CANARY)
            self.project.run(f"INSERT INTO {{}}ltm_pruned VALUES ('{namespace}', '3')")
        self.clock.advance(3_600)

    def rows(self, namespace: str = ALICE) -> dict[str, list[Any]]:
        """Everything below *namespace*, as it is."""
        return {
            table: self.project.rows(
                f"SELECT * FROM {{}}{table} WHERE starts_with(namespace, $1) ORDER BY 1, 2",
                namespace,
            )
            for table in (
                "ltm_entries",
                "ltm_texts",
                "ltm_vectors",
                "ltm_blobs",
                "ltm_deletions",
                "ltm_pruned",
                "ltm_snapshots",
            )
        }

    async def ask(
        self, method: str, path: str, token: str | None, body: Any = None, **headers: str
    ) -> httpx2.Response:
        """A request made by hand."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named |= {"Accept-Profile": self.project.schema, "Content-Profile": self.project.schema}
        if token is not None:
            named["Authorization"] = f"Bearer {token}"
        if method == "HEAD":  # after which PostgREST hangs up, and tells nobody so
            named["Connection"] = "close"
        return await self._http.request(method, path, json=body, headers=named)

    async def aclose(self) -> None:
        await self._http.aclose()
        for catalog in self._open:
            await catalog.aclose()


@pytest.fixture
async def neighbours(strict_project: Project) -> AsyncIterator[Neighbours]:
    found = Neighbours(strict_project, strict_project.clock_at(None))
    await found.fill()
    yield found
    await found.aclose()


# By the library


@pytest.mark.parametrize("namespace", [ALICE, f"{ALICE}/notes"])
async def test_nobody_else_can_do_anything_in_a_namespace(
    neighbours: Neighbours, namespace: str
) -> None:
    before = neighbours.rows()
    assert {table: bool(rows) for table, rows in before.items()} == dict.fromkeys(before, True)
    keys = ["replaced", "small", "large", "ended", "ended large", "deleted"]
    bob = neighbours.memory(token_of(BOB), namespace)
    assert not (await bob.retrieve("small")).found
    assert (await bob.retrieve_batch(keys)).missing == keys
    assert (await bob.list_entries()).entries == []
    assert (await bob.search(CANARY)).total == 0
    assert set(await neighbours.catalog(token_of(BOB)).stats(namespace)) == {0}
    assert not (await bob.touch("small", ttl=60)).touched
    assert (await bob.delete_batch(keys)).deleted == 0
    assert (await bob.cleanup_expired()).deleted == 0
    assert (await bob.collect_garbage()).deleted == 0
    assert (await bob.verify()).entries == 0
    for value in ("mine", "mine" * 1_000):
        with pytest.raises(AccessDeniedError, match="namespace is not this user's"):
            await bob.store("small", value)
        with pytest.raises(AccessDeniedError):
            await bob.store("new", value)
    assert neighbours.rows() == before


async def test_nobody_else_can_settle_or_collect_what_is_in_a_namespace(
    neighbours: Neighbours,
) -> None:
    before = neighbours.rows()
    rows = before["ltm_entries"]
    blob_ids = [row["blob_id"] for row in before["ltm_blobs"]]
    bob = neighbours.catalog(token_of(BOB))
    for row in rows:
        settled = await bob.resolve_write(
            ALICE, row["write_id"], keys=[row["key"]], blob_ids=blob_ids, grace_us=0
        )
        assert settled.outcome is Outcome.UNKNOWN
    write_id = before["ltm_deletions"][0]["write_id"]
    assert await bob.resolve_removal(ALICE, write_id, ["deleted"]) == []
    await bob.abandon_blobs(ALICE, blob_ids, grace_us=0)
    await bob.forget_blobs(ALICE, blob_ids)
    assert await bob.due_blobs(ALICE, 100) == []
    assert await bob.take_due_blobs(ALICE, 100, backoff_us=0) == []
    assert await bob.expire_entries(ALICE, 100, write_id=new_write_id()) == []
    assert await bob.list_blobs(ALICE, limit=100) == []
    assert set(await bob.known_blobs(ALICE, blob_ids)) == set()
    with pytest.raises(AccessDeniedError):
        await bob.reserve_blobs(
            ALICE, [Reservation("0-0", "k", rows[0]["content_hash"], 1)], lease_us=LEASE_US
        )
    for blob_id in blob_ids:  # Alice's own, as Bob's
        theirs = Write("k", rows[0]["content_hash"], 1, None, blob_id, "{}", NEVER)
        with pytest.raises(Exception, match="reservations have ended"):
            await bob.track_entry(BOB, theirs, write_id=new_write_id())
    assert neighbours.rows() == before


async def test_a_user_has_the_namespace_of_their_name_and_those_below_it(
    neighbours: Neighbours,
) -> None:
    for namespace in (BOB, f"{BOB}/", f"{BOB}/notes", f"{BOB}/../{ALICE}"):
        assert (await neighbours.memory(token_of(BOB), namespace).store("k", 1)).stored
    for namespace in ("", "/", BOB[:-1], f"{BOB}x", f"x/{BOB}", f"/{BOB}", BOB.upper(), "%", "_"):
        with pytest.raises(AccessDeniedError):
            await neighbours.memory(token_of(BOB), namespace).store("k", 1)


@pytest.mark.parametrize("sub", ["", "%", "/", f"{ALICE}/notes", f"{ALICE[:-1]}", "*", "null"])
async def test_a_name_that_is_no_namespace_owns_none_of_another(
    neighbours: Neighbours, sub: str
) -> None:
    before = neighbours.rows()
    for namespace in ("", ALICE, f"{ALICE}/notes"):
        memory = neighbours.memory(token_of(sub), namespace)
        assert (await memory.list_entries()).entries == []
        with pytest.raises(AccessDeniedError):
            await memory.store("small", 1)
    assert neighbours.rows() == before


async def test_a_token_that_names_nobody_owns_nothing(neighbours: Neighbours) -> None:
    nobody = signed({"role": "authenticated"})
    for namespace in ("", ALICE):
        assert (await neighbours.memory(nobody, namespace).list_entries()).entries == []
        with pytest.raises(AccessDeniedError):
            await neighbours.memory(nobody, namespace).store("k", 1)


def test_an_operator_may_replace_the_rule_and_installing_again_keeps_it(project: Project) -> None:
    project.install_again()
    catalog = project.catalog(access_token=token_of(BOB, owners=["acme"]))

    async def main() -> None:
        for namespace in (BOB, "acme", "acme/team"):
            await catalog.track_entry(namespace, small("k"), write_id=new_write_id())
        with pytest.raises(AccessDeniedError):
            await catalog.track_entry("acmes", small("k"), write_id=new_write_id())
        await catalog.aclose()

    asyncio.run(main())


def test_what_a_later_release_adds_is_covered_by_installing_again(
    strict_project: Project,
) -> None:
    strict_project.run(
        "CREATE TABLE {}ltm_later (namespace text, secret text);"
        f"INSERT INTO {{}}ltm_later VALUES ('{ALICE}', '{CANARY}'), ('{BOB}', 'mine');"
        "CREATE TABLE {}ltm_later_still (secret text);"
        "CREATE FUNCTION {}ltm_secrets(in_namespace text, in_limit bigint DEFAULT 9) "
        "RETURNS SETOF text LANGUAGE sql STABLE AS "
        "$$ SELECT secret FROM {}ltm_later WHERE namespace = in_namespace LIMIT in_limit $$"
    )
    catalog = strict_project.catalog(access_token=token_of(BOB))

    async def open_tables() -> str:
        return (await catalog.isolation()).open_tables

    async def secrets_of(namespace: str) -> Any:
        client = await catalog._share.get()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(StoreError):  # PostgREST has not heard of it yet
                    return await client.call("ltm_rpc_secrets", {"in_namespace": namespace})
                await asyncio.sleep(0.02)

    try:
        assert asyncio.run(open_tables()) == "ltm_later, ltm_later_still"
        strict_project.install_again()
        assert asyncio.run(open_tables()) == ""
        assert [asyncio.run(secrets_of(name)) for name in (BOB, ALICE)] == [[["mine"]], []]
    finally:
        strict_project.run(
            "DROP FUNCTION {}ltm_secrets, {}ltm_rpc_secrets;"
            "DROP TABLE {}ltm_later, {}ltm_later_still"
        )


# By hand


def arguments_of(
    project: Project, function: str, blob_ids: list[str], keys: list[str]
) -> list[dict[str, Any]]:
    """What to call every function of the schema with, aimed at Alice."""
    known: Mapping[str, Any] = {
        "in_namespace": ALICE,
        "in_key": "small",
        "in_keys": keys,
        "in_places": [f"(0,{number})" for number in range(1, 60)],
        "in_blob_ids": blob_ids,
        "in_kept": [],
        "in_start": "",
        "in_after": "",
        "in_end": "z",
        "in_new_expiry": True,
        "in_write_id": "w",
        "in_metadata": "{}",
    }
    found = []
    for row in project.rows(
        "SELECT proargnames[1:pronargs] AS names, "
        "(proargtypes::regtype[])[0:pronargs - 1]::text[] AS types FROM pg_proc "
        f"WHERE pronamespace = '{project.schema}'::regnamespace AND proname = $1",
        function,
    ):
        arguments: dict[str, Any] = {}
        for name, kind in zip(row["names"] or (), row["types"] or (), strict=True):
            value = known.get(name, 2**40)
            if kind.endswith("[]") and not isinstance(value, list):
                value = [value] * len(keys)
            arguments[name] = value
        found.append(arguments)
    return found


async def test_no_function_called_by_hand_shows_or_changes_what_is_anothers(
    neighbours: Neighbours,
) -> None:
    project, before = neighbours.project, neighbours.rows()
    keys = sorted({row["key"] for row in before["ltm_entries"]})
    blob_ids = [row["blob_id"] for row in before["ltm_blobs"]]
    names = [
        row["proname"]
        for row in project.rows(
            "SELECT DISTINCT proname FROM pg_proc "
            f"WHERE pronamespace = '{project.schema}'::regnamespace ORDER BY 1"
        )
    ]
    assert len(names) > 35
    called = 0
    for name in names:
        for arguments in arguments_of(project, name, blob_ids, keys):
            for token in (token_of(BOB), token_of(""), None):
                reply = await neighbours.ask("POST", f"/rpc/{name}", token, arguments)
                called += 1
                assert CANARY not in reply.text
                assert token is not None or reply.status_code == 401, name
                held = [b for b in blob_ids if b in reply.text]
                assert held == [], name
                assert neighbours.rows() == before, name
    assert called > 100


@pytest.mark.parametrize("values", [None, [], ["1"], ["1", "2", "3"]])
async def test_a_commit_by_hand_that_gives_other_than_a_value_for_each_key_is_refused(
    neighbours: Neighbours, values: list[str] | None
) -> None:
    commit = {
        **dict.fromkeys(["in_blob_ids", "in_ttls", "in_ends", "in_versions"]),
        **dict.fromkeys(["in_texts", "in_lengths"]),
        "in_namespace": BOB,
        "in_write_id": "w",
        "in_keys": ["a", "b"],
        "in_hashes": ["h", "h"],
        "in_sizes": [1, 1],
        "in_values": values,
        "in_metadata": ["{}", "{}"],
    }
    reply = await neighbours.ask("POST", "/rpc/ltm_commit", token_of(BOB), commit)
    assert (reply.status_code, reply.json()["code"]) == (400, "22023")
    reply = await neighbours.ask(
        "POST", "/rpc/ltm_commit", token_of(BOB), {**commit, "in_values": ["1", "2"]}
    )
    assert reply.status_code == 200


FORGED = {
    "namespace": ALICE, "key": "small", "version": 99, "write_id": "w", "content_hash": "h",
    "byte_size": 1, "inlined_value": "1", "metadata": "{}", "created_at": 1, "updated_at": 1,
}  # fmt: skip
TABLES = (
    "ltm_entries", "ltm_texts", "ltm_vectors", "ltm_blobs", "ltm_deletions", "ltm_pruned",
    "ltm_snapshots",
    "ltm_schema",
)  # fmt: skip


@pytest.mark.parametrize(
    "token", [token_of(BOB), token_of(BOB, role="ltm_user"), token_of(""), None]
)
async def test_no_table_asked_by_hand_shows_or_changes_what_is_anothers(
    neighbours: Neighbours, token: str | None
) -> None:
    before = neighbours.rows()
    for table in TABLES:
        for query in ("", f"?namespace=eq.{ALICE}", "?or=(namespace.neq.x,namespace.is.null)"):
            for method, body in (
                ("GET", None),
                ("PATCH", {"namespace": BOB}),
                ("PATCH", {"version": 1}),
                ("DELETE", None),
            ):
                reply = await neighbours.ask(
                    method, f"/{table}{query}", token, body, Prefer="return=representation"
                )
                assert reply.status_code in {400, 401, 403} or reply.json() == []
        counted = await neighbours.ask("HEAD", f"/{table}", token, Prefer="count=exact")
        assert counted.headers.get("content-range", "*/0").endswith("/0")
    for prefer in ("", "resolution=merge-duplicates", "resolution=ignore-duplicates"):
        reply = await neighbours.ask("POST", "/ltm_entries", token, FORGED, Prefer=prefer)
        assert reply.status_code in {401, 403}
    assert neighbours.rows() == before


async def test_the_owner_of_the_tables_sees_nothing_either(neighbours: Neighbours) -> None:
    """Who owns a table is exempt from its policies, unless they are forced on the owner too."""
    project = neighbours.project
    (before,) = project.rows(
        "SELECT pg_get_userbyid(relowner) AS owner FROM pg_class "
        "WHERE oid = '{}ltm_entries'::regclass"
    )
    project.run(
        f"CREATE ROLE ltm_test_owner; GRANT USAGE ON SCHEMA {project.schema} TO ltm_test_owner"
    )
    try:
        project.run("ALTER TABLE {}ltm_entries OWNER TO ltm_test_owner; SET ROLE ltm_test_owner")
        assert project.rows("SELECT key FROM {}ltm_entries") == []
    finally:
        project.run(
            f"RESET ROLE; ALTER TABLE {{}}ltm_entries OWNER TO {before['owner']}; "
            "DROP OWNED BY ltm_test_owner; DROP ROLE ltm_test_owner"
        )


async def test_a_row_of_ones_own_cannot_be_moved_to_another(neighbours: Neighbours) -> None:
    before = neighbours.rows()
    await neighbours.memory(token_of(BOB), BOB).store("small", 1)
    for query in ("", f"?namespace=eq.{BOB}"):
        reply = await neighbours.ask(
            "PATCH", f"/ltm_entries{query}", token_of(BOB), {"namespace": ALICE, "key": "moved"}
        )
        assert reply.status_code == 403
    assert neighbours.rows() == before
    reply = await neighbours.ask("DELETE", "/ltm_entries", token_of(BOB))
    assert reply.status_code == 204  # what is theirs
    assert neighbours.rows(BOB)["ltm_entries"] == []
    assert neighbours.rows() == before


async def test_what_supabase_grants_of_everything_new_is_taken_back(
    neighbours: Neighbours,
) -> None:
    schema = neighbours.project.schema
    granted = neighbours.project.rows(
        "SELECT grantee::regrole::text AS role, relname, privilege_type FROM pg_class, "
        "aclexplode(relacl) WHERE starts_with(relname, 'ltm_') AND grantee <> 0 "
        f"AND relnamespace = '{schema}'::regnamespace AND relkind <> 'i'"
    )
    assert {row["role"] for row in granted} == {
        "postgres", "authenticated", "service_role", "ltm_user", "ltm_collector",
    }  # fmt: skip
    assert {row["privilege_type"] for row in granted if row["role"] == "authenticated"} == {
        "SELECT", "INSERT", "UPDATE", "DELETE", "USAGE",
    }  # fmt: skip
    executed = neighbours.project.rows(
        "SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS role "
        f"FROM pg_proc, aclexplode(proacl) WHERE pronamespace = '{schema}'::regnamespace"
    )
    assert {row["role"] for row in executed} == {row["role"] for row in granted}


# The collector


def collector(**claims: Any) -> str:
    return token_of("sweeper", role="ltm_collector", **claims)


@pytest.mark.parametrize("namespace", [ALICE, f"{ALICE}/notes"])
async def test_the_collector_sweeps_and_collects_in_every_namespace(
    neighbours: Neighbours, namespace: str
) -> None:
    sweeper = neighbours.memory(collector(), namespace)
    assert (await sweeper.cleanup_expired()).deleted == 2
    await sweeper.collect_garbage()
    alice = neighbours.memory(token_of(ALICE), namespace)
    stats = await alice.stats()
    assert (stats.entries, stats.expired, stats.dead_blobs) == (3, 0, 0)
    assert (await alice.verify()).sound
    assert (await alice.retrieve("large")).value[0] == CANARY


async def test_the_collector_forgets_old_deletions_and_the_feed_says_so(
    neighbours: Neighbours,
) -> None:
    alice = neighbours.memory(token_of(ALICE), ALICE)
    since = (await alice.get_changed_entries()).cursor
    await alice.store("later", 1)
    await alice.delete("later")
    neighbours.clock.advance(8 * 86_400)
    await neighbours.memory(collector(), ALICE).collect_garbage()
    left = {row["namespace"] for row in neighbours.rows(ALICE)["ltm_deletions"]}
    assert left == {f"{ALICE}/notes"}
    with pytest.raises(WatermarkExpiredError):
        await alice.get_changed_entries(cursor=since)


async def test_the_collector_can_read_neither_values_nor_metadata(
    neighbours: Neighbours,
) -> None:
    sweeper = neighbours.memory(collector(), ALICE)
    for call in (
        sweeper.retrieve("small"),
        sweeper.list_entries(),
        sweeper.list_entries(metadata_filter={"of": CANARY}),
        sweeper.store("small", 1),
        sweeper.touch("small", ttl=1),
        sweeper.delete("small"),
        sweeper.stats(),
    ):
        with pytest.raises(AccessDeniedError):
            await call
    for query in ("", "?select=inlined_value", "?select=metadata", "?select=content_hash"):
        reply = await neighbours.ask("GET", f"/ltm_entries{query}", collector())
        assert reply.status_code == 403
    for query in ("", "?select=words", "?select=length"):
        reply = await neighbours.ask("GET", f"/ltm_texts{query}", collector())
        assert reply.status_code == 403
    for query in ("", "?select=vector"):
        reply = await neighbours.ask("GET", f"/ltm_vectors{query}", collector())
        assert reply.status_code == 403
    reply = await neighbours.ask("GET", "/ltm_entries?select=key", collector())
    assert {row["key"] for row in reply.json()} == {"ended", "ended large"}


async def test_the_collector_can_neither_change_entries_nor_remove_live_ones(
    neighbours: Neighbours,
) -> None:
    before = neighbours.rows()
    for change in ({"updated_at": 1}, {"expires_at": 1}, {"inlined_value": "1"}):
        reply = await neighbours.ask("PATCH", "/ltm_entries", collector(), change)
        assert reply.status_code == 403
    reply = await neighbours.ask("POST", "/ltm_entries", collector(), FORGED)
    assert reply.status_code == 403
    assert neighbours.rows() == before
    for table in ("ltm_texts", "ltm_vectors", "ltm_entries"):  # what has expired
        reply = await neighbours.ask("DELETE", f"/{table}", collector())
        assert reply.status_code == 204
    alice = neighbours.memory(token_of(ALICE), ALICE)
    assert (await alice.search(CANARY)).total == 3
    assert len(neighbours.rows()["ltm_vectors"]) == 6
    left = neighbours.rows()["ltm_entries"]
    assert left == [row for row in before["ltm_entries"] if row["expires_at"] is None]


# Credentials


async def denied(project: Project, **options: Any) -> str:
    """What opening a catalog says; without the secrets."""
    catalog = project.catalog(**options)
    with pytest.raises(AccessDeniedError) as caught:
        await catalog.get_entry(ALICE, "small")
    await catalog.aclose()
    for secret in (options.get("access_token"), PostgREST.anon_key, JWT_SECRET):
        assert not isinstance(secret, str) or secret not in f"{caught.value!r} {catalog!r}"
    return str(caught.value)


async def test_an_expired_token_is_denied_as_such(strict_project: Project) -> None:
    said = await denied(strict_project, access_token=token_of(ALICE, valid_s=-3_600))
    assert said == "supabase: the access token has expired"


@pytest.mark.parametrize(
    "token",
    [
        signed({"sub": ALICE, "role": "authenticated"}, "another secret of at least 32 characters"),
        token_of(ALICE)[:-4] + "AAAA",
        "no.jwt.atall",
        "nojwt",
    ],
)
async def test_a_forged_token_is_denied_as_such(strict_project: Project, token: str) -> None:
    said = await denied(strict_project, access_token=token)
    assert said == "supabase: the access token was refused: it is not one of this project's"


async def test_a_token_without_a_signature_is_denied(strict_project: Project) -> None:
    header = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    unsigned = f"{header}.{token_of(ALICE).split('.')[1]}."
    assert "refused" in await denied(strict_project, access_token=unsigned)


async def test_without_a_token_nothing_can_be_seen(strict_project: Project) -> None:
    assert "without a user's access_token" in await denied(strict_project, access_token=None)


async def test_a_token_of_a_role_that_is_not_there_is_denied(strict_project: Project) -> None:
    await denied(strict_project, access_token=token_of(ALICE, role="postgres"))


def test_service_role_is_refused_unless_it_is_named(strict_project: Project) -> None:
    for options in (
        {"key": PostgREST.service_key},
        {"key": "sb_secret_abcdef"},
        {"access_token": PostgREST.service_key},
    ):
        with pytest.raises(ConfigError, match="service_role") as caught:
            strict_project.catalog(**options)
        assert all(secret not in str(caught.value) for secret in options.values())
    with pytest.raises(ConfigError, match="another role's"):
        strict_project.catalog(access_token=None, service_role=True)
    with pytest.raises(ConfigError, match="access_token is a user's"):
        strict_project.catalog(key=PostgREST.service_key, service_role=True)


async def test_service_role_sees_every_namespace_when_it_is_named(
    neighbours: Neighbours, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = neighbours.project.catalog(
        key=PostgREST.service_key, access_token=None, service_role=True
    )
    for namespace in (ALICE, f"{ALICE}/notes", BOB, ""):
        ltm = LTMBackend(catalog, neighbours.blobs, namespace=namespace)
        assert (await ltm.store("k", 1)).stored
        assert (await ltm.retrieve("k")).value == 1
    await catalog.aclose()
    assert caplog.messages == []


async def test_a_token_of_service_role_that_a_function_returns_is_refused(
    strict_project: Project,
) -> None:
    async def ask() -> str:
        return PostgREST.service_key

    assert "service_role" in await denied(strict_project, access_token=ask)


# The look at whether rows are kept apart


@pytest.mark.parametrize(
    ("undo", "redo", "table"),
    [
        (
            "ALTER TABLE {}ltm_blobs DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE {}ltm_blobs ENABLE ROW LEVEL SECURITY",
            "ltm_blobs",
        ),
        (
            "CREATE POLICY everyone ON {}ltm_entries USING (true)",
            "DROP POLICY everyone ON {}ltm_entries",
            "ltm_entries",
        ),
        (
            "CREATE POLICY all_users ON {}ltm_deletions TO authenticated USING (true)",
            "DROP POLICY all_users ON {}ltm_deletions",
            "ltm_deletions",
        ),
        (
            "ALTER ROLE authenticated BYPASSRLS",
            "ALTER ROLE authenticated NOBYPASSRLS",
            ", ".join(sorted(TABLES)),
        ),
    ],
)
async def test_opening_warns_where_rows_are_not_kept_apart(
    strict_project: Project, caplog: pytest.LogCaptureFixture, undo: str, redo: str, table: str
) -> None:
    caplog.set_level(logging.WARNING)
    for script, expected in ((undo, [table]), (redo, [])):
        caplog.clear()
        strict_project.run(script)
        catalog = strict_project.catalog(access_token=token_of(ALICE))
        await catalog.open()
        assert (await catalog.isolation()).open_tables == "".join(expected)
        await catalog.aclose()
        assert [f"apart in {name}:" in caplog.text for name in expected] == [True] * len(expected)
        assert len(caplog.messages) == len(expected)


@pytest.mark.parametrize("open_to_all", [False, True])
async def test_the_doctor_looks_whether_rows_are_kept_apart(
    strict_project: Project, open_to_all: bool
) -> None:
    strict_project.clock_at(system_clock())
    if open_to_all:
        strict_project.run("CREATE POLICY everyone ON {}ltm_entries USING (true)")
    catalog = strict_project.catalog(access_token=token_of(BOB))
    checks = {
        check.check: check
        async for check in doctor.examine(catalog, MemoryBlobStore(), namespace=BOB)
    }
    await catalog.aclose()
    strict_project.run("DROP POLICY IF EXISTS everyone ON {}ltm_entries")
    looked = checks.pop("row-level security")
    assert (looked.ok, looked.advice is None) == (not open_to_all, not open_to_all)
    assert ("ltm_entries" in looked.detail) is open_to_all
    assert all(check.ok for check in checks.values()), checks
