from __future__ import annotations

import asyncio
import json
import random
import uuid
from array import array
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from embedding_rooms import StubEmbedder, make_room
from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.domain.items import Claim, Document, EmbedderTraits, Item, Outcome, Row, Slot, Source
from rowvec.domain.lanes import Lane
from rowvec.domain.owner_shares import OwnerShares
from rowvec.domain.retry import Attempts
from rowvec.health import Pulse
from rowvec.pipeline import claim as claim_module
from rowvec.pipeline.claim import Claimer
from rowvec.pipeline.due_board import EVER, STRAGGLERS, DueBoard
from rowvec.pipeline.line import Line
from rowvec.pipeline.prepare import Preparer
from rowvec.ports import Answered, Embedding, untold
from rowvec.telemetry import Metrics

PATIENCE_SECONDS = 2.0
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SLOT = Slot("m", Lane.BULK, "course")
BATCH = 4


class World:
    """A claimer with its line, between a queue, rows, a model and a store in memory."""

    def __init__(self, claims_at_once: int = 2) -> None:
        self.now = 1000.0
        self.metrics, self.board = Metrics(), DueBoard(lambda: self.now)
        self.due: list[Item] = []
        self.stored: list[int] = []
        self.tokens: set[uuid.UUID] = set()
        self.claims: list[tuple[Slot, uuid.UUID, int, datetime]] = []
        self.tokens_at_claim: list[bool] = []
        self.failures = 0
        self.broken_claim: Exception | None = None
        self.hanging = asyncio.Event()
        self.hanging.set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.embedding = 0
        self.changed = asyncio.Condition()
        self.pulse = Pulse("claim", 30.0, lambda: self.now)
        line = Line(
            Preparer(self, OwnerShares(lambda: self.now)),
            make_room(StubEmbedder(self.embed, 8, 8), self, self.metrics),
            self,
            self,
            self.board,
            Attempts(5),
            random.Random(0),  # noqa: S311 - jitter
            self.metrics,
        )
        self.claimer = Claimer(
            self, self.board, line, Lane.BULK, self.tokens, uuid.uuid4, BATCH, claims_at_once, self.pulse
        )

    def add(self, *ids: int) -> None:
        self.due.extend(Item(one, f"row {one}", 1, 0, NOON) for one in ids)
        self.board.offer([SLOT])

    async def claim(self, slot: Slot, token: uuid.UUID, limit: int, since: datetime) -> Claim:
        self.claims.append((slot, token, limit, since))
        self.tokens_at_claim.append(token in self.tokens)
        await self._tell()
        await self.hanging.wait()
        if self.broken_claim is not None:
            raise self.broken_claim
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailableError("Postgres is away.")
        taken, self.due = self.due[:limit], self.due[limit:]
        return Claim(slot, token, taken)

    async def read(self, content_type: str, content_ids: Sequence[str]) -> tuple[Source, Sequence[Row]] | None:
        rows = [Row(one, None, json.dumps([f"text of {one}"])) for one in content_ids]
        return Source(content_type, ["body"], "{body}", "none", 1000, 0), rows

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:  # noqa: ARG002
        self.embedding += 1
        await self._tell()
        try:
            await self.gate.wait()
        finally:
            self.embedding -= 1
        return [array("f", [float(len(text))]) for text in texts]

    async def find(self, model: str, traits: EmbedderTraits, hashes: Collection[bytes]) -> Mapping[bytes, Embedding]:
        del model, traits, hashes
        return {}

    async def store(
        self, claim: Claim, traits: EmbedderTraits, documents: Sequence[Document], embeddings: Mapping[bytes, Embedding]
    ) -> Outcome:
        del traits, embeddings
        assert claim.token in self.tokens
        ids = [document.item.id for document in documents]
        self.stored.extend(ids)
        await self._tell()
        return Outcome(current=ids)

    async def probe(self, models: Sequence[str], since: datetime) -> Mapping[Slot, datetime]:
        raise NotImplementedError

    async def demote(self, claim: Claim, ids: Sequence[int]) -> None:
        raise NotImplementedError

    async def release(self, claim: Claim, ids: Sequence[int], delay_seconds: float) -> None:
        raise NotImplementedError

    async def fail(self, claim: Claim, delays: Mapping[int, float | None], message: str, detail: str) -> None:
        raise NotImplementedError

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until_claims(self, count: int) -> None:
        await self._until(lambda: len(self.claims) >= count)

    async def until_stored(self, count: int) -> None:
        await self._until(lambda: len(self.stored) >= count)

    async def until_embedding(self, count: int) -> None:
        await self._until(lambda: self.embedding >= count)

    async def _until(self, reached: object) -> None:
        assert callable(reached)
        async with asyncio.timeout(PATIENCE_SECONDS), self.changed:
            await self.changed.wait_for(reached)
        await settle()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run the claimer inside the block; afterwards it stops, and no task is left."""
        before = asyncio.all_tasks()
        task = asyncio.create_task(self.claimer.run())
        await settle()
        try:
            yield task
        finally:
            self.gate.set()
            self.hanging.set()
            self.claimer.stop()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(task, return_exceptions=True)
            assert asyncio.all_tasks() == before


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_module, "OUTAGE_SECONDS", 0.0)


async def test_what_is_offered_is_claimed_and_carried() -> None:
    world = World()
    async with world.running():
        world.add(1, 2)
        await world.until_stored(2)
        assert world.stored == [1, 2]
        assert [(slot, limit, since) for slot, _, limit, since in world.claims] == [(SLOT, BATCH, EVER)]


async def test_a_backlog_is_claimed_to_its_end() -> None:
    world = World()
    async with world.running():
        world.add(*range(5 * BATCH + 1))
        await world.until_stored(5 * BATCH + 1)
        assert sorted(world.stored) == list(range(5 * BATCH + 1))
        assert len(world.claims) == 6


async def test_other_lanes_and_models_are_left_alone() -> None:
    world = World()
    async with world.running():
        world.board.offer([Slot("m", Lane.IMMEDIATE, "course"), Slot("n", Lane.BULK, "course")])
        await settle()
        assert world.claims == []


async def test_the_next_claim_looks_from_the_floor() -> None:
    world = World()
    async with world.running():
        world.add(1)
        await world.until_stored(1)
        world.add(2)
        await world.until_stored(2)
        assert world.claims[1][3] == NOON - STRAGGLERS
        assert timedelta() < STRAGGLERS


async def test_no_more_claims_are_under_way_than_there_is_room() -> None:
    world = World(claims_at_once=3)
    world.gate.clear()
    async with world.running():
        world.add(*range(10 * BATCH))
        await world.until_embedding(3)
        assert (len(world.claims), len(world.tokens)) == (3, 3)
        assert not world.claimer.has_room
        world.gate.set()
        await world.until_stored(10 * BATCH)
        assert world.claimer.has_room


async def test_each_claim_has_a_token_of_its_own_known_before_the_database_knows_it() -> None:
    world = World()
    async with world.running():
        world.add(*range(4 * BATCH))
        await world.until_stored(4 * BATCH)
        tokens = [token for _, token, _, _ in world.claims]
        assert len(set(tokens)) == len(tokens) >= 4
        assert all(world.tokens_at_claim)
        await settle()
        assert world.tokens == set()


async def test_empty_claims_leave_neither_tokens_nor_less_room() -> None:
    world = World(claims_at_once=1)
    async with world.running():
        for expected in range(1, 6):
            world.board.offer([SLOT])
            await world.until_claims(expected)
        assert world.tokens == set()
        assert world.claimer.has_room
        world.add(1)
        await world.until_stored(1)


async def test_before_the_first_claim_there_is_room() -> None:
    world = World(claims_at_once=1)
    assert world.claimer.has_room
    async with world.running():
        assert world.claimer.has_room


async def test_with_the_database_away_the_slot_is_offered_again() -> None:
    world = World(claims_at_once=1)
    world.failures = 4
    async with world.running():
        world.add(1)
        await world.until_stored(1)
        await settle()
        assert len(world.claims) == 5
        assert world.tokens == set()
        assert world.claimer.has_room


async def test_another_error_of_the_queue_ends_it() -> None:
    world = World()
    world.broken_claim = ZeroDivisionError()
    async with world.running() as task:
        world.add(1)
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        assert isinstance(task.exception(), ExceptionGroup)


async def test_stop_while_idle_ends_at_once() -> None:
    world = World()
    async with world.running() as task:
        world.claimer.stop()
        await settle()
        assert task.done()


async def test_stop_lets_what_is_under_way_finish_and_claims_nothing_more() -> None:
    world = World(claims_at_once=2)
    world.gate.clear()
    async with world.running() as task:
        world.add(*range(5 * BATCH))
        await world.until_embedding(2)
        world.claimer.stop()
        world.claimer.stop()
        await settle()
        assert not task.done()
        world.gate.set()
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        assert task.done()
        assert not task.cancelled()
        assert task.exception() is None
        assert sorted(world.stored) == list(range(2 * BATCH))
        assert len(world.claims) == 2
        assert world.tokens == set()


async def test_stop_in_the_middle_of_a_claim_ends_at_once() -> None:
    world = World()
    world.hanging.clear()
    async with world.running() as task:
        world.add(1)
        await world.until_claims(1)
        world.claimer.stop()
        await settle()
        assert task.done()
        assert task.exception() is None
        assert world.tokens == set()


async def test_stop_is_not_forgotten_when_the_cancellation_gets_lost() -> None:
    world = World()
    world.hanging.clear()
    wait = world.hanging.wait

    async def deaf() -> Literal[True]:
        with suppress(asyncio.CancelledError):
            await wait()
        return True

    world.hanging.wait = deaf  # type: ignore[method-assign]
    async with world.running() as task:
        world.add(1)
        await world.until_claims(1)
        world.claimer.stop()
        await settle()
        assert task.done()
        assert world.tokens == set()
        assert world.stored == [1]


async def test_stop_before_run_is_not_forgotten() -> None:
    world = World()
    world.claimer.stop()
    async with asyncio.timeout(0.05):
        await world.claimer.run()


async def test_cancelled_it_leaves_no_task() -> None:
    world = World(claims_at_once=3)
    world.gate.clear()
    async with world.running() as task:
        world.add(*range(5 * BATCH))
        await world.until_embedding(3)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        assert task.cancelled()
        assert world.embedding == 0
        assert world.tokens == set()


@pytest.mark.parametrize("full", [False, True])
async def test_it_gives_signs_of_life_while_nothing_comes(monkeypatch: pytest.MonkeyPatch, *, full: bool) -> None:
    monkeypatch.setattr(claim_module, "LOOK_UP_SECONDS", 0.002)
    world = World(claims_at_once=1)
    async with world.running():
        if full:
            world.gate.clear()
            world.add(1, 2)
            await world.until_embedding(1)
        for now in (2000.0, 3000.0, 4000.0):
            world.now = now
            async with asyncio.timeout(PATIENCE_SECONDS):
                while world.pulse.beaten_at < now:  # noqa: ASYNC110 - a pulse tells nobody
                    await asyncio.sleep(0.001)
        world.gate.set()
        world.add(3)
        await world.until_stored(3 if full else 1)


async def test_looking_up_again_and_again_loses_neither_room_nor_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_module, "LOOK_UP_SECONDS", 0.0005)
    world = World(claims_at_once=2)
    async with world.running():
        for number in range(60):
            world.add(number)
            await asyncio.sleep(0.0005)
        await world.until_stored(60)
        assert sorted(world.stored) == list(range(60))
        assert world.claimer.has_room
        assert world.tokens == set()
