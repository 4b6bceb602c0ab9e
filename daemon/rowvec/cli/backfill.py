"""`rowvec backfill`: queues the rows that are there, and shows how far that is."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Final, TypeAlias

import typer
import uvloop
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rowvec.cli.output import Json, console, print_json
from rowvec.domain.errors import TryAgainError, UsageError
from rowvec.postgres.administration import Administration, administration
from rowvec.settings import load_settings

LOOK_SECONDS: Final = 0.5
LINE_SECONDS: Final = 5.0
INTERRUPTED: Final = 130
AWAY_HINT: Final = "What is left of the backfill goes on; give the command again to see it."


@dataclass(frozen=True, slots=True)
class Filling:
    """How far the backfill of a source is for a model.

    Attributes:
        content_type: the source.
        model: its name.
        done: all rows were looked at.
        stopped: by a person, for a while.
        rows: how many were looked at.
        unfolded: changes of theirs on the way into the queue.
        waiting: bulk items that wait or are worked on.
        failed: items that were given up.
        estimate: about how many rows the source has; None: not known.
    """

    content_type: str
    model: str
    done: bool
    stopped: bool
    rows: int
    unfolded: int
    waiting: int
    failed: int
    estimate: int | None

    @property
    def queued(self) -> bool:
        """Whether all rows are in the queue, or were."""
        return self.done and not self.unfolded

    @property
    def settled(self) -> bool:
        """Whether nothing is left that a daemon would do by itself."""
        return self.stopped or (self.queued and not self.waiting)

    @property
    def finished(self) -> int:
        """How many of the rows have their vectors."""
        return max(self.rows - self.unfolded - self.waiting, 0)

    @property
    def total(self) -> int:
        """How many rows there are, as far as it is known."""
        return self.rows if self.done else max(self.estimate or 0, self.rows)


Show: TypeAlias = Callable[[Sequence[Filling]], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose backfill: one source's or all, for one model or all active ones."""

    content_type: str | None
    model: str | None

    async def look(
        self, database: Administration, totals: dict[str, int | None], last_item: int | None = None
    ) -> Sequence[Filling]:
        """Return how far they are, given how many rows the sources have; items later than the last one don't count."""
        return [
            Filling(**row, estimate=totals.get(row["content_type"]))
            for row in await database.backfills(last_item)
            if self.content_type in {None, row["content_type"]} and self.model in {None, row["model"]}
        ]


def backfill(
    source: Annotated[str | None, typer.Argument(help="Its content type; without it, all sources.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="For one model; without it, for all.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Begin anew, even what has not come to its end.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop it, until this command is given again.")] = False,
    wait: Annotated[bool, typer.Option(help="Show its progress until it has come to its end.")] = True,
    json: Json = False,
) -> int:
    """Queue all rows once more, at bulk priority, page by page.

    What has not come to its end is gone on with. The daemon does the work: this command may be ended at will. Texts
    whose vectors are there are not sent to the model again.
    """
    if stop and again:
        raise UsageError("Either --stop or --again: one ends what the other begins.")
    asked = Asked(source, model)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it comes ignored
    try:
        found = uvloop.run(_run(asked, again=again, stop=stop, wait=wait and not stop, json=json))
    except KeyboardInterrupt:
        console(aside=True).print("\nIt goes on in the background. `rowvec backfill --stop` stops it.")
        return INTERRUPTED
    if json:
        print_json([asdict(row) for row in found])
    else:
        console().print(told(found, stop=stop), markup=False)
    return 0


async def _run(asked: Asked, *, again: bool, stop: bool, wait: bool, json: bool) -> Sequence[Filling]:
    async with administration(load_settings().dsn) as database:
        await _check(database, asked)
        if stop:
            await database.stop_backfill(asked.content_type, asked.model)
        else:
            await database.begin_backfill(asked.content_type, asked.model, again=again)
        begun = await asked.look(database, {})
        if begun and not stop and not (await database.status())["daemons"]:
            console(aside=True).print("No daemon is running: it begins when one does.")
        if not wait:
            return begun
        return await follow(database, asked, begun, aside=json)


async def _check(database: Administration, asked: Asked) -> None:
    """Refuse a source or a model that can't be filled."""
    source, model = asked.content_type, asked.model
    paused = {row["content_type"]: row["paused"] for row in await database.sources()}
    if source is not None and source not in paused:
        raise UsageError(f'No source is watched as "{source}".', "See `rowvec sources`.")
    if source is not None and paused[source]:
        raise UsageError(f'The source "{source}" is paused.', f"Begin with `rowvec resume {source}`: it fills it too.")
    active = [row["name"] for row in await database.models() if row["active"]]
    if model is not None and model not in active:
        raise UsageError(f'There is no active model "{model}".', f"Active are: {', '.join(active) or 'none'}.")


async def follow(database: Administration, asked: Asked, begun: Sequence[Filling], *, aside: bool) -> Sequence[Filling]:
    """Show how far it is, until nothing is left that a daemon would do.

    Args:
        database: connected.
        asked: whose backfill.
        begun: how far it was in the beginning.
        aside: say it in lines even in a terminal: the results are for a script.

    Raises:
        UsageError: what was asked for can't be filled any more.
        TryAgainError: some of all that was begun can't.
    """
    totals = await database.estimate_rows(sorted({row.content_type for row in begun}))
    last_item: int | None = None
    with _shown(aside=aside) as show:
        while True:
            found = await asked.look(database, totals, last_item)
            show(found)
            if last_item is None and all(row.queued for row in found):
                # What is written from now on is none of ours: where that never ends, we do.
                last_item = await database.last_item()
            gone = _names(begun) - _names(found)
            if gone or not found:
                await _check(database, asked)
            if gone:
                raise TryAgainError(
                    f"Paused, unwatched or switched off meanwhile: {', '.join(sorted(gone))}.", AWAY_HINT
                )
            if all(row.settled for row in found):
                return found
            await asyncio.sleep(LOOK_SECONDS)


def _names(found: Sequence[Filling]) -> set[str]:
    return {f"{row.content_type} for {row.model}" for row in found}


@contextmanager
def _shown(*, aside: bool) -> Iterator[Show]:
    """Give a way to show the state again and again: bars in a terminal, a line now and then elsewhere."""
    out = console(aside=True)
    if not out.is_terminal or aside:
        yield _Lines().show
        return
    named, rate = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
    columns = (named, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=out) as progress:
        yield _Bars(progress).show


class _Bars:
    """A bar for each source and model."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def show(self, found: Sequence[Filling]) -> None:
        for row in found:
            task = self._tasks.get((row.content_type, row.model)) or self._begin(row)
            self._progress.update(task, completed=row.finished, total=row.total, rate=self._rate(task))

    def _begin(self, row: Filling) -> TaskID:
        task = self._progress.add_task(f"{row.content_type}, {row.model}", completed=row.finished, total=None, rate="")
        self._tasks[row.content_type, row.model] = task
        return task

    def _rate(self, task: TaskID) -> str:
        speed = next(known.speed for known in self._progress.tasks if known.id == task)
        return f"{speed:,.0f} rows/s" if speed else ""


class _Lines:
    """A line for everything together, every few seconds."""

    def __init__(self) -> None:
        self._began = self._said_at = time.monotonic()
        self._at_first: int | None = None

    def show(self, found: Sequence[Filling]) -> None:
        done, total = sum(row.finished for row in found), sum(row.total for row in found)
        self._at_first = done if self._at_first is None else self._at_first
        if time.monotonic() < self._said_at + LINE_SECONDS:
            return
        self._said_at = time.monotonic()
        rate = (done - self._at_first) / (self._said_at - self._began)
        left = f", about {(total - done) / rate:,.0f} s left" if rate > 0 and total > done else ""
        console(aside=True).print(f"{done:,} of about {total:,} rows, {rate:,.0f} rows/s{left}")


def told(found: Sequence[Filling], *, stop: bool) -> str:
    """Return what became of backfills, whether they were to be stopped or to be gone on with."""
    if not found:
        return "There is nothing to fill: no source is watched, all are paused, or no model is active."
    if stop and not any(row.stopped for row in found):
        return "Nothing was to be stopped: all rows were looked at."
    if stop:
        return "Stopped. `rowvec backfill` goes on where it was; what is queued is still embedded."
    if not all(row.settled for row in found):
        return "The daemon does it in the background; see `rowvec status`."
    if any(row.stopped for row in found):
        return "It was stopped by somebody. `rowvec backfill` goes on where it was."
    failed = sum(row.failed for row in found)
    rest = f" {failed:,} items were given up: see `rowvec failed list`." if failed else ""
    return f"Done: {sum(row.rows for row in found):,} rows were looked at.{rest}"
