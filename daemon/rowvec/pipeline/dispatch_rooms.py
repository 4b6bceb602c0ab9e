"""What all models of a daemon have in common of the way into messages."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Collection
from typing import Final

from rowvec.domain.lanes import Lane
from rowvec.domain.load import CarrierLoad
from rowvec.health import Health
from rowvec.lifecycle import Room
from rowvec.pipeline.allowance import Allowance
from rowvec.pipeline.announce import Announcer
from rowvec.pipeline.circuit import CarrierCircuit
from rowvec.pipeline.collect import Collector
from rowvec.pipeline.dispatch import Dispatcher, Terms, Way
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.overdue import Overdue
from rowvec.pipeline.send import Sender
from rowvec.ports import Carrier, Clock, Dispatchable
from rowvec.telemetry import Metrics

LOOK_BOUND_SECONDS: Final = 120.0


class DispatchRooms:
    """The circuit, the allowance, who announces immediate rows and who collects bulk ones.

    Args:
        carrier: takes messages.
        dispatches: marks items as handed over.
        board: claims take their slots from it.
        terms: how work is handed over.
        concurrency: how many messages are delivered at once.
        models: those that are worked for here.
        clock: the time.
        metrics: counts messages and items.
        health: watches the looks.

    Attributes:
        rooms: what runs for ever.
    """

    def __init__(  # noqa: PLR0913 - doors, each wired once
        self,
        carrier: Carrier,
        dispatches: Dispatchable,
        board: DueBoard,
        terms: Terms,
        concurrency: int,
        models: Callable[[], Collection[str]],
        clock: Clock,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self._dispatches = dispatches
        self._board = board
        self._terms = terms
        self._models = models
        least = concurrency * terms.message_items
        self._circuit = CarrierCircuit(clock, random.Random())  # noqa: S311 - jitter
        self._sender = Sender(carrier, self._circuit, dispatches, metrics, self.release)
        self._allowance = Allowance(dispatches, clock.seconds, least, terms.deadline(Lane.BULK))
        self._overdue = Overdue(clock, metrics)
        self._announcer = Announcer(self._sender, uuid.uuid4, terms.message_items, terms.delivery_seconds, metrics)
        self._collector = (
            Collector(
                Lane.BULK,
                dispatches,
                board,
                models,
                lambda: self._circuit.state,
                least,
                clock,
                health.pulse("collect", LOOK_BOUND_SECONDS),
            )
            if Lane.BULK in terms.lanes
            else None
        )
        self.rooms: list[Room] = [self._announcer, *([self._collector] if self._collector else [])]

    def before(self, line: Way) -> Dispatcher:
        """Return what stands before a model's line."""
        return Dispatcher(
            line,
            self._dispatches,
            self._sender,
            self._announcer,
            self._allowance,
            self._overdue,
            self._board,
            self._terms,
            self._models,
            uuid.uuid4,
        )

    def release(self) -> None:
        """Let what has been collected go, now: the monitor's tick."""
        if self._collector:
            self._collector.release()

    def load(self) -> CarrierLoad:
        """Return which way the work goes."""
        lanes = tuple(lane.value for lane in Lane if lane in self._terms.lanes)
        why = self._circuit.why or self._overdue.why
        return CarrierLoad("qstash", lanes, self._circuit.state, why, self._circuit.since)
