"""What a measurement found: a value, and how it compares with others of the same run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """How many times another value of the same run; the aim stands beside it and decides nothing."""

    value: float
    of: str
    aim: str = ""

    def __str__(self) -> str:
        return f"{self.value:.2f} of {self.of}" + (f" (aim {self.aim})" if self.aim else "")


@dataclass(frozen=True)
class Figure:
    """One value, with its unit."""

    what: str
    value: float
    unit: str
    ratios: tuple[Ratio, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        compared = "".join(f", {ratio}" for ratio in self.ratios)
        return f"{self.what}: {self.value:,g} {self.unit}{compared}" + (f"; {self.note}" if self.note else "")


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the return of COMMIT to the moment another session sees the vector."""

    samples: int
    p50: float
    p99: float
    worst: float


@dataclass(frozen=True)
class Throughput:
    """Rows a second, and how rowvec compares with nothing but the writing of the same vectors."""

    rows: int
    items_per_second: float
    plain_upserts_per_second: float
    ratio: float


Result = Latency | Throughput | Sequence[Figure]


def latency(seconds: Sequence[float]) -> Latency:
    ordered = sorted(second * 1000 for second in seconds)
    p99 = statistics.quantiles(ordered, n=100, method="inclusive")[98]
    return Latency(len(ordered), round(statistics.median(ordered), 2), round(p99, 2), round(ordered[-1], 2))


def middle_and_worst(what: str, values: Sequence[float], unit: str, aim: str = "") -> list[Figure]:
    """The median and the largest of several values."""
    aimed = f"aim {aim}" if aim else ""
    return [
        Figure(f"{what}, median of {len(values)}", round(statistics.median(values), 3), unit),
        Figure(f"{what}, worst", round(max(values), 3), unit, note=aimed),
    ]
