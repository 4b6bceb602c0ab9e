"""The server's folder: making and locking it, its log, and whoever may still be at work in it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from rowvec.domain.errors import ConfigurationError, TryAgainError

PREDECESSOR_SECONDS = 30.0
POLL_SECONDS: Final = 0.01
MAX_LOG_BYTES = 10_000_000
LOG: Final = "postgres.log"


def make_folder(folder: Path, mode: int) -> None:
    """Makes a folder with this mode whatever the umask; one that exists is left as it is."""
    try:
        folder.mkdir(parents=True)
        folder.chmod(mode)
    except FileExistsError:
        return
    except OSError as error:
        raise ConfigurationError(f"{folder} can't be made: {error}.", "Choose a folder you own.") from error


def refuse_strange_folder(folder: Path) -> None:
    """Refuses a folder with things in it that are not ours: a database does not belong among them."""
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder.", "Choose an empty folder, or one that does not exist yet.")
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if names and not names & {"rowvec.lock", "data"}:
        raise ConfigurationError(f"{folder} is not empty.", "Choose an empty folder, or one that does not exist yet.")


def lock_folder(folder: Path) -> int:
    """Locks the folder while the descriptor is open; the file stays, for its removal would be a race."""
    try:
        lock = os.open(folder / "rowvec.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{folder} can't be used: {error}.", "Choose a folder you own.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode().strip() or "(just starting)"
        os.close(lock)
        raise TryAgainError(f"{folder} is in use by process {holder}.", "Stop that one first.") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def open_log(folder: Path) -> int:
    """Opens the log to append to; a long one is put aside first."""
    log = folder / LOG
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(folder / f"{LOG}.1")
    return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def sync_folder(folder: Path) -> None:
    """Makes what was renamed in the folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def wait_for_predecessor(folder: Path) -> None:
    """Waits for what a killed daemon left: an initdb or server on its way down, or orphaned backends."""
    deadline = time.monotonic() + PREDECESSOR_SECONDS
    places = (folder, (folder / "data").resolve())
    while pids := [process.name for process in Path("/proc").glob("[0-9]*") if _serves(process, places)]:
        if time.monotonic() > deadline:
            raise TryAgainError(f"{folder} is still in use by Postgres ({', '.join(pids)}).", "Stop it first.")
        time.sleep(POLL_SECONDS)


def _serves(process: Path, places: Collection[Path]) -> bool:
    """Tells whether a program of Postgres works in one of the places, or in a data folder being made."""
    with suppress(OSError):  # it ended in between, or is another user's
        place = (process / "cwd").readlink()
        if place in places or place.parent in places:
            return (process / "comm").read_text().strip() in {"postgres", "initdb"}
    return False
