"""What Linux knows about a process."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Megabytes of a process: resident now, and the most that ever were."""

    resident: float
    highest: float


def memory(pid: int) -> Memory:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    kilobytes = {name: int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM")}
    return Memory(round(kilobytes["VmRSS"] / 1024, 1), round(kilobytes["VmHWM"] / 1024, 1))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, 0 for one that has ended (proc_pid_stat(5), fields 14 and 15)."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return 0.0


async def daemon_backends(session: asyncpg.Connection) -> list[int]:
    """The Postgres processes that serve the daemons of this session's database."""
    rows = await session.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rowvec'"
    )
    return [row["pid"] for row in rows]


class Usage:
    """The time that a daemon and its Postgres sessions take of the cores, from now on.

    Args:
        pid: the daemon's.
        session: of its database.
    """

    def __init__(self, pid: int, session: asyncpg.Connection) -> None:
        self._pid = pid
        self._session = session
        self._before: dict[int, float] = {}

    async def begin(self) -> None:
        self._before = {pid: cpu_seconds(pid) for pid in (self._pid, *await daemon_backends(self._session))}

    async def end(self) -> tuple[float, float]:
        """Seconds of the daemon, and of its sessions."""
        own = cpu_seconds(self._pid) - self._before[self._pid]
        backends = await daemon_backends(self._session)
        theirs = sum(cpu_seconds(pid) - self._before.get(pid, 0.0) for pid in backends)
        return own, theirs
