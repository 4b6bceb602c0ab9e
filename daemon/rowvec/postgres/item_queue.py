"""Items: probing, claiming and giving them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from rowvec.domain.items import Claim, Item, Slot
from rowvec.domain.lanes import Lane
from rowvec.postgres.connections import Database

LEASE_SECONDS: Final = 60.0
"""The backstop; a silent daemon's leases are given back after 3 s."""


class PostgresItemQueue:
    """`rowvec.embedding_queue` seen by a worker.

    Args:
        database: an open pool.
        daemon: this daemon's id, named by its leases.
    """

    def __init__(self, database: Database, daemon: UUID) -> None:
        self._database = database
        self._daemon = daemon

    async def probe(self, models: Sequence[str], since: datetime) -> Mapping[Slot, datetime]:
        """See `ports.ItemQueue.probe`."""
        rows = await self._database.fetch("probe_items", models, since)
        return {Slot(row["model"], Lane(row["lane"]), row["content_type"]): row["due_at"] for row in rows}

    async def claim(self, slot: Slot, token: UUID, limit: int, since: datetime) -> Claim:
        """See `ports.ItemQueue.claim`."""
        rows = await self._database.fetch(
            "claim_items",
            slot.model,
            slot.lane.value,
            slot.content_type,
            since,
            limit,
            token,
            self._daemon,
            LEASE_SECONDS,
        )
        return Claim(slot, token, [item_of(row) for row in rows])

    async def release(self, claim: Claim, ids: Sequence[int], delay_seconds: float) -> None:
        """See `ports.ItemQueue.release`."""
        await self._database.fetch("release_items", ids, claim.token, delay_seconds)

    async def demote(self, claim: Claim, ids: Sequence[int]) -> None:
        """See `ports.ItemQueue.demote`."""
        await self._database.fetch("demote_items", ids, claim.token)

    async def fail(self, claim: Claim, delays: Mapping[int, float | None], message: str, detail: str) -> None:
        """See `ports.ItemQueue.fail`."""
        generations = {item.id: item.generation for item in claim.items}
        await self._database.fetch(
            "fail_items",
            list(delays),
            claim.token,
            [generations[id_] for id_ in delays],
            list(delays.values()),
            message,
            detail,
        )


def item_of(row: Any) -> Item:  # noqa: ANN401 - a record
    """Return the item that a leased row of the queue is."""
    return Item(
        row["id"], row["content_id"], row["generation"], row["retry_count"], row["scheduled_at"], row["message_id"]
    )
