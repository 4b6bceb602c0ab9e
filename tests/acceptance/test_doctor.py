"""`rowvec doctor` and `rowvec status` as processes of their own: exit codes, words for people, JSON for scripts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import pytest

from database import FILL, MODELS, Server

EXPECTED_SECONDS: Final = 30
SET: Final = {
    "ROWVEC_MODEL_E5_SMALL_PROVIDER": "off",
    **{f"ROWVEC_MODEL_{name.upper()}_PROVIDER": "deterministic" for name in MODELS},
    **{f"ROWVEC_MODEL_{name.upper()}_DIMENSIONS": str(length) for name, length in MODELS.items()},
}


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - of any shape
        return json.loads(self.out)


async def rowvec(dsn: str | None, *arguments: str, **settings: str) -> Answer:
    given = {"PATH": os.environ["PATH"], **SET, **settings} | ({} if dsn is None else {"DATABASE_URL": dsn})
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rowvec", *arguments),
        env=given,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(EXPECTED_SECONDS):
        out, err = await command.communicate()
    assert command.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Answer(command.returncode, out.decode(), err.decode())


@pytest.fixture
async def watched(app: asyncpg.Connection) -> asyncpg.Connection:
    await app.execute("CREATE TABLE course (id bigint PRIMARY KEY, title text)")
    await app.execute("SELECT rowvec.watch('course', 'course', ARRAY['title'], 2)")
    return app


async def test_warnings_alone_are_no_reason_to_fail(watched: asyncpg.Connection, dsn: str) -> None:
    assert not watched.is_closed()
    plain, answer = await asyncio.gather(rowvec(dsn, "doctor"), rowvec(dsn, "doctor", "--json"))
    assert (plain.code, answer.code, plain.err, answer.err) == (0, 0, "", "")
    assert "ok       server: Postgres " in plain.out
    assert "warning  daemons: No daemon is running.\n         Start one with `rowvec run`" in plain.out
    assert plain.out.endswith("Problems: 0, warnings: 1.\n")

    found = answer.json
    assert set(found) == {"well", "problems", "warnings", "complete", "findings"}
    assert (found["well"], found["problems"], found["warnings"], found["complete"]) == (True, 0, 1, True)
    assert {tuple(finding) for finding in found["findings"]} == {("level", "about", "message", "hint")}
    (ill,) = [finding for finding in found["findings"] if finding["level"] != "ok"]
    assert (ill["level"], ill["about"]) == ("warning", "daemons")


async def test_all_is_well_is_said(watched: asyncpg.Connection, dsn: str) -> None:
    version = (await rowvec(None, "version")).out.strip()
    await watched.execute(
        "INSERT INTO rowvec.daemon (id, host, pid, version, beat_at) "
        "VALUES (gen_random_uuid(), 'web1', 7, $1, now() + interval '1 hour')",
        version,
    )
    answer = await rowvec(dsn, "doctor")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.endswith("All is well.\n")
    assert "warning" not in answer.out


async def test_problems_have_an_exit_code_of_their_own(watched: asyncpg.Connection, dsn: str) -> None:
    await watched.execute("ALTER TABLE course DISABLE TRIGGER ALL")
    plain, answer = await asyncio.gather(rowvec(dsn, "doctor"), rowvec(dsn, "doctor", "--json"))
    assert (plain.code, answer.code, plain.err, answer.err) == (3, 3, "", "")
    assert "problem  source course: Triggers are missing or disabled" in plain.out
    assert "`rowvec resume course`" in plain.out
    assert (answer.json["well"], answer.json["problems"]) == (False, 1)


async def test_a_database_that_was_never_migrated_is_a_problem(empty_dsn: str) -> None:
    answer = await rowvec(empty_dsn, "doctor")
    assert (answer.code, answer.err) == (3, "")
    assert "Run `rowvec migrate` first." in answer.out
    assert "The rest can be looked at when this is right." in answer.out


async def test_what_prevents_looking_keeps_its_own_code(watched: asyncpg.Connection, dsn: str, server: Server) -> None:
    await watched.execute("INSERT INTO rowvec.schema_migration VALUES (9999, 'later', 'x', true)")
    ends = {
        65: rowvec(dsn, "doctor", "--json"),
        75: rowvec("postgresql://127.0.0.1:1/db", "doctor", "--json"),
        78: rowvec(server.dsn_for("rowvec_no_such_database"), "doctor", "--json"),
    }
    for code, answer in zip(ends, await asyncio.gather(*ends.values()), strict=True):
        assert (answer.code, answer.out) == (code, "")
        assert answer.err.startswith("error: ")
    unset = await rowvec(None, "doctor")
    assert (unset.code, "DATABASE_URL" in unset.err) == (78, True)


async def test_the_help_says_what_the_exit_codes_mean() -> None:
    told = " ".join((await rowvec(None, "doctor", "--help")).out.split())
    assert "Exits with 0 when there are no problems (warnings alone are no reason to fail), with 3" in told


async def test_status_marks_what_is_late_and_says_why(watched: asyncpg.Connection, dsn: str) -> None:
    await watched.execute("""
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation, scheduled_at)
        VALUES ('course', '1', 'first', 2, 1, now() - interval '70 s'),
               ('course', '1', 'second', 5, 1, now() - interval '70 s');
        INSERT INTO course VALUES (2, 'x');
    """)
    plain, answer = await asyncio.gather(rowvec(dsn, "status"), rowvec(dsn, "status", "--json"))
    assert (plain.code, answer.code, plain.err, answer.err) == (0, 0, "", "")
    late = {(row["model"], row["lane"]): row["late"] for row in answer.json["items"]}
    assert late == {("first", "immediate"): True, ("second", "immediate"): False, ("second", "bulk"): False}
    assert {tuple(row["why"]) for row in answer.json["items"]} == {("No daemon is running.",)}
    assert answer.json["changes"] == 1
    (row,) = [line.split() for line in plain.out.splitlines() if line.startswith("first ") and "immediate" in line]
    assert row[:4] == ["first", "immediate", "course", "2"], "changes count as queued"
    assert row[-4:] == ["of", "10", "s", "late"]
    assert "Of what is queued, 1 changes are not yet in the queue and have no age." in plain.out


async def test_status_says_what_is_paused_or_still_looked_through(watched: asyncpg.Connection, dsn: str) -> None:
    answer = await rowvec(dsn, "status")
    assert "Nothing is queued." in answer.out
    assert "The rows of course for first are still to be looked through, page by page: 0 so far." in answer.out
    await watched.execute("SELECT rowvec.pause('course')")
    assert "The source course has been paused since 2" in (await rowvec(dsn, "status")).out
    await watched.execute("SELECT rowvec.resume('course'); UPDATE rowvec.source SET swept = true")
    await watched.execute(FILL)
    assert "Nothing waits: all vectors are up to date." in (await rowvec(dsn, "status")).out
