"""The official SDK works with the local QStash as it stands, and its receiver accepts what that signs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from qstash import AsyncQStash, QStash
from qstash import Receiver as OfficialReceiver
from qstash.errors import (
    DailyMessageLimitExceededError,
    QStashError,
    RateLimitExceededError,
    SignatureError,
)
from qstash.log import LogFilter, LogState
from qstash.message import Message, PublishResponse
from qstash.schedule import ScheduleState

from local_qstash import FREE, Faults, LocalQStash, Received, Receiver, local_qstash, receiving, within


@pytest.fixture
async def qstash() -> AsyncIterator[LocalQStash]:
    async with local_qstash() as found:
        yield found


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


@pytest.fixture
async def sdk(qstash: LocalQStash) -> AsyncIterator[AsyncQStash]:
    found = AsyncQStash(qstash.token, base_url=qstash.url, retry=False)
    yield found
    await found.http._client.aclose()  # noqa: SLF001 - it has no other way to be closed


async def delivered(qstash: LocalQStash, count: int) -> None:
    await within(qstash.until(lambda: qstash.counts["delivered"] >= count))


async def published(sdk: AsyncQStash, **options: Any) -> str:  # noqa: ANN401 - those of the SDK
    """Publish to one destination; return the id of the message."""
    done = await sdk.message.publish(**options)
    assert isinstance(done, PublishResponse)
    return done.message_id


async def _refuse(_: Received) -> web.Response:
    return web.Response(status=500, text="no", headers={"X-Why": "test"})


async def test_what_is_published_comes_as_it_is(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    url = f"{hook.url}/a//b/?x=1&y=%2F"
    name = await published(
        sdk, url=url, body=b"\xff\xfe\x00", content_type="x/y", headers={"X-Kind": "a b"}, method="PUT"
    )
    await delivered(qstash, 1)
    [came] = hook.requests
    assert (came.method, came.target, came.body) == ("PUT", "/hook/a//b/?x=1&y=%2F", b"\xff\xfe\x00")
    assert came.headers["content-type"] == "x/y"
    assert came.headers["x-kind"] == "a b"
    assert came.headers["user-agent"] == "Upstash-QStash"
    assert came.headers["upstash-message-id"] == name
    assert came.headers["upstash-retried"] == "0"
    assert came.headers["upstash-caller-ip"] == "127.0.0.1"


async def test_the_official_receiver_accepts_the_signature(
    qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash
) -> None:
    receiver = OfficialReceiver(qstash.keys.current, qstash.keys.next)
    await sdk.message.publish_json(url=f"{hook.url}?a=b", body={"grüße": [1]})
    await delivered(qstash, 1)
    [came] = hook.requests
    signature, body = came.headers["upstash-signature"], came.body.decode()
    receiver.verify(signature=signature, body=body, url=f"{hook.url}?a=b")
    for other_body, other_url in ((body + " ", f"{hook.url}?a=b"), (body, hook.url)):
        with pytest.raises(SignatureError):
            receiver.verify(signature=signature, body=other_body, url=other_url)


async def test_a_message_can_be_read_until_it_has_ended(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    name = await published(
        sdk,
        url=hook.url,
        body="text",
        headers={"bypass-tunnel-reminder": "client-test"},
        callback_headers={"X-Told": "yes"},
        callback=f"{hook.root}/told",
        retries=1,
        retry_delay="1000 * (1 + retried)",
        delay="1h",
        label="rowvec",
        flow_control={"key": "k", "rate": 5, "period": 60},
    )
    message: Message = await sdk.message.get(name)
    assert message.body == "text"
    assert message.headers == {"Bypass-Tunnel-Reminder": ["client-test"]}
    assert message.callback_headers == {"X-Told": ["yes"]}
    assert (message.max_retries, message.retry_delay_expression, message.label) == (1, "1000 * (1 + retried)", "rowvec")
    assert message.not_before - message.created_at == 3_600_000
    assert message.flow_control is not None
    assert (message.flow_control.rate, message.flow_control.period, message.flow_control.parallelism) == (5, 60, None)
    qstash.clock.advance(3600)
    await delivered(qstash, 2)
    assert (await sdk.message.get(name)).message_id == name
    qstash.clock.advance(3)
    with pytest.raises(QStashError, match="404"):
        await sdk.message.get(name)


async def test_cancelling(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    ids = [await published(sdk, url=hook.url, delay=60) for _ in range(6)]
    await sdk.message.cancel(ids[0])
    assert await sdk.message.cancel_many(ids[:3]) == 2
    assert await sdk.message.cancel_all() == 3
    with pytest.raises(QStashError, match="404"):
        await sdk.message.cancel(ids[0])
    qstash.clock.advance(61)
    await sdk.message.publish(url=hook.url, body="after")
    await delivered(qstash, 1)
    assert hook.bodies == ["after"]


async def test_a_batch_goes_where_each_item_says(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    done = await sdk.message.batch_json(
        [
            {"url": f"{hook.root}/one", "body": {"n": 1}, "queue": "line"},
            {"url": f"{hook.root}/two", "body": {"n": 2}, "deduplication_id": "two"},
            {"url": f"{hook.root}/two", "body": {"n": 3}, "deduplication_id": "two"},
        ]
    )
    await delivered(qstash, 2)
    assert [getattr(one, "deduplicated", None) for one in done] == [False, False, True]
    assert sorted((came.target, json.loads(came.body)["n"]) for came in hook.requests) == [("/one", 1), ("/two", 2)]
    assert [queue.name for queue in await sdk.queue.list()] == ["line"]


async def test_one_bad_item_refuses_the_whole_batch(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    with pytest.raises(QStashError, match="invalid destination url"):
        await sdk.message.batch([{"url": hook.url}, {"url": "ftp://host/"}])
    assert qstash.counts["published"] == 0


async def test_enqueued_messages_come_in_order(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    for number in range(5):
        await sdk.message.enqueue_json(queue="line", url=hook.url, body=number)
    await delivered(qstash, 5)
    assert hook.bodies == ["0", "1", "2", "3", "4"]


async def test_a_queue_is_made_changed_paused_and_deleted(
    qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash
) -> None:
    await sdk.queue.upsert("line", parallelism=2, paused=True)
    await sdk.message.enqueue(queue="line", url=hook.url)
    queue = await sdk.queue.get("line")
    assert (queue.name, queue.parallelism, queue.paused, queue.lag) == ("line", 2, True, 1)
    await sdk.queue.resume("line")
    await delivered(qstash, 1)
    await sdk.queue.pause("line")
    assert (await sdk.queue.list())[0].paused
    await sdk.queue.upsert("line", parallelism=1)
    assert not (await sdk.queue.get("line")).paused
    await sdk.queue.delete("line")
    await sdk.queue.delete("line")
    with pytest.raises(QStashError, match="404"):
        await sdk.queue.get("line")


async def test_a_schedule_is_made_ticks_is_paused_and_deleted(
    qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash
) -> None:
    name = await sdk.schedule.create_json(
        destination=f"{hook.url}?a=b",
        cron="CRON_TZ=Europe/Berlin  */5 *  * * *",
        body={"task": "cleanup"},
        schedule_id="rowvec.monitor",
        queue="line",
        retries=1,
        delay=2,
        timeout=30,
        label="tick",
    )
    assert name == "rowvec.monitor"
    schedule = await sdk.schedule.get(name)
    assert (schedule.cron, schedule.destination) == ("CRON_TZ=Europe/Berlin */5 * * * *", f"{hook.url}?a=b")
    assert (schedule.queue, schedule.retries, schedule.delay, schedule.timeout) == ("line", 1, 2, 30)
    assert (schedule.body, schedule.label, schedule.paused) == ('{"task": "cleanup"}', "tick", False)
    assert schedule.next_schedule_time is not None
    assert schedule.next_schedule_time % 300_000 == 0

    qstash.clock.advance(300)
    await within(qstash.until(lambda: qstash.counts["ticks"] == 1))
    qstash.clock.advance(2)
    await delivered(qstash, 1)
    assert hook.requests[0].headers["upstash-schedule-id"] == name
    ticked = await sdk.schedule.get(name)
    assert ticked.last_schedule_time == schedule.next_schedule_time
    assert list((ticked.last_schedule_states or {}).values()) == [ScheduleState.SUCCESS]

    await sdk.schedule.pause(name)
    assert (await sdk.schedule.list())[0].paused
    await sdk.schedule.resume(name)
    assert not (await sdk.schedule.list())[0].paused
    await sdk.schedule.delete(name)
    assert await sdk.schedule.list() == []
    with pytest.raises(QStashError, match="404"):
        await sdk.schedule.get(name)


async def test_dead_letters_are_listed_read_retried_and_deleted(
    qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash
) -> None:
    hook.answer = _refuse
    for label in ("a", "b", "b"):
        await sdk.message.enqueue(queue="line", url=hook.url, body=label, retries=0, label=label)
    await within(qstash.until(lambda: qstash.counts["failed"] == 3))
    page = await sdk.dlq.list(count=2)
    assert [letter.body for letter in page.messages] == ["a", "b"]
    rest = await sdk.dlq.list(cursor=page.cursor)
    assert (len(rest.messages), rest.cursor) == (1, None)
    letter = await sdk.dlq.get(page.messages[0].dlq_id)
    assert (letter.response_status, letter.response_body, letter.queue) == (500, "no", "line")
    assert letter.response_headers is not None
    assert letter.response_headers["X-Why"] == ["test"]
    assert len((await sdk.dlq.list(filter={"label": "b", "response_status": 500})).messages) == 2
    assert (await sdk.dlq.list(filter={"response_status": 404})).messages == []

    again = await sdk.http.request(path=f"/v2/dlq/retry/{letter.dlq_id}", method="POST")
    assert again["messageId"] != letter.message_id
    await within(qstash.until(lambda: qstash.counts["failed"] == 4))
    with pytest.raises(QStashError, match="404"):
        await sdk.dlq.get(letter.dlq_id)
    left = [one.dlq_id for one in (await sdk.dlq.list()).messages]
    await sdk.dlq.delete(left[0])
    assert await sdk.dlq.delete_many(left) == 2
    assert (await sdk.dlq.list()).messages == []


async def test_a_url_group_gets_a_message_each(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    await sdk.url_group.upsert_endpoints(
        "group", [{"url": f"{hook.root}/one", "name": "one"}, {"url": f"{hook.root}/two"}]
    )
    done: Any = await sdk.message.publish(url_group="group", body="hi", deduplication_id="once")
    assert [one.url for one in done] == [f"{hook.root}/one", f"{hook.root}/two"]
    again: Any = await sdk.message.enqueue(queue="line", url_group="group", deduplication_id="once")
    assert [one.deduplicated for one in again] == [True, True]
    await delivered(qstash, 2)
    assert sorted(came.target for came in hook.requests) == ["/one", "/two"]
    assert {came.headers["upstash-topic-name"] for came in hook.requests} == {"group"}
    group = await sdk.url_group.get("group")
    assert [endpoint.name for endpoint in group.endpoints] == ["one", None]
    await sdk.url_group.remove_endpoints("group", [{"name": "one"}])
    assert [one.name for one in await sdk.url_group.list()] == ["group"]
    await sdk.url_group.remove_endpoints("group", [{"url": f"{hook.root}/two"}])
    assert await sdk.url_group.list() == []
    await sdk.url_group.delete("group")
    with pytest.raises(QStashError, match="404"):
        await sdk.url_group.get("group")


async def test_keys_rotate(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    before = await sdk.signing_key.get()
    after = await sdk.signing_key.rotate()
    assert after.current == before.next
    assert after.next not in {before.current, before.next}
    assert await sdk.signing_key.get() == after
    await sdk.message.publish(url=hook.url, body="x")
    await delivered(qstash, 1)
    signature = hook.requests[0].headers["upstash-signature"]
    OfficialReceiver(before.current, before.next).verify(signature=signature, body="x", url=hook.url)


async def test_the_log_tells_the_way_of_a_message(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    hook.answer = _refuse
    name = await published(
        sdk,
        url=hook.url,
        body="secret",
        headers={"X-Key": "secret", "X-Kind": "plain"},
        retries=1,
        retry_delay="1000",
        redact={"body": True, "header": ["x-key"]},
    )
    await within(qstash.until(lambda: qstash.noted("RETRY") == 1))
    qstash.clock.advance(1)
    await within(qstash.until(lambda: qstash.counts["failed"] == 1))
    page = await sdk.log.list(filter=LogFilter(message_id=name))
    states = [log.state for log in reversed(page.logs)]
    expected = ["CREATED", "ACTIVE", "ERROR", "RETRY", "ACTIVE", "ERROR", "FAILED"]
    assert [state.value for state in states] == expected
    retry = page.logs[3]
    assert retry.next_delivery_time is not None
    assert 900 <= retry.next_delivery_time - retry.time <= 1000
    assert (retry.response_status, retry.retry_delay_expression, retry.max_retries) == (500, "1000", 1)
    assert (retry.body_base64, retry.headers) == ("REDACTED", {"X-Key": ["REDACTED"], "X-Kind": ["plain"]})
    pages = [await sdk.log.list(count=4)]
    pages.append(await sdk.log.list(cursor=pages[0].cursor))
    assert [len(one.logs) for one in pages] == [4, 3]
    assert pages[1].cursor is None
    assert len((await sdk.log.list(filter={"state": LogState.IN_PROGRESS})).logs) == 5
    assert (await sdk.log.list(filter={"message_ids": ["msg_other"]})).logs == []


async def test_flow_control(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    await sdk.flow_control.pause("key")
    for _ in range(3):
        await sdk.message.publish(url=hook.url, flow_control={"key": "key", "parallelism": 2, "rate": 2})
    await within(qstash.until(lambda: qstash.noted("ACTIVE") == 3))
    info = await sdk.flow_control.get("key")
    assert (info.is_paused, info.wait_list_size, info.parallelism_max, info.rate_max) == (True, 3, 2, 2)
    await sdk.flow_control.resume("key")
    await delivered(qstash, 2)
    assert (await sdk.flow_control.get("key")).rate_count == 2
    await sdk.flow_control.reset_rate("key")
    await delivered(qstash, 3)
    await sdk.flow_control.pin("key", {"parallelism": 7, "rate": 9, "period": 60})
    await sdk.message.publish(url=hook.url, flow_control={"key": "key", "parallelism": 1})
    pinned = await sdk.flow_control.get("key")
    assert (pinned.parallelism_max, pinned.rate_max, pinned.rate_period) == (7, 9, 60)
    assert (pinned.is_pinned_parallelism, pinned.is_pinned_rate) == (True, True)
    await sdk.flow_control.unpin("key", {"parallelism": True, "rate": True})
    await sdk.message.publish(url=hook.url, flow_control={"key": "key", "parallelism": 1})
    assert (await sdk.flow_control.get("key")).parallelism_max == 1
    assert (await sdk.flow_control.get_global_parallelism()).parallelism_max == 100
    with pytest.raises(QStashError, match="404"):
        await sdk.flow_control.get("other")


async def test_the_kinds_of_429_are_told_apart(qstash: LocalQStash, hook: Receiver, sdk: AsyncQStash) -> None:
    qstash.faults = Faults(publish="daily", manage="burst")
    with pytest.raises(DailyMessageLimitExceededError):
        await sdk.message.publish(url=hook.url)
    with pytest.raises(RateLimitExceededError) as burst:
        await sdk.queue.list()
    assert burst.value.limit == "100"


async def test_the_limits_of_the_free_plan(hook: Receiver) -> None:
    async with local_qstash(plan=FREE) as qstash:
        sdk = AsyncQStash(qstash.token, base_url=qstash.url, retry=False)
        with pytest.raises(QStashError, match=r"412.*quota maxParallelism"):
            await sdk.queue.upsert("line", parallelism=3)
        for number in range(10):
            await sdk.schedule.create(destination=hook.url, cron="0 0 * * *", schedule_id=f"s{number}")
        with pytest.raises(QStashError, match=r"412.*quota maxSchedules"):
            await sdk.schedule.create(destination=hook.url, cron="0 0 * * *")
        with pytest.raises(QStashError, match="quota maxRetries exceeded"):
            await sdk.message.publish(url=hook.url, retries=6)
        with pytest.raises(QStashError, match="quota maxDelay exceeded, current limit: 604800"):
            await sdk.message.publish(url=hook.url, delay="8d")
        with pytest.raises(QStashError, match="quota maxMessageSize exceeded"):
            await sdk.message.publish(url=hook.url, body="x" * (1 << 20) + "x")
        await sdk.message.batch([{"url": hook.url, "delay": "2d"} for _ in range(1000)])
        with pytest.raises(DailyMessageLimitExceededError) as daily:
            await sdk.message.publish(url=hook.url)
        assert daily.value.limit == "1000"
        assert daily.value.reset is not None
        assert (int(daily.value.reset) + 1) % 86400 < 3
        await sdk.http._client.aclose()  # noqa: SLF001 - as above


async def test_a_wrong_token_is_refused(qstash: LocalQStash, hook: Receiver) -> None:
    sdk = AsyncQStash("other", base_url=qstash.url, retry=False)
    for call in (sdk.queue.list(), sdk.message.publish(url=hook.url), sdk.signing_key.rotate()):
        with pytest.raises(QStashError, match="401"):
            await call
    await sdk.http._client.aclose()  # noqa: SLF001 - as above


async def test_the_synchronous_sdk(qstash: LocalQStash, hook: Receiver) -> None:
    """In a thread, since it blocks; each of its parts once."""

    def use() -> list[Any]:
        sdk = QStash(qstash.token, base_url=qstash.url, retry=False)
        calls: list[Callable[[], Any]] = [
            lambda: sdk.message.publish_json(url=hook.url, body=1),
            lambda: sdk.message.enqueue(queue="line", url=hook.url),
            lambda: sdk.message.batch([{"url": hook.url}]),
            sdk.message.cancel_all,
            lambda: sdk.queue.upsert("line", parallelism=2),
            lambda: sdk.queue.get("line").parallelism,
            lambda: sdk.schedule.create(destination=hook.url, cron="* * * * *", schedule_id="tick"),
            lambda: sdk.schedule.get("tick").cron,
            lambda: sdk.url_group.upsert_endpoints("group", [{"url": hook.url}]),
            lambda: sdk.url_group.get("group").name,
            lambda: sdk.dlq.list().messages,
            lambda: bool(sdk.log.list().logs),
            lambda: sdk.signing_key.get().current,
            lambda: sdk.flow_control.get_global_parallelism().parallelism_max,
        ]
        answers = [call() for call in calls]
        sdk.http._client.close()  # noqa: SLF001 - as above
        return answers

    answers = await asyncio.to_thread(use)
    assert [answers[5], *answers[6:8], *answers[9:]] == [
        *(2, "tick", "* * * * *", "group", [], True, qstash.keys.current, 100)
    ]
