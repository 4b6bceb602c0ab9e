"""The real command in a process of its own, for the tests of what it says and exits with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

EXPECTED_SECONDS: Final = 60


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - of any shape
        return json.loads(self.out)


def environment(dsn: str | None, **settings: str) -> dict[str, str]:
    """All that a command is given: nothing of ours slips in."""
    given = {"PATH": os.environ["PATH"], "ROWVEC_HTTP_PORT": "0", **settings}
    return given if dsn is None else {**given, "DATABASE_URL": dsn}


@contextlib.asynccontextmanager
async def begun(dsn: str | None, *arguments: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a command; killed at the end if it still runs."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rowvec", *arguments),
        env=environment(dsn, **settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield command
    finally:
        with contextlib.suppress(ProcessLookupError):
            command.kill()
        await command.wait()


async def ended(command: asyncio.subprocess.Process) -> Answer:
    """Wait for the end of a command; it never shows a traceback."""
    out, err = await asyncio.wait_for(command.communicate(), EXPECTED_SECONDS)
    assert b"Traceback" not in err, err.decode()
    assert command.returncode is not None
    return Answer(command.returncode, out.decode(), err.decode())


async def rowvec(dsn: str | None, *arguments: str, **settings: str) -> Answer:
    """Run a command to its end."""
    async with begun(dsn, *arguments, **settings) as command:
        return await ended(command)


async def fill(session: asyncpg.Connection, model: str, vectors: int) -> None:
    """Give a model vectors, each another."""
    dimensions = await session.fetchval("SELECT dimensions FROM rowvec.model WHERE name = $1", model)
    await session.execute(f"""
        INSERT INTO rowvec.vector_{model} (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                           provider_revision, prefix, embedding)
        SELECT 'course', n::text, 0, 'x', sha256(n::text::bytea), 0, 'test-1', '',
               (SELECT array_agg(sin(n * d)) FROM generate_series(1, {dimensions}) d)::public.vector
        FROM generate_series(1, {vectors}) n
    """)
