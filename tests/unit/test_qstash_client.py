"""The client of QStash against a server that answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest

from qstash_service import Service, serving
from rowvec.domain.errors import CarrierError, CarrierTrouble, ConfigurationError, UsageError
from rowvec.domain.items import Key
from rowvec.domain.messages import ask_for_one
from rowvec.qstash.answers import Schedule
from rowvec.qstash.carrier import Delivery, QStashCarrier
from rowvec.qstash.client import ANSWER_BYTES_MOST, BATCH_MESSAGES, Outgoing, QStashClient, connected

TOKEN = "a-token-that-is-never-shown"  # noqa: S105 - that is what is tested
NAME = uuid.UUID(int=7)
Call = Callable[[QStashClient], Awaitable[object]]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as found:
        yield found


@pytest.fixture
async def client(service: Service) -> AsyncIterator[QStashClient]:
    async with connected(TOKEN, service.url, 2.0) as found:
        yield found


def outgoing(number: int = 1) -> Outgoing:
    return Outgoing("https://app.example/path?a=b", f"body {number}", {"Upstash-Retries": "3"}, "embedding-processor")


async def refusal(call: Awaitable[object]) -> CarrierError:
    with pytest.raises(CarrierError) as caught:
        await call
    told = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert TOKEN not in told
    return caught.value


# --- Messages


async def test_a_batch_is_sent_as_it_stands_and_answered_message_by_message(
    service: Service, client: QStashClient
) -> None:
    service.body = [{"messageId": "msg_1"}, {"error": "quota maxMessageSize exceeded"}, {"messageId": "msg_3"}]
    first, second, third = await client.publish([outgoing(number) for number in range(3)])
    assert (first, third) == ("msg_1", "msg_3")
    assert isinstance(second, CarrierError)
    assert (second.kind, second.hint) == (CarrierTrouble.QUOTA, "quota maxMessageSize exceeded.")
    ((method, path, sent),) = service.asked
    assert (method, path, len(sent)) == ("POST", "/v2/batch", 3)
    assert sent[1] == {
        "destination": "https://app.example/path?a=b",
        "headers": {"Upstash-Retries": "3"},
        "body": "body 1",
        "queue": "embedding-processor",
    }
    assert service.tokens == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"error": "invalid destination url"}, CarrierTrouble.PERMANENT),
        ({"error": "try later", "status": 503}, CarrierTrouble.PASSING),
        ({"error": "no", "status": 401}, CarrierTrouble.CONFIGURATION),
        ({"messageId": None}, CarrierTrouble.PERMANENT),
        ([], CarrierTrouble.PERMANENT),
        (None, CarrierTrouble.PERMANENT),
    ],
)
async def test_a_message_of_a_batch_is_refused_with_its_reason(
    service: Service, client: QStashClient, entry: object, kind: CarrierTrouble
) -> None:
    service.body = [entry, {"messageId": "msg_2", "deduplicated": True}]
    refused, taken = await client.publish([outgoing(), outgoing()])
    assert isinstance(refused, CarrierError)
    assert (refused.kind, taken) == (kind, "msg_2")


def nested(deep: int) -> str:
    return "[" * deep + "]" * deep


@pytest.mark.parametrize("entry", [r'{"error": "\ud800"}', '{"error": 1' + "0" * 30 + "}", nested(300)])
async def test_an_entry_that_can_t_be_written_down_is_a_refusal(
    service: Service, client: QStashClient, entry: str
) -> None:
    service.body = f'[{entry}, {{"messageId": "msg_2"}}]'
    refused, taken = await client.publish([outgoing(), outgoing()])
    assert isinstance(refused, CarrierError)
    assert taken == "msg_2"


async def test_what_is_no_text_is_none(service: Service, client: QStashClient) -> None:
    service.body = {"current": 1, "next": ["a"]}
    assert (await refusal(client.signing_keys())).kind is CarrierTrouble.PASSING
    service.body = [{"scheduleId": ["a"], "cron": 5, "destination": None, "header": 3}]
    (schedule,) = await client.schedules()
    assert (schedule.id, schedule.cron, schedule.destination, schedule.headers) == ("", "", "", {})
    service.body = {"messages": [{"dlqId": "1", "url": 5, "body": 7, "responseStatus": "x"}]}
    (letter,), _ = await client.dead_letters()
    assert (letter.url, letter.body, letter.status) == ("", None, None)


async def test_a_message_that_the_answer_does_not_speak_of_counts_as_refused(
    service: Service, client: QStashClient
) -> None:
    service.body = [{"messageId": "msg_1"}]
    taken, lost = await client.publish([outgoing(), outgoing()])
    assert taken == "msg_1"
    assert isinstance(lost, CarrierError)


async def test_one_message_may_be_answered_without_a_list(service: Service, client: QStashClient) -> None:
    service.body = {"messageId": "msg_1"}
    assert await client.enqueue(outgoing()) == "msg_1"
    service.body = {"error": "invalid destination url: unable to resolve host"}
    assert (await refusal(client.enqueue(outgoing()))).hint == "invalid destination url: unable to resolve host."


async def test_many_messages_are_several_requests_and_none_follows_one_that_was_refused(
    service: Service, client: QStashClient
) -> None:
    service.answer = lambda batch: [{"messageId": one["body"]} for one in batch]
    many = [outgoing(number) for number in range(BATCH_MESSAGES + 1)]
    assert await client.publish(many) == [message.body for message in many]
    assert [len(sent) for _, _, sent in service.asked] == [BATCH_MESSAGES, 1]
    service.asked.clear()
    service.answer, service.status, service.body = None, 401, {"error": "unauthorized"}
    results = await client.publish(many)
    assert {type(result) for result in results} == {CarrierError}
    assert (len(results), len(service.asked)) == (len(many), 1)


# --- Refusals


CALLS: dict[str, Call] = {
    "cancel": lambda client: client.cancel(["msg_1"]),
    "queue": lambda client: client.queue("q"),
    "put_queue": lambda client: client.put_queue("q", 2),
    "pause_queue": lambda client: client.pause_queue("q"),
    "resume_queue": lambda client: client.resume_queue("q"),
    "schedules": lambda client: client.schedules(),
    "schedule": lambda client: client.schedule("s"),
    "put_schedule": lambda client: client.put_schedule(Schedule("s", "* * * * *", "https://app.example")),
    "delete_schedule": lambda client: client.delete_schedule("s"),
    "pause_schedule": lambda client: client.pause_schedule("s"),
    "resume_schedule": lambda client: client.resume_schedule("s"),
    "dead_letters": lambda client: client.dead_letters(),
    "dead_letter": lambda client: client.dead_letter("1-0"),
    "delete_dead_letters": lambda client: client.delete_dead_letters(["1-0"]),
    "retry_dead_letter": lambda client: client.retry_dead_letter("1-0"),
    "signing_keys": lambda client: client.signing_keys(),
    "enqueue": lambda client: client.enqueue(outgoing()),
}


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_says_why_it_failed_without_the_token(
    service: Service, client: QStashClient, name: str
) -> None:
    service.status, service.body = 401, {"error": f"invalid token {TOKEN}"}
    error = await refusal(CALLS[name](client))
    assert (error.kind, error.status) == (CarrierTrouble.CONFIGURATION, 401)
    assert "invalid token [...]" in error.hint


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_has_a_time_limit(service: Service, name: str) -> None:
    service.hangs = True
    async with connected(TOKEN, service.url, 0.5) as client, asyncio.timeout(30):
        error = await refusal(CALLS[name](client))
    assert (error.kind, error.message) == (CarrierTrouble.PASSING, "QStash does not answer in time.")
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, {"error": "read only token"}, CarrierTrouble.CONFIGURATION),
        (404, {"error": "user not found in this region (eu-central-1)"}, CarrierTrouble.CONFIGURATION),
        (404, {"error": "no such thing"}, CarrierTrouble.PERMANENT),
        (302, "", CarrierTrouble.CONFIGURATION),
        (400, {"error": "invalid destination url: endpoint resolves to a loopback address: ::1"}, "permanent"),
        (400, {"error": "quota maxRetries exceeded"}, CarrierTrouble.QUOTA),
        (412, {"error": "too many queues"}, CarrierTrouble.QUOTA),
        (408, "", CarrierTrouble.PASSING),
        (500, {"error": "internal"}, CarrierTrouble.PASSING),
        (502, "<html>bad gateway</html>", CarrierTrouble.PASSING),
        (200, "<html>a portal</html>", CarrierTrouble.PASSING),
        (429, {"error": "slow down"}, CarrierTrouble.PASSING),
    ],
)
async def test_what_a_refusal_means(
    service: Service, client: QStashClient, status: int, body: object, kind: CarrierTrouble
) -> None:
    service.status, service.body = status, body
    error = await refusal(client.enqueue(outgoing()))
    assert error.kind == kind
    if isinstance(body, dict) and status != 429:
        assert str(body["error"]) in error.hint


@pytest.mark.parametrize(
    ("prefix", "kind"), [("RateLimit", CarrierTrouble.QUOTA), ("Burst-RateLimit", CarrierTrouble.PASSING)]
)
async def test_a_limit_says_when_it_is_over(
    service: Service, client: QStashClient, prefix: str, kind: CarrierTrouble
) -> None:
    service.status, service.body = 429, {"error": "too many"}
    service.headers = {f"{prefix}-Limit": "1000", f"{prefix}-Remaining": "0", f"{prefix}-Reset": "1767268800"}
    error = await refusal(client.enqueue(outgoing()))
    assert (error.kind, error.until) == (kind, datetime(2026, 1, 1, 12, tzinfo=UTC))
    service.headers[f"{prefix}-Reset"] = "tomorrow"
    assert (await refusal(client.enqueue(outgoing()))).until is None


async def test_who_is_not_there_is_said_at_once() -> None:
    async with connected(TOKEN, "http://127.0.0.1:9", 2.0) as client, asyncio.timeout(1):
        error = await refusal(client.enqueue(outgoing()))
    assert (error.kind, error.message) == (CarrierTrouble.PASSING, "QStash can't be reached.")


MISREAD: dict[str, tuple[object, Call, str]] = {
    "a portal": ("<html>a portal</html>", CALLS["queue"], "It is no JSON: <html>a portal</html>."),
    "nothing": ("", CALLS["schedules"], "It is empty."),
    "too deep": (nested(100_000), CALLS["queue"], "It is no JSON: [[["),
    "a list for an object": ([1, 2, 3], CALLS["queue"], "It is a list of 3."),
    "an object for a list": ({"error": "?"}, CALLS["schedules"], "It is an object with 'error'."),
    "a page": ([{"dlqId": "1-0"}], CALLS["dead_letters"], "It is a list of 1."),
    "a number": (7, CALLS["cancel"], "It is a number."),
    "null": ("null", CALLS["delete_dead_letters"], "It is null."),
    "a letter": ({"messages": ["sig_1"]}, CALLS["dead_letters"], "It is a text."),
    "a key": ({"current": "sig_1"}, CALLS["signing_keys"], "It is an object with 'current'."),
    "half a character": ({"current": "\ud800", "next": "sig_1"}, CALLS["signing_keys"], "It is an object with "),
    "a list for a letter": ([], CALLS["dead_letter"], "It is a list of 0."),
    "a schedule": ([], CALLS["put_schedule"], "It is of another form than its SDK knows."),
}


@pytest.mark.parametrize("name", MISREAD)
async def test_what_is_not_understood_is_told_by_its_form_and_without_values(
    service: Service, client: QStashClient, name: str
) -> None:
    service.body, call, form = MISREAD[name]
    error = await refusal(call(client))
    assert (error.kind, error.message) == (CarrierTrouble.PASSING, "QStash's answer makes no sense.")
    assert error.hint.startswith(form)
    assert error.hint.endswith("Is QSTASH_URL its address?")
    assert "sig_1" not in str(error)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("packed", [False, True])
async def test_no_answer_is_read_whatever_its_length(
    service: Service,
    client: QStashClient,
    status: int,
    packed: bool,  # noqa: FBT001
) -> None:
    whole = b" " * (ANSWER_BYTES_MOST + 1)
    service.status, service.body = status, gzip.compress(whole) if packed else whole
    service.headers = {"Content-Encoding": "gzip"} if packed else {}
    error = await refusal(client.queue("q"))
    assert (error.kind, error.message) == (CarrierTrouble.PASSING, "QStash's answer is too long.")
    assert "more than 8 MiB" in error.hint


async def test_of_long_dead_letters_fewer_are_asked_for_at_once(service: Service, client: QStashClient) -> None:
    letters = [{"dlqId": f"{number}-0", "body": "x" * (ANSWER_BYTES_MOST // 12)} for number in range(20)]
    service.paged = letters
    found, cursor = await client.dead_letters()
    assert [letter.id for letter in found] == [f"{number}-0" for number in range(10)]
    assert (await client.dead_letters(cursor))[0][-1].id == "19-0"
    letters[0]["body"] = "x" * ANSWER_BYTES_MOST
    assert (await refusal(client.dead_letters())).message == "QStash's answer is too long."


@pytest.mark.parametrize("url", ["http://a..b", "http://[::1", "http://127.0.0.1:99999", "http:// a", "ftp://a"])
async def test_an_address_that_is_none_can_t_be_reached(url: str) -> None:
    async with connected(TOKEN, url, 2.0) as client:
        error = await refusal(client.queue("q"))
    assert (error.kind, error.message) == (CarrierTrouble.PASSING, "QStash can't be reached.")


@pytest.mark.parametrize("name", ["ALL_PROXY", "SSL_CERT_FILE"])
async def test_what_the_environment_sets_wrongly_is_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "nonsense://no/file")
    with pytest.raises(ConfigurationError, match="can't be asked from here"):
        await contextlib.AsyncExitStack().enter_async_context(connected(TOKEN, "http://127.0.0.1:9"))


async def test_long_words_are_shortened(service: Service, client: QStashClient) -> None:
    service.status, service.body = 500, "very " * 1000
    assert len((await refusal(client.enqueue(outgoing()))).hint) <= 300


@pytest.mark.parametrize("token", ["", "two words", "line\nend", "你好"])
async def test_what_is_no_token_is_refused_before_it_is_sent(token: str) -> None:
    with pytest.raises(ConfigurationError, match="QSTASH_TOKEN is no token"):
        await contextlib.AsyncExitStack().enter_async_context(connected(token, "http://127.0.0.1:9"))


# --- What would be meant for all


@pytest.mark.parametrize("ids", [[], [""], ["msg_1", ""], [".."], ["a/b"], ["a?b"]])
async def test_nothing_is_ever_asked_for_a_whole_collection(
    service: Service, client: QStashClient, ids: list[str]
) -> None:
    many = [client.cancel, client.delete_dead_letters]
    one = [client.delete_schedule, client.retry_dead_letter, client.dead_letter, client.queue, client.pause_queue]
    calls: list[Callable[[], Awaitable[object]]] = [lambda call=call: call(ids) for call in many]  # type: ignore[misc]
    calls += [lambda call=call: call(ids[-1]) for call in one if ids]  # type: ignore[misc]
    for call in calls:
        with pytest.raises(UsageError):
            await call()
    assert service.asked == []


async def test_what_is_named_is_cancelled_or_deleted(service: Service, client: QStashClient) -> None:
    service.body = {"cancelled": 2, "deleted": 1}
    assert await client.cancel(["msg_1", "msg_2"]) == 2
    assert await client.delete_dead_letters(["1-0"]) == 1
    assert service.asked == [
        ("DELETE", "/v2/messages", {"messageIds": ["msg_1", "msg_2"]}),
        ("DELETE", "/v2/dlq", {"dlqIds": ["1-0"]}),
    ]


# --- Queues, schedules, dead letters, keys


async def test_a_queue_is_read_and_changed_without_being_resumed(service: Service, client: QStashClient) -> None:
    service.body = {"name": "q", "parallelism": 2, "paused": True, "lag": 3, "createdAt": 1, "updatedAt": 1}
    found = await client.queue("q")
    assert found is not None
    assert (found.name, found.parallelism, found.paused, found.lag) == ("q", 2, True, 3)
    service.body = ""
    await client.put_queue("q", 5)
    await client.put_queue("q", 5, paused=False)
    await client.pause_queue("q")
    await client.resume_queue("q")
    assert service.asked[1:] == [
        ("POST", "/v2/queues", {"queueName": "q", "parallelism": 5}),
        ("POST", "/v2/queues", {"queueName": "q", "parallelism": 5, "paused": False}),
        ("POST", "/v2/queues/q/pause", ""),
        ("POST", "/v2/queues/q/resume", ""),
    ]


async def test_what_is_not_there_is_none_but_a_wrong_region_is_an_error(service: Service, client: QStashClient) -> None:
    service.status, service.body = 404, {"error": "not found"}
    assert await client.queue("q") is None
    assert await client.schedule("s") is None
    assert await client.dead_letter("1-0") is None
    service.body = {"error": "user not found in this region (eu-central-1)"}
    assert (await refusal(client.queue("q"))).kind is CarrierTrouble.CONFIGURATION


async def test_a_schedule_is_put_and_read_with_what_the_sdk_would_stumble_over(
    service: Service, client: QStashClient
) -> None:
    service.body = {"scheduleId": "s"}
    destination, cron = "https://app.example/api/embeddings/maintenance", "CRON_TZ=UTC 0 2 * * *"
    await client.put_schedule(Schedule("s", cron, destination, '{"task": "cleanup"}', retries=3, label="rowvec"))
    ((method, path, body),) = service.asked
    assert (method, path, body) == ("POST", f"/v2/schedules/{destination}", {"task": "cleanup"})
    told = {
        "scheduleId": "s",
        "cron": cron,
        "destination": destination,
        "body": "{}",
        "isPaused": True,
        "lastScheduleTime": 1767268800000,
        "lastScheduleStates": {"msg_1": "CANCELLED"},
    }
    service.body = [told, {**told, "lastScheduleTime": "?", "body": None}]
    first, second = await client.schedules()
    assert (first.id, first.cron, first.paused, first.body) == ("s", cron, True, "{}")
    assert first.last_at == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert (second.last_at, second.body) == (None, "")
    service.body = [{"scheduleId": "s"}]
    assert (await refusal(client.schedules())).message == "QStash's answer makes no sense."


async def test_dead_letters_are_read_page_by_page_also_without_an_answer(
    service: Service, client: QStashClient
) -> None:
    letter = {"dlqId": "1-0", "messageId": "msg_1", "url": "https://app.example", "body": "{}", "label": "rowvec"}
    service.body = {"messages": [letter, {**letter, "responseStatus": 489}], "cursor": "c"}
    (first, second), cursor = await client.dead_letters(label="rowvec")
    assert (first.id, first.status, second.status, cursor) == ("1-0", None, 489, "c")
    service.body = {"messages": []}
    assert await client.dead_letters("c") == ([], "")
    assert [path for _, path, _ in service.asked] == ["/v2/dlq?count=100&label=rowvec", "/v2/dlq?count=100&cursor=c"]
    answers: list[object] = [[], {"messages": None}, "null"]
    for service.body in answers:
        assert (await refusal(client.dead_letters())).message == "QStash's answer makes no sense."


async def test_a_dead_letter_is_sent_once_more(service: Service, client: QStashClient) -> None:
    service.status, service.body = 201, {"messageId": "msg_2"}
    assert await client.retry_dead_letter("1-0") == "msg_2"
    assert service.asked == [("POST", "/v2/dlq/retry/1-0", "")]


async def test_the_keys_are_read_and_not_shown(service: Service, client: QStashClient) -> None:
    service.body = {"current": "sig_1", "next": "sig_2"}
    keys = await client.signing_keys()
    assert (keys.current, keys.next) == ("sig_1", "sig_2")
    assert "sig_" not in repr(keys)


# --- The carrier


async def test_a_message_goes_out_with_what_it_needs(service: Service, client: QStashClient) -> None:
    service.body = [{"messageId": "msg_1"}]
    carrier = QStashCarrier(client, Delivery("https://app.example/", "embedding-processor", 3))
    assert await carrier.send([ask_for_one(NAME, Key("profile", "7"), 2, 30.0)]) == [None]
    ((_, _, (sent,)),) = service.asked
    assert sent["destination"] == "https://app.example/api/embeddings/process-webhook"
    assert sent["queue"] == "embedding-processor"
    assert sent["headers"] == {
        "Content-Type": "application/json",
        "Upstash-Method": "POST",
        "Upstash-Deduplication-Id": str(NAME),
        "Upstash-Retries": "3",
        "Upstash-Retry-Delay": "1000 * (1 + retried)",
        "Upstash-Timeout": "30s",
        "Upstash-Failure-Callback": "https://app.example/api/qstash/failure",
        "Upstash-Label": "rowvec",
    }
    assert ":" not in sent["headers"]["Upstash-Deduplication-Id"]


async def test_the_carrier_raises_nothing(service: Service, client: QStashClient) -> None:
    service.status, service.body = 500, {"error": "internal"}
    carrier = QStashCarrier(client, Delivery("https://app.example", "q", 3))
    message = ask_for_one(NAME, Key("profile", "7"), 2, 30.0)
    errors = await carrier.send([message, message])
    assert [error.kind for error in errors if error] == [CarrierTrouble.PASSING] * 2
