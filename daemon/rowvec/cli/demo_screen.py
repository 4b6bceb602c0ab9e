"""How the demo looks: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

LINE_SECONDS: Final = 0.5
COLUMNS: Final = ("lane", "queued", "processing", "done", "oldest")


@dataclass(frozen=True, slots=True)
class LaneState:
    """What is under way in a lane, in items.

    Args:
        lane: its name.
        queued: wait.
        processing: are worked on.
        done: were finished since the demo began.
        oldest_seconds: age of the oldest that waits or is worked on; 0 when there is none.
    """

    lane: str
    queued: int
    processing: int
    done: int
    oldest_seconds: float

    def cells(self) -> tuple[str, ...]:
        """Return the state as text, in the order of `COLUMNS`."""
        age = f"{self.oldest_seconds:.1f} s" if self.queued + self.processing else "-"
        return self.lane, str(self.queued), str(self.processing), str(self.done), age


ShowLanes: TypeAlias = Callable[[Sequence[LaneState]], None]


class Screen:
    """Where the demo tells its story.

    Args:
        aside: use stderr and plain lines, because stdout carries a document.
        quiet_logs: no log lines are expected to come in between, so a table may be redrawn in place.
    """

    def __init__(self, *, aside: bool, quiet_logs: bool) -> None:
        self._out = Console(stderr=aside, highlight=False, markup=False, emoji=False)
        self._is_live = self._out.is_terminal and not self._out.is_dumb_terminal and not aside and quiet_logs

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line; it is never broken, so that an address can be copied."""
        self._out.print(Text(text, style=style), soft_wrap=True)

    def head(self, text: str) -> None:
        """Print what comes next."""
        self.say()
        self.say(text, style="bold")

    def answers(self, found: Sequence[dict[str, Any]]) -> None:
        """Print what a search found, the nearest first."""
        for place, row in enumerate(found):
            line = f"  {row['score']:.3f}  {row['content_type']:9}  {row['title']}"
            self._out.print(Text(line, style="dim" if place else "green"), no_wrap=True, overflow="ellipsis")

    @contextmanager
    def lanes(self) -> Iterator[ShowLanes]:
        """Give a way to show the lanes again and again; what was shown last stays on the screen."""
        if self._is_live:
            with Live(console=self._out, auto_refresh=False) as live:
                yield lambda lanes: live.update(_table(lanes), refresh=True)
        else:
            yield _Lines(self.say).show


class _Lines:
    """Prints the lanes as a line when they have changed, at most two lines a second, and when all is done."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._began = self._said_at = time.monotonic()
        self._said: list[tuple[int, int, int]] = []
        say("     time  lane queued/processing/done")

    def show(self, lanes: Sequence[LaneState]) -> None:
        counts = [(lane.queued, lane.processing, lane.done) for lane in lanes]
        now = time.monotonic()
        nothing_waits = not any(queued + processing for queued, processing, _ in counts)
        if counts == self._said or (now < self._said_at + LINE_SECONDS and not nothing_waits):
            return
        self._said, self._said_at = counts, now
        told = "   ".join(f"{lane.lane} {lane.queued}/{lane.processing}/{lane.done}" for lane in lanes)
        self._say(f"  {now - self._began:5.1f} s  {told}")


def _table(lanes: Sequence[LaneState]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2))
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "lane" else "right", min_width=len("0000.0 s"))
    for lane in lanes:
        busy = lane.queued + lane.processing
        table.add_row(*lane.cells(), style="yellow" if busy else "green" if lane.done else "dim")
    return table
