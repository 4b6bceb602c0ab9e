"""`rowvec doctor`: a healthy database has no findings, and each illness has its own, with a cure."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import pytest

from commands import fill
from database import MODELS, Connect, Server, as_user
from rowvec.domain.errors import DatabaseUnavailableError, SchemaNewerError
from rowvec.domain.findings import Diagnosis, Finding, Level
from rowvec.postgres import diagnosis, migrations, server_checks, work_checks
from rowvec.postgres.administration import migrate_database
from rowvec.postgres.diagnosis import diagnose
from rowvec.postgres.patient import Check, Patient
from rowvec.postgres.roles import DAEMON_ROLE
from worker import Worker

VERSION: Final = "1.0"
OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM


async def examine(dsn: str, *, listen: str | None = None, models: dict[str, int] = MODELS) -> Diagnosis:
    return await diagnose(dsn, listen or dsn, models, VERSION)


async def ills(dsn: str, **given: Any) -> list[Finding]:  # noqa: ANN401 - as `examine`
    """What is not well."""
    return [finding for finding in (await examine(dsn, **given)).findings if finding.level != OK]


async def ill(dsn: str, **given: Any) -> Finding:  # noqa: ANN401 - as `examine`
    """The only thing that is not well."""
    (finding,) = await ills(dsn, **given)
    assert finding.hint, "what is wrong comes with what to do"
    return finding


async def live(session: asyncpg.Connection, version: str = VERSION, resting: tuple[str, ...] = ()) -> None:
    """Add a daemon that does not die."""
    await session.execute(
        "INSERT INTO rowvec.daemon (id, host, pid, version, models, resting, beat_at) "
        "VALUES ($1, 'web1', 7, $2, '{first,second}', $3, now() + interval '1 hour')",
        *(uuid.uuid4(), version, list(resting)),
    )


@pytest.fixture
async def well(course: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside a watched table with a living daemon: nothing is wrong."""
    await live(course)
    return course


@contextlib.asynccontextmanager
async def role(session: asyncpg.Connection) -> AsyncIterator[str]:
    """A role without any right of its own."""
    name = f"rowvec_test_{uuid.uuid4().hex[:8]}"
    await session.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    try:
        yield name
    finally:
        await session.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}")


# --- When all is well ------------------------------------------------------------------------------------


async def test_a_healthy_database_has_no_findings_but_a_word_for_every_check(
    well: asyncpg.Connection, dsn: str
) -> None:
    await well.execute("""
        CREATE TABLE event (region text, id int, body text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
        CREATE TABLE event_eu PARTITION OF event FOR VALUES IN ('eu');
        CREATE TABLE page (id int PRIMARY KEY, body text, hidden boolean);
        CREATE TABLE comment (id int, page_id int, body text);
        CREATE FUNCTION page_text(page) RETURNS text LANGUAGE sql AS $$ SELECT $1.body $$;
        SELECT rowvec.watch('event', 'event', ARRAY['body']);
        SELECT rowvec.watch('page', 'page', text_function => 'page_text', condition => 'NOT hidden',
            depends_on => '[{"table": "public.comment", "columns": ["body"], "content_id": "page_id"}]');
        INSERT INTO course VALUES (1, 'x');
    """)
    found = await examine(dsn)
    assert [finding for finding in found.findings if finding.level != OK] == []
    assert found.complete
    assert [finding.about for finding in found.findings] == [
        "server", "rights", "schema", "listening", "sources", "triggers", "reading", "windows", "unseen writes",
        "daemons", "models", "indexes", "failed items", "waiting items", "transactions", "upkeep",
    ]  # fmt: skip
    assert all(finding.message for finding in found.findings)


async def test_it_changes_nothing(well: asyncpg.Connection, dsn: str) -> None:
    await well.execute("INSERT INTO course VALUES (1, 'x')")
    tables = "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables ORDER BY 1"
    await well.execute("SELECT pg_stat_force_next_flush()")
    before = await well.fetch(tables)
    await examine(dsn)
    assert await well.fetch(tables) == before


# --- What everything rests on ----------------------------------------------------------------------------


async def test_an_empty_database_is_sent_to_migrate_and_no_further(empty_dsn: str) -> None:
    found = await examine(empty_dsn)
    assert not found.complete
    server, schema = (finding for finding in found.findings if finding.level == PROBLEM)
    assert "vector is not installed" in server.message
    assert "no rowvec schema" in schema.message
    assert "rowvec migrate" in server.hint
    assert "rowvec migrate" in schema.hint


async def test_an_older_schema_is_sent_to_migrate(well: asyncpg.Connection, dsn: str) -> None:
    last = await well.fetchval("DELETE FROM rowvec.schema_migration WHERE version = (SELECT max(version) FROM "
                               "rowvec.schema_migration) RETURNING version")  # fmt: skip
    found = await ill(dsn)
    assert (found.level, found.about) == (PROBLEM, "schema")
    assert f"lacks migration {last}" in found.message
    assert "rowvec migrate" in found.hint


async def test_a_newer_schema_is_told_and_left_alone_when_it_breaks_us(well: asyncpg.Connection, dsn: str) -> None:
    await well.execute("INSERT INTO rowvec.schema_migration VALUES (9999, 'later', 'x', false)")
    found = await ill(dsn)
    assert (found.level, found.about, "later" in found.message) == (WARNING, "schema", True)
    assert "Update the program" in found.hint
    await well.execute("UPDATE rowvec.schema_migration SET breaking = true WHERE version = 9999")
    with pytest.raises(SchemaNewerError):
        await examine(dsn)


async def test_old_programs_are_told(well: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not well.is_closed()
    monkeypatch.setattr(migrations, "OLDEST_VECTOR", (99, 0))
    old = {finding.about: finding for finding in await ills(dsn)}
    assert "99" not in old["server"].message
    assert "ALTER EXTENSION vector UPDATE" in old["server"].hint
    monkeypatch.setattr(migrations, "OLDEST_POSTGRES", 990000)
    old = {finding.about: finding for finding in await ills(dsn)}
    assert "too old" in old["server"].message
    assert "15" in old["server"].hint


async def test_a_lost_extension_is_told(well: asyncpg.Connection, dsn: str) -> None:
    await well.execute("DROP EXTENSION vector CASCADE")
    found = await ill(dsn)
    assert (found.level, found.about) == (PROBLEM, "server")
    assert "rowvec migrate" in found.hint


async def test_a_role_without_a_daemons_rights_is_told_how_to_get_them(well: asyncpg.Connection, dsn: str) -> None:
    async with role(well) as name:
        refused = {finding.about: finding for finding in await ills(as_user(dsn, name))}
        assert set(refused) == {"rights", "schema"}
        assert f"The role {name} can't do a daemon's work" in refused["rights"].message
        assert "permission denied for schema rowvec" in refused["rights"].message
        grant = f"SELECT rowvec.grant_daemon_rights('{name}');"
        assert grant in refused["rights"].hint

        await well.execute(grant)
        await well.execute(f"REVOKE UPDATE ON SEQUENCE rowvec.awake_until FROM {name}")
        lacking = {finding.about: finding for finding in await ills(as_user(dsn, name))}["rights"]
        assert (lacking.level, "UPDATE on SEQUENCE rowvec.awake_until" in lacking.message) == (PROBLEM, True)
        await well.execute(grant)
        assert [finding.about for finding in await ills(as_user(dsn, name))] == ["triggers"]


async def test_as_the_daemons_role_it_says_what_that_may_not_look_at(well: asyncpg.Connection, dsn: str) -> None:
    assert not well.is_closed()
    found = await ill(as_user(dsn, DAEMON_ROLE))
    assert (found.level, found.about) == (WARNING, "triggers")
    assert "could not be looked at" in found.message
    assert "rowvec migrate" in found.hint


class Forgetful(asyncpg.Connection):
    """A connection as a transaction pooler gives it: the session that listens is another one's in a moment."""

    async def add_listener(self, channel: str, callback: Any) -> None:  # noqa: ANN401 - the driver's own
        await super().add_listener(channel, callback)
        await self.execute("UNLISTEN *")


async def test_a_transaction_pooler_before_the_listener_is_told(
    well: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not well.is_closed()

    async def connect_through_a_pooler(dsn: str) -> asyncpg.Connection:
        return await asyncpg.connect(dsn, connection_class=Forgetful)

    monkeypatch.setattr(server_checks, "HEARING_SECONDS", 0.3)
    monkeypatch.setattr(server_checks, "connect", connect_through_a_pooler)
    found = await ill(dsn)
    assert (found.level, found.about) == (PROBLEM, "listening")
    assert "hears nothing" in found.message
    assert "transaction pooler" in found.hint
    assert "ROWVEC_LISTEN_DATABASE_URL" in found.hint


async def test_a_listener_elsewhere_or_nowhere_is_told(
    well: asyncpg.Connection, dsn: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not well.is_closed()
    monkeypatch.setattr(server_checks, "HEARING_SECONDS", 0.3)
    elsewhere = await ill(dsn, listen=server.dsn)
    assert "another database" in elsewhere.hint
    nowhere = await ill(dsn, listen=server.dsn_for("rowvec_no_such_database"))
    assert "The listener can't connect" in nowhere.message
    assert "ROWVEC_LISTEN_DATABASE_URL" in nowhere.hint


# --- Sources ---------------------------------------------------------------------------------------------

ILL_SOURCES: Final = {
    "DROP TABLE course CASCADE": (PROBLEM, "table is gone", "rowvec unwatch course"),
    "ALTER TABLE course DROP COLUMN title CASCADE": (PROBLEM, 'gone: "title"', "rowvec watch course"),
    "ALTER TABLE course DROP COLUMN id CASCADE": (PROBLEM, "one of the key", "rowvec watch course"),
    "ALTER TABLE course DROP COLUMN teacher CASCADE": (PROBLEM, "that of the owner", "rowvec watch course"),
    "DROP VIEW rowvec.rows_course": (PROBLEM, "rowvec.rows_course is gone", "--content-type course"),
    "ALTER TABLE course DROP CONSTRAINT course_pkey": (PROBLEM, "key unique", "unique index"),
    "SELECT rowvec.pause('course')": (WARNING, "Paused since 2", "rowvec resume course"),
    "ALTER TABLE course DISABLE TRIGGER rowvec_insert_course": (PROBLEM, "rowvec_insert_course", "rowvec resume"),
    "ALTER TABLE course DISABLE TRIGGER ALL": (PROBLEM, "and 2 more", "rowvec resume course"),
    "DROP TRIGGER rowvec_move_course ON course": (PROBLEM, "rowvec_move_course on public.course", "rowvec resume"),
    "CREATE TABLE seminar () INHERITS (course)": (PROBLEM, "on public.seminar", "rowvec resume course"),
}


@pytest.mark.parametrize("illness", ILL_SOURCES)
async def test_an_ill_source_is_told_once_with_its_cure(well: asyncpg.Connection, dsn: str, illness: str) -> None:
    level, message, hint = ILL_SOURCES[illness]
    await well.execute(illness)
    found = await ill(dsn)
    assert (found.level, found.about) == (level, "source course")
    assert message in found.message
    assert hint in found.hint


@pytest.mark.parametrize("illness", [illness for illness, told in ILL_SOURCES.items() if "rowvec resume" in told[2]])
async def test_pause_and_resume_cure_what_they_are_said_to_cure(
    well: asyncpg.Connection, dsn: str, illness: str
) -> None:
    await well.execute(illness)
    await well.execute("SELECT rowvec.pause('course')")
    await well.execute("SELECT rowvec.resume('course')")
    assert await ills(dsn) == []


async def test_a_key_that_may_be_null_is_told(well: asyncpg.Connection, dsn: str) -> None:
    await well.execute("""
        CREATE TABLE post (id int NOT NULL UNIQUE, body text);
        SELECT rowvec.watch('post', 'post', ARRAY['body'], key => ARRAY['id']);
        ALTER TABLE post ALTER id DROP NOT NULL;
    """)
    assert "NOT NULL" in (await ill(dsn)).message


async def test_a_table_that_its_reader_may_not_read_is_told(well: asyncpg.Connection, dsn: str) -> None:
    async with role(well) as name:
        await well.execute(f"GRANT USAGE ON SCHEMA rowvec, public TO {name}")
        await well.execute(f"ALTER VIEW rowvec.rows_course OWNER TO {name}")
        found = await ill(dsn)
        assert (found.level, found.about) == (PROBLEM, "source course")
        assert "permission denied for table course" in found.message
        assert "GRANT them SELECT" in found.hint

        await well.execute(f"GRANT SELECT ON course TO {name}")
        assert await ills(dsn) == []
        await well.execute("ALTER TABLE course ENABLE ROW LEVEL SECURITY")
        found = await ill(dsn)
        assert (found.level, "row-level security" in found.message) == (PROBLEM, True)
        assert "BYPASSRLS" in found.hint


async def test_a_row_whose_text_can_not_be_made_is_told(well: asyncpg.Connection, dsn: str, worker: Worker) -> None:
    await well.execute("""
        CREATE TABLE page (id int PRIMARY KEY, body text);
        CREATE FUNCTION page_text(page) RETURNS text LANGUAGE plpgsql AS
            $$ BEGIN RETURN 1 / length($1.body); END $$;
        SELECT rowvec.watch('page', 'page', text_function => 'page_text');
        INSERT INTO page VALUES (1, '');
    """)
    await worker.fold()
    found = {finding.about: finding for finding in await ills(dsn)}["source page"]
    assert (found.level, "A row can't be read" in found.message) == (WARNING, True)
    assert "division by zero" in found.hint


async def test_a_locked_table_is_not_waited_for(well: asyncpg.Connection, dsn: str, connect: Connect) -> None:
    assert not well.is_closed()
    writer = await connect()
    async with writer.transaction():
        await writer.execute("LOCK TABLE course IN ACCESS EXCLUSIVE MODE")
        found = await ill(dsn)
    assert (found.level, found.about) == (WARNING, "source course")
    assert "locked by another transaction" in found.message


# --- Writes that no trigger sees -------------------------------------------------------------------------


async def test_chunks_beyond_the_window_of_a_model_are_told(well: asyncpg.Connection, dsn: str) -> None:
    await well.execute("UPDATE rowvec.source SET chunking = 'markdown', chunk_characters = 2000")
    await well.execute("UPDATE rowvec.model SET window_tokens = CASE name WHEN 'first' THEN 499 ELSE 500 END")
    found = await ill(dsn)
    assert (found.level, found.about) == (PROBLEM, "source course")
    assert found.message.endswith("the model first takes 499.")
    await well.execute("UPDATE rowvec.model SET active = false")
    assert [finding for finding in await ills(dsn) if "takes" in finding.message] == []


async def test_a_database_that_fires_no_triggers_is_told(well: asyncpg.Connection, dsn: str) -> None:
    name = await well.fetchval("SELECT current_database()")
    await well.execute(f"ALTER DATABASE {name} SET session_replication_role = replica")
    found = await ill(dsn)
    assert (found.level, found.about) == (PROBLEM, "unseen writes")
    assert f"the database {name}" in found.message
    assert "origin" in found.hint


async def test_a_role_that_fires_no_triggers_is_told(well: asyncpg.Connection, dsn: str) -> None:
    async with role(well) as name:
        await well.execute(f"ALTER ROLE {name} SET session_replication_role = 'replica'")
        found = await ill(dsn)
        assert (found.level, f"the role {name}:" in found.message) == (WARNING, True)
        await well.execute(f"ALTER ROLE {name} SET session_replication_role = 'local'")
        assert await ills(dsn) == []


async def test_a_subscription_into_a_watched_tables_partition_is_told(well: asyncpg.Connection, dsn: str) -> None:
    await well.execute("""
        CREATE TABLE event (id int PRIMARY KEY, body text) PARTITION BY LIST (id);
        CREATE TABLE event_one PARTITION OF event FOR VALUES IN (1);
        CREATE TABLE other (id int);
        SELECT rowvec.watch('event', 'event', ARRAY['body']);
    """)
    await well.execute("SET client_min_messages = error")
    await well.execute("CREATE SUBSCRIPTION feed CONNECTION 'dbname=nowhere' PUBLICATION p "
                       "WITH (connect = false, slot_name = NONE)")  # fmt: skip
    try:
        await well.execute("SET allow_system_table_mods = on")
        join = "INSERT INTO pg_subscription_rel SELECT oid, $1::text::regclass, 'r', NULL FROM pg_subscription"
        await well.execute(join, "other")
        assert await ills(dsn) == []
        await well.execute(join, "event_one")
        found = await ill(dsn)
    finally:
        await well.execute("DROP SUBSCRIPTION feed")
    assert (found.level, found.about) == (WARNING, "source event")
    assert "The subscription feed writes into event_one" in found.message
    assert "rowvec resume event" in found.hint


# --- Who works, and what it stands at --------------------------------------------------------------------


async def test_nobody_there_is_told(course: asyncpg.Connection, dsn: str) -> None:
    await course.execute("INSERT INTO rowvec.daemon (id, host, pid, version, beat_at) "
                         "VALUES (gen_random_uuid(), 'web1', 7, '1', now() - interval '4 s')")  # fmt: skip
    found = await ill(dsn)
    assert (found.level, found.message) == (WARNING, "No daemon is running.")
    assert "rowvec run" in found.hint


async def test_different_versions_and_what_is_let_alone_are_told(well: asyncpg.Connection, dsn: str) -> None:
    await live(well, "0.9", ("model first: The model does not answer.",))
    resting, versions = await ills(dsn)
    assert (resting.level, "model first: The model does not answer." in resting.message) == (WARNING, True)
    assert (versions.level, "web1 7 has 0.9" in versions.message) == (WARNING, True)


async def test_models_that_differ_from_the_settings_are_told(well: asyncpg.Connection, dsn: str) -> None:
    assert not well.is_closed()
    unknown = await ill(dsn, models={**MODELS, "third": 8})
    assert (unknown.level, unknown.about) == (PROBLEM, "model third")
    assert "rowvec migrate" in unknown.hint
    longer = await ill(dsn, models={**MODELS, "second": 5})
    assert (longer.level, "5 dimensions" in longer.message) == (PROBLEM, True)
    unset = await ill(dsn, models={"first": 8})
    assert (unset.level, unset.about) == (WARNING, "model second")
    assert "ROWVEC_MODEL_SECOND_PROVIDER" in unset.hint

    await well.execute("UPDATE rowvec.model SET active = false WHERE name = 'second'")
    assert await ills(dsn, models={"first": 8}) == []
    inactive = [finding.message for finding in (await examine(dsn)).findings if finding.about == "model second"]
    assert inactive == ["It is inactive, no row is queued for it; ROWVEC_MODEL_SECOND_URL would wake it."]


async def test_a_database_without_an_active_model_is_told(well: asyncpg.Connection, dsn: str) -> None:
    await well.execute("SELECT rowvec.deactivate_model(name) FROM rowvec.model")
    found = await ill(dsn, models={})
    assert (found.level, found.about) == (WARNING, "models")
    assert "No model is active" in found.message
    assert "rowvec model add" in found.hint


async def test_a_model_without_its_table_is_told_with_a_cure(well: asyncpg.Connection, dsn: str) -> None:
    await well.execute("DROP TABLE rowvec.vector_second")
    found = await ill(dsn)
    assert (found.level, found.about) == (PROBLEM, "model second")
    await well.execute("DELETE FROM rowvec.model WHERE name = 'second'")
    await migrate_database(dsn, MODELS)
    assert await ills(dsn) == []


async def test_failed_items_are_counted_by_reason(well: asyncpg.Connection, dsn: str, worker: Worker) -> None:
    await well.execute("INSERT INTO course SELECT n, 'x' FROM generate_series(1, 3) n")
    await worker.fold()
    await well.execute("""
        DELETE FROM rowvec.embedding_queue WHERE model = 'second';
        UPDATE rowvec.embedding_queue SET status = 'failed', error_message = 'The model refuses this text.'
        WHERE content_id <> '1';
        UPDATE rowvec.embedding_queue SET status = 'failed', error_message = 'It is odd.' WHERE content_id = '1';
        DELETE FROM rowvec.daemon WHERE version = 'test';
    """)
    many, one = await ills(dsn)
    assert (many.level, many.about) == (WARNING, "model first")
    assert many.message == "Items given up: 2. The model refuses this text."
    assert one.message == "Items given up: 1. It is odd."
    assert "rowvec failed list" in one.hint


async def test_late_items_are_told_with_the_reason(course: asyncpg.Connection, dsn: str, worker: Worker) -> None:
    await course.execute("INSERT INTO course VALUES (1, 'x')")
    await worker.fold()
    await course.execute("""
        DELETE FROM rowvec.daemon;
        DELETE FROM rowvec.embedding_queue WHERE model = 'second';
        UPDATE rowvec.embedding_queue SET scheduled_at = now() - interval '100 s';
    """)
    found = {finding.about: finding for finding in await ills(dsn)}["lane immediate"]
    assert found.level == WARNING
    assert "Items of course for the model first have been due for up to 10" in found.message
    assert "the lane's time is 10 s" in found.message
    assert found.hint == "No daemon is running."
    await live(course)
    assert "A backlog is worked off" in (await ill(dsn)).hint
    await course.execute("UPDATE rowvec.daemon SET models = '{second}'")
    assert "No daemon has the model first" in (await ill(dsn)).hint


async def test_an_old_transaction_is_told(
    well: asyncpg.Connection, dsn: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_checks, "OLD_SECONDS", 0.0)
    assert not well.is_closed()
    holder = await connect()
    async with holder.transaction(isolation="repeatable_read"):
        pid = await holder.fetchval("SELECT pg_backend_pid()")
        found = await ill(dsn)
    assert (found.level, found.about) == (WARNING, "transactions")
    assert f"The session {pid} (" in found.message
    assert "vacuum can't remove dead rows" in found.message
    assert f"pg_terminate_backend({pid})" in found.hint


class Recorded(Patient):
    """A patient that answers with given rows: for what can't be brought about on a server shared with other tests."""

    rows: tuple[dict[str, Any], ...] = ()

    async def fetch(self, name: str, *arguments: object) -> list[dict[str, Any]]:
        assert name, arguments
        return list(self.rows)


def recorded(app: asyncpg.Connection, *rows: dict[str, Any]) -> Patient:
    given = type("Given", (Recorded,), {"rows": rows})
    return given(app, "", "", {}, VERSION)  # type: ignore[no-any-return]


async def test_a_prepared_transaction_is_told_by_its_name(app: asyncpg.Connection) -> None:
    row = {"kind": "prepared", "name": "order-7", "role": "shop", "application_name": "", "state": "", "seconds": 900.0}
    (found,) = await work_checks.look_at_transactions(recorded(app, row))
    assert found.message.startswith("order-7 of shop, prepared 15 minutes ago")
    assert "ROLLBACK PREPARED 'order-7'" in found.hint


async def test_upkeep_that_does_not_come_is_told(app: asyncpg.Connection) -> None:
    patient = recorded(app, {"notification_queue": 0.75, "autovacuum": False})
    vacuum, queue = await work_checks.look_at_upkeep(patient)
    assert "autovacuum is off" in vacuum.message
    assert "full to 75%" in queue.message
    assert "pg_stat_activity" in queue.hint
    assert await work_checks.look_at_upkeep(recorded(app, {"notification_queue": 0.5, "autovacuum": True})) == []


# --- Indexes ---------------------------------------------------------------------------------------------


async def test_an_index_that_an_interrupted_build_left_is_a_problem(well: asyncpg.Connection, dsn: str) -> None:
    await well.execute("CREATE INDEX vector_first_hnsw ON rowvec.vector_first USING hnsw (embedding vector_ip_ops)")
    assert await ills(dsn) == []
    await well.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'rowvec.vector_first_hnsw'::regclass")
    found = await ill(dsn)
    assert (found.level, found.about) == (PROBLEM, "model first")
    assert "`rowvec model index first`" in found.hint


async def test_many_vectors_without_an_index_are_worth_a_word_but_no_problem(
    well: asyncpg.Connection, dsn: str
) -> None:
    await fill(well, "second", 1)
    # As the last ANALYZE knew.
    await well.execute(
        "UPDATE pg_class SET reltuples = 60000, relpages = 1 WHERE oid = 'rowvec.vector_second'::regclass"
    )
    (found,) = [finding for finding in (await examine(dsn)).findings if finding.about == "model second"]
    assert (found.level, "60,000 vectors and no index" in found.message) == (OK, True)
    assert "`rowvec model index second`" in found.hint
    await well.execute("SELECT rowvec.deactivate_model('second')")
    assert "no index" not in str((await examine(dsn)).findings)


# --- Half broken -----------------------------------------------------------------------------------------


async def test_every_check_fails_alone(well: asyncpg.Connection, dsn: str) -> None:
    await well.execute("DROP TABLE rowvec.source CASCADE")
    found = {finding.about: finding for finding in await ills(dsn)}
    assert set(found) == {"sources", "triggers", "reading", "windows", "unseen writes", "waiting items"}
    for finding in found.values():
        assert finding.level == PROBLEM
        assert "could not be looked at" in finding.message
        assert finding.hint


async def test_a_database_that_is_lost_meanwhile_ends_it(
    well: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(patient: Patient) -> list[Finding]:
        await well.execute("SELECT pg_terminate_backend($1)", patient.connection.get_server_pid())
        await patient.fetch("show_upkeep")
        return []

    monkeypatch.setattr(diagnosis, "SOURCE_CHECKS", (Check("sources", cut, ""),))
    with pytest.raises(DatabaseUnavailableError):
        await examine(dsn)
