"""What an HNSW index of pgvector takes: memory for its graph, processes, and how many dimensions it bears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MOST_DIMENSIONS: Final[Mapping[str, int]] = {"vector": 2000, "halfvec": 4000}
"""That an index takes, by the storage of the vectors."""
NUMBER_BYTES: Final[Mapping[str, int]] = {"vector": 4, "halfvec": 2}
ELEMENT_BYTES: Final = 200
"""Of a vector in the graph besides its numbers and neighbours. Measured with pgvector 0.8.5; see docs/models.md."""
NEIGHBOUR_BYTES: Final = 33
"""Times `m`: twice as many on the lowest layer, 16 bytes each, and the few of those above."""
SPARE: Final = 1.1
FEW_VECTORS: Final = 10_000
"""So few are indexed before other processes have begun."""
MANY_VECTORS: Final = 50_000
"""From so many on, a search that compares all of them is slow."""
CACHE_SHARE: Final = 4
"""Of `effective_cache_size`, by which the server says how much memory it can count on, a build may take a fourth."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the server lets a build have.

    Attributes:
        memory_bytes: its `maintenance_work_mem`.
        cache_bytes: its `effective_cache_size`.
        usual_workers: its `max_parallel_maintenance_workers`.
        most_workers: as many processes as it starts for parallel work at all.
    """

    memory_bytes: int
    cache_bytes: int
    usual_workers: int
    most_workers: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How an index is to be built.

    Attributes:
        graph_bytes: about what its graph takes.
        memory_bytes: what it may take before the build goes on through the disk.
        workers: how many processes help.
    """

    graph_bytes: int
    memory_bytes: int
    workers: int

    @property
    def fits(self) -> bool:
        """Whether the graph has room in the memory."""
        return self.graph_bytes <= self.memory_bytes


def graph_bytes(vectors: int, dimensions: int, storage: str, m: int) -> int:
    """Return about how much memory a graph takes while it is built.

    Args:
        vectors: how many.
        dimensions: of each.
        storage: vector or halfvec.
        m: how many neighbours a vector has on a layer.
    """
    return vectors * (dimensions * NUMBER_BYTES[storage] + NEIGHBOUR_BYTES * m + ELEMENT_BYTES)


def make_plan(means: Means, vectors: int, graph: int, memory_bytes: int | None, workers: int | None) -> Plan:
    """Choose memory and processes: as much as the graph takes, within what the server can have.

    Args:
        means: of the server.
        vectors: how many there are.
        graph: what their graph takes, in bytes.
        memory_bytes: what a person allows; None: at most a share of what the server counts on, never less than it sets.
        workers: how many a person wants; None: what the server sets.
    """
    bound = max(means.memory_bytes, means.cache_bytes // CACHE_SHARE)
    wanted = max(means.memory_bytes, min(int(graph * SPARE), bound))
    helping = means.usual_workers if workers is None else workers
    return Plan(graph, memory_bytes or wanted, min(helping, means.most_workers) if vectors >= FEW_VECTORS else 0)
