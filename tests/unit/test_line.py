from __future__ import annotations

import asyncio
import json
import math
import random
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

import pytest

from clocks import FakeClock
from embedding_rooms import StubEmbedder, make_room, recovered
from rowvec.domain.errors import (
    DatabaseUnavailableError,
    ModelMisbehavedError,
    ModelUnavailableError,
    SourceUnreadableError,
    StoppingError,
    TextRejectedError,
)
from rowvec.domain.items import Claim, Document, EmbedderTraits, Item, Outcome, Row, Slot, Source
from rowvec.domain.lanes import Lane
from rowvec.domain.owner_shares import OwnerShares
from rowvec.domain.retry import Attempts
from rowvec.pipeline import line as line_module
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.line import SOURCE_REST_SECONDS, STORE_TRIES, Line
from rowvec.pipeline.prepare import LONG_CHARACTERS, Preparer
from rowvec.ports import Answered, Embedding, untold
from rowvec.telemetry import Metrics

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SLOT = Slot("m", Lane.BULK, "course")
AWAY = ModelUnavailableError("The model is away.")
GONE = DatabaseUnavailableError("Postgres is away.")


class World:
    """A line between doors in memory. What is broken is set on it: each hook may raise."""

    def __init__(self) -> None:
        self.clock, self.metrics = FakeClock(), Metrics()
        self.model = StubEmbedder(lambda texts: self.embed(texts), 2, 8)  # noqa: PLW0108 - tests replace it
        self.board = DueBoard(self.clock)
        self.texts: dict[str, str] = {}
        self.watched: Source | None = Source("course", ["body"], "{body}", "none", 1000, 0)
        self.vectors: dict[bytes, Embedding] = {}
        self.stored: dict[int, Document] = {}
        self.prepared: list[list[str]] = []
        self.requests: list[list[str]] = []
        self.stores: list[list[int]] = []
        self.released: list[int] = []
        self.demoted: list[int] = []
        self.failed: dict[int, tuple[float | None, str, str]] = {}
        self.fails: Counter[int] = Counter()
        self.on_read: Callable[[Sequence[str]], None] = lambda _: None
        self.on_embed: Callable[[Sequence[str]], None] = lambda _: None
        self.on_store: Callable[[Sequence[Document]], Outcome | None] = lambda _: None
        self.on_release: Callable[[Sequence[int]], None] = lambda _: None
        self.room = make_room(self.model, self, self.metrics, self.clock, self.board)
        self.line = Line(
            Preparer(self, OwnerShares(self.clock)),
            self.room,
            self,
            self,
            self.board,
            Attempts(5),
            random.Random(0),  # noqa: S311 - jitter
            self.metrics,
        )

    def claimed(self, count: int, retry_count: int = 0) -> Claim:
        items = [Item(number, f"row {number}", 1, retry_count, NOON) for number in range(count)]
        self.texts = {item.content_id: f"text of {item.content_id}" for item in items}
        return Claim(SLOT, uuid.uuid4(), items)

    async def read(self, content_type: str, content_ids: Sequence[str]) -> tuple[Source, Sequence[Row]] | None:
        assert content_type == "course"
        self.prepared.append(list(content_ids))
        await asyncio.sleep(0)
        self.on_read(content_ids)
        if self.watched is None:
            return None
        rows = [Row(one, "ann", json.dumps([self.texts[one]])) for one in content_ids if one in self.texts]
        return self.watched, rows

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:  # noqa: ARG002
        self.requests.append(list(texts))
        await asyncio.sleep(0)
        self.on_embed(texts)
        return [array("f", [float(len(text))]) for text in texts]

    async def find(self, model: str, traits: EmbedderTraits, hashes: Collection[bytes]) -> Mapping[bytes, Embedding]:
        assert (model, traits) == ("m", self.model.traits)
        return {one: self.vectors[one] for one in hashes if one in self.vectors}

    async def store(
        self, claim: Claim, traits: EmbedderTraits, documents: Sequence[Document], embeddings: Mapping[bytes, Embedding]
    ) -> Outcome:
        assert claim.slot._replace(lane=Lane.BULK) == SLOT
        assert traits == self.model.traits
        self.stores.append([document.item.id for document in documents])
        await asyncio.sleep(0)
        outcome = self.on_store(documents) or Outcome(current=[document.item.id for document in documents])
        for document in documents:
            if document.item.id in outcome.refused:
                continue
            for chunk in document.chunks:
                self.vectors[chunk.hash] = embeddings[chunk.hash]
            assert document.item.id not in self.stored
            self.stored[document.item.id] = document
        return outcome

    async def probe(self, models: Sequence[str], since: datetime) -> Mapping[Slot, datetime]:
        raise NotImplementedError

    async def claim(self, slot: Slot, token: uuid.UUID, limit: int, since: datetime) -> Claim:
        raise NotImplementedError

    async def demote(self, claim: Claim, ids: Sequence[int]) -> None:
        assert claim.slot.lane is Lane.IMMEDIATE
        self.demoted.extend(ids)

    async def release(self, claim: Claim, ids: Sequence[int], delay_seconds: float) -> None:
        assert claim.slot._replace(lane=Lane.BULK) == SLOT
        assert delay_seconds == 0.0
        self.on_release(ids)
        self.released.extend(ids)

    async def fail(self, claim: Claim, delays: Mapping[int, float | None], message: str, detail: str) -> None:
        assert claim.slot == SLOT
        self.fails.update(delays.keys())
        self.failed.update({one: (delay, message, detail) for one, delay in delays.items()})

    def count(self, outcome: str) -> float:
        labels = {"model": "m", "lane": "bulk", "outcome": outcome}
        return self.metrics.registry.get_sample_value("rowvec_items_total", labels) or 0.0

    async def is_resting(self) -> bool:
        task = asyncio.create_task(self.board.take("m", Lane.BULK))
        for _ in range(5):
            await asyncio.sleep(0)
        resting = not task.done()
        task.cancel()
        if resting:
            await asyncio.gather(task, return_exceptions=True)
        else:
            self.board.offer([await task])
        return resting


def raises_for(*poison: str, error: Exception) -> Callable[[Sequence[str]], None]:
    def check(texts: Sequence[str]) -> None:
        if any(one in text for one in poison for text in texts):
            raise error

    return check


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "STORE_PAUSE_SECONDS", 0.0)


@pytest.fixture
def world() -> World:
    return World()


async def carry(world: World, claim: Claim) -> None:
    tasks = asyncio.all_tasks()
    async with asyncio.timeout(10):
        await world.line.carry(claim)
    assert asyncio.all_tasks() == tasks


async def test_a_claim_is_read_embedded_and_stored(world: World) -> None:
    await carry(world, world.claimed(20))
    assert sorted(world.stored) == list(range(20))
    assert [len(ids) for ids in world.prepared] == [20]
    assert [len(ids) for ids in world.stores] == [20]
    assert (world.released, world.failed) == ([], {})
    assert world.count("current") == 20


async def test_a_row_that_is_gone_is_stored_as_nothing(world: World) -> None:
    claim = world.claimed(3)
    del world.texts["row 1"]
    await carry(world, claim)
    assert world.stored[1].chunks == ()
    assert world.stored[0].chunks[0].text == "text of row 0"
    assert world.stored[0].owner == "ann"


async def test_a_source_that_is_not_watched_has_no_rows(world: World) -> None:
    world.watched = None
    await carry(world, world.claimed(3))
    assert [found.chunks for found in world.stored.values()] == [(), (), ()]
    assert world.requests == []


async def test_long_texts_are_cut_as_short_ones(world: World) -> None:
    claim = world.claimed(2)
    world.texts["row 0"] = "word " * LONG_CHARACTERS
    await world.line.carry(claim)  # a thread of the loop's executor is left
    assert world.stored[0].chunks[0].text == ("word " * LONG_CHARACTERS).strip()
    assert sorted(world.stored) == [0, 1]


LIMIT = 2 * math.ceil(math.log2(500)) + 1
EXTRA_REQUESTS = int(2 * math.log2(500))


@pytest.mark.parametrize("request_texts", [8, 64, 500])
@pytest.mark.parametrize("place", [0, 1, 249, 250, 377, 499])
@pytest.mark.parametrize("stage", ["read", "embed", "store"])
@pytest.mark.parametrize(
    "error", [ValueError("a bug"), TextRejectedError("Too long."), ModelMisbehavedError("Short.")], ids=repr
)
async def test_one_poisoned_item_among_500_is_found_fast_and_alone(
    world: World, stage: str, place: int, error: Exception, request_texts: int
) -> None:
    world.model.request_texts = request_texts
    claim = world.claimed(500)
    poison = raises_for(f"row {place}|", error=error)
    world.on_read = (lambda ids: poison([f"{one}|" for one in ids])) if stage == "read" else world.on_read
    world.on_embed = (lambda texts: poison([f"{one}|" for one in texts])) if stage == "embed" else world.on_embed
    if stage == "store":
        world.on_store = lambda documents: poison([f"{one.item.content_id}|" for one in documents])
    await carry(world, claim)
    assert sorted(world.stored) == [number for number in range(500) if number != place]
    assert world.fails == {place: 1}
    assert (world.failed[place][0] is None) == isinstance(error, TextRejectedError)
    assert world.released == []
    assert len(world.prepared) <= (1 if stage == "embed" else LIMIT)
    assert len(world.requests) <= math.ceil(500 / world.model.request_texts) + EXTRA_REQUESTS


async def test_what_was_embedded_before_the_poison_is_not_sent_again(world: World) -> None:
    claim = world.claimed(64)
    world.on_store = lambda documents: raises_for("row 13|", error=ValueError())(
        [f"{d.item.content_id}|" for d in documents]
    )
    await carry(world, claim)
    sent = [text for request in world.requests for text in request]
    assert len(sent) == len(set(sent)) == 64
    assert len(world.stored) == 63


async def test_several_poisoned_items_fail_alone(world: World) -> None:
    claim = world.claimed(40)
    poison = {3, 17, 18, 39}
    world.on_read = lambda ids: raises_for(*(f"row {one}|" for one in poison), error=TextRejectedError("No."))(
        [f"{i}|" for i in ids]
    )
    await carry(world, claim)
    assert set(world.failed) == poison
    assert set(world.stored) == set(range(40)) - poison
    assert world.count("failed") == 4


async def test_when_all_are_poisoned_all_are_accounted_for(world: World) -> None:
    claim = world.claimed(33)
    world.on_read = raises_for("row", error=ValueError("a bug"))
    await carry(world, claim)
    assert world.fails == dict.fromkeys(range(33), 1)
    assert world.count("retried") == 33


async def test_a_retry_comes_later_and_is_described(world: World) -> None:
    world.on_embed = raises_for("text", error=ValueError("row 0 is odd"))
    await carry(world, world.claimed(1))
    delay, message, detail = world.failed[0]
    assert delay is not None
    assert 1 <= delay <= 2
    assert (message, detail) == ("Unexpected error: ValueError.", "row 0 is odd")


async def test_delays_grow_with_the_attempts_and_end(world: World) -> None:
    world.on_embed = raises_for("text", error=ModelMisbehavedError("Short."))
    delays = []
    for retry_count in range(5):
        await carry(world, world.claimed(1, retry_count))
        delays.append(world.failed[0][0])
    assert delays[-1] is None
    assert all(delay is not None and 2**count <= delay <= 2 ** (count + 1) for count, delay in enumerate(delays[:4]))
    assert (world.count("retried"), world.count("failed")) == (4, 1)


async def test_an_outage_of_the_model_counts_no_attempt(world: World) -> None:
    world.on_embed = raises_for("text", error=AWAY)
    await carry(world, world.claimed(50))
    assert sorted(world.released) == list(range(50))
    assert (world.failed, world.stored) == ({}, {})
    assert len(world.prepared) == 1
    assert world.count("released") == 50
    assert await world.is_resting()


async def test_stopping_gives_items_back_and_blames_nobody(world: World) -> None:
    world.on_embed = raises_for("text", error=StoppingError("The daemon is stopping."))
    await carry(world, world.claimed(50))
    assert sorted(world.released) == list(range(50))
    assert (world.failed, world.stored) == ({}, {})
    assert not await world.is_resting()


async def test_a_model_that_fails_at_every_text_counts_no_attempt(world: World) -> None:
    world.on_embed = raises_for("", error=TextRejectedError("It wants another protocol."))
    await carry(world, world.claimed(50))
    assert sorted(world.released) == list(range(50))
    assert (world.failed, world.stored) == ({}, {})
    assert world.board.resting() == ["model m: The model fails at every text. It wants another protocol."]


async def test_a_chunk_that_is_rejected_fails_its_item_and_no_other(world: World) -> None:
    world.watched = Source("course", ["body"], "{body}", "characters", 100, 0)
    claim = world.claimed(3)
    world.texts["row 1"] = "\n\n".join(f"paragraph {number} " * 5 for number in range(8))
    world.on_embed = raises_for("paragraph 5", error=TextRejectedError("Too long.", "With figures."))
    await carry(world, claim)
    assert sorted(world.stored) == [0, 2]
    assert world.failed == {1: (None, "Too long.", "With figures.")}


async def test_what_was_rejected_is_not_sent_again_when_a_store_fails(world: World) -> None:
    claim = world.claimed(16)
    world.on_embed = raises_for("row 3", error=TextRejectedError("Too long."))
    world.on_store = lambda documents: raises_for("row 7", error=ValueError("a bug"))(
        [document.item.content_id for document in documents]
    )
    await carry(world, claim)
    assert set(world.failed) == {3, 7}
    assert world.fails == {3: 1, 7: 1}
    assert sum("text of row 3" in request for request in world.requests) <= 4


async def test_an_outage_in_the_middle_keeps_what_was_stored(world: World) -> None:
    claim = world.claimed(64)
    poison = raises_for("row 5|", error=ValueError())

    def embed(texts: Sequence[str]) -> None:
        poison([f"{one}|" for one in texts])
        if 16 in world.stored:
            raise AWAY

    world.on_embed = embed
    await carry(world, claim)
    everything = [*world.stored, *world.released, *world.failed]
    assert sorted(everything) == list(range(64))
    assert set(world.failed) <= {5}


async def test_an_unreadable_source_rests_alone(world: World) -> None:
    world.on_read = raises_for("row", error=SourceUnreadableError("The table is gone."))
    await carry(world, world.claimed(30))
    assert sorted(world.released) == list(range(30))
    assert world.failed == {}
    assert await world.is_resting()
    world.board.offer([Slot("m", Lane.BULK, "lesson")])
    assert (await world.board.take("m", Lane.BULK)).content_type == "lesson"
    world.clock.time += SOURCE_REST_SECONDS
    assert not await world.is_resting()


@pytest.mark.parametrize("stage", ["read", "embed", "store"])
async def test_with_the_database_away_items_are_left_to_the_heartbeat(world: World, stage: str) -> None:
    def away(_: object) -> None:
        raise GONE

    setattr(world, f"on_{stage}", away)
    await carry(world, world.claimed(30))
    assert (world.stored, world.released, world.failed) == ({}, [], {})
    assert len(world.prepared) == 1


async def test_with_the_database_away_while_giving_back_nothing_is_raised(world: World) -> None:
    def away(_: object) -> None:
        raise GONE

    world.on_embed = raises_for("text", error=AWAY)
    world.on_release = away
    await carry(world, world.claimed(30))
    assert (world.stored, world.released, world.failed) == ({}, [], {})


async def test_a_refused_store_is_tried_again_with_the_refused_alone(world: World) -> None:
    refusals = iter([[1, 2], [2], []])
    world.on_store = lambda documents: outcome(documents, next(refusals))
    await carry(world, world.claimed(4))
    assert world.stores == [[0, 1, 2, 3], [1, 2], [2]]
    assert sorted(world.stored) == [0, 1, 2, 3]
    assert (world.count("current"), world.count("refused")) == (4, 0)


async def test_what_is_refused_again_and_again_is_left_to_the_heartbeat(world: World) -> None:
    world.on_store = lambda documents: outcome(documents, [1])
    await carry(world, world.claimed(3))
    assert len(world.stores) == STORE_TRIES
    assert sorted(world.stored) == [0, 2]
    assert (world.released, world.failed) == ([], {})
    assert (world.count("current"), world.count("refused")) == (2, 1)


async def test_superseded_items_are_done_with(world: World) -> None:
    world.on_store = lambda _: Outcome(current=[0], superseded=[1, 2])
    await carry(world, world.claimed(3))
    assert len(world.stores) == 1
    assert (world.count("current"), world.count("superseded")) == (1, 2)
    assert (world.released, world.failed) == ([], {})


async def test_a_cancelled_line_is_cancelled(world: World) -> None:
    started = asyncio.Event()

    async def embed(texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:
        del texts, answered
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.embed = embed  # type: ignore[method-assign]
    task = asyncio.create_task(world.line.carry(world.claimed(30)))
    await started.wait()
    before = asyncio.all_tasks()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(before) > len(asyncio.all_tasks()) == 1
    assert (world.stored, world.released, world.failed) == ({}, [], {})


def test_a_line_tells_its_model(world: World) -> None:
    assert world.line.model == "m"


def outcome(documents: Sequence[Document], refused: Sequence[int]) -> Outcome:
    ids = [document.item.id for document in documents]
    return Outcome(current=[one for one in ids if one not in refused], refused=[one for one in ids if one in refused])


async def test_what_an_owner_brings_beyond_its_share_goes_back_as_bulk_and_reaches_no_model() -> None:
    world = World()
    world.watched = Source("course", ["body"], "{body}", "none", 1000, 0, urgent_rows=5)
    urgent = SLOT._replace(lane=Lane.IMMEDIATE)
    claim = Claim(urgent, uuid.uuid4(), world.claimed(8).items)
    await world.line.carry(claim)
    assert (sorted(world.stored), world.demoted) == ([0, 1, 2, 3, 4], [5, 6, 7])
    assert sum(map(len, world.requests)) == 5
    assert await asyncio.wait_for(world.board.take("m", Lane.BULK), 1) == SLOT
    await world.line.carry(Claim(SLOT, uuid.uuid4(), world.claimed(8).items[5:]))
    assert sorted(world.stored) == list(range(8))


async def test_what_is_only_read_counts_against_no_owner() -> None:
    world = World()
    world.watched = Source("course", ["body"], "{body}", "none", 1000, 0, urgent_rows=8)
    claim = Claim(SLOT._replace(lane=Lane.IMMEDIATE), uuid.uuid4(), world.claimed(8).items)

    def away(_: Sequence[str]) -> None:
        raise AWAY

    world.on_embed = away
    for _ in range(3):
        await world.line.carry(claim)
    world.on_embed = lambda _: None
    await recovered(world.room, world.clock)
    await world.line.carry(claim)
    assert (len(world.stored), world.demoted) == (8, [])


async def test_what_was_answered_before_an_outage_is_stored_and_the_others_wait(world: World) -> None:
    claim = world.claimed(20)
    world.on_embed = lambda texts: raises_for("text", error=AWAY)(texts if len(world.requests) > 1 else [])
    await carry(world, claim)
    assert sorted([*world.stored, *world.released]) == list(range(20))
    assert len(world.stored) == 8
    assert world.failed == {}


async def test_a_text_that_a_model_dies_at_fails_alone_though_the_model_dies_at_another(world: World) -> None:
    """What the model is known to die at does not wait until it dies at nothing more."""
    world.on_embed = raises_for("row 3|", "row 17|", error=ModelUnavailableError("Cut off.", unanswered=True))
    left = world.claimed(20)
    world.texts = {content_id: f"{text}|" for content_id, text in world.texts.items()}
    for _ in range(20):
        await carry(world, left)
        left = Claim(SLOT, uuid.uuid4(), [item for item in left.items if item.id in world.released])
        world.released.clear()
        if not left.items:
            break
        await recovered(world.room, world.clock)
    assert sorted(world.stored) == [number for number in range(20) if number not in {3, 17}]
    assert world.fails == {3: 1, 17: 1}
    assert {world.failed[number][1] for number in (3, 17)} == {"The model hangs or breaks down at the text."}
    assert all(delay is not None for delay, _, _ in world.failed.values())
