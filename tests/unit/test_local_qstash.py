"""How the local QStash delivers: in order, again, once, later, and who is told of it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from aiohttp import web

from local_qstash import (
    FREE,
    Caller,
    LocalQStash,
    Received,
    Receiver,
    calling,
    local_qstash,
    receiving,
    within,
)

DAY = 86400.0


@dataclass(frozen=True)
class Stage:
    """A local QStash whose time stands nearly still, a receiver and a caller."""

    qstash: LocalQStash
    hook: Receiver
    caller: Caller

    async def reach(self, what: str, count: int = 1) -> None:
        """Wait until something was counted so often."""
        await within(self.qstash.until(lambda: self.qstash.counts[what] >= count))

    async def rests(self, count: int = 1) -> None:
        """Wait until a message waits to be tried again, for the so-manieth time."""
        await within(self.qstash.until(lambda: self.qstash.noted("RETRY") >= count))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with local_qstash() as qstash, receiving() as hook, calling(qstash) as caller:
        yield Stage(qstash, hook, caller)


def answering(*statuses: int, **headers: str) -> Callable[[Received], Any]:
    """Return what answers with these, and with the last of them from then on."""
    left = list(statuses)

    async def answer(_: Received) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=left.pop(0) if len(left) > 1 else left[0], headers=named)

    return answer


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("{root}/a?b=c", "/a?b=c"),
        ("{root}//a/../b//", "//a/../b//"),
        ("{root}/a%20b?c=%2F&d", "/a%20b?c=%2F&d"),
        ("{quoted}%2Fa%3Fb%3Dc", "/a?b=c"),
        ("{root}/a?upstash-retries=0&b=c&qstash_token=x&Upstash-Label=l&d=", "/a?b=c&d="),
        ("{root}/a?upstash-method=PUT", "/a"),
    ],
)
async def test_a_destination_is_taken_as_it_was_sent(stage: Stage, path: str, target: str) -> None:
    quoted = stage.hook.root.replace(":", "%3A").replace("/", "%2F")
    await stage.caller.publish(path.format(root=stage.hook.root, quoted=quoted))
    await stage.reach("delivered")
    assert stage.hook.requests[0].target == target
    assert stage.qstash.deliveries[0].url == stage.hook.root + target


async def test_a_destination_that_can_not_be_sent_is_encoded_and_signed_as_published(stage: Stage) -> None:
    url = f"{stage.hook.root}/ü b?c=%2F"
    await stage.caller.call("POST", "/v2/batch", json.dumps([{"destination": url}]))
    await stage.reach("delivered")
    [came] = stage.hook.requests
    assert came.target == "/%C3%BC%20b?c=%2F"
    claims = jwt.decode(came.headers["upstash-signature"], options={"verify_signature": False})
    assert claims["sub"] == url


async def test_nothing_comes_that_was_not_published(stage: Stage) -> None:
    await stage.caller.call("POST", "/v2/batch", json.dumps([{"destination": stage.hook.url, "body": "x"}]))
    await stage.reach("delivered")
    ours = {"upstash-message-id", "upstash-retried", "upstash-signature", "upstash-region", "upstash-caller-ip"}
    assert set(stage.hook.requests[0].headers) == ours | {"host", "user-agent", "accept-encoding", "content-length"}


async def test_options_may_be_parameters(stage: Stage) -> None:
    name = await stage.caller.publish(f"{stage.hook.url}?upstash-delay=1h&upstash-retries=1&upstash-method=PUT")
    told = await stage.caller.call("GET", f"/v2/messages/{name}")
    assert (told.json["method"], told.json["maxRetries"]) == ("PUT", 1)
    assert told.json["notBefore"] - told.json["createdAt"] == 3_600_000
    assert told.json["url"] == stage.hook.url


async def test_the_token_may_be_a_parameter(stage: Stage) -> None:
    token = stage.qstash.token
    assert (await stage.caller.call("GET", f"/v2/queues?qstash_token={token}", Authorization="")).status == 200
    assert (await stage.caller.call("GET", "/v2/queues?qstash_token=x", Authorization="")).status == 401
    assert (await stage.caller.call("GET", "/v2/queues", Authorization="Bearer ü")).status == 401


@pytest.mark.parametrize(
    ("destination", "words"),
    [("host/path", "invalid scheme"), ("ftp://host/", "invalid scheme"), ("https:///x", "no host"), ("x", "scheme")],
)
async def test_what_is_no_destination(stage: Stage, destination: str, words: str) -> None:
    told = await stage.caller.call("POST", f"/v2/publish/{destination}")
    assert told.status == 400
    assert words in told.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("POST", "/v2/publish/http://127.0.0.1:1/x", "", {"upstash_retries": "9" * 5000}),
        ("POST", "/v2/publish/http://127.0.0.1:1/x", "", {"upstash_not_before": "9" * 400}),
        ("POST", "/v2/batch", '[{"destination": "http://[::1"}]', {}),
        ("POST", "/v2/queues", '{"queueName": "line", "parallelism": true}', {}),
        ("DELETE", "/v2/messages", '{"messageIds": 7}', {}),
        ("DELETE", "/v2/dlq", '{"dlqIds": [7]}', {}),
        ("GET", f"/v2/dlq?cursor={'9' * 5000}-0", "", {}),
        ("GET", f"/v2/logs?cursor={'9' * 5000}", "", {}),
    ],
)
async def test_what_makes_no_sense_is_refused(
    stage: Stage, method: str, path: str, body: str, headers: dict[str, str]
) -> None:
    told = await stage.caller.call(method, path, body, **headers)
    assert (told.status, list(told.json)) == (400, ["error"])


async def test_an_error_is_json_everywhere(stage: Stage) -> None:
    for method, path, status in (("GET", "/v2/nothing", 404), ("PUT", "/v2/batch", 405), ("GET", "/v2/dlq?x=y", 400)):
        told = await stage.caller.call(method, path)
        assert (told.status, list(told.json)) == (status, ["error"])


async def test_each_attempt_is_signed_anew_and_counted(stage: Stage) -> None:
    stage.hook.answer = answering(500, 200)
    await stage.caller.publish(stage.hook.url, "x")
    await stage.rests()
    stage.qstash.clock.advance(13)
    await stage.reach("delivered")
    first, second = stage.hook.requests
    assert [one.headers["upstash-retried"] for one in (first, second)] == ["0", "1"]
    assert first.headers["upstash-message-id"] == second.headers["upstash-message-id"]
    assert first.headers["upstash-signature"] != second.headers["upstash-signature"]


async def test_the_delays_of_the_documentation_and_then_the_dead_letters(stage: Stage) -> None:
    stage.hook.answer = answering(503)
    name = await stage.caller.publish(stage.hook.url, "x")
    for number, seconds in enumerate((12.19, 148.5, 1808.1), 1):
        await stage.rests(number)
        stage.qstash.clock.advance(seconds - 1)
        assert stage.qstash.counts["retried"] == number - 1
        stage.qstash.clock.advance(1.1)
        await stage.reach("retried", number)
    await stage.reach("failed")
    letters = (await stage.caller.call("GET", "/v2/dlq")).json
    assert [(one["messageId"], one["responseStatus"], one["body"]) for one in letters["messages"]] == [(name, 503, "x")]
    assert "cursor" not in letters
    assert len(stage.hook.requests) == 4
    assert (await stage.caller.call("GET", "/counts")).json["today"] == 4


async def test_a_receiver_says_when_to_come_again(stage: Stage) -> None:
    stage.hook.answer = answering(429, 200, Retry_After="40")
    await stage.caller.publish(stage.hook.url, upstash_retry_delay="1000")
    await stage.rests()
    event = next(event for event in stage.qstash.events if event.step == "RETRY")
    assert event.next_at is not None
    assert event.next_at - event.at == pytest.approx(40, abs=1)


async def test_489_with_its_header_is_final_and_a_redirect_is_a_failure(stage: Stage) -> None:
    stage.hook.answer = answering(489, Upstash_NonRetryable_Error="true")
    await stage.caller.publish(stage.hook.url)
    await stage.reach("failed")
    stage.hook.answer = answering(302, Location="/elsewhere")
    await stage.caller.publish(stage.hook.url, upstash_retries="0")
    await stage.reach("failed", 2)
    assert [one.target for one in stage.hook.requests] == ["/hook", "/hook"]
    stage.hook.answer = answering(489)
    await stage.caller.publish(stage.hook.url)
    await stage.rests()


async def test_a_receiver_that_is_not_there_or_too_slow_has_no_status(stage: Stage) -> None:
    asked = asyncio.Event()

    async def hang(_: Received) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    stage.hook.answer = hang
    await stage.caller.publish(stage.hook.url, upstash_timeout="30s", upstash_retries="0")
    await within(asked.wait())
    stage.qstash.clock.advance(29)
    assert stage.qstash.counts["failed"] == 0
    stage.qstash.clock.advance(2)
    await stage.reach("failed")
    await stage.caller.publish("http://127.0.0.1:9/", upstash_retries="0")
    await stage.reach("failed", 2)
    letters = (await stage.caller.call("GET", "/v2/dlq")).json["messages"]
    assert ["responseStatus" in letter for letter in letters] == [False, False]
    errors = [delivery.answer.error for delivery in stage.qstash.deliveries]
    assert errors[0] == "no answer within 30 s"
    assert "9" in errors[1]


async def test_a_message_comes_not_before_its_time(stage: Stage) -> None:
    moment = int(stage.qstash.clock.now()) + 1000
    await stage.caller.publish(stage.hook.url, "at", upstash_not_before=str(moment), upstash_delay="5s")
    await stage.caller.publish(stage.hook.url, "after", upstash_delay="5s")
    stage.qstash.clock.advance(6)
    await stage.reach("delivered")
    stage.qstash.clock.advance(1000)
    await stage.reach("delivered", 2)
    assert stage.hook.bodies == ["after", "at"]


async def test_the_head_of_a_queue_holds_it_through_its_retries(stage: Stage) -> None:
    stage.hook.answer = answering(500, 200)
    await stage.caller.enqueue("line", stage.hook.url, "a", "b", "c")
    await stage.rests()
    assert (await stage.caller.call("GET", "/v2/queues/line")).json["lag"] == 3
    assert stage.hook.bodies == ["a"]
    stage.qstash.clock.advance(13)
    await stage.reach("delivered", 3)
    assert stage.hook.bodies == ["a", "a", "b", "c"]


async def test_the_head_of_a_queue_holds_it_until_its_callbacks_are_through(stage: Stage) -> None:
    told, let_go = asyncio.Event(), asyncio.Event()

    async def answer(request: Received) -> web.Response:
        if request.target == "/told":
            told.set()
            await let_go.wait()
        return web.Response()

    stage.hook.answer = answer
    await stage.caller.enqueue("line", stage.hook.url, "a", upstash_callback=f"{stage.hook.root}/told")
    await stage.caller.enqueue("line", stage.hook.url, "b")
    await within(told.wait())
    assert (await stage.caller.call("GET", "/v2/queues/line")).json["lag"] == 2
    assert stage.qstash.noted("ACTIVE") == 2
    let_go.set()
    await stage.reach("delivered", 3)
    assert stage.hook.bodies[-1] == "b"


async def test_a_queue_carries_as_many_at_a_time_as_it_is_set_to(stage: Stage) -> None:
    at_once, most, let_go = 0, 0, asyncio.Event()

    async def answer(_: Received) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 3:
            let_go.set()
        await let_go.wait()
        at_once -= 1
        return web.Response()

    stage.hook.answer = answer
    await stage.caller.call("PUT", "/v2/queues/", json.dumps({"queueName": "line", "parallelism": 3}))
    await stage.caller.enqueue("line", stage.hook.url, *"abcdefg")
    await stage.reach("delivered", 7)
    assert most == 3


async def test_a_paused_queue_keeps_what_waits_and_an_upsert_changes_only_what_it_names(stage: Stage) -> None:
    await stage.caller.call("POST", "/v2/queues", json.dumps({"queueName": "line", "paused": True}))
    await stage.caller.enqueue("line", stage.hook.url, "a")
    await stage.caller.call("POST", "/v2/queues", json.dumps({"queueName": "line", "parallelism": 2}))
    shown = (await stage.caller.call("GET", "/v2/queues/line")).json
    assert (shown["paused"], shown["parallelism"], shown["lag"]) == (True, 2, 1)
    await stage.caller.call("POST", "/v2/queues/line/resume")
    await stage.reach("delivered")


async def test_a_cancelled_message_leaves_its_place_in_the_queue(stage: Stage) -> None:
    stage.hook.answer = answering(500)
    head, waiting = await stage.caller.enqueue("line", stage.hook.url, "a", "b")
    await stage.rests()
    for name in (waiting, head):
        assert (await stage.caller.call("DELETE", f"/v2/messages/{name}")).json == {"cancelled": 1}
    stage.hook.answer = answering(200)
    await stage.caller.enqueue("line", stage.hook.url, "c")
    await stage.reach("delivered")
    assert stage.hook.bodies == ["a", "c"]
    assert stage.qstash.counts["canceled"] == 2


async def test_a_deleted_queue_takes_its_messages_along(stage: Stage) -> None:
    await stage.caller.call("POST", "/v2/queues", json.dumps({"queueName": "line", "paused": True}))
    await stage.caller.enqueue("line", stage.hook.url, "a")
    assert (await stage.caller.call("DELETE", "/v2/queues/line")).status == 200
    assert stage.qstash.counts["canceled"] == 1


@pytest.mark.parametrize("body", ['{"queueName": "a b"}', '{"queueName": "a", "parallelism": 0}', "{}", "[]", "{"])
async def test_what_is_no_queue(stage: Stage, body: str) -> None:
    assert (await stage.caller.call("POST", "/v2/queues", body)).status == 400


async def test_messages_are_cancelled_by_filters(stage: Stage) -> None:
    async def publish(path: str, label: str) -> None:
        await stage.caller.publish(stage.hook.root + path, upstash_label=label, upstash_delay="1h")

    for path, label in (("/a", "x"), ("/a", "y"), ("/b", "x, z"), ("/b", "y"), ("/c", "w")):
        await publish(path, label)

    async def cancel(query: str) -> int:
        return int((await stage.caller.call("DELETE", f"/v2/messages?{query}")).json["cancelled"])

    assert await cancel("label=z&path=/a") == 0
    assert await cancel("label=z&label=nothing&path=/b") == 1
    assert await cancel("label=x,y&path=/a&count=1") == 1
    assert await cancel("toDate=1") == 0
    assert await cancel(f"host={stage.hook.root.removeprefix('http://')}&path=/b") == 1
    assert (await stage.caller.call("DELETE", "/v2/messages?colour=red")).status == 400
    assert (await stage.caller.call("DELETE", "/v2/messages", '{"messageIds": []}')).json == {"cancelled": 2}


async def test_a_message_of_a_known_id_is_not_sent_again_for_ten_minutes(stage: Stage) -> None:
    name = await stage.caller.publish(stage.hook.url, "a", upstash_deduplication_id="d-1")
    path = f"/v2/publish/{stage.hook.url}"
    told = await stage.caller.call("POST", path, "b", upstash_deduplication_id="d-1")
    assert (told.status, told.json) == (202, {"messageId": name, "deduplicated": True})
    await stage.reach("delivered")
    stage.qstash.clock.advance(599)
    assert (await stage.caller.call("POST", path, "b", upstash_deduplication_id="d-1")).status == 202
    stage.qstash.clock.advance(2)
    assert (await stage.caller.call("POST", path, "c", upstash_deduplication_id="d-1")).status == 200
    await stage.reach("delivered", 2)
    assert stage.hook.bodies == ["a", "c"]
    told = await stage.caller.call("POST", path, upstash_deduplication_id="a:b")
    assert (told.status, told.json) == (400, {"error": "DeduplicationId cannot contain ':'"})


async def test_a_message_of_known_content_is_not_sent_again(stage: Stage) -> None:
    async def publish(body: str, **headers: str) -> int:
        headers["upstash_content_based_deduplication"] = "True"
        return (await stage.caller.call("POST", f"/v2/publish/{stage.hook.url}", body, **headers)).status

    assert [await publish("a"), await publish("a"), await publish("b")] == [200, 202, 200]
    assert [await publish("a", content_type="x/y"), await publish("a", upstash_forward_x="1")] == [200, 200]


async def test_callbacks_tell_of_each_attempt_and_of_the_end(stage: Stage) -> None:
    async def answer(request: Received) -> web.Response:
        return web.Response(status=500 if request.target == "/hook" else 200, text="why")

    stage.hook.answer = answer
    name = await stage.caller.publish(
        stage.hook.url,
        "x",
        upstash_retries="1",
        upstash_callback=f"{stage.hook.root}/told",
        upstash_callback_forward_x_kind="callback",
        upstash_callback_method="PUT",
        upstash_failure_callback=f"{stage.hook.root}/failed",
    )
    await stage.rests()
    stage.qstash.clock.advance(13)
    await stage.reach("delivered", 3)
    told = [one for one in stage.hook.requests if one.target == "/told"]
    [failed] = [one for one in stage.hook.requests if one.target == "/failed"]
    assert [(one.method, one.headers["x-kind"]) for one in told] == [("PUT", "callback")] * 2
    assert sorted(json.loads(one.body)["retried"] for one in told) == [0, 1]
    body = json.loads(failed.body)
    [letter] = (await stage.caller.call("GET", "/v2/dlq")).json["messages"]
    assert (body["status"], body["sourceMessageId"], body["url"]) == (500, name, stage.hook.url)
    assert (body["retried"], body["maxRetries"], body["dlqId"]) == (1, 1, letter["dlqId"])
    assert [base64.b64decode(body[part]) for part in ("body", "sourceBody")] == [b"why", b"x"]
    assert "dlqId" not in json.loads(told[0].body)


async def test_callbacks_are_retried_and_die_as_any_message(stage: Stage) -> None:
    async def answer(request: Received) -> web.Response:
        return web.Response(status=200 if request.target == "/hook" else 500)

    stage.hook.answer = answer
    told = f"{stage.hook.root}/told"
    await stage.caller.publish(stage.hook.url, upstash_callback=told, upstash_callback_retries="0")
    await stage.reach("failed")
    await stage.caller.publish(stage.hook.url, upstash_callback=told, upstash_retries="1")
    await stage.rests()
    stage.qstash.clock.advance(13)
    await stage.reach("failed", 2)
    assert [letter.message.url for letter in stage.qstash.carrier.dead_letters.values()] == [told] * 2


async def test_dead_letters_are_sent_again_with_other_options(stage: Stage) -> None:
    stage.hook.answer = answering(500)
    await stage.caller.enqueue("line", stage.hook.url, "a", "b", "c", upstash_retries="0", upstash_deduplication_id="")
    await stage.reach("failed", 3)
    letters = [one["dlqId"] for one in (await stage.caller.call("GET", "/v2/dlq")).json["messages"]]
    stage.hook.answer = answering(200)
    told = await stage.caller.call("POST", f"/v2/dlq/retry/{letters[0]}?upstash-forward-x=again")
    assert told.status == 201
    await stage.reach("delivered")
    assert stage.hook.requests[-1].headers["x"] == "again"
    assert stage.hook.requests[-1].headers["upstash-message-id"] == told.json["messageId"]
    assert stage.qstash.deliveries[-1].queue == "line"
    told = await stage.caller.call("POST", f"/v2/dlq/retry?dlqIds={letters[1]}&dlqIds={letters[2]}")
    assert (told.status, told.json["cursor"], len(told.json["responses"])) == (201, "", 2)
    await stage.reach("delivered", 3)
    assert stage.hook.bodies[-2:] == ["b", "c"]
    assert (await stage.caller.call("GET", "/v2/dlq")).json == {"messages": []}
    assert (await stage.caller.call("POST", f"/v2/dlq/retry/{letters[0]}")).status == 404


async def test_dead_letters_come_in_pages(stage: Stage) -> None:
    stage.hook.answer = answering(500)
    for number in range(5):
        await stage.caller.publish(stage.hook.url, str(number), upstash_retries="0")
        await stage.reach("failed", number + 1)
    found, query = [], "count=2"
    while query:
        page = (await stage.caller.call("GET", f"/v2/dlq?{query}")).json
        found += [one["body"] for one in page["messages"]]
        query = f"count=2&cursor={page['cursor']}" if "cursor" in page else ""
    assert found == list("01234")
    assert (await stage.caller.call("DELETE", "/v2/dlq?count=2")).json["deleted"] == 2
    assert (await stage.caller.call("DELETE", "/v2/dlq")).json == {"deleted": 3}
    assert (await stage.caller.call("GET", "/v2/dlq?cursor=here")).status == 400


async def test_attempts_under_a_key_keep_to_its_parallelism(stage: Stage) -> None:
    let_go = asyncio.Event()

    async def answer(_: Received) -> web.Response:
        await let_go.wait()
        return web.Response()

    stage.hook.answer = answer
    flow = {"upstash_flow_control_key": "k", "upstash_flow_control_value": "parallelism=2"}
    for number in range(5):
        await stage.caller.publish(stage.hook.url, str(number), **flow)
    await within(stage.qstash.until(lambda: stage.qstash.counts["attempts"] == 2))
    shown = (await stage.caller.call("GET", "/v2/flowControl/k")).json
    assert (shown["parallelismCount"], shown["waitListSize"]) == (2, 3)
    let_go.set()
    await stage.reach("delivered", 5)
    assert stage.hook.bodies == list("01234")


async def test_attempts_under_a_key_keep_to_its_rate(stage: Stage) -> None:
    flow = {"upstash_flow_control_key": "k", "upstash_flow_control_value": "rate=2, period=1m"}
    for _ in range(5):
        await stage.caller.publish(stage.hook.url, **flow)
    for minute in range(2):
        await stage.reach("delivered", 2 * minute + 2)
        assert stage.qstash.counts["attempts"] == 2 * minute + 2
        stage.qstash.clock.advance(60)
    await stage.reach("delivered", 5)


async def test_all_deliveries_together_keep_to_the_plan() -> None:
    async with local_qstash(plan=FREE) as qstash, receiving() as hook, calling(qstash) as caller:
        let_go = asyncio.Event()

        async def answer(_: Received) -> web.Response:
            await let_go.wait()
            return web.Response()

        hook.answer = answer
        for _ in range(12):
            await caller.publish(hook.url)
        await within(qstash.until(lambda: qstash.counts["attempts"] == 10))
        told = (await caller.call("GET", "/v2/globalParallelism")).json
        assert told == {"parallelismMax": 10, "parallelismCount": 10}
        let_go.set()
        await within(qstash.until(lambda: qstash.counts["delivered"] == 12))


async def test_a_paused_schedule_leaves_its_ticks_out_and_another_of_its_id_replaces_all_of_it(stage: Stage) -> None:
    async def tick_by(path: str, body: str = "", **headers: str) -> None:
        headers |= {"upstash_cron": "*/5 * * * *", "upstash_schedule_id": "s"}
        assert (await stage.caller.call("POST", f"/v2/schedules/{stage.hook.root}{path}", body, **headers)).json == {
            "scheduleId": "s"
        }

    await tick_by("/old", "body", upstash_retries="1")
    await stage.caller.call("POST", "/v2/schedules/s/pause")
    stage.qstash.clock.advance(300)
    assert stage.qstash.counts["ticks"] == 0
    await tick_by("/new")
    shown = (await stage.caller.call("GET", "/v2/schedules/s")).json
    assert (shown["isPaused"], shown["retries"], "body" in shown) == (False, 3, False)
    stage.qstash.clock.advance(300)
    await stage.reach("delivered")
    assert [(one.target, one.body) for one in stage.hook.requests] == [("/new", b"")]
    assert len((await stage.caller.call("GET", "/v2/schedules")).json) == 1


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "Upstash-Cron is missing"),
        ({"upstash_cron": "* * *"}, "invalid cron"),
        ({"upstash_cron": "* * * * *", "upstash_schedule_id": "a b"}, "invalid schedule id"),
    ],
)
async def test_what_is_no_schedule(stage: Stage, headers: dict[str, str], words: str) -> None:
    told = await stage.caller.call("POST", f"/v2/schedules/{stage.hook.url}", **headers)
    assert told.status == 400
    assert words in told.json["error"]


async def test_a_schedule_publishes_at_each_tick_once_and_through_its_queue(stage: Stage) -> None:
    headers = {"upstash_cron": "*/5 * * * *", "upstash_schedule_id": "s", "upstash_queue_name": "line"}
    for body in ("old", "new"):
        path = f"/v2/schedules/{stage.hook.url}"
        await stage.caller.call("POST", path, body, **headers, upstash_deduplication_id="d", upstash_not_before="9")
    for number in (1, 2):
        stage.qstash.clock.advance(300)
        await stage.reach("delivered", number)
    assert stage.qstash.counts["ticks"] == 2
    assert stage.hook.bodies == ["new", "new"]
    assert [delivery.queue for delivery in stage.qstash.deliveries] == ["line", "line"]


async def test_a_schedule_says_why_a_tick_published_nothing(stage: Stage) -> None:
    await stage.caller.call("POST", "/v2/topics/group/endpoints", json.dumps({"endpoints": [{"url": stage.hook.url}]}))
    await stage.caller.call("POST", "/v2/schedules/group", upstash_cron="*/5 * * * *", upstash_schedule_id="s")
    await stage.caller.call("DELETE", "/v2/topics/group")
    stage.qstash.clock.advance(300)
    shown = (await stage.caller.call("GET", "/v2/schedules/s")).json
    assert "invalid destination url" in shown["error"]
    assert stage.qstash.counts["published"] == 0


async def test_ticks_come_by_the_accelerated_clock() -> None:
    async with local_qstash(speed=20_000) as qstash, receiving() as hook, calling(qstash) as caller:
        await caller.call("POST", f"/v2/schedules/{hook.url}", upstash_cron="*/5 * * * *")
        await within(qstash.until(lambda: qstash.counts["delivered"] >= 12))
        moments = [event.message.created_at for event in qstash.events if event.step == "CREATED"]
        assert moments[11] - moments[0] == pytest.approx(11 * 300, abs=600)


async def test_a_retry_of_minutes_comes_in_milliseconds_by_the_accelerated_clock() -> None:
    async with local_qstash(speed=20_000) as qstash, receiving(answering(500, 500, 500, 200)) as hook:
        async with calling(qstash) as caller:
            await caller.publish(hook.url)
            await within(qstash.until(lambda: qstash.counts["delivered"] == 1))
        assert len(hook.requests) == 4


async def test_no_more_queues_are_made_than_the_plan_has() -> None:
    async with local_qstash(plan=FREE) as qstash, receiving() as hook, calling(qstash) as caller:
        for number in range(10):
            await caller.enqueue(f"line{number}", hook.url, "x")
        one_more = [await caller.call("POST", f"/v2/enqueue/other/{hook.url}")]
        one_more.append(await caller.call("POST", "/v2/queues", '{"queueName": "other"}'))
        assert [told.status for told in one_more] == [412, 412]
        assert "quota maxQueues" in one_more[0].json["error"]
        await caller.enqueue("line0", hook.url, "x")


async def test_the_day_ends_at_midnight() -> None:
    async with local_qstash(plan=FREE) as qstash, receiving() as hook, calling(qstash) as caller:
        batch = json.dumps([{"destination": hook.url, "headers": {"Upstash-Delay": "6d"}}] * 1000)
        assert (await caller.call("POST", "/v2/batch", batch)).status == 200
        told = await caller.call("POST", f"/v2/publish/{hook.url}")
        assert (told.status, told.headers["RateLimit-Limit"], told.headers["RateLimit-Remaining"]) == (429, "1000", "0")
        qstash.clock.advance(DAY)
        assert (await caller.call("POST", f"/v2/publish/{hook.url}")).status == 200


async def test_the_log_has_two_names(stage: Stage) -> None:
    await stage.caller.publish(stage.hook.url, upstash_label="a, b")
    await stage.reach("delivered")
    logs = (await stage.caller.call("GET", "/v2/logs?label=b")).json["logs"]
    assert [one["state"] for one in logs] == ["DELIVERED", "ACTIVE", "CREATED"]
    assert (await stage.caller.call("GET", "/v2/events?label=b")).json["events"] == logs
    assert (logs[0]["label"], logs[0]["labels"]) == ("a", ["a", "b"])
    assert (await stage.caller.call("GET", f"/v2/logs?fromDate={logs[0]['time'] + 1}")).json == {"logs": []}


async def test_all_headers_are_kept_out_of_the_log_by_both_of_its_spellings(stage: Stage) -> None:
    for field in ("header", "headers"):
        await stage.caller.publish(stage.hook.url, upstash_forward_x="secret", upstash_redact_fields=field)
    logs = (await stage.caller.call("GET", "/v2/logs")).json["logs"]
    assert {value for one in logs for values in one["header"].values() for value in values} == {"REDACTED"}


async def test_a_body_that_is_no_text_is_shown_in_base64(stage: Stage) -> None:
    name = await stage.caller.publish(stage.hook.url, b"\xff\xfe", upstash_delay="1h")
    shown = (await stage.caller.call("GET", f"/v2/messages/{name}")).json
    assert ("body" in shown, shown["bodyBase64"]) == (False, "//4=")


async def test_a_url_group_gives_its_messages_headers(stage: Stage) -> None:
    await stage.caller.call("POST", "/v2/topics/group/endpoints", json.dumps({"endpoints": [{"url": stage.hook.url}]}))
    headers = {"Upstash-Forward-X": ["of the group"], "Upstash-Method": "PUT"}
    await stage.caller.call("PATCH", "/v2/topics/group", json.dumps({"headers": headers}))
    await stage.caller.call("POST", "/v2/publish/group", upstash_method="PATCH")
    await stage.reach("delivered")
    assert (stage.hook.requests[0].method, stage.hook.requests[0].headers["x"]) == ("PATCH", "of the group")


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        "[]",
        "[",
        "[1]",
        '[{"body": "x"}]',
        '[{"destination": "http://h/", "body": 1}]',
        '[{"destination": "http://h/", "headers": {"X": 1}}]',
        '[{"destination": "http://h/", "queue": "a b"}]',
        '[{"destination": "http://h/"}, {"destination": "http://h/", "headers": {"Upstash-Callback": "x"}}]',
        '[{"destination": "http://h/", "headers": {"Upstash-Callback-Delay": "x", "Upstash-Callback": "http://h/"}}]',
    ],
)
async def test_a_batch_is_refused_as_a_whole(stage: Stage, body: str) -> None:
    told = await stage.caller.call("POST", "/v2/batch", body)
    assert (told.status, list(told.json)) == (400, ["error"])
    assert stage.qstash.counts["published"] == 0
