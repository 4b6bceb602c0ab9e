"""What QStash calls: deliveries, and what became of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web

from rowvec.api.answers import answer
from rowvec.api.messages import Attempt, Message, UnreadableError, read, read_batch, read_rows
from rowvec.api.signed import NEVER, NEVER_HEADERS, SignedRequests
from rowvec.domain.row_states import Delivered
from rowvec.ports import Deliverer, Undelivered

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Receiver:
    """The pages for QStash.

    Attributes:
        signed: lets QStash through.
        deliverer: brings rows up to date.
        undelivered: leads rows of dead messages back.
        trigger: has everything looked at that is due; returns how many rows that is.
    """

    signed: SignedRequests
    deliverer: Deliverer
    undelivered: Undelivered
    trigger: Callable[[], Awaitable[Mapping[str, Any]]]

    def routes(self) -> list[web.RouteDef]:
        """Return the pages by their paths."""
        return [
            web.post("/api/embeddings/process-webhook", self.signed.only(self.process_webhook)),
            web.post("/api/embeddings/process", self.signed.only(self.process)),
            web.post("/api/qstash/callback", self.signed.only(self.callback)),
            web.post("/api/qstash/failure", self.signed.only(self.failure)),
        ]

    async def process_webhook(self, body: bytes) -> web.Response:
        """Bring one row up to date, or a list of them."""
        return await self._deliver(read_rows(body))

    async def process(self, body: bytes) -> web.Response:
        """Bring the rows of a message up to date; without any, what is due now."""
        message = read_batch(body)
        return await self._deliver(message) if message.items else answer(HTTPStatus.OK, await self.trigger())

    async def callback(self, body: bytes) -> web.Response:
        """Note a delivery: what became of its rows is in the database already."""
        attempt = read(Attempt, body)
        log.debug("message.delivered", message=attempt.source_message_id, status=attempt.status, url=attempt.url)
        return answer(HTTPStatus.OK, {})

    async def failure(self, body: bytes) -> web.Response:
        """Lead the rows of a message back that has died."""
        attempt = read(Attempt, body)
        name = attempt.source_message_id
        log.warning("message.undelivered", message=name, status=attempt.status, url=attempt.url)
        try:
            lost = await self.undelivered.lead_back(attempt.asked)
        except UnreadableError as error:
            # One of a schedule, or of somebody else: no row waits for it.
            log.info("message.carried_nothing", message=name, why=str(error))
            return answer(HTTPStatus.OK, {})
        if lost:
            log.warning("message.lost", message=name, rows=len(lost), why=next(iter(lost.values())))
        return answer(HTTPStatus.OK, {})

    async def _deliver(self, message: Message) -> web.Response:
        delivered = await self.deliverer.deliver(message.rows, dispatched=message.dispatch is not None)
        body: dict[str, Any] = {"items": _items(delivered)}
        if not delivered.unknown:
            return answer(HTTPStatus.OK, body)
        unknown = ", ".join(sorted(delivered.unknown))
        log.warning("message.unwatched", content_types=unknown, dispatch=str(message.dispatch or ""))
        return answer(NEVER, {"error": f"Not watched: {unknown}.", **body}, NEVER_HEADERS)


def _items(delivered: Delivered) -> list[dict[str, str]]:
    return [
        {"contentType": row.content_type, "contentId": row.content_id, "state": state.value}
        for row, state in delivered.states.items()
    ]
