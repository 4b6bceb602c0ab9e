"""`rowvec model add|list|promote|drop`: the real command against stand-ins of model servers."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import pytest
from aiohttp import web
from pydantic import HttpUrl

from commands import Answer, begun, ended, fill, rowvec
from daemons import eventually, running
from database import FILL, Connect
from embedding_servers import API_KEY, REMOTE_NAME, OpenAIServer, TeiServer, cut_off
from rowvec import cli
from rowvec.postgres import locks
from rowvec.settings import ModelSettings, load_settings

DIMENSIONS: Final = 6
KEY: Final = {"ROWVEC_MODEL_THIRD_API_KEY": API_KEY}


@pytest.fixture
async def service() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(DIMENSIONS).serving() as serving:
        yield serving


@pytest.fixture
async def course(app: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside a watched table with twenty rows that both models have finished."""
    await app.execute("CREATE TABLE course (id bigint PRIMARY KEY, title text)")
    await app.execute("SELECT rowvec.watch('course', 'course', ARRAY['title'])")
    await app.execute("INSERT INTO course SELECT n, 'Course ' || n FROM generate_series(1, 20) n")
    await app.execute(f"DELETE FROM rowvec.change; {FILL}; UPDATE rowvec.backfill SET rows = 20")
    return app


async def add(dsn: str, service: OpenAIServer, *more: str, **settings: str) -> Answer:
    options = ("--provider", "openai", "--url", service.url, "--remote-name", REMOTE_NAME, "--no-wait")
    return await rowvec(dsn, "model", "add", "third", *options, *more, **{**KEY, **settings})


async def registered(session: asyncpg.Connection) -> list[str]:
    return [row["name"] for row in await session.fetch("SELECT name FROM rowvec.model ORDER BY name")]


# --- Added -----------------------------------------------------------------------------------------------


async def test_a_model_is_looked_at_made_and_told_how_it_is_served(
    course: asyncpg.Connection, dsn: str, service: OpenAIServer
) -> None:
    answer = await add(dsn, service, "--passage-prefix", "doc: ", "--window-tokens", "512", "--json")
    assert answer.code == 0, answer
    row = await course.fetchrow("SELECT * FROM rowvec.model WHERE name = 'third'")
    assert row is not None
    assert (row["dimensions"], row["distance"], row["storage"], row["window_tokens"]) == (6, "cosine", "vector", 512)
    assert (row["active"], row["is_default"]) == (True, False)
    served = json.loads(row["served"])
    url = service.url
    assert served == {"provider": "openai", "url": url, "remote_name": REMOTE_NAME, "passage_prefix": "doc: "}
    assert answer.json["served"] == served
    (filling,) = answer.json["backfill"]
    assert (filling["content_type"], filling["model"], filling["done"]) == ("course", "third", False)
    assert "No daemon is running" in answer.err
    variables = dict(line.split("=", 1) for line in re.findall(r"ROWVEC_MODEL_THIRD_.*", answer.err))
    assert variables.pop("ROWVEC_MODEL_THIRD_API_KEY") == "..."
    own = {name: "".join(shlex.split(value)) for name, value in variables.items()}
    settings = load_settings(models={"third": {name.split("_THIRD_")[1].lower(): own[name] for name in own}})
    assert settings.models["third"] == ModelSettings(
        provider="openai", url=HttpUrl(url), remote_name=REMOTE_NAME, passage_prefix="doc: ", dimensions=6
    )
    assert API_KEY not in answer.out + answer.err


async def test_settings_of_the_environment_count_where_no_option_says_otherwise(
    course: asyncpg.Connection, dsn: str, service: OpenAIServer
) -> None:
    variables = {"PROVIDER": "openai", "URL": service.url, "REMOTE_NAME": REMOTE_NAME, "CONCURRENCY": "3"}
    settings = {**KEY, **{f"ROWVEC_MODEL_THIRD_{name}": value for name, value in variables.items()}}
    answer = await rowvec(
        dsn, *("model", "add", "third", "--no-wait", "--distance", "ip", "--storage", "halfvec"), **settings
    )
    assert answer.code == 0, answer
    row = await course.fetchrow("SELECT * FROM rowvec.model WHERE name = 'third'")
    assert row is not None
    assert (row["dimensions"], row["distance"], row["storage"]) == (DIMENSIONS, "ip", "halfvec")
    assert json.loads(row["served"])["concurrency"] == 3


async def test_its_backfill_is_followed_to_its_end(course: asyncpg.Connection, dsn: str, service: OpenAIServer) -> None:
    options = ("--provider", "openai", "--url", service.url, "--remote-name", REMOTE_NAME)
    async with begun(dsn, "model", "add", "third", *options, **KEY) as command:

        async def made() -> bool:
            return "third" in await registered(course)

        await eventually(made)
        model = {"provider": "openai", "url": service.url, "remote_name": REMOTE_NAME, "dimensions": DIMENSIONS}
        async with running(dsn, models={"e5_small": {"provider": "off"}, "third": {**model, "api_key": API_KEY}}):
            answer = await ended(command)
    assert answer.code == 0, answer
    assert "Added the model third: 6 dimensions, cosine, vector." in answer.out
    assert "Done: 20 rows were looked at." in answer.out
    assert (
        "Searches go on with first. Next: `rowvec model index third`, then `rowvec model promote third`." in answer.out
    )
    assert await course.fetchval("SELECT count(*) FROM rowvec.vector_third") == 20


async def test_ctrl_c_leaves_the_model_and_says_that_its_backfill_goes_on(
    course: asyncpg.Connection, dsn: str, service: OpenAIServer
) -> None:
    options = ("--provider", "openai", "--url", service.url, "--remote-name", REMOTE_NAME)
    async with begun(dsn, "model", "add", "third", *options, **KEY) as command:
        counting = (
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE query ~ 'coalesce.b.rows' AND pid <> pg_backend_pid()"
        )

        async def followed() -> bool:
            return "third" in await registered(course) and bool(await course.fetchval(counting))

        await eventually(followed)
        command.send_signal(signal.SIGINT)
        answer = await ended(command)
    assert answer.code == 130
    assert "its backfill goes on in the background" in answer.err
    assert "third" in await registered(course)


async def refused(dsn: str, service: OpenAIServer, code: int, *more: str, **settings: str) -> str:
    """Try to add a model, which must fail and make nothing; return what was said."""
    answer = await add(dsn, service, *more, **settings)
    assert (answer.code, answer.out) == (code, ""), answer
    session = await asyncpg.connect(dsn)
    try:
        assert await registered(session) == ["first", "second"]
    finally:
        await session.close()
    return answer.err


async def test_another_length_than_was_said_is_told_with_both_figures(dsn: str, service: OpenAIServer) -> None:
    said = await refused(dsn, service, 2, "--dimensions", "384")
    assert "have 6 dimensions at its server, not 384" in said
    assert "Add --dimensions 6" in said


async def test_a_server_that_is_down_means_try_again(dsn: str, service: OpenAIServer) -> None:
    await service.refuse_connections()
    assert "can't be reached" in await refused(dsn, service, 75)


async def test_a_refused_key_is_a_matter_of_settings(dsn: str, service: OpenAIServer) -> None:
    said = await refused(dsn, service, 78, ROWVEC_MODEL_THIRD_API_KEY="wrong-key")
    assert "refuses the API key" in said
    assert "ROWVEC_MODEL_THIRD_API_KEY" in said
    assert "wrong-key" not in said


async def test_a_model_that_the_server_does_not_have_is_told(dsn: str, service: OpenAIServer) -> None:
    said = await refused(dsn, service, 78, "--remote-name", "other")
    assert "does not know the model" in said


async def test_an_overloaded_server_means_try_again(dsn: str, service: OpenAIServer) -> None:
    async def overloaded(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503, text="Loading")

    service.instead = overloaded
    assert "(503)" in await refused(dsn, service, 75)


async def test_a_connection_that_is_cut_means_try_again(dsn: str, service: OpenAIServer) -> None:
    service.instead = cut_off
    assert "can't be reached" in await refused(dsn, service, 75)


async def test_the_same_vector_for_different_texts_is_refused(dsn: str, service: OpenAIServer) -> None:
    service.twist = lambda texts, _: [[1.0] * DIMENSIONS for _ in texts]
    assert "two different texts with the same vector" in await refused(dsn, service, 1)


async def test_vectors_that_are_no_numbers_are_refused(dsn: str, service: OpenAIServer) -> None:
    service.twist = lambda texts, _: [[0.0] * DIMENSIONS for _ in texts]
    assert "without direction" in await refused(dsn, service, 1)


async def test_too_few_vectors_are_refused(dsn: str, service: OpenAIServer) -> None:
    service.twist = lambda _, vectors: vectors[:1]
    assert "wrong number of vectors" in await refused(dsn, service, 1)


async def test_a_server_that_refuses_a_harmless_text_is_told(dsn: str, service: OpenAIServer) -> None:
    async def refusing(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "dimensions must be at most 1536"}}, status=400)

    service.instead = refusing
    said = await refused(dsn, service, 78)
    assert "refuses a harmless text" in said
    assert "dimensions must be at most 1536 Is it --dimensions" in said


WRONG: Final = [
    (["third"], {}, 2, "is reached is not said"),
    (["third", "--provider", "openai"], {}, 2, "ROWVEC_MODEL_THIRD_URL"),
    (["third", "--provider", "guess"], {}, 2, "provider"),
    (["third", "--provider", "openai", "--url", "http://u:secret@host/v1"], {}, 2, "ends in logs"),
    (["third", "--provider", "tei", "--url", "http://host", "--remote-name", "x"], {}, 2, "has no names of models"),
    (["Third", "--provider", "deterministic"], {}, 2, "is no name for a model"),
    (["first", "--provider", "deterministic"], {}, 2, 'There is a model "first" already'),
    (["third", "--provider", "deterministic", "--distance", "far"], {}, 2, "--distance"),
    (["third", "--provider", "deterministic"], {"ROWVEC_MODEL_OTHER_CONCURRENCY": "many"}, 78, "OTHER_CONCURRENCY"),
]


async def test_what_makes_no_sense_is_refused_before_anything_is_asked(app: asyncpg.Connection, dsn: str) -> None:
    answers = await asyncio.gather(*(rowvec(dsn, "model", "add", *line, **given) for line, given, _, _ in WRONG))
    for (line, _, code, words), answer in zip(WRONG, answers, strict=True):
        assert (answer.code, words in answer.err) == (code, True), (line, answer)
        assert "secret" not in answer.err
    assert await registered(app) == ["first", "second"]


async def test_a_sleeping_model_is_told_what_wakes_it(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("SELECT rowvec.deactivate_model('second')")
    answer = await rowvec(dsn, "model", "add", "second", "--provider", "deterministic")
    assert (answer.code, "ROWVEC_MODEL_SECOND_URL wakes it" in answer.err) == (2, True), answer


@pytest.mark.parametrize(
    ("dimensions", "storage", "words"),
    [
        ("2001", "vector", "at most 2,000 dimensions of vector, this model has 2,001. --storage halfvec allows 4,000."),
        ("4001", "halfvec", "at most 4,000 dimensions of halfvec, this model has 4,001. Its searches compare all"),
    ],
)
async def test_more_dimensions_than_an_index_takes_are_told(
    dsn: str, dimensions: str, storage: str, words: str
) -> None:
    options = ("--provider", "deterministic", "--dimensions", dimensions, "--storage", storage, "--no-wait")
    answer = await rowvec(dsn, "model", "add", "third", *options)
    assert (answer.code, words in answer.err) == (0, True), answer
    said = await rowvec(dsn, "model", "index", "third", "--now")
    assert (said.code, "too long for an HNSW index" in said.err) == (2, True), said


async def test_a_model_that_says_of_itself_what_it_is_needs_no_length(app: asyncpg.Connection, dsn: str) -> None:
    async with TeiServer(5).serving() as service:
        answer = await rowvec(
            dsn, *("model", "add", "third", "--provider", "tei", "--url", service.url, "--no-wait", "--json"), **KEY
        )
    assert (answer.code, answer.json["dimensions"]) == (0, 5), answer
    assert await app.fetchval("SELECT dimensions FROM rowvec.model WHERE name = 'third'") == 5


# --- Listed ----------------------------------------------------------------------------------------------


async def listed(dsn: str, name: str, **settings: str) -> dict[str, Any]:
    answer = await rowvec(dsn, "model", "list", "--json", **settings)
    assert (answer.code, answer.err) == (0, "")
    return next(row for row in answer.json if row["name"] == name)


async def test_the_list_tells_how_much_is_up_to_date(course: asyncpg.Connection, dsn: str) -> None:
    await course.execute("""
        INSERT INTO rowvec.embedding_queue
            (content_type, content_id, model, priority, generation, status, error_message)
        VALUES ('course', '1', 'first', 2, 1, 'queued', NULL), ('course', '2', 'first', 6, 1, 'queued', NULL),
               ('course', '3', 'first', 6, 1, 'failed', 'It went wrong.');
        UPDATE rowvec.backfill SET done = false, rows = 5 WHERE model = 'second' AND content_type = 'course';
    """)
    first, second = await listed(dsn, "first"), await listed(dsn, "second")
    assert [first[key] for key in ("total", "waiting", "failed", "unseen", "current", "share")] == [
        20,
        2,
        1,
        0,
        17,
        0.85,
    ]
    (source,) = first["sources"]
    assert (source["content_type"], source["current"]) == ("course", 17)
    assert (second["current"], second["unseen"], second["share"]) == (5, 15, 0.25)
    assert (first["is_default"], second["is_default"]) == (True, False)
    shown = await rowvec(dsn, "model", "list")
    assert "17 of 20 (85%)" in shown.out
    assert "breaker" not in shown.out


async def test_changes_of_another_model_s_backfill_do_not_count(course: asyncpg.Connection, dsn: str) -> None:
    await course.execute("""
        INSERT INTO rowvec.change (urgency, content_type, content_id, priority, kind, model)
        SELECT 3, 'course', n::text, 6, 'write', 'second' FROM generate_series(1, 4) n;
        INSERT INTO rowvec.change (urgency, content_type, content_id, priority, kind)
        VALUES (3, 'course', '9', 3, 'write');
    """)
    assert [(await listed(dsn, name))["current"] for name in ("first", "second")] == [19, 15]


async def test_the_list_shows_no_key_and_no_password(app: asyncpg.Connection, dsn: str) -> None:
    served = json.dumps({"provider": "openai", "url": "http://u:secret@host:1/v1", "remote_name": "big"})
    await app.execute("UPDATE rowvec.model SET served = $1 WHERE name = 'first'", served)
    settings = {
        f"ROWVEC_MODEL_SECOND_{name}": value for name, value in (("URL", "http://there"), ("API_KEY", "secret"))
    }
    answer = await rowvec(dsn, "model", "list", "--json", ROWVEC_MODEL_SECOND_DIMENSIONS="4", **settings)
    first, second = answer.json
    assert (first["provider"], first["url"], first["remote_name"]) == ("openai", "http://host:1/v1", "big")
    assert (second["provider"], second["url"]) == ("sentence_transformers", "http://there/")
    assert "secret" not in answer.out + answer.err


async def test_the_list_shows_the_state_of_the_index(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("CREATE INDEX vector_first_hnsw ON rowvec.vector_first USING hnsw (embedding vector_cosine_ops)")
    first, second = await listed(dsn, "first"), await listed(dsn, "second")
    assert (first["index"], first["m"], first["ef_construction"], second["index"]) == ("ready", 16, 64, "none")
    await app.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'rowvec.vector_first_hnsw'::regclass")
    assert (await listed(dsn, "first"))["index"] == "invalid"
    shown = await rowvec(dsn, "model", "list")
    assert "`rowvec model index first` builds it anew" in shown.out


# --- Promoted --------------------------------------------------------------------------------------------


async def test_a_complete_model_is_promoted_at_once(course: asyncpg.Connection, dsn: str) -> None:
    answer = await rowvec(dsn, "model", "promote", "second")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == (
        "second is the default of search from now on. Before it was first: `rowvec model drop first` removes that.\n"
    )
    assert await course.fetchval("SELECT name FROM rowvec.model WHERE is_default") == "second"
    again = await rowvec(dsn, "model", "promote", "second", "--json")
    assert again.json == {"model": "second", "changed": False, "before": "second"}


async def test_an_incomplete_model_is_not_promoted_yet(course: asyncpg.Connection, dsn: str) -> None:
    await course.execute("UPDATE rowvec.backfill SET done = false WHERE model = 'second' AND content_type = 'course'")
    answer = await rowvec(dsn, "model", "promote", "second")
    assert (answer.code, answer.out) == (75, "")
    assert "not complete" in answer.err
    assert 'of "course"' in answer.err
    assert "`rowvec backfill`" in answer.err
    assert await course.fetchval("SELECT name FROM rowvec.model WHERE is_default") == "first"


async def test_promoting_what_is_not_there_or_sleeps_is_a_matter_of_usage(app: asyncpg.Connection, dsn: str) -> None:
    unknown = await rowvec(dsn, "model", "promote", "nobody")
    assert (unknown.code, "See `rowvec model list`." in unknown.err) == (2, True)
    await app.execute("SELECT rowvec.deactivate_model('second')")
    asleep = await rowvec(dsn, "model", "promote", "second")
    assert (asleep.code, "is inactive" in asleep.err) == (2, True)


async def test_promoting_a_large_model_without_index_over_one_with_it_is_warned_of(
    course: asyncpg.Connection, dsn: str
) -> None:
    await course.execute("CREATE INDEX ON rowvec.vector_first USING hnsw (embedding vector_cosine_ops)")
    await fill(course, "second", 50_000)
    answer = await rowvec(dsn, "model", "promote", "second")
    assert answer.code == 0
    assert "each search compares all of 50,000 vectors until `rowvec model index second` is through" in answer.err


# --- Dropped ---------------------------------------------------------------------------------------------


async def test_a_model_is_dropped_with_all_that_it_has(course: asyncpg.Connection, dsn: str) -> None:
    await fill(course, "second", 30)
    asked = await rowvec(dsn, "model", "drop", "second")
    assert (asked.code, "would remove second: 30 vectors" in asked.err, "--yes" in asked.err) == (2, True, True)
    assert await registered(course) == ["first", "second"]
    answer = await rowvec(dsn, "model", "drop", "second", "--yes", "--json")
    assert (answer.code, answer.json["model"], answer.json["vectors"]) == (0, "second", 30)
    assert answer.json["bytes"] > 0
    assert "Remove ROWVEC_MODEL_SECOND_... from the settings" in answer.err
    assert await registered(course) == ["first"]
    assert await course.fetchval("SELECT to_regclass('rowvec.vector_second')") is None


async def test_the_one_that_is_searched_is_not_dropped(app: asyncpg.Connection, dsn: str) -> None:
    answer = await rowvec(dsn, "model", "drop", "first", "--yes")
    assert (answer.code, answer.out) == (2, "")
    assert "Promote another first: second." in answer.err
    assert await registered(app) == ["first", "second"]


async def test_a_drop_waits_for_a_lock_and_then_gives_up(
    app: asyncpg.Connection,
    connect: Connect,
    dsn: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, where it can be given less patience than the twelve seconds that it has."""
    monkeypatch.setattr(locks, "LOCK_TRIES", 2)
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setattr(sys, "argv", ["rowvec", "model", "drop", "second", "--yes"])
    other = await connect()
    async with other.transaction():
        await other.execute("LOCK TABLE rowvec.vector_second IN ROW EXCLUSIVE MODE")
        code = await asyncio.to_thread(cli.main)
    err = capsys.readouterr().err
    assert (code, "locked by another transaction" in err) == (75, True), err
    assert await registered(app) == ["first", "second"]


async def test_a_model_that_comes_by_itself_is_switched_off_not_left_out(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("SELECT rowvec.add_model('e5_small', 384)")
    answer = await rowvec(dsn, "model", "drop", "e5_small", "--yes")
    assert (answer.code, "Set ROWVEC_MODEL_E5_SMALL_PROVIDER=off" in answer.err) == (0, True), answer
