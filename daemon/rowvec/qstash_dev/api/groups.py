"""URL groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from rowvec.qstash_dev.api.answers import answer, empty, read_object
from rowvec.qstash_dev.groups import Endpoint, Groups
from rowvec.qstash_dev.intake import check_url
from rowvec.qstash_dev.options import check_name, collect
from rowvec.qstash_dev.refusals import RefusalError


@dataclass(frozen=True, slots=True)
class UrlGroups:
    """The calls about URL groups, which are topics on the wire."""

    groups: Groups

    def routes(self) -> list[web.RouteDef]:
        """Return the calls by their paths."""
        return [
            web.get("/v2/topics", self.all),
            web.get("/v2/topics/{name}", self.get),
            web.patch("/v2/topics/{name}", self.set_headers),
            web.delete("/v2/topics/{name}", self.delete),
            web.post("/v2/topics/{name}/endpoints", self.add),
            web.delete("/v2/topics/{name}/endpoints", self.remove),
        ]

    async def all(self, _: web.Request) -> web.Response:
        """Show all groups."""
        return answer([group.show() for group in self.groups.all()])

    async def get(self, request: web.Request) -> web.Response:
        """Show a group."""
        return answer(self.groups.get(request.match_info["name"]).show())

    async def add(self, request: web.Request) -> web.Response:
        """Add endpoints; makes the group if there is none."""
        name = check_name(request.match_info["name"], "topic name")
        endpoints = [Endpoint(one.get("url", ""), one.get("name") or "") for one in await _endpoints(request)]
        for endpoint in endpoints:
            check_url(endpoint.url)
        self.groups.add(name, endpoints)
        return empty()

    async def remove(self, request: web.Request) -> web.Response:
        """Remove endpoints by destination or name."""
        endpoints = await _endpoints(request)
        urls = {one["url"] for one in endpoints if one.get("url")}
        names = {one["name"] for one in endpoints if one.get("name")}
        self.groups.remove(request.match_info["name"], urls, names)
        return empty()

    async def set_headers(self, request: web.Request) -> web.Response:
        """Set options for all messages to a group."""
        headers = (await read_object(request)).get("headers")
        if not isinstance(headers, dict):
            raise RefusalError(400, "expected headers")
        values = {name: value if isinstance(value, list) else [value] for name, value in headers.items()}
        pairs = [(name, str(value)) for name, several in values.items() for value in several]
        self.groups.set_headers(check_name(request.match_info["name"], "topic name"), collect(pairs))
        return empty()

    async def delete(self, request: web.Request) -> web.Response:
        """Remove a group; nothing if there is none."""
        self.groups.delete(request.match_info["name"])
        return empty()


async def _endpoints(request: web.Request) -> list[dict[str, Any]]:
    endpoints = (await read_object(request)).get("endpoints")
    if not isinstance(endpoints, list) or not all(isinstance(one, dict) for one in endpoints):
        raise RefusalError(400, "expected endpoints")
    return endpoints
