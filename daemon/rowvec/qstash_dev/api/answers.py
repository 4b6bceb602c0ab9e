"""Requests read and answers made, the same way everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import orjson
from aiohttp import web

from rowvec.qstash_dev.options import Given, collect
from rowvec.qstash_dev.refusals import RefusalError

TOKEN_PARAMETER: Final = "qstash_token"  # noqa: S105 - its name


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer in JSON."""
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")


def empty() -> web.Response:
    """Answer that it is done."""
    return web.Response()


async def read_object(request: web.Request) -> dict[str, Any]:
    """Return the JSON object of a request; an empty one if there is no body.

    Raises:
        RefusalError: 400, it is none.
    """
    try:
        body = orjson.loads(await request.read() or b"{}")
    except orjson.JSONDecodeError as error:
        raise RefusalError(400, f"invalid JSON: {error}") from error
    if not isinstance(body, dict):
        raise RefusalError(400, "expected a JSON object")
    return body


async def read_ids(request: web.Request, name: str) -> list[str]:
    """Return the ids in the JSON object of a request; none if there is no body.

    Raises:
        RefusalError: 400, it is no list of texts.
    """
    ids = (await read_object(request)).get(name) or []
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise RefusalError(400, f"invalid {name}: expected an array of strings")
    return ids


def caller_ip(request: web.Request) -> str:
    """Return who asks."""
    return request.remote or ""


def given_options(request: web.Request) -> Given:
    """Return the options in the headers and parameters of a request."""
    return collect(request.headers.items(), request.query.items())


def destination(request: web.Request, places: int) -> str:
    """Return the destination at the end of a path, exactly as it was sent.

    It comes as it is or percent-encoded. Parameters are its own, except for options of QStash.

    Args:
        request: whose raw target is looked at: nothing may collapse `//` or decode what belongs to the destination.
        places: how many parts of the path come before it.
    """
    path, _, query = request.raw_path.split("/", places + 1)[-1].partition("?")
    url = path if path.startswith(("http://", "https://")) else unquote(path)
    kept = [parameter for parameter in query.split("&") if parameter and not _is_ours(parameter)]
    return url + (("&" if "?" in url else "?") + "&".join(kept) if kept else "")


def _is_ours(parameter: str) -> bool:
    name = unquote(parameter.partition("=")[0]).lower()
    return name.startswith("upstash-") or name == TOKEN_PARAMETER
