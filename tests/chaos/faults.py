"""What goes wrong: daemons are frozen, killed, stopped and cut off; models are down, slow and broken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import asyncpg

from chaos.model_server import ModelServer, Mood
from daemons import Process, eventually, process
from database import MODELS
from embedding_servers import API_KEY

CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'rowvec' AND datname = current_database() AND random() < 0.5
"""
UNDESERVED = ("item.retried", "item.failed")
"""No item of this test is at fault for anything, so none may have an attempt counted."""


class Times:
    """One round of chaos.

    Args:
        seconds: how long it lasts.

    Attributes:
        settled: is set when all has been done that was to be done.
    """

    def __init__(self, seconds: float) -> None:
        self.settled = asyncio.Event()
        self._seconds = seconds
        self._began = time.monotonic()

    def over(self) -> bool:
        return time.monotonic() > self._began + self._seconds

    def half_over(self) -> bool:
        return time.monotonic() > self._began + self._seconds / 2


def daemon(dsn: str, servers: Mapping[str, ModelServer]) -> AbstractAsyncContextManager[Process]:
    """Start a daemon whose models are the given servers."""
    settings: dict[str, str] = {}
    for name, server in servers.items():
        for what, value in {
            "PROVIDER": "sentence_transformers",
            "URL": server.url,
            "API_KEY": API_KEY,
            "DIMENSIONS": str(MODELS[name]),
            "CONCURRENCY": "3",
            "TIMEOUT_SECONDS": "10",
        }.items():
            settings[f"ROWVEC_MODEL_{name.upper()}_{what}"] = value
    return process(dsn, **settings)


async def suffer(
    start: Callable[[], AbstractAsyncContextManager[Process]],
    dsn: str,
    chance: random.Random,
    times: Times,
    done: list[str],
) -> None:
    """Run daemons one after another; each is frozen, cut off, stopped or killed, and none may end by itself.

    When the time is over, the last one is let alone until all is settled, and stopped.
    """
    while True:
        async with start() as victim, blamed(victim):
            await eventually(lambda: has_begun(victim), what="the daemon does not begin")
            for fault in [*chance.choices(["freeze", "cut"], k=2), chance.choice(["kill", "stop"])]:
                await live(victim, chance.uniform(0.3, 2.5))
                if times.over():
                    while not times.settled.is_set():
                        await live(victim, 0.2)
                    await _strike("stop", victim, dsn, chance)
                    return
                done.append(fault)
                await _strike(fault, victim, dsn, chance)


async def has_begun(victim: Process) -> bool:
    return "listener.ready" in victim.log.read_text()


async def live(victim: Process, seconds: float) -> None:
    """Let a daemon work, and see that it does not end."""
    with contextlib.suppress(TimeoutError):
        code = await asyncio.wait_for(victim.wait(), seconds)
        raise AssertionError(f"a daemon ended by itself with {code}:\n{tail(victim)}")


async def _strike(fault: str, victim: Process, dsn: str, chance: random.Random) -> None:
    match fault:
        case "freeze":
            victim.send(signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0.2, 6.0))
            victim.send(signal.SIGCONT)
        case "cut":
            session = await asyncpg.connect(dsn)
            await session.execute(CUT)
            await session.close()
        case "stop":
            victim.send(signal.SIGTERM)
            code = await victim.wait()
            assert code == 0, f"a daemon ended with {code}:\n{tail(victim)}"
        case "kill":
            victim.send(signal.SIGKILL)
            await victim.wait()


async def storm(server: ModelServer, chance: random.Random, over: Callable[[], bool], done: list[str]) -> None:
    """Let a model be down, slow and broken, each time after having been fine for a while."""
    while not over():
        await asyncio.sleep(chance.uniform(1.0, 5.0))
        await server.behave(chance.choice([mood for mood in Mood if mood is not Mood.FINE]))
        done.append(server.mood.value)
        await asyncio.sleep(chance.uniform(0.5, 4.0))
        await server.behave(Mood.FINE)


def tails(victims: Sequence[Process]) -> str:
    return "\n".join(f"log of {victim.pid}:\n{tail(victim)}" for victim in victims if victim.log.exists())


@contextlib.asynccontextmanager
async def blamed(victim: Process) -> AsyncIterator[None]:
    """See at the end that a daemon has blamed no item for the faults around it."""
    yield
    lines = victim.log.read_text().splitlines()
    wrong = [line for line in lines if json_event(line) in UNDESERVED]
    assert not wrong, "\n".join(wrong[:5])


def json_event(line: str) -> str:
    """Return the event of a line of the log; none in the half line of a killed daemon."""
    try:
        return str(json.loads(line).get("event", ""))
    except ValueError:
        return ""


def tail(victim: Process) -> str:
    return victim.log.read_text()[-3000:]
