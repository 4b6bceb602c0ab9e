"""An account at QStash that lives in the test: what `client.QStashClient` asks of the service, without the network."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from rowvec.domain.errors import CarrierError, CarrierTrouble
from rowvec.qstash.answers import DeadLetter, QueueState, Schedule, SigningKeys

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


class Account:
    """See `qstash.service.Service`.

    Attributes:
        queues: by name.
        kept: the schedules by id.
        letters: the dead ones by id.
        keys: current and next.
        written: what was asked for beyond looking, in order.
        refusal: raised by every write while set.
        outage: raised by everything while set.
        page: how many letters are on one.
        seen: ids of the letters that were shown.
        stuck: the id of a letter that can't be deleted.
    """

    def __init__(self) -> None:
        self.queues: dict[str, QueueState] = {}
        self.kept: dict[str, Schedule] = {}
        self.letters: dict[str, DeadLetter] = {}
        self.keys = SigningKeys("sig_now", "sig_then")
        self.written: list[str] = []
        self.refusal: CarrierError | None = None
        self.outage: CarrierError | None = None
        self.page = 2
        self.seen: set[str] = set()
        self.stuck = ""

    def put_letter(self, url: str, body: str | None, label: str = "rowvec") -> str:
        id_ = f"{len(self.letters) + 1}-0"
        self.letters[id_] = DeadLetter(id_, f"msg_{id_}", url, body, label, "", 503, "busy", CREATED)
        return id_

    async def queue(self, name: str) -> QueueState | None:
        self._look()
        return self.queues.get(name)

    async def put_queue(self, name: str, parallelism: int) -> None:
        self._write(f"put queue {name}")
        known = self.queues.get(name, QueueState(name, parallelism, paused=False, lag=0))
        self.queues[name] = replace(known, parallelism=parallelism)

    async def pause_queue(self, name: str) -> None:
        self._write(f"pause queue {name}")
        self.queues[name] = replace(self.queues[name], paused=True)

    async def resume_queue(self, name: str) -> None:
        self._write(f"resume queue {name}")
        self.queues[name] = replace(self.queues[name], paused=False)

    async def schedules(self) -> Sequence[Schedule]:
        self._look()
        return list(self.kept.values())

    async def put_schedule(self, schedule: Schedule) -> None:
        """As the real one may: what is put there runs, whether it was paused before or not."""
        self._write(f"put schedule {schedule.id}")
        self.kept[schedule.id] = replace(schedule, paused=False)

    async def dead_letters(self, cursor: str = "", label: str = "", url: str = "") -> tuple[Sequence[DeadLetter], str]:
        self._look()
        found = [one for one in self.letters.values() if label in {"", one.label} and url in {"", one.url}]
        start, end = int(cursor or 0), int(cursor or 0) + self.page
        self.seen |= {letter.id for letter in found[start:end]}
        return found[start:end], str(end) if len(found) > end else ""

    async def delete_dead_letters(self, ids: Sequence[str]) -> int:
        assert ids
        assert all(ids), "an empty id means all of them"
        if self.stuck in ids:
            raise CarrierError("QStash answers with an error (500).")
        self._write(f"delete {', '.join(ids)}")
        return sum(self.letters.pop(id_, None) is not None for id_ in ids)

    async def retry_dead_letter(self, id_: str) -> str:
        self._write(f"retry {id_}")
        if self.letters.pop(id_, None) is None:
            raise CarrierError("QStash refuses what it is asked for (404).", "", CarrierTrouble.PERMANENT, status=404)
        return f"msg_{uuid.uuid4().hex}"

    async def signing_keys(self) -> SigningKeys:
        self._look()
        return self.keys

    def _look(self) -> None:
        if self.outage:
            raise self.outage

    def _write(self, what: str) -> None:
        self._look()
        if self.refusal:
            raise self.refusal
        self.written.append(what)
