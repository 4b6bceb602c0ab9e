"""LISTEN on a connection of its own, and the mark that spares writers from notifying."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.postgres.connections import Database, close, connect, translated

CHANNEL: Final = "rowvec"
SELF_TEST_SECONDS: Final = 5.0
PROOF_SECONDS: Final = 10.0


class PostgresWakeSource:
    """NOTIFY on the channel `rowvec`.

    Args:
        database: an open pool, for the mark.
        dsn: of the listener's direct connection: a transaction pooler never delivers a NOTIFY and does not say so.
    """

    def __init__(self, database: Database, dsn: str) -> None:
        self._database = database
        self._dsn = dsn

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[None]]:
        """See `ports.WakeSource.listen`.

        The connection proves itself with a round trip of NOTIFY at the start; afterwards with a round trip of
        any kind whenever it has been silent for 10 s.
        """
        connection = await connect(self._dsn)
        woken = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: woken.set())
            with translated():
                await connection.add_listener(CHANNEL, lambda *_: woken.set())
                await _self_test(connection, woken)
            yield _wakeups(connection, woken)
        finally:
            await close(connection)

    async def mark_awake(self, seconds: float) -> None:
        """See `ports.WakeSource.mark_awake`."""
        await self._database.fetch("mark_awake", seconds)

    async def clear_awake(self) -> None:
        """See `ports.WakeSource.clear_awake`."""
        await self._database.fetch("clear_awake")

    async def notify(self) -> None:
        """See `ports.WakeSource.notify`."""
        await self._database.fetch("notify_daemons")


async def _self_test(connection: Any, woken: asyncio.Event) -> None:  # noqa: ANN401 - asyncpg's generic class
    """Notify ourselves and wait for it: the proof that no pooler stands between."""
    await connection.execute(f"NOTIFY {CHANNEL}")
    try:
        # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the event.
        async with asyncio.timeout(SELF_TEST_SECONDS):
            await woken.wait()
    except TimeoutError:
        raise DatabaseUnavailableError(
            "The listener hears nothing: NOTIFY did not come back.",
            "A transaction pooler stands between; give a direct connection in ROWVEC_LISTEN_DATABASE_URL.",
        ) from None
    woken.clear()


async def _wakeups(connection: Any, woken: asyncio.Event) -> AsyncIterator[None]:  # noqa: ANN401 - see above
    while True:
        try:
            async with asyncio.timeout(PROOF_SECONDS):
                await woken.wait()
        except TimeoutError:
            # A half-open socket stays silent for ever.
            with translated():
                await connection.fetchval("SELECT 1", timeout=SELF_TEST_SECONDS)
            continue
        woken.clear()
        if connection.is_closed():
            raise DatabaseUnavailableError("The listener's connection was cut.")
        yield
