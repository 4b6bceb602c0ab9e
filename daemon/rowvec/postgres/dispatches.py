"""Items on their way into messages, and out of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from uuid import UUID

from rowvec.domain.items import Claim, Dispatch, Dispatched, Held, Item, Key, Recalled, Slot
from rowvec.domain.lanes import AIM_SECONDS, Lane
from rowvec.postgres.connections import Database
from rowvec.postgres.item_queue import LEASE_SECONDS, item_of


class PostgresDispatches:
    """`rowvec.embedding_queue` seen by whoever sends messages and by whoever receives them.

    Args:
        database: an open pool.
        daemon: this daemon's id, named by its leases.
    """

    def __init__(self, database: Database, daemon: UUID) -> None:
        self._database = database
        self._daemon = daemon

    async def dispatch(
        self, claim: Claim, ids: Sequence[int], message: UUID, deadline_seconds: float, models: Collection[str]
    ) -> Dispatch:
        """See `ports.Dispatchable.dispatch`."""
        oldest_seconds = AIM_SECONDS[claim.slot.lane] - deadline_seconds
        found = await self._database.fetch(
            "dispatch_items", ids, claim.token, message, deadline_seconds, list(models), oldest_seconds
        )
        rows = {Key(row["content_type"], row["content_id"]): row["priority"] for row in found}
        return Dispatch(message, [row["id"] for row in found], rows)

    async def recall(self, dispatch: Dispatch) -> Recalled:
        """See `ports.Dispatchable.recall`."""
        rows = await self._database.fetch("recall_items", dispatch.ids, dispatch.message)
        slots = {Slot(row["model"], Lane(row["lane"]), row["content_type"]) for row in rows if not row["held"]}
        return Recalled(sorted(slots), sum(row["held"] for row in rows))

    async def claim_rows(self, models: Sequence[str], rows: Sequence[Key], token: UUID) -> Sequence[Claim]:
        """See `ports.Dispatchable.claim_rows`."""
        types, ids = [row.content_type for row in rows], [row.content_id for row in rows]
        found = await self._database.fetch("claim_rows", models, types, ids, token, self._daemon, LEASE_SECONDS)
        items: defaultdict[Slot, list[Item]] = defaultdict(list)
        for row in found:
            items[Slot(row["model"], Lane(row["lane"]), row["content_type"])].append(item_of(row))
        return [Claim(slot, token, claimed) for slot, claimed in items.items()]

    async def count_dispatched(self) -> Dispatched:
        """See `ports.Dispatchable.count_dispatched`."""
        (row,) = await self._database.fetch("count_dispatched")
        return Dispatched(row["outstanding"], row["sent"])

    async def count_sent(self, messages: int, items: int) -> None:
        """See `ports.Dispatchable.count_sent`."""
        await self._database.fetch("count_sent", messages, items)

    async def look_held(self, lane: Lane, models: Sequence[str], enough: int) -> Held:
        """See `ports.Dispatchable.look_held`."""
        (row,) = await self._database.fetch("show_held", lane.value, models, enough)
        return Held(row["oldest_seconds"], row["waiting"] >= enough, row["overdue"])
