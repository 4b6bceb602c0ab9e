"""Publish, enqueue and batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from rowvec.qstash_dev.api.answers import answer, caller_ip, destination, given_options
from rowvec.qstash_dev.faults import Mishaps
from rowvec.qstash_dev.intake import Intake, Letter
from rowvec.qstash_dev.options import collect
from rowvec.qstash_dev.refusals import RefusalError


@dataclass(frozen=True, slots=True)
class Publishing:
    """The calls that bring messages."""

    intake: Intake
    mishaps: Mishaps

    def routes(self) -> list[web.RouteDef]:
        """Return the calls by their paths."""
        return [
            web.post("/v2/publish/{destination:.+}", self.publish),
            web.post("/v2/enqueue/{queue}/{destination:.+}", self.enqueue),
            web.post("/v2/batch", self.batch),
        ]

    async def publish(self, request: web.Request) -> web.Response:
        """Send a message."""
        return await self._one(request, 2, None)

    async def enqueue(self, request: web.Request) -> web.Response:
        """Send a message through a queue."""
        return await self._one(request, 3, request.match_info["queue"])

    async def batch(self, request: web.Request) -> web.Response:
        """Send several messages; if one is refused, all are."""
        letters: list[Letter | None] = [*_read_batch(await request.read(), caller_ip(request))]
        spoilt = self.mishaps.faults.batch_item
        if spoilt is not None and spoilt < len(letters):
            letters[spoilt] = None
        accepted = iter(self.intake.accept([letter for letter in letters if letter is not None]))
        error = {"error": "internal error, please try again"}
        return answer([error if letter is None else next(accepted).show() for letter in letters])

    async def _one(self, request: web.Request, places: int, queue: str | None) -> web.Response:
        place, body = destination(request, places), await request.read()
        letter = Letter(place, given_options(request), body, caller_ip(request), queue)
        receipts = self.intake.accept([letter])[0]
        return answer(receipts.show(), receipts.status)


def _read_batch(body: bytes, ip: str) -> list[Letter]:
    try:
        items = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusalError(400, f"invalid JSON: {error}") from error
    if not isinstance(items, list) or not items:
        raise RefusalError(400, "expected an array of messages")
    return [_read_item(item, ip) for item in items]


def _read_item(item: Any, ip: str) -> Letter:  # noqa: ANN401 - whatever was sent
    match item:
        case {"destination": str() as place}:
            body, headers, queue = item.get("body"), item.get("headers") or {}, item.get("queue")
            if (body is None or isinstance(body, str)) and (queue is None or isinstance(queue, str)):
                return Letter(place, collect(_headers(headers)), (body or "").encode(), ip, queue or None)
    raise RefusalError(400, "invalid message in the batch: expected destination, headers, body and queue")


def _headers(headers: object) -> list[tuple[str, str]]:
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise RefusalError(400, "invalid headers in the batch: expected strings by names")
    return list(headers.items())
