"""A claim on its way: into messages, or to the line."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import structlog

from carriers import FakeCarrier, FakeDispatches
from clocks import NOON, FakeClock, settle
from rowvec.domain.errors import CarrierError, CarrierTrouble
from rowvec.domain.items import Claim, Dispatched, Held, Item, Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.load import BreakerState
from rowvec.domain.messages import PROCESS, PROCESS_ONE
from rowvec.health import Pulse
from rowvec.pipeline import announce as announce_module
from rowvec.pipeline.allowance import LOOK_SECONDS, WINDOW_DEADLINES, Allowance
from rowvec.pipeline.announce import WAITING, Announcer
from rowvec.pipeline.circuit import CarrierCircuit
from rowvec.pipeline.collect import LOOK_SECONDS as COLLECT_SECONDS
from rowvec.pipeline.collect import Collector
from rowvec.pipeline.dispatch import Dispatcher, Terms
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.overdue import RECENT_SECONDS, Overdue
from rowvec.pipeline.send import Sender
from rowvec.telemetry import Metrics

AWAY = CarrierError("QStash can't be reached.")
REFUSED = CarrierError("QStash refuses a message.", kind=CarrierTrouble.PERMANENT)
STANDARD = Slot("m", Lane.STANDARD, "post")
MOST, LEAST, DEADLINE = 4, 8, 30.0


@dataclass
class Line:
    """Where the work is done here: it only notes what came.

    Attributes:
        claims: what came, in order.
        gate: closed, the work takes long.
    """

    model: str = "m"
    claims: list[Claim] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def carry(self, claim: Claim) -> None:
        self.claims.append(claim)
        await self.gate.wait()

    @property
    def ids(self) -> list[int]:
        return [item.id for claim in self.claims for item in claim.items]


class World:
    """A dispatcher between a line and a carrier."""

    def __init__(self, lanes: frozenset[Lane] = frozenset(Lane)) -> None:
        self.clock, self.metrics = FakeClock(), Metrics()
        self.board = DueBoard(self.clock)
        self.carrier, self.dispatches, self.line = FakeCarrier(), FakeDispatches(), Line()
        self.circuit = CarrierCircuit(self.clock, random.Random(0))  # noqa: S311 - jitter
        self.opened = 0
        self.sender = Sender(self.carrier, self.circuit, self.dispatches, self.metrics, self.count_opening)
        self.announcer = Announcer(self.sender, uuid.uuid4, MOST, DEADLINE, self.metrics)
        self.allowance = Allowance(self.dispatches, self.clock, LEAST, DEADLINE)
        self.overdue = Overdue(self.clock, self.metrics)
        self.dispatcher = self.before(self.line, lanes)

    def before(self, line: Line, lanes: frozenset[Lane] = frozenset(Lane)) -> Dispatcher:
        terms = Terms(lanes, DEADLINE, MOST, 30.0)
        return Dispatcher(
            line,
            self.dispatches,
            self.sender,
            self.announcer,
            self.allowance,
            self.overdue,
            self.board,
            terms,
            lambda: ["m", "other"],
            uuid.uuid4,
        )

    def count_opening(self) -> None:
        self.opened += 1

    def outcomes(self) -> dict[str, float]:
        samples = next(iter(self.metrics.messages.collect())).samples
        return {sample.labels["outcome"]: sample.value for sample in samples if sample.name.endswith("_total")}

    def state(self) -> str:
        samples = next(iter(self.metrics.carrier_state.collect())).samples
        (state,) = [sample.labels["state"] for sample in samples if sample.value]
        return state


@pytest.fixture
def world() -> World:
    return World()


def claim(*ids: int, lane: Lane = Lane.STANDARD, overdue: Sequence[int] = (), generation: int = 1) -> Claim:
    old = uuid.uuid4()
    items = [Item(id_, str(id_), generation, 0, NOON, old if id_ in overdue else None) for id_ in ids]
    return Claim(Slot("m", lane, "post"), uuid.uuid4(), items)


# --- What goes out and what is done here


async def test_fresh_items_go_out_in_messages_that_name_their_rows(world: World) -> None:
    await world.dispatcher.carry(claim(1, 2, 3, 4, 5))
    ((first, second),) = world.carrier.sent
    assert [message.path for message in (first, second)] == [PROCESS, PROCESS]
    assert json.loads(first.body) == {
        "dispatch": str(first.name),
        "items": [{"contentType": "post", "contentId": str(id_), "priority": 4} for id_ in (1, 2, 3, 4)],
    }
    assert world.dispatches.held == {first.name: [1, 2, 3, 4], second.name: [5]}
    assert world.dispatches.deadlines == [DEADLINE, DEADLINE]
    assert (world.line.ids, world.dispatches.recalled) == ([], [])
    assert world.outcomes() == {"sent": 2}
    assert world.dispatches.sent == (2, 5)
    assert world.metrics.dispatched_items._value.get() == 5  # noqa: SLF001 - no public way


async def test_nothing_is_sent_before_it_is_marked(world: World) -> None:
    world.carrier.gate.clear()
    carrying = asyncio.create_task(world.dispatcher.carry(claim(1)))
    await settle()
    ((message,),) = world.carrier.sent
    assert world.dispatches.held == {message.name: [1]}
    world.carrier.gate.set()
    await carrying


async def test_what_waited_for_a_message_in_vain_is_done_here(world: World) -> None:
    await world.dispatcher.carry(claim(1, 2, 3, overdue=[1, 3]))
    assert (world.line.ids, list(world.dispatches.held.values())) == ([1, 3], [[2]])


async def test_what_messages_leave_undone_is_told_while_it_goes_on(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        await world.dispatcher.carry(claim(1, 2))
        assert world.overdue.why == ""
        await world.dispatcher.carry(claim(1, 2, 3, overdue=[1, 3]))
        await world.dispatcher.carry(claim(4, overdue=[4]))
    assert [entry["items"] for entry in logs if entry["event"] == "dispatch.overdue"] == [2]
    assert world.overdue.why.startswith("Of late 3 items were not brought in time")
    assert world.metrics.overdue_items._value.get() == 3  # noqa: SLF001 - no public way
    await world.clock.pass_by(RECENT_SECONDS)
    assert world.overdue.why == ""


async def test_a_claim_of_overdue_items_alone_is_no_try(world: World) -> None:
    world.carrier.broken = AWAY
    await world.dispatcher.carry(claim(1))
    await world.clock.pass_by(world.circuit.rest_seconds())
    await world.dispatcher.carry(claim(2, overdue=[2]))
    assert (world.line.ids, world.circuit.state) == ([2], BreakerState.OPEN)
    assert len(world.carrier.sent) == 1


async def test_a_lane_that_is_not_handed_over_is_done_here() -> None:
    world = World(frozenset({Lane.BULK}))
    await world.dispatcher.carry(claim(1))
    await world.dispatcher.carry(claim(2, lane=Lane.IMMEDIATE))
    await world.dispatcher.carry(claim(3, lane=Lane.BULK))
    assert (world.line.ids, list(world.dispatches.held.values())) == ([1, 2], [[3]])
    assert not world.carrier.messages[1:]


async def test_a_lost_token_sends_nothing(world: World) -> None:
    world.dispatches.lost = {1, 2}
    await world.dispatcher.carry(claim(1, 2))
    assert (world.carrier.sent, world.line.ids, world.circuit.state) == ([], [1, 2], BreakerState.CLOSED)
    await world.dispatcher.carry(claim(2, 3))
    assert [json.loads(message.body)["items"][0]["contentId"] for message in world.carrier.messages] == ["3"]


@pytest.mark.parametrize("lane", Lane)
def test_what_a_message_leaves_undone_is_still_in_time_here(lane: Lane) -> None:
    deadlines = {Lane.IMMEDIATE: 5.0, Lane.STANDARD: 30.0, Lane.BULK: 90.0}
    assert Terms(frozenset(Lane), 90.0, MOST, 30.0).deadline(lane) == deadlines[lane]


# --- When messages are refused


async def test_all_refused_come_back_and_the_next_are_done_here(world: World) -> None:
    world.carrier.broken = AWAY
    await world.dispatcher.carry(claim(1, 2, 3, 4, 5))
    assert (world.dispatches.recalled, list(world.dispatches.held.values())) == ([1, 2, 3, 4, 5], [[], []])
    assert (world.circuit.state, world.state(), world.opened) == (BreakerState.OPEN, "open", 1)
    assert world.outcomes() == {"passing": 2}
    assert world.dispatches.sent == (0, 0)
    async with asyncio.timeout(1):
        assert await world.board.take("m", Lane.STANDARD) == STANDARD
    await world.dispatcher.carry(claim(1, 2, 3))
    assert (world.line.ids, len(world.carrier.sent)) == ([1, 2, 3], 1)


async def test_what_somebody_holds_is_recalled_a_moment_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def let_go(_: float) -> None:
        world.dispatches.busy.pop()

    monkeypatch.setattr(asyncio, "sleep", let_go)
    world.carrier.broken, world.dispatches.busy = AWAY, {1, 3}
    await world.dispatcher.carry(claim(1, 2, 3))
    assert sorted(world.dispatches.recalled) == [1, 2, 3]


async def test_of_one_refused_message_the_others_stay_on_their_way(world: World) -> None:
    world.carrier.refusals = [[None, REFUSED]]
    await world.dispatcher.carry(claim(*range(1, 9)))
    assert world.dispatches.recalled == [5, 6, 7, 8]
    assert list(world.dispatches.held.values()) == [[1, 2, 3, 4], []]
    assert world.outcomes() == {"sent": 1, "permanent": 1}
    # Else it would go out and come back for ever.
    await world.dispatcher.carry(claim(5, 6, 7, 8))
    assert world.line.ids == [5, 6, 7, 8]


async def test_it_tries_again_by_itself_with_one_message_and_then_all_goes_out_again(world: World) -> None:
    world.carrier.broken = AWAY
    await world.dispatcher.carry(claim(1))
    await world.clock.pass_by(world.circuit.rest_seconds())
    world.carrier.broken = None
    world.carrier.gate.clear()
    probing = asyncio.create_task(world.dispatcher.carry(claim(*range(10, 20))))
    await settle()
    assert (world.circuit.state, world.state()) == (BreakerState.HALF_OPEN, "half-open")
    await world.dispatcher.carry(claim(30))
    world.carrier.gate.set()
    await probing
    assert [len(call) for call in world.carrier.sent] == [1, 1]
    assert world.line.ids == [14, 15, 16, 17, 18, 19, 30]
    assert (world.circuit.state, world.state()) == (BreakerState.CLOSED, "closed")
    await world.dispatcher.carry(claim(40))
    assert world.line.ids[-1] == 30


async def test_a_try_that_fails_brings_its_items_back_and_rests_longer(world: World) -> None:
    world.carrier.broken = AWAY
    await world.dispatcher.carry(claim(1))
    first = world.circuit.rest_seconds()
    await world.clock.pass_by(first)
    await world.dispatcher.carry(claim(2))
    assert world.dispatches.recalled == [1, 2]
    assert world.circuit.rest_seconds() > first


async def test_a_try_whose_token_was_lost_is_none(world: World) -> None:
    world.carrier.broken = AWAY
    await world.dispatcher.carry(claim(1))
    await world.clock.pass_by(world.circuit.rest_seconds())
    world.dispatches.lost = {2}
    await world.dispatcher.carry(claim(2))
    assert world.circuit.state is BreakerState.OPEN
    world.carrier.broken = None
    await world.dispatcher.carry(claim(3))
    assert world.state() == "closed"


async def test_a_try_is_left_to_others_as_soon_as_it_has_come_to_nothing(world: World) -> None:
    world.carrier.broken = AWAY
    await world.dispatcher.carry(claim(1))
    await world.clock.pass_by(world.circuit.rest_seconds())
    world.carrier.broken, world.dispatches.lost = None, {2}
    world.line.gate.clear()
    slow = asyncio.create_task(world.dispatcher.carry(claim(2, 3, overdue=[3])))
    await settle()
    assert (world.line.ids, slow.done(), world.state()) == ([3, 2], False, "open")
    await world.dispatcher.carry(claim(4))
    assert world.state() == "closed"
    world.line.gate.set()
    await slow


async def test_while_postgres_is_away_the_claim_goes_back_and_the_try_is_left_to_others(world: World) -> None:
    world.carrier.broken = AWAY
    await world.dispatcher.carry(claim(1))
    await world.clock.pass_by(world.circuit.rest_seconds())
    world.dispatches.away = True
    await world.dispatcher.carry(claim(2))
    assert (world.circuit.state, world.circuit.rest_seconds()) == (BreakerState.OPEN, 0.0)
    world.dispatches.away = False
    await world.dispatcher.carry(claim(3))
    assert world.dispatches.recalled == [1, 3]


async def test_what_is_cancelled_while_it_is_sent_is_left_to_its_deadline(world: World) -> None:
    world.carrier.gate.clear()
    carrying = asyncio.create_task(world.dispatcher.carry(claim(1)))
    await settle()
    carrying.cancel()
    await asyncio.wait([carrying])
    assert carrying.cancelled()
    assert (list(world.dispatches.held.values()), world.dispatches.recalled) == ([[1]], [])


async def test_a_count_that_is_missed_is_no_trouble(world: World) -> None:
    world.carrier.gate.clear()
    carrying = asyncio.create_task(world.dispatcher.carry(claim(1)))
    await settle()
    world.dispatches.away = True
    world.carrier.gate.set()
    await carrying
    assert (world.circuit.state, world.dispatches.recalled) == (BreakerState.CLOSED, [])


# --- How much


async def test_more_than_is_allowed_is_done_here(world: World) -> None:
    await world.dispatcher.carry(claim(*range(10)))
    await world.dispatcher.carry(claim(20))
    assert world.line.ids == [8, 9, 20]


async def test_without_a_count_all_is_done_here(world: World) -> None:
    world.dispatches.away = True
    await world.dispatcher.carry(claim(1))
    assert (world.line.ids, world.carrier.sent) == ([1], [])


async def test_it_counts_once_a_second_however_many_ask(world: World) -> None:
    assert [await world.allowance.take(1) for _ in range(LEAST + 1)] == [1] * LEAST + [0]
    assert world.dispatches.looks == 1
    world.clock.time += LOOK_SECONDS
    world.dispatches.counted = Dispatched(3, 3)
    assert await world.allowance.take(100) == LEAST - 3
    assert world.dispatches.looks == 2


async def test_as_much_is_allowed_as_recent_completions_fit_into_half_the_deadline(world: World) -> None:
    await world.allowance.take(0)
    world.clock.time += 2
    world.dispatches.counted = Dispatched(20, 60)
    # 40 in 2 s are 300 in half of 30 s.
    assert await world.allowance.take(1000) == 280
    world.clock.time += WINDOW_DEADLINES * DEADLINE + 1
    world.dispatches.counted = Dispatched(5, 60)
    assert await world.allowance.take(1000) == LEAST - 5


async def test_a_carrier_that_delivers_nothing_is_given_less_and_less(world: World) -> None:
    world.dispatches.counted = Dispatched(0, 0)
    await world.allowance.take(0)
    sent, expiring, granted = 1000, 1000, [1000]
    for second in range(1, 301):
        world.clock.time = 1000.0 + second
        if second % DEADLINE == 0:
            expiring = 0
        world.dispatches.counted = Dispatched(expiring, sent)
        taken = await world.allowance.take(10_000)
        sent, expiring = sent + taken, expiring + taken
        if taken:
            granted.append(taken)
    assert granted[-1] < 2 * LEAST
    assert sorted(granted, reverse=True) == granted


# --- Immediate rows


async def announced(world: World, act: Callable[[], object] = lambda: None) -> list[dict[str, object]]:
    """Let the announcer send what waits, doing something meanwhile; return what its messages say."""
    running = asyncio.create_task(world.announcer.run())
    act()
    await settle()
    running.cancel()
    await asyncio.wait([running])
    return [json.loads(message.body) for message in world.carrier.messages]


def immediate(*ids: int, model: str = "m", generation: int = 1, content_type: str = "profile") -> Claim:
    made = claim(*ids, lane=Lane.IMMEDIATE, generation=generation)
    return Claim(Slot(model, Lane.IMMEDIATE, content_type), made.token, made.items)


async def test_an_immediate_row_is_announced_and_done_here(world: World) -> None:
    await world.dispatcher.carry(immediate(7))
    (body,) = await announced(world)
    (message,) = world.carrier.messages
    assert message.path == PROCESS_ONE
    assert body == {"contentType": "profile", "contentId": "7", "priority": 2, "dispatch": str(message.name)}
    assert (world.line.ids, world.dispatches.held) == ([7], {})
    assert world.dispatches.sent == (1, 0)


async def test_the_work_does_not_wait_for_the_announcement(world: World) -> None:
    world.carrier.gate.clear()
    running = asyncio.create_task(world.announcer.run())
    for id_ in range(3):
        async with asyncio.timeout(1):
            await world.dispatcher.carry(immediate(id_))
    await settle()
    assert world.line.ids == [0, 1, 2]
    running.cancel()
    await asyncio.wait([running])


async def test_a_row_is_announced_once_for_all_models_and_again_when_it_changes(world: World) -> None:
    other = world.before(Line("n"))
    await world.dispatcher.carry(immediate(7, generation=1))
    await other.carry(immediate(7, model="n", generation=2))
    await other.carry(immediate(7, model="n", generation=2))
    assert len(await announced(world)) == 1
    await other.carry(immediate(7, model="n", generation=4))
    await world.dispatcher.carry(immediate(7, generation=3))
    assert len(await announced(world)) == 2


async def test_two_kinds_of_rows_are_two_messages_and_rows_of_one_kind_go_together(world: World) -> None:
    await world.dispatcher.carry(immediate(1, content_type="auth_user"))
    await world.dispatcher.carry(immediate(1, content_type="profile"))
    await announced(world)
    assert [message.path for message in world.carrier.messages] == [PROCESS_ONE, PROCESS_ONE]
    world.carrier.sent.clear()
    await world.dispatcher.carry(immediate(*range(10, 10 + MOST + 1)))
    await announced(world)
    assert [message.path for message in world.carrier.messages] == [PROCESS, PROCESS_ONE]


async def test_while_nothing_may_be_sent_nothing_is_announced_until_one_tries(world: World) -> None:
    world.carrier.broken = AWAY
    await world.dispatcher.carry(immediate(1))
    await announced(world)
    await world.dispatcher.carry(immediate(2))
    await announced(world)
    assert (len(world.carrier.messages), world.outcomes()) == (1, {"passing": 1, "dropped": 1})
    await world.clock.pass_by(world.circuit.rest_seconds())
    world.carrier.broken = None
    await world.dispatcher.carry(immediate(3, content_type="a"))
    await world.dispatcher.carry(immediate(3, content_type="b"))
    await announced(world)
    assert (len(world.carrier.messages), world.circuit.state) == (2, BreakerState.CLOSED)
    assert world.line.ids == [1, 2, 3, 3]


async def test_too_many_are_not_announced_and_none_waits(world: World) -> None:
    await world.dispatcher.carry(immediate(*range(WAITING + 5)))
    assert (len(world.line.ids), world.outcomes()) == (WAITING + 5, {"dropped": 5})


async def test_what_was_announced_is_forgotten_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce_module, "REMEMBERED", 2)
    for id_ in (1, 2, 3, 1):
        await world.dispatcher.carry(immediate(id_, content_type=f"type {id_}"))
    assert len(await announced(world)) == 3
    assert world.announcer._memory.is_new(("type 2", "2"), "m", 1)  # type: ignore[arg-type]  # noqa: SLF001


# --- Collecting


class Collected:
    """A lane that is held."""

    def __init__(self) -> None:
        self.clock, self.dispatches, self.state = FakeClock(), FakeDispatches(), BreakerState.CLOSED
        self.board = DueBoard(self.clock)
        pulse = Pulse("collect", 30.0, self.clock)
        self.collector = Collector(
            Lane.BULK, self.dispatches, self.board, lambda: ["m", "n"], lambda: self.state, 64, self.clock, pulse
        )
        self.board.offer([Slot("m", Lane.BULK, "post"), Slot("m", Lane.STANDARD, "post")])

    async def look(self, oldest_seconds: float = 0.0, *, full: bool = False, overdue: bool = False) -> None:
        """Let it look once at what has been collected."""
        self.dispatches.collected = Held(oldest_seconds, full, overdue)
        looking = asyncio.create_task(self.collector.run())
        await settle()
        looking.cancel()
        await asyncio.wait([looking])

    async def goes(self, lane: Lane = Lane.BULK) -> bool:
        """Whether claims are given a slot of a lane."""
        taking = asyncio.create_task(self.board.take("m", lane))
        await settle()
        done = taking.done()
        taking.cancel()
        await asyncio.wait([taking])
        if done:
            self.board.offer([Slot("m", lane, "post")])
        return done


@pytest.fixture
def collected() -> Collected:
    return Collected()


async def test_a_held_lane_waits_and_no_other(collected: Collected) -> None:
    assert not await collected.goes()
    assert await collected.goes(Lane.STANDARD)
    await collected.look(100.0)
    assert not await collected.goes()


async def test_the_monitor_lets_it_go_at_once(collected: Collected) -> None:
    waiting = asyncio.create_task(collected.board.take("m", Lane.BULK))
    await settle()
    collected.collector.release()
    async with asyncio.timeout(1):
        assert await waiting == Slot("m", Lane.BULK, "post")


@pytest.mark.parametrize(("oldest", "full", "overdue"), [(120.0, False, False), (1.0, True, False), (1.0, False, True)])
async def test_it_goes_when_it_is_old_or_full_or_a_message_left_something(
    collected: Collected, oldest: float, *, full: bool, overdue: bool
) -> None:
    await collected.look(oldest, full=full, overdue=overdue)
    assert await collected.goes()


async def test_what_waits_for_a_model_that_is_let_alone_lets_nothing_go(collected: Collected) -> None:
    await collected.look()
    assert collected.dispatches.collected_for == ["m", "n"]
    collected.board.rest_model("n", "It is broken.")
    await collected.look()
    assert collected.dispatches.collected_for == ["m"]


async def test_it_goes_while_the_carrier_takes_nothing(collected: Collected) -> None:
    collected.state = BreakerState.OPEN
    await collected.look()
    assert await collected.goes()


async def test_it_is_held_again_when_what_was_collected_is_gone(collected: Collected) -> None:
    collected.collector.release()
    await collected.clock.pass_by(COLLECT_SECONDS)
    await collected.look(COLLECT_SECONDS + 1)
    assert await collected.goes()
    await collected.look(COLLECT_SECONDS)
    assert await collected.goes(), "that has been due since it was let go"
    await collected.look(COLLECT_SECONDS - 0.1)
    assert not await collected.goes()


async def test_it_looks_on_when_postgres_was_away(collected: Collected) -> None:
    collected.dispatches.away = True
    looking = asyncio.create_task(collected.collector.run())
    await settle()
    collected.dispatches.away, collected.dispatches.collected = False, Held(200.0, full=False, overdue=False)
    await collected.clock.pass_by(COLLECT_SECONDS)
    assert await collected.goes()
    looking.cancel()
    await asyncio.wait([looking])
