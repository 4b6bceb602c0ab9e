"""What waits in one lane of one model and source, whether it waits too long, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rowvec.domain.items import Slot
from rowvec.domain.lanes import AIM_SECONDS, Lane

NO_DAEMON: Final = "No daemon is running."


@dataclass(frozen=True, slots=True)
class Backlog:
    """The items of a slot, counted.

    Attributes:
        slot: whose they are.
        queued: due, and nobody works on them.
        unfolded: changes on their way into the queue, which make one item each at most.
        delayed: due later: asked for so, tried again after a failure, or on their way in a message until its deadline.
        processing: leased.
        failed: given up.
        oldest_seconds: for how long the oldest that is queued or processing has been due; 0 when there is none.
    """

    slot: Slot
    queued: int = 0
    unfolded: int = 0
    delayed: int = 0
    processing: int = 0
    failed: int = 0
    oldest_seconds: float = 0.0

    @property
    def waiting(self) -> int:
        """How many are not yet done, the failed ones aside."""
        return self.queued + self.unfolded + self.delayed + self.processing

    @property
    def within_seconds(self) -> float:
        """The time of the lane."""
        return AIM_SECONDS[self.slot.lane]

    @property
    def late(self) -> bool:
        """Whether an item waits for longer than its lane's time. A change that is not folded has no age."""
        return self.oldest_seconds > self.within_seconds


@dataclass(frozen=True, slots=True)
class Workers:
    """Who could work on what waits.

    Attributes:
        living: how many daemons there are.
        models: those that they have.
        resting: what the living ones let alone, and why, as `rowvec.daemon.resting`.
        paused: the paused sources.
    """

    living: int
    models: Collection[str] = ()
    resting: Collection[str] = ()
    paused: Collection[str] = ()

    def reasons(self, backlog: Backlog) -> list[str]:
        """Return why the items of a slot do not come to their end, a sentence each, as far as it is known."""
        told = self._hindrances(backlog.slot) if backlog.waiting else []
        return [*told, "Some were given up: see `rowvec failed list`."] if backlog.failed else told

    def _hindrances(self, slot: Slot) -> list[str]:
        names = (f"model {slot.model}: ", f"source {slot.content_type}: ")
        told = [f"Let alone for a while: {why}" for why in sorted(set(self.resting)) if why.startswith(names)]
        if slot.content_type in self.paused:
            told.append(f"The source {slot.content_type} is paused: see `rowvec resume {slot.content_type}`.")
        if self.living == 0:
            told.append(NO_DAEMON)
        elif slot.model not in self.models and not any(why.startswith(names[0]) for why in self.resting):
            variable = f"ROWVEC_MODEL_{slot.model.upper()}"
            told.append(f"No daemon has the model {slot.model}: is {variable}_URL or {variable}_PROVIDER set for one?")
        return told


def add_unfolded(
    backlogs: Iterable[Backlog], unfolded: Iterable[tuple[str, Lane, int]], models: Collection[str]
) -> Sequence[Backlog]:
    """Return the backlogs with the changes of their sources and lanes, which every active model has before it.

    Args:
        backlogs: as counted in the queue.
        unfolded: content type, lane and how many changes.
        models: the active ones.
    """
    found = {backlog.slot: backlog for backlog in backlogs}
    for content_type, lane, changes in unfolded:
        for model in models:
            slot = Slot(model, lane, content_type)
            found[slot] = replace(found.get(slot, Backlog(slot)), unfolded=changes)
    return [found[slot] for slot in sorted(found, key=_by_urgency)]


def _by_urgency(slot: Slot) -> tuple[str, float, str]:
    return slot.model, AIM_SECONDS[slot.lane], slot.content_type
