"""The embedded server itself: its life from start to stop."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Final, Self
from urllib.parse import quote

from rowvec.domain.errors import ConfigurationError, UsageError
from rowvec.embedded.account import Account, account_for
from rowvec.embedded.data import require_data
from rowvec.embedded.folder import (
    POLL_SECONDS,
    lock_folder,
    make_folder,
    open_log,
    refuse_strange_folder,
    wait_for_predecessor,
)
from rowvec.embedded.programs import START_SECONDS, Programs, find_home, reachable_home

STOP_SECONDS = 30.0
QUIT_SECONDS = 10.0
MAX_SOCKET_PATH_BYTES: Final = 107  # sun_path of unix(7), less the NUL

_DEFAULTS: Final = {"listen_addresses": "", "port": "5432"}
_NOT_DURABLE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_CREATE_DATABASE: Final = rb"""
SELECT 'CREATE DATABASE rowvec' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'rowvec') \gexec
"""


class EmbeddedPostgres:
    """A Postgres of our own in a folder: started, locked, and stopped with this process.

    The folder holds `data`, `socket`, `postgres.log` and `rowvec.lock`; the data stay between runs. Whoever
    can open the socket is let in: its folder is closed to all but the server's user (and root).

    Args:
        folder: where the server lives; made when missing.
        major: version of Postgres, one that the package holds (16 or 18).
        durable: false trades the last commits before a kill, and the data in a power cut, for speed: tests.
        settings: more settings of the server. `listen_addresses` lets in whoever reaches that address.
    """

    def __init__(
        self,
        folder: Path,
        *,
        major: int = 18,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._major = major
        self._durable = durable
        self._settings = {**_DEFAULTS, **({} if durable else _NOT_DURABLE), **(settings or {})}
        self._socket: Path | None = None
        self._server: Popen[bytes] | None = None
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def dsn(self) -> str:
        """The address of the database `rowvec`; known while started."""
        return self.dsn_for("rowvec")

    def dsn_for(self, database: str) -> str:
        """Gives the address of a database of this server, whether it exists or not."""
        if self._socket is None:
            raise UsageError("The embedded Postgres is not started.")
        place = f"host={quote(str(self._socket), safe='/')}&port={self._settings['port']}"
        return f"postgresql:///{quote(database, safe='')}?{place}&user=postgres"

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        if self._server is None:
            raise UsageError("The embedded Postgres is not started.")
        return self._server.pid

    def poll(self) -> int | None:
        """Gives the exit code (negative: the signal) of a server that died by itself, else None."""
        return None if self._server is None else self._server.poll()

    def start(self) -> None:
        """Starts the server and waits until the database `rowvec` is there. Blocks; main thread only.

        Raises:
            ConfigurationError: this is not Linux; the package, the folder or its data don't fit.
            TryAgainError: another process holds the folder.
            DatabaseUnavailableError: the server did not come up; the hint is the end of its log.
            UsageError: started twice, or not from the main thread.
        """
        _require_linux()
        _require_main_thread()
        if self._server is not None and self.poll() is None:
            raise UsageError("The embedded Postgres is started already.")
        self.stop()
        with ExitStack() as held:
            programs = self._prepare(held)
            wait_for_predecessor(self._folder)
            require_data(self._data, programs, major=self._major, durable=self._durable)
            self._serve(programs, held)
            self._held = held.pop_all()

    def stop(self) -> None:
        """Shuts the server down cleanly, waits for it and frees the folder; nothing when not started."""
        self._held.close()

    def _prepare(self, held: ExitStack) -> Programs:
        refuse_strange_folder(self._folder)
        account = account_for(self._data)
        make_folder(self._folder, 0o711 if os.geteuid() == 0 else 0o700)
        if closed := account.first_closed(self._folder):
            raise ConfigurationError(
                f"{self._folder} can't be reached by user id {account.uid}: {closed} is closed to others.",
                f"Postgres never runs as root. Choose another folder, or `chmod o+x '{closed}'` yourself.",
            )
        held.callback(os.close, lock_folder(self._folder))
        log = open_log(self._folder)
        held.callback(os.close, log)
        home = reachable_home(find_home(self._major), account, beside=self._folder / "programs")
        return Programs(home, account, self._folder, log)

    def _serve(self, programs: Programs, held: ExitStack) -> None:
        held.callback(self._forget)
        self._socket = self._make_socket_folder(programs.account, held)
        settings = {**self._settings, "unix_socket_directories": str(self._socket)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._server = programs.spawn("postgres", "-D", self._data, *options)
        held.callback(_shut_down, self._server)
        self._await_ready(self._server, programs)
        place = ("-h", self._socket, "-p", self._settings["port"], "-U", "postgres", "-d", "postgres")
        if not programs.run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", *place, feed=_CREATE_DATABASE):
            raise programs.failure("The database rowvec could not be created.")

    def _make_socket_folder(self, account: Account, held: ExitStack) -> Path:
        folder = self._folder / "socket"
        if _fits_address(folder / f".s.PGSQL.{self._settings['port']}"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)  # made anew: a link put in its place fails here
        else:
            # /tmp and not $TMPDIR, which may be long itself or closed to the user; the name is private.
            folder = Path(tempfile.mkdtemp(prefix="rowvec-", dir="/tmp"))
            held.callback(shutil.rmtree, folder, ignore_errors=True)
        os.lchown(folder, account.uid, account.gid)
        return folder

    def _await_ready(self, server: Popen[bytes], programs: Programs) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _says_ready(self._data / "postmaster.pid", server.pid):
            if (code := server.poll()) is not None:
                raise programs.failure(f"The embedded Postgres ended while starting, with exit code {code}.")
            if time.monotonic() > deadline:
                raise programs.failure(f"The embedded Postgres was not ready after {START_SECONDS:g} s.")
            time.sleep(POLL_SECONDS)

    def _forget(self) -> None:
        self._server = self._socket = None


def _require_linux() -> None:
    if sys.platform != "linux":
        raise ConfigurationError(
            f"The embedded Postgres runs on Linux only, and this is {sys.platform}.",
            "Use any Postgres with pgvector instead: give its address in DATABASE_URL.",
        )


def _require_main_thread() -> None:
    # The death signal follows the thread that forks: the server would stop when that thread ends.
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("The embedded Postgres must be started from the main thread.")


def _fits_address(path: Path) -> bool:
    """Tells whether a socket can have this path and an address can name it (commas separate hosts)."""
    text = str(path)
    short = len(os.fsencode(text)) <= MAX_SOCKET_PATH_BYTES
    return short and text.isprintable() and not {",", '"'} & set(text)


def _says_ready(pid_file: Path, pid: int) -> bool:
    """Reads the postmaster's state as pg_ctl does: the pid is line 1, the state line 8 (utils/pidfile.h)."""
    with suppress(OSError, IndexError):
        lines = pid_file.read_bytes().splitlines()
        return lines[0].strip() == str(pid).encode() and lines[7].strip() == b"ready"
    return False


def _shut_down(server: Popen[bytes]) -> None:
    """Asks for a fast shutdown, then an immediate one; after those two fail, kills: Postgres recovers."""
    for how, seconds in (
        (signal.SIGINT, STOP_SECONDS),
        (signal.SIGQUIT, QUIT_SECONDS),
        (signal.SIGKILL, QUIT_SECONDS),
    ):
        server.send_signal(how)
        with suppress(TimeoutExpired):
            server.wait(seconds)
            return
