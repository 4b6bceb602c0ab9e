"""QStash as operators see it: its queue, schedules, dead letters and keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rowvec.qstash.answers import DeadLetter, QueueState, Schedule, SigningKeys


class Service(Protocol):
    """What is asked of QStash beside the sending of messages. All raise CarrierError; see `client.QStashClient`."""

    async def queue(self, name: str) -> QueueState | None:
        """Return a queue; None when there is none of that name."""

    async def put_queue(self, name: str, parallelism: int) -> None:
        """Make a queue or change its parallelism; whether it is paused is not spoken of."""

    async def pause_queue(self, name: str) -> None:
        """Let a queue deliver nothing."""

    async def resume_queue(self, name: str) -> None:
        """Let a queue deliver again."""

    async def schedules(self) -> Sequence[Schedule]:
        """Return all schedules of the account."""

    async def put_schedule(self, schedule: Schedule) -> None:
        """Make a schedule, or replace the whole of the one that has its id."""

    async def dead_letters(self, cursor: str = "", label: str = "", url: str = "") -> tuple[Sequence[DeadLetter], str]:
        """Return a page of dead letters, all or those of a label or an address, and where the next one begins."""

    async def delete_dead_letters(self, ids: Sequence[str]) -> int:
        """Remove dead letters; return how many."""

    async def retry_dead_letter(self, id_: str) -> str:
        """Send a dead letter once more; return the new message's id."""

    async def signing_keys(self) -> SigningKeys:
        """Return what deliveries are signed with."""
