"""A crowd of clients on a few keys at once, through bad weather; what they are told is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ltm_async import (
    ConflictError,
    CorruptError,
    LTMBackend,
    LTMError,
    OutcomeUnknownError,
    UnavailableError,
)
from ltm_async.protocols import BlobStore, Catalog
from ltm_async.testing import (
    Faults,
    RecordedClient,
    Recorder,
    Step,
    faulty_blob_store,
    faulty_catalog,
)

from ..backends import QUICK

T = TypeVar("T")


class Weather(Faults):
    """Each request may wait, be refused, get lost on either way, or arrive much later."""

    def __init__(
        self, seeded: random.Random, badness: float, late: set[asyncio.Task[None]]
    ) -> None:
        super().__init__()
        self._seeded = seeded
        self._badness = badness
        self._arriving = late

    async def step(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        await self._wait(4)
        if self._seeded.random() >= self._badness:
            result = await call()
            await self._wait(2)
            return result
        match self._seeded.choice(["refused", "reply lost", "request lost", "late"]):
            case "refused":
                raise UnavailableError(f"{name} was refused by a test", store="weather")
            case "reply lost":
                await call()
            case "late":
                task = asyncio.create_task(self._arrive(call))
                self._arriving.add(task)
                task.add_done_callback(self._arriving.discard)
        raise OutcomeUnknownError(f"{name} got no reply in a test", store="weather")

    async def _arrive(self, call: Callable[[], Awaitable[Any]]) -> None:
        await self._wait(60)
        with contextlib.suppress(LTMError):
            await call()

    async def _wait(self, most: int) -> None:
        for _ in range(self._seeded.randint(0, most)):
            await asyncio.sleep(0)


@dataclasses.dataclass
class Member:
    """One client, which has one call at a time."""

    client: RecordedClient
    keys: Sequence[str]
    seeded: random.Random
    patience: float
    """The share of calls that it waits for to the end; it cancels the others."""
    known: dict[str, int] = dataclasses.field(default_factory=dict)
    """The version of each key that it saw last."""

    async def live(self, calls: int) -> None:
        for number in range(calls):
            if self.seeded.random() < self.patience:
                await self._call(number)
                continue
            task = asyncio.create_task(self._call(number))
            for _ in range(self.seeded.randint(0, 30)):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _call(self, number: int) -> None:
        try:
            result = await self._chosen(number)
        except ConflictError as exc:
            self.known[exc.key] = exc.version or 0
        except CorruptError:
            raise
        except LTMError:
            return
        else:
            if getattr(result, "version", None) is not None:
                self.known[result.key] = result.version
            failures = getattr(result, "errors", {})
            assert "CorruptError" not in {failure.error_type for failure in failures.values()}

    def _chosen(self, number: int) -> Awaitable[Any]:
        client, key = self.client, self.seeded.choice(self.keys)
        pad = "x" * 1_200 if self.seeded.random() < 0.5 else ""
        value = [client.name, number, pad]
        ttl = 1.0 if self.seeded.random() < 0.1 else None
        known = self.known.get(key, 0)
        match self.seeded.choices(range(10), [20, 12, 25, 8, 4, 6, 6, 5, 8, 3])[0]:
            case 0:
                return client.store(key, value, ttl=ttl)
            case 1 if known:
                return client.store(key, value, if_version=known)
            case 1:
                return client.store(key, value, if_absent=True)
            case 2:
                return client.retrieve(key)
            case 3:
                return client.delete(key)
            case 4 if known:
                return client.delete(key, if_version=known)
            case 5:
                return client.touch(key, ttl=ttl)
            case 6:
                return client.update(key, value)
            case 7:
                return client.store_batch(
                    [{"key": key, "value": [value, key]} for key in self.keys]
                )
            case 8:
                return client.retrieve_batch(self.keys)
        return client.delete_batch(self.keys)


async def gather(
    stores: Sequence[tuple[Catalog, BlobStore]],
    *,
    seed: int,
    keys: int = 3,
    calls: int = 8,
    badness: float = 0.08,
    plain: tuple[Catalog, BlobStore] | None = None,
    pass_time: Callable[[float], None] | None = None,
) -> list[Step]:
    """The history of a client on each of *stores* and of one that keeps house, to its end.

    The last and the look at each key at the end go to *plain*, or to the first of *stores*.
    """
    seeded = random.Random(seed)
    recorder = Recorder()
    late: set[asyncio.Task[None]] = set()
    names = [f"{seed}/{number}" for number in range(keys)]
    members: list[Member] = []
    for number, (catalog, blobs) in enumerate(stores):
        weather = Weather(random.Random(seeded.random()), badness, late)
        ltm = LTMBackend(
            faulty_catalog(catalog, weather),
            faulty_blob_store(blobs, weather),
            on_unavailable="raise" if number % 2 else "degrade",
            retry=QUICK,
        )
        client = recorder.client(f"{number}", ltm)
        members.append(Member(client, names, random.Random(seeded.random()), 0.9))
    sound = LTMBackend(*(plain or stores[0]), on_unavailable="raise")
    async with asyncio.TaskGroup() as group:
        for member in members:
            group.create_task(member.live(calls))
        group.create_task(_keep_house(sound, random.Random(seeded.random()), pass_time))
    while late:
        await asyncio.wait(late)
    witness = recorder.client("witness", sound)
    await witness.retrieve_batch(names)
    for name in names:
        await witness.retrieve(name)
    return recorder.history()


async def _keep_house(
    ltm: LTMBackend, seeded: random.Random, pass_time: Callable[[float], None] | None
) -> None:
    for _ in range(4):
        for _ in range(seeded.randint(0, 60)):
            await asyncio.sleep(0)
        if pass_time is not None:
            await asyncio.to_thread(pass_time, seeded.choice([1.0, 700.0]))
        with contextlib.suppress(UnavailableError, OutcomeUnknownError):
            await ltm.cleanup_expired()
            await ltm.collect_garbage()
