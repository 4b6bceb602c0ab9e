"""`rowvec demo`: a database, a daemon and a model of our own, seen at work."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import typer
import uvloop

from rowvec.app.daemon import Daemon
from rowvec.app.embedders import make_embedder
from rowvec.cli.demo_qstash import Carried, through_qstash, without_qstash
from rowvec.cli.demo_scenes import complaints, play
from rowvec.cli.demo_screen import Screen
from rowvec.cli.demo_stage import Figures, Stage
from rowvec.cli.demo_tables import make_tables
from rowvec.cli.output import Json, cause_of, print_json
from rowvec.domain.errors import RowvecError
from rowvec.domain.lanes import Lane
from rowvec.embedded import EmbeddedPostgres
from rowvec.logs import configure_logs
from rowvec.postgres.administration import administration, migrate_database
from rowvec.qstash_dev.server import local_qstash
from rowvec.settings import Settings, load_settings
from rowvec.systemd import Notifier

DEFAULT_FOLDER: Final = Path(".rowvec/demo")
INTERRUPTED: Final = 130
PROBES: Final = ("healthz", "readyz", "livez", "metrics")


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End when all is shown; without it the daemon serves on.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where its Postgres lives. [default: .rowvec/demo]")
    ] = None,
    qstash: Annotated[bool, typer.Option("--qstash", help="Let a local QStash carry the work.")] = False,
    json: Json = False,
) -> int:
    """See rowvec at work on a small database that it brings along.

    It starts a Postgres of its own with the application of the preset studify: users, profiles, courses, lessons,
    posts and comments in English and Chinese. It embeds and searches them, plays what happens in such an application,
    and measures how soon a changed row has its new vector. Then it serves until Ctrl-C.

    DATABASE_URL and ROWVEC_LISTEN_DATABASE_URL are not used, so no database of yours is touched; and no QStash that is
    set gets anything. With --qstash the lanes immediate and standard go out in messages, so that there is something to
    see at once. All other settings are respected; logs begin at warning unless ROWVEC_LOG_LEVEL says otherwise.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: in the background of a script it comes ignored
        signal.signal(number, signal.default_int_handler)
    settings = _load(None)
    configure_logs(settings.log_level, settings.log_format)
    screen = Screen(aside=json, quiet_logs=settings.log_level in {"warning", "error"})
    with _home(folder, screen) as home:
        screen.say(f"Starting a Postgres of our own in {home}")
        began = time.perf_counter()
        with EmbeddedPostgres(home) as postgres:
            screen.say(f"It is up after {time.perf_counter() - began:.1f} s.")
            return uvloop.run(_Demo(_load(postgres.dsn), screen, once=once, json=json, qstash=qstash).run())


def _load(dsn: str | None) -> Settings:
    """Read the settings, with what the demo wants otherwise: the database, quiet logs and a port that is free."""
    found = load_settings(DATABASE_URL=dsn, ROWVEC_LISTEN_DATABASE_URL=None)
    update: Figures = {"http_port": _free_port(found.http_host, found.http_port)}
    if "log_level" not in found.model_fields_set:
        update["log_level"] = "warning"
    if "log_format" not in found.model_fields_set and sys.stderr.isatty():
        update["log_format"] = "console"
    return found.model_copy(update=update)


def _free_port(host: str, port: int) -> int:
    """Return the port, or another one when somebody has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        free = socket.create_server((host, port), family=family)
    except OSError:
        free = socket.create_server((host, 0), family=family)
    with free:
        return int(free.getsockname()[1])


@contextmanager
def _home(folder: Path | None, screen: Screen) -> Iterator[Path]:
    """Give the folder asked for, the default one, or, where Postgres could not live in that, a temporary one."""
    if folder is not None or _can_hold_postgres(DEFAULT_FOLDER.resolve()):
        yield folder or DEFAULT_FOLDER
        return
    # Not $TMPDIR: it may be closed to others too.
    with TemporaryDirectory(prefix="rowvec-demo-", dir="/tmp", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        screen.say(f"Postgres can't live in {DEFAULT_FOLDER} here: {Path.cwd()} is closed to its user.")
        screen.say("A temporary folder takes its place and is removed at the end; --folder chooses another.")
        yield Path(name) / "postgres"


def _can_hold_postgres(folder: Path) -> bool:
    """Tell whether the folder can be made and, for root, reached by the other user that Postgres then runs as."""
    there = next(step for step in (folder, *folder.parents) if step.exists())
    if os.geteuid() == 0:
        return all(step.stat().st_mode & stat.S_IXOTH for step in (there, *there.parents))
    return os.access(there, os.W_OK | os.X_OK)


@dataclass(frozen=True, slots=True)
class _Demo:
    """The part that needs an event loop."""

    settings: Settings
    screen: Screen
    once: bool
    json: bool
    qstash: bool

    async def run(self) -> int:
        """Show everything; return the exit code."""
        main = asyncio.current_task()
        assert main is not None  # noqa: S101 - a coroutine runs in a task
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, main.cancel)
        try:
            await self._run()
        except asyncio.CancelledError:
            self.screen.say("Interrupted.")
            return INTERRUPTED
        except BaseExceptionGroup as group:
            raise cause_of(group) from None
        return 0

    async def _run(self) -> None:
        if not self.qstash:
            await self._work(without_qstash(self.settings))
            return
        async with local_qstash() as qstash:
            settings = through_qstash(self.settings, qstash)
            lanes = [lane for lane in Lane if lane in settings.qstash_lanes]
            self.screen.say(f"A local QStash at {qstash.url} carries the work of the lanes {', '.join(lanes)}.")
            await self._work(settings, Carried(qstash, lanes))

    async def _work(self, settings: Settings, carried: Carried | None = None) -> None:
        models = settings.active_models
        embedders = {name: make_embedder(name, model) for name, model in models.items()}
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        daemon = Daemon(
            settings,
            Notifier(),
            lambda name, way: embedders.get(name) or make_embedder(name, way),
            lambda address: None if ready.done() else ready.set_result(address),  # done: cancelled by Ctrl-C
        )
        dsn = settings.dsn
        await migrate_database(dsn, {name: model.dimensions for name, model in models.items()}, sole=True)
        async with administration(dsn) as database, administration(dsn) as watcher, asyncio.TaskGroup() as group:
            await make_tables(database)
            working = group.create_task(daemon.run())
            stage = Stage(dsn, database, watcher, list(embedders.values()), daemon.metrics, self.screen, carried)
            try:
                await self._show(stage, await ready)
            finally:
                daemon.stop.set()
                await asyncio.wait([working])

    async def _show(self, stage: Stage, address: str) -> None:
        figures = await play(stage)
        if self.json:
            print_json({**figures, "addresses": self._addresses(address)})
            sys.stdout.flush()
        if not self.once:
            self._tell_addresses(address)
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        elif wrong := complaints(figures):
            raise RowvecError(" ".join(wrong), "Is another model set, or the machine very busy?")

    def _addresses(self, address: str) -> dict[str, str]:
        return {**{name: f"{address}/{name}" for name in PROBES}, "database_url": self.settings.dsn}

    def _tell_addresses(self, address: str) -> None:
        self.screen.head("Look around")
        for name in PROBES:
            self.screen.say(f"  {address}/{name}")
        self.screen.say(f"  export DATABASE_URL='{self.settings.dsn}'")
        program = Path(sys.argv[0])
        self.screen.say(f"  {program} status    {program} search 'a pet for a child'")
        self.screen.head("Serving until Ctrl-C.")
