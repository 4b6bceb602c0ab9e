"""Flow control: how many attempts at a time, and how many in a period."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rowvec.qstash_dev.clock import Clock, Timer
from rowvec.qstash_dev.options import FlowControl


class FlowKey:
    """What is counted under one key. Who comes first goes first.

    Attributes:
        parallelism: attempts at a time; None for any number.
        rate: attempts in a period; None for any number.
        period: in seconds.
        paused: whether nobody goes.
        pinned_parallelism: whether messages no longer change it.
        pinned_rate: whether messages no longer change rate and period.
        active: attempts that are going on.
        used: attempts begun in this period.
        period_start: of this period, unix seconds.
    """

    def __init__(self, name: str, clock: Clock, parallelism: int | None = None) -> None:
        self.name = name
        self.parallelism = parallelism
        self.rate: int | None = None
        self.period = 1.0
        self.paused = False
        self.pinned_parallelism = False
        self.pinned_rate = False
        self.active = 0
        self.used = 0
        self.period_start = clock.now()
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: Timer | None = None

    @property
    def waiting(self) -> int:
        """How many attempts wait."""
        return sum(not turn.done() for turn in self._waiting)

    def learn(self, wanted: FlowControl) -> None:
        """Take over what the latest message says, where nothing is pinned."""
        if not self.pinned_parallelism:
            self.parallelism = wanted.parallelism
        if not self.pinned_rate:
            self.rate, self.period = wanted.rate, wanted.period
        self.admit()

    def reset_rate(self) -> None:
        """Begin a new period now."""
        self.used, self.period_start = 0, self._clock.now()
        self.admit()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and have it inside the block."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self.admit()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self.active -= 1
            self.admit()

    def admit(self) -> None:
        """Let go who may go now."""
        while self._waiting and self._has_room():
            turn = self._waiting.popleft()
            if not turn.done():
                self.active += 1
                self.used += 1
                turn.set_result(None)
        self._wake_with_the_period()

    def _has_room(self) -> bool:
        if self.paused or (self.parallelism is not None and self.active >= self.parallelism):
            return False
        if self._clock.now() >= self.period_start + self.period:
            self.used, self.period_start = 0, self._clock.now()
        return self.rate is None or self.used < self.rate

    def _wake_with_the_period(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._waiting and self.rate is not None and self.used >= self.rate:
            self._timer = self._clock.call_at(self.period_start + self.period, self.admit)


class FlowKeys:
    """All keys by name, and the parallelism of all deliveries together.

    Args:
        clock: of periods.
        parallelism: of all together.
    """

    def __init__(self, clock: Clock, parallelism: int) -> None:
        self.everything = FlowKey("$", clock, parallelism)
        self._clock = clock
        self._keys: dict[str, FlowKey] = {}

    def learn(self, wanted: FlowControl | None) -> None:
        """Take over what a new message says of its key."""
        if wanted is not None:
            self.make(wanted.key).learn(wanted)

    def make(self, name: str) -> FlowKey:
        """Return a key, a new one if it was never named."""
        if name not in self._keys:
            self._keys[name] = FlowKey(name, self._clock)
        return self._keys[name]

    def find(self, name: str) -> FlowKey | None:
        """Return a key that was named before; `$` is all together."""
        return self.everything if name == "$" else self._keys.get(name)

    def matching(self, part: str) -> list[FlowKey]:
        """Return the keys that have this in their names."""
        return [key for name, key in self._keys.items() if part in name]

    @asynccontextmanager
    async def turn(self, wanted: FlowControl | None) -> AsyncIterator[None]:
        """Wait for a turn, under the key first and then among all, and have it inside the block."""
        if wanted is None:
            async with self.everything.turn():
                yield
            return
        async with self.make(wanted.key).turn(), self.everything.turn():
            yield
