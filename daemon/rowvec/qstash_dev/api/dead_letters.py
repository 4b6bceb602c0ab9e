"""Dead letters: seen, deleted, and sent again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from rowvec.qstash_dev.api.answers import answer, empty, given_options, read_ids
from rowvec.qstash_dev.api.filters import DEAD_LETTERS, facts_of, page_size, read_filter
from rowvec.qstash_dev.carry import Carrier
from rowvec.qstash_dev.intake import Intake, Letter
from rowvec.qstash_dev.messages import DeadLetter
from rowvec.qstash_dev.options import Given, read_number
from rowvec.qstash_dev.refusals import RefusalError
from rowvec.qstash_dev.wire import milliseconds, show_dead_letter

PAGE: Final = 100

_NOT_AGAIN: Final = frozenset(
    {"upstash-delay", "upstash-not-before", "upstash-deduplication-id", "upstash-content-based-deduplication"}
)


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The calls about dead letters."""

    carrier: Carrier
    intake: Intake

    def routes(self) -> list[web.RouteDef]:
        """Return the calls by their paths."""
        return [
            web.get("/v2/dlq", self.page),
            web.get("/v2/dlq/{id}", self.get),
            web.delete("/v2/dlq", self.delete_many),
            web.delete("/v2/dlq/", self.delete_many),
            web.delete("/v2/dlq/{id}", self.delete),
            web.post("/v2/dlq/retry", self.retry_many),
            web.post("/v2/dlq/retry/{id}", self.retry),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """Show a page of the dead letters of a filter, the oldest first."""
        letters, following = self._page(request.query.items(), request.query.get("cursor"), request.query.get("count"))
        shown = {"messages": [show_dead_letter(letter) for letter in letters]}
        return answer({**shown, **({"cursor": following} if following else {})})

    async def get(self, request: web.Request) -> web.Response:
        """Show a dead letter."""
        return answer(show_dead_letter(self._find(request)))

    async def delete(self, request: web.Request) -> web.Response:
        """Throw a dead letter away."""
        del self.carrier.dead_letters[self._find(request).id]
        return empty()

    async def delete_many(self, request: web.Request) -> web.Response:
        """Throw those of a filter away; without one, all."""
        letters, following = await self._meant(request)
        for letter in letters:
            del self.carrier.dead_letters[letter.id]
        return answer({"deleted": len(letters), **({"cursor": following} if following else {})})

    async def retry(self, request: web.Request) -> web.Response:
        """Send a dead letter again, as a new message."""
        return answer({"messageId": self._again(self._find(request), given_options(request))}, 201)

    async def retry_many(self, request: web.Request) -> web.Response:
        """Send those of a filter again."""
        letters, following = await self._meant(request)
        given = given_options(request)
        responses = [{"messageId": self._again(letter, given)} for letter in letters]
        return answer({"cursor": following, "responses": responses}, 201)

    async def _meant(self, request: web.Request) -> tuple[list[DeadLetter], str]:
        ids = await read_ids(request, "dlqIds")
        parameters = [(name, value) for name, value in request.query.items() if not name.startswith("upstash-")]
        named = [("dlqIds", name) for name in ids]
        return self._page([*parameters, *named], request.query.get("cursor"), request.query.get("count"))

    def _page(
        self, parameters: Iterable[tuple[str, str]], cursor: str | None, count: str | None
    ) -> tuple[list[DeadLetter], str]:
        """Return a page, and where the next one begins; empty: there is none."""
        wanted, first = read_filter(parameters, DEAD_LETTERS), _place(cursor or "0-0")
        letters = [
            letter
            for letter in self.carrier.dead_letters.values()
            if _place(letter.id) >= first and wanted.takes(_facts(letter), _time(letter))
        ]
        size = page_size(count, PAGE)
        return letters[:size], letters[size].id if len(letters) > size else ""

    def _again(self, letter: DeadLetter, changes: Given) -> str:
        """Send a letter again with some options changed, and throw the old one away."""
        old = {name: values for name, values in letter.message.options.given.items() if name not in _NOT_AGAIN}
        changed = {name: values for name, values in changes.items() if name.startswith("upstash-")}
        message = letter.message
        again = Letter(
            message.url,
            {**old, **changed},
            message.body,
            message.caller_ip,
            queue=message.queue,
            schedule_id=message.schedule_id,
        )
        receipts = self.intake.accept([again])[0]
        del self.carrier.dead_letters[letter.id]
        return receipts.receipts[0].message_id

    def _find(self, request: web.Request) -> DeadLetter:
        name = request.match_info["id"]
        if name not in self.carrier.dead_letters:
            raise RefusalError(404, f"dlq message {name} not found")
        return self.carrier.dead_letters[name]


def _place(name: str) -> tuple[int, int]:
    """Return where an id stands among all.

    Raises:
        RefusalError: 400, it is none.
    """
    moment, _, number = name.partition("-")
    return read_number("cursor", moment), read_number("cursor", number)


def _time(letter: DeadLetter) -> int:
    return milliseconds(letter.message.created_at)


def _facts(letter: DeadLetter) -> dict[str, frozenset[str]]:
    status = frozenset() if letter.answer.status is None else frozenset({str(letter.answer.status)})
    return {**facts_of(letter.message), "dlqIds": frozenset({letter.id}), "responseStatus": status}
