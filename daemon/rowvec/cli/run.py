"""`rowvec run`: the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop

from rowvec.app import Daemon
from rowvec.cli.output import console
from rowvec.domain.errors import RowvecError
from rowvec.embedded import EmbeddedPostgres
from rowvec.logs import configure_logs
from rowvec.postgres.administration import migrate_database
from rowvec.settings import Settings, load_settings
from rowvec.systemd import Notifier

log = structlog.get_logger(__name__)


def run(
    embedded: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Bring a Postgres of our own, with its data in DIR; migrates it too."),
    ] = None,
) -> int:
    """Keep vectors true to their rows until SIGTERM or Ctrl-C."""
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    with ExitStack() as stack:
        if embedded is not None:
            postgres = stack.enter_context(EmbeddedPostgres(embedded))
            log.info("postgres.ready", database_url=postgres.dsn, folder=str(embedded))
            console(aside=True).print(f"The database is reached by\n\n  export DATABASE_URL='{postgres.dsn}'\n")
            settings = load_settings(DATABASE_URL=postgres.dsn, ROWVEC_LISTEN_DATABASE_URL=None)
        return uvloop.run(_serve(settings, prepare=embedded is not None))


async def _serve(settings: Settings, *, prepare: bool) -> int:
    if prepare:
        models = {name: model.dimensions for name, model in settings.active_models.items()}
        await migrate_database(settings.dsn, models)
    daemon = Daemon(settings, Notifier.from_environment(os.environ))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop.set)
    loop.add_signal_handler(signal.SIGHUP, daemon.look_again)
    try:
        await daemon.run()
    except* RowvecError as group:
        # What a room raises on purpose is told like any other error; what it does not, ends in a traceback.
        raise _first(group) from None
    return 0


def _first(group: BaseExceptionGroup[RowvecError]) -> RowvecError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
