"""The pages for QStash, without a database: what they let through, and what they answer."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs
from yarl import URL

from clocks import FakeClock
from qstash_signing import CURRENT, NEXT, claims_of, signature, signed
from rowvec.api import server
from rowvec.api import signed as signed_pages
from rowvec.api.answers import Bearer
from rowvec.api.messages import ROWS_MOST
from rowvec.api.operations import Operations
from rowvec.api.qstash import Receiver
from rowvec.api.server import MAX_BODY_BYTES, make_app
from rowvec.api.signed import SignedRequests
from rowvec.domain.errors import DatabaseUnavailableError, StoppingError, TryAgainError
from rowvec.domain.items import Key, Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.messages import Asked, ask_for_batch, ask_for_one
from rowvec.domain.row_states import Delivered, Fingerprint, LaneCount, RowStanding, RowState
from rowvec.domain.tasks import Task
from rowvec.health import Health
from rowvec.qstash.keys import KeyRing
from rowvec.telemetry import Metrics

SITE: Final = "https://app.example.com/base"
TOKEN: Final = "of-the-operators"  # noqa: S105 - the test's own
WEBHOOK: Final = "/api/embeddings/process-webhook"
PROCESS: Final = "/api/embeddings/process"
FAILURE: Final = "/api/qstash/failure"
CALLBACK: Final = "/api/qstash/callback"
MONITOR: Final = "/api/embeddings/queue-monitor"
MAINTENANCE: Final = "/api/embeddings/maintenance"
TRIGGER: Final = "/api/embeddings/trigger"
SIGNED: Final = [WEBHOOK, PROCESS, FAILURE, CALLBACK, MONITOR, MAINTENANCE]
ROW: Final = b'{"contentType": "post", "contentId": "1", "priority": 2}'


class StubDeliverer:
    """See `ports.Deliverer`."""

    def __init__(self) -> None:
        self.asked: list[tuple[Mapping[Key, int | None], bool]] = []
        self.error: Exception | None = None
        self.unknown: frozenset[str] = frozenset()

    async def deliver(self, rows: Mapping[Key, int | None], *, dispatched: bool) -> Delivered:
        self.asked.append((rows, dispatched))
        if self.error:
            raise self.error
        states = {row: RowState.EMBEDDED for row in rows if row.content_type not in self.unknown}
        return Delivered(states, self.unknown)

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> None:
        raise NotImplementedError


class StubUndelivered:
    """See `ports.Undelivered`."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.error: Exception | None = None

    async def lead_back(self, asked: Asked) -> Mapping[Key, str]:
        if self.error:
            raise self.error
        self.asked.append(asked)
        return {row: "Not watched: pets." for row in asked.rows if row.content_type == "pets"}


class StubStates:
    """See `ports.RowStates`: it only counts."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def count(self) -> Mapping[Lane, LaneCount]:
        if self.error:
            raise self.error
        counts = {Lane.STANDARD: LaneCount(100, 70), Lane.BULK: LaneCount(5, 5)}
        return {lane: counts.get(lane, LaneCount()) for lane in Lane}

    async def show(self, rows: Sequence[Key]) -> Mapping[Key, RowStanding]:
        raise NotImplementedError

    async def fingerprints(self, model: str, rows: Sequence[Key]) -> Mapping[Key, Fingerprint]:
        raise NotImplementedError

    async def enqueue(self, rows: Mapping[Key, int | None]) -> None:
        raise NotImplementedError

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> Sequence[Slot]:
        raise NotImplementedError


class StubTasks:
    """See `ports.Tasks`."""

    async def run(self, name: str) -> Mapping[str, int]:
        return {f"{name}_things": 3}

    async def tick(self, task: Task) -> Mapping[str, int] | None:
        return None if task is Task.RETRY_FAILED else {"in_time": 1}


class Served:
    """The pages, and those who stand behind them."""

    def __init__(self, *, keys: bool = True) -> None:
        self.clock = FakeClock()
        self.deliverer = StubDeliverer()
        self.undelivered = StubUndelivered()
        self.states = StubStates()
        self.looks = 0
        self.metrics = Metrics()
        ring = KeyRing(CURRENT, NEXT, None, self.clock) if keys else None
        requests = SignedRequests(SITE, ring, [] if keys else ["QSTASH_CURRENT_SIGNING_KEY", "SITE_URL"], self.metrics)
        operations = Operations(Bearer(TOKEN), requests, self.states, self._look, StubTasks(), batch_items=32)
        receiver = Receiver(requests, self.deliverer, self.undelivered, operations.released)
        self.app = make_app(Health(lambda: 0.0), self.metrics, "1.2.3", [*receiver.routes(), *operations.routes()])
        self.client: TestClient[web.Request, web.Application]

    def _look(self) -> None:
        self.looks += 1

    @property
    def now(self) -> float:
        return self.clock.now().timestamp()

    async def send(
        self, path: str, body: bytes, token: str | None = None, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Send what QStash would: signed for this address and body, unless a test gives another signature."""
        given = {"Upstash-Signature": signature(SITE + path, body, CURRENT, self.now) if token is None else token}
        async with self.client.post(
            URL(path, encoded=True), data=io.BytesIO(body), headers={**given, **headers}
        ) as answer:
            assert answer.headers["Cache-Control"] == "no-store"
            return answer.status, await answer.json(), answer.headers

    async def operate(self, path: str, body: bytes = b"", token: str = TOKEN) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self.client.post(path, data=body, headers=headers) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def serving(*, keys: bool = True) -> AsyncIterator[Served]:
    served = Served(keys=keys)
    async with TestClient(TestServer(served.app)) as served.client:
        yield served


async def test_a_row_is_delivered_and_its_state_answered() -> None:
    async with serving() as served:
        status, body, _ = await served.send(WEBHOOK, ROW)
    assert (status, body) == (200, {"items": [{"contentType": "post", "contentId": "1", "state": "embedded"}]})
    assert served.deliverer.asked == [({Key("post", "1"): 2}, False)]
    assert b'rowvec_deliveries_total{status="200"} 1.0' in served.metrics.render()


async def test_a_list_of_rows_each_once_with_its_most_urgent_priority() -> None:
    rows = [("post", "1", 4), ("post", 2, None), ("post", "1", 3), ("post", "2", 5), ("lesson", "1", None)]
    body = [{"contentType": one, "contentId": id_, "priority": priority} for one, id_, priority in rows]
    async with serving() as served:
        status, answer, _ = await served.send(WEBHOOK, json.dumps(body).encode())
    assert (status, len(answer["items"])) == (200, 3)
    assert served.deliverer.asked == [({Key("post", "1"): 3, Key("post", "2"): 5, Key("lesson", "1"): None}, False)]


@pytest.mark.parametrize("id_", ["", " ", "ü" * 500, '[7, "a"]', '\x01"\\\u2028', "7"])
async def test_what_we_send_we_take(id_: str) -> None:
    rows = {Key("post", id_): 1, Key("post", "other"): 100}
    batch, one = ask_for_batch(uuid4(), rows, 30.0), ask_for_one(uuid4(), Key("post", id_), 1, 30.0)
    async with serving() as served:
        statuses = [(await served.send(message.path, message.body))[0] for message in (batch, one)]
    assert statuses == [200, 200]
    assert served.deliverer.asked == [(rows, True), ({Key("post", id_): 1}, True)]


async def test_a_message_of_ours_says_so() -> None:
    message = str(uuid4())
    row = {"contentType": "post", "contentId": "1"}
    async with serving() as served:
        await served.send(PROCESS, json.dumps({"dispatch": message, "items": [row]}).encode())
        await served.send(WEBHOOK, json.dumps({**row, "dispatch": message}).encode())
        await served.send(PROCESS, json.dumps({"items": [row]}).encode())
        await served.send(WEBHOOK, json.dumps([{**row, "dispatch": message}, row]).encode())
    assert [dispatched for _, dispatched in served.deliverer.asked] == [True, True, False, False]


@pytest.mark.parametrize("body", [b"", b" ", b"{}", b'{"items": []}'])
async def test_a_message_without_rows_has_everything_looked_at(body: bytes) -> None:
    async with serving() as served:
        status, answer, _ = await served.send(PROCESS, body)
    assert (status, answer["queuedCount"], served.looks) == (200, 105, 1)
    assert served.deliverer.asked == []


@pytest.mark.parametrize("path", SIGNED)
@pytest.mark.parametrize(
    "forged",
    [
        lambda url, body, _: signed(claims_of(url, body, None), CURRENT, "none"),
        lambda url, body, now: signed(claims_of(url, body, now), CURRENT, "HS512"),
        lambda url, body, now: signature(url, body, "", now),
        lambda url, body, now: signature(url, body, "sig_of_somebody_else_entirely_32b", now),
        lambda url, body, now: signature(url, body, CURRENT, now - 361),
        lambda url, body, now: signature(url, body, CURRENT, now + 61),
        lambda url, body, now: signature(url + "/", body, CURRENT, now),
        lambda url, body, now: signature(url + "?a=b", body, CURRENT, now),
        lambda url, body, now: signature(url.replace("https", "http"), body, CURRENT, now),
        lambda url, body, now: signature(url.replace("app", "App"), body, CURRENT, now),
        lambda url, body, now: signature(url.replace("/base", ""), body, CURRENT, now),
        lambda url, body, now: signature(url, body + b" ", CURRENT, now),
        lambda url, body, now: signature(url, body[:-1], CURRENT, now),
        lambda url, body, now: signature(url, body, CURRENT, now, iss="Downstash"),
        lambda *_: "",
        lambda *_: "nonsense",
    ],
)
async def test_what_is_not_signed_is_not_read(path: str, forged: Any) -> None:  # noqa: ANN401 - any of these
    async with serving() as served:
        with capture_logs() as logs:
            status, body, headers = await served.send(path, ROW, forged(SITE + path, ROW, served.now))
    assert (status, body) == (401, {"error": "The signature is not accepted."})
    assert "Upstash-NonRetryable-Error" not in headers
    assert [log["event"] for log in logs] == ["message.refused"]
    assert (served.deliverer.asked, served.undelivered.asked, served.looks) == ([], [], 0)


async def test_without_a_signature_or_with_two_it_is_refused() -> None:
    async with serving() as served:
        async with served.client.post(WEBHOOK, data=ROW) as answer:
            assert answer.status == 401
        good = signature(SITE + WEBHOOK, ROW, CURRENT, served.now)
        headers = [("Upstash-Signature", good), ("Upstash-Signature", good)]
        async with served.client.post(WEBHOOK, data=ROW, headers=headers) as answer:
            assert answer.status == 401


async def test_headers_of_a_proxy_say_nothing_about_the_address() -> None:
    elsewhere = {"Host": "evil.example.com", "X-Forwarded-Host": "evil.example.com", "X-Forwarded-Proto": "http",
                 "Forwarded": "host=evil.example.com", "X-Original-URL": "/other"}  # fmt: skip
    async with serving() as served:
        assert (await served.send(WEBHOOK, ROW, **elsewhere))[0] == 200
        for_evil = signature("http://evil.example.com" + WEBHOOK, ROW, CURRENT, served.now)
        assert (await served.send(WEBHOOK, ROW, for_evil, **elsewhere))[0] == 401


@pytest.mark.parametrize("query", ["?a=b", "?a=%2F&b=c+d", "?x=%C3%BC"])
async def test_the_address_is_taken_as_it_stands_in_the_request(query: str) -> None:
    path = WEBHOOK + query
    async with serving() as served:
        status, _, _ = await served.send(path, ROW, signature(SITE + path, ROW, CURRENT, served.now))
        assert status == 200
        assert (await served.send(path, ROW, signature(SITE + path + "1", ROW, CURRENT, served.now)))[0] == 401


async def test_a_replayed_request_is_taken_until_it_expires() -> None:
    async with serving() as served:
        token = signature(SITE + WEBHOOK, ROW, CURRENT, served.now)
        assert [(await served.send(WEBHOOK, ROW, token))[0] for _ in range(2)] == [200, 200]
        await served.clock.pass_by(361)
        assert (await served.send(WEBHOOK, ROW, token))[0] == 401


@pytest.mark.parametrize("path", [WEBHOOK, PROCESS, FAILURE, CALLBACK, MAINTENANCE])
@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff\xfe\x00", b'{"contentType": "\xff"}', b"null", b"1", b'"x"', b"[" * 100_000, b'[{"contentType": 1}]'],
)
async def test_what_can_never_be_read_is_not_sent_again(path: str, body: bytes) -> None:
    async with serving() as served:
        status, answer, headers = await served.send(path, body)
    assert (status, headers["Upstash-NonRetryable-Error"]) == (489, "true")
    assert answer["error"].startswith("It can't be read: ")
    assert served.deliverer.asked == []


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"contentType": "post"},
        {"contentType": "", "contentId": "1"},
        {"contentType": "post", "contentId": "a\0b"},
        {"contentType": "post", "contentId": "x" * 1001},
        {"contentType": "post", "contentId": True},
        {"contentType": "post", "contentId": 1.5},
        {"contentType": "post", "contentId": "\ud800"},
        {"contentType": "post", "contentId": "1", "priority": 0},
        {"contentType": "post", "contentId": "1", "priority": 101},
        {"contentType": "post", "contentId": "1", "priority": "high"},
        {"contentType": "post", "contentId": "1", "dispatch": "mine"},
        [],
        [{"contentType": "post", "contentId": "1"}] * (ROWS_MOST + 1),
    ],
)
async def test_rows_of_another_form_are_not_sent_again(row: object) -> None:
    async with serving() as served:
        status, _, headers = await served.send(WEBHOOK, json.dumps(row).encode())
    assert (status, headers["Upstash-NonRetryable-Error"]) == (489, "true")
    assert served.deliverer.asked == []


async def test_an_unknown_type_is_not_sent_again_but_the_others_are_done() -> None:
    rows = b'[{"contentType": "post", "contentId": "1"}, {"contentType": "pets", "contentId": "1"}]'
    async with serving() as served:
        served.deliverer.unknown = frozenset({"pets"})
        status, body, headers = await served.send(WEBHOOK, rows)
    assert (status, headers["Upstash-NonRetryable-Error"]) == (489, "true")
    assert body["error"] == "Not watched: pets."
    assert [item["contentType"] for item in body["items"]] == ["post"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TryAgainError("Full."), 429),
        (DatabaseUnavailableError("Away."), 503),
        (StoppingError("Ending."), 503),
    ],
)
async def test_what_passes_is_to_be_sent_again(error: Exception, status: int) -> None:
    async with serving() as served:
        served.deliverer.error = error
        found, body, headers = await served.send(WEBHOOK, ROW)
    assert (found, headers["Retry-After"], body) == (status, "5", {"error": str(error)})
    assert "Upstash-NonRetryable-Error" not in headers


async def test_what_is_too_large_is_refused_before_its_signature_is_looked_at() -> None:
    async with serving() as served:
        assert (await served.send(WEBHOOK, b" " * (MAX_BODY_BYTES - len(ROW)) + ROW))[0] == 200
        with capture_logs() as logs:
            status, _, _ = await served.send(WEBHOOK, b"x" * (MAX_BODY_BYTES + 1), "nonsense")
    assert (status, logs) == (413, [])


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_pages, "READ_SECONDS", 0.01)
    async with serving() as served:
        reader, writer = await asyncio.open_connection(served.client.host, served.client.port)
        writer.write(b"POST " + WEBHOOK.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_body_is_verified_as_it_came() -> None:
    served = Served(keys=True)
    packed = gzip.compress(ROW)
    headers = {"Upstash-Signature": signature(SITE + WEBHOOK, packed, CURRENT, served.now), "Content-Encoding": "gzip"}
    async with server.serving(served.app, "127.0.0.1", 0) as address, ClientSession() as session:
        async with session.post(address + WEBHOOK, data=packed, headers=headers) as answer:
            assert answer.status == 489
        unpacked = {**headers, "Upstash-Signature": signature(SITE + WEBHOOK, ROW, CURRENT, served.now)}
        async with session.post(address + WEBHOOK, data=packed, headers=unpacked) as answer:
            assert answer.status == 401
    assert served.deliverer.asked == []


@pytest.mark.parametrize("rest", [b"Content-Length: 5\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
async def test_a_body_that_is_cut_off_is_no_error_of_ours(rest: bytes, caplog: pytest.LogCaptureFixture) -> None:
    served = Served(keys=True)
    async with server.serving(served.app, "127.0.0.1", 0) as address:
        _, writer = await asyncio.open_connection("127.0.0.1", URL(address).port)
        writer.write(f"POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\n".encode() + rest)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        said = b'rowvec_deliveries_total{status="400"} 1.0'
        async with asyncio.timeout(5):
            while said not in served.metrics.render():  # noqa: ASYNC110 - nobody is answered
                await asyncio.sleep(0.01)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("path", SIGNED)
async def test_where_nothing_is_set_it_says_what_is_missing(path: str) -> None:
    async with serving(keys=False) as served:
        status, body, _ = await served.send(path, ROW)
    assert (status, served.deliverer.asked) == (403, [])
    assert body["error"].endswith("Missing: QSTASH_CURRENT_SIGNING_KEY, SITE_URL.")


def encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def failure_of(path: str, source: str | None) -> bytes:
    """What QStash says of a message that it has given up."""
    told = {"status": 500, "sourceMessageId": "msg_1", "url": SITE + path, "createdAt": "yesterday"}
    return json.dumps({**told, "sourceBody": source}).encode()


async def test_a_dead_message_leads_back_to_its_rows() -> None:
    message, row = uuid4(), {"contentType": "post", "contentId": "9"}
    batch = {"dispatch": str(message), "items": [{"contentType": "post", "contentId": str(n)} for n in range(2)]}
    sent: list[tuple[str, object]] = [
        (PROCESS, batch),
        (WEBHOOK, {**row, "dispatch": str(message)}),
        (WEBHOOK, {**row, "priority": 2}),
        (WEBHOOK, [row, {**row, "contentId": ""}]),
        (PROCESS, {"items": [row]}),
    ]
    async with serving() as served:
        for path, body in sent:
            assert (await served.send(FAILURE, failure_of(path, encoded(body))))[0] == 200
            bare = json.dumps({"status": None, "sourceBody": encoded(body)}).encode()
            assert (await served.send(FAILURE, bare))[0] == 200
        # A tick of a schedule has no body.
        assert (await served.send(FAILURE, failure_of(PROCESS, None)))[0] == 200
        assert served.undelivered.asked.pop() == Asked(None, {})
    assert served.undelivered.asked[1::2] == served.undelivered.asked[::2]
    assert served.undelivered.asked[::2] == [
        Asked(message, {Key("post", "0"): None, Key("post", "1"): None}),
        Asked(message, {Key("post", "9"): None}),
        Asked(None, {Key("post", "9"): 2}),
        Asked(None, {Key("post", "9"): None, Key("post", ""): None}),
        Asked(None, {Key("post", "9"): None}),
    ]


async def test_rows_of_a_dead_message_that_have_no_way_back_are_told_of() -> None:
    async with serving() as served:
        with capture_logs() as logs:
            body = failure_of(WEBHOOK, encoded({"contentType": "pets", "contentId": "1"}))
            assert (await served.send(FAILURE, body))[0] == 200
    (lost,) = [line for line in logs if line["event"] == "message.lost"]
    assert (lost["rows"], lost["why"], lost["log_level"]) == (1, "Not watched: pets.", "warning")


async def test_the_death_of_a_message_is_told_again_when_postgres_is_back() -> None:
    async with serving() as served:
        served.undelivered.error = DatabaseUnavailableError("Postgres can't be reached.")
        assert (await served.send(FAILURE, failure_of(WEBHOOK, encoded(json.loads(ROW)))))[0] == 503


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (WEBHOOK, ""),
        (WEBHOOK, "no base64!"),
        (WEBHOOK, encoded([1])),
        (MAINTENANCE, encoded({"task": "cleanup"})),
        ("/api/else", encoded({"contentType": "post", "contentId": "1"})),
    ],
)
async def test_a_dead_message_that_carries_nothing_is_only_noted(path: str, source: str) -> None:
    async with serving() as served:
        with capture_logs() as logs:
            status, _, _ = await served.send(FAILURE, failure_of(path, source))
    assert (status, served.undelivered.asked) == (200, [])
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["message.undelivered"]
    assert [line["why"] for line in logs if line["event"] == "message.carried_nothing"] != [""]


async def test_a_callback_is_noted() -> None:
    async with serving() as served:
        status, _, _ = await served.send(CALLBACK, b'{"status": 200, "sourceMessageId": "msg_1", "header": {}}')
    assert status == 200


async def test_the_monitor_counts_and_the_trigger_has_everything_looked_at() -> None:
    async with serving() as served:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with served.client.get(MONITOR, headers=headers) as answer:
            assert await answer.json() == {"queuedCount": 105, "triggered": False, "batches": 0, "items": 0}
        assert served.looks == 0
        released = {"queuedCount": 105, "triggered": True, "batches": 4, "items": 75}
        assert await served.operate(MONITOR) == (200, released)
        assert (await served.send(MONITOR, b""))[:2] == (200, released)
        assert await served.operate(TRIGGER) == (200, {"triggered": {"immediate": 0, "standard": 70, "bulk": 5}})
        assert served.looks == 3


async def test_what_can_not_be_counted_is_looked_at_all_the_same() -> None:
    async with serving() as served:
        served.states.error = DatabaseUnavailableError("Away.")
        assert (await served.operate(TRIGGER))[0] == 503
        assert (await served.send(MONITOR, b""))[0] == 503
    assert served.looks == 2


async def test_maintenance() -> None:
    body = b'{"task": "cleanup"}'
    async with serving() as served:
        assert await served.operate(MAINTENANCE, body) == (200, {"task": "cleanup", "done": {"cleanup_things": 3}})
        status, answer, _ = await served.send(MAINTENANCE, body)
        assert (status, answer["done"]) == (200, {"in_time": 1})
        status, answer, _ = await served.send(MAINTENANCE, b'{"task": "retry_failed"}')
        assert (status, answer["done"]) == (200, None)
        assert (await served.operate(MAINTENANCE, b'{"task": "rob"}'))[0] == 400
        assert (await served.send(MAINTENANCE, b'{"task": "rob"}'))[0] == 489


@pytest.mark.parametrize("path", [TRIGGER, MONITOR, MAINTENANCE])
async def test_who_bears_no_token_and_no_signature_is_refused(path: str) -> None:
    async with serving() as served:
        status, body = await served.operate(path, b'{"task": "cleanup"}', "another")
    assert (status, served.looks) == (401, 0)
    assert "Authorization: Bearer" in body["error"]


async def test_a_token_does_not_stand_for_a_signature() -> None:
    async with serving() as served:
        assert (await served.operate(WEBHOOK, ROW))[0] == 401
        status, _, _ = await served.send(MONITOR, b"", "nonsense", Authorization=f"Bearer {TOKEN}")
    assert (status, served.looks) == (401, 0)
