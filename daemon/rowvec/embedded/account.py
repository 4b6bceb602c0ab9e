"""Which user runs the programs of Postgres, and how a program is started as that user."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rowvec.domain.errors import ConfigurationError

# A fresh interpreter and not `preexec_fn`: no Python runs between fork and exec, where a lock held by another
# thread would hang it. It drops to the user by itself: the interpreter may be closed to that user.
_DROP: Final = """
import os, sys
uid, gid, *arguments = sys.argv[1:]
if int(uid) != os.geteuid():
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
"""
# The death signal is set after setuid, which would clear it, and before the look at the parent, which may
# have died in between. Python ignores SIGPIPE, and an ignored signal would outlive exec.
LAUNCH: Final = f"""
import ctypes, signal
{_DROP}
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed")
parent, *command = arguments
if os.getppid() != int(parent):
    sys.exit("the process that started this one is gone")
os.execv(command[0], command)
"""
_PROBE: Final = f"""
{_DROP}
print(next((path for path in arguments if not os.access(path, os.X_OK)), ""), end="")
"""
_KEPT_VARIABLES: Final = ("PATH", "TZ", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Account:
    """The user a program runs as: ourselves or, when we are root, one whom Postgres accepts."""

    uid: int
    gid: int

    def command(self, script: str, *arguments: str | Path) -> list[str]:
        """Gives the command that runs one of the scripts above; LAUNCH takes a parent's pid and a command."""
        return [sys.executable, "-I", "-S", "-c", script, str(self.uid), str(self.gid), *map(str, arguments)]

    def first_closed(self, path: Path) -> str:
        """Gives the first closed folder on the way to `path`, or ""; asks as the user, so ACLs count."""
        if self.uid == os.geteuid():
            return ""
        command = self.command(_PROBE, *reversed(path.parents), path)
        return os.fsdecode(subprocess.check_output(command, cwd="/", env=environment()))  # noqa: S603 - ours


def environment() -> dict[str, str]:
    """Keeps our secrets and PG* variables out of the programs, and their messages in English."""
    return {"LC_ALL": "C", **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}}


def account_for(data: Path) -> Account:
    """Ourselves; as root the owner of the data, else `postgres` or `nobody`."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    owner = data.stat().st_uid if data.is_dir() else 0
    try:
        entry = pwd.getpwuid(owner) if owner else _unprivileged_user()
    except KeyError as error:
        raise ConfigurationError(
            f"There is no unprivileged user to run Postgres as: {error}.",
            "Postgres never runs as root. Add a user `postgres`, or start rowvec as another user.",
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def _unprivileged_user() -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")
