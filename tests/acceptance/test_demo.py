from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import asyncpg
import pytest

from database import open_folder
from rowvec.cli.demo_rows import COURSES, LESSONS, POSTS, QUESTIONS, TABLES
from rowvec.embedded import EmbeddedPostgres
from rowvec.postgres.administration import migrate_database
from rowvec.postgres.presets import install_preset, load_preset

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]

Figures: TypeAlias = dict[str, Any]

ROWS = sum(len(table.rows) for table in TABLES)
MEANINGLESS = {"ROWVEC_MODEL_E5_SMALL_PROVIDER": "deterministic"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as found:
        yield found


@pytest.fixture(scope="module")
def figures(folder: Path) -> Figures:
    """What the first run on a new folder prints."""
    return measured(folder)


@contextmanager
def demo(folder: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command; a database set in the environment must not be touched, so it gets one that is none."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("ROWVEC_")}
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"
    with subprocess.Popen(
        [sys.executable, "-m", "rowvec", "demo", "--folder", str(folder), *options],
        env={
            **settings,
            "DATABASE_URL": nowhere,
            "ROWVEC_LISTEN_DATABASE_URL": nowhere,
            "ROWVEC_HTTP_PORT": "0",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def measured(folder: Path) -> Figures:
    with demo(folder, "--once", "--json") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    found: Figures = json.loads(out)
    return found


def read_document(stream: IO[str]) -> Figures:
    lines: list[str] = []
    while not lines or lines[-1].rstrip() != "}":
        line = stream.readline()
        assert line, "".join(lines)
        lines.append(line)
    found: Figures = json.loads("".join(lines))
    return found


def read_until(stream: IO[str], text: str) -> None:
    while text not in (line := stream.readline()):
        assert line, f"{text!r} was never printed"


def is_stopped(folder: Path) -> bool:
    log = (folder / "postgres.log").read_text()
    return not (folder / "data" / "postmaster.pid").exists() and log.rstrip().endswith("database system is shut down")


def test_every_question_is_answered_by_the_expected_row(figures: Figures) -> None:
    assert [search["question"] for search in figures["searches"]] == [question.text for question in QUESTIONS]
    for search, question in zip(figures["searches"], QUESTIONS, strict=True):
        assert search["answers"][0]["content_type"] == question.content_type
        assert search["answers"][0]["title"] == question.answer
        assert len(search["answers"]) == 3


def test_every_flow_queues_what_it_should_and_is_within_its_lane(figures: Figures) -> None:
    queued = {
        flow["flow"]: {(item["content_type"], item["priority"], item["lane"]) for item in flow["items"]}
        for flow in figures["flows"]
    }
    assert queued == {
        "a user registers": {("auth_user", 2, "immediate"), ("profile", 2, "immediate")},
        "a course's description is changed": {("course", 2, "immediate")},
        "a course is looked at": set(),
        "a post is written, with a comment": {("post", 4, "standard"), ("comment", 5, "bulk")},
    }
    assert [flow["within_seconds"] for flow in figures["flows"]] == [10, 10, None, 60]
    for flow in figures["flows"]:
        assert flow["within"] is True
        if flow["items"]:
            assert 0 < flow["commit_to_vector_ms"] < flow["within_seconds"] * 1000
        else:
            assert flow["commit_to_vector_ms"] is None


def test_what_a_flow_wrote_is_found_by_its_meaning(figures: Figures) -> None:
    found = figures["flow_search"]
    (post,) = (item for flow in figures["flows"] for item in flow["items"] if item["content_type"] == "post")
    assert found["as_expected"]
    assert found["answers"][0]["content_id"] == post["content_id"] == str(len(POSTS.rows) + 1)


def test_a_rewritten_row_answers_the_question_that_it_did_not_answer_before(figures: Figures) -> None:
    rewrite = figures["rewrite"]
    before, after = (rewrite[when]["answers"][0] for when in ("before", "after"))
    assert rewrite["before"]["question"] == rewrite["after"]["question"]
    assert before["title"] != rewrite["after"]["expected"]
    assert after["title"] == rewrite["after"]["expected"]


def test_the_time_from_commit_to_vector_is_measured(figures: Figures) -> None:
    times = figures["commit_to_vector_ms"]
    assert len(times["samples"]) == 20
    assert times["p50"] == pytest.approx(statistics.median(times["samples"]), abs=0.1)
    assert 0 < times["p50"] <= times["worst"] == max(times["samples"]) < 10_000


def test_all_lanes_have_worked(figures: Figures) -> None:
    done = figures["items_done"]
    assert (done["immediate"], done["standard"]) == (len(COURSES.late), len(LESSONS.late) + len(POSTS.late))
    assert sum(done.values()) == figures["rows"] == ROWS
    assert 0 < figures["seconds_until_all_embedded"] < 120


def test_a_second_run_begins_anew_and_serves_on_another_port_when_its_own_is_taken(
    figures: Figures, folder: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with demo(folder, "--json", **MEANINGLESS, ROWVEC_HTTP_PORT=port) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            again = read_document(process.stdout)
            assert (again["rows"], again["items_done"]) == (ROWS, figures["items_done"])
            addresses = again["addresses"]
            read_until(process.stderr, "Serving until Ctrl-C")
            assert f":{port}/" not in addresses["healthz"]
            with urllib.request.urlopen(addresses["healthz"]) as answer:  # noqa: S310 - our own address
                assert answer.status == 200
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0
            assert time.monotonic() - began < 10
    assert is_stopped(folder)


@pytest.mark.parametrize("moment", ["Starting a Postgres", "It is up", "is installed", "Searches"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_before_it_serves_ends_it_with_130(
    figures: Figures, folder: Path, moment: str, number: signal.Signals
) -> None:
    assert figures["rows"] == ROWS
    with demo(folder, "--json", **MEANINGLESS) as process:
        assert process.stderr is not None
        read_until(process.stderr, moment)
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    assert is_stopped(folder)


def test_a_model_that_knows_no_meaning_is_told_and_ends_it_with_1(figures: Figures, folder: Path) -> None:
    assert figures["rows"] == ROWS
    with demo(folder, "--once", **MEANINGLESS) as process:
        out, err = process.communicate()
    assert process.returncode == 1
    assert "did not come first" in err
    assert QUESTIONS[0].text in out


def test_a_local_qstash_carries_the_work_and_no_other_is_asked(figures: Figures, folder: Path) -> None:
    nowhere = {"QSTASH_URL": "http://127.0.0.1:1", "QSTASH_TOKEN": "of-nobody", "SITE_URL": "https://example.org"}
    with demo(folder, "--once", "--json", "--qstash", **MEANINGLESS, **nowhere) as process:
        out, err = process.communicate()
    found = json.loads(out)
    assert found["items_done"] == figures["items_done"]
    assert "carries the work of the lanes immediate, standard." in err
    carried = {
        flow["flow"]: {
            (message["path"].rpartition("/")[2], row["content_type"], message["status"])
            for message in flow["messages"]
            for row in message["rows"]
        }
        for flow in found["flows"]
    }
    assert carried == {
        "a user registers": {("process-webhook", "auth_user", 200), ("process-webhook", "profile", 200)},
        "a course's description is changed": {("process-webhook", "course", 200)},
        "a course is looked at": set(),
        "a post is written, with a comment": {("process", "post", 200)},
    }
    assert found["qstash"]["sent"] == found["qstash"]["delivered"] > 0
    assert found["qstash"]["rows"]["embedded"] > 0
    told = f"{found['qstash']['sent']} messages were sent, {found['qstash']['delivered']} delivered."
    assert told in err


def test_a_model_of_an_earlier_start_is_not_waited_for() -> None:
    with open_folder() as folder:
        for settings in ({"ROWVEC_MODEL_BGE_M3_PROVIDER": "deterministic"}, {}):
            with demo(folder, "--once", **MEANINGLESS, **settings) as process:
                out, err = process.communicate(timeout=100)
            assert "did not come first" in err, out


async def test_an_application_that_the_demo_did_not_make_is_left_alone() -> None:
    register = """INSERT INTO auth.users (raw_user_meta_data) VALUES ('{"full_name": "Somebody"}')"""
    with open_folder() as folder:
        with EmbeddedPostgres(folder) as postgres:
            await migrate_database(postgres.dsn, {"e5_small": 384})
            await install_preset(postgres.dsn, load_preset("studify"))
            await run_sql(postgres.dsn, register)
        with demo(folder, "--once") as process:
            _, err = process.communicate()
        assert process.returncode == 78
        assert '"auth.users" that the demo did not make' in err
        with EmbeddedPostgres(folder) as postgres:
            assert await run_sql(postgres.dsn, "SELECT display_name FROM profiles") == "Somebody"
            assert (
                await run_sql(postgres.dsn, "SELECT count(*) FROM rowvec.source WHERE content_type <> 'document'") == 6
            )


async def run_sql(dsn: str, sql: str) -> Any:  # noqa: ANN401 - whatever the statement gives
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def test_the_help_says_that_no_database_of_the_environment_is_used() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "rowvec", "demo", "--help"], capture_output=True, text=True, check=True
    )
    assert "DATABASE_URL and ROWVEC_LISTEN_DATABASE_URL are not used" in " ".join(answer.stdout.split())
