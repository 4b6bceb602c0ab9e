"""Roster: the models that this daemon works for, while they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import structlog

from rowvec.domain.errors import ConfigurationError, DatabaseUnavailableError
from rowvec.domain.load import ModelLoad
from rowvec.domain.registered import RegisteredModel
from rowvec.health import Health, Part, Pulse
from rowvec.pipeline.bell import Bell, Cause
from rowvec.pipeline.due_board import DueBoard
from rowvec.ports import ModelRegistry

LOOK_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.1
"""Between looks, however many writers notify: only a few of their calls are about models."""
FINISH_SECONDS: Final = 2.0
"""For the requests of a model that goes: what they bring is hardly wanted any more."""
NOBODY: Final = "No model to work for: see `rowvec model add`, or set ROWVEC_MODEL_<NAME>_URL."
LEFT: Final = "It is set for this daemon, but the database has dropped or deactivated it."

Way = TypeVar("Way")

log = structlog.get_logger(__name__)


class Work(Protocol):
    """What is done for one model."""

    @property
    def has_room(self) -> bool:
        """Whether a claim could be made at once."""

    def load(self) -> ModelLoad:
        """Return what the model stands at."""

    def stop(self) -> None:
        """Begin nothing new; `run` returns when what was begun is finished."""

    async def run(self) -> None:
        """Work until stopped, then free what was taken."""


@dataclass(frozen=True, slots=True)
class _Member(Generic[Way]):
    """A model at work.

    Attributes:
        way: how it is reached.
        work: what is done for it.
        task: does it.
    """

    way: Way
    work: Work
    task: asyncio.Task[None]


class Roster(Generic[Way]):
    """Begins the work for models that are added and ends it for models that go; the others notice nothing.

    Args:
        registry: the active models.
        reach: says how a model is reached from here; None when it is not to be; ConfigurationError when it can't be.
        make: makes the work for a model that is reached so; ConfigurationError when something for it is missing here.
        own: the models that are missed when the database does not have them.
        board: forgets those that go.
        calls: wakes, besides a look a second: whoever adds or drops a model notifies.
        bell: is rung when a model comes.
        health: is told who is there.
        pulse: is beaten at each look.
    """

    def __init__(  # noqa: PLR0913 - a room's doors, each wired once
        self,
        registry: ModelRegistry,
        reach: Callable[[RegisteredModel], Way | None],
        make: Callable[[str, Way], Work],
        own: Collection[str],
        board: DueBoard,
        calls: Bell,
        bell: Bell,
        health: Health,
        pulse: Pulse,
    ) -> None:
        self._registry = registry
        self._reach = reach
        self._make = make
        self._own = own
        self._board = board
        self._calls = calls
        self._bell = bell
        self._health = health
        self._pulse = pulse
        self._seen: dict[str, RegisteredModel] = {}
        self._members: dict[str, _Member[Way]] = {}
        self._leaving: set[str] = set()
        self._complaints: dict[str, str] = {}
        self._tasks = asyncio.TaskGroup()
        self._looking: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def models(self) -> Collection[str]:
        """The names of those at work: a view that follows them."""
        return self._members.keys()

    @property
    def complaints(self) -> list[str]:
        """Why active models are not worked for here, a sentence each, as `DueBoard.resting`."""
        return [f"model {name}: {why}" for name, why in self._complaints.items()]

    @property
    def has_room(self) -> bool:
        """Whether a claim could be made at once."""
        return any(member.work.has_room for member in self._members.values())

    def load(self) -> dict[str, ModelLoad]:
        """Return what the models at work stand at, by their names."""
        return {name: member.work.load() for name, member in self._members.items()}

    def stop(self) -> None:
        """Take no more models in and stop all; `run` returns when they have finished."""
        self._stopped = True
        if self._looking is not None:
            self._looking.cancel()
        for member in self._members.values():
            member.work.stop()

    async def run(self) -> None:
        """Look for ever, until stopped."""
        if self._stopped:
            return
        async with self._tasks:
            self._looking = self._tasks.create_task(self._look_for_ever())

    async def _look_for_ever(self) -> None:
        while True:
            self._pulse.beat()
            try:
                self._compare(await self._registry.active())
            except DatabaseUnavailableError as error:
                log.debug("roster.interrupted", error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)
            await self._calls.wait(LOOK_SECONDS)

    def _compare(self, registered: Sequence[RegisteredModel]) -> None:
        """Let go who is gone or has changed, and take in who is new."""
        names = {model.name for model in registered}
        for name in self._seen.keys() - names:
            del self._seen[name]
            self._complaints.pop(name, None)
            self._let_go(name, "It was dropped or deactivated.")
        for name in set(self._own) - names:
            self._complain(name, LEFT)
        for model in registered:
            if model.name not in self._leaving and self._seen.get(model.name) != model:
                self._seen[model.name] = model
                self._consider(model)
        self._health.set(Part.MODELS, well=True, note=", ".join(self._members) or NOBODY)

    def _consider(self, model: RegisteredModel) -> None:
        """Work for a model as it is registered now; one that has changed ends first and comes back at a later look."""
        name = model.name
        self._complaints.pop(name, None)
        try:
            way = self._reach(model)
            if name not in self._members:
                self._take_in(name, way)
            elif self._members[name].way != way:
                del self._seen[name]
                self._let_go(name, "It is reached in another way now.")
        except ConfigurationError as error:
            self._let_go(name, "It can't be reached any more.")
            self._complain(name, str(error))

    def _take_in(self, name: str, way: Way | None) -> None:
        if way is None:
            return
        work = self._make(name, way)
        self._members[name] = _Member(way, work, self._tasks.create_task(work.run()))
        # What was queued for it before is found by a look without a floor.
        self._bell.ring(Cause.SWEEP)
        log.info("model.begun", model=name)

    def _complain(self, name: str, why: str) -> None:
        if self._complaints.get(name) != why:
            self._complaints[name] = why
            log.warning("model.refused", model=name, why=why)

    def _let_go(self, name: str, why: str) -> None:
        if member := self._members.pop(name, None):
            log.info("model.ended", model=name, why=why)
            self._leaving.add(name)
            self._tasks.create_task(self._end(name, member))

    async def _end(self, name: str, member: _Member[Way]) -> None:
        """Stop the work for a model, for a while in good order."""
        member.work.stop()
        await asyncio.wait([member.task], timeout=FINISH_SECONDS)
        member.task.cancel()
        await asyncio.wait([member.task])
        self._board.forget_model(name)
        self._leaving.discard(name)
        # It may be wanted again, in another way.
        self._calls.ring(Cause.NOTIFY)
