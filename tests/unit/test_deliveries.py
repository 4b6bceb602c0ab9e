"""Rows on their way from a message to the models, without a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self
from uuid import UUID, uuid4

import pytest

from clocks import settle
from rowvec.domain.errors import DatabaseUnavailableError, StatementTimeoutError, StoppingError, TryAgainError
from rowvec.domain.items import Claim, Item, Key, Row, Slot, Source
from rowvec.domain.lanes import Lane
from rowvec.domain.row_states import Fingerprint, LaneCount, RowStanding, RowState
from rowvec.pipeline.bell import Bell, Cause
from rowvec.pipeline.claim_rows import RowClaimer
from rowvec.pipeline.deliver import Deliveries
from rowvec.pipeline.due_board import EVER, DueBoard
from rowvec.pipeline.staleness import Staleness

ONE: Final = Key("post", "1")
TWO: Final = Key("post", "2")
DONE: Final = RowStanding(watched=True, stored=True)
BATCH_ITEMS: Final = 3


class StubLine:
    """A model's line that ends when it is let.

    Attributes:
        free: closed, nothing ends.
        carried: the claims that were carried, in order.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.free = asyncio.Event()
        self.free.set()
        self.carried: list[Claim] = []

    async def carry(self, claim: Claim) -> None:
        await self.free.wait()
        self.carried.append(claim)


class StubQueue:
    """See `ports.Dispatchable`: everything that is asked for is to be done, once."""

    def __init__(self, tokens: set[UUID]) -> None:
        self.tokens = tokens
        self.error: Exception | None = None
        self.taken: set[tuple[str, Key]] = set()

    async def claim_rows(self, models: Sequence[str], rows: Sequence[Key], token: UUID) -> Sequence[Claim]:
        assert token in self.tokens, "a heartbeat now would give the leases back"
        if self.error:
            raise self.error
        (model,) = models
        left = [row for row in rows if (model, row) not in self.taken]
        self.taken |= {(model, row) for row in left}
        items = [Item(n, row.content_id, 1, 0, EVER) for n, row in enumerate(left)]
        return [Claim(Slot(model, Lane.STANDARD, "post"), token, items)] if items else []

    async def dispatch(self, *_: object) -> Any:  # noqa: ANN401 - nobody dispatches here
        raise NotImplementedError

    async def recall(self, *_: object) -> Any:  # noqa: ANN401 - nor recalls
        raise NotImplementedError

    async def count_dispatched(self) -> Any:  # noqa: ANN401 - nor counts
        raise NotImplementedError

    async def count_sent(self, *_: object) -> None:
        raise NotImplementedError

    async def look_held(self, *_: object) -> Any:  # noqa: ANN401 - as above
        raise NotImplementedError


class StubStates:
    """See `ports.RowStates`."""

    def __init__(self) -> None:
        self.standings: Callable[[Key], RowStanding] = lambda _: DONE
        self.held: dict[Key, Fingerprint] = {}
        self.enqueued: list[Mapping[Key, int | None]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.comparing: Callable[[], None] = lambda: None

    async def show(self, rows: Sequence[Key]) -> Mapping[Key, RowStanding]:
        await self.answers.wait()
        return {row: self.standings(row) for row in rows}

    async def fingerprints(self, model: str, rows: Sequence[Key]) -> Mapping[Key, Fingerprint]:
        del model
        self.comparing()
        return {row: self.held[row] for row in rows if row in self.held}

    async def enqueue(self, rows: Mapping[Key, int | None]) -> None:
        self.enqueued.append(rows)

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> Sequence[Slot]:
        del message
        return [Slot("first", Lane.STANDARD, row.content_type) for row in rows]

    async def count(self) -> Mapping[Lane, LaneCount]:
        raise NotImplementedError


class NoRows:
    """See `ports.RowReader`: all rows are gone.

    Attributes:
        reads: how many rows were read at once, in order.
    """

    def __init__(self) -> None:
        self.reads: list[int] = []

    async def read(self, content_type: str, content_ids: Sequence[str]) -> tuple[Source, Sequence[Row]] | None:
        self.reads.append(len(content_ids))
        return Source(content_type, [], None, "none", 100, 0), []


class Daemon:
    """As much of one as deliveries need."""

    def __init__(self, *models: str, at_once: int = 2, seconds: float = 60.0) -> None:
        self.tokens: set[UUID] = set()
        self.queue = StubQueue(self.tokens)
        self.lines = {model: StubLine(model) for model in models}
        self.takers: dict[str, RowClaimer] = {}
        self.rooms = [self._room(line, at_once) for line in self.lines.values()]
        self.states = StubStates()
        self.bell = Bell()
        self.board = DueBoard(lambda: 0.0)
        self.reader = NoRows()
        staleness = Staleness(self.reader, self.states, BATCH_ITEMS)
        self.deliveries = Deliveries(self.takers, self.states, staleness, self.board, self.bell, at_once, seconds)
        self._tasks: list[asyncio.Task[None]] = []

    def _room(self, line: Any, at_once: int) -> RowClaimer:  # noqa: ANN401 - stands in for a Line
        return RowClaimer(self.queue, line, self.tokens, uuid4, at_once, BATCH_ITEMS, self.takers)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(room.run()) for room in self.rooms]
        await settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        for room in self.rooms:
            room.stop()
        for line in self.lines.values():
            line.free.set()
        await asyncio.gather(*self._tasks)
        assert (self.tokens, self.takers) == (set(), {})

    async def states_of(self, *rows: Key, dispatched: bool = True) -> list[RowState]:
        delivered = await self.deliveries.deliver(dict.fromkeys(rows, 3), dispatched=dispatched)
        return [delivered.states[row] for row in rows]


async def test_rows_are_brought_by_every_model() -> None:
    async with Daemon("first", "second") as daemon:
        assert await daemon.states_of(ONE, TWO) == [RowState.EMBEDDED] * 2
        assert [len(line.carried) for line in daemon.lines.values()] == [1, 1]
        assert await daemon.states_of(ONE) == [RowState.CURRENT]


async def test_a_long_list_is_worked_on_a_batch_at_a_time() -> None:
    async with Daemon("first") as daemon:
        line, rows = daemon.lines["first"], [Key("post", str(number)) for number in range(2 * BATCH_ITEMS + 1)]
        line.free.clear()
        begun = asyncio.create_task(daemon.states_of(*rows, dispatched=False))
        await settle()
        assert len(daemon.queue.taken) == BATCH_ITEMS
        line.free.set()
        assert await begun == [RowState.EMBEDDED] * len(rows)
        assert [len(claim.items) for claim in line.carried] == [BATCH_ITEMS, BATCH_ITEMS, 1]
        assert await daemon.states_of(*rows, dispatched=False) == [RowState.CURRENT] * len(rows)
        assert daemon.reader.reads == [BATCH_ITEMS, BATCH_ITEMS, 1]


async def test_a_daemon_that_stops_leaves_what_it_has_not_begun_of_a_long_list() -> None:
    async with Daemon("first") as daemon:
        line = daemon.lines["first"]
        line.free.clear()
        begun = asyncio.create_task(daemon.states_of(*(Key("post", str(number)) for number in range(BATCH_ITEMS + 1))))
        await settle()
        daemon.rooms[0].stop()
        line.free.set()
        await begun
        assert [len(claim.items) for claim in line.carried] == [BATCH_ITEMS]


async def test_a_model_that_goes_while_rows_are_compared_is_no_error() -> None:
    async with Daemon("first", "second") as daemon:
        await daemon.states_of(ONE)
        daemon.states.comparing = daemon.rooms[1].stop
        assert await daemon.states_of(ONE, dispatched=False) == [RowState.CURRENT]


@pytest.mark.parametrize(
    ("standing", "state"),
    [
        (RowStanding(watched=True, stored=True), RowState.EMBEDDED),
        (RowStanding(watched=True), RowState.GONE),
        (RowStanding(watched=True, statuses=frozenset({"queued", "processing", "failed"})), RowState.PROCESSING),
        (RowStanding(watched=True, statuses=frozenset({"queued", "failed"}), stored=True), RowState.WAITING),
        (RowStanding(watched=True, statuses=frozenset({"failed"}), stored=True), RowState.FAILED),
    ],
)
async def test_a_state_tells_of_what_has_the_longest_way_before_it(standing: RowStanding, state: RowState) -> None:
    async with Daemon("first") as daemon:
        daemon.states.standings = lambda _: standing
        assert await daemon.states_of(ONE) == [state]


async def test_types_that_are_not_watched_have_no_state() -> None:
    async with Daemon("first") as daemon:
        daemon.states.standings = lambda row: RowStanding(watched=row == ONE, stored=True)
        delivered = await daemon.deliveries.deliver({ONE: None, Key("pets", "1"): None}, dispatched=False)
        assert (list(delivered.states), list(delivered.unknown)) == ([ONE], ["pets"])


async def test_without_a_model_nothing_is_taken() -> None:
    async with Daemon() as daemon:
        with pytest.raises(StoppingError):
            await daemon.states_of(ONE)


async def test_a_daemon_that_stops_takes_nothing_more_but_ends_what_it_has_begun() -> None:
    async with Daemon("first") as daemon:
        daemon.lines["first"].free.clear()
        begun = asyncio.create_task(daemon.states_of(ONE))
        await settle()
        daemon.rooms[0].stop()
        with pytest.raises(StoppingError):
            await daemon.states_of(TWO)
        daemon.lines["first"].free.set()
        assert await begun == [RowState.EMBEDDED]


async def test_nothing_is_taken_for_a_model_that_is_let_alone() -> None:
    async with Daemon("first", "second") as daemon:
        daemon.board.rest_model("second", "It is broken.")
        await daemon.states_of(ONE)
        assert [len(line.carried) for line in daemon.lines.values()] == [1, 0]
        daemon.board.rest_model("first", "It is broken.")
        daemon.states.standings = lambda _: RowStanding(watched=True, statuses=frozenset({"queued"}))
        assert await daemon.states_of(TWO) == [RowState.WAITING]
        assert [len(line.carried) for line in daemon.lines.values()] == [1, 0]


async def test_when_full_it_says_so_and_takes_again_when_it_is_not() -> None:
    async with Daemon("first", at_once=2) as daemon:
        daemon.lines["first"].free.clear()
        begun = [asyncio.create_task(daemon.states_of(row)) for row in (ONE, TWO)]
        await settle()
        with pytest.raises(TryAgainError):
            await daemon.states_of(Key("post", "3"))
        daemon.lines["first"].free.set()
        assert await asyncio.gather(*begun) == [[RowState.EMBEDDED]] * 2
        assert await daemon.states_of(Key("post", "3")) == [RowState.EMBEDDED]


async def test_work_that_goes_on_behind_answers_is_bounded_too() -> None:
    async with Daemon("first", at_once=2, seconds=0.02) as daemon:
        daemon.states.standings = lambda _: RowStanding(watched=True, statuses=frozenset({"processing"}))
        daemon.lines["first"].free.clear()
        answers = await asyncio.gather(*(daemon.states_of(row) for row in (ONE, TWO)))
        assert answers == [[RowState.PROCESSING]] * 2
        assert len(daemon.tokens) == 2
        with pytest.raises(TryAgainError):
            await daemon.states_of(Key("post", "3"))


async def test_a_model_that_was_late_is_not_waited_for_until_it_has_ended_something() -> None:
    async with Daemon("first", "second", at_once=9, seconds=0.2) as daemon:
        daemon.lines["second"].free.clear()
        await daemon.states_of(ONE)
        # As long as a delivery may take, and no longer in vain: only the first model is waited for.
        daemon.deliveries._seconds = 3600.0  # noqa: SLF001 - a model that is waited for hangs the test
        async with asyncio.timeout(10):
            await daemon.states_of(TWO)
        assert len(daemon.lines["first"].carried) == 2
        daemon.lines["second"].free.set()
        await settle()
        daemon.lines["second"].free.clear()
        waits = asyncio.create_task(daemon.states_of(Key("post", "3")))
        await settle()
        assert not waits.done()
        daemon.lines["second"].free.set()
        await waits


async def test_a_database_that_is_away_ends_the_claim_and_not_the_daemon() -> None:
    async with Daemon("first") as daemon:
        daemon.queue.error = DatabaseUnavailableError("Away.")
        with pytest.raises(DatabaseUnavailableError):
            await daemon.states_of(ONE)
        assert daemon.tokens == set()
        daemon.queue.error = None
        assert await daemon.states_of(ONE) == [RowState.EMBEDDED]


async def test_a_database_that_hangs_is_given_up_in_time() -> None:
    async with Daemon("first", seconds=0.02) as daemon:
        daemon.states.answers.clear()
        with pytest.raises(StatementTimeoutError):
            await daemon.states_of(ONE)
        daemon.states.answers.set()
        assert await daemon.states_of(TWO) == [RowState.EMBEDDED]


async def test_what_is_stale_is_queued_and_followed_until_it_is_done() -> None:
    async with Daemon("first") as daemon:
        daemon.queue.taken = {("first", ONE), ("first", TWO)}
        daemon.states.held = {ONE: frozenset({(b"old", 0)})}
        later = iter([
            RowStanding(watched=True, stored=True),
            RowStanding(watched=True, stored=True, unfolded=True),
            RowStanding(watched=True, stored=True, statuses=frozenset({"processing"})),
        ])  # fmt: skip
        daemon.states.standings = lambda row: next(later, DONE) if row == ONE else RowStanding(watched=True)
        assert await daemon.states_of(ONE, TWO, dispatched=False) == [RowState.EMBEDDED, RowState.GONE]
        assert daemon.states.enqueued == [{ONE: 3}]
        assert await daemon.bell.wait(0) is Cause.NOTIFY


async def test_what_is_not_folded_in_time_is_told_as_queued() -> None:
    async with Daemon("first", seconds=0.3) as daemon:
        daemon.queue.taken = {("first", ONE)}
        daemon.states.standings = lambda _: RowStanding(watched=True, stored=True, unfolded=True)
        assert await daemon.states_of(ONE, dispatched=False) == [RowState.ENQUEUED]
        assert daemon.states.enqueued == []


async def test_rows_of_a_dead_message_are_offered_at_once() -> None:
    async with Daemon("first") as daemon:
        await daemon.deliveries.take_back(uuid4(), [ONE])
        assert await daemon.board.take("first", Lane.STANDARD) == Slot("first", Lane.STANDARD, "post")
