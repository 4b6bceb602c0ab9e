from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from worker import Worker

COURSE = """
    CREATE TABLE course (
        id bigint PRIMARY KEY, title text, description text, tags text[], facts json,
        teacher text, views integer NOT NULL DEFAULT 0)
"""
WATCH = """
    SELECT rowvec.watch('course', 'course', ARRAY['title', 'description', 'tags', 'facts'], 2,
                        owner_column => 'teacher')
"""


@pytest.fixture
async def course(app: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside a watched, empty table."""
    await app.execute(COURSE)
    await app.execute(WATCH)
    return app


@pytest.fixture
async def worker(dsn: str) -> AsyncIterator[Worker]:
    async with Worker.open(dsn) as found:
        yield found


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[Worker]:
    """A second daemon's worker."""
    async with Worker.open(dsn) as found:
        yield found
