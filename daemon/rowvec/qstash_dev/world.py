"""What all parts of the local QStash have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from rowvec.qstash_dev.clock import Clock
from rowvec.qstash_dev.faults import Mishaps
from rowvec.qstash_dev.plans import Plan
from rowvec.qstash_dev.record import Record
from rowvec.qstash_dev.usage import Usage


@dataclass(frozen=True, slots=True)
class World:
    """The circumstances.

    Attributes:
        clock: that everything goes by.
        plan: whose limits hold.
        record: is told what happens.
        mishaps: what goes wrong.
        usage: how much was sent today.
    """

    clock: Clock
    plan: Plan
    record: Record
    mishaps: Mishaps
    usage: Usage

    @classmethod
    def new(cls, clock: Clock, plan: Plan) -> Self:
        """Return one in which nothing has happened."""
        return cls(clock, plan, Record(), Mishaps(), Usage(clock, plan))
