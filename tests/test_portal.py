"""Who runs the loop of blocking calls, and that nothing is lost when that changes."""

from __future__ import annotations

import asyncio
import os
import pathlib
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from ltm_async import BlockingCallError, portal
from ltm_async.portal import Portal
from ltm_async.resting import RestingLoop


class AlarmError(Exception):
    pass


@pytest.fixture
def loop() -> Portal:
    return Portal()


async def here() -> threading.Thread:
    return threading.current_thread()


async def until(event: threading.Event) -> threading.Thread:
    while not event.is_set():  # noqa: ASYNC110  # other threads set it
        await asyncio.sleep(0.001)
    return threading.current_thread()


class Calling(threading.Thread):
    """A blocking call in a thread of its own; *begun* tells that it is under way."""

    def __init__(self, loop: Portal, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        super().__init__(daemon=True)
        self.begun = threading.Event()
        self.outcome: Any = None
        self._loop = loop
        self._make = work
        self.start()
        assert self.begun.wait(30)

    async def _work(self) -> Any:
        self.begun.set()
        return await self._make()

    def run(self) -> None:
        try:
            self.outcome = self._loop.run(self._work)
        except BaseException as exc:  # noqa: BLE001  # for the test to look at
            self.outcome = exc

    def ended(self) -> Any:
        self.join(30)
        assert not self.is_alive()
        return self.outcome


def is_daemon(thread: threading.Thread) -> bool:
    return thread.name == "ltm-sync" and thread.daemon


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.001)


def wait_for_rest(loop: Portal) -> None:
    wait_until(lambda: not loop._turn.locked())


class TestWhoRunsTheLoop:
    def test_a_lone_call_runs_in_its_own_thread(self, loop: Portal) -> None:
        assert loop.run(here) is threading.current_thread()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(loop.run, here).result() is not threading.current_thread()
        assert loop.run(here) is threading.current_thread()

    def test_it_is_one_loop_whoever_runs_it(self, loop: Portal) -> None:
        async def which() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        with ThreadPoolExecutor(1) as pool:
            assert loop.run(which) is pool.submit(loop.run, which).result()

    def test_who_calls_meanwhile_is_served_by_the_thread_that_runs_it(self, loop: Portal) -> None:
        go_on = threading.Event()
        runner = Calling(loop, lambda: until(go_on))
        assert [loop.run(here) for _ in range(3)] == [runner] * 3
        go_on.set()
        assert runner.ended() is runner

    def test_the_daemon_thread_takes_over_what_a_leaving_thread_began(self, loop: Portal) -> None:
        first, second = threading.Event(), threading.Event()
        runner = Calling(loop, lambda: until(first))
        other = Calling(loop, lambda: until(second))
        first.set()
        assert runner.ended() is runner
        second.set()
        assert is_daemon(other.ended())
        wait_for_rest(loop)
        assert loop.run(here) is threading.current_thread()

    def test_who_calls_meanwhile_is_served_by_the_daemon_thread(self, loop: Portal) -> None:
        first, second = threading.Event(), threading.Event()
        runner = Calling(loop, lambda: until(first))
        other = Calling(loop, lambda: until(second))
        first.set()
        runner.ended()
        wait_until(loop._turn.locked)
        assert is_daemon(loop.run(here))
        second.set()
        other.ended()

    def test_a_task_that_outlives_its_call_is_taken_over_too(self, loop: Portal) -> None:
        go_on, done = threading.Event(), threading.Event()
        tasks: list[asyncio.Task[None]] = []
        served: list[threading.Thread] = []

        async def linger() -> None:
            served.append(await until(go_on))
            done.set()

        async def leave_it() -> None:
            tasks.append(asyncio.create_task(linger()))

        loop.run(leave_it)
        go_on.set()
        assert done.wait(30)
        assert is_daemon(served[0])

    def test_what_another_thread_schedules_wakes_a_loop_at_rest(self, loop: Portal) -> None:
        """As a backend does that is closed in another event loop."""

        async def which() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        resting = loop.run(which)
        for _ in range(100):
            heard = threading.Event()
            resting.call_soon_threadsafe(heard.set)
            assert heard.wait(30)

    async def test_beside_a_running_loop_the_daemon_thread_runs_it(self, loop: Portal) -> None:
        assert is_daemon(loop.run(here, allow_blocking=True))
        with pytest.raises(BlockingCallError):
            loop.run(here)

    def test_no_wake_up_is_lost_when_threads_come_and_go(self, loop: Portal) -> None:
        threads, calls = 8, 300

        async def work(number: int) -> int:
            for turn in range(number % 3):
                await asyncio.to_thread(int)
                await asyncio.sleep(0.0001 * turn)
            return number

        def call(number: int) -> list[int]:
            return [loop.run(partial(work, number + turn)) for turn in range(calls)]

        with ThreadPoolExecutor(threads) as pool:
            for number, got in enumerate(pool.map(call, range(threads))):
                assert got == list(range(number, number + calls))

    def test_an_error_in_a_callback_ends_no_loop(self, loop: Portal) -> None:
        seen: list[dict[str, Any]] = []

        def fails() -> None:
            raise LookupError

        async def schedule() -> None:
            running = asyncio.get_running_loop()
            running.set_exception_handler(lambda _, context: seen.append(context))
            running.call_soon(fails)

        loop.run(schedule)
        assert loop.run(here) is threading.current_thread()
        assert isinstance(seen[0]["exception"], LookupError)


class TestAfterARest:
    def test_a_connection_that_ended_is_known_to_be_gone_before_a_call_begins(
        self, loop: Portal
    ) -> None:
        """Else a call would write into it, and never know what became of that."""
        lost: list[str] = []

        class Notes(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                lost.append(data.decode())

            def connection_lost(self, exc: Exception | None) -> None:
                lost.append("gone")

        async def connect() -> None:
            port = server.getsockname()[1]
            await asyncio.get_running_loop().create_connection(Notes, "127.0.0.1", port)

        async def what_was_lost() -> list[str]:
            return list(lost)

        with socket.create_server(("127.0.0.1", 0)) as server:
            loop.run(connect)
            its = server.accept()[0]
            assert loop.run(what_was_lost) == []
            its.sendall(b"last words, ")
            its.close()
            give_up = time.monotonic() + portal.REST_S
            while time.monotonic() <= give_up:
                time.sleep(portal.REST_S)
            assert loop.run(what_was_lost) == ["last words, ", "gone"]

    def test_a_timer_that_came_due_is_heard_before_a_call_begins(self, loop: Portal) -> None:
        rung: list[str] = []

        async def set_it() -> None:
            asyncio.get_running_loop().call_later(portal.REST_S / 2, rung.append, "rung")

        async def was_it_rung() -> list[str]:
            return list(rung)

        loop.run(set_it)
        time.sleep(portal.REST_S * 2)
        assert rung == [], "nobody runs the loop"
        assert loop.run(was_it_rung) == ["rung"]


@contextmanager
def handling(signum: signal.Signals, handler: Any) -> Iterator[None]:
    before = signal.signal(signum, handler)
    try:
        yield
    finally:
        signal.signal(signum, before)


class TestSignals:
    def test_an_interrupted_runner_harms_no_other_call(self, loop: Portal) -> None:
        begun, go_on = threading.Event(), threading.Event()
        others: list[Calling] = []

        async def hang() -> None:
            begun.set()
            await asyncio.get_running_loop().create_future()

        def interrupt() -> None:
            assert begun.wait(30)
            others.extend(Calling(loop, lambda: until(go_on)) for _ in range(3))
            signal.pthread_kill(main, signal.SIGINT)

        main = threading.get_ident()
        sender = threading.Thread(target=interrupt)
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            loop.run(hang)
        sender.join()
        go_on.set()
        assert all(is_daemon(other.ended()) for other in others)
        wait_for_rest(loop)
        assert loop.run(here) is threading.current_thread()

    def test_a_signal_that_another_thread_takes_is_heard_all_the_same(self, loop: Portal) -> None:
        """The system chooses the thread; its system call alone is interrupted."""

        async def hang() -> None:
            begun.set()
            await asyncio.get_running_loop().create_future()

        def interrupt_itself() -> None:
            assert begun.wait(30)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        begun = threading.Event()
        sender = threading.Thread(target=interrupt_itself)
        sender.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            loop.run(hang)
        sender.join()
        assert time.monotonic() - began < 1.5

    def test_a_handler_runs_outside_the_loop_and_may_call_itself(self, loop: Portal) -> None:
        """As one that stores something before the program ends."""
        heard: list[Any] = []

        def handler(signum: int, frame: Any) -> None:
            inside = asyncio._get_running_loop()
            heard.append((signum, inside, type(loop.run(here)), frame is None))

        async def work() -> str:
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR2)
            assert heard == [], "a handler ran in the middle of a task"
            await asyncio.sleep(0)
            while len(heard) < 2:  # noqa: ASYNC110  # the thread adds to it between two turns
                await asyncio.sleep(0.001)
            return "done"

        with handling(signal.SIGUSR1, handler), handling(signal.SIGUSR2, handler):
            assert loop.run(work) == "done"
        assert [each[:2] for each in heard] == [(signal.SIGUSR1, None), (signal.SIGUSR2, None)]
        assert all(issubclass(thread, threading.Thread) for _, _, thread, _ in heard)
        assert not any(no_frame for *_, no_frame in heard)

    def test_handlers_are_those_of_before(self, loop: Portal) -> None:
        def handlers() -> dict[int, Any]:
            return {int(each): signal.getsignal(each) for each in signal.valid_signals()}

        async def look() -> dict[int, Any]:
            return handlers()

        with handling(signal.SIGUSR1, print):
            before = handlers()
            changed = {each for each, handler in loop.run(look).items() if handler != before[each]}
            assert changed == {each for each, handler in before.items() if callable(handler)}
            assert {signal.SIGINT, signal.SIGUSR1} <= changed
            assert handlers() == before

    def test_a_handler_that_a_coroutine_set_stays(self, loop: Portal) -> None:
        def other(*_: object) -> None:
            raise AssertionError

        async def set_it() -> None:
            signal.signal(signal.SIGUSR1, other)

        with handling(signal.SIGUSR1, print):
            loop.run(set_it)
            assert signal.getsignal(signal.SIGUSR1) is other

    def test_all_handlers_run_and_are_restored_though_one_raises(self, loop: Portal) -> None:
        heard: list[int] = []

        def rings(signum: int, _: Any) -> None:
            heard.append(signum)
            raise AlarmError(signum)

        async def work() -> None:
            for each in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGINT):
                signal.raise_signal(each)
            await asyncio.sleep(0)

        with (
            handling(signal.SIGINT, rings),
            handling(signal.SIGUSR1, rings),
            handling(signal.SIGUSR2, rings),
        ):
            with pytest.raises(AlarmError):
                loop.run(work)
            for each in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
                assert signal.getsignal(each) is rings
        assert sorted(heard) == sorted([signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])

    def test_a_second_ctrl_c_ends_a_task_that_holds_the_loop_up(self, loop: Portal) -> None:
        ended: list[type[BaseException] | None] = []

        async def hold_up() -> None:
            signal.raise_signal(signal.SIGINT)
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                ended.append(sys.exc_info()[0])

        with pytest.raises(KeyboardInterrupt):
            loop.run(hold_up)
        assert ended == [KeyboardInterrupt]
        assert loop.run(here) is threading.current_thread()

    def test_a_callback_of_the_loop_is_interrupted_by_no_signal(self, loop: Portal) -> None:
        """It is no task's, so what it was about to do would be lost."""
        went_on: list[bool] = []

        def callback() -> None:
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
            went_on.append(True)

        async def schedule() -> None:
            asyncio.get_running_loop().call_soon(callback)
            await asyncio.get_running_loop().create_future()

        with pytest.raises(KeyboardInterrupt):
            loop.run(schedule)
        assert went_on == [True]

    def test_a_call_that_is_cancelled_before_its_first_step_never_begins(self) -> None:
        """And its caller is told at once."""
        begun: list[bool] = []

        async def work() -> None:
            begun.append(True)

        running = RestingLoop(lambda _: None)
        call = portal._Call(work, 0)
        call.begin(running)
        call.cancel()
        assert call._ended
        running.run_out()
        running.close()
        assert begun == []

    def test_a_storm_of_signals_breaks_nothing(self, loop: Portal) -> None:
        """A handler that raised inside the loop would lose a callback, and hang its call."""

        async def work(number: int) -> int:
            for _ in range(3):
                await asyncio.sleep(0)
                await asyncio.to_thread(int)
            return number

        def call(count: int) -> list[int]:
            return [loop.run(partial(work, number)) for number in range(count)]

        def ring(*_: object) -> None:
            raise AlarmError

        def send() -> None:
            pause = random.Random(7)
            while wanted.get():
                time.sleep(pause.random() / 1000)
                signal.pthread_kill(main, signal.SIGUSR1)

        wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        main, rung, ends_at = threading.get_ident(), 0, time.monotonic() + 30
        with handling(signal.SIGUSR1, ring), ThreadPoolExecutor(3) as pool:
            pool.submit(send)
            others = [pool.submit(call, 1000) for _ in range(2)]
            while not all(other.done() for other in others) or rung < 100:
                assert time.monotonic() < ends_at, "a call hangs"
                wanted.put(True)
                try:
                    while True:
                        assert loop.run(partial(work, 7)) == 7
                except AlarmError:
                    rung += 1
            wanted.put(False)
        assert [other.result() for other in others] == [list(range(1000))] * 2


def run(script: str, *, timeout_s: float = 30) -> str:
    """What a Python of its own prints, strict about warnings."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore:This process", "-c", script],
        cwd=pathlib.Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


class TestProcesses:
    def test_a_fork_beside_a_thread_that_runs_the_loop_hears_signals(self) -> None:
        script = """
import asyncio, os, signal, sys, threading
from ltm_async.portal import Portal
from ltm_async.worker import PerProcess

loops = PerProcess(Portal)

def fork():
    pid = os.fork()
    if pid == 0:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        except KeyboardInterrupt:
            is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            print("child", is_default, loops.get().run(work), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    return "parent"

async def work():
    return 7

async def main():
    return await asyncio.to_thread(fork)

print(loops.get().run(main), loops.get().run(work))
"""
        assert run(script).splitlines() == ["child True 7", "parent 7"]

    def test_a_main_thread_that_may_not_handle_signals_calls_all_the_same(self) -> None:
        """Where another program embeds Python, threading may take another thread for it."""
        script = """
import _thread
done = _thread.allocate_lock()
done.acquire()

def work():
    import threading
    threading.main_thread = threading.current_thread
    from ltm_async.portal import Portal
    async def seven():
        return 7
    print(Portal().run(seven))
    done.release()

_thread.start_new_thread(work, ())
done.acquire()
"""
        assert run(script) == "7"

    @pytest.mark.parametrize("beside", ["", "threading.Thread(target=hang, daemon=True).start()"])
    def test_a_call_while_the_interpreter_is_torn_down_ends(self, beside: str) -> None:
        """It works, or is refused where the thread that ran the loop is gone."""
        script = f"""
import asyncio, os, sys, threading, types
from ltm_async.portal import Portal

begun = threading.Event()

async def seven():
    return 7

async def wait():
    begun.set()
    await asyncio.get_running_loop().create_future()

def hang():
    loop.run(wait)

loop = Portal()

class Last:
    def __del__(self, loop=loop, seven=seven, finalizing=sys.is_finalizing, write=os.write):
        assert finalizing()
        try:
            write(1, b"%d" % loop.run(seven))
        except Exception as exc:
            write(1, type(exc).__name__.encode())

loop.run(seven)
{beside}
{beside and "begun.wait()"}
sys.modules["last"] = types.ModuleType("last")
sys.modules["last"].one = Last()
"""
        assert run(script) == ("BlockingCallError" if beside else "7")


def test_file_descriptors_are_few() -> None:
    """A loop that another process inherits is left to it; one of our own is made once."""
    count = len(os.listdir("/proc/self/fd"))
    one = Portal()
    for _ in range(50):
        one.run(here)
    assert len(os.listdir("/proc/self/fd")) <= count + 3
