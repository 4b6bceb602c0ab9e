"""`rowvec qstash dev`: a QStash of one's own."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated, Final

import typer
import uvloop

from rowvec.cli.output import console
from rowvec.domain.errors import ConfigurationError
from rowvec.qstash_dev.plans import PLANS
from rowvec.qstash_dev.signing import Keys

HOST: Final = "127.0.0.1"
PORT: Final = 8080


def dev(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = HOST,
    port: Annotated[int, typer.Option(help="0 takes any that is free.", min=0, max=65535)] = PORT,
    speed: Annotated[
        float, typer.Option(help="How many times as fast its clock runs: delays, retries, schedules.", min=0.001)
    ] = 1.0,
    plan: Annotated[str, typer.Option(help=f"Whose limits hold: {', '.join(PLANS)}.")] = "payg",
) -> int:
    """Serve a QStash for developing offline, until SIGTERM or Ctrl-C. It keeps everything in memory."""
    if plan not in PLANS:
        raise typer.BadParameter(f"There are {', '.join(PLANS)}.", param_hint="--plan")
    return uvloop.run(_serve(host, port, speed, plan))


async def _serve(host: str, port: int, speed: float, plan: str) -> int:
    from rowvec.qstash_dev.server import local_qstash  # noqa: PLC0415 - the other commands of `qstash` serve nothing

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with local_qstash(host, port, speed=speed, plan=PLANS[plan]) as qstash:
            _introduce(qstash.url, qstash.token, qstash.keys)
            await stop.wait()
    except OSError as error:
        raise ConfigurationError(
            f"Can't listen on {host}:{port}: {error.strerror or error}.", "Choose another by --port."
        ) from error
    return 0


def _introduce(url: str, token: str, keys: Keys) -> None:
    """Print what a shell needs: it can be copied, or read by `eval`."""
    console().print(
        f"export QSTASH_URL={url}\n"
        f"export QSTASH_TOKEN={token}\n"
        f"export QSTASH_CURRENT_SIGNING_KEY={keys.current}\n"
        f"export QSTASH_NEXT_SIGNING_KEY={keys.next}\n"
        "export ROWVEC_DEVELOPMENT=true",
        markup=False,
    )
    console(aside=True).print("A QStash listens there until Ctrl-C. Its keys are public: never use them elsewhere.")
