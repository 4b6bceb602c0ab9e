"""All checks of `rowvec doctor`, each of which fails alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

from rowvec.domain.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    RowvecError,
    SchemaNewerError,
    SchemaOutdatedError,
)
from rowvec.domain.findings import Diagnosis, Finding, Level
from rowvec.postgres.connections import close, connect
from rowvec.postgres.patient import Check, Patient
from rowvec.postgres.server_checks import FOUNDATION, LISTENING
from rowvec.postgres.source_checks import SOURCE_CHECKS
from rowvec.postgres.work_checks import WORK_CHECKS

BASIC: Final = {"server", "schema"}


async def diagnose(dsn: str, listen_dsn: str, models: Mapping[str, int], version: str) -> Diagnosis:
    """Look at everything that an operator would otherwise find out the hard way.

    Args:
        dsn: of the database, as the role to be looked at.
        listen_dsn: of the listener.
        models: those that are set, name to dimensions.
        version: of this program.

    Raises:
        DatabaseUnavailableError: the database can't be reached, or was lost.
        ConfigurationError: it refuses the connection.
        SchemaNewerError: its schema must not be touched by this program.
    """
    connection = await connect(dsn)
    try:
        patient = Patient(connection, dsn, listen_dsn, models, version)
        found = await _look(FOUNDATION, patient)
        complete = not any(finding.level == Level.PROBLEM and finding.about in BASIC for finding in found)
        if complete:
            found += await _look((LISTENING, *SOURCE_CHECKS, *WORK_CHECKS), patient)
    finally:
        await close(connection)
    return Diagnosis(tuple(found), complete)


async def _look(checks: Sequence[Check], patient: Patient) -> list[Finding]:
    return [finding for check in checks for finding in await _look_once(check, patient)]


async def _look_once(check: Check, patient: Patient) -> Sequence[Finding]:
    try:
        found = await check.look(patient)
    except SchemaNewerError:
        raise
    except (RowvecError, asyncpg.PostgresError) as error:
        if patient.connection.is_closed():
            raise
        return [_unseen(check, error)]
    return found or [Finding(Level.OK, check.about, check.well)]


def _unseen(check: Check, error: RowvecError | asyncpg.PostgresError) -> Finding:
    """Return the finding of a check that could not be made: a missing right or a lock says nothing of the database."""
    message, hint = (error.message, error.hint) if isinstance(error, RowvecError) else (f"{error}.", "")
    passing = isinstance(error, ConfigurationError | DatabaseUnavailableError) and not isinstance(
        error, SchemaOutdatedError
    )
    level = Level.WARNING if passing else Level.PROBLEM
    return Finding(level, check.about, f"This could not be looked at: {message}", hint)
