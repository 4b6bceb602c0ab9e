"""Checks of the sources: is what they watch still there, seen and readable?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rowvec.domain.errors import LockedError, RowvecError, SourceUnreadableError
from rowvec.domain.findings import Finding, Level, problem, warning
from rowvec.domain.windows import judge_window
from rowvec.postgres.connections import Database
from rowvec.postgres.patient import Check, Patient
from rowvec.postgres.row_reader import PostgresRowReader

SHOWN: Final = 3
POLICIES: Final = (
    "Its rows are read as the roles that ran `rowvec migrate` and `rowvec watch`: let them own the table without "
    "FORCE ROW LEVEL SECURITY, or give them BYPASSRLS. A policy would hide rows, which looks like their deletion."
)
READERS: Final = (
    "Its rows are read as the roles that ran `rowvec migrate` and `rowvec watch`: GRANT them SELECT on the table, "
    "USAGE on its schema and EXECUTE on what makes its text."
)


async def look_at_sources(patient: Patient) -> Sequence[Finding]:
    """Tables, columns, keys and views are still there, and nothing is paused."""
    rows = await patient.fetch("examine_sources")
    if not rows:
        return [Finding(Level.OK, "sources", "No table is watched yet.", "Begin with `rowvec watch TABLE`.")]
    return [finding for row in rows for finding in _lost(row) or _weakened(row)]


def _lost(row: dict[str, Any]) -> list[Finding]:
    """Return why a source can't be read at all."""
    name, about = row["content_type"], f"source {row['content_type']}"
    if not row["has_table"]:
        return [problem(about, "Its table is gone.", f"End its watch with `rowvec unwatch {name}`.")]
    if row["lost_columns"]:
        columns = ", ".join(row["lost_columns"])
        return [
            problem(
                about,
                f"Watched columns of {row['relation']} are gone: {columns}.",
                f"Watch it again with the columns that it has: `rowvec watch {row['relation']} "
                f"--content-type {name} --columns ...`.",
            )
        ]
    if row["paused_at"] is None and not row["has_view"]:
        return [
            problem(
                about,
                f"The view rowvec.rows_{name} is gone, and its triggers may be so too.",
                "A column that the condition or the text needs was dropped with all that depends on it. Watch it "
                f"again: `rowvec watch {row['relation']} --content-type {name} --columns ...`.",
            )
        ]
    return []


def _weakened(row: dict[str, Any]) -> list[Finding]:
    """Return what is wrong with a source that can be read."""
    name, about = row["content_type"], f"source {row['content_type']}"
    found = []
    if not row["has_key"]:
        found.append(
            problem(
                about,
                f"Nothing keeps its key unique and NOT NULL any more: {row['relation']} lost the index.",
                "Create the primary key or unique index again; rows of the same key would share their vectors.",
            )
        )
    if row["paused_at"] is not None:
        since = f"{row['paused_at']:%Y-%m-%d %H:%M %Z}"
        found.append(
            warning(about, f"Paused since {since}: its changes are not seen.", f"Go on with `rowvec resume {name}`.")
        )
    return found


async def look_at_triggers(patient: Patient) -> Sequence[Finding]:
    """All triggers are there and fire, also on tables that joined a tree since."""
    return [
        problem(
            f"source {row['content_type']}",
            f"Triggers are missing or disabled, so changes are not seen: {_some(row['triggers'])}.",
            f"`rowvec pause {row['content_type']}`, then `rowvec resume {row['content_type']}`: that puts them back "
            "and makes up for what was missed.",
        )
        for row in await patient.fetch("list_missing_triggers")
    ]


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


async def look_at_reading(patient: Patient) -> Sequence[Finding]:
    """A row of each source can be read in the way that daemons read."""
    rows = await patient.fetch("examine_sources")
    database = Database(patient.dsn, size=1)
    try:
        await database.open()
        sound = [row["content_type"] for row in rows if row["paused_at"] is None and not _lost(row)]
        found = [await _read_one(patient, database, content_type) for content_type in sound]
    finally:
        await database.close()
    return [finding for finding in found if finding is not None]


async def _read_one(patient: Patient, database: Database, content_type: str) -> Finding | None:
    about = f"source {content_type}"
    known = (await patient.fetch("find_row", content_type))[0]["content_id"]
    try:
        # Without an id no row is read, but all rights are looked at.
        await PostgresRowReader(database).read(content_type, [] if known is None else [known])
    except SourceUnreadableError as error:
        if isinstance(error.__cause__, LockedError):
            return warning(about, f"It can't be read: {error.message}", error.hint)
        return problem(about, f"It can't be read: {error.message}", _cure(error))
    except RowvecError as error:
        return warning(about, f"A row can't be read: {error.message}", error.hint)
    return None


def _cure(error: SourceUnreadableError) -> str:
    if "row-level security" in error.message:
        return POLICIES
    return READERS if "permission denied" in error.message else error.hint


async def look_at_windows(patient: Patient) -> Sequence[Finding]:
    """The chunks of every source fit into what the models take at once, as far as that is known."""
    found = [judge_window(**row) for row in await patient.fetch("compare_windows")]
    return [finding for finding in found if finding is not None]


async def look_at_unseen_writes(patient: Patient) -> Sequence[Finding]:
    """Nobody writes in a way that fires no trigger."""
    settings = [_unfired(row["role"], row["database"]) for row in await patient.fetch("list_replica_settings")]
    subscriptions = [
        warning(
            f"source {row['content_type']}",
            f"The subscription {row['subscription']} writes into {row['relations']}, which fires no trigger.",
            f"Its changes are not seen: `rowvec pause {row['content_type']}` and `rowvec resume {row['content_type']}` "
            "compare all rows with their vectors.",
        )
        for row in await patient.fetch("list_subscriptions")
    ]
    return [*settings, *subscriptions]


def _unfired(role: str | None, database: str | None) -> Finding:
    told = f"session_replication_role is set to replica for {_whose(role, database)}: no trigger fires there."
    if role is None:
        return problem("unseen writes", told, "Set it back to origin, then pause and resume every source.")
    return warning("unseen writes", told, "Set it back to origin, unless that role writes to no watched table.")


def _whose(role: str | None, database: str | None) -> str:
    if role is None:
        return "the whole server" if database is None else f"the database {database}"
    return f"the role {role}" + ("" if database is None else f" in {database}")


SOURCE_CHECKS: Final = (
    Check("sources", look_at_sources, "Every watched table is as it was."),
    Check("triggers", look_at_triggers, "Every trigger is there and fires."),
    Check("reading", look_at_reading, "Every source can be read."),
    Check("windows", look_at_windows, "No source has chunks that are known to be too long for a model."),
    Check("unseen writes", look_at_unseen_writes, "Nobody is set to write without firing triggers."),
)
