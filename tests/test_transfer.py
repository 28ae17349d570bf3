"""The gate, the fan-out, and values for each loop."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable

import pytest

from ltm_async.transfer import Gate, PerLoop, both, chunks, fan_out


class Load:
    """What is within a gate, and the most there ever was."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.most_count = self.most_size = 0

    def enter(self, size: int) -> None:
        self.sizes.append(size)
        self.most_count = max(self.most_count, len(self.sizes))
        self.most_size = max(self.most_size, sum(self.sizes))

    def leave(self, size: int) -> None:
        self.sizes.remove(size)


class Guest:
    """A task that enters a gate and stays until it is told to go."""

    def __init__(self, gate: Gate, size: int) -> None:
        self.inside = False
        self._go = asyncio.Event()
        self.task = asyncio.create_task(self._visit(gate, size))

    async def _visit(self, gate: Gate, size: int) -> None:
        async with gate.admit(size):
            self.inside = True
            try:
                await self._go.wait()
            finally:
                self.inside = False

    async def go(self) -> None:
        self._go.set()
        await self.task
        await settle()


async def settle() -> None:
    """Let every task come as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def assert_empty(gate: Gate, *, count: int, size: int) -> None:
    """All the places and all the bytes are free again."""
    guests = [Guest(gate, 0) for _ in range(count)]
    late = Guest(gate, 0)
    await settle()
    assert ([guest.inside for guest in guests], late.inside) == ([True] * count, False)
    for guest in (*guests, late):
        await guest.go()
    whole = Guest(gate, size)
    await settle()
    assert whole.inside
    await whole.go()


# Gate


@pytest.mark.parametrize("seed", range(5))
async def test_a_gate_never_holds_more_than_its_count_or_its_bytes(seed: int) -> None:
    rng = random.Random(seed)
    gate, load = Gate(count=7, size=1000), Load()

    async def visit(size: int, turns: int) -> None:
        async with gate.admit(size):
            load.enter(min(size, 1000))
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                load.leave(min(size, 1000))

    tasks = [
        asyncio.create_task(visit(rng.choice([0, 1, 50, 400, 1000, 5000]), rng.randrange(4)))
        for _ in range(500)
    ]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        if rng.random() < 0.3:
            rng.choice(tasks).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = sum(task.cancelled() for task in tasks)
    assert 50 < cancelled < 450
    assert load.sizes == []
    assert (load.most_count <= 7, load.most_size <= 1000) == (True, True)
    assert (load.most_count > 3, load.most_size > 800) == (True, True)  # and it is used
    await assert_empty(gate, count=7, size=1000)


async def test_a_gate_is_bounded_by_its_count() -> None:
    gate = Gate(count=2, size=100)
    guests = [Guest(gate, 1) for _ in range(3)]
    await settle()
    assert [guest.inside for guest in guests] == [True, True, False]
    await guests[0].go()
    assert guests[2].inside
    for guest in guests[1:]:
        await guest.go()


async def test_a_gate_is_bounded_by_its_bytes_to_the_last_one() -> None:
    gate = Gate(count=9, size=100)
    guests = [Guest(gate, size) for size in (60, 40, 1)]
    await settle()
    assert [guest.inside for guest in guests] == [True, True, False]
    await guests[1].go()
    assert guests[2].inside
    for guest in guests:
        await guest.go()


async def test_one_that_is_larger_than_the_gate_runs_alone() -> None:
    gate = Gate(count=9, size=100)
    small, huge, later = (Guest(gate, size) for size in (1, 10**9, 1))
    await settle()
    assert (small.inside, huge.inside, later.inside) == (True, False, False)
    await small.go()
    assert (huge.inside, later.inside) == (True, False)
    await huge.go()
    assert later.inside
    await later.go()
    await assert_empty(gate, count=9, size=100)


async def test_a_gate_admits_in_the_order_of_asking() -> None:
    """Small ones do not pass a large one by, or it would wait for ever."""
    gate = Gate(count=9, size=100)
    first = Guest(gate, 100)
    entered: list[int] = []

    async def visit(number: int, size: int) -> None:
        async with gate.admit(size):
            entered.append(number)

    sizes = [100, 1, 60, 60, 1, 100, 0]
    tasks = [asyncio.create_task(visit(number, size)) for number, size in enumerate(sizes)]
    await settle()
    assert entered == []
    await first.go()
    await asyncio.gather(*tasks)
    assert entered == list(range(len(sizes)))


async def test_nobody_passes_those_who_wait() -> None:
    gate = Gate(count=9, size=100)
    first, waiting = Guest(gate, 60), Guest(gate, 60)
    await settle()
    fits = Guest(gate, 1)
    await settle()
    assert (first.inside, waiting.inside, fits.inside) == (True, False, False)
    for guest in (first, waiting, fits):
        await guest.go()


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_one_that_is_cancelled_while_it_waits_takes_nothing(victim: int) -> None:
    gate = Gate(count=1, size=100)
    first = Guest(gate, 100)
    waiting = [Guest(gate, 50) for _ in range(3)]
    await settle()
    waiting[victim].task.cancel()
    await settle()
    assert waiting[victim].task.cancelled()
    await first.go()
    others = [guest for guest in waiting if guest is not waiting[victim]]
    assert [guest.inside for guest in others] == [True, False]
    for guest in others:
        await guest.go()
    await assert_empty(gate, count=1, size=100)


async def test_the_next_is_admitted_when_one_that_did_not_fit_is_cancelled() -> None:
    gate = Gate(count=9, size=100)
    first, large, small = (Guest(gate, size) for size in (50, 100, 50))
    await settle()
    assert (large.inside, small.inside) == (False, False)
    large.task.cancel()
    await settle()
    assert (first.inside, small.inside) == (True, True)
    for guest in (first, small):
        await guest.go()


async def test_one_that_is_cancelled_in_the_turn_of_its_admission_gives_its_place_back() -> None:
    gate = Gate(count=1, size=100)
    first, admitted, next_ = (Guest(gate, 100) for _ in range(3))
    await settle()
    first._go.set()
    while not first.task.done():  # leaving admits; the admitted task has not run yet
        await asyncio.sleep(0)
        if not first.inside:
            break
    admitted.task.cancel()
    await settle()
    assert admitted.task.cancelled()
    assert (admitted.inside, next_.inside) == (False, True)
    await next_.go()
    await assert_empty(gate, count=1, size=100)


async def test_a_failure_inside_gives_the_place_back() -> None:
    gate = Gate(count=1, size=100)
    for _ in range(3):
        with pytest.raises(LookupError):
            async with gate.admit(100):
                raise LookupError
    await assert_empty(gate, count=1, size=100)


# fan_out


@pytest.mark.parametrize(("items", "count"), [(0, 3), (1, 3), (3, 3), (100, 3), (5, 1)])
async def test_every_item_is_transferred_once(items: int, count: int) -> None:
    done: list[int] = []
    load = Load()

    async def transfer(item: int) -> None:
        load.enter(0)
        await asyncio.sleep(0)
        load.leave(0)
        done.append(item)

    await fan_out(range(items), transfer, count=count)
    assert sorted(done) == list(range(items))
    assert load.most_count == min(items, count)


async def test_the_first_failure_ends_the_rest_and_is_raised_itself() -> None:
    failure = LookupError("the first")
    begun: list[int] = []
    cancelled: list[int] = []

    async def transfer(item: int) -> None:
        begun.append(item)
        if item == 2:
            raise failure
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(LookupError) as caught:
        await fan_out(range(100), transfer, count=4)
    assert caught.value is failure
    assert isinstance(caught.value.__cause__, BaseExceptionGroup)
    assert sorted(cancelled) == [item for item in begun if item != 2]
    assert len(begun) <= 4


async def test_of_several_failures_the_first_is_raised() -> None:
    async def transfer(item: int) -> None:
        try:
            await asyncio.sleep(0 if item == 1 else 60)
        finally:
            raise LookupError(item)

    with pytest.raises(LookupError) as caught:
        await fan_out(range(3), transfer, count=3)
    assert caught.value.args == (1,)


async def test_cancelling_a_fan_out_cancels_its_transfers() -> None:
    cancelled = 0

    async def transfer(item: int) -> None:
        nonlocal cancelled
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled += 1
            raise

    task = asyncio.create_task(fan_out(range(10), transfer, count=4))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == 4


async def test_two_run_side_by_side() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def run(mine: asyncio.Event, others: asyncio.Event) -> None:
        mine.set()
        await others.wait()

    await both(run(first, second), run(second, first))


@pytest.mark.parametrize("failing", [0, 1])
async def test_of_two_the_failure_of_one_ends_the_other_and_is_raised_itself(failing: int) -> None:
    failure = ValueError("meant")
    cancelled: list[int] = []

    async def run(number: int) -> None:
        if number == failing:
            await asyncio.sleep(0)
            raise failure
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    with pytest.raises(ValueError, match="meant") as caught:
        await both(run(0), run(1))
    assert (caught.value, cancelled) == (failure, [1 - failing])


# PerLoop


def on_a_new_loop(call: Callable[[], Awaitable[object]]) -> object:
    async def main() -> object:
        return await call()

    return asyncio.run(main())


def test_a_loop_keeps_its_value_and_another_has_its_own() -> None:
    numbers = iter(range(100))
    per_loop = PerLoop(lambda: next(numbers))

    async def get() -> tuple[int, int]:
        first = per_loop.get()
        await asyncio.sleep(0)
        return first, per_loop.get()

    seen = [on_a_new_loop(get) for _ in range(5)]
    assert seen == [(number, number) for number in range(5)]


def test_the_values_of_closed_loops_are_dropped() -> None:
    per_loop = PerLoop(object)

    async def get() -> object:
        return per_loop.get()

    for _ in range(20):
        on_a_new_loop(get)
    assert len(per_loop._made) == 1


def test_a_new_loop_at_the_address_of_an_old_one_has_its_own_value() -> None:
    per_loop = PerLoop(object)
    loop = asyncio.new_event_loop()
    other = asyncio.new_event_loop()
    stale = object()
    with contextlib.closing(loop), contextlib.closing(other):
        per_loop._made[id(loop)] = (other, stale)  # as if `other` had lived there

        async def get() -> object:
            return per_loop.get()

        assert loop.run_until_complete(get()) is not stale


def test_two_threads_with_their_loops_do_not_share() -> None:
    per_loop = PerLoop(lambda: Gate(count=1, size=1))
    meet = threading.Barrier(2, timeout=10)
    seen: list[list[object]] = []

    async def get() -> None:
        values = []
        for _ in range(100):
            await asyncio.to_thread(meet.wait)
            values.append(per_loop.get())
        seen.append(list(values))

    threads = [threading.Thread(target=on_a_new_loop, args=(get,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    one, other = seen
    assert (len(set(one)), len(set(other))) == (1, 1)
    assert one[0] is not other[0]


def test_chunks_are_full_but_for_the_last() -> None:
    assert [list(part) for part in chunks(range(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [list(part) for part in chunks(range(4), 2)] == [[0, 1], [2, 3]]
    assert list(chunks([], 2)) == []
