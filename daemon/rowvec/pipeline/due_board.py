"""Which slots hold due items: written by the fold, read by the claims."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from rowvec.domain.items import Claim, Slot
from rowvec.domain.lanes import Lane

EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
STRAGGLERS: Final = timedelta(seconds=1)
"""Items become due a little out of order: a claim looks back this far beyond the last it has seen. Not further: under
an old snapshot the dead rows of everything finished since then lie there. A sweep finds the rest."""


@dataclass(slots=True)
class _Turns:
    """The sources of one model and lane that have something due, in the order of their turns."""

    content_types: dict[str, None] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class _Rest(NamedTuple):
    until: float
    why: str


class DueBoard:
    """Slots with due items, whose turn it is, and who has to rest.

    The floor of a slot keeps claims from walking over the dead rows of finished items when an old snapshot holds
    them back; a sweep sets it to the oldest item that there is.

    Args:
        seconds: the monotonic clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._turns: dict[tuple[str, Lane], _Turns] = {}
        self._floors: dict[Slot, datetime] = {}
        self._rests: dict[tuple[str, str], _Rest] = {}

    def offer(self, slots: Iterable[Slot]) -> None:
        """Say that slots have due items."""
        for slot in slots:
            turns = self._lane(slot.model, slot.lane)
            turns.content_types.setdefault(slot.content_type)
            turns.changed.set()

    def lower_floors(self, oldest: Mapping[Slot, datetime]) -> None:
        """Let claims look from the oldest item that a sweep has found in each slot."""
        for slot, due_at in oldest.items():
            self._floors[slot] = min(due_at, self._floors.get(slot, due_at))

    async def take(self, model: str, lane: Lane) -> Slot:
        """Wait for a slot of this model and lane that may be worked on; its source goes to the end of the line."""
        turns = self._lane(model, lane)
        while True:
            turns.changed.clear()
            awake = [name for name in turns.content_types if not self._rest_seconds(model, name)]
            if awake:
                del turns.content_types[awake[0]]
                return Slot(model, lane, awake[0])
            rests = [self._rest_seconds(model, name) for name in turns.content_types]
            try:
                async with asyncio.timeout(min(rests, default=None)):
                    await turns.changed.wait()
            except TimeoutError:
                continue

    def floor(self, slot: Slot) -> datetime:
        """Return the due time below which a claim need not look."""
        return self._floors.get(slot, EVER)

    def lowest_floor(self) -> datetime:
        """Return the due time below which a probe need not look."""
        return min(self._floors.values(), default=EVER)

    def saw(self, claim: Claim, limit: int) -> None:
        """Note how far a claim came; a full one is offered again."""
        if claim.items:
            last = max(item.due_at for item in claim.items) - STRAGGLERS
            self._floors[claim.slot] = max(last, self.floor(claim.slot))
        if len(claim.items) == limit:
            self.offer([claim.slot])

    def rest_model(self, name: str, seconds: float, why: str) -> None:
        """Let a model alone for a while, from now."""
        self._rest(("model", name), seconds, why)

    def model_rest_seconds(self, name: str) -> float:
        """Return for how long a model is let alone yet; 0 when it is not."""
        rest = self._rests.get(("model", name))
        return max(0.0, rest.until - self._seconds()) if rest else 0.0

    def rest_source(self, content_type: str, seconds: float, why: str) -> None:
        """Let a source alone for a while, from now."""
        self._rest(("source", content_type), seconds, why)

    def resting(self) -> list[str]:
        """Return who is let alone at the moment, and why, a sentence each."""
        now = self._seconds()
        return [f"{kind} {name}: {rest.why}" for (kind, name), rest in self._rests.items() if rest.until > now]

    def _rest(self, whom: tuple[str, str], seconds: float, why: str) -> None:
        self._rests[whom] = _Rest(self._seconds() + seconds, why)
        for turns in self._turns.values():
            turns.changed.set()

    def _rest_seconds(self, model: str, content_type: str) -> float:
        rests = (self._rests.get(("model", model)), self._rests.get(("source", content_type)))
        return max(0.0, *(rest.until - self._seconds() if rest else 0.0 for rest in rests))

    def _lane(self, model: str, lane: Lane) -> _Turns:
        return self._turns.setdefault((model, lane), _Turns())
