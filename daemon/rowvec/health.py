"""Health: who is alive, what works, and the verdicts that probes and the watchdog share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Part(StrEnum):
    """What readiness depends on."""

    DATABASE = "database"
    SCHEMA = "schema"
    LISTENER = "listener"
    MODELS = "models"


@dataclass(slots=True)
class Pulse:
    """A room's sign of life.

    Attributes:
        name: of the room.
        bound_seconds: the longest it may go without a beat.
        seconds: the monotonic clock.
        beaten_at: the time of the last beat.
    """

    name: str
    bound_seconds: float
    seconds: Callable[[], float]
    beaten_at: float = 0.0

    def beat(self) -> None:
        """Say that the room made progress."""
        self.beaten_at = self.seconds()

    @property
    def silent_seconds(self) -> float:
        """How long ago the last beat was."""
        return self.seconds() - self.beaten_at


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the health report."""

    name: str
    well: bool
    note: str = ""


@dataclass(slots=True)
class Health:
    """Collects what the rooms report; never asks anybody.

    Attributes:
        seconds: the monotonic clock.
        draining: the daemon is on its way out.
    """

    seconds: Callable[[], float]
    draining: bool = False
    _pulses: list[Pulse] = field(default_factory=list)
    _parts: dict[Part, Check] = field(default_factory=dict)

    def pulse(self, name: str, bound_seconds: float) -> Pulse:
        """Return the pulse of a new room; it counts from now."""
        pulse = Pulse(name, bound_seconds, self.seconds, self.seconds())
        self._pulses.append(pulse)
        return pulse

    def forget(self, pulse: Pulse) -> None:
        """Watch a room no longer that has ended in good order."""
        self._pulses = [other for other in self._pulses if other is not pulse]

    def stop_watching(self) -> None:
        """Forget all pulses: rooms that end in good order no longer beat."""
        self._pulses.clear()

    def set(self, part: Part, *, well: bool, note: str = "") -> None:
        """Note whether a part works, and why not."""
        self._parts[part] = Check(part.value, well, note)

    def is_well(self, part: Part) -> bool:
        """Return whether a part was last seen working."""
        check = self._parts.get(part)
        return check is not None and check.well

    def live(self) -> list[Check]:
        """Return a check a room: did each make progress within its own bound?"""
        return [
            Check(
                pulse.name,
                pulse.silent_seconds <= pulse.bound_seconds,
                f"{pulse.silent_seconds:.1f} s since progress",
            )
            for pulse in self._pulses
        ]

    def ready(self) -> list[Check]:
        """Return a check a part: can the daemon do its work, and will it take more?"""
        parts = [self._parts.get(part, Check(part.value, well=False, note="not tried yet")) for part in Part]
        return [*parts, Check("accepting", not self.draining, "draining" if self.draining else "")]

    @property
    def is_live(self) -> bool:
        """The verdict of `/livez` and of the watchdog."""
        return all(check.well for check in self.live())

    @property
    def is_ready(self) -> bool:
        """The verdict of `/readyz` and `/healthz`."""
        return all(check.well for check in self.ready())
