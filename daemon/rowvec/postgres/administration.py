"""What commands ask of the database, each on a direct connection of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, astuple, dataclass
from typing import Any, TypeAlias, TypeVar

import asyncpg
import orjson
from pgvector.asyncpg import register_vector

from rowvec.domain.backlog import Backlog, Workers, add_unfolded
from rowvec.domain.errors import SchemaOutdatedError
from rowvec.domain.items import Slot, Watch
from rowvec.domain.lanes import Lane
from rowvec.domain.registered import RegisteredModel, check_dimensions
from rowvec.domain.windows import KNOWN_WINDOWS
from rowvec.ports import Embedding
from rowvec.postgres.connections import close, connect, translated
from rowvec.postgres.locks import run_patiently
from rowvec.postgres.migrations import Migration, check_schema, migrate
from rowvec.postgres.model_registry import read_served
from rowvec.postgres.statements import quote_identifier, statement
from rowvec.postgres.wire_vector import wire_vector

Rows: TypeAlias = Sequence[Mapping[str, Any]]
T = TypeVar("T")


class Administration:
    """The commands' side of the database.

    Args:
        connection: a direct one, synchronous commit on.
        vector_schema: where pgvector lives.
    """

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], vector_schema: str) -> None:
        self._connection = connection
        self._vector = quote_identifier(vector_schema) + ".vector"

    async def add_models(self, models: dict[str, int]) -> list[str]:
        """Register models that are not yet known, name to dimensions; return the new ones.

        Raises:
            ConfigurationError: a known model has other dimensions.
        """
        async with self._connection.transaction(isolation="read_committed"):
            await self._fetch("lock_migrations")
            known = {row["name"]: row["dimensions"] for row in await self._fetch("list_models")}
            for name in sorted(known.keys() & models.keys()):
                check_dimensions(name, models[name], known[name])
            added = [name for name in models if name not in known]
            for name in added:
                await self._fetch("add_model", name, models[name], "cosine", "vector", KNOWN_WINDOWS.get(name), None)
        return added

    async def activate_models(self, names: Iterable[str]) -> list[str]:
        """Give known models items from now on; return those that had none."""
        return [name for name in names if (await self._fetch("activate_model", name))[0]["changed"]]

    async def deactivate_models(self, names: Iterable[str]) -> list[str]:
        """Take models' items away; return those that were active."""
        return [name for name in names if (await self._patiently("deactivate_model", name))[0]["changed"]]

    async def begin_backfill(self, content_type: str | None, model: str | None, *, again: bool) -> None:
        """Go on with the backfills that have not come to their end; where there are none, or `again`, begin anew.

        Args:
            content_type: of one source; None for all.
            model: for one model; None for all that are active.
            again: begin anew whatever has been done.
        """
        await self._patiently("begin_backfill", content_type, model, again)

    async def stop_backfill(self, content_type: str | None, model: str | None) -> None:
        """Stop backfills until somebody goes on with them; arguments as `begin_backfill`."""
        await self._patiently("stop_backfill", content_type, model)

    async def backfills(self, last_item: int | None = None) -> list[dict[str, Any]]:
        """Return how far they are, by source and active model.

        Args:
            last_item: items that came later are not counted.
        """
        return await self._fetch("list_backfills", last_item)

    async def last_item(self) -> int:
        """Return the id of the item that came last; 0 when none waits."""
        return (await self._fetch("find_last_item"))[0]["id"] or 0

    async def estimate_rows(self, content_types: Sequence[str]) -> dict[str, int | None]:
        """Return about how many rows sources have; None where one can't be read."""
        return {row["content_type"]: row["rows"] for row in await self._fetch("estimate_rows", content_types)}

    async def watch(self, wanted: Watch) -> bool:
        """Watch a table; false when it was watched just so before."""
        return bool((await self._patiently("watch_table", *astuple(wanted)))[0]["changed"])

    async def pause(self, content_type: str) -> bool:
        """Take a source's triggers away; false when it is paused already."""
        return bool((await self._patiently("pause_source", content_type))[0]["changed"])

    async def resume(self, content_type: str) -> bool:
        """Watch a paused source again and make up for what nobody saw; false when it is not paused."""
        return bool((await self._patiently("resume_source", content_type))[0]["changed"])

    async def unwatch(self, content_type: str) -> None:
        """End a watch; its items and vectors go."""
        await self._patiently("unwatch_source", content_type)

    async def sources(self) -> list[dict[str, Any]]:
        """Return what is watched."""
        return await self._fetch("list_sources")

    async def models(self) -> list[dict[str, Any]]:
        """Return the registered models; `served` is what its JSON says."""
        rows = await self._fetch("list_models")
        return [{**row, "served": read_served(row["served"])} for row in rows]

    async def find_model(self, name: str | None) -> RegisteredModel | None:
        """Return the model of a name, or the one that is searched by default; None when there is none."""
        rows = [row for row in await self.models() if (row["name"] == name if name else row["is_default"])]
        return RegisteredModel(rows[0]["name"], rows[0]["dimensions"], rows[0]["served"]) if rows else None

    async def missing_rights(self) -> list[str]:
        """Return what the session's role lacks to run a daemon."""
        return [row["missing"] for row in await self._fetch("list_missing_rights")]

    async def status(self) -> dict[str, Any]:
        """Return daemons, models, states of sources, waiting changes and items by lane, from one snapshot."""
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            return {**await self._overview(), "backfills": await self.backfills()}

    async def overview(self, seconds: float) -> dict[str, Any]:
        """Return what `status` does but the backfills: all that a daemon's role may look at.

        Args:
            seconds: the longest that each of its statements may take.

        Raises:
            StatementTimeoutError: one took longer.
        """
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            await self._fetch("limit_statements", f"{seconds * 1000:.0f}ms")
            return await self._overview()

    async def _overview(self) -> dict[str, Any]:
        daemons = await self.daemons()
        models = await self.models()
        states = await self._fetch("list_states")
        changes = await self._fetch("count_changes")
        items = await self._fetch("count_items")
        backlogs = read_backlogs(items, changes, models)
        workers = read_workers(daemons, states)
        return {
            "daemons": daemons,
            "models": models,
            "sources": states,
            "changes": sum(row["unfolded"] for row in changes),
            "items": [_described(backlog, workers) for backlog in backlogs],
        }

    async def failed(self, limit: int) -> list[dict[str, Any]]:
        """Return items that were given up, the newest first."""
        return await self._fetch("list_failed", limit)

    async def retry_failed(self, content_type: str | None, content_id: str | None, model: str | None) -> int:
        """Queue failed items again; return how many."""
        rows = await self._fetch("retry_failed", content_type, content_id, model)
        await self._fetch("notify_daemons")
        return len(rows)

    async def daemons(self) -> list[dict[str, Any]]:
        """Return the living daemons."""
        return [_with_load(row) for row in await self._fetch("list_daemons")]

    async def tasks(self) -> list[dict[str, Any]]:
        """Return when the daemons' tasks were last begun."""
        return await self._fetch("list_tasks")

    async def sent_today(self) -> dict[str, Any]:
        """Return how many messages were sent today (UTC), and with how many items."""
        return (await self._fetch("show_sent"))[0]

    async def search(  # noqa: PLR0913 - the parameters of rowvec.search
        self,
        query: str,
        embedding: Embedding,
        owner: str | None,
        content_types: Sequence[str] | None,
        model: str | None,
        limit: int,
    ) -> list[dict[str, Any]]:
        """Return the rows nearest to an embedding."""
        return await self._fetch("search_vectors", query, wire_vector(embedding), owner, content_types, model, limit)

    async def execute(self, sql: str, *arguments: object) -> list[dict[str, Any]]:
        """Run a statement of the caller's own (the demo's rows)."""
        with translated():
            return [dict(row) for row in await self._connection.fetch(sql, *arguments)]

    async def execute_script(self, sql: str) -> None:
        """Run several statements of the caller's own as one transaction (the demo's tables)."""
        with translated():
            await self._connection.execute(sql)

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run DDL of the caller's own as one transaction, as `run_patiently`."""
        return await run_patiently(self._connection, work)

    async def _fetch(self, name: str, *arguments: object) -> list[dict[str, Any]]:
        return await self.execute(statement(name, vector=self._vector), *arguments)

    async def _patiently(self, name: str, *arguments: object) -> list[dict[str, Any]]:
        return await self.patiently(lambda: self._fetch(name, *arguments))


def read_backlogs(items: Rows, changes: Rows, models: Rows) -> Sequence[Backlog]:
    """Return what waits, by model, lane and source.

    Args:
        items: of `count_items`.
        changes: of `count_changes`.
        models: of `list_models`.
    """
    counted = [
        Backlog(
            Slot(row["model"], Lane(row["lane"]), row["content_type"]),
            queued=row["queued"],
            delayed=row["delayed"],
            processing=row["processing"],
            failed=row["failed"],
            oldest_seconds=row["oldest_seconds"],
        )
        for row in items
    ]
    unfolded = [(row["content_type"], Lane(row["lane"]), row["unfolded"]) for row in changes]
    return add_unfolded(counted, unfolded, [row["name"] for row in models if row["active"]])


def read_workers(daemons: Rows, states: Rows) -> Workers:
    """Return who could work on what waits.

    Args:
        daemons: of `list_daemons`.
        states: of `list_states`.
    """
    resting = [why for row in daemons for why in row["resting"]]
    paused = [row["content_type"] for row in states if row["paused_at"]]
    return Workers(len(daemons), {model for row in daemons for model in row["models"]}, resting, paused)


def _with_load(daemon: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of `list_daemons` with what its models, by name, and its carrier stand at."""
    return {**daemon, "load": orjson.loads(daemon["load"]), "carrier": orjson.loads(daemon["carrier"])}


def _described(backlog: Backlog, workers: Workers) -> dict[str, Any]:
    figures = asdict(backlog)
    del figures["slot"]
    told = {"within_seconds": backlog.within_seconds, "late": backlog.late, "why": workers.reasons(backlog)}
    return {**backlog.slot._asdict(), **figures, **told}


@asynccontextmanager
async def administration(dsn: str) -> AsyncIterator[Administration]:
    """Connect for commands; the schema must fit the program.

    Raises:
        RowvecError: as `connect` and `check_schema`.
    """
    connection = await connect(dsn, None)
    try:
        await check_schema(connection)
        yield await _prepare(connection)
    finally:
        await close(connection)


@dataclass(frozen=True, slots=True)
class Migrated:
    """What `migrate_database` has done.

    Attributes:
        migrations: those that were applied.
        added: models that were not known before.
        activated: models that were inactive before.
        deactivated: models that were active before.
    """

    migrations: Sequence[Migration]
    added: Sequence[str]
    activated: Sequence[str]
    deactivated: Sequence[str]


async def migrate_database(
    dsn: str, models: dict[str, int], off: Collection[str] = (), *, sole: bool = False
) -> Migrated:
    """Migrate, register models and give them items.

    Args:
        dsn: the database's.
        models: those with a provider, name to dimensions.
        off: those that were switched off on purpose.
        sole: nobody else runs daemons on this database: all models that nobody serves are switched off.
    """
    connection = await connect(dsn, None)
    try:
        applied = await migrate(connection)
        database = await _prepare(connection)
        added = await database.add_models(models)
        activated = await database.activate_models(models)
        deactivated = await database.deactivate_models(_unwanted(await database.models(), models, off, sole=sole))
    finally:
        await close(connection)
    return Migrated(applied, added, activated, deactivated)


def _unwanted(known: Rows, models: Collection[str], off: Collection[str], *, sole: bool) -> list[str]:
    """Return the known models that are to be switched off; one that `model add` made needs no settings to be served."""
    lost = {row["name"] for row in known if sole and row["served"] is None} - set(models)
    return [row["name"] for row in known if row["name"] in lost or row["name"] in off]


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> Administration:
    with translated():
        server = await connection.fetchrow(statement("show_server"))
        assert server is not None  # noqa: S101 - a SELECT without FROM has one row
        if server["vector_schema"] is None:
            raise SchemaOutdatedError("The extension vector is not installed here.", "Run `rowvec migrate` first.")
        await register_vector(connection, schema=server["vector_schema"])
    return Administration(connection, server["vector_schema"])
