"""The lines with `curl` in the README, as they stand there, asked of a running daemon."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from benchmarks.scratch import free_port
from daemons import GatedEmbedder
from local_qstash import LocalQStash, local_qstash, within
from qstash_road import road

pytestmark = [
    pytest.mark.one_postgres,
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here"),
]

README = Path(__file__).parents[2] / "README.md"
ADDRESS = "http://127.0.0.1:8480"
LINES = re.findall(r"^\$ (curl (?:.*\\\n)*.*)$", README.read_text(), re.MULTILINE)
TOKEN = "of-the-operators"  # noqa: S105 - the test's own
PROBES = "/{startupz,livez,readyz,healthz,metrics}"
ANSWERED = {
    "/api/embeddings/queue": [["changes", "items", "models", "sources"]],
    "/api/embeddings/processor": [["daemons", "models"]],
    "/api/embeddings/queue-monitor": [["batches", "items", "queuedCount", "triggered"]] * 2,
    "/api/embeddings/trigger": [["triggered"]],
}
"""The keys of what each page answers, for each line."""
TAKES_TASKS = "/api/embeddings/maintenance"


@dataclass(frozen=True)
class Stand:
    """A daemon and a local QStash, and what a shell knows of them."""

    address: str
    qstash: LocalQStash

    async def run(self, line: str) -> tuple[set[str], str]:
        """Run a line; return the statuses of its answers, and what it prints."""
        environment = {
            "PATH": os.environ["PATH"],
            "ROWVEC_API_TOKEN": TOKEN,
            "QSTASH_URL": self.qstash.url,
            "QSTASH_TOKEN": self.qstash.token,
            "SITE_URL": self.address,
        }
        asked = line.replace(ADDRESS, self.address) + " -w '%{stderr}%{http_code} '"
        curl = await asyncio.create_subprocess_shell(
            asked, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
        )
        out, statuses = await curl.communicate()
        assert curl.returncode == 0, line
        return set(statuses.decode().split()), out.decode()


@asynccontextmanager
async def standing(dsn: str) -> AsyncIterator[Stand]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    given = {"ROWVEC_HTTP_PORT": port, "SITE_URL": address, "ROWVEC_API_TOKEN": TOKEN}
    async with local_qstash() as qstash, road(dsn, qstash, GatedEmbedder(), **given):
        yield Stand(address, qstash)


@pytest.fixture
async def course(app: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside the table of the README, with its two rows."""
    await app.execute("""
        CREATE TABLE course (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text);
        SELECT rowvec.watch('course', 'course', ARRAY['title'], 2);
        INSERT INTO course (title) VALUES ('Learn to bake bread'), ('Python asyncio');
    """)
    return app


def path_of(line: str) -> str:
    """Return the path of ours that a line asks or publishes to."""
    [path] = re.findall(rf"(?:{ADDRESS}|\$SITE_URL)(/[^\s\"']*)", line.replace("\\\n", " "))[:1]
    return str(path)


def published() -> list[str]:
    return [line for line in LINES if "$QSTASH_URL" in line]


def asked() -> list[str]:
    return [line for line in LINES if ADDRESS in line and path_of(line) != TAKES_TASKS]


def test_no_page_is_without_a_line() -> None:
    signed = {"/api/embeddings/process-webhook", "/api/embeddings/process"}
    assert {path_of(line) for line in LINES} == {PROBES, *ANSWERED, TAKES_TASKS, *signed}
    assert all(page in "".join(published()) for page in ("/api/qstash/callback", "/api/qstash/failure"))


async def test_what_operators_ask_is_answered(course: asyncpg.Connection, dsn: str) -> None:
    assert not course.is_closed()
    answered: dict[str, list[list[str]]] = {}
    async with standing(dsn) as stand:
        for line in asked():
            statuses, out = await stand.run(line)
            assert statuses == {"200"}, line
            if path_of(line) == PROBES:
                assert "rowvec_items_total" in out
            else:
                answered.setdefault(path_of(line), []).append(sorted(json.loads(out)))
    assert answered == ANSWERED


async def test_a_task_is_done(dsn: str) -> None:
    [line] = [line for line in LINES if path_of(line) == TAKES_TASKS]
    async with standing(dsn) as stand:
        statuses, out = await stand.run(line)
    assert statuses == {"200"}
    assert json.loads(out)["task"] == "cleanup"


async def test_what_an_application_publishes_is_taken(course: asyncpg.Connection, dsn: str) -> None:
    assert not course.is_closed()
    async with standing(dsn) as stand:
        for line in published():
            statuses, out = await stand.run(line)
            assert (statuses, sorted(json.loads(out))) == ({"200"}, ["messageId"]), line
            await within(stand.qstash.until(lambda: stand.qstash.counts["published"] == len(stand.qstash.deliveries)))
        [batch] = [line for line in published() if path_of(line) == "/api/embeddings/process"]
        await stand.run(batch.replace('"course"', '"nobody"'))
        await within(stand.qstash.until(lambda: came(stand, "/api/qstash/failure") == {200}))
        assert came(stand, "/api/qstash/callback") == {200}
        assert came(stand, "/api/embeddings/process-webhook") == {200}
        assert came(stand, "/api/embeddings/process") == {200, 489}


def came(stand: Stand, path: str) -> set[int | None]:
    """Return the statuses that deliveries to a page were answered with."""
    return {one.answer.status for one in stand.qstash.deliveries if urlsplit(one.url).path == path}
