"""`rowvec model index`: waits for the backfill, then builds the index beside all that goes on."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
import uvloop
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from rowvec.cli.backfill import INTERRUPTED, LINE_SECONDS, Asked, follow
from rowvec.cli.output import Json, console, print_json, size
from rowvec.domain.errors import ConfigurationError, TryAgainError, UsageError
from rowvec.domain.hnsw import MOST_DIMENSIONS, Plan, graph_bytes, make_plan
from rowvec.postgres.administration import Administration, administration
from rowvec.postgres.index_build import Holder, IndexBuild, Shown, Stage, index_build
from rowvec.postgres.model_life import ModelLife
from rowvec.settings import load_settings

MEMORY: Final = re.compile(r"^([1-9][0-9]{0,8}) ?([kMGT])B$")
UNITS: Final[Mapping[str, int]] = {"k": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
LEAST_MEMORY: Final = 1024**2
MOST_MEMORY: Final = 2**31 * 1024 - 1024
"""What `maintenance_work_mem` can be."""
PHASES: Final = (
    ("initializing", "beginning"),
    ("waiting for writers before build", "waiting for old transactions"),
    ("building index", "building"),
    ("waiting for writers before validation", "waiting for old transactions"),
    ("index validation", "adding what was written meanwhile"),
    ("waiting", "waiting for old transactions"),
)
"""How Postgres calls what it does, by its beginning, and what that is."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An index as it was asked for.

    Attributes:
        model: its name.
        m: neighbours of a vector on a layer.
        ef_construction: candidates for them.
        memory_bytes: that the build may take; None: it chooses.
        workers: that help; None: it chooses.
        now: before the backfill has come to its end.
    """

    model: str
    m: int
    ef_construction: int
    memory_bytes: int | None
    workers: int | None
    now: bool


def index(
    name: Annotated[str, typer.Argument(help="The model.")],
    m: Annotated[int, typer.Option(min=2, max=100, help="Neighbours of a vector on a layer.")] = 16,
    ef_construction: Annotated[int, typer.Option(min=4, max=1000, help="Candidates looked at for them.")] = 64,
    memory: Annotated[str | None, typer.Option(help="What the build may take, such as 2GB.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, max=1024, help="Processes that help.")] = None,
    now: Annotated[bool, typer.Option("--now", help="Before the model's backfill has come to its end.")] = False,
    json: Json = False,
) -> int:
    """Build a model's HNSW index, so that searches need not compare all vectors.

    It waits until the model's backfill has come to its end: with an index each vector takes many times longer to
    store. Reading and writing go on meanwhile. Ended with Ctrl-C, it leaves nothing behind.
    """
    if ef_construction < 2 * m:
        raise UsageError(f"--ef-construction must be at least twice --m: {2 * m}.")
    wanted = _Wanted(name, m, ef_construction, None if memory is None else _bytes(memory), workers, now)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it comes ignored
    try:
        done = uvloop.run(_run(wanted, json=json))
    except KeyboardInterrupt:
        console(aside=True).print("\nNo index was built, and nothing of it is left.")
        return INTERRUPTED
    print_json(done) if json else console().print(_told(done), markup=False)
    return 0


def _bytes(memory: str) -> int:
    match = MEMORY.match(memory.strip())
    given = int(match[1]) * UNITS[match[2]] if match else 0
    if not LEAST_MEMORY <= given <= MOST_MEMORY:
        raise UsageError(
            f'"{memory}" is no size that a build can have.', "Such as --memory 800MB or 2GB: 1MB to 2047GB."
        )
    return given


async def _run(wanted: _Wanted, *, json: bool) -> dict[str, Any]:
    dsn = load_settings().dsn
    async with administration(dsn) as database:
        life = ModelLife(database)
        await _check(life, database, wanted)
        async with index_build(dsn, wanted.model) as build:
            if not wanted.now:
                await _await_backfill(database, wanted.model, aside=json)
            row = await life.table(wanted.model)
            if not (row["vectors"] or wanted.now):
                raise TryAgainError(
                    f'There are no vectors of "{wanted.model}" yet.',
                    "With an index each would take many times longer to store; --now builds it all the same.",
                )
            if row["index_state"] == "ready":
                return _described(row, wanted, None, 0.0)
            plan = await _plan(build, row, await _storage(database, wanted.model), wanted)
            began = time.monotonic()
            with _shown(aside=json) as shown:
                built_by = await build.run(plan, wanted.m, wanted.ef_construction, shown)
            return _described(await life.table(wanted.model), wanted, built_by, time.monotonic() - began)


async def _check(life: ModelLife, database: Administration, wanted: _Wanted) -> None:
    """Refuse what can't be built before anything is waited for.

    Raises:
        UsageError: there is no such model, it is too long for an index or has another one.
        ConfigurationError: the role is not the owner's.
    """
    row = await life.table(wanted.model)
    if not row["owned"]:
        raise ConfigurationError(
            f"The database role does not own the table of {wanted.model}, so it can't build its index.",
            "Connect as the role that ran `rowvec migrate`.",
        )
    model = next(model for model in await database.models() if model["name"] == wanted.model)
    _refuse_length(wanted.model, model["dimensions"], model["storage"])
    if row["index_state"] == "ready" and (row["m"], row["ef_construction"]) != (wanted.m, wanted.ef_construction):
        raise UsageError(
            f'There is an index of "{wanted.model}" with other parameters: m {row["m"]}, ef_construction '
            f"{row['ef_construction']}.",
            f"To build it anew: DROP INDEX CONCURRENTLY rowvec.{row['index_name']}, then this command. Searches "
            "compare all vectors until it is there.",
        )


def _refuse_length(name: str, dimensions: int, storage: str) -> None:
    most, longest = MOST_DIMENSIONS[storage], MOST_DIMENSIONS["halfvec"]
    if dimensions <= most:
        return
    advice = f"Add the model under another name with --storage halfvec, which allows {longest:,}."
    raise UsageError(
        f'The vectors of "{name}" are too long for an HNSW index: {dimensions:,} dimensions of {storage}, it takes '
        f"{most:,} at most.",
        advice
        if dimensions <= longest
        else "Choose a model with shorter vectors; these are searched without an index.",
    )


async def _await_backfill(database: Administration, model: str, *, aside: bool) -> None:
    """Wait until all rows that are there have their vectors.

    Raises:
        TryAgainError: somebody has stopped the backfill.
    """
    asked = Asked(None, model)
    begun = await asked.look(database, {})
    if any(not row.settled for row in begun):
        remark = console(aside=True)
        remark.print("Waiting for the backfill: with an index it would be many times slower (--now does not wait).")
        if not (await database.status())["daemons"]:
            remark.print("No daemon is running: the backfill goes on when one does.")
        begun = await follow(database, asked, begun, aside=aside)
    if any(row.stopped for row in begun):
        raise TryAgainError(
            f'The backfill of "{model}" was stopped by somebody.',
            f"`rowvec backfill --model {model}` goes on with it; --now builds the index of what is there.",
        )


async def _storage(database: Administration, name: str) -> tuple[int, str]:
    model = next((row for row in await database.models() if row["name"] == name), None)
    if model is None:
        raise UsageError(f'The model "{name}" was dropped meanwhile.')
    return model["dimensions"], model["storage"]


async def _plan(build: IndexBuild, row: Mapping[str, Any], kind: tuple[int, str], wanted: _Wanted) -> Plan:
    """Choose memory and processes, and say so where it matters."""
    means, graph = await build.means(), graph_bytes(row["vectors"], *kind, wanted.m)
    plan = make_plan(means, row["vectors"], graph, wanted.memory_bytes, wanted.workers)
    remark = console(aside=True)
    if wanted.workers is not None and wanted.workers > means.most_workers:
        remark.print(
            f"The server starts {means.most_workers} processes for parallel work at most: max_worker_processes, "
            "max_parallel_workers."
        )
    if not plan.fits:
        remark.print(
            f"warning: the graph of {row['vectors']:,} vectors takes about {size(plan.graph_bytes)}, the build may "
            f"have {size(plan.memory_bytes)}. What does not fit goes through the disk and takes many times longer: "
            "--memory allows more, if the server has it."
        )
    return plan


def _described(row: Mapping[str, Any], wanted: _Wanted, plan: Plan | None, seconds: float) -> dict[str, Any]:
    """Return what became of it; without a plan, it was there already."""
    return {
        "model": wanted.model,
        "index": f"rowvec.{row['index_name']}",
        "built": plan is not None,
        "m": row["m"],
        "ef_construction": row["ef_construction"],
        "vectors": row["vectors"],
        "bytes": row["index_bytes"],
        "memory_bytes": plan and plan.memory_bytes,
        "workers": plan and plan.workers,
        "seconds": round(seconds, 1),
    }


def _told(done: Mapping[str, Any]) -> str:
    if not done["built"]:
        return f"{done['index']} is there already, {size(done['bytes'])}."
    helped = f" with {done['workers']} processes beside it" if done["workers"] else ""
    return (
        f"Built {done['index']}{helped}: {done['vectors']:,} vectors in {done['seconds']:,.1f} s, "
        f"{size(done['bytes'])}."
    )


@contextmanager
def _shown(*, aside: bool) -> Iterator[Shown]:
    """Give a way to show a build: a bar in a terminal, a line now and then elsewhere."""
    out = console(aside=True)
    if not out.is_terminal or aside:
        yield Shown(_Lines().show, lambda words: out.print(words, markup=False))
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out) as progress:
        task = progress.add_task("beginning", total=None)

        def show(stage: Stage) -> None:
            progress.update(task, description=words_for(stage), completed=stage.done, total=stage.total or None)

        yield Shown(show, lambda words: progress.console.print(words, markup=False))


class _Lines:
    """A line when something else begins, and every few seconds."""

    def __init__(self) -> None:
        self._said, self._said_at = "", time.monotonic()

    def show(self, stage: Stage) -> None:
        words = words_for(stage)
        if words == self._said and time.monotonic() < self._said_at + LINE_SECONDS:
            return
        self._said, self._said_at = words, time.monotonic()
        share = f": {stage.done / stage.total:.0%}" if stage.total and stage.holder is None else ""
        console(aside=True).print(f"{words}{share}", markup=False)


def words_for(stage: Stage) -> str:
    """Return what a build does, for people."""
    words = next((words for begins, words in PHASES if stage.phase.startswith(begins)), stage.phase)
    return f"{words}: {_named(stage.holder)}" if stage.holder else words


def _named(holder: Holder) -> str:
    who = " ".join(filter(None, [holder.role, holder.name]))
    since = "" if holder.seconds is None else f"since {holder.seconds:,.0f} s"
    details = ", ".join(filter(None, [who, holder.state, since]))
    return f"that of session {holder.pid}" + (f" ({details})" if details else "")
