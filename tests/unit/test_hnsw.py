from __future__ import annotations

import pytest

from rowvec.domain.coverage import Coverage, join
from rowvec.domain.hnsw import FEW_VECTORS, Means, graph_bytes, make_plan

MB = 1024**2
MEANS = Means(memory_bytes=64 * MB, cache_bytes=4096 * MB, usual_workers=2, most_workers=8)


@pytest.mark.parametrize(("vectors", "dimensions"), [(11179, 384), (33683, 8)])
def test_a_graph_takes_what_pgvector_says_that_it_takes(vectors: int, dimensions: int) -> None:
    """So many fitted into 24 MB, by the NOTICE of pgvector 0.8.5 with m = 16."""
    assert graph_bytes(vectors, dimensions, "vector", 16) == pytest.approx(24 * MB, rel=0.03)


def test_half_the_bits_take_half_the_room_of_the_numbers() -> None:
    whole, half = (graph_bytes(1000, 1024, storage, 16) for storage in ("vector", "halfvec"))
    assert whole - half == 1000 * 1024 * 2


@pytest.mark.parametrize(("graph", "memory"), [(1 * MB, 64 * MB), (500 * MB, 550 * MB), (9000 * MB, 1024 * MB)])
def test_memory_is_what_the_graph_takes_within_what_the_server_can_have(graph: int, memory: int) -> None:
    assert make_plan(MEANS, 1_000_000, graph, None, None).memory_bytes == pytest.approx(memory)


def test_a_server_that_sets_more_keeps_it() -> None:
    generous = Means(memory_bytes=2048 * MB, cache_bytes=64 * MB, usual_workers=2, most_workers=8)
    assert make_plan(generous, 1_000_000, 9000 * MB, None, None).memory_bytes == 2048 * MB


def test_a_person_may_allow_more_or_less() -> None:
    plan = make_plan(MEANS, 1_000_000, 100 * MB, 10 * MB, None)
    assert (plan.memory_bytes, plan.fits) == (10 * MB, False)
    assert make_plan(MEANS, 1_000_000, 9000 * MB, 9000 * MB, None).fits


@pytest.mark.parametrize(("asked", "workers"), [(None, 2), (0, 0), (4, 4), (64, 8)])
def test_as_many_processes_as_were_asked_for_and_the_server_starts(asked: int | None, workers: int) -> None:
    assert make_plan(MEANS, FEW_VECTORS, MB, None, asked).workers == workers
    assert make_plan(MEANS, FEW_VECTORS - 1, MB, None, asked).workers == 0


def test_what_waits_has_failed_or_was_not_looked_at_is_not_current() -> None:
    part = Coverage(total=10, waiting=2, failed=1, unseen=3)
    assert (part.current, part.share) == (4, 0.4)
    assert Coverage(total=1, waiting=5, failed=0, unseen=0).current == 0
    assert Coverage(total=0, waiting=0, failed=0, unseen=0).share == 1


def test_what_is_not_known_of_one_source_is_not_known_of_all() -> None:
    known = Coverage(total=10, waiting=1, failed=0, unseen=0)
    assert join([known, known]) == Coverage(total=20, waiting=2, failed=0, unseen=0)
    unknown = join([known, Coverage(total=None, waiting=1, failed=0, unseen=0)])
    assert (unknown.current, unknown.share, unknown.waiting) == (None, None, 2)
