"""The database as the checks of `rowvec doctor` see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import asyncpg

from rowvec.domain.findings import Finding
from rowvec.postgres.connections import BOUNDS, translated
from rowvec.postgres.statements import statement

_BOUNDED: Final = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in BOUNDS.items())


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at, and what it should be like.

    Attributes:
        connection: a direct one.
        dsn: of the database.
        listen_dsn: of the listener.
        models: those that are set, name to dimensions.
        version: of this program.
    """

    connection: asyncpg.Connection[asyncpg.Record]
    dsn: str
    listen_dsn: str
    models: Mapping[str, int]
    version: str

    async def fetch(self, name: str, *arguments: object) -> list[dict[str, Any]]:
        """Run a named statement in a transaction of its own, which waits for no lock and nothing else for long."""
        with translated():
            async with self.connection.transaction(isolation="read_committed"):
                await self.connection.execute(_BOUNDED)
                return [dict(row) for row in await self.connection.fetch(statement(name), *arguments)]


Look: TypeAlias = Callable[[Patient], Awaitable[Sequence[Finding]]]


@dataclass(frozen=True, slots=True)
class Check:
    """One look at one thing.

    Attributes:
        about: what is looked at.
        look: returns what it found; nothing when all is well.
        well: what to say then.
    """

    about: str
    look: Look
    well: str
