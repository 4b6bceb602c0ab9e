"""Announce: tells the carrier of immediate rows, which are worked on here at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from typing import Final
from uuid import UUID

from rowvec.domain.items import Claim, Item, Key
from rowvec.domain.load import BreakerState
from rowvec.domain.messages import Message, ask_for_batch, ask_for_one
from rowvec.pipeline.send import Sender
from rowvec.telemetry import Metrics

PRIORITY: Final = 2
"""What a message says of an immediate row."""
REMEMBERED: Final = 10_000
WAITING: Final = 1_000
"""More rows than that are not told of: they are worked on here anyway."""


class _Memory:
    """Which changes of which rows were told of lately: models claim the same row each for itself."""

    def __init__(self) -> None:
        self._told: OrderedDict[Key, dict[str, int]] = OrderedDict()

    def is_new(self, key: Key, model: str, generation: int) -> bool:
        """Say whether a change has not been told of, and remember it.

        A model that comes for the first time since the row was told of brings the change that was told of.
        """
        seen = self._told.get(key)
        if seen is not None and seen.setdefault(model, generation) >= generation:
            return False
        self._told[key] = {model: generation}
        self._told.move_to_end(key)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return True


class Announcer:
    """Sends, beside the work, a message for each immediate row that changed; nobody waits for it.

    Args:
        sender: the way to the carrier.
        new_name: names a message.
        message_items: the most rows of a message.
        timeout_seconds: how long a delivery may take.
        metrics: counts what was not told of.
    """

    def __init__(
        self,
        sender: Sender,
        new_name: Callable[[], UUID],
        message_items: int,
        timeout_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._sender = sender
        self._new_name = new_name
        self._message_items = message_items
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._memory = _Memory()
        self._rows: asyncio.Queue[Key] = asyncio.Queue(WAITING)

    def tell(self, claim: Claim) -> None:
        """Have the rows of a claim told of that are not yet."""
        for item in claim.items:
            if self._is_new(claim, item):
                self._put(Key(claim.slot.content_type, item.content_id))

    async def run(self) -> None:
        """Send for ever what waits."""
        while True:
            rows = [await self._rows.get()]
            while not self._rows.empty():
                rows.append(self._rows.get_nowait())
            await self._send(rows)

    def _is_new(self, claim: Claim, item: Item) -> bool:
        # What has been in a message already has waited for it in vain.
        key = Key(claim.slot.content_type, item.content_id)
        return item.fresh and self._memory.is_new(key, claim.slot.model, item.generation)

    def _put(self, key: Key) -> None:
        try:
            self._rows.put_nowait(key)
        except asyncio.QueueFull:
            self._metrics.messages.labels("dropped").inc()

    async def _send(self, rows: list[Key]) -> None:
        admitted = self._sender.admit()
        if admitted is BreakerState.OPEN:
            self._metrics.messages.labels("dropped").inc(len(rows))
            return
        messages = list(self._messages(rows))
        if admitted is BreakerState.HALF_OPEN:
            messages = messages[:1]
        await self._sender.send(messages, [0] * len(messages))

    def _messages(self, rows: list[Key]) -> Iterator[Message]:
        """Put rows of one kind that wait together into messages; one alone goes as in the original application."""
        for _, kind in groupby(sorted(rows), key=lambda key: key.content_type):
            while part := dict.fromkeys(islice(kind, self._message_items), PRIORITY):
                name = self._new_name()
                if len(part) == 1:
                    yield ask_for_one(name, *part.popitem(), self._timeout_seconds)
                else:
                    yield ask_for_batch(name, part, self._timeout_seconds)
