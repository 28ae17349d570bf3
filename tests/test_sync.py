"""The blocking backend: the same methods, from any thread, and never a loop held up or hung."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import typing
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_type

import pytest
from blockbuster import blockbuster_ctx

from ltm_async import (
    BlockingCallError,
    ClosedError,
    ConfigError,
    ConflictError,
    DeadlineError,
    InvalidEntryError,
    Keyring,
    LTMBackend,
    MemoryBlobStore,
    MemoryCatalog,
    SyncLTMBackend,
    create_ltm_backend,
    portal,
)
from ltm_async.portal import Portal
from ltm_async.testing import Faults

from .backends import EMBEDDED_PAIRS, Rig, make_rig
from .corpus import nested

LARGE = "x" * 5_000


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """The same guard as elsewhere; the wait of a blocking call is what is wanted here."""
    with blockbuster_ctx("ltm_async", excluded_modules=["ltm_async.testing"]) as guard:
        guard.functions["os.path.abspath"].can_block_in("ltm_async/blobs/local.py", {"__init__"})
        lock = guard.functions["threading.Lock.acquire"]
        lock.can_block_in("ltm_async/portal.py", {"run"})
        lock.can_block_in("tests/test_sync.py", {"hold_up"})
        yield


class Stops(Faults):
    """While *hanging*, nothing is answered; says when a step began and when it was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.hanging = True
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    async def step(self, name: str, call: Any) -> Any:
        if self.hanging:
            self.begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return await super().step(name, call)


@pytest.fixture
def ltm() -> Iterator[SyncLTMBackend]:
    with SyncLTMBackend("memory:", "memory:", on_unavailable="raise") as ltm:
        yield ltm


def hanging(folder: pathlib.Path, **options: Any) -> tuple[SyncLTMBackend, Stops]:
    stops = Stops()
    rig = make_rig("sqlite+local", folder, stops, **options)
    return SyncLTMBackend.from_backend(rig.ltm), stops


def close(rig: Rig) -> None:
    asyncio.run(rig.aclose())


def loop_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ltm-sync"]


class TestTheSameAsTheAsyncClass:
    @staticmethod
    def public(kind: type) -> dict[str, list[inspect.Parameter]]:
        return {
            name: list(inspect.signature(getattr(kind, name)).parameters.values())
            for name in vars(kind)
            if not name.startswith("_")
        }

    def test_both_have_the_same_methods_with_the_same_parameters(self) -> None:
        ours, theirs = self.public(SyncLTMBackend), self.public(LTMBackend)
        assert ours.pop("close") == theirs.pop("aclose")
        assert [p.name for p in ours.pop("from_backend")] == ["ltm", "allow_blocking"]
        *config, allow_blocking = ours.pop("from_config")
        assert config == theirs.pop("from_config")
        assert allow_blocking.default is False
        assert len(ours) >= 13
        assert ours == theirs

    def test_both_are_made_from_the_same_arguments(self) -> None:
        *ours, allow_blocking = inspect.signature(SyncLTMBackend).parameters.values()
        assert ours == list(inspect.signature(LTMBackend).parameters.values())
        assert (allow_blocking.name, allow_blocking.default) == ("allow_blocking", False)
        assert allow_blocking.kind is inspect.Parameter.KEYWORD_ONLY

    def test_every_argument_arrives(self) -> None:
        options = {
            name: parameter.default
            for name, parameter in inspect.signature(LTMBackend).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        for name, default in options.items():
            other: Any = {
                "namespace": "n", "on_unavailable": "raise", "retry": type(default)(attempts=2)
                if name == "retry" else None, "index_text": True, "embed": list,
                "encryption": Keyring({"a": b"k" * 32}, primary="a"),
            }.get(name, 65_536 if name == "max_inflight_bytes" else 7)  # fmt: skip
            made = SyncLTMBackend("memory:", "memory:", **{name: other})
            assert getattr(made._ltm._runner.options, name) == other != default

    def test_the_documentation_is_the_same_and_names_the_dict(self) -> None:
        for name in self.public(SyncLTMBackend).keys() & self.public(LTMBackend).keys():
            if name in {"from_config", "open", "release", "changes"}:
                continue
            ours, theirs = getattr(SyncLTMBackend, name), getattr(LTMBackend, name)
            text = inspect.getdoc(ours) or ""
            assert text.startswith(inspect.getdoc(theirs) or "?")
            assert "plain dict" in text
            assert inspect.signature(ours).return_annotation == "dict[str, Any]"
            assert typing.get_type_hints(ours)["return"] == dict[str, Any]
            assert ours.__qualname__ == f"SyncLTMBackend.{name}"
            assert not inspect.iscoroutinefunction(ours)

    @staticmethod
    def calls() -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        entries = [{"key": f"b:{n}", "value": LARGE * n} for n in range(3)]
        return [
            ("store", ("k", {"a": [1, None]}), {"metadata": {"m": 1}, "ttl": 60}),
            ("store", ("large", LARGE), {}),
            ("store", ("k", {"a": [1, None]}), {"if_version": 1, "ttl": 60}),
            ("retrieve", ("k",), {}),
            ("retrieve", ("large",), {"timeout": 5}),
            ("retrieve", ("none",), {}),
            ("touch", ("k",), {"ttl": 90}),
            ("update", ("k", lambda value: {**value, "b": 2}), {}),
            ("store_batch", (entries,), {}),
            ("store_batch", (), {"entries": entries}),
            ("retrieve_batch", (["b:0", "b:1", "none"],), {}),
            ("list_entries", ("b:",), {"limit": 2}),
            ("search", ("large",), {"limit": 2}),
            ("retrieve_snippets", ("large",), {"keys": ["large", "none"]}),
            ("delete", ("b:0",), {}),
            ("delete_batch", (), {"keys": ["b:1", "none"]}),
            ("create_snapshot", ("n",), {}),
            ("delete_snapshot", ("none",), {}),
            ("get_changed_entries", (), {"limit": 3}),
            ("cleanup_expired", (), {"limit": 5}),
            ("collect_garbage", (), {"dry_run": True}),
            ("verify", (), {}),
            ("stats", (), {}),
        ]

    @pytest.mark.parametrize("pair", EMBEDDED_PAIRS)  # whose versions are counted from one
    def test_results_are_those_of_to_dict(self, pair: str, tmp_path: pathlib.Path) -> None:
        def shown(result: dict[str, Any]) -> dict[str, Any]:
            assert type(result) is dict
            return {
                name: value for name, value in result.items() if name not in {"storage_uri", "id"}
            }

        theirs_rig = make_rig(pair, tmp_path / "theirs", index_text=True)
        ours_rig = make_rig(pair, tmp_path / "ours", index_text=True)
        for rig, name in ((theirs_rig, "theirs"), (ours_rig, "ours")):
            (tmp_path / name).mkdir()
            rig.clock.advance((theirs_rig.clock() - rig.clock()) / 1e6)

        async def run_theirs() -> list[dict[str, Any]]:
            results = [
                await getattr(theirs_rig.ltm, name)(*args, **kwargs)
                for name, args, kwargs in self.calls()
            ]
            await theirs_rig.aclose()
            return [shown(result.to_dict()) for result in results]

        with SyncLTMBackend.from_backend(ours_rig.ltm) as ltm:
            ours = [
                shown(getattr(ltm, name)(*args, **kwargs)) for name, args, kwargs in self.calls()
            ]
        close(ours_rig)
        assert ours == asyncio.run(run_theirs())
        assert {name for name, _, _ in self.calls()} == (
            self.public(LTMBackend).keys() - {"open", "release", "aclose", "from_config", "changes"}
        )

    def test_entries_of_a_batch_are_plain_dicts(self, ltm: SyncLTMBackend) -> None:
        ltm.store_batch([{"key": "a", "value": 1}, {"key": "b", "value": LARGE}])
        read = ltm.retrieve_batch(["a", "b"])
        assert read["results"] == {"a": ltm.retrieve("a"), "b": ltm.retrieve("b")}
        assert type(read["results"]["a"]) is dict
        assert [type(entry) for entry in ltm.list_entries()["entries"]] == [dict, dict]

    def test_the_most_nested_value_comes_back(self, ltm: SyncLTMBackend) -> None:
        ltm.store("k", nested(500))
        assert ltm.retrieve("k")["value"] == nested(500)

    def test_a_subclass_of_the_async_class_is_heard(self) -> None:
        class Loud(LTMBackend):
            async def retrieve(self, key: str, *, timeout: float | None = None) -> Any:
                return await super().retrieve(key.upper(), timeout=timeout)

        with SyncLTMBackend.from_backend(Loud("memory:", "memory:")) as ltm:
            ltm.store("K", 1)
            assert ltm.retrieve("k")["value"] == 1


def a_type_checker_sees_the_same(ltm: SyncLTMBackend) -> None:
    """Type-checked, never run."""

    class Agent(SyncLTMBackend):
        pass

    assert_type(ltm.store("k", 1, ttl=1.5), dict[str, Any])
    assert_type(ltm.update("k", str, default=0), dict[str, Any])
    assert_type(ltm.retrieve_batch(keys=["k"], timeout=1), dict[str, Any])
    assert_type(ltm.close(), None)
    assert_type(Agent.from_config({}), Agent)
    with Agent("memory:", "memory:") as agent:
        assert_type(agent, Agent)
    ltm.store("k", 1, {}, 60)  # type: ignore[call-arg]
    ltm.store(b"k", 1)  # type: ignore[arg-type]
    ltm.store("k", 1, tll=60)  # type: ignore[call-arg]
    ltm.retrieve_batch(5)  # type: ignore[arg-type]

    assert_type(create_ltm_backend("memory:", "memory:"), LTMBackend)
    assert_type(create_ltm_backend("memory:", "memory:", sync=False), LTMBackend)
    assert_type(create_ltm_backend("memory:", "memory:", sync=True), SyncLTMBackend)
    assert_type(create_ltm_backend({}, sync=True, allow_blocking=True), SyncLTMBackend)
    either: bool = bool(ltm)
    assert_type(create_ltm_backend({}, sync=either), LTMBackend | SyncLTMBackend)


class TestMaking:
    def test_the_factory_makes_it_of_the_same_arguments(self) -> None:
        parts = create_ltm_backend("memory:", "memory:", sync=True, batch_size=7)
        config = {"catalog": "memory:", "storage": "memory:", "batch_size": 7}
        for made in (
            parts,
            create_ltm_backend(config, sync=True),
            SyncLTMBackend.from_config(config),
        ):
            assert type(made) is SyncLTMBackend
            assert made._ltm._runner.options.batch_size == 7
            with made as ltm:
                ltm.store("k", 1)
                assert ltm.retrieve("k")["value"] == 1

    async def test_every_way_of_making_it_permits_blocking(self) -> None:
        config = {"catalog": "memory:", "storage": "memory:"}
        for made in (
            SyncLTMBackend("memory:", "memory:", allow_blocking=True),
            SyncLTMBackend.from_config(config, allow_blocking=True),
            SyncLTMBackend.from_backend(LTMBackend.from_config(config), allow_blocking=True),
            create_ltm_backend("memory:", "memory:", sync=True, allow_blocking=True),
            create_ltm_backend(config, sync=True, allow_blocking=True),
        ):
            with made as ltm:
                assert ltm.store("k", 1)["stored"]

    def test_without_sync_the_factory_makes_the_async_class(self) -> None:
        assert type(create_ltm_backend("memory:", "memory:")) is LTMBackend
        assert type(create_ltm_backend("memory:", "memory:", sync=False)) is LTMBackend

    def test_bad_arguments_are_refused_as_elsewhere(self) -> None:
        with pytest.raises(ConfigError, match="batch_size"):
            SyncLTMBackend("memory:", "memory:", batch_size=0)
        with pytest.raises(ConfigError, match="storage_uri is missing"):
            create_ltm_backend("memory:", sync=True)
        with pytest.raises(ConfigError, match="did you mean 'timeout'"):
            SyncLTMBackend.from_config({"catalog": "memory:", "storage": "memory:", "time_out": 1})

    def test_the_representation_shows_the_state(self) -> None:
        with SyncLTMBackend("memory:", "memory:", namespace="agent") as ltm:
            assert "SyncLTMBackend" in repr(ltm) and "'agent'" in repr(ltm)
        assert "closed" in repr(ltm)


class TestItsLifetime:
    def test_a_with_block_closes(self) -> None:
        with SyncLTMBackend("memory:", "memory:") as ltm:
            ltm.store("k", 1)
        with pytest.raises(ClosedError):
            ltm.retrieve("k")
        with pytest.raises(ClosedError):
            ltm.retrieve_batch(["k"])

    def test_closing_twice_or_unused_is_fine(self) -> None:
        ltm = SyncLTMBackend("memory:", "memory:")
        ltm.close()
        ltm.close()
        with pytest.raises(ClosedError):
            ltm.store("k", 1)

    def test_a_with_block_closes_after_an_error(self) -> None:
        with pytest.raises(LookupError), SyncLTMBackend("memory:", "memory:") as ltm:
            raise LookupError
        with pytest.raises(ClosedError):
            ltm.stats()

    async def test_closing_either_face_closes_both(self) -> None:
        both = LTMBackend("memory:", "memory:")
        await asyncio.to_thread(SyncLTMBackend.from_backend(both).close)
        with pytest.raises(ClosedError):
            await both.stats()

    def test_stores_that_were_handed_in_stay_open(self) -> None:
        catalog, blobs = MemoryCatalog(), MemoryBlobStore()
        for turn in range(2):
            with SyncLTMBackend(catalog, blobs) as ltm:
                ltm.store(f"k{turn}", LARGE)
        with SyncLTMBackend(catalog, blobs) as ltm:
            assert ltm.stats()["entries"] == 2

    def test_what_one_closed_backend_stored_the_next_reads(self, tmp_path: pathlib.Path) -> None:
        stores = f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs"
        with SyncLTMBackend(*stores) as ltm:
            ltm.store("k", LARGE)
        with SyncLTMBackend(*stores) as ltm:
            assert ltm.retrieve("k")["value"] == LARGE

    def test_two_backends_share_one_loop(self, ltm: SyncLTMBackend) -> None:
        """So that they share their pools too."""
        served: list[asyncio.AbstractEventLoop] = []

        def note(_: Any) -> int:
            served.append(asyncio.get_running_loop())
            return 1

        with SyncLTMBackend("memory:", "memory:") as other, ThreadPoolExecutor(1) as pool:
            ltm.update("k", note)
            other.update("k", note)
            pool.submit(other.update, "k", note).result()
        assert served[0] is served[1] is served[2]


class TestErrors:
    def test_errors_come_as_they_are(self, ltm: SyncLTMBackend) -> None:
        ltm.store("k", 1)
        with pytest.raises(ConflictError) as caught:
            ltm.store("k", 2, if_absent=True)
        assert (caught.value.key, caught.value.version) == ("k", ltm.retrieve("k")["version"])
        with pytest.raises(InvalidEntryError, match="key"):
            ltm.retrieve("")
        with pytest.raises(TypeError, match="tll"):
            ltm.store("k", 1, tll=1)  # type: ignore[call-arg]

    def test_the_traceback_leads_from_the_caller_to_the_fault(self, ltm: SyncLTMBackend) -> None:
        def fails(_: Any) -> None:
            raise LookupError("here")

        with pytest.raises(LookupError, match="here") as caught:
            ltm.update("k", fails)
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert frames[0] == "test_the_traceback_leads_from_the_caller_to_the_fault"
        assert frames[-1] == "fails"
        assert "update" in frames
        assert caught.value.__context__ is None

    def test_the_same_call_that_fails_twice_raises_two_errors(self, ltm: SyncLTMBackend) -> None:
        depths = []
        for _ in range(2):
            with pytest.raises(InvalidEntryError) as caught:
                ltm.retrieve("")
            depths.append(len(caught.traceback))
        assert depths[0] == depths[1]

    def test_a_failed_call_is_freed_without_the_collector(self, ltm: SyncLTMBackend) -> None:
        class MineError(Exception):
            pass

        kept: list[weakref.ref[MineError]] = []

        def fails(_: Any) -> None:
            error = MineError()
            kept.append(weakref.ref(error))
            try:
                raise error
            finally:
                del error

        gc.collect()
        gc.disable()
        try:
            with contextlib.suppress(MineError):
                ltm.update("k", fails)
            ltm.stats()  # by then the loop has let go of the call before
            assert kept[0]() is None
        finally:
            gc.enable()

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_an_exit_raised_on_the_loop_reaches_its_caller_alone(
        self, kind: type[BaseException], ltm: SyncLTMBackend
    ) -> None:
        def fails(_: Any) -> None:
            raise kind

        before = loop_threads()
        with pytest.raises(kind):
            ltm.update("k", fails)
        assert ltm.store("k", 1)["stored"]
        assert loop_threads() == before

    def test_an_exit_in_a_task_of_the_loop_does_not_end_it(self) -> None:
        """As of a store of someone else's; asyncio lets it through to the thread."""

        async def child() -> None:
            raise SystemExit

        async def parent() -> str:
            task = asyncio.create_task(child())
            await asyncio.wait([task])
            return repr(task.exception())

        made = Portal()
        assert made.run(parent) == made.run(parent) == "SystemExit()"

    @pytest.mark.parametrize("mode", ["raise", "degrade"])
    def test_the_deadline_ends_a_hanging_call(self, mode: str, tmp_path: pathlib.Path) -> None:
        ltm, stops = hanging(tmp_path, timeout=60, on_unavailable=mode)
        began = time.monotonic()
        if mode == "raise":
            with pytest.raises(DeadlineError):
                ltm.retrieve("k", timeout=0.05)
        else:
            result = ltm.retrieve("k", timeout=0.05)
            assert (result["success"], result["error_type"]) == (False, "DeadlineError")
        assert time.monotonic() - began < 1.05
        stops.hanging = False
        assert ltm.store("k", 1)["stored"]
        ltm.close()


class TestEventLoops:
    async def test_a_thread_with_a_running_loop_is_refused(self, ltm: SyncLTMBackend) -> None:
        for call in (
            lambda: ltm.store("k", 1),
            lambda: ltm.retrieve_batch(["k"]),
            lambda: ltm.update("k", str),
            ltm.close,
            ltm.__enter__,
        ):
            with pytest.raises(BlockingCallError, match=r"LTMBackend.*allow_blocking=True"):
                call()
        assert not (await asyncio.to_thread(ltm.retrieve, "k"))["found"]

    async def test_it_may_be_permitted(self) -> None:
        """As in a notebook, whose cells run inside a loop."""
        with SyncLTMBackend("memory:", "memory:", allow_blocking=True) as ltm:
            assert ltm.store("cell", 1)["stored"]
            read = await asyncio.gather(
                *(asyncio.to_thread(ltm.retrieve, "cell") for _ in range(5))
            )
            assert [result["value"] for result in read] == [1] * 5
            assert ltm.update("cell", lambda value: value + 1)["stored"]
            assert ltm.retrieve("cell")["value"] == 2

    async def test_a_worker_thread_beside_a_running_loop_needs_no_permission(self) -> None:
        ltm = SyncLTMBackend("memory:", "memory:")
        await asyncio.gather(*(asyncio.to_thread(ltm.store, f"k{n}", n) for n in range(10)))
        assert (await asyncio.to_thread(ltm.stats))["entries"] == 10
        await asyncio.to_thread(ltm.close)

    async def test_the_loop_of_the_caller_goes_on_beside_a_worker_thread(
        self, tmp_path: pathlib.Path
    ) -> None:
        ltm, stops = hanging(tmp_path, timeout=60)
        call = asyncio.create_task(asyncio.to_thread(ltm.retrieve, "k", timeout=0.2))
        turns = 0
        while not call.done():
            turns += 1
            await asyncio.sleep(0.01)
        assert turns > 3
        assert isinstance(call.exception(), DeadlineError)
        stops.hanging = False
        await asyncio.to_thread(ltm.close)

    @pytest.mark.parametrize("allow_blocking", [False, True])
    def test_a_call_from_inside_a_call_is_refused(self, allow_blocking: bool) -> None:
        inner = SyncLTMBackend("memory:", "memory:", allow_blocking=allow_blocking)

        def plain(_: Any) -> Any:
            return inner.retrieve("k")

        async def not_plain(_: Any) -> Any:
            return inner.retrieve("k")

        with SyncLTMBackend("memory:", "memory:", allow_blocking=allow_blocking) as other, inner:
            for ltm in (inner, other):
                for fn in (plain, not_plain):
                    with pytest.raises(BlockingCallError, match=r"update\(\).*wait for itself"):
                        ltm.update("k", fn)
                assert not ltm.retrieve("k")["found"]

    def test_a_call_from_inside_may_go_through_a_thread(self, ltm: SyncLTMBackend) -> None:
        async def copy(_: Any) -> Any:
            return (await asyncio.to_thread(ltm.retrieve, "from"))["value"]

        ltm.store("from", 7)
        ltm.update("to", copy)
        assert ltm.retrieve("to")["value"] == 7


class TestThreads:
    def test_fifty_threads_at_once(self, tmp_path: pathlib.Path) -> None:
        threads, rounds = 50, 3
        started = threading.Barrier(threads)
        ltm = SyncLTMBackend(
            f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs", on_unavailable="raise"
        )
        ltm.stats()
        before = loop_threads()

        def work(number: int) -> list[Any]:
            started.wait()
            for turn in range(rounds):
                ltm.store(f"own:{number}", [number, turn])
                ltm.update("shared", lambda count: count + 1, default=0)
            return list(ltm.retrieve(f"own:{number}")["value"])

        with ltm, ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(work, range(threads))) == [[n, rounds - 1] for n in range(threads)]
            assert ltm.retrieve("shared")["value"] == threads * rounds
        assert loop_threads() == before

    def test_threads_that_come_first_at_once_start_one_loop(self) -> None:
        async def which() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        def work(_: int) -> asyncio.AbstractEventLoop:
            started.wait()
            return made.run(which)

        started, made, count = threading.Barrier(20), Portal(), len(loop_threads())
        with ThreadPoolExecutor(20) as pool:
            assert len(set(pool.map(work, range(20)))) == 1
        assert len(loop_threads()) == count + 1

    def test_what_is_to_be_stored_is_read_in_the_caller_s_thread(self, ltm: SyncLTMBackend) -> None:
        """Where a database cursor belongs, and where it may ask this very backend."""
        ltm.store("0", 7)
        db = sqlite3.connect(":memory:")
        db.execute("CREATE TABLE t (key TEXT)")
        db.executemany("INSERT INTO t VALUES (?)", [("1",), ("2",)])
        rows = db.execute("SELECT key FROM t ORDER BY key")
        done = ltm.store_batch({"key": k, "value": ltm.retrieve("0")["value"]} for (k,) in rows)
        assert done["stored"] == 2
        keys = (key for (key,) in db.execute("SELECT key FROM t"))
        assert ltm.retrieve_batch(keys=keys)["found"] == 2
        assert ltm.delete_batch(key for (key,) in db.execute("SELECT key FROM t"))["deleted"] == 2
        db.close()

    def test_what_is_no_iterable_of_entries_is_refused_as_elsewhere(
        self, ltm: SyncLTMBackend
    ) -> None:
        bad: Any
        for bad in ("text", b"bytes", {"key": 1}, 5):
            with pytest.raises(InvalidEntryError, match="entries must be an iterable of mappings"):
                ltm.store_batch(bad)
        assert ltm.retrieve_batch({"k": 1})["missing"] == ["k"]

    def test_context_variables_are_carried_into_fn_and_not_back(self, ltm: SyncLTMBackend) -> None:
        trace = contextvars.ContextVar("trace", default="none")
        seen = []

        def plain(_: Any) -> int:
            seen.append(trace.get())
            trace.set("changed by fn")
            return 1

        async def not_plain(_: Any) -> int:
            await asyncio.sleep(0)
            return plain(_)

        trace.set("of the caller")
        ltm.update("k", plain)
        ltm.update("k", not_plain)
        context = contextvars.copy_context()
        context.run(trace.set, "of a copy")
        context.run(ltm.update, "k", plain)
        assert seen == ["of the caller", "of the caller", "of a copy"]
        assert trace.get() == "of the caller"


def interrupt_when(event: threading.Event) -> threading.Thread:
    """Send SIGINT to the main thread once *event* is there."""

    def work() -> None:
        assert event.wait(30)
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


class TestInterrupts:
    def test_ctrl_c_cancels_the_call_and_the_backend_stays_usable(
        self, tmp_path: pathlib.Path
    ) -> None:
        ltm, stops = hanging(tmp_path, timeout=None)
        calls: list[Callable[[], object]] = [
            lambda: ltm.retrieve("k"),
            lambda: ltm.store("k", LARGE),
        ]
        for call in calls:
            stops.begun.clear()
            stops.cancelled.clear()
            began = time.monotonic()
            sender = interrupt_when(stops.begun)
            with pytest.raises(KeyboardInterrupt):
                call()
            assert time.monotonic() - began < 1.5
            assert stops.cancelled.is_set()
            sender.join()
        stops.hanging = False
        assert ltm.store("k", 2)["stored"]
        assert ltm.verify()["sound"]
        ltm.close()

    def test_whatever_a_signal_raises_does_the_same(self, tmp_path: pathlib.Path) -> None:
        class AlarmError(Exception):
            pass

        def ring(*_: object) -> None:
            raise AlarmError

        ltm, stops = hanging(tmp_path, timeout=None)
        before = signal.signal(signal.SIGINT, ring)
        try:
            sender = interrupt_when(stops.begun)
            with pytest.raises(AlarmError):
                ltm.retrieve("k")
        finally:
            signal.signal(signal.SIGINT, before)
        sender.join()
        assert stops.cancelled.is_set()
        ltm.close()

    def test_an_interrupted_call_that_had_not_begun_never_begins(
        self, ltm: SyncLTMBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor is it waited for without end where the loop is held up."""
        monkeypatch.setattr(portal, "CANCEL_TIMEOUT_S", 0.1)
        busy, waiting, go_on = threading.Event(), threading.Event(), threading.Event()

        def hold_up(_: Any) -> int:
            busy.set()
            go_on.wait(30)
            return 1

        def entries() -> Iterator[dict[str, Any]]:
            yield {"key": "late", "value": 1}
            threading.Timer(0.1, waiting.set).start()  # by then the call waits for the loop

        holder = threading.Thread(target=ltm.update, args=("k", hold_up))
        holder.start()
        assert busy.wait(30)
        sender = interrupt_when(waiting)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ltm.store_batch(entries())
        assert time.monotonic() - began < 1.5
        go_on.set()
        holder.join()
        sender.join()
        assert ltm.retrieve_batch(["k", "late"])["missing"] == ["late"]

    def test_a_call_that_refuses_to_be_cancelled_is_left_after_a_moment(
        self, ltm: SyncLTMBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(portal, "CANCEL_TIMEOUT_S", 0.1)
        begun, ended = threading.Event(), threading.Event()

        async def stubborn(_: Any) -> int:
            go_on.append(asyncio.get_running_loop().create_future())
            begun.set()
            while not go_on[0].done():
                try:
                    await asyncio.shield(go_on[0])
                except asyncio.CancelledError:
                    continue
            ended.set()
            return 1

        go_on: list[asyncio.Future[None]] = []
        sender = interrupt_when(begun)
        with pytest.raises(KeyboardInterrupt):
            ltm.update("k", stubborn, timeout=60)
        sender.join()
        assert not ended.is_set()
        ltm.store("other", 1)
        go_on[0].get_loop().call_soon_threadsafe(go_on[0].set_result, None)
        assert ended.wait(30)


PRELUDE = """
import asyncio, atexit, gc, os, signal, sys, tempfile, threading, time
from ltm_async import LocalBlobStore, LTMBackend, SQLiteCatalog, SyncLTMBackend
from ltm_async.testing import Faults, faulty_catalog

class Hangs(Faults):
    def __init__(self, stubborn=False):
        super().__init__()
        self.hanging, self.stubborn = True, stubborn
        self.begun, self.cancelled = threading.Event(), False
    async def step(self, name, call):
        while self.hanging:
            self.begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.cancelled = True
                if not self.stubborn:
                    raise
        return await super().step(name, call)

folder = tempfile.mkdtemp(dir=sys.argv[1])
URL, BLOBS = f"sqlite:///{folder}/ltm.db", folder + "/blobs"
LARGE = "x" * 5000

def hanging(**options):
    faults = Hangs(**options)
    catalog = faulty_catalog(SQLiteCatalog(folder + "/hanging.db"), faults)
    return SyncLTMBackend(catalog, BLOBS, timeout=None), faults

def background(call, *, daemon=True):
    thread = threading.Thread(target=call, daemon=daemon)
    thread.start()
    return thread
"""


class Child:
    """A Python of its own, strict about warnings, asyncio in debug mode."""

    def __init__(self, script: str, folder: pathlib.Path) -> None:
        # Python 3.12 warns of any fork beside threads; the one here is what is tested.
        strict = ["-X", "dev", "-W", "error", "-W", "ignore:This process:DeprecationWarning"]
        self.process = subprocess.Popen(
            [sys.executable, *strict, "-c", PRELUDE + textwrap.dedent(script), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def rest(self) -> tuple[int, str, str]:
        try:
            out, err = self.process.communicate(timeout=40)
        finally:
            self.process.kill()
        # How long a step took on a busy machine; all else that debug mode says counts.
        err = re.sub(r"^Executing .* took [\d.]+ seconds\n", "", err, flags=re.MULTILINE)
        return self.process.returncode, out.strip(), err


def run(script: str, folder: pathlib.Path) -> str:
    code, out, err = Child(script, folder).rest()
    assert (code, err) == (0, "")
    return out


EXITS: dict[str, str] = {
    "nothing was closed": """
        ltm = SyncLTMBackend(URL, BLOBS)
        ltm.store("k", LARGE)
    """,
    "it was dropped unclosed": """
        ltm = SyncLTMBackend(URL, BLOBS)
        ltm.store("k", LARGE)
        del ltm
        gc.collect()
    """,
    "a call hangs in a thread": """
        ltm, hangs = hanging()
        background(lambda: ltm.retrieve("k"))
        hangs.begun.wait()
    """,
    "a call that will not be cancelled was interrupted": """
        ltm, hangs = hanging(stubborn=True)
        background(lambda: (hangs.begun.wait(), os.kill(os.getpid(), signal.SIGINT)))
        try:
            ltm.retrieve("k")
        except KeyboardInterrupt:
            pass
        gc.collect()
    """,
    "many calls are busy": """
        def busy(number):
            turn = 0
            while True:
                turn += 1
                ltm.store(f"k{number}", f"{turn}" + LARGE)
                ltm.store(f"k{number}", turn)
        ltm = SyncLTMBackend(URL, BLOBS)
        for number in range(8):
            background(lambda number=number: busy(number))
        while ltm.stats()["entries"] < 8:
            pass
    """,
}


class TestProcesses:
    @pytest.mark.parametrize("state", EXITS)
    def test_the_interpreter_exits_soon_and_silently_when(
        self, state: str, tmp_path: pathlib.Path
    ) -> None:
        child = Child(textwrap.dedent(EXITS[state]) + "\nprint('leaving', flush=True)", tmp_path)
        said = child.line()
        began = time.monotonic()
        assert child.rest() == (0, "", "")
        assert said == "leaving"
        assert time.monotonic() - began < 3

    def test_a_thread_that_is_no_daemon_ends_its_call_first(self, tmp_path: pathlib.Path) -> None:
        script = """
            async def late(_):
                begun.set()
                while threading.main_thread().is_alive():
                    await asyncio.sleep(0.005)
                return "late"
            def work():
                ltm.update("k", late)
                print(ltm.retrieve("k")["value"])
            begun = threading.Event()
            ltm = SyncLTMBackend(URL, BLOBS)
            ltm.store("k", 1)
            ltm.retrieve("k")  # Python 3.12 starts no thread any more when the main one has ended
            background(work, daemon=False)
            begun.wait()
        """
        assert run(script, tmp_path) == "late"

    def test_calls_and_closing_at_exit_work(self, tmp_path: pathlib.Path) -> None:
        script = """
            ltm = SyncLTMBackend(URL, BLOBS)
            def last():
                print(ltm.store("k", LARGE)["stored"])
                ltm.close()
            atexit.register(last)
            ltm.store("first", LARGE)
        """
        assert run(script, tmp_path) == "True"

    def test_many_kinds_of_use_leave_nothing_to_complain_about(
        self, tmp_path: pathlib.Path
    ) -> None:
        script = """
            async def grow(value):
                await asyncio.sleep(0)
                return value + 1
            with SyncLTMBackend(URL, BLOBS) as ltm:
                ltm.store("count", 0)
                threads = [
                    background(lambda: [ltm.update("count", grow) for _ in range(3)])
                    for _ in range(5)
                ]
                for thread in threads:
                    thread.join()
                ltm.store_batch({"key": f"k{n}", "value": "x" * n * 50} for n in range(100))
                try:
                    ltm.update("count", lambda _: ltm.stats())
                except Exception as exc:
                    print(type(exc).__name__)
                async def inside():
                    try:
                        ltm.retrieve("count")
                    except Exception as exc:
                        print(type(exc).__name__)
                asyncio.run(inside())
                print(ltm.retrieve("count")["value"], ltm.stats()["entries"])
            gc.collect()
        """
        assert run(script, tmp_path).split() == ["BlockingCallError"] * 2 + ["15", "101"]

    @pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit(0)"])
    def test_a_fork_works_and_so_does_its_parent(self, end: str, tmp_path: pathlib.Path) -> None:
        script = f"""
            ltm = SyncLTMBackend(URL, BLOBS)
            ltm.store("of the parent", LARGE)
            pid = os.fork()
            if pid == 0:
                assert ltm.retrieve("of the parent")["value"] == LARGE
                ltm.store("of the child", LARGE)
                threads = [background(lambda: ltm.update("count", lambda n: n + 1, default=0))
                           for _ in range(5)]
                for thread in threads:
                    thread.join()
                {end}
            assert ltm.store("meanwhile", 1)["stored"]
            assert os.waitpid(pid, 0)[1] == 0
            assert ltm.retrieve("of the child")["value"] == LARGE
            print(ltm.retrieve("count")["value"], ltm.stats()["entries"], ltm.verify()["sound"])
            ltm.close()
        """
        assert run(script, tmp_path) == "5 4 True"

    def test_a_fork_beside_a_call_in_flight_works(self, tmp_path: pathlib.Path) -> None:
        script = """
            ltm, hangs = hanging()
            other = SyncLTMBackend(URL, BLOBS)
            background(lambda: ltm.retrieve("k"))
            hangs.begun.wait()
            pid = os.fork()
            if pid == 0:
                hangs.hanging = False
                assert ltm.store("k", 1)["stored"]
                assert other.store("k", 1)["stored"]
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            print(other.retrieve("k")["value"])
        """
        assert run(script, tmp_path) == "1"

    def test_ctrl_c_in_a_program_that_goes_on(self, tmp_path: pathlib.Path) -> None:
        script = """
            ltm, hangs = hanging()
            background(lambda: (hangs.begun.wait(), print("hanging", flush=True)))
            try:
                ltm.store("k", 1)
            except KeyboardInterrupt:
                hangs.hanging = False
                print(hangs.cancelled, ltm.store("k", 2)["stored"], ltm.retrieve("k")["value"])
        """
        child = Child(script, tmp_path)
        assert child.line() == "hanging"
        child.process.send_signal(signal.SIGINT)
        assert child.rest() == (0, "True True 2", "")

    def test_ctrl_c_ends_a_program_at_once(self, tmp_path: pathlib.Path) -> None:
        script = """
            ltm, hangs = hanging()
            background(lambda: (hangs.begun.wait(), print("hanging", flush=True)))
            ltm.store("k", 1)
        """
        child = Child(script, tmp_path)
        assert child.line() == "hanging"
        began = time.monotonic()
        child.process.send_signal(signal.SIGINT)
        code, out, err = child.rest()
        assert time.monotonic() - began < 3
        assert (code, out) == (-signal.SIGINT, "")
        assert err.splitlines()[-1] == "KeyboardInterrupt"
        assert err.count("Traceback") == 1


def test_a_large_value_is_stored_while_the_interpreter_is_on_its_way_out() -> None:
    """No thread can be started then, so its hash is taken without one."""
    code = """
import threading
from ltm_async import SyncLTMBackend

def late() -> None:
    threading.main_thread().join()
    print(ltm.store("k", "x" * 2_000_000)["stored"])

ltm = SyncLTMBackend("memory:", "memory:")
ltm.stats()
threading.Thread(target=late).start()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
