"""Building the HNSW index of a model beside all that goes on, and clearing away what an interrupted build has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import asyncpg

from rowvec.domain.errors import TryAgainError
from rowvec.domain.hnsw import Means, Plan
from rowvec.postgres.connections import close, connect, translated
from rowvec.postgres.statements import statement

LOOK_SECONDS: Final = 0.5
KILOBYTE: Final = 1024
SHARED_MEMORY: Final = "shared memory"


@dataclass(frozen=True, slots=True)
class Holder:
    """A session whose transaction the build waits for; what may not be seen is empty or None.

    Attributes:
        pid: of its server process.
        role: its user.
        name: its application.
        state: what it does.
        seconds: since its transaction began.
    """

    pid: int
    role: str
    name: str
    state: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a build is.

    Attributes:
        phase: as Postgres calls it.
        done: pages or transactions that are behind it, of those of this phase.
        total: of them; 0 where the phase has no count.
        holder: whom it waits for.
    """

    phase: str
    done: int
    total: int
    holder: Holder | None


@dataclass(frozen=True, slots=True)
class Shown:
    """How a build is told of while it runs.

    Attributes:
        stage: is called again and again with how far it is.
        remark: is called with a sentence.
    """

    stage: Callable[[Stage], None]
    remark: Callable[[str], None]


Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class IndexBuild:
    """Builds the index of one model, which nobody else builds meanwhile.

    Args:
        builder: a direct connection with the lock, on which a statement may take as long as it takes.
        watcher: another, to look and to cancel.
        model: its name.
    """

    def __init__(self, builder: Connection, watcher: Connection, model: str) -> None:
        self._builder = builder
        self._watcher = watcher
        self._model = model

    async def means(self) -> Means:
        """Return what the server lets a build have."""
        with translated():
            return Means(**await self._row("show_means"))

    async def run(self, plan: Plan, m: int, ef_construction: int, shown: Shown) -> Plan:
        """Build the index; return the plan that it was built by. Cancelled, it leaves nothing behind.

        Args:
            plan: memory and processes.
            m: neighbours of a vector on a layer.
            ef_construction: candidates that are looked at for them.
            shown: how it is told of.

        Raises:
            TryAgainError: somebody cancelled it.
            RowvecError: the database refused or was lost.
        """
        with translated():
            text = await self._row("compose_index", self._model, m, ef_construction)
            if text["left_over"]:
                # Of a build that was killed: invalid, and still kept up to date by every write.
                shown.remark("Removing what an interrupted build has left, when transactions older than that are over.")
                await self._builder.execute(text["removal"])
            listen = _noted(shown)
            self._builder.add_log_listener(listen)
            try:
                return await self._build(plan, text["creation"], text["removal"], shown)
            except asyncpg.QueryCanceledError as error:
                raise TryAgainError("The build was cancelled in the database.", "Nothing of it is left.") from error
            finally:
                self._builder.remove_log_listener(listen)

    async def _build(self, plan: Plan, creation: str, removal: str, shown: Shown) -> Plan:
        try:
            await self._attempt(plan, creation, removal, shown)
        except asyncpg.DiskFullError as error:
            if not plan.workers or SHARED_MEMORY not in str(error):
                raise
            shown.remark(
                "The server has too little shared memory for several processes (a container's /dev/shm, most often): "
                "the index is built by one."
            )
            plan = replace(plan, workers=0)
            await self._attempt(plan, creation, removal, shown)
        return plan

    async def _attempt(self, plan: Plan, creation: str, removal: str, shown: Shown) -> None:
        await self._builder.fetch(statement("prepare_build"), plan.memory_bytes // KILOBYTE, plan.workers)
        building = asyncio.create_task(self._builder.execute(creation))
        try:
            while not (await asyncio.wait({building}, timeout=LOOK_SECONDS))[0]:
                if (stage := await self._look()) is not None:
                    shown.stage(stage)
            await building
        except BaseException:
            shown.remark("Removing what was begun.")
            await self._give_up(building, removal)
            raise

    async def _look(self) -> Stage | None:
        rows = await self._watcher.fetch(statement("show_build"), self._builder.get_server_pid())
        return _stage(dict(rows[0])) if rows else None

    async def _give_up(self, building: asyncio.Task[Any], removal: str) -> None:
        """End a build and remove what it has left, as far as the database is there."""
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if not building.done():
                await self._watcher.fetch(statement("cancel_build"), self._builder.get_server_pid())
                await asyncio.wait({building})
                building.exception()  # is known: it was cancelled
            await self._builder.execute(removal)

    async def _row(self, name: str, *arguments: object) -> dict[str, Any]:
        return dict((await self._watcher.fetch(statement(name), *arguments))[0])


def _noted(shown: Shown) -> Callable[[Any, Any], None]:
    """Return a listener that passes on what the server remarks: that the graph has no more room."""

    def listen(_: object, message: Any) -> None:  # noqa: ANN401 - the driver has no type for it
        shown.remark(f"{message.message}. {message.detail or ''}".rstrip())

    return listen


def _stage(row: dict[str, Any]) -> Stage:
    waits = row["phase"].startswith("waiting")
    done, total = ("lockers_done", "lockers_total") if waits else ("blocks_done", "blocks_total")
    return Stage(row["phase"], row[done] or 0, row[total] or 0, _holder(row) if row["holder"] else None)


def _holder(row: dict[str, Any]) -> Holder:
    return Holder(
        row["holder"],
        row["holder_role"] or "",
        row["holder_name"] or "",
        row["holder_state"] or "",
        row["holder_seconds"],
    )


@asynccontextmanager
async def index_build(dsn: str, model: str) -> AsyncIterator[IndexBuild]:
    """Connect, and keep others from building the same index meanwhile.

    Raises:
        TryAgainError: somebody else does.
        RowvecError: as `connect`.
    """
    builder, watcher = await connect(dsn, None), await connect(dsn)
    try:
        with translated():
            locked = (await builder.fetch(statement("lock_index"), model))[0]["locked"]
        if not locked:
            raise TryAgainError(
                f'Somebody else is building the index of "{model}".', "`rowvec model list` shows how far it is."
            )
        yield IndexBuild(builder, watcher, model)
    finally:
        await close(watcher)
        await close(builder)
