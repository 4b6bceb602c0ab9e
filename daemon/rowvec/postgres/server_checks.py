"""Checks of what everything rests on: the server, rights, the schema and the listener's connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import asyncpg

from rowvec.domain.errors import ConfigurationError, RowvecError, SchemaOutdatedError
from rowvec.domain.findings import Finding, Level, problem, warning
from rowvec.postgres.connections import close, connect, translated
from rowvec.postgres.migrations import check_schema, check_server, load_migrations
from rowvec.postgres.patient import Check, Patient
from rowvec.postgres.wake_source import CHANNEL

HEARING_SECONDS: Final = 3.0
DIRECT: Final = "Give a direct connection to the same database in ROWVEC_LISTEN_DATABASE_URL."


async def look_at_server(patient: Patient) -> Sequence[Finding]:
    """Postgres and pgvector are there, new enough, and no replica."""
    with translated():
        try:
            await check_server(patient.connection, may_create=False)
        except ConfigurationError as error:
            return [problem("server", error.message, error.hint)]
    server = (await patient.fetch("show_server"))[0]
    if server["vector_version"] is None:
        return [
            problem("server", "The extension vector is not installed in this database.", "Run `rowvec migrate` first.")
        ]
    major = server["server_version"] // 10000
    place = f"pgvector {server['vector_version']} in the schema {server['vector_schema']}"
    return [Finding(Level.OK, "server", f"Postgres {major}, {place}.")]


async def look_at_rights(patient: Patient) -> Sequence[Finding]:
    """The role may run all statements of the daemon."""
    role = (await patient.fetch("show_server"))[0]["role"]
    try:
        missing = [row["missing"] for row in await patient.fetch("list_missing_rights")]
    except SchemaOutdatedError:
        return []  # the check of the schema says it
    except ConfigurationError as error:
        missing = [error.message.removeprefix("The database role lacks a right: ").rstrip(".")]
    if not missing:
        return []
    return [
        problem(
            "rights",
            f"The role {role} can't do a daemon's work; it lacks: {', '.join(missing)}.",
            f"Connect as rowvec_daemon, or let the role that ran `rowvec migrate` run "
            f"SELECT rowvec.grant_daemon_rights('{role}');",
        )
    ]


async def look_at_schema(patient: Patient) -> Sequence[Finding]:
    """The schema is the one that this program knows."""
    try:
        await check_schema(patient.connection)
    except ConfigurationError as error:
        return [problem("schema", error.message, error.hint)]
    known = {migration.version for migration in load_migrations()}
    later = [row["name"] for row in await patient.fetch("list_migrations") if row["version"] not in known]
    if not later:
        return []
    return [
        warning(
            "schema",
            f"The schema is newer than this program, which goes on to work: {', '.join(later)}.",
            "Update the program.",
        )
    ]


async def look_at_listening(patient: Patient) -> Sequence[Finding]:
    """What is notified on one connection is heard on the listener's."""
    try:
        listener = await connect(patient.listen_dsn)
    except RowvecError as error:
        return [problem("listening", f"The listener can't connect: {error.message}", f"{error.hint} {DIRECT}")]
    try:
        heard = await _hears(listener, patient)
    finally:
        await close(listener)
    if heard:
        return []
    return [
        problem(
            "listening",
            f"The listener hears nothing: a NOTIFY did not arrive within {HEARING_SECONDS:g} s.",
            f"A transaction pooler stands between, or it is another database. {DIRECT}",
        )
    ]


async def _hears(listener: asyncpg.Connection[asyncpg.Record], patient: Patient) -> bool:
    heard = asyncio.Event()
    with translated():
        await listener.add_listener(CHANNEL, lambda *_: heard.set())
    await patient.fetch("notify_daemons")
    try:
        async with asyncio.timeout(HEARING_SECONDS):
            await heard.wait()
    except TimeoutError:
        return False
    return True


FOUNDATION: Final = (
    Check("server", look_at_server, ""),
    Check("rights", look_at_rights, "The role may do a daemon's work."),
    Check("schema", look_at_schema, "The schema is that of this program."),
)
"""Nothing else can be looked at before server and schema are right."""
LISTENING: Final = Check("listening", look_at_listening, "NOTIFY arrives.")
