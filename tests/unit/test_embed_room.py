from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

import pytest

from rowvec.domain.errors import ModelMisbehavedError, ModelUnavailableError, StoppingError, TextRejectedError
from rowvec.domain.items import Chunk, Claim, Document, EmbedderTraits, Item, Outcome
from rowvec.domain.lanes import Lane
from rowvec.pipeline.embed import HARMLESS, Answers, EmbedRoom
from rowvec.ports import Embedding
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

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
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
        self.now = 1000.0
        self.room = EmbedRoom(self.model, self.store, self.metrics, lambda: self.now)
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
    await world.embed(document("a", "bbbb", "cc", "ddd", "eeeee", "ffffff"))
    assert world.model.requests == [["ffffff", "eeeee"], ["bbbb", "ddd"], ["cc", "a"]]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_requests_at_once_than_the_model_takes(concurrency: int) -> None:
    world = World(concurrency=concurrency, request_texts=1)
    await asyncio.gather(
        world.embed(*(document(f"immediate {number}") for number in range(10)), lane=Lane.IMMEDIATE),
        world.embed(*(document(f"bulk {number}") for number in range(10)), lane=Lane.BULK),
    )
    assert world.model.most_at_once == concurrency
    assert len(world.model.requests) == 20


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


@pytest.mark.parametrize("lane", Lane)
async def test_a_model_that_wants_to_be_let_alone_is_let_alone_by_every_lane(lane: Lane) -> None:
    world = World(request_texts=1)

    def answer(texts: Sequence[str]) -> None:
        del texts
        raise ModelUnavailableError("Too many requests.", "", 20.0)

    world.model.answer = answer
    with pytest.raises(ModelUnavailableError):
        await world.embed(document("a", "b"))
    assert len(world.model.requests) == 1
    world.model.answer = lambda _: None
    world.now += 15.0
    with pytest.raises(ModelUnavailableError, match="Too many requests") as caught:
        await world.embed(document("c"), lane=lane)
    assert caught.value.retry_after_seconds == 5.0
    assert len(world.model.requests) == 1
    world.now += 5.0
    await world.embed(document("c"), lane=lane)
    assert world.has_all(document("c"))


@pytest.mark.parametrize("wishes", [[2.0, 60.0], [60.0, 2.0], [60.0, None]])
async def test_of_several_wishes_the_longest_counts(wishes: list[float | None]) -> None:
    world = World(concurrency=3, request_texts=1)
    world.model.gate.clear()
    left = iter(wishes)

    def answer(texts: Sequence[str]) -> None:
        del texts
        raise ModelUnavailableError("Too many requests.", "", next(left))

    world.model.answer = answer
    embedding = asyncio.create_task(world.embed(document("a", "b"), lane=Lane.IMMEDIATE))
    await world.model.until_at_once(2)
    world.model.gate.set()
    with pytest.raises(ModelUnavailableError):
        await embedding
    world.now += 59.0
    with pytest.raises(ModelUnavailableError, match="Too many requests"):
        await world.embed(document("c"))
    assert len(world.model.requests) == 2


async def test_without_a_wish_the_next_batch_may_ask() -> None:
    world = World()
    world.model.answer = failing_at("a", ModelUnavailableError("Away."))
    with pytest.raises(ModelUnavailableError):
        await world.embed(document("a"))
    await world.embed(document("b"))
    assert world.has_all(document("b"))


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
        if len(texts[0]) > 3:
            raise ModelUnavailableError("Away.")

    world.model.answer = answer
    for round_number in range(5):
        with pytest.raises(ModelUnavailableError):
            await world.embed(document(*(f"{round_number} text {number}" for number in range(6))))
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

    async def wrong(texts: Sequence[str]) -> Sequence[Embedding]:
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
