"""Stores that hang: every call ends in its time and says what is known."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest

from ltm_async import DeadlineError, UnavailableError
from ltm_async.testing import Faults

from .backends import PAIRS, Rig, make_rig

LARGE = "x" * 5_000


class Hangs(Faults):
    """From step number *at* on, nothing is answered."""

    async def step(self, name: str, call: Any) -> Any:
        if self.at is not None and len(self.steps) >= self.at:
            self.steps.append(name)
            await asyncio.get_running_loop().create_future()
        return await super().step(name, call)


async def elapsed(call: Any) -> tuple[float, Any]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    results = await asyncio.gather(call, return_exceptions=True)
    return loop.time() - began, results[0]


def hanging_rig(pair: str, folder: pathlib.Path, **options: Any) -> Rig:
    return make_rig(pair, folder, Hangs(), timeout=0.1, batch_size=100, **options)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("mode", ["raise", "degrade"])
async def test_every_call_ends_within_a_second_of_its_deadline(
    pair: str, mode: str, tmp_path: pathlib.Path
) -> None:
    rig = hanging_rig(pair, tmp_path, on_unavailable=mode)
    rig.faults.at = 0
    ltm = rig.ltm
    single: list[Any] = [
        ltm.store("s", 1), ltm.store("l", LARGE), ltm.retrieve("k"), ltm.delete("k"),
        ltm.touch("k"), ltm.update("k", str), ltm.list_entries(), ltm.cleanup_expired(),
        ltm.collect_garbage(), ltm.verify(), ltm.stats(),
    ]  # fmt: skip
    for call in single:
        took_s, result = await elapsed(call)
        assert took_s < 1.2
        if mode == "raise":
            assert isinstance(result, (DeadlineError, UnavailableError))
        else:
            assert (result.success, result.degraded) == (False, True)
    many: list[Any] = [
        ltm.store_batch({"key": f"k{n}", "value": n} for n in range(2_000)),
        ltm.retrieve_batch(f"k{n}" for n in range(2_000)),
        ltm.delete_batch(f"k{n}" for n in range(2_000)),
    ]
    for call in many:
        took_s, result = await elapsed(call)
        assert took_s < 1.2
        assert len(result.errors) == 2_000
    await rig.aclose()


@pytest.mark.parametrize("call", ["store_batch", "retrieve_batch", "delete_batch"])
async def test_the_batches_of_a_call_that_hangs_have_one_time_for_all(
    call: str, tmp_path: pathlib.Path
) -> None:
    rig = hanging_rig("memory+memory", tmp_path)
    rig.faults.at = 0
    keys = [f"k{n}" for n in range(2_000)]
    given = [{"key": key, "value": 1} for key in keys] if call == "store_batch" else keys
    result = await getattr(rig.ltm, call)(given)
    # Five that each had the whole time would have been failures enough to ask no more.
    assert {failure.error_type for failure in result.errors.values()} == {"DeadlineError"}
    assert list(result.errors) == keys


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("step", [0, 1, 2])
async def test_what_ran_out_of_time_is_whole_or_absent(
    pair: str, step: int, tmp_path: pathlib.Path
) -> None:
    rig = make_rig(pair, tmp_path, Hangs())
    await rig.ltm.store("k", LARGE)
    rig.faults.at = len(rig.faults.steps) + step
    with pytest.raises(DeadlineError):
        await rig.ltm.store("k", LARGE + "new", timeout=0.3)
    rig.faults.at = None
    assert (await rig.ltm.retrieve("k")).value == LARGE
    rig.clock.advance(3_600)
    await rig.ltm.collect_garbage()
    assert len(await rig.objects()) == 1
    assert (await rig.ltm.verify()).sound
    await rig.aclose()


async def test_a_call_may_have_its_own_time(tmp_path: pathlib.Path) -> None:
    rig = make_rig("memory+memory", tmp_path, Hangs(at=0))
    took_s, result = await elapsed(rig.ltm.store("k", 1, timeout=0.05))
    assert isinstance(result, DeadlineError)
    assert took_s < 1.05


async def test_a_reservation_is_given_back_when_the_upload_hangs(tmp_path: pathlib.Path) -> None:
    """The give-back has its own short time beyond the deadline."""
    rig = make_rig("sqlite+local", tmp_path)
    await rig.ltm.open()

    class UploadHangs(Faults):
        async def step(self, name: str, call: Any) -> Any:
            if name == "blobs.put":
                await asyncio.get_running_loop().create_future()
            return await super().step(name, call)

    rig.faults.__class__ = UploadHangs
    with pytest.raises(DeadlineError):
        await rig.ltm.store("k", LARGE, timeout=0.3)
    stats = await rig.ltm.stats()
    assert (stats.pending_blobs, stats.dead_blobs) == (0, 1)
    await rig.aclose()
