"""The commit protocol as a model, every interleaving of which is explored.

The adversary may stop any process for ever before any step, deliver any message to either store
long after its sender gave up, deliver those that are sent again more than once, lose any reply,
and end any lease or grace at any moment: no clock is assumed.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

PENDING, LIVE, DEAD = "pending", "live", "dead"
STORED, FAILED, UNKNOWN = "stored", "failed", "unknown"


class Flaw(enum.Enum):
    """A protocol that is simpler, and wrong."""

    NO_FENCE = "a commit does not look whether its blobs are still pending"
    ONLY_LOOKS = "a lost reply is settled by reading"
    FORGETS_REPLACED = "a commit leaves the blobs that it replaces live"
    OBJECT_FIRST = "a delete removes the object before the row"
    RENEWS_BLINDLY = "a renewal does not look whether the row still has the content"
    ABANDONS_LIVE = "abandoning kills blobs that a row names already"
    READS_ONCE = "a reader takes a blob for corrupt without reading the row again"
    FORGETS_FIRST = "a collection forgets a blob before its object is deleted"
    DELETES_UNHELD = "a delete kills the blobs of a key under which it found no row to lock"
    RESERVES_AGAIN = "a reservation whose reply was lost is sent again under the same name"


class Row(NamedTuple):
    write_id: str
    blob: str | None
    content: str


class Blob(NamedTuple):
    """A row of the ledger."""

    state: str
    content: str
    committed: bool = False
    """Has been live."""


class Reserve(NamedTuple):
    """A request to reserve a blob, which may arrive more than once."""

    operation: str
    blob: str
    content: str


class Commit(NamedTuple):
    """A request to commit; without a blob and *inlined* it renews what the row holds."""

    operation: str
    attempt: int
    blob: str | None
    content: str
    inlined: bool = False


class Process(NamedTuple):
    kind: str
    operation: str
    content: str = ""
    blobs: tuple[str, ...] = ()
    """One for each attempt."""
    at: str = "start"
    attempt: int = 0
    seen: Row | None = None
    """What a reader has read last."""


class State(NamedTuple):
    """One key, its blobs in both stores, and everything under way."""

    processes: tuple[Process, ...]
    row: Row | None = None
    ledger: tuple[tuple[str, Blob], ...] = ()
    objects: frozenset[str] = frozenset()
    reserves: frozenset[Reserve] = frozenset()
    puts: frozenset[str] = frozenset()
    deletes: frozenset[str] = frozenset()
    commits: frozenset[Commit] = frozenset()
    held: frozenset[str] = frozenset()
    """Operations whose reservation was answered: the row holds this content already."""
    reserved: frozenset[str] = frozenset()
    """Blobs whose reservation was answered: entered."""
    gone: frozenset[str] = frozenset()
    """Blobs whose delete was answered."""
    committed: frozenset[tuple[str, int]] = frozenset()
    """Operations and attempts whose commit took effect, ever."""
    told: frozenset[tuple[str, str]] = frozenset()
    strays: frozenset[str] = frozenset()
    """Objects whose upload landed, again or late, when the ledger was done with it."""

    def blob(self, name: str) -> Blob | None:
        return dict(self.ledger).get(name)

    def entering(self, name: str, blob: Blob | None) -> State:
        ledger = dict(self.ledger)
        if blob is None:
            ledger.pop(name, None)
        else:
            ledger[name] = blob
        return self._replace(ledger=tuple(sorted(ledger.items())))

    def retiring(self, keep: str | None) -> State:
        """Every live blob dies but *keep*."""
        state = self
        for name, blob in self.ledger:
            if blob.state == LIVE and name != keep:
                state = state.entering(name, blob._replace(state=DEAD))
        return state


class ViolationError(Exception):
    pass


Step = tuple[str, State]


class Explored(NamedTuple):
    states: int
    violation: str | None
    """What is wrong, and the shortest way there."""


def explore(first: State, flaw: Flaw | None = None, *, limit: int = 400_000) -> Explored:
    """Visit every state that can be reached from *first*, breadth first, up to a violation."""
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        try:
            check(state)
            following = list(_steps(state, flaw))
            if not following:
                _check_rest(state)
        except ViolationError as exc:
            return Explored(len(came_from), f"{exc}: {' → '.join(_way_to(state, came_from))}")
        for label, after in following:
            if after not in came_from:
                came_from[after] = (state, label)
                queue.append(after)
        if len(came_from) > limit:
            raise RuntimeError(f"more than {limit} states")
    return Explored(len(came_from), None)


def _way_to(state: State, came_from: dict[State, tuple[State, str] | None]) -> list[str]:
    labels = []
    while (step := came_from[state]) is not None:
        state, label = step
        labels.append(label)
    return labels[::-1]


def check(state: State) -> None:
    """What must hold always."""
    row = state.row
    named = row.blob if row is not None else None
    if row is not None and named is not None:
        blob = state.blob(named)
        if named not in state.objects:
            raise ViolationError(f"the row names {named}, whose object is missing")
        if blob is None or blob.state != LIVE:
            raise ViolationError(f"the row names {named}, in the ledger {blob}")
        if blob.content != row.content:
            raise ViolationError(f"the row says {row.content} and names {named}, {blob}")
    for name, blob in state.ledger:
        if blob.state == LIVE and name != named:
            raise ViolationError(f"{name} is live and nothing names it: leaked for ever")
    took_effect = {operation for operation, _ in state.committed}
    for operation, what in state.told:
        if what == STORED and operation not in took_effect:
            raise ViolationError(f"{operation} was told stored and is not")
        if what == FAILED and operation in took_effect:
            raise ViolationError(f"{operation} was told failed and took effect")


def _check_rest(state: State) -> None:
    """What must hold when nothing can happen any more, if there was a collector."""
    if not any(process.kind == "collector" for process in state.processes):
        return
    named = {state.row.blob} if state.row is not None else set()
    if left := state.objects - named - state.strays:
        raise ViolationError(f"the objects of {sorted(left)} are left over for ever")
    if waiting := [name for name, blob in state.ledger if blob.state != LIVE]:
        raise ViolationError(f"{waiting} are left in the ledger for ever")


def _steps(state: State, flaw: Flaw | None) -> Iterator[Step]:
    """Everything that can happen next."""
    yield from _deliveries(state, flaw)
    for number, process in enumerate(state.processes):
        if process.at != "end":
            yield from _KINDS[process.kind](_Turn(state, number, process), flaw)


def _deliveries(state: State, flaw: Flaw | None) -> Iterator[Step]:
    for message in state.reserves:
        after = _reserve(state, message)
        yield (
            f"reservation of {message.blob} arrives",
            after._replace(reserves=after.reserves - {message}),
        )
        if flaw is Flaw.RESERVES_AGAIN:
            yield f"reservation of {message.blob} arrives, not for the last time", after
    for blob in state.puts:
        landed = state._replace(objects=state.objects | {blob})
        if state.blob(blob) is None or blob in state.gone:
            landed = landed._replace(strays=state.strays | {blob})
        yield f"PUT {blob} lands", landed._replace(puts=state.puts - {blob})
        yield f"PUT {blob} lands, not for the last time", landed
    for blob in state.deletes:
        yield (
            f"DELETE {blob} lands",
            state._replace(
                deletes=state.deletes - {blob},
                objects=state.objects - {blob},
                strays=state.strays - {blob},
                gone=state.gone | {blob},
            ),
        )
    for commit in state.commits:
        after = _commit(state, commit, flaw)
        yield (
            f"commit of {commit.operation} arrives",
            after._replace(commits=after.commits - {commit}),
        )


def _reserve(state: State, message: Reserve) -> State:
    """The catalog's transaction: enter the blob, unless the row holds the content already."""
    row = state.row
    if row is not None and row.blob is not None and row.content == message.content:
        return state._replace(held=state.held | {message.operation})
    if state.blob(message.blob) is None:
        state = state.entering(message.blob, Blob(PENDING, message.content))
        state = state._replace(strays=state.strays - {message.blob})
    return state._replace(reserved=state.reserved | {message.blob})


def _commit(state: State, commit: Commit, flaw: Flaw | None) -> State:
    """The catalog's transaction: all of it, or nothing when it is refused."""
    blob = commit.blob
    if blob is not None:
        entered = state.blob(blob)
        if flaw is not Flaw.NO_FENCE and (entered is None or entered.state != PENDING):
            return state
        state = state.entering(blob, Blob(LIVE, commit.content, committed=True))
    elif not commit.inlined:
        row = state.row
        if row is None or row.blob is None:
            return state
        if flaw is not Flaw.RENEWS_BLINDLY and row.content != commit.content:
            return state
        blob = row.blob
    if flaw is not Flaw.FORGETS_REPLACED:
        state = state.retiring(keep=blob)
    return state._replace(
        row=Row(commit.operation, blob, commit.content),
        committed=state.committed | {(commit.operation, commit.attempt)},
    )


class _Turn(NamedTuple):
    """A process about to make a step."""

    state: State
    number: int
    process: Process

    def at(self, where: str, state: State | None = None, *, seen: Row | None = None) -> State:
        return self.becomes(self.process._replace(at=where, seen=seen), state)

    def becomes(self, process: Process, state: State | None = None) -> State:
        state = self.state if state is None else state
        processes = list(state.processes)
        processes[self.number] = process
        return state._replace(processes=tuple(processes))

    def tells(self, what: str, state: State | None = None) -> State:
        state = self.state if state is None else state
        told = state.told | {(self.process.operation, what)}
        return self.at("end", state._replace(told=told))

    @property
    def answered(self) -> bool:
        """The commit is no longer under way."""
        operation = self.process.operation
        return not any(commit.operation == operation for commit in self.state.commits)

    @property
    def took_effect(self) -> bool:
        return (self.process.operation, self.process.attempt) in self.state.committed

    @property
    def is_carried(self) -> bool:
        """The row remembers this operation as its writer."""
        row = self.state.row
        return row is not None and row.write_id == self.process.operation


def _large_writer(turn: _Turn, flaw: Flaw | None) -> Iterator[Step]:
    """Reserves, hears of it, uploads, hears of it, commits; the next attempt has a new name."""
    state, _, process = turn
    name, blob = process.operation, process.blobs[process.attempt]
    yield f"{name} is killed", turn.at("end")
    match process.at:
        case "start":
            message = Reserve(name, blob, process.content)
            sent = state._replace(reserves=state.reserves | {message})
            yield f"{name} sends its reservation", turn.at("reserving", sent)
        case "reserving":
            if blob in state.reserved:
                sent = state._replace(puts=state.puts | {blob})
                yield f"{name} is reserved and sends PUT", turn.at("uploading", sent)
            if name in state.held:
                commit = Commit(name, process.attempt, None, process.content)
                sent = state._replace(commits=state.commits | {commit})
                yield f"{name} has it already and sends a renewal", turn.at("renewing", sent)
            yield f"{name} gives up", turn.tells(FAILED, _abandoned(state, blob, flaw))
        case "uploading":
            if blob in state.objects:
                yield f"{name} hears of its PUT", turn.at("uploaded")
            yield f"{name} gives up", turn.tells(FAILED, _abandoned(state, blob, flaw))
        case "uploaded":
            commit = Commit(name, process.attempt, blob, process.content)
            sent = state._replace(commits=state.commits | {commit})
            yield f"{name} sends its commit", turn.at("committing", sent)
            yield f"{name} is cancelled", turn.tells(FAILED, _abandoned(state, blob, flaw))
        case "committing":
            if turn.answered:
                if turn.took_effect:
                    yield f"{name} hears that it is stored", turn.tells(STORED)
                else:
                    yield f"{name} hears that it is fenced", _again(turn, blob, flaw)
            yield f"{name} loses the reply", turn.at("unclear")
        case "unclear":
            yield f"{name} settles it", _settled(turn, blob, flaw)
        case "renewing":
            if turn.answered:
                if turn.took_effect:
                    yield f"{name} hears that it is renewed", turn.tells(STORED)
                else:
                    yield f"{name} hears that it is fenced", _again(turn, blob, flaw)
            yield f"{name} loses the reply", turn.at("renewal unclear")
        case "renewal unclear":
            yield f"{name} reads back", turn.tells(_read_back(turn, flaw))


def _abandoned(state: State, name: str, flaw: Flaw | None) -> State:
    """The catalog's transaction: what is still pending dies."""
    blob = state.blob(name)
    if blob is None:
        return state
    if blob.state == PENDING or (flaw is Flaw.ABANDONS_LIVE and blob.state == LIVE):
        return state.entering(name, blob._replace(state=DEAD))
    return state


def _again(turn: _Turn, blob: str, flaw: Flaw | None) -> State:
    """Give the blob back and try once more under a new name, if there is one left."""
    process = turn.process
    state = _abandoned(turn.state, blob, flaw)
    if process.attempt + 1 == len(process.blobs):
        return turn.tells(FAILED, state)
    state = state._replace(held=state.held - {process.operation})
    return turn.becomes(process._replace(at="start", attempt=process.attempt + 1), state)


def _settled(turn: _Turn, name: str, flaw: Flaw | None) -> State:
    """Abandon, which refuses a commit that is still under way, and look in the same transaction."""
    if flaw is Flaw.ONLY_LOOKS:
        blob = turn.state.blob(name)
        return turn.tells(STORED if blob is not None and blob.committed else FAILED)
    state = _abandoned(turn.state, name, flaw)
    blob = state.blob(name)
    if turn.is_carried or (blob is not None and blob.committed):
        return turn.tells(STORED, state)
    if blob is None:
        return turn.tells(UNKNOWN, state)
    return _again(_Turn(state, turn.number, turn.process), name, flaw)


def _read_back(turn: _Turn, flaw: Flaw | None) -> str:
    if turn.is_carried:
        return STORED
    return FAILED if flaw is Flaw.ONLY_LOOKS else UNKNOWN


def _small_writer(turn: _Turn, flaw: Flaw | None) -> Iterator[Step]:
    state, _, process = turn
    name = process.operation
    yield f"{name} is killed", turn.at("end")
    match process.at:
        case "start":
            commit = Commit(name, 0, None, process.content, inlined=True)
            sent = state._replace(commits=state.commits | {commit})
            yield f"{name} sends its commit", turn.at("committing", sent)
        case "committing":
            if turn.answered:
                yield f"{name} hears that it is stored", turn.tells(STORED)
            yield f"{name} loses the reply", turn.at("unclear")
        case "unclear":
            yield f"{name} reads back", turn.tells(_read_back(turn, flaw))


def _deleter(turn: _Turn, flaw: Flaw | None) -> Iterator[Step]:
    """A delete or an expiry: row and blob in one transaction."""
    state, _, process = turn
    if process.at == "found nothing":
        yield f"{process.operation} kills what is live", turn.at("end", state.retiring(None))
        return
    if state.row is None:
        where = "found nothing" if flaw is Flaw.DELETES_UNHELD else "end"
        yield f"{process.operation} finds nothing", turn.at(where)
        return
    if flaw is Flaw.OBJECT_FIRST and state.row.blob in state.objects:
        gone = state._replace(objects=state.objects - {state.row.blob})
        yield f"{process.operation} deletes the object first", gone
    yield f"{process.operation} deletes", turn.at("end", state._replace(row=None).retiring(None))


def _collector(turn: _Turn, flaw: Flaw | None) -> Iterator[Step]:
    """Any number of collections, and leases that end whenever it hurts."""
    state = turn.state
    for name, blob in state.ledger:
        if blob.state == PENDING:
            yield f"the lease of {name} ends", state.entering(name, blob._replace(state=DEAD))
        if blob.state != DEAD:
            continue
        if name not in state.gone and name not in state.deletes:
            yield f"DELETE {name} is sent", state._replace(deletes=state.deletes | {name})
        if name in state.gone or flaw is Flaw.FORGETS_FIRST:
            yield f"{name} is forgotten", _forgotten(state, name)


def _forgotten(state: State, name: str) -> State:
    """An object that is there again, by an upload that landed late, becomes a stray."""
    state = state.entering(name, None)
    gone = state.gone - {name}
    back = state.objects & {name} if name in state.gone else frozenset[str]()
    return state._replace(gone=gone, strays=state.strays | back)


def _reader(turn: _Turn, flaw: Flaw | None) -> Iterator[Step]:
    """Reads the row, then its blob; where that is missing both again, then it is corrupt."""
    state, _, process = turn
    name = process.operation
    match process.at:
        case "start" | "suspicious":
            if state.row is None or state.row.blob is None:
                yield f"{name} is done with the row", turn.at("end")
            else:
                again = process.seen is not None and process.seen.blob == state.row.blob
                where = "reading again" if again else "reading"
                yield f"{name} reads the row", turn.at(where, seen=state.row)
        case "reading" | "reading again":
            assert process.seen is not None
            if process.seen.blob in state.objects:
                yield f"{name} reads the blob", turn.at("end")
            elif process.at == "reading" and flaw is not Flaw.READS_ONCE:
                yield f"{name} misses the blob", turn.at("suspicious", seen=process.seen)
            else:
                raise ViolationError(f"{name} takes {process.seen.blob} for corrupt")


_KINDS: dict[str, Callable[[_Turn, Flaw | None], Iterator[Step]]] = {
    "large writer": _large_writer,
    "small writer": _small_writer,
    "deleter": _deleter,
    "collector": _collector,
    "reader": _reader,
}


def _large(operation: str, content: str, *blobs: str) -> Process:
    return Process("large writer", operation, content, blobs)


def _small(operation: str, content: str) -> Process:
    return Process("small writer", operation, content)


def _empty(*processes: Process) -> State:
    return State(processes)


def _holding(content: str, *processes: Process) -> State:
    """The row holds *content* as a blob already."""
    return State(
        processes,
        row=Row("w0", "b0", content),
        ledger=(("b0", Blob(LIVE, content, committed=True)),),
        objects=frozenset({"b0"}),
        committed=frozenset({("w0", 0)}),
    )


_COLLECTOR = Process("collector", "collector")
_READER = Process("reader", "reader")
_DELETER = Process("deleter", "delete")

SCENARIOS: dict[str, State] = {
    "one writer": _empty(_large("w1", "a", "b1"), _COLLECTOR, _READER),
    "one writer that tries twice": _empty(_large("w1", "a", "b1", "b2"), _COLLECTOR),
    "two writers": _empty(_large("w1", "a", "b1"), _large("w2", "b", "b2"), _COLLECTOR),
    "two writers of the same": _empty(_large("w1", "a", "b1"), _large("w2", "a", "b2"), _COLLECTOR),
    "writer, delete, reader": _empty(_large("w1", "a", "b1"), _DELETER, _COLLECTOR, _READER),
    "large and small writer, delete": _empty(
        _large("w1", "a", "b1"), _small("w2", "b"), _DELETER, _COLLECTOR
    ),
    "two small writers, delete": _empty(_small("w1", "a"), _small("w2", "b"), _DELETER),
    "renewal, delete, reader": _holding(
        "a", _large("w1", "a", "b1"), _DELETER, _COLLECTOR, _READER
    ),
    "renewal that tries twice, delete": _holding(
        "a", _large("w1", "a", "b1", "b2"), _DELETER, _COLLECTOR
    ),
    "renewal and another writer": _holding(
        "a", _large("w1", "a", "b1"), _large("w2", "b", "b2"), _COLLECTOR
    ),
}

REFUTED_BY: dict[Flaw, str] = {
    Flaw.NO_FENCE: "one writer",
    Flaw.ONLY_LOOKS: "one writer",
    Flaw.FORGETS_REPLACED: "two writers",
    Flaw.OBJECT_FIRST: "writer, delete, reader",
    Flaw.RENEWS_BLINDLY: "renewal and another writer",
    Flaw.ABANDONS_LIVE: "one writer",
    Flaw.READS_ONCE: "writer, delete, reader",
    Flaw.FORGETS_FIRST: "one writer",
    Flaw.DELETES_UNHELD: "writer, delete, reader",
    Flaw.RESERVES_AGAIN: "one writer",
}
