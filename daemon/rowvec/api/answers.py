"""Answers in JSON, and the token that operators bear."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web

NO_TOKEN: Final = "This is answered only where a token is set: set ROWVEC_API_TOKEN for the daemon."  # noqa: S105
WRONG_TOKEN: Final = "Send the header `Authorization: Bearer TOKEN`, with the token of ROWVEC_API_TOKEN."  # noqa: S105


@dataclass(frozen=True, slots=True)
class Bearer:
    """Lets operators through.

    Attributes:
        token: what a request must bear; empty: there is none, and nobody is answered.
    """

    token: str

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to whom may not ask; None for those who may."""
        if not self.token:
            return refusal(HTTPStatus.FORBIDDEN, NO_TOKEN)
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            return None
        return refusal(HTTPStatus.UNAUTHORIZED, WRONG_TOKEN, {"WWW-Authenticate": "Bearer"})


def refusal(status: int, why: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return the answer to what is not done."""
    return answer(status, {"error": why}, headers)


def answer(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a body as JSON, which nobody keeps."""
    return web.Response(
        body=orjson.dumps(body, default=str),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
