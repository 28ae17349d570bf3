"""What has changed since a moment, and remembering one."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from .. import exits, feed
from ..backend import LTMBackend
from ..results import ChangesResult
from .output import channel, emit, say, stdout, to_text
from .session import Session, UsageError

PAGE = 500


def snapshot(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", show_default=False)] = None,
    delete: Annotated[
        str | None, typer.Option(metavar="ID", help="Forget the snapshot with this id instead.")
    ] = None,
) -> int:
    """Remember this moment under a name; print its id, for changes --since."""
    if name is not None and delete is None:
        emit(session.call(lambda ltm: ltm.create_snapshot(name)))
        return exits.DONE
    if name is not None or delete is None:
        raise UsageError("snapshot needs a name, or --delete and an id")
    done = session.call(lambda ltm: ltm.delete_snapshot(delete))
    emit(done)
    if not done.deleted:
        say("no such snapshot")
    return exits.DONE if done.deleted else exits.NOT_FOUND


def changes(
    session: Session,
    since: Annotated[str | None, typer.Option(help="The id of a snapshot.")] = None,
    cursor: Annotated[
        str | None, typer.Option(help="Where an earlier run ended; else from the beginning.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on for ever with what changes then.")
    ] = False,
    poll: Annotated[
        float, typer.Option(help="Seconds between two looks at most, for --follow.")
    ] = 2.0,
) -> int:
    """Print the keys that have changed, one a line, with their latest state."""
    if since is not None and cursor is not None:
        raise UsageError("--since and --cursor exclude each other")
    feed.check_poll(poll)
    last: str | None = None
    damaged = 0

    async def work(ltm: LTMBackend) -> None:
        nonlocal last, damaged

        async def get_page(after: str | None) -> ChangesResult:
            return await ltm.get_changed_entries(
                since if after is None else None,
                cursor=cursor if after is None else after,
                limit=PAGE,
            )

        async with channel(stdout()) as out:
            async for page in feed.follow(get_page, poll_s=poll if follow else None):
                lines = [to_text(change.to_dict()) + "\n" for change in page.changes]
                await out.write("".join(lines).encode(sys.stdout.encoding or "utf-8"))
                damaged += sum(change.kind == "damaged" for change in page.changes)
                last = page.cursor

    try:
        session.call(work)
    finally:
        if last is not None:
            say(f"go on with --cursor {shlex.quote(last)}")
    if damaged:
        say(f"damaged entries: {damaged}")
        return exits.STORE_FAILED
    return exits.DONE
