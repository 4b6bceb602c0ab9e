"""`rowvec qstash dev`: the local QStash as a command."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest
from qstash import AsyncQStash
from qstash import Receiver as OfficialReceiver

from commands import EXPECTED_SECONDS, begun, ended, rowvec
from local_qstash import receiving, within


async def exports(command: asyncio.subprocess.Process, count: int) -> dict[str, str]:
    """Return what it says to export."""
    assert command.stdout is not None
    async with asyncio.timeout(EXPECTED_SECONDS):
        lines = [(await command.stdout.readline()).decode() for _ in range(count)]
    assert all(line.startswith("export ") for line in lines)
    return dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_it_is_stopped(stop: signal.Signals) -> None:
    async with receiving() as hook, begun(None, "qstash", "dev", "--port", "0", "--speed", "1000") as command:
        told = await exports(command, 5)
        sdk = AsyncQStash(told["QSTASH_TOKEN"], base_url=told["QSTASH_URL"], retry=False)
        await sdk.message.publish(url=hook.url, body="x", delay=60)
        await within(hook.came.wait())
        await sdk.http._client.aclose()  # noqa: SLF001 - it has no other way to be closed
        receiver = OfficialReceiver(told["QSTASH_CURRENT_SIGNING_KEY"], told["QSTASH_NEXT_SIGNING_KEY"])
        receiver.verify(signature=hook.requests[0].headers["upstash-signature"], body="x", url=hook.url)
        assert told["ROWVEC_DEVELOPMENT"] == "true"
        command.send_signal(stop)
        done = await ended(command)
    assert done.code == 0
    assert "keys are public" in done.err


async def test_an_address_that_is_taken_is_a_configuration_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = await rowvec(None, "qstash", "dev", "--port", str(taken.getsockname()[1]))
    assert done.code == 78
    assert "Can't listen on 127.0.0.1" in done.err
    assert done.out == ""


async def test_an_unknown_plan_is_refused() -> None:
    done = await rowvec(None, "qstash", "dev", "--plan", "gold")
    assert done.code == 2
    assert "free, payg" in done.err
