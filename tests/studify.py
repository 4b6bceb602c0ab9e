"""The preset `studify` for tests: a database that has it, its models, and the statements of its operator's guide."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator

import asyncpg

from daemons import GatedEmbedder, eventually
from database import Server, empty_database
from rowvec.postgres.administration import migrate_database
from rowvec.postgres.presets import Installed, install_preset, load_preset

DIMENSIONS = {"e5_small": 384, "bge_m3": 1024}

PUT = """
    INSERT INTO embedding_queue (content_type, content_id, content_text, content_hash, priority, status)
    VALUES ('test', 1, 'This is a test embedding', md5('test'), 5, 'queued');
"""
LOOK = "SELECT * FROM embedding_queue WHERE content_type = 'test';"
COUNT = "SELECT status, COUNT(*) FROM embedding_queue GROUP BY status;"
NEWEST = """
    SELECT id, content_type, content_id, status, retry_count, error_message, created_at
    FROM embedding_queue ORDER BY created_at DESC LIMIT 10;
"""
FAILED = "SELECT * FROM embedding_queue WHERE status = 'failed' ORDER BY updated_at DESC;"
ERRORS = "SELECT error_message, COUNT(*) FROM embedding_queue WHERE status = 'failed' GROUP BY error_message;"
RESET = """
    UPDATE embedding_queue SET status = 'queued', retry_count = 0, error_message = NULL, scheduled_at = NOW()
    WHERE status IN ('processing', 'failed');
"""
COLUMNS = """
    SELECT column_name FROM information_schema.columns WHERE table_name = 'embeddings'
    AND column_name IN ('embedding_e5_small', 'embedding_bge_m3', 'has_e5_embedding', 'has_bge_embedding');
"""
GUIDE = (PUT, LOOK, COUNT, NEWEST, FAILED, ERRORS, RESET, COLUMNS)
"""In the order of the guide, word for word."""


async def install(dsn: str) -> Installed:
    return await install_preset(dsn, load_preset("studify"))


async def create_studify(server: Server) -> str:
    """Make a database with the preset, `e5_small` active, and nothing to fill; return its name."""
    name = f"rowvec_studify_{uuid.uuid4().hex[:12]}"
    postgres = await asyncpg.connect(server.dsn)
    await postgres.execute(f"CREATE DATABASE {name}")
    await postgres.close()
    dsn = server.dsn_for(name)
    await migrate_database(dsn, {"e5_small": DIMENSIONS["e5_small"]})
    await install(dsn)
    session = await asyncpg.connect(dsn)
    await fill(session)
    await session.close()
    return name


async def activate_bge(session: asyncpg.Connection) -> None:
    """Give the second model items from now on; the rows that are there are of no interest."""
    await session.execute("SELECT rowvec.activate_model('bge_m3')")
    await fill(session)
    await session.execute("DELETE FROM rowvec.change")


async def fill(session: asyncpg.Connection) -> None:
    """Do the backfill, so that it asks for nothing later."""
    while await session.fetchval("SELECT EXISTS (SELECT FROM rowvec.unfilled)"):
        await session.execute("SELECT rowvec.append_backfill(content_type, model) FROM rowvec.unfilled")


def embedders(models: int) -> list[GatedEmbedder]:
    """The first one or two models, open."""
    return [GatedEmbedder(name, size) for name, size in list(DIMENSIONS.items())[:models]]


async def idle(session: asyncpg.Connection) -> bool:
    """Whether nothing waits any more: no change, and no item but failed ones."""
    return bool(
        await session.fetchval("""
            SELECT NOT EXISTS (SELECT FROM rowvec.change)
               AND NOT EXISTS (SELECT FROM rowvec.embedding_queue WHERE status <> 'failed')
        """)
    )


async def settled(session: asyncpg.Connection) -> None:
    await eventually(lambda: idle(session))


@contextlib.asynccontextmanager
async def bare_database(server: Server) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """Yield a migrated database without the preset, and a session in it."""
    async with empty_database(server) as dsn:
        await migrate_database(dsn, {"e5_small": DIMENSIONS["e5_small"]})
        session = await asyncpg.connect(dsn)
        try:
            yield dsn, session
        finally:
            await session.close()
