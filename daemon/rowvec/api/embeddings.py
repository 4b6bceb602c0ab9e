"""What waits, why, and who works on it: for operators and their programs."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import orjson
import structlog
from aiohttp import web

from rowvec.domain.errors import RowvecError
from rowvec.ports import Overview

QUEUE: Final = ("items", "changes", "sources", "models")
PROCESSOR: Final = ("daemons", "models")
NO_TOKEN: Final = "This is answered only where a token is set: set ROWVEC_API_TOKEN for the daemon."  # noqa: S105
WRONG_TOKEN: Final = "Send the header `Authorization: Bearer TOKEN`, with the token of ROWVEC_API_TOKEN."  # noqa: S105

Found: TypeAlias = Mapping[str, Any]
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Operators:
    """The pages for operators.

    Args:
        token: what a request must bear; empty: there is none, and nobody is answered.
        overview: where the answers come from.
    """

    token: str
    overview: Overview

    def routes(self) -> list[web.RouteDef]:
        """Return the pages by their paths."""
        return [
            web.get("/api/embeddings/queue", self.queue),
            web.get("/api/embeddings/processor", self.processor),
        ]

    async def queue(self, request: web.Request) -> web.Response:
        """What waits by model, lane and source, its age, what failed, and why it waits."""
        return await self._show(request, QUEUE)

    async def processor(self, request: web.Request) -> web.Response:
        """The living daemons, the models, and what is let alone."""
        return await self._show(request, PROCESSOR)

    async def _show(self, request: web.Request, parts: tuple[str, ...]) -> web.Response:
        if not self.token:
            return _refusal(HTTPStatus.FORBIDDEN, NO_TOKEN)
        if not self._bears_token(request):
            return _refusal(HTTPStatus.UNAUTHORIZED, WRONG_TOKEN)
        try:
            found = await self.overview.look()
        except RowvecError as error:
            log.warning("overview.failed", error=str(error))
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        return _answer(HTTPStatus.OK, {part: found[part] for part in parts} | {"models": _models(found)})

    def _bears_token(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, f"Bearer {self.token}".encode())


def _models(found: Found) -> list[dict[str, Any]]:
    """Return the models with what the daemons say of each: how many have it, its load, and why some let it alone."""
    daemons = found["daemons"]
    return [
        {
            **model,
            "daemons": sum(model["name"] in daemon["models"] for daemon in daemons),
            "load": [daemon["load"][model["name"]] for daemon in daemons if model["name"] in daemon["load"]],
            "resting": sorted(
                {why for daemon in daemons for why in daemon["resting"] if why.startswith(f"model {model['name']}: ")}
            ),
        }
        for model in found["models"]
    ]


def _refusal(status: HTTPStatus, why: str) -> web.Response:
    answer = _answer(status, {"error": why})
    if status is HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _answer(status: HTTPStatus, body: Mapping[str, Any]) -> web.Response:
    return web.Response(
        body=orjson.dumps(body, default=str),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
