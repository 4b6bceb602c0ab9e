"""What operators do at QStash, through the real commands, against the local one."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import pytest
from aiohttp import web

import commands
from commands import Answer
from daemons import GatedEmbedder, eventually, running
from local_qstash import Received, Receiver, local_qstash, receiving
from rowvec.api.messages import read_asked
from rowvec.pipeline.bell import Bell
from rowvec.pipeline.deliver import Deliveries
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.staleness import Staleness
from rowvec.pipeline.undelivered import UndeliveredRows
from rowvec.postgres.connections import Database
from rowvec.postgres.row_reader import PostgresRowReader
from rowvec.postgres.row_states import PostgresRowStates
from rowvec.qstash.answers import Schedule
from rowvec.qstash.client import Outgoing, QStashClient, connected
from rowvec.qstash.dead_letters import DeadLetters
from rowvec.qstash_dev.server import LocalQStash

pytestmark = pytest.mark.one_postgres

NEVER: Final = {"Upstash-NonRetryable-Error": "true"}
MODELS: Final = {"e5_small": {"provider": "off"}, "first": {"provider": "deterministic", "dimensions": 8}}
DAEMON: Final = {"EMBEDDING_QUEUE_STRATEGY": "qstash", "models": MODELS}
QUEUE: Final = "embedding-processor"
VERDICTS: Final = [
    "queue embedding-processor",
    "schedule rowvec-monitor",
    "schedule rowvec-cleanup",
    "schedule rowvec-retry",
]


async def refuse(_: Received) -> web.Response:
    return web.Response(status=489, text="never", headers=NEVER)


async def answer(request: Received) -> web.Response:
    """A daemon that is well, except that it takes no message."""
    if request.target.startswith("/api/other"):
        return web.Response(status=489, text="never\x1b[2J\nsay  never", headers=NEVER)
    # Whenever the tests run, a schedule's time may come: its tick is no dead letter to be counted.
    well = request.target == "/startupz" or "upstash-schedule-id" in request.headers
    return web.Response(text="ok") if well else await refuse(request)


class Stage:
    """A service, a daemon's public address, and a database."""

    def __init__(self, qstash: LocalQStash, receiver: Receiver, client: QStashClient, dsn: str) -> None:
        self.qstash = qstash
        self.receiver = receiver
        self.client = client
        self.dsn = dsn

    @property
    def settings(self) -> dict[str, str]:
        return {
            "QSTASH_URL": self.qstash.url,
            "QSTASH_TOKEN": self.qstash.token,
            "QSTASH_CURRENT_SIGNING_KEY": self.qstash.keys.current,
            "QSTASH_NEXT_SIGNING_KEY": self.qstash.keys.next,
            "SITE_URL": self.receiver.root,
            "ROWVEC_DEVELOPMENT": "true",
            "ROWVEC_MODEL_E5_SMALL_PROVIDER": "off",
        }

    async def run(self, *arguments: str, **changes: str) -> Answer:
        return await commands.rowvec(self.dsn, *arguments, **{**self.settings, **changes})

    async def setup(self, **changes: str) -> dict[str, str]:
        answer = await self.run("qstash", "setup", "--json", **changes)
        assert (answer.code, answer.err) == (0, "")
        return {thing["about"]: thing["verdict"] for thing in answer.json}

    async def die(self, path: str, body: str) -> str:
        """Have a message die; return its id among the dead letters."""
        before = {letter.id for letter in (await self.client.dead_letters())[0]}
        await self.client.publish([Outgoing(self.receiver.root + path, body)])

        async def dead() -> bool:
            return len((await self.client.dead_letters())[0]) > len(before)

        await eventually(dead)
        (new,) = {letter.id for letter in (await self.client.dead_letters())[0]} - before
        return new


@pytest.fixture
async def stage(dsn: str) -> AsyncIterator[Stage]:
    async with (
        local_qstash() as qstash,
        receiving(answer) as receiver,
        connected(qstash.token, qstash.url) as client,
    ):
        yield Stage(qstash, receiver, client, dsn)


async def schedule(stage: Stage, id_: str) -> Schedule:
    found = await stage.client.schedule(id_)
    assert found is not None
    return found


async def test_setup_twice_changes_nothing(stage: Stage) -> None:
    assert await stage.setup() == dict.fromkeys(VERDICTS, "made")
    before = await stage.client.schedules()
    assert await stage.setup() == dict.fromkeys(VERDICTS, "left")
    assert await stage.client.schedules() == before
    queue = await stage.client.queue(QUEUE)
    assert queue is not None
    assert (queue.parallelism, queue.paused) == (2, False)
    monitor = await schedule(stage, "rowvec-monitor")
    assert (monitor.cron, monitor.method, monitor.retries) == ("CRON_TZ=UTC */5 * * * *", "POST", 3)
    assert monitor.destination == f"{stage.receiver.root}/api/embeddings/queue-monitor"
    bodies = [(await schedule(stage, id_)).body for id_ in ("rowvec-cleanup", "rowvec-retry")]
    assert [json.loads(body) for body in bodies] == [{"task": "cleanup"}, {"task": "retry_failed"}]


async def test_what_was_paused_stays_paused_and_a_changed_time_is_mended(stage: Stage) -> None:
    await stage.setup()
    await stage.client.pause_schedule("rowvec-monitor")
    assert (await stage.run("qstash", "pause")).out == f"The queue {QUEUE} is paused.\n"
    found = await stage.setup(
        ROWVEC_MONITOR_CRON="*/7 * * * *", ROWVEC_CLEANUP_CRON="0 5 * * *", QSTASH_CONCURRENCY="1"
    )
    assert list(found.values()) == ["paused", "paused", "mended", "left"]
    monitor, cleanup = await schedule(stage, "rowvec-monitor"), await schedule(stage, "rowvec-cleanup")
    assert (monitor.paused, monitor.cron) == (True, "CRON_TZ=UTC */5 * * * *")
    assert (cleanup.paused, cleanup.cron) == (False, "CRON_TZ=UTC 0 5 * * *")
    queue = await stage.client.queue(QUEUE)
    assert queue is not None
    assert (queue.parallelism, queue.paused) == (2, True)


async def test_the_queue_is_paused_and_resumed(stage: Stage) -> None:
    absent = await stage.run("qstash", "pause")
    assert (absent.code, absent.out) == (2, "")
    assert "`rowvec qstash setup` makes it" in absent.err
    await stage.setup()
    states = []
    for command in ("pause", "pause", "resume", "resume"):
        told = (await stage.run("qstash", command, "--json")).json
        queue = await stage.client.queue(QUEUE)
        assert queue is not None
        states.append((told["queue"], told["changed"], told["paused"], queue.paused))
    paused = [(QUEUE, True, True, True), (QUEUE, False, True, True)]
    assert states == [*paused, (QUEUE, True, False, False), (QUEUE, False, False, False)]


async def test_status_shows_how_things_stand(stage: Stage, app: asyncpg.Connection) -> None:
    bare = (await stage.run("qstash", "status", "--json")).json
    assert bare["queue"] == {"name": QUEUE, "exists": False}
    assert [(row["id"], row["state"]) for row in bare["schedules"]] == [
        ("rowvec-monitor", "absent"),
        ("rowvec-cleanup", "absent"),
        ("rowvec-retry", "absent"),
    ]
    await stage.setup()
    await stage.client.pause_schedule("rowvec-cleanup")
    await stage.die("/api/embeddings/process", "{}")
    await app.execute("INSERT INTO rowvec.sent SELECT (now() AT TIME ZONE 'UTC')::date, 3, 40")
    await app.execute("INSERT INTO rowvec.task VALUES ('monitor', '2026-01-01Z', NULL)")
    await app.execute(
        """
        INSERT INTO rowvec.daemon (id, host, pid, version, beat_at, carrier)
        VALUES (gen_random_uuid(), 'web1', 7, '1', now() + interval '1 hour',
                '{"strategy": "qstash", "state": "open", "why": "Used up.", "since": "2026-01-01T00:00:00Z"}')
        """
    )
    found = (await stage.run("qstash", "status", "--json", ROWVEC_RETRY_CRON="0 4 * * 0")).json
    assert found["queue"] == {"name": QUEUE, "parallelism": 2, "paused": False, "lag": 0, "exists": True}
    assert (found["dead_letters"], found["sent_today"]) == (1, {"messages": 3, "items": 40})
    assert [row["state"] for row in found["schedules"]] == [
        "active",
        "paused",
        "differs: cron 'CRON_TZ=UTC 0 3 * * 0', should be 'CRON_TZ=UTC 0 4 * * 0'",
    ]
    assert found["schedules"][0]["next_at"]
    assert [(row["name"], row["running"]) for row in found["tasks"]] == [("monitor", False)]
    assert [(row["pid"], row["state"], row["why"]) for row in found["daemons"]] == [(7, "open", "Used up.")]
    plain = (await stage.run("qstash", "status")).out
    assert f"Queue {QUEUE}: delivering, parallelism 2, waiting messages 0." in plain
    assert "Sent today: 3 messages with 40 items." in plain
    assert "Dead letters for pages of rowvec: 1." in plain


# Dead letters.


async def test_dead_letters_are_listed_retried_and_deleted(stage: Stage) -> None:
    message = uuid.uuid4()
    body = json.dumps({"dispatch": str(message), "items": [{"contentType": "course", "contentId": "7"}]})
    first = await stage.die("/api/embeddings/process", body)
    second = await stage.die("/api/embeddings/process", "?")
    rows = {row["id"]: row for row in (await stage.run("qstash", "dead-letters", "list", "--json")).json}
    assert rows.keys() == {first, second}
    assert (rows[first]["dispatch"], rows[first]["rows"]) == (
        str(message),
        [{"content_type": "course", "content_id": "7"}],
    )
    assert (rows[first]["status"], rows[first]["answer"]) == (489, "never")
    assert (rows[second]["dispatch"], rows[second]["rows"]) == (None, [])

    gone = await stage.run("qstash", "dead-letters", "delete", second, "1-1", "--json")
    assert (gone.code, gone.json) == (1, {"deleted": [second], "missing": ["1-1"]})
    attempts = len(stage.receiver.requests)
    again = await stage.run("qstash", "dead-letters", "retry", first, "--json")
    assert (again.code, again.json) == (0, {"retried": [first], "missing": []})

    async def tried() -> bool:
        return len(stage.receiver.requests) > attempts

    await eventually(tried)


async def test_never_all_of_them_by_mistake(stage: Stage) -> None:
    await stage.die("/api/embeddings/process", "?")
    refusals = {
        ("delete",): "Say which messages",
        ("delete", ""): "An id is empty",
        ("retry", " "): "An id is empty",
        ("delete", "1-1", "--all"): "Say which messages",
        ("delete", "--all"): "Add --yes",
    }
    answers = await asyncio.gather(*(stage.run("qstash", "dead-letters", *arguments) for arguments in refusals))
    for said, answer in zip(refusals.values(), answers, strict=True):
        assert (answer.code, answer.out) == (2, "")
        assert said in answer.err
    assert len((await stage.client.dead_letters())[0]) == 1


async def test_all_are_those_that_were_meant_for_us(stage: Stage) -> None:
    mine = await stage.die("/api/embeddings/process", "?")
    answer = await stage.run(
        "qstash", "dead-letters", "delete", "--all", "--yes", "--json", SITE_URL="https://else.example"
    )
    assert answer.json == {"deleted": [], "missing": []}
    answer = await stage.run("qstash", "dead-letters", "delete", "--all", "--yes", "--json")
    assert answer.json == {"deleted": [mine], "missing": []}
    assert (await stage.run("qstash", "dead-letters", "list")).out == "There are no dead letters.\n"


async def test_a_dead_message_leads_back_to_its_rows(stage: Stage, app: asyncpg.Connection) -> None:
    message = uuid.uuid4()
    await app.execute(
        """
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation, message_id,
                                            scheduled_at)
        SELECT 'course', n::text, 'first', 3, 1, $1, now() + interval '1 hour' FROM generate_series(1, 2) n
        """,
        message,
    )
    items = [{"contentType": "course", "contentId": id_, "priority": 3} for id_ in ("1", "2", "gone")]
    await stage.die("/api/embeddings/process", json.dumps({"dispatch": str(message), "items": items}))
    await stage.die("/api/embeddings/maintenance", '{"task": "cleanup"}')
    riddle = await stage.die("/api/embeddings/process", "?")
    database = Database(stage.dsn)
    await database.open()
    try:
        states = PostgresRowStates(database)
        staleness, board = Staleness(PostgresRowReader(database), states, 64), DueBoard(time.monotonic)
        undelivered = UndeliveredRows(Deliveries({}, states, staleness, board, Bell(), 1, 1.0), states, Bell())
        drained = await DeadLetters(stage.client, undelivered, read_asked, stage.receiver.root).drain()
    finally:
        await database.close()
    assert drained == {"dead_letters": 2}
    assert [letter.id for letter in (await stage.client.dead_letters())[0]] == [riddle]
    due = await app.fetch(
        "SELECT content_id FROM rowvec.embedding_queue WHERE message_id = $1 AND scheduled_at <= now()", message
    )
    assert sorted(row["content_id"] for row in due) == ["1", "2"]


async def test_a_daemon_leads_back_what_the_application_has_sent_itself(stage: Stage, app: asyncpg.Connection) -> None:
    await app.execute("""
        CREATE TABLE word (id text PRIMARY KEY, body text);
        SELECT rowvec.watch('word', 'word', ARRAY['body'], 2);
        INSERT INTO word VALUES ('', 'none'), ('a', 'one');
        INSERT INTO rowvec.task VALUES ('monitor', now() - interval '1 day');
        DELETE FROM rowvec.change;
        UPDATE rowvec.source SET swept = true;
        INSERT INTO rowvec.backfill (content_type, model, done) SELECT content_type, model, true FROM rowvec.unfilled;
    """)
    items = [{"contentType": "word", "contentId": id_} for id_ in ("", "a")]
    await stage.die("/api/embeddings/process-webhook", json.dumps(items[0]))
    await stage.die("/api/embeddings/process-webhook", json.dumps([items[1], {"contentType": "pets", "contentId": 7}]))
    pets = await stage.die("/api/embeddings/process-webhook", '{"contentType": "pets", "contentId": "7"}')
    theirs = await stage.die("/api/other", json.dumps(items[0]))

    async def embedded() -> bool:
        rows = await app.fetch("SELECT chunk_text FROM rowvec.vector_first ORDER BY 1")
        letters = (await stage.client.dead_letters())[0]
        return ([row["chunk_text"] for row in rows], {letter.id for letter in letters}) == (
            ["body: none", "body: one"],
            {pets, theirs},
        )

    async with running(stage.dsn, GatedEmbedder(), **{**stage.settings, **DAEMON}):
        await eventually(embedded)
    shown = {row["id"]: row for row in (await stage.run("qstash", "dead-letters", "list", "--json")).json}
    assert (shown[pets]["rows"], shown[pets]["note"]) == ([{"content_type": "pets", "content_id": "7"}], "")
    assert (shown[theirs]["rows"], shown[theirs]["note"]) == ([], "It was for no page of rowvec here.")


async def test_what_is_shown_of_letters_tells_no_secrets_and_keeps_to_its_line(stage: Stage) -> None:
    headers = {"Upstash-Forward-X-Api-Key": "hush-1", "Upstash-Label": "hush-2"}
    address = stage.receiver.root.replace("http://", "http://user:hush-3@") + "/api/other?key=hush-4"
    before = len((await stage.client.dead_letters())[0])
    await stage.client.publish([Outgoing(address, '{"password": "hush-5"}', headers)])

    async def dead() -> bool:
        return len((await stage.client.dead_letters())[0]) > before

    await eventually(dead)
    for flags in ([], ["--json"]):
        answer = await stage.run("qstash", "dead-letters", "list", *flags)
        assert (answer.code, answer.err, "/api/other?..." in answer.out) == (0, "", True)
        assert "hush" not in answer.out
        assert "\x1b" not in answer.out
        assert "never [2J say never" in answer.out


# What stands in the way.


async def test_without_a_token_every_command_says_what_to_set(stage: Stage) -> None:
    letters = [["dead-letters", "list"], ["dead-letters", "retry", "1-0"]]
    wanted = [["setup"], ["status"], ["pause"], ["resume"], *letters]
    for answer in await asyncio.gather(*(stage.run("qstash", *command, QSTASH_TOKEN="") for command in wanted)):
        assert (answer.code, answer.out) == (78, "")
        assert "Set QSTASH_TOKEN" in answer.err


async def test_a_token_that_is_not_known_is_told_as_such(stage: Stage) -> None:
    answer = await stage.run("qstash", "setup", QSTASH_TOKEN="wrong")  # noqa: S106 - just so
    assert (answer.code, answer.out) == (78, "")
    assert "QSTASH_TOKEN" in answer.err


async def test_without_an_address_to_call_it_says_what_to_set(stage: Stage) -> None:
    answer = await stage.run("qstash", "setup", SITE_URL="")
    assert (answer.code, answer.out) == (78, "")
    assert "Set SITE_URL" in answer.err


async def test_a_service_that_is_away_is_to_be_tried_later(stage: Stage) -> None:
    answer = await stage.run("qstash", "status", QSTASH_URL="http://127.0.0.1:1")
    assert (answer.code, answer.out) == (75, "")
    assert "QStash can't be reached" in answer.err


# The doctor.


async def complaints(stage: Stage, **changes: str) -> dict[str, dict[str, Any]]:
    found = (await stage.run("doctor", "--json", **changes)).json
    return {f["about"]: f for f in found["findings"] if f["about"].startswith("qstash") and f["level"] != "ok"}


async def test_all_is_well_with_qstash(stage: Stage) -> None:
    await stage.setup()
    found = (await stage.run("doctor", "--json", EMBEDDING_QUEUE_STRATEGY="qstash")).json
    looked = {f["about"]: f["level"] for f in found["findings"] if f["about"].startswith("qstash")}
    assert looked == dict.fromkeys(
        [
            "qstash settings",
            "qstash clock",
            "qstash address",
            "qstash keys",
            f"qstash queue {QUEUE}",
            "qstash schedules",
            "qstash dead letters",
        ],
        "ok",
    )


async def test_who_does_not_use_qstash_is_not_bothered(stage: Stage) -> None:
    assert await complaints(stage, EMBEDDING_QUEUE_STRATEGY="database") == {}
    unset = dict.fromkeys(["QSTASH_TOKEN", "QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY"], "")
    assert await complaints(stage, EMBEDDING_QUEUE_STRATEGY="auto", **unset) == {}


async def test_the_doctor_names_what_lacks(stage: Stage) -> None:
    found = await complaints(stage)
    assert found[f"qstash queue {QUEUE}"]["message"].startswith("There is no such queue")
    ids = ["rowvec-monitor", "rowvec-cleanup", "rowvec-retry"]
    assert all(found[f"qstash schedule {id_}"]["message"].startswith("It is not there.") for id_ in ids)
    assert {f["level"] for f in found.values()} == {"warning"}
    assert {f["hint"] for f in found.values()} == {"Run `rowvec qstash setup`."}


async def test_the_doctor_names_what_is_paused_or_differs_and_dead_letters(stage: Stage) -> None:
    await stage.setup()
    await stage.client.pause_schedule("rowvec-monitor")
    await stage.die("/api/embeddings/process", "?")
    found = await complaints(stage, ROWVEC_RETRY_CRON="0 4 * * 0", QSTASH_CONCURRENCY="1")
    assert {about: f["message"] for about, f in found.items()} == {
        f"qstash queue {QUEUE}": "It differs: parallelism 2, should be 1.",
        "qstash schedule rowvec-monitor": "It is paused. The daemons' own clock does what it would wake them for.",
        "qstash schedule rowvec-retry": "It differs: cron 'CRON_TZ=UTC 0 3 * * 0', should be 'CRON_TZ=UTC 0 4 * * 0'.",
        "qstash dead letters": "Messages that QStash could not deliver: 1. A daemon leads back what it can read.",
    }
    await stage.client.pause_queue(QUEUE)
    assert (await complaints(stage))[f"qstash queue {QUEUE}"]["message"].startswith("It is paused")


@pytest.mark.parametrize(("strategy", "level", "code"), [("auto", "warning", 0), ("qstash", "problem", 3)])
async def test_the_doctor_names_a_missing_token(stage: Stage, strategy: str, level: str, code: int) -> None:
    answer = await stage.run("doctor", "--json", EMBEDDING_QUEUE_STRATEGY=strategy, QSTASH_TOKEN="")
    assert answer.code == code
    (finding,) = [f for f in answer.json["findings"] if f["about"].startswith("qstash")]
    assert (finding["level"], finding["about"]) == (level, "qstash token")
    assert "Set QSTASH_TOKEN" in finding["hint"]


async def test_the_doctor_names_missing_and_wrong_keys(stage: Stage) -> None:
    await stage.setup()
    missing = await complaints(stage, QSTASH_NEXT_SIGNING_KEY="")
    assert "QSTASH_NEXT_SIGNING_KEY missing" in missing["qstash settings"]["message"]
    wrong = await complaints(stage, QSTASH_CURRENT_SIGNING_KEY="sig_x", QSTASH_NEXT_SIGNING_KEY="sig_y")
    assert (wrong["qstash keys"]["level"], "sig_" in str(wrong)) == ("problem", False)
    rolled = await complaints(
        stage, QSTASH_CURRENT_SIGNING_KEY="sig_x", QSTASH_NEXT_SIGNING_KEY=stage.qstash.keys.current
    )
    assert rolled["qstash keys"]["level"] == "warning"
    current, following = stage.qstash.keys.current, stage.qstash.keys.next
    swapped = await complaints(stage, QSTASH_CURRENT_SIGNING_KEY=following, QSTASH_NEXT_SIGNING_KEY=current)
    assert (swapped["qstash keys"]["level"], "exchanged" in swapped["qstash keys"]["message"]) == ("problem", True)


async def test_the_doctor_names_a_token_that_is_not_known(stage: Stage) -> None:
    found = await complaints(stage, QSTASH_TOKEN="wrong")  # noqa: S106 - just so
    assert found["qstash"]["level"] == "problem"
    assert "token" in found["qstash"]["message"]


async def test_the_doctor_names_a_token_that_can_be_none(stage: Stage) -> None:
    found = await complaints(stage, QSTASH_TOKEN="a b")  # noqa: S106 - just so
    assert (found["qstash token"]["level"], "QSTASH_TOKEN" in found["qstash token"]["message"]) == ("problem", True)


async def test_the_doctor_names_an_address_that_leads_nowhere(stage: Stage) -> None:
    await stage.setup()
    nowhere = await complaints(stage, SITE_URL="http://127.0.0.1:1")
    assert (nowhere["qstash address"]["level"], "can't be reached" in nowhere["qstash address"]["message"]) == (
        "problem",
        True,
    )
    assert "SITE_URL" in nowhere["qstash address"]["hint"]
    elsewhere = await complaints(stage, SITE_URL=f"{stage.receiver.root}/else")
    assert "answers 489, and a daemon would answer 200" in elsewhere["qstash address"]["message"]


async def test_the_doctor_names_a_service_that_is_away(stage: Stage) -> None:
    found = await complaints(stage, QSTASH_URL="http://127.0.0.1:1")
    assert (found["qstash"]["level"], "can't be reached" in found["qstash"]["message"]) == ("warning", True)


async def test_the_doctor_names_a_clock_that_is_skewed(stage: Stage) -> None:
    """The service's clock is said by the header of its answers."""

    async def late(_: Received) -> web.Response:
        return web.Response(headers={"Date": dates[0]})

    dates = ["Thu, 01 Jan 2026 00:00:00 GMT"]
    async with receiving(late) as service:
        found = await complaints(stage, QSTASH_URL=service.root)
        dates[0] = "yesterday"
        assert "qstash clock" not in await complaints(stage, QSTASH_URL=service.root)
    assert found["qstash clock"]["level"] == "problem"
    assert "ahead of that of QStash" in found["qstash clock"]["message"]


async def test_a_daemon_makes_what_is_lacking_when_it_starts(stage: Stage) -> None:
    given = {**stage.settings, "EMBEDDING_QUEUE_STRATEGY": "qstash"}
    models = {"models": {"e5_small": {"provider": "off"}}}

    async def settled() -> bool:
        return len(await stage.client.schedules()) == 3 and await stage.client.queue(QUEUE) is not None

    async with running(stage.dsn, GatedEmbedder(), **given, **models):
        await eventually(settled)
