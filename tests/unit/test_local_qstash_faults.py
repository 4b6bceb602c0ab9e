"""Every knob of the local QStash breaks what it says, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import aiohttp
import jwt
import pytest
from aiohttp import web

from local_qstash import Caller, Faults, LocalQStash, Received, Receiver, calling, local_qstash, receiving, within


@dataclass(frozen=True)
class Stage:
    """A local QStash, a receiver and a caller."""

    qstash: LocalQStash
    hook: Receiver
    caller: Caller

    async def reach(self, what: str, count: int = 1) -> None:
        await within(self.qstash.until(lambda: self.qstash.counts[what] >= count))

    async def publish(self, body: str = "") -> int:
        """Return the status of a publish."""
        return (await self.caller.call("POST", f"/v2/publish/{self.hook.url}", body)).status

    def signatures(self) -> list[str]:
        return [request.headers["upstash-signature"] for request in self.hook.requests]

    def claims(self, number: int = -1) -> dict[str, object]:
        """Return what a signature says, whoever has signed it."""
        found: dict[str, object] = jwt.decode(self.signatures()[number], options={"verify_signature": False})
        return found

    def signed_with(self, key: str, number: int) -> bool:
        try:
            jwt.decode(self.signatures()[number], key, algorithms=["HS256"])
        except jwt.InvalidSignatureError:
            return False
        return True


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with local_qstash() as qstash, receiving() as hook, calling(qstash) as caller:
        yield Stage(qstash, hook, caller)


async def test_nobody_listens(stage: Stage) -> None:
    await stage.qstash.refuse_connections()
    with pytest.raises(aiohttp.ClientConnectorError):
        await stage.publish()
    await stage.qstash.listen()
    assert await stage.publish() == 200


async def test_refuse_accepts_nothing(stage: Stage) -> None:
    stage.qstash.faults = Faults(publish="refuse")
    with pytest.raises(aiohttp.ClientError):
        await stage.publish()
    assert stage.qstash.counts["published"] == 0
    assert (await stage.caller.call("GET", "/v2/queues")).status == 200


async def test_cut_accepts_and_does_not_answer(stage: Stage) -> None:
    stage.qstash.faults = Faults(publish="cut")
    with pytest.raises(aiohttp.ClientError):
        await stage.publish("x")
    await stage.reach("delivered")
    assert stage.hook.bodies == ["x"]


async def test_hang_accepts_nothing_and_does_not_answer(stage: Stage) -> None:
    stage.qstash.faults = Faults(publish="hang")
    hanging = asyncio.create_task(stage.publish("hung"))
    await stage.reach("hang")
    stage.qstash.faults = Faults()
    assert await stage.publish("well") == 200
    await stage.reach("delivered")
    assert stage.hook.bodies == ["well"]
    assert not hanging.done()
    hanging.cancel()
    await asyncio.wait([hanging])


@pytest.mark.parametrize("status", [401, 412, 500, 503])
async def test_a_status(stage: Stage, status: int) -> None:
    stage.qstash.faults = Faults(publish=status)
    assert await stage.publish() == status
    assert (await stage.caller.call("POST", "/v2/batch", "[]")).status == status
    assert stage.qstash.counts["published"] == 0
    stage.qstash.faults = Faults(manage=status)
    assert await stage.publish() == 200
    assert (await stage.caller.call("GET", "/v2/keys")).status == status


async def test_both_kinds_of_429_have_their_headers(stage: Stage) -> None:
    stage.qstash.faults = Faults(publish="burst", manage="daily")
    burst = await stage.caller.call("POST", f"/v2/publish/{stage.hook.url}")
    daily = await stage.caller.call("GET", "/v2/queues")
    assert (burst.status, daily.status) == (429, 429)
    assert {"Burst-RateLimit-Limit", "Burst-RateLimit-Remaining", "Burst-RateLimit-Reset"} <= set(burst.headers)
    assert {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} <= set(daily.headers)
    assert "RateLimit-Limit" not in burst.headers
    assert 0 < int(daily.headers["RateLimit-Reset"]) - stage.qstash.clock.wall() <= 86400
    assert "error" in daily.json


async def test_an_item_of_a_batch_fails_alone(stage: Stage) -> None:
    stage.qstash.faults = Faults(batch_item=1)
    items = [{"destination": stage.hook.url, "body": body} for body in "abc"]
    told = await stage.caller.call("POST", "/v2/batch", json.dumps(items))
    assert told.status == 200
    assert ["messageId" in one for one in told.json] == [True, False, True]
    assert "error" in told.json[1]
    await stage.reach("delivered", 2)
    assert sorted(stage.hook.bodies) == ["a", "c"]


async def test_dropped_messages_are_never_heard_of_again_and_hold_no_queue(stage: Stage) -> None:
    stage.qstash.faults = Faults(drop=1)
    [lost, _] = await stage.caller.enqueue("line", stage.hook.url, "a", "b")
    await stage.reach("dropped", 2)
    stage.qstash.faults = Faults()
    await stage.caller.enqueue("line", stage.hook.url, "c")
    await stage.reach("delivered")
    assert stage.hook.bodies == ["c"]
    assert (await stage.caller.call("GET", f"/v2/messages/{lost}")).status == 404
    assert (await stage.caller.call("GET", "/v2/dlq")).json == {"messages": []}


async def test_duplicates_have_the_same_id(stage: Stage) -> None:
    stage.qstash.faults = Faults(duplicate=1)
    await stage.publish("x")
    await stage.reach("delivered")
    first, second = stage.hook.requests
    assert first.headers["upstash-message-id"] == second.headers["upstash-message-id"]
    assert stage.qstash.counts["attempts"] == 2
    assert stage.qstash.counts["delivered"] == 1


async def test_a_lost_answer_makes_a_message_come_again(stage: Stage) -> None:
    stage.qstash.faults = Faults(lose_answer=1)
    await stage.publish("x")
    await within(stage.qstash.until(lambda: stage.qstash.noted("RETRY") == 1))
    assert stage.hook.bodies == ["x"]
    stage.qstash.faults = Faults()
    stage.qstash.clock.advance(13)
    await stage.reach("delivered")
    assert [one.headers["upstash-retried"] for one in stage.hook.requests] == ["0", "1"]


async def test_it_ends_though_a_publisher_and_a_receiver_hang() -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def hang(_: Received) -> web.Response:
        asked.set()
        await never.wait()
        raise AssertionError

    async with receiving(hang) as hook, aiohttp.ClientSession() as session:
        async with asyncio.timeout(10), local_qstash() as qstash:
            stage = Stage(qstash, hook, Caller(session, qstash))
            await stage.caller.enqueue("line", hook.url, "a", "b")
            await stage.caller.publish(hook.url, upstash_delay="1h")
            await within(asked.wait())
            qstash.faults = Faults(publish="hang")
            hanging = asyncio.create_task(stage.publish())
            await stage.reach("hang")
        with pytest.raises(aiohttp.ClientError):
            await hanging
        assert len(hook.requests) == 1


async def test_reordering_turns_a_queue_round(stage: Stage) -> None:
    stage.qstash.faults = Faults(reorder=True)
    await stage.caller.call("POST", "/v2/queues", '{"queueName": "line", "paused": true}')
    await stage.caller.enqueue("line", stage.hook.url, *"abcdefghij")
    await stage.caller.call("POST", "/v2/queues/line/resume")
    await stage.reach("delivered", 10)
    assert sorted(stage.hook.bodies) == list("abcdefghij")
    assert stage.hook.bodies != list("abcdefghij")


async def test_reordering_lets_messages_overtake_each_other() -> None:
    async with local_qstash(speed=100) as qstash, receiving() as hook, calling(qstash) as caller:
        qstash.faults = Faults(reorder=True)
        for body in "abcdefghij":
            await caller.publish(hook.url, body)
        await within(qstash.until(lambda: qstash.counts["delivered"] == 10))
        assert sorted(hook.bodies) == list("abcdefghij")


async def test_delayed_deliveries_come_later(stage: Stage) -> None:
    stage.qstash.faults = Faults(delay=60)
    await stage.publish("late")
    await within(stage.qstash.until(lambda: stage.qstash.noted("ACTIVE") == 1))
    stage.qstash.faults = Faults()
    await stage.publish("soon")
    await stage.reach("delivered")
    stage.qstash.clock.advance(61)
    await stage.reach("delivered", 2)
    assert stage.hook.bodies == ["soon", "late"]


async def test_a_skewed_clock_signs_for_another_time(stage: Stage) -> None:
    now = stage.qstash.clock.wall()
    for number, skew in enumerate((-400, 400), 1):
        stage.qstash.faults = Faults(skew=skew)
        await stage.publish()
        await stage.reach("delivered", number)
        issued = stage.claims()["iat"]
        assert isinstance(issued, int)
        assert issued - now == pytest.approx(skew, abs=10)


async def test_a_fast_clock_signs_by_the_time_of_the_machine() -> None:
    async with local_qstash(speed=10_000) as qstash, receiving() as hook, calling(qstash) as caller:
        await qstash.clock.sleep(3600)
        stage = Stage(qstash, hook, caller)
        await stage.publish()
        await stage.reach("delivered")
        issued = stage.claims()["iat"]
        assert isinstance(issued, int)
        assert issued == pytest.approx(qstash.clock.wall(), abs=10)


async def test_forged_signatures_are_of_nobodys_key(stage: Stage) -> None:
    stage.qstash.faults = Faults(forge=1)
    await stage.publish()
    await stage.reach("delivered")
    stage.qstash.faults = Faults()
    await stage.publish()
    await stage.reach("delivered", 2)
    keys = stage.qstash.keys
    assert [stage.signed_with(key, 0) for key in (keys.current, keys.next)] == [False, False]
    assert stage.signed_with(keys.current, 1)


async def test_keys_rotate_in_the_middle(stage: Stage) -> None:
    current, following = stage.qstash.keys.current, stage.qstash.keys.next
    stage.qstash.faults = Faults(rotate_every=2)
    for number in range(1, 6):
        await stage.publish()
        await stage.reach("delivered", number)
    assert [stage.signed_with(current, number) for number in range(5)] == [True, True, False, False, False]
    assert [stage.signed_with(following, number) for number in range(5)] == [False, False, True, True, False]
    assert stage.signed_with(stage.qstash.keys.current, 4)


async def test_a_signature_for_another_destination_and_without_padding(stage: Stage) -> None:
    stage.qstash.faults = Faults(wrong_subject=True, unpadded=True)
    await stage.publish()
    await stage.reach("delivered")
    assert stage.claims()["sub"] != stage.hook.url
    assert stage.claims()["body"] == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    stage.qstash.faults = replace(stage.qstash.faults, wrong_subject=False, unpadded=False)
    await stage.publish()
    await stage.reach("delivered", 2)
    assert stage.claims()["sub"] == stage.hook.url
    assert stage.claims()["body"] == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="


async def test_a_share_of_a_fault_is_met_now_and_then(stage: Stage) -> None:
    stage.qstash.faults = Faults(duplicate=0.5)
    for _ in range(40):
        await stage.publish()
    await stage.reach("delivered", 40)
    assert 5 < stage.qstash.counts["duplicated"] < 35


async def test_other_processes_turn_the_knobs_by_http(stage: Stage) -> None:
    told = await stage.caller.call("PUT", "/faults", '{"publish": 503, "skew": -5}')
    assert told.status == 200
    assert stage.qstash.faults == Faults(publish=503, skew=-5)
    assert (await stage.caller.call("GET", "/faults")).json == told.json
    for wrong in ('{"publish": "explode"}', '{"colour": "red"}', "[]"):
        assert (await stage.caller.call("PUT", "/faults", wrong)).status == 400
    assert stage.qstash.faults.publish == 503
    await stage.caller.call("PUT", "/faults", "{}")
    assert stage.qstash.faults == Faults()


async def test_other_processes_see_what_happened_and_let_time_pass_by_http(stage: Stage) -> None:
    await stage.caller.publish(stage.hook.url, "x", upstash_delay="1h")
    before = stage.qstash.clock.now()
    told = await stage.caller.call("POST", "/clock", '{"advance": 3601}')
    assert told.json["now"] - before >= 3601
    await stage.reach("delivered")
    counts = (await stage.caller.call("GET", "/counts")).json
    assert (counts["published"], counts["delivered"], counts["today"]) == (1, 1, 1)
    [delivery] = (await stage.caller.call("GET", "/deliveries")).json
    assert (delivery["url"], delivery["body"], delivery["status"]) == (stage.hook.url, "eA==", 200)
    assert (await stage.caller.call("POST", "/clock", '{"advance": -1}')).status == 400
