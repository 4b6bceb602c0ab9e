"""The rules by which the local QStash reads, waits and signs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import time
from email.utils import formatdate

import jwt
import pytest

from rowvec.qstash_dev.clock import Clock
from rowvec.qstash_dev.durations import parse_duration, parse_reset
from rowvec.qstash_dev.expressions import evaluate
from rowvec.qstash_dev.faults import Faults, read_faults
from rowvec.qstash_dev.options import FlowControl, collect, read_options
from rowvec.qstash_dev.refusals import RefusalError
from rowvec.qstash_dev.retries import backoff, is_final, retry_delay
from rowvec.qstash_dev.schedules import read_cron
from rowvec.qstash_dev.signing import CURRENT_KEY, Keys, new_key, sign

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


@pytest.mark.parametrize(
    ("text", "seconds"), [("50s", 50), ("1d10h30m", 124_200), ("0s", 0), ("1m1m", 120), ("7d", 604_800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "1.5s", "5w", "5s!"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 1.5 ", 1.5),
        ("6m5s", 365),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("1h1ns", 3600.000000001),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), 0),
        ("soon", None),
        ("", None),
    ],
)
def test_when_a_receiver_wants_to_be_asked_again(text: str, seconds: float | None) -> None:
    assert parse_reset(text, NOW) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("expression", "retried", "milliseconds"),
    [
        ("1000", 0, 1000),
        ("1000 * (1 + retried)", 2, 3000),
        ("pow(2, retried) * 100", 3, 800),
        ("max(10, pow(2, retried))", 1, 10),
        ("min(5000, exp(retried))", 0, 1),
        ("round(floor(2.7) + ceil(0.1) + abs(-3) + sqrt(16))", 0, 10),
        ("7 % 4 - -1", 0, 4),
    ],
)
def test_expressions(expression: str, retried: int, milliseconds: float) -> None:
    assert evaluate(expression, retried) == milliseconds


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "retries",
        "1 +",
        "__import__('os').getcwd()",
        "().__class__",
        "open('x')",
        "'a' * 9",
        "True",
        "2 ** 9",
        "[1][0]",
        "pow(9, 999999)",
        "pow()",
        "1 / 0",
        "-1",
        "min(retried=1)",
        "1+" * 400 + "1",
        "exp(1000)",
        "sqrt(-1)",
    ],
)
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        evaluate(expression, 0)


def test_the_backoff_of_the_documentation() -> None:
    assert [round(backoff(retried)) for retried in range(6)] == [12, 148, 1808, 22026, 86400, 86400]


def test_a_retry_waits_as_the_receiver_or_the_publisher_says() -> None:
    assert retry_delay(0, None, {}, NOW) == backoff(0)
    assert retry_delay(1, "1000 * (1 + retried)", {}, NOW) == 2
    assert retry_delay(1, "1000", {"retry-after": "9"}, NOW) == 9
    assert retry_delay(0, None, {"x-ratelimit-reset-tokens": "6m5s"}, NOW) == 365
    assert retry_delay(0, "1000", {"retry-after": "86401"}, NOW) == 1
    assert retry_delay(0, "1000", {"retry-after": "soon", "x-ratelimit-reset": "3"}, NOW) == 3
    assert retry_delay(3, "1000 / (3 - retried)", {}, NOW) == backoff(3)


def test_only_the_status_and_the_header_together_are_final() -> None:
    assert is_final(489, {"upstash-nonretryable-error": "true"})
    assert not is_final(489, {})
    assert not is_final(400, {"upstash-nonretryable-error": "true"})


def test_a_signature_is_that_of_the_documentation() -> None:
    body = b"\xff\xfe\x00"
    token = sign(CURRENT_KEY, "https://app.example.com/hook?a=b", body, NOW + 0.9)
    claims = jwt.decode(token, CURRENT_KEY, algorithms=["HS256"], options={"verify_exp": False})
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert claims.pop("jti")
    assert claims == {
        "iss": "Upstash",
        "sub": "https://app.example.com/hook?a=b",
        "iat": 1_700_000_000,
        "exp": 1_700_000_300,
        "nbf": 0,
        "body": base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode(),
    }
    empty = jwt.decode(sign(CURRENT_KEY, "x", b"", time.time()), CURRENT_KEY, algorithms=["HS256"])
    assert empty["body"] == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="
    unpadded = jwt.decode(sign(CURRENT_KEY, "x", b"", time.time(), padded=False), CURRENT_KEY, algorithms=["HS256"])
    assert unpadded["body"] == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"


def test_keys_rotate() -> None:
    keys = Keys()
    following = keys.next
    keys.rotate()
    assert keys.current == following
    assert keys.next not in {CURRENT_KEY, following}
    assert len(new_key()) == len(CURRENT_KEY)


@pytest.mark.parametrize(
    ("line", "ticks"),
    [
        ("*/5 * * * *", ["22:15:00", "22:20:00"]),
        ("0 2 * * *", ["02:00:00", "02:00:00"]),
        ("CRON_TZ=Europe/Berlin 0 2 * * *", ["01:00:00", "01:00:00"]),
        ("CRON_TZ=Asia/Kolkata 0 3 * * 0", ["21:30:00", "21:30:00"]),
    ],
)
def test_cron_lines(line: str, ticks: list[str]) -> None:
    cron = read_cron(line)
    first = cron.after(NOW)
    found = [time.strftime("%H:%M:%S", time.gmtime(moment)) for moment in (first, cron.after(first))]
    assert found == ticks


@pytest.mark.parametrize(
    "line", ["", "* * * *", "* * * * * *", "61 * * * *", "CRON_TZ=Nowhere/Town * * * * *", "CRON_TZ=../etc * * * * *"]
)
def test_what_is_no_cron_line(line: str) -> None:
    with pytest.raises(RefusalError, match="invalid cron") as refused:
        read_cron(line)
    assert refused.value.status == 400


def test_a_cron_line_that_never_comes_is_refused() -> None:
    with pytest.raises(RefusalError, match="invalid cron"):
        read_cron("0 0 30 2 *").after(NOW)


def test_options_come_from_headers_and_parameters() -> None:
    given = collect(
        [("Content-Type", "a/b"), ("Upstash-Forward-x-kind", "1"), ("UPSTASH-RETRIES", "2"), ("X-Other", "no")],
        [("upstash-retries", "9"), ("upstash-delay", "1m"), ("retries", "7"), ("Upstash-Label", "a, b")],
    )
    options = read_options(given)
    assert options.headers == {"Content-Type": ("a/b",), "X-Kind": ("1",)}
    assert (options.retries, options.delay, options.labels, options.method) == (2, 60, ("a", "b"), "POST")


def test_all_headers_are_forwarded_on_demand() -> None:
    options = read_options(
        collect([("Upstash-Header-Forward", "true"), ("X-Other", "yes"), ("Authorization", "secret"), ("Host", "here")])
    )
    assert options.headers == {"X-Other": ("yes",)}


def test_flow_control_is_read() -> None:
    def read(value: str) -> FlowControl | None:
        return read_options(collect([("Upstash-Flow-Control-Key", "k"), ("Upstash-Flow-Control-Value", value)])).flow

    assert read("parallelism=3, rate=10, period=1m") == FlowControl("k", 3, 10, 60)
    assert read("rate=10") == FlowControl("k", None, 10, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upstash-Method", "HEAD"),
        ("Upstash-Retries", "-1"),
        ("Upstash-Retries", "²"),
        ("Upstash-Delay", "5"),
        ("Upstash-Not-Before", "tomorrow"),
        ("Upstash-Timeout", "1"),
        ("Upstash-Callback", "host/path"),
        ("Upstash-Failure-Callback", "ftp://host"),
        ("Upstash-Deduplication-Id", "a:b"),
        ("Upstash-Retry-Delay", "retries"),
        ("Upstash-Schedule-Id", "a b"),
        ("Upstash-Queue-Name", "a/b"),
    ],
)
def test_what_is_no_option(name: str, value: str) -> None:
    with pytest.raises(RefusalError) as refused:
        read_options(collect([(name, value)]))
    assert refused.value.status == 400


@pytest.mark.parametrize("value", ["", "parallelism", "parallelism=0", "speed=3", "rate=1, period=8d", "rate=x"])
def test_what_is_no_flow_control(value: str) -> None:
    with pytest.raises(RefusalError, match="Flow-Control"):
        read_options(collect([("Upstash-Flow-Control-Key", "k"), ("Upstash-Flow-Control-Value", value)]))


@pytest.mark.parametrize(
    "given",
    [
        {"publish": "explode"},
        {"publish": 200},
        {"manage": True},
        {"drop": "often"},
        {"reorder": 1},
        {"speed": 2},
    ],
)
def test_a_fault_that_is_misspelt_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_faults(given)


def test_faults_are_read() -> None:
    assert read_faults({"publish": 503, "drop": 1}) == Faults(publish=503, drop=1)


async def test_a_clock_runs_as_fast_as_it_is_told() -> None:
    clock, before = Clock(speed=100_000), time.time()
    started = clock.now()
    await clock.sleep(3600)
    assert clock.now() - started >= 3600
    assert time.time() - before < 10
    assert math.isclose(clock.wall(), time.time(), abs_tol=1)


async def test_a_jump_wakes_who_slept_until_then_and_no_other() -> None:
    clock, woken = Clock(), list[str]()

    async def sleep(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(sleep("late", 100))
        gone = group.create_task(sleep("gone", 1))
        group.create_task(sleep("early", 50))
        await asyncio.sleep(0)
        gone.cancel()
        clock.advance(60)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert woken == ["early"]
        clock.advance(60)
    assert woken == ["early", "late"]


async def test_others_are_waited_for_by_the_time_of_the_machine() -> None:
    clock = Clock(speed=1_000_000)
    async with clock.timeout(30):
        await clock.sleep(60)


async def test_a_jump_ends_what_others_are_waited_for() -> None:
    clock = Clock()

    async def wait() -> None:
        async with clock.timeout(30):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    clock.advance(31)
    with pytest.raises(TimeoutError):
        await waiting


async def test_limits_of_time_that_nobody_ran_into_are_forgotten() -> None:
    clock, kept = Clock(), list[int]()
    clock.call_at(clock.now() + 50, lambda: kept.append(1))
    for _ in range(5000):
        async with clock.timeout(7200):
            pass
    assert clock.pending <= 1001
    clock.advance(51)
    assert kept == [1]
