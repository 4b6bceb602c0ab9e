"""What the writers did to each row, so that a wrong one can be explained."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

KEPT = 20


class Step(NamedTuple):
    """One statement.

    Attributes:
        table: the one it wrote.
        keys: the rows it may have touched; None for all.
        what: says what it did.
    """

    table: str
    keys: Sequence[int] | None
    what: str


@dataclass
class Journal:
    """The last steps that touched each key, in the order in which their transactions ended."""

    began: float = field(default_factory=time.monotonic)
    transactions: int = 0
    rolled_back: int = 0
    steps: int = 0
    _lines: dict[tuple[str, int | None], deque[tuple[int, str]]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=KEPT))
    )

    def close(self, who: str, steps: Iterable[Step], outcome: str) -> None:
        """Write down a transaction that has ended."""
        self.transactions += 1
        self.rolled_back += outcome != "committed"
        for step in steps:
            self.steps += 1
            line = f"{time.monotonic() - self.began:8.3f} s  {who} {step.what}, {outcome}"
            for key in [None] if step.keys is None else step.keys:
                self._lines[step.table, key].append((self.steps, line))

    def of(self, table: str, key: int) -> str:
        """Return the last steps that touched a row."""
        both = sorted([*self._lines[table, key], *self._lines[table, None]])
        return "\n".join(f"    {line}" for _, line in both[-KEPT:])
