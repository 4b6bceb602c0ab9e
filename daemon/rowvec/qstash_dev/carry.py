"""The way of a message: attempts, retries, the dead letters, and who is told."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from uuid import uuid4

from rowvec.qstash_dev.deliver import Deliverer
from rowvec.qstash_dev.lines import Line
from rowvec.qstash_dev.messages import Answer, DeadLetter, Event, Journey, Message, Step
from rowvec.qstash_dev.options import Given, read_options
from rowvec.qstash_dev.retries import is_final, retry_delay
from rowvec.qstash_dev.tasks import Tasks
from rowvec.qstash_dev.wire import callback_body
from rowvec.qstash_dev.world import World

_OF_AN_ANSWER: Final = frozenset({Step.DELIVERED, Step.ERROR, Step.RETRY, Step.FAILED})
READABLE_SECONDS: Final = 2.0
"""How long a message can still be read after its end: the real service has it a moment longer too."""


class Carrier:
    """Carries messages.

    Args:
        deliverer: makes attempts.
        tasks: where messages are carried.
        world: the circumstances.

    Attributes:
        lines: queues by name.
        dead_letters: by id, the oldest first.
    """

    def __init__(self, deliverer: Deliverer, tasks: Tasks, world: World) -> None:
        self.lines: dict[str, Line] = {}
        self.dead_letters: dict[str, DeadLetter] = {}
        self._deliverer = deliverer
        self._tasks = tasks
        self._world = world
        self._journeys: dict[str, Journey] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()

    @property
    def pending(self) -> list[Journey]:
        """All that have not ended, the oldest first."""
        return [journey for journey in self._journeys.values() if journey.ended_at is None]

    def find(self, message_id: str) -> Journey | None:
        """Return a message that is on its way, or has ended a moment ago."""
        self._forget_ended()
        return self._journeys.get(message_id)

    def line(self, name: str) -> Line:
        """Return a queue, a new one if there is none of that name."""
        if name not in self.lines:
            self.lines[name] = Line(name, self._carry, self._tasks, self._world)
        return self.lines[name]

    def send(self, message: Message) -> Journey:
        """Put a message on its way."""
        self._forget_ended()
        journey = self._journeys[message.id] = Journey(message)
        self._world.usage.add()
        self._note(journey, Step.CREATED)
        if message.queue is None:
            journey.task = self._tasks.start(self._carry(journey))
        else:
            self.line(message.queue).add(journey)
        return journey

    def cancel(self, journey: Journey) -> None:
        """Take a message off its way, from the middle of an attempt too."""
        self._note(journey, Step.CANCEL_REQUESTED)
        if journey.task is not None:
            journey.task.cancel()
        elif journey.message.queue in self.lines:
            self.lines[journey.message.queue].remove(journey)
        self._end(journey, Step.CANCELED)

    def drop_line(self, name: str) -> None:
        """Remove a queue with all that stand in line."""
        line = self.lines.pop(name, None)
        for journey in line.empty() if line else ():
            self._end(journey, Step.CANCELED)

    async def _carry(self, journey: Journey) -> None:
        message = journey.message
        await self._world.clock.sleep_until(message.not_before)
        while not await self._is_settled(journey):
            await self._rest(journey)

    async def _is_settled(self, journey: Journey) -> bool:
        """Make an attempt; return whether it was the last."""
        self._note(journey, Step.ACTIVE)
        journey.answer = answer = await self._deliverer.attempt(journey)
        if answer is None:
            del self._journeys[journey.message.id]
            return True
        self._tell(journey, journey.message.options.callback, journey.message.options.callback_given)
        if answer.is_success:
            self._end(journey, Step.DELIVERED)
        else:
            self._note(journey, Step.ERROR)
            if not self._gives_up(journey, answer):
                return False
            self._bury(journey, answer)
        return True

    def _gives_up(self, journey: Journey, answer: Answer) -> bool:
        return journey.retried >= journey.message.options.retries or is_final(answer.status, _plain(answer))

    async def _rest(self, journey: Journey) -> None:
        expression, answer = journey.message.options.retry_delay, journey.answer or Answer(None)
        delay = retry_delay(journey.retried, expression, _plain(answer), self._world.clock.wall())
        next_at = self._world.clock.now() + delay
        self._note(journey, Step.RETRY, next_at)
        await self._world.clock.sleep_until(next_at)
        journey.retried += 1
        self._world.usage.add()
        self._world.record.count("retried")

    def _bury(self, journey: Journey, answer: Answer) -> None:
        message = journey.message
        letter = DeadLetter(self._dead_letter_id(), message, answer)
        self.dead_letters[letter.id] = letter
        self._tell(journey, message.options.failure_callback, message.options.failure_callback_given, letter.id)
        self._end(journey, Step.FAILED)

    def _dead_letter_id(self) -> str:
        milliseconds, number = self._world.clock.milliseconds(), 0
        while (name := f"{milliseconds}-{number}") in self.dead_letters:
            number += 1
        return name

    def _tell(self, journey: Journey, url: str | None, given: Given, dead_letter: str | None = None) -> None:
        """Send a callback: a message of its own, with retries of its own, of which nobody is told."""
        if url is None or journey.answer is None:
            return
        message, now = journey.message, self._world.clock.now()
        defaults = {"content-type": ("application/json",), "upstash-retries": (str(message.options.retries),)}
        options = read_options({**defaults, **given})
        callback = Message(
            id=new_id(),
            url=url,
            body=callback_body(message, journey.answer, journey.retried, dead_letter),
            options=options,
            created_at=now,
            not_before=now + options.delay,
            caller_ip=message.caller_ip,
            callback_of=message.id,
        )
        self._world.record.count("callbacks")
        journey.callbacks.append(self.send(callback))

    def _end(self, journey: Journey, step: Step) -> None:
        journey.ended_at = self._world.clock.now()
        self._ended[journey.message.id] = self._world.clock.patience(READABLE_SECONDS)
        self._note(journey, step)
        self._world.record.count(step.lower())

    def _forget_ended(self) -> None:
        now = self._world.clock.now()
        while self._ended and next(iter(self._ended.values())) <= now:
            self._journeys.pop(self._ended.popitem(last=False)[0], None)

    def _note(self, journey: Journey, step: Step, next_at: float | None = None) -> None:
        answer = journey.answer if step in _OF_AN_ANSWER else None
        self._world.record.note(Event(self._world.clock.now(), step, journey.message, answer, next_at))


def new_id() -> str:
    """Return the id of a new message."""
    return f"msg_{uuid4().hex}"


def _plain(answer: Answer) -> dict[str, str]:
    return {name.lower(): values[0] for name, values in answer.headers.items()}
