"""Entries, one at a time and as a list."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import typer

from .. import exits
from ..backend import LTMBackend
from ..errors import InvalidEntryError
from ..jsonl import MAX_LINE_BYTES, parse_json
from ..results import SearchResult, SnippetsResult
from ..searching import MAX_RANKED
from .making import IfVersion, KeyArgument
from .output import channel, emit, left_out, say, stdout, to_text
from .session import Session, UsageError

MAX_INPUT_BYTES = 4 * MAX_LINE_BYTES
PAGE = 500
WHERE = """Only those whose metadata match, such as '{"kind": "note"}'."""


def store(
    session: Session,
    key: KeyArgument,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE|-]", help="JSON; - reads it from stdin.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="VALUE is plain text, not JSON.")] = False,
    file: Annotated[Path | None, typer.Option(help="Read the value from this file.")] = None,
    ttl: Annotated[float | None, typer.Option(help="Seconds until it expires.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object.")] = None,
    if_absent: Annotated[
        bool, typer.Option("--if-absent", help="Only where there is no live entry.")
    ] = False,
    if_version: IfVersion = None,
) -> int:
    """Store a value under a key, replacing what was there."""
    given = _value_given(value, file)
    parsed = _as_text(given) if text else _as_json("VALUE", given)
    more = None if metadata is None else _as_json("--metadata", metadata.encode(errors="replace"))
    emit(
        session.call(
            lambda ltm: ltm.store(
                key,
                parsed,
                metadata=more,
                ttl=ttl,
                if_absent=if_absent,
                if_version=if_version,
            )
        )
    )
    return exits.DONE


def _value_given(value: str | None, file: Path | None) -> bytes:
    if (value is None) == (file is None):
        raise UsageError("give one of VALUE, - for stdin, and --file PATH")
    if file is not None:
        try:
            with file.open("rb") as opened:
                return _limited(opened)
        except OSError as exc:
            raise UsageError(f"--file cannot be read: {exc.strerror}") from None
    if value == "-":
        return _limited(sys.stdin.buffer)
    return cast("str", value).encode(errors="surrogateescape")


def _limited(file: BinaryIO) -> bytes:
    data = file.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise UsageError(f"the input has more than {MAX_INPUT_BYTES} bytes")
    return data


def _as_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError("the text is not UTF-8") from None


def _as_json(what: str, data: bytes) -> Any:
    try:
        return parse_json(data)
    except InvalidEntryError as exc:
        hint = "; plain text needs --text" if what == "VALUE" else ""
        raise UsageError(f"{what} is {exc}{hint}") from None


def get(
    session: Session,
    key: KeyArgument,
    full: Annotated[
        bool, typer.Option("--full", help="Print all that is known of it, not the value alone.")
    ] = False,
) -> int:
    """Print the value under a key as JSON."""
    hit = session.call(lambda ltm: ltm.retrieve(key))
    if full:
        emit(hit.to_dict())
    elif hit.found:
        emit(hit.value)
    return exits.DONE if hit.found else _no_such_key()


def delete(session: Session, key: KeyArgument, if_version: IfVersion = None) -> int:
    """Delete the entry under a key."""
    done = session.call(lambda ltm: ltm.delete(key, if_version=if_version))
    emit(done)
    return exits.DONE if done.deleted else _no_such_key()


def _no_such_key() -> int:
    say("no such key")
    return exits.NOT_FOUND


def list_(
    session: Session,
    prefix: Annotated[str, typer.Argument(help="What the keys start with; no pattern.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; else all.")] = None,
    after: Annotated[str | None, typer.Option(help="Only keys above this one.")] = None,
    where: Annotated[str | None, typer.Option(help=WHERE)] = None,
) -> int:
    """Print entries by key, one a line, without values; name those that are damaged."""
    wanted = None if where is None else _as_json("--where", where.encode(errors="replace"))

    async def pages(ltm: LTMBackend) -> int:
        cursor, left, damaged = after, limit, 0
        told: Collection[str] = ()
        async with channel(stdout()) as out:
            while left is None or left > 0:
                size = PAGE if left is None else min(PAGE, left)
                page = await ltm.list_entries(
                    prefix, metadata_filter=wanted, cursor=cursor, limit=size
                )
                lines = [to_text(entry.to_dict()) + "\n" for entry in page.entries]
                await out.write("".join(lines).encode(sys.stdout.encoding or "utf-8"))
                for key, damage in page.errors.items():
                    if key not in told:  # a page may begin with what the one before ended with
                        left_out(key, damage.error)
                        damaged += 1
                told = page.errors
                left = None if left is None else left - len(page.entries) - len(page.errors)
                if (cursor := page.cursor) is None:
                    break
        return damaged

    if damaged := session.call(pages):
        say(f"damaged entries: {damaged}")
        return exits.STORE_FAILED
    return exits.DONE


def search(
    session: Session,
    query: Annotated[str, typer.Argument(help='Words, "phrases" and beginnings, as in gre*.')],
    limit: Annotated[int, typer.Option(min=1, max=MAX_RANKED, help="At most so many.")] = 10,
    where: Annotated[str | None, typer.Option(help=WHERE)] = None,
    snippets: Annotated[
        bool, typer.Option("--snippets", help="Read each value, and print the piece that matches.")
    ] = False,
) -> int:
    """Print the entries that match a query, best first, one a line, without values."""
    wanted = None if where is None else _as_json("--where", where.encode(errors="replace"))
    session.index_text = True

    async def work(ltm: LTMBackend) -> tuple[SearchResult, SnippetsResult]:
        found = await ltm.search(query, metadata_filter=wanted, limit=limit)
        if not snippets:
            return found, SnippetsResult()
        return found, await ltm.retrieve_snippets(query, [hit.key for hit in found.results])

    found, pieces = session.call(work)
    shown = pieces.to_dict()["snippets"]
    for hit in found.results:
        line = hit.to_dict()
        if snippets:
            line["snippet"] = shown.get(hit.key)
        emit(line)
    damaged = {**found.errors, **pieces.errors}
    for key, damage in damaged.items():
        left_out(key, damage.error)
    say(f"found: {found.total}")
    return exits.STORE_FAILED if damaged else exits.DONE


def stats(session: Session) -> int:
    """Count the entries and blobs of the namespace."""
    emit(session.call(lambda ltm: ltm.stats()))
    return exits.DONE
