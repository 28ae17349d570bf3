"""Servers that answer what no server of their kind would, and what goes into logs of it."""

from __future__ import annotations

import logging

import pytest

from ltm_async import (
    ConfigError,
    LTMBackend,
    LTMError,
    OutcomeUnknownError,
    PostgresCatalog,
    RetryPolicy,
    StoreError,
    UnavailableError,
)
from ltm_async.blobs.gcs.replies import RefusedError, reading
from ltm_async.blobs.s3.replies import age_us
from ltm_async.catalogs.memory import MemoryCatalog
from ltm_async.catalogs.supabase.failures import Reply, result_of
from ltm_async.cli import main
from ltm_async.clock import header_date_us
from ltm_async.protocols import Row
from ltm_async.sqlstates import CONFLICT

DEEP = b"[" * 100_000
HUGE = 10**5000


@pytest.mark.parametrize(
    "date",
    [
        "Thu, 26 Nov 2026 10:00:00 +99999999999999",
        "Thu, 26 Nov 2026 10:00:00 -9999",
        "Thu, 26 Nov 99999 10:00:00 GMT",
        "Thu, 26 Nov 0001 00:00:00 +2359",
        "",
        "now",
    ],
)
def test_a_date_beyond_all_calendars_is_none(date: str) -> None:
    assert age_us({"date": date}, 0) >= 0
    header_date_us(date)  # does not raise


def test_a_date_is_read() -> None:
    assert header_date_us("Thu, 26 Nov 2026 10:00:00 GMT") == 1_795_687_200_000_000


@pytest.mark.parametrize("body", [DEEP, b"9" * 5000, b'{"error":' + DEEP, b"\xff"])
def test_json_without_an_end_or_a_limit_in_the_error_of_a_bucket_is_no_reason(body: bytes) -> None:
    assert RefusedError.of(503, {}, body, secret=None).reason == ""


@pytest.mark.parametrize("error", [RecursionError(), ValueError("9"), UnavailableError("x")])
def test_a_reply_that_is_no_json_at_all_is_an_error_of_ours(error: Exception) -> None:
    with pytest.raises(UnavailableError), reading:
        raise error


@pytest.mark.parametrize("status", [200, 400, 503])
@pytest.mark.parametrize("body", [DEEP, b"9" * 5000])
def test_json_without_an_end_or_a_limit_from_postgrest_is_an_error_of_ours(
    status: int, body: bytes
) -> None:
    with pytest.raises(StoreError) as caught:
        result_of(Reply(status, {}, body), [], [])
    assert isinstance(caught.value, OutcomeUnknownError) == (status in (200, 503))


@pytest.mark.parametrize("details", ['"9 9"', '"x"', "[]", "7", '"1 2 3"'])
def test_a_conflict_over_what_was_not_sent_is_an_error_of_ours(details: str) -> None:
    body = f'{{"code":"{CONFLICT}","details":{details}}}'.encode()
    with pytest.raises(StoreError, match="none of this catalog"):
        result_of(Reply(400, {}, body), ["k"], [1])


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: PostgresCatalog(f"postgresql://host:{'9' * 5000}/db"), "port"),
        (lambda: PostgresCatalog("postgresql://host/db", min_size=HUGE), "min_size"),
        (lambda: PostgresCatalog("postgresql://host/db", max_size=HUGE), "max_size"),
        (lambda: RetryPolicy(attempts=HUGE), "attempts"),
        (lambda: RetryPolicy(base_s=HUGE), "base_s"),
        (lambda: LTMBackend.from_config({HUGE: 1}), "huge int"),  # type: ignore[dict-item]
    ],
)
def test_a_number_of_too_many_digits_is_a_mistake_in_the_configuration(
    make: object, name: str
) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=name):
        make()


async def test_an_unknown_field_of_too_many_digits_is_bad_input() -> None:
    ltm = LTMBackend("memory:", "memory:")
    with pytest.raises(LTMError, match="unknown field 'a huge int'"):
        await ltm.store_batch([{"key": "k", "value": 1, HUGE: 1}])  # type: ignore[dict-item]


async def test_a_servers_words_begin_no_line_of_a_log_and_steer_no_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Hostile(MemoryCatalog):
        async def get_entries_batch(self, namespace: str, keys: object) -> list[Row]:
            raise StoreError("no\nWARNING root all is well\r\x1b[2J\u2028\u202e", store="x")

    caplog.set_level(logging.WARNING)
    hit = await LTMBackend(Hostile(), "memory:").retrieve("k")
    assert not hit.success
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert "no WARNING root all is well" in record.getMessage()


def test_a_servers_words_steer_no_terminal_from_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def hostile(*_: object, **__: object) -> None:
        raise StoreError("no\nltm: done\x1b[2J", store="x")

    monkeypatch.setattr(MemoryCatalog, "get_entries_batch", hostile)
    assert main(["get", "k", "--catalog", "memory:", "--storage", "memory:"]) == 3
    out, err = capsys.readouterr()
    assert (out, err) == ("", "ltm: no ltm: done [2J\n")


def test_a_url_whose_scheme_stands_twice_shows_no_password() -> None:
    catalog = PostgresCatalog("postgresql://postgresql://user:canary-1b2c@host:5432/db")
    assert "canary" not in repr(catalog)
