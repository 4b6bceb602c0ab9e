"""`rowvec run`: the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer
import uvloop

from rowvec.app.daemon import Daemon
from rowvec.cli.output import cause_of, console
from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.embedded import EmbeddedPostgres
from rowvec.logs import configure_logs
from rowvec.postgres.administration import Migrated, migrate_database
from rowvec.postgres.presets import Preset, install_preset, load_preset
from rowvec.settings import Settings, load_settings
from rowvec.systemd import Notifier

GUARD_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


def run(
    embedded: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Bring a Postgres of our own, with its data in DIR; migrates it too."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Install this preset in the Postgres of our own.")
    ] = None,
) -> int:
    """Keep vectors true to their rows until SIGTERM or Ctrl-C."""
    if preset is not None and embedded is None:
        raise typer.BadParameter(
            f"A database that is not its own is never changed by `run`: use `rowvec migrate --preset {preset}`.",
            param_hint="--preset",
        )
    wanted = None if preset is None else load_preset(preset)
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    with ExitStack() as stack:
        if embedded is None:
            settings.dsn  # noqa: B018 - refused before anything is served
            return uvloop.run(_serve(settings, None, None))
        postgres = stack.enter_context(EmbeddedPostgres(embedded))
        log.info("postgres.ready", database_url=postgres.dsn, folder=str(embedded))
        console(aside=True).print(f"The database is reached by\n\n  export DATABASE_URL='{postgres.dsn}'\n")
        settings = load_settings(DATABASE_URL=postgres.dsn, ROWVEC_LISTEN_DATABASE_URL=None)
        return uvloop.run(_serve(settings, postgres, wanted))


async def _serve(settings: Settings, postgres: EmbeddedPostgres | None, preset: Preset | None) -> int:
    daemon = Daemon(settings, Notifier.from_environment(os.environ))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop.set)
    loop.add_signal_handler(signal.SIGHUP, daemon.look_again)
    guard = None
    if postgres is not None:
        models = {name: model.dimensions for name, model in settings.active_models.items()}
        _tell(await migrate_database(settings.dsn, models, settings.models_off, sole=True))
        if preset is not None:
            installed = await install_preset(settings.dsn, preset)
            log.info("preset.installed", preset=preset.name, sources=installed.sources)
        guard = asyncio.create_task(_stop_with(postgres, daemon))
    try:
        await daemon.run()
    except BaseExceptionGroup as group:
        raise cause_of(group) from None
    if guard is not None and guard.done():
        raise DatabaseUnavailableError("The embedded Postgres has ended by itself.", "Its log says why: postgres.log.")
    return 0


def _tell(done: Migrated) -> None:
    """Say which models came and went: another may be searched now."""
    for name in done.added:
        log.info("model.added", model=name)
    for name in done.activated:
        log.info("model.activated", model=name)
    for name in done.deactivated:
        log.info("model.deactivated", model=name)


async def _stop_with(postgres: EmbeddedPostgres, daemon: Daemon) -> None:
    """Stop the daemon when its own Postgres ends: nobody else would start it again."""
    while postgres.poll() is None:  # noqa: ASYNC110 - a process is no event
        await asyncio.sleep(GUARD_SECONDS)
    daemon.stop.set()
