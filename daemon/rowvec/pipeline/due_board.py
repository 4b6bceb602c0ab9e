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
        self._models: dict[str, str] = {}
        self._sources: dict[str, _Rest] = {}
        self._held: set[Lane] = set()

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
            waiting = () if model in self._models or lane in self._held else tuple(turns.content_types)
            awake = [name for name in waiting if not self._rest_seconds(name)]
            if awake:
                del turns.content_types[awake[0]]
                return Slot(model, lane, awake[0])
            rests = [self._rest_seconds(name) for name in waiting]
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

    def forget_model(self, name: str) -> None:
        """Forget all about a model for which nobody works here any more."""
        self._turns = {key: turns for key, turns in self._turns.items() if key[0] != name}
        self._floors = {slot: floor for slot, floor in self._floors.items() if slot.model != name}
        self._models.pop(name, None)

    def rest_model(self, name: str, why: str) -> None:
        """Let a model alone until `wake_model`."""
        self._models[name] = why

    def wake_model(self, name: str) -> None:
        """Give its items out again."""
        self._models.pop(name, None)
        self._tell()

    def awake(self, names: Iterable[str]) -> list[str]:
        """Return which of these models are not let alone."""
        return [name for name in names if name not in self._models]

    def rest_source(self, content_type: str, seconds: float, why: str) -> None:
        """Let a source alone for a while, from now."""
        self._sources[content_type] = _Rest(self._seconds() + seconds, why)
        self._tell()

    def hold_lane(self, lane: Lane) -> None:
        """Give nothing of a lane out until `release_lane`: its items are being collected."""
        self._held.add(lane)

    def release_lane(self, lane: Lane) -> None:
        """Give its items out again."""
        self._held.discard(lane)
        self._tell()

    def resting(self) -> list[str]:
        """Return who is let alone at the moment, and why, a sentence each."""
        models = [f"model {name}: {why}" for name, why in self._models.items()]
        sources = [f"source {name}: {rest.why}" for name, rest in self._sources.items() if self._rest_seconds(name)]
        return models + sources

    def _tell(self) -> None:
        for turns in self._turns.values():
            turns.changed.set()

    def _rest_seconds(self, content_type: str) -> float:
        rest = self._sources.get(content_type)
        return max(0.0, rest.until - self._seconds()) if rest else 0.0

    def _lane(self, model: str, lane: Lane) -> _Turns:
        return self._turns.setdefault((model, lane), _Turns())
