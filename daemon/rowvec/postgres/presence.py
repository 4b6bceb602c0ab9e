"""This daemon's heartbeat and leases."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Final
from uuid import UUID

import orjson

from rowvec.domain.load import ALL_HERE, CarrierLoad, ModelLoad
from rowvec.postgres.connections import Database
from rowvec.postgres.item_queue import LEASE_SECONDS

STRAY_SECONDS: Final = 3.0


class PostgresPresence:
    """`rowvec.daemon`: who lives, and what the silent ones left behind.

    Args:
        database: an open pool.
        daemon: this daemon's id.
        version: of this program.
        models: those that this daemon has at the moment of each beat, by name.
    """

    def __init__(self, database: Database, daemon: UUID, version: str, models: Collection[str]) -> None:
        self._database = database
        self._daemon = daemon
        self._identity = (socket.gethostname(), os.getpid(), version)
        self._models = models

    async def beat(
        self, resting: Sequence[str], load: Mapping[str, ModelLoad], carrier: CarrierLoad = ALL_HERE
    ) -> None:
        """See `ports.Presence.beat`."""
        told = orjson.dumps({name: asdict(model) for name, model in load.items()}).decode()
        way = orjson.dumps(asdict(carrier)).decode()
        await self._database.fetch(
            "register_daemon", self._daemon, *self._identity, list(self._models), list(resting), told, way
        )

    async def leave(self) -> None:
        """See `ports.Presence.leave`."""
        await self._database.fetch("renew_leases", self._daemon, [], LEASE_SECONDS, 0.0)
        await self._database.fetch("remove_daemon", self._daemon)

    async def release_lost(self) -> int:
        """See `ports.Presence.release_lost`."""
        await self._database.fetch("remove_lost_daemons")
        return len(await self._database.fetch("release_lost_items"))

    async def renew(self, tokens: Collection[UUID]) -> None:
        """See `ports.Presence.renew`."""
        await self._database.fetch("renew_leases", self._daemon, list(tokens), LEASE_SECONDS, STRAY_SECONDS)
