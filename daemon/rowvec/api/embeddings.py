"""What waits, why, and who works on it: for operators and their programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import structlog
from aiohttp import web

from rowvec.api.answers import Bearer, answer, refusal
from rowvec.domain.errors import RowvecError
from rowvec.ports import Overview

QUEUE: Final = ("items", "changes", "sources", "models")
PROCESSOR: Final = ("daemons", "models")

Found: TypeAlias = Mapping[str, Any]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Operators:
    """The pages for operators.

    Args:
        bearer: lets through who bears the token.
        overview: where the answers come from.
    """

    bearer: Bearer
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
        if refused := self.bearer.refusal(request):
            return refused
        try:
            found = await self.overview.look()
        except RowvecError as error:
            log.warning("overview.failed", error=str(error))
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        return answer(HTTPStatus.OK, {part: found[part] for part in parts} | {"models": _models(found)})


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
