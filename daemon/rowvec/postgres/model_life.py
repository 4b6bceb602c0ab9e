"""The life of a model, as its commands see it: added, looked at, promoted and dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from rowvec.domain.coverage import Coverage
from rowvec.domain.errors import SchemaOutdatedError, TryAgainError, UsageError
from rowvec.postgres.administration import Administration
from rowvec.postgres.statements import statement, vector_table

COUNTED: Final = 100_000
"""Fewer vectors are counted, more are estimated."""


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model that is to be added.

    Attributes:
        name: it goes by.
        dimensions: of its vectors.
        distance: by which they are compared: cosine, l2 or ip.
        storage: vector or halfvec.
        window_tokens: the longest text that it takes whole; None: not known.
        served: how daemons reach it, as the settings name it; never a key.
    """

    name: str
    dimensions: int
    distance: str
    storage: str
    window_tokens: int | None
    served: Mapping[str, object]


class ModelLife:
    """What happens to models while the application runs.

    Args:
        database: connected, as the owner of the schema.
    """

    def __init__(self, database: Administration) -> None:
        self._database = database

    async def add(self, model: NewModel) -> None:
        """Register a model, make its table and let its backfills begin.

        Raises:
            UsageError: there is one of its name, or the database refuses it for another reason.
        """
        served = orjson.dumps(dict(model.served)).decode()
        given = (model.name, model.dimensions, model.distance, model.storage, model.window_tokens, served)
        await self._patiently("add_model", *given)

    async def promote(self, name: str) -> bool:
        """Make a model the default of search; false when it is that already.

        Raises:
            TryAgainError: it is not complete yet.
            UsageError: there is no such model, or it is inactive.
        """
        try:
            return bool((await self._patiently("promote_model", name))[0]["changed"])
        except UsageError as refusal:
            active = {row["name"] for row in await self._database.models() if row["active"]}
            if name in active and await self._fetch("list_model_gaps", name):
                raise TryAgainError(refusal.message, refusal.hint) from refusal
            raise

    async def drop(self, name: str) -> None:
        """Remove a model with its items and vectors.

        Raises:
            UsageError: there is no such model, or another has to be promoted first.
        """
        await self._patiently("drop_model", name)

    async def tables(self) -> list[dict[str, Any]]:
        """Return the models' tables and indexes, by the statement `list_model_tables`."""
        return await self._fetch("list_model_tables")

    async def table(self, name: str) -> dict[str, Any]:
        """Return that of one model, its vectors counted where they are not many.

        Raises:
            UsageError: there is no such model.
        """
        row = next((row for row in await self.tables() if row["name"] == name), None)
        if row is None:
            raise UsageError(f'There is no model "{name}".', "See `rowvec model list`.")
        if row["vectors"] < COUNTED:
            row["vectors"] = await self._count(name)
        return row

    async def _count(self, name: str) -> int:
        try:
            counted = await self._database.execute(statement("count_vectors", table=vector_table(name)))
        except SchemaOutdatedError as error:
            raise UsageError(f'The model "{name}" was dropped meanwhile.') from error
        return int(counted[0]["vectors"])

    async def coverage(self, status: Mapping[str, Any]) -> dict[tuple[str, str], Coverage]:
        """Return how much has vectors, by active model and source that is not paused.

        Args:
            status: of `Administration.status`.
        """
        totals = await self._database.estimate_rows(sorted({row["content_type"] for row in status["backfills"]}))
        items: dict[tuple[str, str], tuple[int, int]] = {}
        for row in status["items"]:
            waiting, failed = items.get((row["model"], row["content_type"]), (0, 0))
            waiting += row["queued"] + row["delayed"] + row["processing"] + row["unfolded"]
            items[row["model"], row["content_type"]] = (waiting, failed + row["failed"])
        found = {}
        for row in status["backfills"]:
            place, total = (row["model"], row["content_type"]), totals.get(row["content_type"])
            waiting, failed = items.get(place, (0, 0))
            # Changes on the way into the queue count for every model, also those that a backfill of another brings.
            waiting -= sum(other["unfolded"] for other in _others(status["backfills"], *place))
            unseen = 0 if row["done"] else max((total or 0) - row["rows"], 0)
            found[place] = Coverage(total, max(waiting, 0), failed, unseen)
        return found

    async def _fetch(self, name: str, *arguments: object) -> list[dict[str, Any]]:
        return await self._database.execute(statement(name), *arguments)

    async def _patiently(self, name: str, *arguments: object) -> list[dict[str, Any]]:
        return await self._database.patiently(lambda: self._fetch(name, *arguments))


def _others(backfills: Iterable[Mapping[str, Any]], model: str, content_type: str) -> Iterator[Mapping[str, Any]]:
    return (row for row in backfills if row["content_type"] == content_type and row["model"] != model)
