"""Everything that one model has in a daemon, as one thing that begins and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rowvec.domain.load import ModelLoad
from rowvec.health import Health, Pulse
from rowvec.pipeline.claim import Claimer
from rowvec.pipeline.claim_rows import RowClaimer
from rowvec.pipeline.embed import EmbedRoom


class ModelRooms:
    """A model's embed room and its claimers, which hold its line.

    Args:
        embed_room: its requests; its embedder is closed at the end.
        claimers: one a lane, and one for what messages name.
        pulses: theirs.
        health: forgets the pulses at the end.
    """

    def __init__(
        self,
        embed_room: EmbedRoom,
        claimers: Sequence[Claimer | RowClaimer],
        pulses: Sequence[Pulse],
        health: Health,
    ) -> None:
        self._embed_room = embed_room
        self._claimers = claimers
        self._pulses = pulses
        self._health = health

    @property
    def has_room(self) -> bool:
        """Whether a claim could be made at once."""
        return any(claimer.has_room for claimer in self._claimers)

    def load(self) -> ModelLoad:
        """Return what the model stands at."""
        return self._embed_room.load()

    def stop(self) -> None:
        """Begin nothing new; `run` returns when the requests under way are finished and stored."""
        for claimer in self._claimers:
            claimer.stop()
        self._embed_room.close()

    async def run(self) -> None:
        """Work until stopped."""
        try:
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(self._embed_room.run())
                async with asyncio.TaskGroup() as working:
                    for claimer in self._claimers:
                        working.create_task(claimer.run())
                looking.cancel()
        finally:
            for pulse in self._pulses:
                self._health.forget(pulse)
            await self._embed_room.end()
