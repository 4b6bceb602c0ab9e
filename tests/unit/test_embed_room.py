from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

import pytest

from clocks import FakeClock, settle
from embedding_rooms import make_room, recovered
from rowvec.domain.errors import ModelMisbehavedError, ModelUnavailableError, StoppingError, TextRejectedError
from rowvec.domain.items import Chunk, Claim, Document, EmbedderTraits, Item, Outcome
from rowvec.domain.lanes import Lane
from rowvec.pipeline.embed import Answers
from rowvec.pipeline.gate import HARMLESS
from rowvec.ports import Answered, Embedding, untold
from rowvec.telemetry import Metrics

PATIENCE_SECONDS = 5.0


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def vector(text: str) -> Embedding:
    return array("f", [float(len(text)), float(digest(text)[0])])


def document(*texts: str) -> Document:
    seen: Counter[str] = Counter()
    chunks = []
    for index, text in enumerate(texts):
        chunks.append(Chunk(index, text, digest(text), seen[text]))
        seen[text] += 1
    return Document(Item(1, "1", 1, 0, datetime(2026, 1, 1, tzinfo=UTC)), None, chunks)


class Model:
    """An embedder that notes its requests, and answers when its gate is open."""

    name = "m"
    dimensions = 2
    request_tokens = 1_000_000
    requests_per_minute: float | None = None
    traits = EmbedderTraits("revision-1", "passage")

    def __init__(self, concurrency: int = 1, request_texts: int = 4) -> None:
        self.concurrency = concurrency
        self.request_texts = request_texts
        self.requests: list[list[str]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.entered = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer: Callable[[Sequence[str]], None] = lambda _: None

    async def ready(self) -> None:
        pass

    async def probe(self) -> None:
        pass

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:  # noqa: ARG002
        self.requests.append(list(texts))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.release()
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            self.answer(texts)
            return [vector(text) for text in texts]
        finally:
            self.at_once -= 1

    async def embed_query(self, text: str) -> Embedding:
        return vector(text)

    async def close(self) -> None:
        return

    async def until_at_once(self, count: int) -> None:
        """Wait until so many requests have come since the beginning, and are held by the closed gate."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(count):
                await self.entered.acquire()
        assert self.at_once == count

    @property
    def sent(self) -> list[str]:
        return [text for request in self.requests for text in request]


class Store:
    def __init__(self) -> None:
        self.held: dict[bytes, Embedding] = {}
        self.asked: list[tuple[str, EmbedderTraits, set[bytes]]] = []

    async def find(self, model: str, traits: EmbedderTraits, hashes: Collection[bytes]) -> Mapping[bytes, Embedding]:
        self.asked.append((model, traits, set(hashes)))
        return {one: self.held[one] for one in hashes if one in self.held}

    async def store(
        self, claim: Claim, traits: EmbedderTraits, documents: Sequence[Document], embeddings: Mapping[bytes, Embedding]
    ) -> Outcome:
        raise NotImplementedError


def failing_at(text: str, error: Exception) -> Callable[[Sequence[str]], None]:
    def answer(texts: Sequence[str]) -> None:
        if text in texts:
            raise error

    return answer


class World:
    def __init__(self, concurrency: int = 1, request_texts: int = 4) -> None:
        self.model, self.store, self.metrics = Model(concurrency, request_texts), Store(), Metrics()
        self.clock = FakeClock()
        self.room = make_room(self.model, self.store, self.metrics, self.clock)
        self.answers = Answers()

    async def embed(self, *documents: Document, lane: Lane = Lane.BULK) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.room.embed(lane, documents, self.answers)

    def has_all(self, *documents: Document) -> bool:
        wanted = {chunk.hash: vector(chunk.text) for found in documents for chunk in found.chunks}
        return all(self.answers.embeddings.get(one) == expected for one, expected in wanted.items())

    def count(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": "m"})


async def test_each_chunk_gets_the_vector_of_its_text() -> None:
    world = World()
    documents = [document(*(f"{'x' * number} {row}" for number in range(7))) for row in range(5)]
    await world.embed(*documents)
    assert world.has_all(*documents)
    assert len(world.answers.embeddings) == 35


async def test_nothing_to_embed_asks_nobody() -> None:
    world = World()
    await world.embed()
    await world.embed(document(), document())
    assert (world.model.requests, world.store.asked) == ([], [])


async def test_the_same_text_is_sent_once() -> None:
    world = World()
    await world.embed(document("a", "b", "a"), document("b", "c"), document("a"))
    assert sorted(world.model.sent) == ["a", "b", "c"]
    assert world.count("rowvec_texts_sent_total") == 3


async def test_what_the_store_holds_is_not_sent() -> None:
    world = World()
    world.store.held = {digest("a"): vector("a")}
    await world.embed(document("a", "b"))
    assert world.model.sent == ["b"]
    assert world.store.asked == [("m", world.model.traits, {digest("a"), digest("b")})]
    assert world.has_all(document("a", "b"))
    assert world.count("rowvec_vectors_reused_total") == 1
    assert world.count("rowvec_texts_sent_total") == 1


async def test_with_all_held_the_model_is_not_asked() -> None:
    world = World()
    world.store.held = {digest("a"): vector("a")}
    await world.embed(document("a"))
    assert world.model.requests == []


async def test_what_is_in_hand_is_neither_looked_for_nor_sent() -> None:
    world = World()
    world.answers.embeddings[digest("a")] = vector("a")
    await world.embed(document("a"))
    assert (world.model.requests, world.store.asked) == ([], [])
    await world.embed(document("a", "b"))
    assert world.model.sent == ["b"]
    assert world.store.asked[0][2] == {digest("b")}


@pytest.mark.parametrize(
    ("texts", "size", "sizes"), [(1, 4, [1]), (4, 4, [4]), (5, 4, [4, 1]), (9, 4, [4, 4, 1]), (3, 1, [1, 1, 1])]
)
async def test_requests_have_the_size_that_the_model_takes(texts: int, size: int, sizes: list[int]) -> None:
    world = World(request_texts=size)
    await world.embed(*(document(f"text {number}") for number in range(texts)))
    assert [len(request) for request in world.model.requests] == sizes


async def test_like_lengths_share_a_request() -> None:
    world = World(request_texts=2)
    await world.embed(
        document(*(letter * 40 * length for letter, length in zip("acebdf", (1, 3, 5, 2, 4, 6), strict=True)))
    )
    assert [[len(text) // 40 for text in request] for request in world.model.requests] == [[6, 5], [4, 3], [2, 1]]


async def test_a_request_is_filled_up_to_its_tokens_and_a_longer_text_goes_alone() -> None:
    world = World(request_texts=10)
    world.model.request_tokens = 100
    world.model.traits = EmbedderTraits("revision-1", "p" * 32)  # 8 tokens more a text
    sizes = [2000, 160, 160, 150, 40, 40, 40]  # 40 letters have 10 tokens, a text has 2 besides
    texts = document(*(letter * size for letter, size in zip("abcdefg", sizes, strict=True)))
    await world.embed(texts)
    assert [[len(text) for text in request] for request in world.model.requests] == [
        [2000],
        [160, 160],
        [150, 40, 40],
        [40],
    ]
    assert world.has_all(texts)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_requests_at_once_than_the_model_takes(concurrency: int) -> None:
    world = World(concurrency=concurrency, request_texts=1)
    await asyncio.gather(
        world.embed(*(document(f"immediate {number}") for number in range(10)), lane=Lane.IMMEDIATE),
        world.embed(*(document(f"bulk {number}") for number in range(10)), lane=Lane.BULK),
    )
    assert world.model.most_at_once == concurrency
    assert len(world.model.requests) == 20


async def test_the_next_request_begins_before_the_answer_is_read() -> None:
    world = World(request_texts=1)
    asked: list[str] = []
    read = asyncio.Event()

    async def embed(texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:
        asked.extend(texts)
        answered()
        await read.wait()
        return [vector(text) for text in texts]

    world.model.embed = embed  # type: ignore[method-assign]
    both = document("a", "b")
    embedding = asyncio.create_task(world.embed(both))
    while len(asked) < 2:
        assert not embedding.done()
        await asyncio.sleep(0)
    read.set()
    await embedding
    assert world.has_all(both)


async def test_an_immediate_text_waits_for_one_bulk_request_at_most() -> None:
    world = World(request_texts=1)
    world.model.gate.clear()
    bulk = asyncio.create_task(world.embed(*(document(f"bulk {number}") for number in range(20))))
    await world.model.until_at_once(1)
    immediate = asyncio.create_task(world.embed(document("immediate"), lane=Lane.IMMEDIATE))
    for _ in range(10):
        await asyncio.sleep(0)
    world.model.gate.set()
    await immediate
    assert world.model.sent.index("immediate") == 1
    await bulk


TEXT_ERRORS = [ModelMisbehavedError("Wrong."), TextRejectedError("Too long."), ValueError("a bug")]


@pytest.mark.parametrize("error", [ModelUnavailableError("The model is away."), StoppingError("The end.")], ids=repr)
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_an_outage_comes_as_it_is(error: Exception, concurrency: int) -> None:
    """Not in an ExceptionGroup: it must not look like a poisoned row."""
    world = World(concurrency=concurrency, request_texts=1)

    def answer(texts: Sequence[str]) -> None:
        if texts == ["bad"]:
            raise error

    world.model.answer = answer
    with pytest.raises(type(error)) as caught:
        await world.embed(document("a longer text", "bad", "x"))
    assert caught.value is error
    assert world.answers.rejected == {}


@pytest.mark.parametrize("error", TEXT_ERRORS, ids=repr)
@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("request_texts", [1, 4])
async def test_a_text_that_the_model_fails_at_is_rejected_alone(
    error: Exception, concurrency: int, request_texts: int
) -> None:
    world = World(concurrency, request_texts)
    world.model.answer = failing_at("bad", error)
    found = document("a longer text", "bad", "x", "yy", "zzz", "another")
    await world.embed(found)
    assert world.answers.rejected == {digest("bad"): error}
    assert world.answers.rejection(found) is error
    assert world.answers.rejection(document("x")) is None
    assert world.has_all(document("a longer text", "x", "yy", "zzz", "another"))


async def test_what_was_rejected_is_not_sent_again() -> None:
    world = World()
    world.model.answer = failing_at("bad", TEXT_ERRORS[1])
    await world.embed(document("a", "bad"))
    world.model.requests.clear()
    await world.embed(document("bad"))
    assert world.model.requests == []


@pytest.mark.parametrize("error", TEXT_ERRORS, ids=repr)
async def test_a_model_that_fails_at_a_harmless_text_too_is_at_fault_itself(error: Exception) -> None:
    world = World()

    def answer(texts: Sequence[str]) -> None:
        del texts
        raise error

    world.model.answer = answer
    with pytest.raises(ModelUnavailableError, match=r"fails at every text.*(Wrong|Too long|a bug)"):
        await world.embed(document("a", "b"))
    assert world.answers == Answers()
    assert len(world.model.requests) == 2
    assert world.model.requests[1] == [HARMLESS]


async def test_a_model_is_ready_before_its_traits_are_looked_at() -> None:
    world = World()
    world.model.traits = EmbedderTraits("unknown", "")

    async def learn() -> None:
        world.model.traits = EmbedderTraits("revision-2", "")
        world.model.request_texts = 2

    world.model.ready = learn  # type: ignore[method-assign]
    await world.embed(document("aaa", "bb", "c"))
    assert world.store.asked[0][1].provider_revision == "revision-2"
    assert [len(request) for request in world.model.requests] == [2, 1]


async def test_an_outage_says_more_than_a_rejected_text() -> None:
    world = World(concurrency=3, request_texts=1)
    world.model.gate.clear()
    errors = {"aaa": TextRejectedError("Too long."), "bb": ModelUnavailableError("Away."), "c": ValueError("a bug")}

    def answer(texts: Sequence[str]) -> None:
        raise errors[texts[0]]

    world.model.answer = answer
    embedding = asyncio.create_task(world.embed(document(*errors), lane=Lane.IMMEDIATE))
    await world.model.until_at_once(3)
    world.model.gate.set()
    with pytest.raises(ModelUnavailableError):
        await embedding


async def test_what_succeeded_before_an_outage_is_kept_and_not_sent_again() -> None:
    world = World(request_texts=1)
    world.model.answer = failing_at("bad", ModelUnavailableError("Away."))
    texts = document("a longer text", "another text", "bad", "x")
    with pytest.raises(ModelUnavailableError):
        await world.embed(texts)
    assert world.has_all(document("a longer text", "another text"))
    assert digest("bad") not in world.answers.embeddings
    world.model.answer = lambda _: None
    await recovered(world.room, world.clock)
    done = {text for text in ("a longer text", "another text", "x") if digest(text) in world.answers.embeddings}
    world.model.requests.clear()
    await world.embed(texts)
    assert {"bad"} <= set(world.model.sent) <= {"bad", "x"} - done
    assert world.has_all(texts)


async def test_after_an_outage_no_request_begins() -> None:
    world = World(request_texts=1)

    def answer(texts: Sequence[str]) -> None:
        del texts
        raise ModelUnavailableError("Away.")

    world.model.answer = answer
    with pytest.raises(ModelUnavailableError):
        await world.embed(document(*(f"text {number}" for number in range(20))))
    assert len(world.model.requests) <= 2


async def test_an_error_frees_all_permits() -> None:
    world = World(concurrency=2, request_texts=1)

    def answer(texts: Sequence[str]) -> None:
        if " text " in texts[0]:
            raise ModelUnavailableError("Away.")

    world.model.answer = answer
    for round_number in range(5):
        with pytest.raises(ModelUnavailableError):
            await world.embed(document(*(f"{round_number} text {number}" for number in range(6))))
        await recovered(world.room, world.clock)
    await world.embed(document("a", "b"), lane=Lane.IMMEDIATE)
    assert world.model.at_once == 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda texts: [vector(text) for text in texts[1:]], "wrong number of vectors"),
        (lambda texts: [array("f", [1.0, 2.0, 3.0]) for _ in texts], "wrong length"),
    ],
)
async def test_an_answer_that_does_not_fit_is_an_error(
    answer: Callable[[Sequence[str]], Sequence[Embedding]], message: str
) -> None:
    world = World(request_texts=8)

    async def wrong(texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:
        del answered
        return answer(texts)

    world.model.embed = wrong  # type: ignore[method-assign]
    with pytest.raises(ModelUnavailableError, match=message):
        await world.embed(document("a", "b", "c"))
    assert world.answers.embeddings == {}


async def test_close_turns_away_what_waits_and_lets_the_request_finish() -> None:
    world = World(request_texts=1)
    world.model.gate.clear()
    embedding = asyncio.create_task(world.embed(document("first text", "b")))
    await world.model.until_at_once(1)
    single = asyncio.create_task(world.embed(document("c")))
    for _ in range(5):
        await asyncio.sleep(0)
    world.room.close()
    with pytest.raises(StoppingError):
        await single
    assert not embedding.done()
    world.model.gate.set()
    with pytest.raises(StoppingError):
        await embedding
    assert world.has_all(document("first text"))
    assert world.model.sent == ["first text"]
    with pytest.raises(StoppingError):
        await world.embed(document("d"))


async def test_a_request_under_way_ends_after_close() -> None:
    world = World(request_texts=4)
    world.model.gate.clear()
    embedding = asyncio.create_task(world.embed(document("a", "b")))
    await world.model.until_at_once(1)
    world.room.close()
    world.model.gate.set()
    await embedding
    assert world.has_all(document("a", "b"))


async def test_a_cancelled_embed_leaves_no_request() -> None:
    world = World(concurrency=2, request_texts=1)
    world.model.gate.clear()
    embedding = asyncio.create_task(world.embed(document("a", "b", "c"), lane=Lane.IMMEDIATE))
    await world.model.until_at_once(2)
    embedding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await embedding
    assert world.model.at_once == 0
    world.model.gate.set()
    await world.embed(document("a", "b", "c"))


async def test_requests_are_timed() -> None:
    world = World(request_texts=1)
    await world.embed(document("a", "b"))
    assert world.count("rowvec_request_seconds_count") == 2


async def test_what_was_embedded_for_a_claim_that_failed_is_not_sent_for_the_next() -> None:
    """A long document with one poison chunk: a retry sends that chunk alone."""
    world = World(request_texts=64)
    world.model.answer = failing_at("bad", ModelMisbehavedError("Wrong."))
    texts = document(*(f"chunk {number}" for number in range(199)), "bad")
    await world.embed(texts)
    world.model.requests.clear()
    world.answers = Answers()
    await world.embed(texts)
    assert set(world.answers.rejected) == {digest("bad")}
    assert len(world.answers.embeddings) == 199
    assert set(world.model.sent) == {"bad", HARMLESS}
    assert world.count("rowvec_vectors_reused_total") == 199


async def test_what_is_stored_is_kept_no_longer() -> None:
    """Or a vector that somebody has removed would come back as it was."""
    world = World()
    stored = document("a")
    await world.embed(stored)
    world.room.note_stored([stored])
    world.answers = Answers()
    await world.embed(stored)
    assert world.model.sent == ["a", "a"]


async def test_of_a_claim_that_an_outage_ended_the_answers_are_kept() -> None:
    world = World(request_texts=1)
    world.model.answer = failing_at("bad", ModelUnavailableError("Away."))
    with pytest.raises(ModelUnavailableError):
        await world.embed(document("a longer text", "bad"))
    world.model.answer, world.answers = lambda _: None, Answers()
    await recovered(world.room, world.clock)
    world.model.requests.clear()
    await world.embed(document("a longer text", "bad"))
    assert world.model.sent == ["bad"]
    assert world.has_all(document("a longer text", "bad"))


async def test_what_other_traits_have_embedded_is_not_used() -> None:
    world = World()
    await world.embed(document("a"))
    world.model.traits, world.answers = EmbedderTraits("revision-2", "passage"), Answers()
    await world.embed(document("a"))
    assert world.model.sent == ["a", "a"]


class TwoClaims:
    """Two claims with the text "same" in flight at once: the first one's request waits inside the model."""

    def __init__(self, *others: str, concurrency: int = 4) -> None:
        self.world = World(concurrency=concurrency)
        self.first, self.second = Answers(), Answers()
        self.texts = document("same", *others)

    async def begin(self) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
        self.world.model.gate.clear()
        room = self.world.room
        first = asyncio.create_task(room.embed(Lane.BULK, [document("same")], self.first))
        await self.world.model.until_at_once(1)
        second = asyncio.create_task(room.embed(Lane.IMMEDIATE, [self.texts], self.second))
        await settle()
        return first, second


async def test_the_second_of_two_claims_waits_for_the_first_ones_answer() -> None:
    two = TwoClaims("other")
    first, second = await two.begin()
    assert two.world.model.requests == [["same"], ["other"]]
    two.world.model.gate.set()
    await asyncio.gather(first, second)
    assert set(two.second.embeddings) == {digest("same"), digest("other")}
    assert two.first.embeddings[digest("same")] == two.second.embeddings[digest("same")] == vector("same")
    assert two.world.model.sent == ["same", "other"]


async def test_who_waits_for_anothers_answer_holds_no_permit() -> None:
    two = TwoClaims(concurrency=2)
    first, second = await two.begin()
    assert two.world.room.load().requests_in_hand == 1
    third = asyncio.create_task(two.world.embed(document("third"), lane=Lane.IMMEDIATE))
    await settle()
    assert two.world.model.requests == [["same"], ["third"]]
    two.world.model.gate.set()
    await asyncio.gather(first, second, third)


async def test_when_the_first_is_cancelled_the_second_sends_the_text_itself() -> None:
    two = TwoClaims()
    first, second = await two.begin()
    first.cancel()
    await asyncio.wait([first])
    two.world.model.gate.set()
    await second
    assert two.world.model.sent == ["same", "same"]
    assert two.second.embeddings == {digest("same"): vector("same")}


async def test_when_the_first_fails_the_second_finds_out_for_itself() -> None:
    two = TwoClaims()
    two.world.model.answer = failing_at("same", TextRejectedError("Too long."))
    first, second = await two.begin()
    two.world.model.gate.set()
    await asyncio.gather(first, second)
    assert set(two.first.rejected) == set(two.second.rejected) == {digest("same")}


async def test_when_the_model_goes_away_both_end_with_that() -> None:
    two = TwoClaims()
    two.world.model.answer = failing_at("same", ModelUnavailableError("Away."))
    first, second = await two.begin()
    two.world.model.gate.set()
    for task in (first, second):
        with pytest.raises(ModelUnavailableError, match="Away"):
            await task
    assert two.world.model.requests == [["same"]]


async def test_what_another_claim_sends_costs_no_start() -> None:
    """Of a model that takes a request a minute: the second text goes in the second minute, not in the third."""
    world = World(concurrency=4)
    world.model.requests_per_minute = 1.0
    world.room = make_room(world.model, world.store, world.metrics, world.clock)
    world.model.gate.clear()
    claims = [document("same"), document("same"), document("other")]
    tasks = [asyncio.create_task(world.embed(found, lane=Lane.IMMEDIATE)) for found in claims]
    await world.clock.pass_by(60.0)
    assert world.model.requests == [["same"], ["other"]]
    world.model.gate.set()
    await asyncio.gather(*tasks)
    assert world.model.sent == ["same", "other"]
    assert world.count("rowvec_rate_limit_waits_total") == 2
