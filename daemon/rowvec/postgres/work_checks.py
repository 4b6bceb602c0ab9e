"""Checks of the work: who does it, what it stands at, and what slows it down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rowvec.domain.backlog import NO_DAEMON, Backlog, Workers
from rowvec.domain.errors import ConfigurationError
from rowvec.domain.findings import Finding, Level, problem, warning
from rowvec.domain.hnsw import MANY_VECTORS, MOST_DIMENSIONS
from rowvec.domain.registered import check_dimensions
from rowvec.postgres.administration import read_backlogs, read_workers
from rowvec.postgres.patient import Check, Patient

OLD_SECONDS: Final = 300.0
FULL: Final = 0.5


NO_MODEL: Final = warning(
    "models",
    "No model is active: changes are not embedded, and nothing can be searched.",
    "Add one by `rowvec model add`, or set ROWVEC_MODEL_<NAME>_URL for the daemon and `rowvec migrate`.",
)


async def look_at_daemons(patient: Patient) -> Sequence[Finding]:
    """Some daemon lives, lets nothing alone, and all are of one version."""
    rows = await patient.fetch("list_daemons")
    if not rows:
        return [warning("daemons", NO_DAEMON, "Start one with `rowvec run`; until then changes only wait.")]
    resting = sorted({why for row in rows for why in row["resting"]})
    found = [warning("daemons", f"Let alone for a while: {why}", "It is tried again by itself.") for why in resting]
    versions = {row["version"] for row in rows} | {patient.version}
    if len(versions) > 1:
        told = ", ".join(f"{row['host']} {row['pid']} has {row['version']}" for row in rows)
        differ = f"Versions differ: {told}, this program has {patient.version}."
        found.append(warning("daemons", differ, "Bring all to the newest."))
    return found or [Finding(Level.OK, "daemons", f"Living daemons: {len(rows)}.")]


async def look_at_models(patient: Patient) -> Sequence[Finding]:
    """Models in the settings and in the database are the same, and have their tables."""
    rows = await patient.fetch("list_models")
    known = {row["name"]: row["dimensions"] for row in rows}
    lost = [
        problem(
            f"model {row['name']}",
            f"Its table rowvec.vector_{row['name']} is gone.",
            "Delete its row in rowvec.model, then run `rowvec migrate`: it makes the table and queues all rows.",
        )
        for row in await patient.fetch("list_lost_models")
    ]
    none = [] if any(row["active"] for row in rows) else [NO_MODEL]
    return [*none, *_misset(known, patient), *lost, *(_idle(row) for row in rows if not _is_worked_for(row, patient))]


def _misset(known: dict[str, int], patient: Patient) -> list[Finding]:
    """Return why `rowvec run` would refuse to start."""
    found = [
        problem(
            f"model {name}",
            "It is set, but the database does not know it.",
            f"Run `rowvec migrate`; or, if it was dropped, set ROWVEC_MODEL_{name.upper()}_PROVIDER=off.",
        )
        for name in patient.models
        if name not in known
    ]
    for name in sorted(patient.models.keys() & known.keys()):
        try:
            check_dimensions(name, patient.models[name], known[name])
        except ConfigurationError as error:
            found.append(problem("models", error.message, error.hint))
    return found


def _is_worked_for(row: dict[str, Any], patient: Patient) -> bool:
    return bool(row["active"]) and (row["name"] in patient.models or row["served"] is not None)


def _idle(row: dict[str, Any]) -> Finding:
    about, variable = f"model {row['name']}", f"ROWVEC_MODEL_{row['name'].upper()}"
    if not row["active"]:
        return Finding(Level.OK, about, f"It is inactive, no row is queued for it; {variable}_URL would wake it.")
    return warning(
        about,
        "It is active, but not in the settings of this command: daemons with the same settings let its items wait.",
        f"Set {variable}_PROVIDER or _URL, or look where the daemons are set.",
    )


async def look_at_indexes(patient: Patient) -> Sequence[Finding]:
    """No build has left an index that nobody can use; where all vectors are compared, that does not take long."""
    models = {row["name"]: row for row in await patient.fetch("list_models")}
    tables = await patient.fetch("list_model_tables")
    invalid = [_unusable(row["name"]) for row in tables if row["index_state"] == "invalid"]
    return [*invalid, *(_unindexed(row) for row in tables if _wants_index(row, models[row["name"]]))]


def _unusable(model: str) -> Finding:
    return problem(
        f"model {model}",
        "Its index is what an interrupted build left: every write pays for it, and no search has it.",
        f"`rowvec model index {model}` removes it and builds it anew.",
    )


def _wants_index(table: dict[str, Any], model: dict[str, Any]) -> bool:
    fits = model["dimensions"] <= MOST_DIMENSIONS[model["storage"]]
    return bool(model["active"] and fits and table["index_state"] == "none" and table["vectors"] >= MANY_VECTORS)


def _unindexed(table: dict[str, Any]) -> Finding:
    return Finding(
        Level.OK,
        f"model {table['name']}",
        f"It has about {table['vectors']:,} vectors and no index: each search compares all of them.",
        f"`rowvec model index {table['name']}` builds one while all goes on.",
    )


async def look_at_failures(patient: Patient) -> Sequence[Finding]:
    """No item was given up."""
    return [
        warning(
            f"model {row['model']}",
            f"Items given up: {row['failed']}. {row['error_message']}",
            "`rowvec failed list` says which, `rowvec failed retry` queues them again.",
        )
        for row in await patient.fetch("count_failures")
    ]


async def look_at_lateness(patient: Patient) -> Sequence[Finding]:
    """No item waits for longer than its lane's time."""
    daemons, states = await patient.fetch("list_daemons"), await patient.fetch("list_states")
    changes, models = await patient.fetch("count_changes"), await patient.fetch("list_models")
    backlogs = read_backlogs(await patient.fetch("count_items"), changes, models)
    workers = read_workers(daemons, states)
    return [_late(backlog, workers) for backlog in backlogs if backlog.late]


def _late(backlog: Backlog, workers: Workers) -> Finding:
    slot = backlog.slot
    return warning(
        f"lane {slot.lane}",
        f"Items of {slot.content_type} for the model {slot.model} have been due for up to "
        f"{backlog.oldest_seconds:.0f} s; the lane's time is {backlog.within_seconds:.0f} s.",
        " ".join(workers.reasons(backlog)) or "A backlog is worked off: see `rowvec status`.",
    )


async def look_at_transactions(patient: Patient) -> Sequence[Finding]:
    """No old transaction keeps vacuum from its work."""
    return [_held_back(row) for row in await patient.fetch("list_old_transactions", OLD_SECONDS)]


def _held_back(row: dict[str, Any]) -> Finding:
    minutes = f"{row['seconds'] / 60:.0f} minutes"
    effect = "vacuum can't remove dead rows, and the queue grows"
    if row["kind"] == "prepared":
        hint = f"COMMIT PREPARED or ROLLBACK PREPARED '{row['name']}'."
        return warning("transactions", f"{row['name']} of {row['role']}, prepared {minutes} ago: {effect}.", hint)
    who = " ".join(filter(None, [row["role"], row["application_name"]]))
    return warning(
        "transactions",
        f"The session {row['name']} ({who}, {row['state']}) has a transaction {minutes} old: {effect}.",
        f"End it: SELECT pg_terminate_backend({row['name']}); idle_in_transaction_session_timeout prevents it.",
    )


async def look_at_upkeep(patient: Patient) -> Sequence[Finding]:
    """Vacuum comes by itself, and listeners keep up with notifications."""
    upkeep = (await patient.fetch("show_upkeep"))[0]
    found = []
    if not upkeep["autovacuum"]:
        found.append(
            warning("upkeep", "autovacuum is off: the queue grows with dead rows.", "ALTER SYSTEM SET autovacuum = on.")
        )
    if upkeep["notification_queue"] > FULL:
        found.append(
            warning(
                "upkeep",
                f"The queue of notifications is full to {upkeep['notification_queue']:.0%}; at 100% commits fail.",
                "Some session listens inside a transaction that does not end: look for it in pg_stat_activity.",
            )
        )
    return found


WORK_CHECKS: Final = (
    Check("daemons", look_at_daemons, ""),
    Check("models", look_at_models, "All models are set and known."),
    Check("indexes", look_at_indexes, "No index is broken, and none is missed."),
    Check("failed items", look_at_failures, "Nothing has failed."),
    Check("waiting items", look_at_lateness, "Nothing waits for longer than its lane's time."),
    Check("transactions", look_at_transactions, "No old transaction holds back vacuum."),
    Check("upkeep", look_at_upkeep, "Vacuum comes by itself, and notifications are read."),
)
