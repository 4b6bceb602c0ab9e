"""`rowvec run --embedded DIR`: the main job with nothing but a folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from daemons import eventually
from database import open_folder
from studify import PUT

pytestmark = pytest.mark.timeout(120)
DETERMINISTIC = {
    "PATH": os.environ["PATH"],
    "ROWVEC_HTTP_PORT": "0",
    "ROWVEC_MODEL_E5_SMALL_PROVIDER": "deterministic",
    "ROWVEC_MODEL_E5_SMALL_DIMENSIONS": "8",
}


@dataclass
class Run:
    """The command and what it logs."""

    process: asyncio.subprocess.Process
    log: Path
    folder: Path

    async def dsn(self) -> str:
        """Wait for the address that it logs."""

        async def is_ready() -> bool:
            assert self.process.returncode is None, self.log.read_text()
            return "listener.ready" in self.log.read_text()

        await eventually(is_ready)
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return str(next(line["database_url"] for line in lines if line["event"] == "postgres.ready"))

    async def exit_code(self) -> int:
        async with asyncio.timeout(30):
            return await self.process.wait()

    @property
    def postmaster(self) -> int:
        return int((self.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])


@contextlib.asynccontextmanager
async def running_in(folder: Path, *arguments: str, **settings: str) -> AsyncIterator[Run]:
    log = folder.parent / "log"
    with log.open("wb") as output:
        command = (sys.executable, "-m", "rowvec", "run", "--embedded", str(folder), *arguments)
        environment = {**DETERMINISTIC, **settings}
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
    try:
        yield Run(process, log, folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_an_empty_folder_is_enough_and_a_killed_daemon_keeps_what_it_had() -> None:
    with open_folder() as folder:
        async with running_in(folder) as run:
            app = await asyncpg.connect(await run.dsn())
            await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text)")
            await app.execute("SELECT rowvec.watch('post', 'post', ARRAY['body'], 1)")
            await app.execute("INSERT INTO post VALUES (1, 'Kept')")
            await eventually(lambda: app.fetchval("SELECT EXISTS (SELECT FROM rowvec.vector_e5_small)"))
            await app.close()
            run.process.kill()
            await run.process.wait()
        async with running_in(folder) as run:
            app = await asyncpg.connect(await run.dsn())
            assert await app.fetchval("SELECT chunk_text FROM rowvec.vector_e5_small") == "body: Kept"
            await app.execute("INSERT INTO post VALUES (2, 'And on')")
            await eventually(lambda: app.fetchval("SELECT count(*) = 2 FROM rowvec.vector_e5_small"))
            await app.close()
            run.process.send_signal(signal.SIGTERM)
            assert await run.exit_code() == 0
            assert "database system is shut down" in (folder / "postgres.log").read_text()


async def test_a_preset_is_served_from_an_empty_folder_and_keeps_what_it_had() -> None:
    given = ("--preset", "studify")
    length = {"ROWVEC_MODEL_E5_SMALL_DIMENSIONS": "384"}
    look = "SELECT content_type, content_text FROM embeddings ORDER BY content_type, content_id"
    with open_folder() as folder:
        async with running_in(folder, *given, **length) as run:
            app = await asyncpg.connect(await run.dsn())
            await app.execute("""INSERT INTO auth.users (raw_user_meta_data) VALUES ('{"name": "Ada"}')""")
            await app.execute(PUT)
            await eventually(lambda: app.fetchval("SELECT count(*) = 3 FROM embeddings"))
            kept = [tuple(row) for row in await app.fetch(look)]
            assert kept == [
                ("auth_user", "Ada"),
                ("profile", "display_name: Ada"),
                ("test", "This is a test embedding"),
            ]
            backfills = await app.fetch("SELECT content_type, model, began_at FROM rowvec.backfill ORDER BY 1, 2")
            await app.close()
            run.process.send_signal(signal.SIGTERM)
            assert await run.exit_code() == 0
        async with running_in(folder, *given, **length) as run:
            app = await asyncpg.connect(await run.dsn())
            assert [tuple(row) for row in await app.fetch(look)] == kept
            assert (
                await app.fetch("SELECT content_type, model, began_at FROM rowvec.backfill ORDER BY 1, 2") == backfills
            )
            await app.execute("INSERT INTO course (title) VALUES ('Algebra')")
            await eventually(lambda: app.fetchval("SELECT count(*) = 4 FROM embeddings"))
            await app.close()
            run.process.kill()
            await run.process.wait()
        # What was installed once is served without the option too.
        async with running_in(folder, **length) as run:
            app = await asyncpg.connect(await run.dsn())
            kept.insert(1, ("course", "title: Algebra"))
            assert [tuple(row) for row in await app.fetch(look)] == kept
            await app.execute("UPDATE course SET title = 'Geometry'")
            changed = "SELECT EXISTS (SELECT FROM embeddings WHERE content_text = 'title: Geometry')"
            await eventually(lambda: app.fetchval(changed))
            await app.close()


async def test_it_ends_when_its_own_postgres_does() -> None:
    with open_folder() as folder:
        async with running_in(folder) as run:
            await run.dsn()
            os.kill(run.postmaster, signal.SIGKILL)
            assert await run.exit_code() == 75
            assert "The embedded Postgres has ended by itself." in run.log.read_text()


async def test_a_folder_with_other_things_in_it_is_refused() -> None:
    with open_folder() as folder:
        folder.mkdir()
        (folder / "thesis.txt").write_text("dear")
        async with running_in(folder) as run:
            assert await run.exit_code() == 78
            assert "is not empty" in run.log.read_text()
        assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
        async with running_in(folder / "thesis.txt") as run:
            assert await run.exit_code() == 78
            assert "is no folder" in run.log.read_text()
