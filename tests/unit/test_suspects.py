"""A text that a model hangs or breaks down at, among others, before a clock that stands still."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

import pytest

from clocks import FakeClock, settle
from embedding_rooms import StubEmbedder, digest, make_room, recovered
from rowvec.domain.errors import ModelMisbehavedError, ModelUnavailableError
from rowvec.domain.items import Chunk, Claim, Document, EmbedderTraits, Item, Outcome
from rowvec.domain.lanes import Lane
from rowvec.pipeline.embed import Answers
from rowvec.pipeline.gate import HARMLESS
from rowvec.pipeline.suspects import ENOUGH, Suspects
from rowvec.ports import Embedding

TRAITS = EmbedderTraits("revision-1", "passage")
SILENCE = ModelUnavailableError("The model does not answer in time.", unanswered=True)
UNTIL_ALONE = 2
"""Outages until each of 64 texts goes alone."""


class World:
    """A model that answers no request as long as one with a poison is under way."""

    def __init__(self, *poison: str, concurrency: int = 1, error: Exception = SILENCE) -> None:
        self.poison, self.error = set(poison), error
        self.clock = FakeClock()
        self.under_way: list[Sequence[str]] = []
        self.requests: list[list[str]] = []
        self.room = make_room(StubEmbedder(self.embed, concurrency, 64), self, clock=self.clock)
        self.rounds = 0

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        self.under_way.append(texts)
        try:
            await settle(5)
            hangs = any(self.poison & set(request) for request in self.under_way)
            await settle(5)
        finally:
            self.under_way.remove(texts)
        if list(texts) != [HARMLESS]:
            self.requests.append(list(texts))
        if hangs:
            raise self.error
        return [array("f", [1.0]) for _ in texts]

    async def round(self, *texts: str) -> Answers:
        """Send a claim once; after an outage, let the model prove itself."""
        self.rounds += 1
        answers = Answers()
        chunks = [Chunk(index, text, digest(text), 0) for index, text in enumerate(texts)]
        document = Document(Item(1, "1", 1, 0, datetime(2026, 1, 1, tzinfo=UTC)), None, chunks)
        try:
            await self.room.embed(Lane.BULK, [document], answers)
        except ModelUnavailableError:
            await recovered(self.room, self.clock)
        return answers

    async def rejected(self, *texts: str, most: int = 40) -> dict[bytes, Exception]:
        """Send a claim until all of it is answered or rejected; what was rejected fails at once, as in the line."""
        left, rejected = dict.fromkeys(texts), dict[bytes, Exception]()
        while left and self.rounds < most:
            answers = await self.round(*left)
            rejected |= answers.rejected
            left = {text: None for text in left if digest(text) not in answers.embeddings | answers.rejected}
        assert not left
        return rejected

    async def find(self, model: str, traits: EmbedderTraits, hashes: Collection[bytes]) -> Mapping[bytes, Embedding]:
        del model, traits, hashes
        return {}

    async def store(
        self, claim: Claim, traits: EmbedderTraits, documents: Sequence[Document], embeddings: Mapping[bytes, Embedding]
    ) -> Outcome:
        raise NotImplementedError


def posts(count: int) -> list[str]:
    return [f"post {number}" for number in range(count)]


@pytest.mark.parametrize("place", [0, 29, 63, 64, 199])
@pytest.mark.parametrize("concurrency", [1, 2, 4])
async def test_a_text_that_a_model_hangs_at_is_found_alone(place: int, concurrency: int) -> None:
    texts = posts(200)
    world = World(texts[place], concurrency=concurrency)
    [(found, error)] = (await world.rejected(*texts)).items()
    assert found == digest(texts[place])
    assert isinstance(error, ModelMisbehavedError)
    assert error.message == "The model hangs or breaks down at the text."
    assert "no answer 3 times in a row, while others had theirs. The model does not answer" in error.hint
    # One more where it is the first to go alone, before any other was answered.
    assert UNTIL_ALONE + ENOUGH <= world.rounds - 1 <= UNTIL_ALONE + ENOUGH + 1


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_several_are_found_and_nothing_else(concurrency: int) -> None:
    texts = posts(150)
    poison = {texts[3], texts[4], texts[77], texts[149]}
    world = World(*poison, concurrency=concurrency)
    assert set(await world.rejected(*texts)) == set(map(digest, poison))


async def test_the_others_go_first_and_wait_for_three_outages_at_most() -> None:
    texts = posts(200)
    world = World(texts[0])
    answered = set[bytes]()
    for _ in range(UNTIL_ALONE + 2):
        answered |= (await world.round(*texts)).embeddings.keys()
    assert answered == set(map(digest, texts[1:]))


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_model_that_answers_no_text_of_a_row_convicts_none(place: int) -> None:
    """It answers a harmless one each time. But what is wrong with it is not the texts."""
    texts = posts(3)
    world = World(*texts)
    for _ in range(20):
        assert (await world.round(*texts)).rejected == {}
    world.poison = {texts[place]}
    assert set(await world.rejected(*texts)) == {digest(texts[place])}


async def test_an_outage_that_is_over_leaves_no_suspects() -> None:
    texts = posts(64)
    world = World(texts[0])
    await world.round(*texts)
    world.poison.clear()
    await world.round(*texts)
    await world.round(*(f"another {text}" for text in texts))
    assert [len(request) for request in world.requests] == [64, *[8] * 8, 64]


@pytest.mark.parametrize("error", [ModelUnavailableError("Full."), ModelUnavailableError("Full.", "", 1.0)])
async def test_a_model_that_says_why_suspects_no_text(error: ModelUnavailableError) -> None:
    texts = posts(64)
    world = World(texts[0], error=error)
    for _ in range(6):
        await world.round(*texts)
    assert [len(request) for request in world.requests] == [64] * 6


async def test_after_a_retry_one_more_outage_is_enough() -> None:
    texts = posts(10)
    world = World(texts[3])
    await world.rejected(*texts)
    before = world.rounds
    assert set(await world.rejected(texts[3])) == {digest(texts[3])}
    assert world.rounds == before + 2


async def test_one_that_is_answered_at_last_is_cleared() -> None:
    texts = posts(10)
    world = World(texts[3])
    await world.rejected(*texts)
    world.poison.clear()
    assert await world.rejected(texts[3]) == {}
    assert world.room.suspects.convict(TRAITS, [digest(texts[3])]) == {}


async def test_two_suspects_are_never_under_way_together() -> None:
    suspects = Suspects()
    suspects.accuse(TRAITS, [b"a", b"b"], SILENCE, alone=False)
    async with suspects.apart(TRAITS, [b"a"]) as alone:
        assert alone
        second = asyncio.create_task(enter(suspects, b"b"))
        await settle()
        assert not second.done()
        assert not await enter(suspects, b"c")
        assert not await enter(suspects, b"a", b"b")
    assert await second


async def enter(suspects: Suspects, *hashes: bytes) -> bool:
    async with suspects.apart(TRAITS, hashes) as alone:
        return alone


def test_the_oldest_make_room() -> None:
    suspects = Suspects(most_kept=3)
    for digest_ in (b"a", b"b", b"c", b"a", b"d"):
        suspects.accuse(TRAITS, [digest_], SILENCE, alone=True)
    tokens = dict.fromkeys((b"a", b"b", b"c", b"d"), 1)
    assert suspects.fill(TRAITS, tokens, 8, 100) == [[b"b"], [b"c"], [b"d"], [b"a"]]


def test_other_traits_are_another_model() -> None:
    suspects = Suspects()
    suspects.accuse(TRAITS, [b"a"], SILENCE, alone=True)
    tokens = {b"a": 1, b"b": 1}
    assert suspects.fill(EmbedderTraits("revision-2", "passage"), tokens, 8, 100) == [[b"a", b"b"]]
