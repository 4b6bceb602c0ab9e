"""What a gate lets pass, when it is shut, and who looks at the model then."""

from __future__ import annotations

import asyncio
import math
import random
from array import array
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from clocks import NOON, FakeClock, settle
from rowvec.domain.errors import ModelMisbehavedError, ModelUnavailableError, StoppingError, TextRejectedError
from rowvec.domain.items import EmbedderTraits, Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.load import BreakerState
from rowvec.domain.retry import (
    LEAST_REST,
    LONGEST_LATENESS,
    LONGEST_REST_SECONDS,
    LONGEST_WISH_SECONDS,
    SHORTEST_REST_SECONDS,
)
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.gate import HARMLESS, Gate
from rowvec.ports import Answered, Embedding, untold
from rowvec.telemetry import Metrics

AWAY = ModelUnavailableError("The model is away.", "Nobody answers.")
SLOT = Slot("m", Lane.BULK, "course")
A_MOMENT = 0.001


class Most(random.Random):
    """No jitter: rests have their full length, wishes too."""

    def uniform(self, a: float, b: float) -> float:
        return 1.0 if (a, b) == (1.0, LONGEST_LATENESS) else b


class World:
    """A gate to a model that fails when it is told to. Its log has what it was asked, in order."""

    name = "m"
    dimensions = 1
    concurrency = 2
    request_texts = 8
    request_tokens = 1000
    requests_per_minute: float | None = None
    traits = EmbedderTraits("revision-1", "passage")

    def __init__(self) -> None:
        self.clock, self.metrics = FakeClock(), Metrics()
        self.board = DueBoard(self.clock)
        self.log: list[str] = []
        self.on: dict[str, Callable[[], None]] = {}
        self.held = asyncio.Event()
        self.held.set()
        self.gate = Gate(self, self.board, self.clock, Most(), self.metrics)

    async def ready(self) -> None:
        self._asked("ready")

    async def probe(self) -> None:
        self._asked("probe")

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:  # noqa: ARG002
        what = "harmless" if texts == [HARMLESS] else "texts"
        self.log.append(what)
        await self.held.wait()
        self.on.get(what, lambda: None)()
        return [array("f", [1.0]) for _ in texts]

    def _asked(self, what: str) -> None:
        self.log.append(what)
        self.on.get(what, lambda: None)()

    async def embed_query(self, text: str) -> Embedding:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def ask(self, lane: Lane = Lane.IMMEDIATE) -> None:
        async with self.gate.permits.permit(lane):
            await self.gate.ask(["a", "b"])

    async def fail(self, error: ModelUnavailableError = AWAY) -> None:
        """Have one request end with an outage, and be well for others afterwards."""
        self.on["texts"] = raising(error)
        with pytest.raises(ModelUnavailableError):
            await self.ask()
        del self.on["texts"]

    def look_fails(self, what: str = "probe", error: Exception = AWAY) -> None:
        self.on[what] = raising(error)

    def is_at(self, state: BreakerState) -> bool:
        return self.gate.load().breaker is state

    @property
    def looks(self) -> int:
        return self.log.count("probe")

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": "m", **labels})


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    running = asyncio.create_task(world.gate.run())
    yield world
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled() or running.exception() is None


async def test_a_gate_is_open_at_first_and_nobody_looks_at_the_model(world: World) -> None:
    await world.clock.pass_by(1000.0)
    await world.gate.ready()
    await world.ask()
    assert world.log == ["ready", "texts"]
    assert world.is_at(BreakerState.CLOSED)
    assert world.board.resting() == []


async def test_after_an_outage_nothing_passes_and_nothing_is_claimed(world: World) -> None:
    await world.fail()
    for _ in range(5):
        with pytest.raises(ModelUnavailableError, match=r"The model is away\. Nobody answers\."):
            await world.ask()
        with pytest.raises(ModelUnavailableError, match="The model is away"):
            await world.gate.prove(Lane.BULK)
        with pytest.raises(ModelUnavailableError, match="The model is away"):
            await world.gate.ready()
    assert world.log == ["texts"]
    assert world.board.resting() == ["model m: The model is away. Nobody answers."]
    assert world.is_at(BreakerState.OPEN)


async def test_when_the_rest_is_over_one_look_opens_it_for_all(world: World) -> None:
    await world.fail()
    world.board.offer([SLOT])
    taking = asyncio.create_task(world.board.take("m", Lane.BULK))
    await world.clock.pass_by(SHORTEST_REST_SECONDS - A_MOMENT)
    assert (world.log, taking.done()) == (["texts"], False)
    await world.clock.pass_by(A_MOMENT)
    assert world.log == ["texts", "probe", "ready", "harmless"]
    assert await taking == SLOT
    assert world.is_at(BreakerState.CLOSED)
    await world.ask()


async def test_while_it_is_half_open_nobody_else_passes(world: World) -> None:
    await world.fail()
    world.held.clear()
    await world.clock.pass_by(SHORTEST_REST_SECONDS)
    assert world.is_at(BreakerState.HALF_OPEN)
    for lane in Lane:
        with pytest.raises(ModelUnavailableError):
            await world.ask(lane)
    assert world.log == ["texts", "probe", "ready", "harmless"]
    assert world.board.resting() == ["model m: The model is away. Nobody answers."]
    world.held.set()
    await settle()
    assert world.is_at(BreakerState.CLOSED)
    assert world.board.resting() == []


@pytest.mark.parametrize("what", ["probe", "ready", "harmless"])
async def test_both_the_health_and_a_harmless_text_must_succeed(world: World, what: str) -> None:
    await world.fail()
    world.look_fails(what, ModelUnavailableError("Not yet."))
    await world.clock.pass_by(SHORTEST_REST_SECONDS)
    assert world.log[1:] == ["probe", "ready", "harmless"][: ["probe", "ready", "harmless"].index(what) + 1]
    assert world.is_at(BreakerState.OPEN)
    assert world.board.resting() == ["model m: Not yet."]


@pytest.mark.parametrize(
    "error", [TextRejectedError("Odd."), ModelMisbehavedError("Odd."), ValueError("Odd.")], ids=repr
)
async def test_a_model_that_fails_at_the_harmless_text_stays_shut_off(world: World, error: Exception) -> None:
    await world.fail()
    world.look_fails("harmless", error)
    await world.clock.pass_by(SHORTEST_REST_SECONDS)
    assert "The model fails at every text." in world.gate.load().why
    assert "Odd." in world.gate.load().why


async def test_rests_grow_to_the_longest(world: World) -> None:
    world.look_fails()
    await world.fail()
    expected = SHORTEST_REST_SECONDS
    for look in range(12):
        await world.clock.pass_by(expected - A_MOMENT)
        assert world.looks == look
        await world.clock.pass_by(A_MOMENT)
        assert world.looks == look + 1
        expected = min(2 * expected, LONGEST_REST_SECONDS)
    assert expected == LONGEST_REST_SECONDS


async def test_rests_are_short_again_when_a_row_was_embedded_and_not_before(world: World) -> None:
    """A model that answers a harmless text and breaks at the first real one is not asked twice a second."""
    for rest in (0.5, 1.0, 2.0):
        await world.fail()
        await world.clock.pass_by(rest - A_MOMENT)
        assert world.is_at(BreakerState.OPEN)
        await world.clock.pass_by(A_MOMENT)
        assert world.is_at(BreakerState.CLOSED)
    await world.ask()
    await world.fail()
    await world.clock.pass_by(SHORTEST_REST_SECONDS)
    assert world.is_at(BreakerState.CLOSED)


async def test_rests_have_jitter() -> None:
    world = World()
    rests = set()
    for seed in range(20):
        gate = Gate(world, world.board, world.clock, random.Random(seed), Metrics())  # noqa: S311 - jitter
        world.on["texts"] = raising(AWAY)
        with pytest.raises(ModelUnavailableError):
            await gate.ask(["a"])
        running = asyncio.create_task(gate.run())
        await settle()
        rests.add(world.clock.next_in())
        running.cancel()
        await asyncio.wait([running])
    assert len(rests) > 15
    assert SHORTEST_REST_SECONDS * LEAST_REST <= min(rests) <= max(rests) <= SHORTEST_REST_SECONDS


async def test_requests_that_fail_together_are_one_outage(world: World) -> None:
    world.held.clear()
    asking = [asyncio.create_task(world.ask()) for _ in range(2)]
    await settle()
    world.on["texts"] = raising(AWAY)
    world.held.set()
    await asyncio.wait(asking)
    del world.on["texts"]
    await world.clock.pass_by(SHORTEST_REST_SECONDS)
    assert world.is_at(BreakerState.CLOSED)


async def test_a_request_that_ends_with_an_outage_that_is_over_shuts_nothing(world: World) -> None:
    late = asyncio.Event()
    embed = world.embed

    async def hang(texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:
        del texts, answered
        await late.wait()
        raise AWAY

    world.embed = hang  # type: ignore[method-assign]
    asking = asyncio.create_task(world.ask())
    await settle()
    world.embed = embed  # type: ignore[method-assign]
    await world.fail()
    await world.clock.pass_by(SHORTEST_REST_SECONDS)
    late.set()
    with pytest.raises(ModelUnavailableError):
        await asking
    assert world.is_at(BreakerState.CLOSED)
    assert world.board.resting() == []


@pytest.mark.parametrize(("wish", "rest"), [(7.0, 7.0), (0.1, 0.1), (1e9, LONGEST_WISH_SECONDS), (math.inf, 300.0)])
async def test_a_model_is_let_alone_for_as_long_as_it_asks_within_reason(
    world: World, wish: float, rest: float
) -> None:
    await world.fail(ModelUnavailableError("Too many requests.", "", wish))
    await world.clock.pass_by(rest - A_MOMENT)
    assert world.looks == 0
    for lane in Lane:
        with pytest.raises(ModelUnavailableError, match="Too many requests"):
            await world.ask(lane)
    await world.clock.pass_by(A_MOMENT)
    assert world.looks == 1
    assert world.is_at(BreakerState.CLOSED)


async def test_a_wish_leaves_the_rests_after_outages_as_they_are(world: World) -> None:
    for _ in range(5):
        await world.fail(ModelUnavailableError("Too many requests.", "", 2.0))
        await world.clock.pass_by(2.0)
    await world.fail()
    await world.clock.pass_by(SHORTEST_REST_SECONDS)
    assert world.is_at(BreakerState.CLOSED)


@pytest.mark.parametrize("wish", [None, 0.0, -5.0, math.nan])
async def test_without_a_wish_that_makes_sense_it_rests_as_after_any_outage(world: World, wish: float | None) -> None:
    await world.fail(ModelUnavailableError("Too many requests.", "", wish))
    await world.clock.pass_by(SHORTEST_REST_SECONDS - A_MOMENT)
    assert world.looks == 0
    await world.clock.pass_by(A_MOMENT)
    assert world.looks == 1


@pytest.mark.parametrize("wishes", [(2.0, 60.0), (60.0, 2.0), (60.0, None)])
async def test_of_several_wishes_the_longest_counts(world: World, wishes: Sequence[float | None]) -> None:
    left = iter(wishes)

    def busy() -> None:
        raise ModelUnavailableError("Too many requests.", "", next(left))

    world.held.clear()
    world.on["texts"] = busy
    asking = [asyncio.create_task(world.ask()) for _ in wishes]
    await settle()
    world.held.set()
    await asyncio.wait(asking)
    await world.clock.pass_by(60.0 - A_MOMENT)
    assert world.looks == 0
    await world.clock.pass_by(A_MOMENT)
    assert world.looks == 1


async def test_those_who_wait_for_a_permit_are_told_at_once(world: World) -> None:
    world.held.clear()
    asking = [asyncio.create_task(world.ask(Lane.BULK)) for _ in range(10)]
    await settle()
    world.on["texts"] = raising(AWAY)
    world.held.set()
    await asyncio.wait(asking)
    assert all(isinstance(task.exception(), ModelUnavailableError) for task in asking)
    assert world.log == ["texts"]


async def test_who_is_turned_away_costs_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that takes a request a second, the look comes with the next one."""
    monkeypatch.setattr(World, "requests_per_minute", 60.0)
    world = World()
    await world.fail()
    asking = [asyncio.create_task(ask(Lane.BULK)) for ask in (world.ask, world.gate.prove) for _ in range(3)]
    await world.clock.pass_by(1.0)
    assert all(isinstance(task.exception(), ModelUnavailableError) for task in asking)
    running = asyncio.create_task(world.gate.run())
    await settle()
    assert world.is_at(BreakerState.CLOSED)
    running.cancel()
    await asyncio.wait([running])


async def test_a_proof_that_fails_shuts_the_gate(world: World) -> None:
    world.look_fails("harmless", TextRejectedError("It wants another protocol."))
    with pytest.raises(ModelUnavailableError, match=r"fails at every text.*another protocol"):
        await world.gate.prove(Lane.BULK)
    assert world.is_at(BreakerState.OPEN)


async def test_a_model_that_is_not_ready_shuts_the_gate(world: World) -> None:
    world.look_fails("ready")
    with pytest.raises(ModelUnavailableError):
        await world.gate.ready()
    assert world.is_at(BreakerState.OPEN)


async def test_a_text_at_fault_shuts_nothing(world: World) -> None:
    world.on["texts"] = raising(TextRejectedError("Too long."))
    with pytest.raises(TextRejectedError):
        await world.ask()
    assert world.is_at(BreakerState.CLOSED)


async def test_a_closed_gate_looks_at_nothing_more(world: World) -> None:
    await world.fail()
    world.gate.close()
    await world.clock.pass_by(100.0)
    assert world.looks == 1
    with pytest.raises(StoppingError):
        await world.ask()


async def test_what_a_model_stands_at_is_told(world: World) -> None:
    assert world.gate.load().since == NOON
    for _ in range(30):
        await world.ask()
        await world.clock.pass_by(1.0)
    assert world.gate.load().texts_per_second == pytest.approx(2.0, rel=0.1)
    world.held.clear()
    asking = asyncio.create_task(world.ask())
    await settle()
    assert world.gate.load().requests_in_hand == 1
    world.held.set()
    await asking
    world.look_fails()
    opened = world.clock.now()
    await world.fail()
    await world.clock.pass_by(120.0)
    load = world.gate.load()
    assert (load.breaker, load.why, load.since) == (BreakerState.OPEN, "The model is away. Nobody answers.", opened)
    assert (load.texts_per_second, load.requests_in_hand) == (0.0, 0)
    world.on.clear()
    await world.clock.pass_by(30.0)
    load = world.gate.load()
    assert (load.breaker, load.why) == (BreakerState.CLOSED, "")
    assert load.since > opened


async def test_a_model_that_is_gone_shows_no_state(world: World) -> None:
    await world.fail()
    world.gate.forget()
    assert [world.metric("rowvec_breaker_state", state=state.value) for state in BreakerState] == [None] * 3


async def test_requests_texts_tokens_and_states_are_counted(world: World) -> None:
    await world.ask()
    world.on["texts"] = raising(TextRejectedError("Too long."))
    with pytest.raises(TextRejectedError):
        await world.ask()
    world.on["texts"] = raising(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await world.ask()
    await world.fail()
    found = {
        outcome: world.metric("rowvec_requests_total", outcome=outcome)
        for outcome in ("answered", "rejected", "failed", "unavailable", "cancelled")
    }
    assert found == {"answered": 1, "rejected": 1, "failed": 1, "unavailable": 1, "cancelled": None}
    assert world.metric("rowvec_texts_sent_total") == 2
    assert world.metric("rowvec_tokens_sent_total") == 4 * 2 * 2
    states = {state: world.metric("rowvec_breaker_state", state=state.value) for state in BreakerState}
    assert states == {BreakerState.CLOSED: 0, BreakerState.OPEN: 1, BreakerState.HALF_OPEN: 0}
    await world.clock.pass_by(SHORTEST_REST_SECONDS)
    assert world.metric("rowvec_breaker_state", state="closed") == 1
    assert world.metric("rowvec_breaker_state", state="open") == 0
