"""Measurements: `make bench`. Prints what it measured; nothing here passes or fails.

Everything runs on one machine against an embedded Postgres with fsync on; the model answers at once or pretends to
think, so what is measured is rowvec. Machines differ and are noisy: compare within one run. docs/benchmarks.md says
what each measurement does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

import uvloop

from benchmarks import models, through_qstash, writers
from benchmarks.backlog import measure_backlog
from benchmarks.fairness import measure_fairness
from benchmarks.figures import Latency, Result, Throughput
from benchmarks.index import measure_index
from benchmarks.latency import measure_flow, measure_idle
from benchmarks.memory import measure_memory
from benchmarks.models import measure_models
from benchmarks.scratch import DIMENSIONS, durable_postgres, session_of
from benchmarks.takeover import measure_takeover
from benchmarks.through_qstash import measure_qstash
from benchmarks.throughput import measure_throughput
from benchmarks.writers import measure_writers
from database import MAJOR
from rowvec.embedded import EmbeddedPostgres
from rowvec.logs import configure_logs

Run = Callable[[EmbeddedPostgres, bool], Awaitable[Result]]
RUNS: dict[str, Run] = {
    "commit_to_vector_idle_ms": lambda postgres, quick: measure_idle(postgres, 30 if quick else 200),
    "commit_to_vector_at_500_per_second_ms": lambda postgres, quick: measure_flow(postgres, 500, 3 if quick else 20),
    "throughput_20000_waiting": lambda postgres, _: measure_throughput(postgres, 20_000),
    "models": lambda postgres, quick: measure_models(postgres, models.QUICK if quick else models.FULL),
    "index": lambda postgres, quick: measure_index(postgres, 5_000 if quick else 20_000),
    "writers": lambda postgres, quick: measure_writers(postgres, writers.QUICK if quick else writers.FULL),
    "backlog": lambda postgres, quick: measure_backlog(postgres, 100_000 if quick else 1_000_000, 9 if quick else 31),
    "fairness": lambda postgres, quick: measure_fairness(postgres, 20_000 if quick else 100_000, 6 if quick else 30),
    "memory": lambda postgres, quick: measure_memory(postgres, 200_000 if quick else 1_000_000, 10 if quick else 60),
    "qstash": lambda postgres, quick: measure_qstash(postgres, through_qstash.QUICK if quick else through_qstash.FULL),
    "takeover": lambda postgres, quick: measure_takeover(postgres, 1 if quick else 5),
}


async def measure(names: Sequence[str], quick: bool) -> dict[str, Any]:  # noqa: FBT001 - a flag of the command
    found: dict[str, Any] = {"postgres": MAJOR, "dimensions": DIMENSIONS}
    with durable_postgres() as postgres:
        async with session_of(postgres.dsn) as session:
            found |= {name: await session.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")}
        for name in names or RUNS:
            result = await RUNS[name](postgres, quick)
            show(name, result)
            found[name] = plain(result)
    return found


def show(name: str, result: Result) -> None:
    """Print a result for people, aside from the JSON."""
    lines = [str(figure) for figure in result] if isinstance(result, Sequence) else [str(result)]
    sys.stderr.write("".join(f"{line}\n" for line in (name, *(f"  {line}" for line in lines))))


def plain(result: Result) -> dict[str, Any] | list[dict[str, Any]]:
    if isinstance(result, Latency | Throughput):
        return asdict(result)
    return [asdict(figure) for figure in result]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"which measurements (all): {', '.join(RUNS)}")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller samples: a few minutes")
    given = parser.parse_args()
    if strange := set(given.names) - RUNS.keys():
        parser.error(f"no such measurement: {', '.join(sorted(strange))}")
    configure_logs("warning", "console")
    sys.stdout.write(json.dumps(uvloop.run(measure(given.names, given.quick)), indent=2) + "\n")


if __name__ == "__main__":
    main()
