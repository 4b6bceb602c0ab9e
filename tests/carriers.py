"""Carriers and dispatches for the tests: in memory, and doing what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from uuid import UUID

from rowvec.domain.errors import CarrierError, DatabaseUnavailableError
from rowvec.domain.items import Claim, Dispatch, Dispatched, Held, Key, Recalled, Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.messages import Message


class FakeCarrier:
    """Takes all messages, until it is told otherwise.

    Attributes:
        sent: the messages of every call, refused ones among them.
        refusals: what the next calls answer, a list for each; afterwards all is taken.
        broken: what every message is refused for while set.
        gate: closed, calls wait in it.
    """

    def __init__(self) -> None:
        self.sent: list[list[Message]] = []
        self.refusals: list[list[CarrierError | None]] = []
        self.broken: CarrierError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, messages: Sequence[Message]) -> Sequence[CarrierError | None]:
        self.sent.append(list(messages))
        await self.gate.wait()
        if self.broken is not None:
            return [self.broken] * len(messages)
        return self.refusals.pop(0) if self.refusals else [None] * len(messages)

    @property
    def messages(self) -> list[Message]:
        return [message for call in self.sent for message in call]


class FakeDispatches:
    """See `ports.Dispatchable`: rows without a database. An item's row has its id for a key.

    Attributes:
        held: ids by the message that they are in.
        lost: ids whose token is no longer valid.
        busy: ids that somebody holds, so that they can't be recalled.
        recalled: what was taken back, in order.
        counted: what `count_dispatched` answers.
        collected: what `look_held` answers.
        looks: how often it was counted.
        collected_for: the models whose collected items were last asked for.
        away: while set, nothing is answered.
    """

    def __init__(self) -> None:
        self.held: dict[UUID, list[int]] = {}
        self.deadlines: list[float] = []
        self.models: list[str] = []
        self.lost: set[int] = set()
        self.busy: set[int] = set()
        self.recalled: list[int] = []
        self.counted = Dispatched(0, 0)
        self.collected = Held(0.0, full=False, overdue=False)
        self.collected_for: list[str] = []
        self.looks = 0
        self.sent = (0, 0)
        self.away = False

    async def dispatch(
        self, claim: Claim, ids: Sequence[int], message: UUID, deadline_seconds: float, models: Collection[str]
    ) -> Dispatch:
        self._check()
        self.models = list(models)
        taken = [id_ for id_ in ids if id_ not in self.lost]
        if taken:
            self.held[message] = taken
            self.deadlines.append(deadline_seconds)
        return Dispatch(message, taken, {Key(claim.slot.content_type, str(id_)): 4 for id_ in taken})

    async def recall(self, dispatch: Dispatch) -> Recalled:
        self._check()
        ids = self.held.get(dispatch.message, [])
        free = [id_ for id_ in ids if id_ not in self.busy]
        self.held[dispatch.message] = [id_ for id_ in ids if id_ in self.busy]
        self.recalled += free
        return Recalled([Slot("m", Lane.STANDARD, "post")] if free else [], len(ids) - len(free))

    async def claim_rows(self, models: Sequence[str], rows: Sequence[Key], token: UUID) -> Sequence[Claim]:
        raise NotImplementedError

    async def count_dispatched(self) -> Dispatched:
        self._check()
        self.looks += 1
        return self.counted

    async def count_sent(self, messages: int, items: int) -> None:
        self._check()
        self.sent = (self.sent[0] + messages, self.sent[1] + items)

    async def look_held(self, lane: Lane, models: Sequence[str], enough: int) -> Held:
        del lane, enough
        self._check()
        self.collected_for = list(models)
        return self.collected

    def _check(self) -> None:
        if self.away:
            raise DatabaseUnavailableError("Postgres is away.")
