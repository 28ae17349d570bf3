"""One resource for each loop: opened once, closed by the last, never taken into another loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading

import pytest

from ltm_async.shared import Share, Shared


class Resource:
    def __init__(self, key: str) -> None:
        self.key = key
        self.loop = asyncio.get_running_loop()
        self.closed_in: asyncio.AbstractEventLoop | None = None


class Opener:
    """Opens and closes resources, and remembers them."""

    def __init__(self) -> None:
        self.made: list[Resource] = []
        self.shared: Shared[str, Resource] = Shared(self._connect, self._close)

    async def _connect(self, key: str) -> Resource:
        await asyncio.sleep(0)
        resource = Resource(key)
        self.made.append(resource)
        return resource

    async def _close(self, resource: Resource) -> None:
        await asyncio.sleep(0)
        resource.closed_in = asyncio.get_running_loop()

    def open_now(self) -> list[Resource]:
        return [resource for resource in self.made if resource.closed_in is None]


@pytest.fixture
def opener() -> Opener:
    return Opener()


async def test_many_tasks_open_it_once(opener: Opener) -> None:
    users = [opener.shared.share("k") for _ in range(10)]
    got = await asyncio.gather(*(user.get() for user in users for _ in range(3)))
    assert len(opener.made) == 1
    assert set(got) == set(opener.made)


async def test_another_key_is_another_resource(opener: Opener) -> None:
    one, two = opener.shared.share("1"), opener.shared.share("2")
    assert [(await one.get()).key, (await two.get()).key] == ["1", "2"]


async def test_the_last_user_closes_it(opener: Opener) -> None:
    one, two = opener.shared.share("k"), opener.shared.share("k")
    first = await one.get()
    assert await two.get() is first
    await one.release()
    await one.release()
    assert opener.open_now() == [first]
    await two.release()
    assert opener.open_now() == []
    assert await one.get() is not first
    await one.release()


async def test_a_forgotten_user_does_not_keep_it_open(opener: Opener) -> None:
    forgotten, last = opener.shared.share("k"), opener.shared.share("k")
    await forgotten.get()
    await last.get()
    del forgotten
    gc.collect()
    await last.release()
    assert opener.open_now() == []


async def test_who_comes_while_it_closes_gets_a_new_one(opener: Opener) -> None:
    one, two = opener.shared.share("k"), opener.shared.share("k")
    first = await one.get()
    _, second = await asyncio.gather(one.release(), two.get())
    assert second is not first
    assert opener.open_now() == [second]
    await two.release()


async def test_a_failure_to_open_is_everybodys_and_the_next_tries_again() -> None:
    tries = 0

    async def connect(key: str) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError("refused")
        return key

    async def close(key: str) -> None:
        pass

    user = Shared(connect, close).share("k")
    with pytest.raises(OSError, match="refused"):
        await user.get()
    assert await user.get() == "k"
    await user.release()


async def test_a_cancelled_opener_leaves_it_to_the_next(opener: Opener) -> None:
    one, two = opener.shared.share("k"), opener.shared.share("k")
    first = asyncio.create_task(one.get())
    second = asyncio.create_task(two.get())
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).key == "k"
    assert first.cancelled()
    assert len(opener.made) == 1
    await two.release()


def test_the_end_of_a_loop_closes_it_there(
    opener: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """What a module keeps and nobody closes is closed by each ``asyncio.run``."""
    user = opener.shared.share("k")
    for number in range(200):
        resource = asyncio.run(user.get())
        assert resource.closed_in is resource.loop
        assert len(opener.made) == number + 1
        assert len(user._held) == 1
        assert len(opener.shared._slots.get()) == 1
    assert caplog.records == []


def test_a_loop_that_was_only_closed_is_forgotten(opener: Opener) -> None:
    user = opener.shared.share("k")
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(user.get())
        loop.close()
    assert len(opener.made) == 3
    assert len(opener.shared._slots.get()) == 1


def test_two_threads_have_one_each_and_release_closes_both(opener: Opener) -> None:
    user = opener.shared.share("k")
    ready, done = threading.Event(), threading.Event()

    async def hold() -> None:
        await user.get()
        ready.set()
        while opener.made[0].closed_in is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        done.set()

    async def release() -> None:
        await user.get()
        await user.release()

    thread = threading.Thread(target=asyncio.run, args=(hold(),))
    thread.start()
    assert ready.wait(10)
    asyncio.run(release())
    thread.join(10)
    assert done.is_set()
    assert len(opener.made) == 2
    assert all(resource.closed_in is resource.loop for resource in opener.made)


def test_a_child_process_opens_its_own_and_leaves_the_parents_alone(opener: Opener) -> None:
    user: Share[str, Resource] = opener.shared.share("k")

    async def fork() -> None:
        mine = await user.get()
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                ran = asyncio.run(user.get())
                if ran is not mine and mine.closed_in is None and ran.closed_in is not None:
                    code = 0
            os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert status == 0
        assert await user.get() is mine
        await user.release()

    asyncio.run(fork())
    assert opener.open_now() == []
