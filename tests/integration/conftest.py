from __future__ import annotations

import asyncpg
import pytest


@pytest.fixture
async def post(app: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside a watched, empty table `post` (immediate lane)."""
    await app.execute("""
        CREATE TABLE post (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, author text);
        SELECT rowvec.watch('post', 'post', ARRAY['body'], 2, template => '{body}', owner_column => 'author');
    """)
    return app
