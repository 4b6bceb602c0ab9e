from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest
import structlog

from database import Connect, Server, copied_database, create_template, drop_database, empty_database, running_server

LONGEST_FIRST: Final = ("chaos", "acceptance", "integration", "sql")
"""The folders in which one file takes longest, and then all others: what begins last should be over soon."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let no worker begin a long file when the other has nothing left to do."""
    folders = {folder: place for place, folder in enumerate(LONGEST_FIRST)}
    here = Path(__file__).parent
    items.sort(key=lambda item: folders.get(item.path.relative_to(here).parts[0], len(folders)))


@pytest.fixture(autouse=True)
def _fresh_logs() -> Iterator[None]:
    """Forget where a test sent its logs: that stream is closed when the test ends."""
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers = [h for h in logging.getLogger().handlers if type(h) is not logging.StreamHandler]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running_server() as found:
        yield found


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    name = asyncio.run(create_template(server))
    yield name
    asyncio.run(drop_database(server, name))


@pytest.fixture
async def dsn(server: Server, template: str) -> AsyncIterator[str]:
    """A migrated database with the models `first` (8 dimensions) and `second` (4)."""
    async with copied_database(server, template) as found:
        yield found


@pytest.fixture
async def empty_dsn(server: Server) -> AsyncIterator[str]:
    """A database with nothing in it, not even pgvector."""
    async with empty_database(server) as found:
        yield found


@pytest.fixture
async def connect(dsn: str) -> AsyncIterator[Connect]:
    """Opens sessions of an application: each call a new one."""
    opened: list[asyncpg.Connection] = []

    async def open_session() -> asyncpg.Connection:
        opened.append(await asyncpg.connect(dsn))
        return opened[-1]

    yield open_session
    for connection in opened:
        connection.terminate()


@pytest.fixture
async def app(connect: Connect) -> asyncpg.Connection:
    """A session of the application."""
    return await connect()
