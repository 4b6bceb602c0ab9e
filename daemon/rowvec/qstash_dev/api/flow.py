"""Flow control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from rowvec.qstash_dev.api.answers import answer, empty
from rowvec.qstash_dev.flow import FlowKey, FlowKeys
from rowvec.qstash_dev.options import read_number
from rowvec.qstash_dev.refusals import RefusalError
from rowvec.qstash_dev.wire import known


@dataclass(frozen=True, slots=True)
class FlowControls:
    """The calls about keys of flow control."""

    flow: FlowKeys

    def routes(self) -> list[web.RouteDef]:
        """Return the calls by their paths."""
        changes = {"pause": self.pause, "resume": self.resume, "resetRate": self.reset_rate}
        pins = {"pin": self.pin, "unpin": self.unpin}
        return [
            web.get("/v2/flowControl", self.all),
            web.get("/v2/flowControl/{key}", self.get),
            web.get("/v2/globalParallelism", self.everything),
            *(web.post(f"/v2/flowControl/{{key}}/{verb}", handler) for verb, handler in (changes | pins).items()),
        ]

    async def all(self, request: web.Request) -> web.Response:
        """Show the keys that have something in their names."""
        return answer([_show(key) for key in self.flow.matching(request.query.get("search", ""))])

    async def get(self, request: web.Request) -> web.Response:
        """Show a key."""
        return answer(_show(self._find(request)))

    async def everything(self, _: web.Request) -> web.Response:
        """Show how many deliveries go on, of how many."""
        key = self.flow.everything
        return answer({"parallelismMax": key.parallelism, "parallelismCount": key.active})

    async def pause(self, request: web.Request) -> web.Response:
        """Begin no other delivery of a key, also of one that was never named."""
        self._make(request).paused = True
        return empty()

    async def resume(self, request: web.Request) -> web.Response:
        """Go on with a key."""
        key = self._make(request)
        key.paused = False
        key.admit()
        return empty()

    async def reset_rate(self, request: web.Request) -> web.Response:
        """Begin a new period."""
        self._find(request).reset_rate()
        return empty()

    async def pin(self, request: web.Request) -> web.Response:
        """Set what messages no longer change."""
        key, query = self._make(request), request.query
        if "parallelism" in query:
            key.parallelism, key.pinned_parallelism = read_number("parallelism", query["parallelism"]), True
        if "rate" in query:
            key.rate, key.pinned_rate = read_number("rate", query["rate"]), True
            key.period = read_number("period", query.get("period", "1"))
        key.admit()
        return empty()

    async def unpin(self, request: web.Request) -> web.Response:
        """Let messages change it again."""
        key, query = self._find(request), request.query
        key.pinned_parallelism &= query.get("parallelism") != "true"
        key.pinned_rate &= query.get("rate") != "true"
        return empty()

    def _make(self, request: web.Request) -> FlowKey:
        return self.flow.make(request.match_info["key"])

    def _find(self, request: web.Request) -> FlowKey:
        name = request.match_info["key"]
        key = self.flow.find(name)
        if key is None:
            raise RefusalError(404, f"flow control key {name} not found")
        return key


def _show(key: FlowKey) -> dict[str, Any]:
    return known(
        flowControlKey=key.name,
        waitListSize=key.waiting,
        parallelismMax=key.parallelism,
        parallelismCount=key.active,
        rateMax=key.rate,
        rateCount=key.used,
        ratePeriod=int(key.period),
        ratePeriodStart=int(key.period_start),
        isPaused=key.paused,
        isPinnedParallelism=key.pinned_parallelism,
        isPinnedRate=key.pinned_rate,
    )
