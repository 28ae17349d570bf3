"""Bad input is refused alike by every pair of stores, before any I/O; good input comes back."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ltm_async import ConfigError, InvalidEntryError, LTMBackend, LTMError

from .backends import PAIRS, Rig, make_rig
from .corpus import (
    BAD_BATCHES,
    BAD_ENDS,
    BAD_KEYS,
    BAD_METADATA,
    BAD_VALUES,
    GOOD_KEYS,
    GOOD_METADATA,
    GOOD_VALUES,
    INF,
    INJECTIONS,
    NAN,
    same,
    text_of,
)

Call = Callable[[LTMBackend], Awaitable[object]]


@pytest.fixture(params=[*PAIRS, "supabase+s3"])
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path)
    yield rig
    await rig.aclose()


@pytest.fixture
async def idle(rig: Rig, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    """A rig whose stores the test must not reach, not even to open them."""
    yield rig
    assert rig.faults.steps == []
    assert _names_in(tmp_path) == []


def _names_in(folder: pathlib.Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def assert_refused(
    rig: Rig, call: Call, message: str, error: type[LTMError] = InvalidEntryError
) -> None:
    with pytest.raises(error) as caught:
        await call(rig.ltm)
    assert type(caught.value) is error
    assert str(caught.value) == message
    assert rig.faults.steps == []


# Refused


@pytest.mark.parametrize("case", BAD_KEYS)
async def test_a_bad_key_is_refused_by_every_method(idle: Rig, case: str) -> None:
    key, message = BAD_KEYS[case]
    calls: list[tuple[str, Call]] = [
        ("key", lambda ltm: ltm.store(key, 1)),
        ("key", lambda ltm: ltm.retrieve(key)),
        ("key", lambda ltm: ltm.delete(key)),
        ("key", lambda ltm: ltm.touch(key, ttl=1)),
        ("key", lambda ltm: ltm.update(key, lambda value: value)),
        ("entries[1]: key", lambda ltm: ltm.store_batch([_entry("good"), _entry(key)])),
        ("keys[1]", lambda ltm: ltm.retrieve_batch(["good", key])),
        ("keys[1]", lambda ltm: ltm.delete_batch(iter(["good", key]))),
    ]
    if key != "":
        calls.append(("prefix", lambda ltm: ltm.list_entries(key)))
    if key is not None:
        calls.append(("cursor", lambda ltm: ltm.list_entries(cursor=key)))
    for name, call in calls:
        await assert_refused(idle, call, message.format(name))


def _entry(key: Any, value: Any = 1, **more: Any) -> dict[str, Any]:
    return {"key": key, "value": value, **more}


@pytest.mark.parametrize("case", BAD_VALUES)
async def test_a_bad_value_is_refused(idle: Rig, case: str) -> None:
    make, message = BAD_VALUES[case]
    value = make()
    await assert_refused(idle, lambda ltm: ltm.store("k", value), message)
    batch = [_entry("good"), _entry("k", value)]
    await assert_refused(idle, lambda ltm: ltm.store_batch(batch), f"entries[1]: {message}")


@pytest.mark.parametrize("case", BAD_VALUES)
async def test_a_bad_value_that_an_update_makes_is_never_written(rig: Rig, case: str) -> None:
    make, message = BAD_VALUES[case]
    with pytest.raises(InvalidEntryError) as caught:
        await rig.ltm.update("k", lambda _: make())
    assert str(caught.value) == message
    assert rig.faults.steps == ["catalog.get_entries_batch"]
    assert not (await rig.ltm.retrieve("k")).found


@pytest.mark.parametrize("case", BAD_METADATA)
async def test_bad_metadata_is_refused(idle: Rig, case: str) -> None:
    metadata, message = BAD_METADATA[case]
    calls: list[Call] = [
        lambda ltm: ltm.store("k", 1, metadata=metadata),
        lambda ltm: ltm.touch("k", metadata=metadata),
        lambda ltm: ltm.update("k", lambda _: 1, metadata=metadata),
    ]
    for call in calls:
        await assert_refused(idle, call, message)
    batch = [_entry("k", metadata=metadata)]
    await assert_refused(idle, lambda ltm: ltm.store_batch(batch), f"entries[0]: {message}")


@pytest.mark.parametrize("case", BAD_ENDS)
async def test_a_bad_end_is_refused(idle: Rig, case: str) -> None:
    ends, message = BAD_ENDS[case]
    calls: list[Call] = [
        lambda ltm: ltm.store("k", 1, **ends),
        lambda ltm: ltm.touch("k", **ends),
        lambda ltm: ltm.update("k", lambda _: 1, **ends),
    ]
    for call in calls:
        await assert_refused(idle, call, message)
    batch = [_entry("k", **ends)]
    await assert_refused(idle, lambda ltm: ltm.store_batch(batch), f"entries[0]: {message}")


@pytest.mark.parametrize("case", BAD_BATCHES)
async def test_a_bad_batch_is_refused_whole(idle: Rig, case: str) -> None:
    make, message = BAD_BATCHES[case]
    await assert_refused(idle, lambda ltm: ltm.store_batch(make()), message)


@pytest.mark.parametrize("keys", [None, "key", b"key", 1])
async def test_keys_that_are_no_iterable_of_keys_are_refused(idle: Rig, keys: Any) -> None:
    message = f"keys must be an iterable of str, not {type(keys).__name__}"
    await assert_refused(idle, lambda ltm: ltm.retrieve_batch(keys), message)
    await assert_refused(idle, lambda ltm: ltm.delete_batch(keys), message)


async def test_what_a_generator_raises_comes_through(idle: Rig) -> None:
    raised = LookupError("the source ended early")

    def entries() -> Iterator[dict[str, Any]]:
        yield from (_entry(str(number), text_of(5_000)) for number in range(600))
        raise raised

    calls: list[Call] = [
        lambda ltm: ltm.store_batch(entries()),
        lambda ltm: ltm.retrieve_batch(entry["key"] for entry in entries()),
        lambda ltm: ltm.delete_batch(entry["key"] for entry in entries()),
    ]
    for call in calls:
        with pytest.raises(LookupError) as caught:
            await call(idle.ltm)
        assert caught.value is raised
        assert idle.faults.steps == []


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", 2**63, 10**4000])
async def test_a_bad_version_is_refused(idle: Rig, version: Any) -> None:
    message = "if_version must be a version that a result gave, an int above 0"
    await assert_refused(idle, lambda ltm: ltm.store("k", 1, if_version=version), message)
    await assert_refused(idle, lambda ltm: ltm.delete("k", if_version=version), message)


async def test_a_version_and_absence_exclude_each_other(idle: Rig) -> None:
    await assert_refused(
        idle,
        lambda ltm: ltm.store("k", 1, if_version=1, if_absent=True),
        "if_version and if_absent exclude each other",
    )


@pytest.mark.parametrize("limit", [0, -1, True, 1.0, "5", None, 100_001])
async def test_a_bad_limit_is_refused(idle: Rig, limit: Any) -> None:
    message = f"limit is {limit!r}, it must be an int from 1 to "
    await assert_refused(idle, lambda ltm: ltm.list_entries(limit=limit), f"{message}1000")
    await assert_refused(idle, lambda ltm: ltm.cleanup_expired(limit), f"{message}100000")
    await assert_refused(idle, lambda ltm: ltm.collect_garbage(limit=limit), f"{message}100000")


async def test_the_edges_of_limits_are_taken(rig: Rig) -> None:
    for limit in (1, 1000):
        assert (await rig.ltm.list_entries(limit=limit)).success
    for limit in (1, 100_000):
        assert (await rig.ltm.cleanup_expired(limit)).success
        assert (await rig.ltm.collect_garbage(limit=limit)).success
    await assert_refused(
        make_rig("memory+memory", pathlib.Path()),
        lambda ltm: ltm.list_entries(limit=1001),
        "limit is 1001, it must be an int from 1 to 1000",
    )


@pytest.mark.parametrize("age", [timedelta(microseconds=-1), 7, None, "7d"])
async def test_a_bad_age_of_strays_is_refused(idle: Rig, age: Any) -> None:
    message = "stray_age must be a timedelta of at least 0"
    await assert_refused(idle, lambda ltm: ltm.collect_garbage(stray_age=age), message)


@pytest.mark.parametrize("timeout", [0, -1, NAN, INF, True, "5", 86_401])
async def test_a_bad_timeout_is_refused_by_every_method(idle: Rig, timeout: Any) -> None:
    number = type(timeout) in (int, float)
    message = (
        f"timeout is {timeout} s, it must be above 0 and at most 86400"
        if number
        else f"timeout must be seconds or None, not {type(timeout).__name__}"
    )
    calls: list[Call] = [
        lambda ltm: ltm.store("k", 1, timeout=timeout),
        lambda ltm: ltm.retrieve("k", timeout=timeout),
        lambda ltm: ltm.delete("k", timeout=timeout),
        lambda ltm: ltm.touch("k", timeout=timeout),
        lambda ltm: ltm.update("k", lambda _: 1, timeout=timeout),
        lambda ltm: ltm.store_batch([_entry("k")], timeout=timeout),
        lambda ltm: ltm.retrieve_batch(["k"], timeout=timeout),
        lambda ltm: ltm.delete_batch(["k"], timeout=timeout),
        lambda ltm: ltm.list_entries(timeout=timeout),
        lambda ltm: ltm.cleanup_expired(timeout=timeout),
        lambda ltm: ltm.collect_garbage(timeout=timeout),
        lambda ltm: ltm.verify(timeout=timeout),
        lambda ltm: ltm.stats(timeout=timeout),
    ]
    for call in calls:
        await assert_refused(idle, call, message, ConfigError)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda ltm: ltm.store("k", 1, ttl=10**400), InvalidEntryError, "ttl"),
        (lambda ltm: ltm.store("k", 1, ttl=10**5000), InvalidEntryError, "ttl"),
        (lambda ltm: ltm.touch("k", ttl=-(10**400)), InvalidEntryError, "ttl"),
        (lambda ltm: ltm.list_entries(limit=10**5000), InvalidEntryError, "limit"),
        (lambda ltm: ltm.stats(timeout=10**5000), ConfigError, "timeout"),
        (
            lambda ltm: ltm.store(
                "k", 1, expires_at=datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))
            ),
            InvalidEntryError,
            "expires_at",
        ),
    ],
    ids=["ttl 10**400", "ttl 10**5000", "ttl -10**400", "limit", "timeout", "year 10000 in UTC"],
)
async def test_an_absurd_number_is_refused_like_any_other(
    idle: Rig, call: Call, error: type[LTMError], named: str
) -> None:
    with pytest.raises(error, match=named):
        await call(idle.ltm)


@pytest.mark.parametrize(
    "value",
    [
        "a = []; a.extend([a] * 1_000)",
        "a = 0\nfor _ in range(6): a = [a] * 1_000",
        "a = [[0] * 1_000_000] * 200",
    ],
    ids=["a cycle", "containers shared", "scalars shared"],
)
def test_a_small_value_that_is_large_as_json_is_refused_in_bounded_memory(value: str) -> None:
    script = f"""
        import resource
        from ltm_async import InvalidEntryError, compute_content_hash
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        {value.replace(chr(10), chr(10) + " " * 8)}
        try:
            compute_content_hash(a)
        except InvalidEntryError:
            print("refused")
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout == "refused\n", done.stderr[-300:]


# Taken, and given back


@pytest.mark.parametrize("case", GOOD_VALUES)
async def test_a_good_value_comes_back_exactly(rig: Rig, case: str) -> None:
    value = GOOD_VALUES[case]
    await rig.ltm.store("inlined or not", value)
    await rig.ltm.store("a blob", [value, "x" * 1024])
    await rig.ltm.update("updated", lambda _: value)
    assert same((await rig.ltm.retrieve("inlined or not")).value, value)
    assert same((await rig.ltm.retrieve("a blob")).value, [value, "x" * 1024])
    assert same((await rig.ltm.retrieve("updated")).value, value)


async def test_good_values_come_back_exactly_from_a_batch(rig: Rig) -> None:
    batch = [_entry(key, value) for key, value in GOOD_VALUES.items()]
    assert (await rig.ltm.store_batch(batch)).stored == len(GOOD_VALUES)
    found = await rig.ltm.retrieve_batch(GOOD_VALUES)
    for key, value in GOOD_VALUES.items():
        assert same(found.results[key].value, value), key


def test_the_comparison_of_values_is_strict() -> None:
    assert not same(0.0, -0.0)
    assert not same([1], [True])
    assert not same({"a": 1}, {"a": 1.0})
    assert same({"a": [None, -0.0]}, {"a": [None, -0.0]})


@pytest.mark.parametrize(("byte_size", "inlined"), [(1023, True), (1024, False), (1025, False)])
async def test_the_inline_threshold_is_exact(rig: Rig, byte_size: int, inlined: bool) -> None:
    value = text_of(byte_size)
    stored = await rig.ltm.store("k", value)
    hit = await rig.ltm.retrieve("k")
    assert (stored.inlined, stored.byte_size) == (hit.inlined, hit.byte_size)
    assert (hit.inlined, hit.byte_size, hit.value) == (inlined, byte_size, value)
    assert ("blobs.put" in rig.faults.steps) is not inlined
    assert len(await rig.objects()) == (not inlined)


async def test_every_good_key_is_its_own_entry(rig: Rig) -> None:
    """None is a pattern, a path or a piece of SQL to any method."""
    batch = [_entry(key, number) for number, key in enumerate(GOOD_KEYS)]
    assert (await rig.ltm.store_batch(batch)).stored == len(set(GOOD_KEYS)) == len(GOOD_KEYS)
    for number, key in enumerate(GOOD_KEYS):
        assert (await rig.ltm.retrieve(key)).value == number
        listed = [entry.key for entry in (await rig.ltm.list_entries(key)).entries]
        assert listed == sorted(other for other in GOOD_KEYS if other.startswith(key))
    found = await rig.ltm.retrieve_batch(GOOD_KEYS)
    assert {key: hit.value for key, hit in found.results.items()} == {
        key: number for number, key in enumerate(GOOD_KEYS)
    }
    listing = await rig.ltm.list_entries(limit=1000)
    assert [entry.key for entry in listing.entries] == sorted(GOOD_KEYS)
    left = list(GOOD_KEYS)
    while left:
        assert (await rig.ltm.delete(left.pop())).deleted
        assert (await rig.ltm.stats()).entries == len(left)


async def test_every_good_key_can_have_a_blob(rig: Rig) -> None:
    batch = [_entry(key, [number, "x" * 1024]) for number, key in enumerate(GOOD_KEYS)]
    assert (await rig.ltm.store_batch(batch)).uploaded == len(GOOD_KEYS)
    found = await rig.ltm.retrieve_batch(GOOD_KEYS)
    assert [found.results[key].value[0] for key in GOOD_KEYS] == list(range(len(GOOD_KEYS)))
    assert (await rig.ltm.delete_batch(GOOD_KEYS)).deleted == len(GOOD_KEYS)
    assert await rig.objects() == set()


async def test_a_cursor_may_be_any_key(rig: Rig) -> None:
    await rig.ltm.store_batch([_entry(key) for key in GOOD_KEYS])
    seen: list[str] = []
    cursor = None
    while True:
        page = await rig.ltm.list_entries(cursor=cursor, limit=1)
        seen += [entry.key for entry in page.entries]
        if (cursor := page.cursor) is None:
            break
    assert seen == sorted(GOOD_KEYS)


async def test_namespaces_may_be_any_text_and_never_meet(rig: Rig) -> None:
    names = ("", "n" * 256, "ü" * 128, *INJECTIONS)
    backends = {name: LTMBackend(rig.catalog, rig.blobs, namespace=name) for name in names}
    for number, ltm in enumerate(backends.values()):
        await ltm.store_batch([_entry("k", number), _entry("large", [number, "x" * 2000])])
    for number, ltm in enumerate(backends.values()):
        assert (await ltm.retrieve("k")).value == number
        assert (await ltm.retrieve("large")).value[0] == number
        assert (await ltm.stats()).entries == 2
        assert (await ltm.verify()).sound
    for name, ltm in backends.items():
        assert (await ltm.delete_batch(["k", "large"])).deleted == 2, name
        assert (await ltm.stats()).entries == 0


@pytest.mark.parametrize(
    ("namespace", "message"),
    [
        ("n" * 257, "namespace has 257 bytes in UTF-8, the limit is 256"),
        ("a\0", "namespace has a NUL character"),
        ("\ud800", "namespace has a lone surrogate, which is no text"),
        (None, "namespace must be str, not NoneType"),
        (7, "namespace must be str, not int"),
    ],
)
def test_a_bad_namespace_is_refused(namespace: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LTMBackend("memory:", "memory:", namespace=namespace)
    assert str(caught.value) == message


@pytest.mark.parametrize("case", GOOD_METADATA)
async def test_good_metadata_comes_back_exactly(rig: Rig, case: str) -> None:
    metadata = GOOD_METADATA[case]
    await rig.ltm.store("stored", 1, metadata=metadata)
    await rig.ltm.store("touched", 1)
    await rig.ltm.touch("touched", metadata=metadata)
    await rig.ltm.store_batch([_entry("batch", text_of(2000), metadata=metadata)])
    for key in ("stored", "touched", "batch"):
        assert same((await rig.ltm.retrieve(key)).metadata, dict(metadata))
    for entry in (await rig.ltm.list_entries()).entries:
        assert same(entry.metadata, dict(metadata))


# Batches and ends


@pytest.mark.parametrize(("count", "commits"), [(0, 0), (1, 1), (500, 1), (501, 2)])
async def test_a_batch_is_cut_at_500(rig: Rig, count: int, commits: int) -> None:
    keys = [f"{number:03}" for number in range(count)]
    stored = await rig.ltm.store_batch(_entry(key, key) for key in keys)
    found = await rig.ltm.retrieve_batch(iter(keys))
    listed = (await rig.ltm.list_entries(limit=1000)).entries if count else []
    deleted = await rig.ltm.delete_batch(keys)
    assert (stored.success, stored.stored, stored.failed) == (True, count, 0)
    assert (found.success, found.found, found.missing) == (True, count, [])
    assert [entry.key for entry in listed] == keys
    assert (deleted.success, deleted.deleted, deleted.missing) == (True, count, [])
    for step in ("track_entries_batch", "get_entries_batch", "delete_entries_batch"):
        assert rig.faults.steps.count(f"catalog.{step}") == commits, step


@pytest.mark.parametrize("value", [1, text_of(2000)], ids=["inlined", "a blob"])
async def test_an_entry_is_gone_exactly_from_its_end_on(rig: Rig, value: Any) -> None:
    microsecond = 1e-6
    end = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=rig.clock()) + timedelta(hours=1)
    stored = await rig.ltm.store("ttl", value, ttl=3600)
    await rig.ltm.store("at", value, expires_at=end)
    assert stored.expires_at == end
    rig.clock.advance(3600 - microsecond)
    for key in ("ttl", "at"):
        hit = await rig.ltm.retrieve(key)
        assert (hit.found, hit.value, hit.expires_at) == (True, value, end)
    assert (await rig.ltm.cleanup_expired()).deleted == 0
    rig.clock.advance(microsecond)
    for key in ("ttl", "at"):
        miss = await rig.ltm.retrieve(key)
        assert (miss.success, miss.found, miss.value) == (True, False, None)
        assert not (await rig.ltm.touch(key)).touched
    assert (await rig.ltm.retrieve_batch(["ttl", "at"])).missing == ["ttl", "at"]
    assert (await rig.ltm.list_entries()).entries == []
    assert (await rig.ltm.stats()).expired == 2
    assert (await rig.ltm.cleanup_expired()).deleted == 2


async def test_the_shortest_and_the_longest_ttl(rig: Rig) -> None:
    shortest = await rig.ltm.store("short", 1, ttl=1e-12)
    longest = await rig.ltm.store("long", 1, ttl=100 * 366 * 86_400)
    assert shortest.expires_at is not None and longest.expires_at is not None
    assert (await rig.ltm.retrieve("short")).found
    rig.clock.advance(1e-6)
    assert not (await rig.ltm.retrieve("short")).found
    assert (await rig.ltm.retrieve("long")).expires_at == longest.expires_at
