"""Keeping house: what has expired or is in nobody's use, and whether all agrees."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated, Any

import typer

from .. import exits
from ..backend import LTMBackend
from ..results import Result, VerifyResult
from .output import emit, progress, say
from .session import Session, UsageError

PAGE = 500


def cleanup(
    session: Session,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; else all.")] = None,
) -> int:
    """Delete expired entries, and their blobs."""

    async def clean_up(ltm: LTMBackend) -> dict[str, Any]:
        deleted = blobs_deleted = 0
        errors: list[str] = []
        expired = (await ltm.stats()).expired if sys.stderr.isatty() else None
        with progress("cleaning up", expired) as advance:
            while limit is None or deleted < limit:
                page = PAGE if limit is None else min(PAGE, limit - deleted)
                done = await ltm.cleanup_expired(page)
                deleted += done.deleted
                blobs_deleted += done.blobs_deleted
                errors += done.errors
                advance(done.deleted)
                if done.deleted < page:
                    break
        return {
            "success": True,
            "deleted": deleted,
            "blobs_deleted": blobs_deleted,
            "errors": errors,
        }

    emit(session.call(clean_up))
    return exits.DONE


def gc(
    session: Session,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="List the storage too, and delete what this catalog does not know. "
            "No other catalog may keep the namespace there.",
        ),
    ] = False,
    stray_age_days: Annotated[
        float, typer.Option(min=0.0, help="How old those must be, for --audit.")
    ] = 7.0,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 10_000,
) -> int:
    """Delete blobs that no entry has any more."""

    async def collect(ltm: LTMBackend) -> Result:
        with progress("collecting"):
            return await ltm.collect_garbage(
                limit=limit,
                dry_run=dry_run,
                audit=audit,
                stray_age=_days(stray_age_days),
            )

    emit(session.call(collect, patient=True))
    return exits.DONE


def _days(days: float) -> timedelta:
    try:
        return timedelta(days=days)
    except (OverflowError, ValueError):
        raise UsageError("--stray-age-days is beyond all calendars") from None


def verify(session: Session) -> int:
    """Read everything, and prove that all agrees."""

    async def prove(ltm: LTMBackend) -> VerifyResult:
        with progress("verifying"):
            return await ltm.verify()

    found = session.call(prove, patient=True)
    emit(found)
    if not found.sound:
        say(f"{len(found.problems)} problems were found")
    return exits.DONE if found.sound else exits.NOT_FOUND
