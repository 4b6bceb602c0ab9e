"""The real command in a process of its own: what it says and exits with, when all is well and when it is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

import commands
from commands import Answer
from daemons import eventually
from database import Server, empty_database
from rowvec.domain.errors import ConfigurationError
from rowvec.postgres.connections import connect

PASSWORD: Final = "s3cr3t-Pa55word"  # noqa: S105 - what must never be printed
MODEL: Final = {"ROWVEC_MODEL_E5_SMALL_PROVIDER": "deterministic", "ROWVEC_MODEL_E5_SMALL_DIMENSIONS": "8"}
EXPECTED_SECONDS: Final = 30


def environment(dsn: str | None, **settings: str) -> dict[str, str]:
    """All that a command is given, with a model that needs no package."""
    return commands.environment(dsn, **{**MODEL, **settings})


async def rowvec(dsn: str | None, *arguments: str, **settings: str) -> Answer:
    """Run a command to its end."""
    return await commands.rowvec(dsn, *arguments, **{**MODEL, **settings})


async def each_refused(code: int, dsn: str | None, commands: Sequence[Sequence[str]]) -> list[str]:
    """Run commands side by side, as `refused`: a second of imports each is what they take."""
    return list(await asyncio.gather(*(refused(code, dsn, *command) for command in commands)))


async def refused(code: int, dsn: str | None, *arguments: str, **settings: str) -> str:
    """Run a command that must fail with this exit code and without a traceback; return what it said."""
    answer = await rowvec(dsn, *arguments, **settings)
    assert answer.code == code, answer
    assert answer.out == "", "results only go to stdout"
    assert "Traceback" not in answer.err
    assert answer.err.strip(), "an exit code alone helps nobody"
    return answer.err


def with_password(dsn: str, **changes: str) -> str:
    """The same database with a password in the address."""
    parts = urlsplit(dsn)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()} | {"user": "postgres"} | changes
    user, host, port = query.pop("user"), query.pop("host", ""), query.pop("port", "5432")
    return f"postgresql://{user}:{PASSWORD}@{parts.netloc}{parts.path}?host={host}&port={port}"


@pytest.fixture(scope="module")
def migrated(server: Server) -> Iterator[str]:
    """A database migrated by the command, for tests that change nothing in it."""
    with asyncio.Runner() as runner:
        database = empty_database(server)
        dsn = runner.run(database.__aenter__())
        answer = runner.run(rowvec(dsn, "migrate", "--json"))
        assert answer.code == 0, answer
        yield dsn
        runner.run(database.__aexit__(None, None, None))


@pytest.fixture
async def own(empty_dsn: str) -> str:
    """A database migrated by the command, of this test alone."""
    assert (await rowvec(empty_dsn, "migrate")).code == 0
    return empty_dsn


@contextlib.asynccontextmanager
async def session(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def daemon(dsn: str, **settings: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """`rowvec run` and the file of its logs; killed at the end if it is still there."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "rowvec", "run"), env=environment(dsn, **settings), stdout=output, stderr=output
            )
        try:
            yield process, log
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def logged(log: Path, event: str) -> list[dict[str, Any]]:
    """The lines of one event."""
    lines = (json.loads(line) for line in log.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


async def status_of(url: str) -> int:
    def ask() -> int:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    return await asyncio.to_thread(ask)


# --- Settings --------------------------------------------------------------------------------------------

DIFFERENT: Final = [["run"], ["status"], ["watch", "course", "--columns", "title"]]
"""Those that come to the database in ways of their own: a process costs a second."""


async def test_without_a_database_it_says_what_to_set() -> None:
    for said in await each_refused(78, None, [*DIFFERENT, ["failed", "list"]]):
        assert "No database is set" in said
        assert "DATABASE_URL" in said
        assert "--embedded" in said


GARBAGE: Final = [
    f"{PASSWORD}",
    f"{PASSWORD}:x",
    f"mysql://root:{PASSWORD}@host/db",
    f"postgresql://root:{PASSWORD}@host:port/db",
    f"postgresql://root:{PASSWORD}/more@host/db",
    f"postgresql://root:{PASSWORD}#more@host/db",
    f"postgresql://root:{PASSWORD}?more@host/db",
    f"postgresql://root:[{PASSWORD}@host/db",
    f"postgresql://root:\N{ACCOUNT OF}{PASSWORD}@host/db",
    f"postgresql://root:{PASSWORD}@host/db?sslmode=perhaps",
    "",
    " ",
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_no_part_of_an_address_that_is_none_is_repeated(garbage: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await connect(garbage)
    assert caught.value.__cause__ is None
    assert not [piece for piece in (PASSWORD, "s3cr3t", "pa55word") if piece in str(caught.value).lower()]


async def test_an_address_that_is_none_is_told() -> None:
    for said in await asyncio.gather(*(refused(78, garbage, "status") for garbage in (GARBAGE[0], GARBAGE[4]))):
        assert "DATABASE_URL" in said
        assert "postgresql://USER:PASSWORD@HOST" in said
        assert not [piece for piece in (PASSWORD, "s3cr3t", "pa55word") if piece in said.lower()]


async def test_the_drivers_reason_is_told_when_it_repeats_no_secret() -> None:
    said = await refused(78, f"postgresql://root:{PASSWORD}@host/db?sslmode=perhaps", "status")
    assert "sslmode" in said


WRONG_SETTINGS: Final = [
    ("ROWVEC_HTTP_PORT", "eighty"),
    ("ROWVEC_LOG_LEVEL", "loud"),
    ("ROWVEC_MODEL_E5_SMALL_DIMENSIONS", "many"),
    ("ROWVEC_CONFIG", "/nowhere/rowvec.toml"),
]


async def test_a_wrong_setting_is_named() -> None:
    wrong = [
        refused(78, "postgresql:///nowhere?host=/nowhere", "run", **{name: value}) for name, value in WRONG_SETTINGS
    ]
    for (name, _), said in zip(WRONG_SETTINGS, await asyncio.gather(*wrong), strict=True):
        assert name.removeprefix("ROWVEC_MODEL_E5_SMALL_").lower() in said.lower()


WRONG_LINES: Final = [
    (["dance"], "dance"),
    (["status", "--loud"], "--loud"),
    (["watch"], "table"),
    (["watch", "course", "--columns", "title", "--priority", "0"], "--priority"),
    (["failed", "forget"], "forget"),
]


async def test_a_command_line_that_makes_no_sense_is_explained() -> None:
    answers = await each_refused(2, "postgresql:///nowhere?host=/nowhere", [line for line, _ in WRONG_LINES])
    for (_, word), said in zip(WRONG_LINES, answers, strict=True):
        assert word in said
        assert "--help" in said


# --- The database's schema -------------------------------------------------------------------------------


async def test_a_database_without_schema_sends_to_migrate(empty_dsn: str) -> None:
    for said in await each_refused(78, empty_dsn, DIFFERENT):
        assert "no rowvec schema" in said
        assert "rowvec migrate" in said


async def test_a_newer_schema_that_breaks_us_is_left_alone(migrated: str) -> None:
    async with session(migrated) as admin:
        await admin.execute("INSERT INTO rowvec.schema_migration VALUES (9999, 'later', 'x', true)")
        try:
            answers = await each_refused(65, migrated, [*DIFFERENT, ["migrate"]])
        finally:
            await admin.execute("DELETE FROM rowvec.schema_migration WHERE version = 9999")
    for said in answers:
        assert "newer than this program" in said
        assert "Update the program" in said


async def test_a_schema_that_lost_pgvector_is_told(own: str) -> None:
    async with session(own) as admin:
        await admin.execute("DROP EXTENSION vector CASCADE")
    for command in (["status"], ["run"]):
        assert "extension vector is not installed" in await refused(78, own, *command)


async def test_a_role_without_rights_is_told(server: Server, migrated: str) -> None:
    async with session(server.dsn) as admin:
        await admin.execute(f"CREATE ROLE rowvec_test_nobody LOGIN PASSWORD '{PASSWORD}'")
        try:
            answers = await each_refused(78, with_password(migrated, user="rowvec_test_nobody"), DIFFERENT)
        finally:
            await admin.execute("DROP ROLE rowvec_test_nobody")
    for said in answers:
        assert "permission denied for schema rowvec" in said
        assert "Connect as the role that ran `rowvec migrate`" in said
        assert PASSWORD not in said


async def test_migrate_without_rights_is_told(server: Server, empty_dsn: str) -> None:
    async with session(server.dsn) as admin:
        await admin.execute(f"CREATE ROLE rowvec_test_nobody LOGIN PASSWORD '{PASSWORD}'")
        try:
            said = await refused(78, with_password(empty_dsn, user="rowvec_test_nobody"), "migrate")
        finally:
            await admin.execute("DROP ROLE rowvec_test_nobody")
    assert "may not create the extension vector" in said
    assert "superuser" in said


async def test_another_length_of_the_model_is_told_with_both_numbers(migrated: str) -> None:
    wrong = (refused(78, migrated, name, ROWVEC_MODEL_E5_SMALL_DIMENSIONS="16") for name in ("run", "migrate"))
    for said in await asyncio.gather(*wrong):
        assert "16 dimensions" in said
        assert "holds 8" in said
        assert "ROWVEC_MODEL_E5_SMALL_DIMENSIONS" in said


async def test_a_model_without_its_table_sends_to_migrate(migrated: str) -> None:
    said = await refused(78, migrated, "run", ROWVEC_MODEL_SECOND_PROVIDER="deterministic")
    assert "does not know the model second" in said
    assert "Run `rowvec migrate` as the owner" in said


# --- What is asked for -----------------------------------------------------------------------------------


async def test_watching_an_unknown_table_is_told(migrated: str) -> None:
    tables = ["nowhere", 'half"quoted', ""]
    commands = [["watch", table, "--columns", "title", "--content-type", "x"] for table in tables]
    for table, said in zip(tables, await each_refused(2, migrated, commands), strict=True):
        assert f"There is no table {table}" in said
        assert "schema" in said


WRONG_WATCHES: Final = [
    (["pg_catalog.pg_views", "--columns", "viewname", "--content-type", "x"], "no table that can be watched"),
    (["plain", "--columns", "body", "--content-type", "Über uns"], "at most 40"),
    (["plain", "--columns", "body", "--template", "{title}"], "Watched are: body."),
    (["plain", "--columns", "body", "--chunk-characters", "50", "--chunk-overlap", "60"], "half"),
    (["plain", "--columns", "body", "--key", "body"], "unique index"),
    (["plain", "--columns", "body", "--condition", "id < extract(epoch FROM now())"], "not on the time"),
    (["plain", "--text-function", "nowhere"], "no single function nowhere"),
    (["plain", "--columns", "body", "--depends-on", "{"], "JSON"),
]


async def test_a_watch_that_makes_no_sense_is_told(migrated: str) -> None:
    async with session(migrated) as admin:
        await admin.execute("CREATE TABLE plain (id bigint PRIMARY KEY, body text)")
    answers = await each_refused(2, migrated, [["watch", *arguments] for arguments, _ in WRONG_WATCHES])
    for (_, words), said in zip(WRONG_WATCHES, answers, strict=True):
        assert words in said
        assert "HINT" not in said


async def test_ending_a_watch_that_is_none_is_told(migrated: str) -> None:
    said = await refused(2, migrated, "unwatch", "nobody", "--json")
    assert 'No source is watched as "nobody"' in said
    assert said.count("rowvec sources") == 1


async def test_searching_with_an_unknown_model_is_told(migrated: str) -> None:
    said = await refused(2, migrated, "search", "algebra", "--model", "huge")
    assert '"huge"' in said
    assert "e5_small" in said


# --- What is in the way ----------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_told(migrated: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = await refused(78, migrated, "run", ROWVEC_HTTP_PORT=str(port))
    assert f"127.0.0.1:{port}" in said
    assert "ROWVEC_HTTP_PORT" in said


async def test_a_server_that_can_not_be_reached_means_try_again() -> None:
    places = ["127.0.0.1:1/db", "no-such-host.invalid/db", "/db?host=/nowhere"]
    wrong = (refused(75, f"postgresql://root:{PASSWORD}@{place}", "status") for place in places)
    for said in await asyncio.gather(*wrong):
        assert "Postgres can't be reached" in said
        assert "DATABASE_URL" in said
        assert PASSWORD not in said


async def test_a_database_that_is_not_there_is_told(server: Server) -> None:
    said = await refused(78, server.dsn_for("rowvec_no_such_database"), "status")
    assert "rowvec_no_such_database" in said
    assert "Check DATABASE_URL" in said


async def test_the_daemon_waits_for_its_database_and_begins_when_it_comes(server: Server, own: str) -> None:
    place = parse_qs(urlsplit(own).query).get("host")
    if not place:
        pytest.skip("needs a server that is reached through a socket in a folder")
    assert server.dsn
    with tempfile.TemporaryDirectory() as folder:
        later = Path(folder) / "socket"
        async with daemon(with_password(own, host=str(later))) as (process, log):

            async def has_waited() -> bool:
                assert process.returncode is None, log.read_text()
                return len(logged(log, "database.awaited")) > 0

            await eventually(has_waited)
            (ready,) = logged(log, "http.ready")
            assert await status_of(f"{ready['address']}/startupz") == 200
            assert await status_of(f"{ready['address']}/readyz") == 503
            later.symlink_to(place[-1], target_is_directory=True)

            async def is_ready() -> bool:
                assert process.returncode is None, log.read_text()
                return await status_of(f"{ready['address']}/readyz") == 200

            await eventually(is_ready, what=log.read_text())
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), EXPECTED_SECONDS) == 0
            assert PASSWORD not in log.read_text()
            assert "Traceback" not in log.read_text()


async def test_the_daemon_ends_at_once_while_it_waits() -> None:
    async with daemon(f"postgresql://root:{PASSWORD}@127.0.0.1:1/db") as (process, log):

        async def has_waited() -> bool:
            return bool(logged(log, "database.awaited"))

        await eventually(has_waited)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), EXPECTED_SECONDS) == 0
        assert PASSWORD not in log.read_text()
        assert "Traceback" not in log.read_text()


# --- When all is well ------------------------------------------------------------------------------------


async def done(dsn: str, *arguments: str) -> Any:  # noqa: ANN401 - of any shape
    """Run a command with --json; it says nothing on stderr and one document on stdout."""
    answer = await rowvec(dsn, *arguments, "--json")
    assert (answer.code, answer.err) == (0, ""), answer
    return answer.json


@pytest.mark.parametrize(
    ("meanwhile", "told"),
    [
        ("SELECT rowvec.pause('course')", 'The source "course" is paused.'),
        ("SELECT rowvec.unwatch('course')", 'No source is watched as "course".'),
        ("SELECT rowvec.deactivate_model('e5_small')", "switched off meanwhile: course for e5_small."),
    ],
)
async def test_a_backfill_that_is_taken_away_is_not_called_done(empty_dsn: str, meanwhile: str, told: str) -> None:
    await done(empty_dsn, "migrate")
    async with session(empty_dsn) as app:
        await app.execute("CREATE TABLE course (id bigint PRIMARY KEY, title text)")
        await app.execute("SELECT rowvec.watch('course', 'course', ARRAY['title'])")
        await app.execute("INSERT INTO course VALUES (1, 'Algebra')")
        command = asyncio.create_task(rowvec(empty_dsn, "backfill", "course"))
        counting = (
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'coalesce.b.rows'"
        )

        async def looked() -> bool:
            return bool(await app.fetchval(f"{counting} AND state = 'idle' AND pid <> pg_backend_pid()"))

        await eventually(looked)
        await app.execute(meanwhile)
        answer = await command
    assert answer.code != 0
    assert told in answer.err
    assert answer.out == ""


async def test_every_command_from_migrate_to_unwatch(empty_dsn: str) -> None:
    dsn = empty_dsn
    first = await done(dsn, "migrate")
    assert [name[:4] for name in first["migrations"]] == [f"{n:04}" for n in range(1, len(first["migrations"]) + 1)]
    assert first["models"] == ["e5_small"]
    nothing: dict[str, Any] = {"migrations": [], "models": [], "activated": [], "deactivated": [], "sources": []}
    role = {"role": "rowvec_daemon", "left_to_administrator": []}
    assert await done(dsn, "migrate") == {**nothing, "preset": None, **role}
    assert await done(dsn, "sources") == []

    async with session(dsn) as app:
        await app.execute("CREATE TABLE course (id bigint PRIMARY KEY, title text, teacher text)")
        await app.execute("INSERT INTO course VALUES (1, 'Algebra', 'ada'), (2, 'Geometry', 'bob')")
        watch = ["watch", "course", "--columns", "title", "--owner-column", "teacher", "--template", "{title}"]
        assert await done(dsn, *watch) == {"content_type": "course", "changed": True}
        assert await done(dsn, *watch) == {"content_type": "course", "changed": False}
        (source,) = await done(dsn, "sources")
        assert (source["content_type"], source["relation"], source["key"]) == ("course", "course", ["id"])
        assert (source["labels"], source["owner"], source["backfilled"]) == (["title"], "teacher", False)

        status = await done(dsn, "status")
        assert (status["daemons"], status["items"], status["changes"]) == ([], [], 0)
        assert [(m["name"], m["dimensions"], m["is_default"]) for m in status["models"]] == [("e5_small", 8, True)]

        async with daemon(dsn) as (process, log):

            async def all_stored() -> bool:
                assert process.returncode is None, log.read_text()
                return bool(await app.fetchval("SELECT count(*) = 2 FROM rowvec.vector"))

            await eventually(all_stored, what="the backfill did not come to its end")
            (living,) = (await done(dsn, "status"))["daemons"]
            assert living["pid"] == process.pid
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), EXPECTED_SECONDS) == 0
        assert (await done(dsn, "status"))["daemons"] == []

        found = await done(dsn, "search", "Algebra")
        assert [row["content_id"] for row in found] == ["1", "2"]
        assert (found[0]["content_type"], found[0]["chunk_text"]) == ("course", "Algebra")
        assert found[0]["score"] == pytest.approx(1.0)
        assert [row["content_id"] for row in await done(dsn, "search", "x", "--owner", "bob")] == ["2"]
        assert len(await done(dsn, "search", "x", "--limit", "1")) == 1
        assert "rowvec sources" in await refused(2, dsn, "search", "x", "--content-type", "other")

        assert await done(dsn, "failed", "list") == []
        assert await done(dsn, "failed", "retry") == {"queued": 0}
        await app.execute("""
            INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation, status,
                                                retry_count, error_message, error_detail)
            SELECT 'course', n::text, 'e5_small', 2, n, 'failed', 5, 'It went wrong.', '[red]badly[/red]'
            FROM generate_series(1, 3) n
        """)
        failed = await done(dsn, "failed", "list", "--limit", "2")
        assert len(failed) == 2
        assert failed[0]["error_detail"] == "[red]badly[/red]"
        assert await done(dsn, "failed", "retry", "course", "2") == {"queued": 1}
        assert await done(dsn, "failed", "retry", "nobody") == {"queued": 0}
        assert await done(dsn, "failed", "retry", "--model", "e5_small") == {"queued": 2}
        (waiting,) = (await done(dsn, "status"))["items"]
        assert (waiting["lane"], waiting["queued"], waiting["failed"]) == ("immediate", 3, 0)

        assert await done(dsn, "unwatch", "course") == {"content_type": "course"}
        assert await app.fetchval("SELECT count(*) FROM rowvec.vector") == 0
    assert await done(dsn, "sources") == []


async def test_a_backfill_says_who_does_it_and_what_was_stopped(empty_dsn: str) -> None:
    dsn = empty_dsn
    await done(dsn, "migrate")
    async with session(dsn) as app:
        await app.execute("CREATE TABLE course (id bigint PRIMARY KEY, title text)")
        await done(dsn, "watch", "course", "--columns", "title")
        assert "Either --stop or --again" in await refused(2, dsn, "backfill", "--stop", "--again")
        begun = await rowvec(dsn, "backfill", "course", "--no-wait")
        assert begun.err == "No daemon is running: it begins when one does.\n"
        stopped = await rowvec(dsn, "backfill", "--stop")
        assert (stopped.out[:8], stopped.err) == ("Stopped.", "")
        await app.execute("UPDATE rowvec.backfill SET stopped = false, done = true")
        ended = await rowvec(dsn, "backfill", "--stop")
        assert (ended.out, ended.err) == ("Nothing was to be stopped: all rows were looked at.\n", "")


async def test_a_preset_is_installed_and_said_so(empty_dsn: str) -> None:
    length = {"ROWVEC_MODEL_E5_SMALL_DIMENSIONS": "384"}
    sources = ["auth_user", "comment", "course", "lesson", "post", "profile"]
    first = (await rowvec(empty_dsn, "migrate", "--preset", "studify", "--json", **length)).json
    assert (first["preset"], first["sources"], first["models"]) == ("studify", sources, ["e5_small", "bge_m3"])
    again = (await rowvec(empty_dsn, "migrate", "--preset", "studify", "--json", **length)).json
    assert (again["preset"], again["sources"], again["models"], again["migrations"]) == ("studify", [], [], [])
    said = await rowvec(empty_dsn, "migrate", "--preset", "studify", **length)
    assert said.out.splitlines() == ["The preset studify is installed.", "Nothing to do: the schema is up to date."]
    assert (await rowvec(empty_dsn, "migrate", "--json", **length)).json["preset"] is None
    async with session(empty_dsn) as admin:
        await admin.execute("DROP TRIGGER course_embedding_trigger ON course")
    said = await rowvec(empty_dsn, "migrate", "--preset", "studify", **length)
    assert said.out.splitlines() == ["The preset studify is installed; watched from now on: course."]


async def test_a_preset_that_is_not_there_is_told_before_anything_is_done(empty_dsn: str) -> None:
    for name in ("studiffy", "../presets/studify", ""):
        for command in (["migrate"], ["run", "--embedded", "/nowhere/rowvec"]):
            said = await refused(2, empty_dsn, *command, "--preset", name)
            assert f'There is no preset "{name}".' in said
            assert "There is: studify." in said
    async with session(empty_dsn) as admin:
        assert await admin.fetchval("SELECT to_regnamespace('rowvec')") is None


async def test_run_installs_no_preset_in_a_database_that_is_not_its_own(migrated: str) -> None:
    said = await refused(2, migrated, "run", "--preset", "studify")
    assert "rowvec migrate --preset studify" in " ".join(said.replace("│", " ").split())


async def test_what_is_in_a_preset_s_way_is_told(own: str) -> None:
    async with session(own) as admin:
        await admin.execute("CREATE TABLE public.embeddings (id bigint)")
    said = await refused(2, own, "migrate", "--preset", "studify")
    assert "the table public.embeddings" in said
    assert "docs/studify.md" in said


async def test_the_version_needs_no_database() -> None:
    answer = await rowvec(None, "version", "--json")
    assert (answer.code, answer.err) == (0, "")
    plain = await rowvec(None, "version")
    assert plain.out.strip() == answer.json["version"]


async def test_people_get_sentences_where_there_is_nothing_to_show(migrated: str) -> None:
    commands = [["sources"], ["status"], ["failed", "list"], ["search", "x"], ["failed", "retry"], ["migrate"]]
    for answer in await asyncio.gather(*(rowvec(migrated, *command) for command in commands)):
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.strip()


async def test_qstash_asked_for_outright_with_something_missing_is_refused_before_anything_is_served() -> None:
    said = await refused(78, "postgresql:///nowhere?host=/nowhere", "run", EMBEDDING_QUEUE_STRATEGY="qstash")
    assert "QSTASH_TOKEN, QSTASH_CURRENT_SIGNING_KEY, QSTASH_NEXT_SIGNING_KEY, SITE_URL missing" in said
    assert "http.ready" not in said
