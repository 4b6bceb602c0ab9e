"""The server's data: made once by initdb, and refused when they are not what the programs expect."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from rowvec.domain.errors import ConfigurationError
from rowvec.embedded.folder import sync_folder
from rowvec.embedded.programs import Programs

_INITDB: Final = ("-U", "postgres", "-A", "trust", "-E", "UTF8")
_LOCALES: Final = {
    16: ("--locale=C.UTF-8",),
    18: ("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),  # known since 17
}


def require_data(data: Path, programs: Programs, *, major: int, durable: bool) -> None:
    """Makes the data when there are none; those of another version or of another program are refused."""
    if not data.is_dir() or not any(data.iterdir()):
        _make_data(data, programs, [*_LOCALES[major], *([] if durable else ["--no-sync"])])
        return
    version = data / "PG_VERSION"
    found = version.read_text().strip() if version.exists() else "of unknown version"
    if found != str(major):
        raise ConfigurationError(
            f"{data} belongs to a Postgres {found}, not {major}.",
            "Start it with its own version, or dump it there and restore it into a new folder.",
        )


def _make_data(data: Path, programs: Programs, options: list[str]) -> None:
    """Makes the data aside and moves them to their place whole: a killed initdb leaves nothing there."""
    for leftover in data.parent.glob("data.new-*"):
        shutil.rmtree(leftover)
    new = Path(tempfile.mkdtemp(prefix="data.new-", dir=data.parent))
    os.lchown(new, programs.account.uid, programs.account.gid)
    if not programs.run("initdb", "-D", new, *_INITDB, *options):
        raise programs.failure("The data folder could not be made by initdb.")
    new.rename(data)
    sync_folder(data.parent)
