"""What a command costs before it does anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVER = {"aiohttp", "prometheus_client", "rowvec.app", "rowvec.api", "rowvec.pipeline", "rowvec.models"}
DATABASE = {"asyncpg", "pgvector", "pydantic_settings", "structlog"}
COMMANDS = {
    "version": SERVER | DATABASE,
    "status": SERVER,
    "sources": SERVER,
    "backfill": SERVER,
    "migrate": SERVER,
    "doctor": SERVER,
    "watch": SERVER,
    "pause": SERVER,
    "failed list": SERVER,
    "qstash dev": SERVER | DATABASE,
    "qstash setup": SERVER,
    "qstash status": SERVER,
    "qstash dead-letters list": SERVER,
}


def imported_by(*arguments: str) -> set[str]:
    """Return the modules that `rowvec ARGUMENTS --help` imports."""
    program = (
        "import sys; from rowvec.__main__ import main; sys.argv = ['rowvec', *sys.argv[1:]]; "
        "code = main(); print(*sys.modules, file=sys.stderr); raise SystemExit(code)"
    )
    command = [sys.executable, "-c", program, *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stderr.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_no_more_than_it_needs(command: str) -> None:
    imported = imported_by(*command.split())
    assert "rowvec.cli.commands" in imported
    assert not imported & COMMANDS[command]


def test_who_runs_a_server_imports_one() -> None:
    assert imported_by("run") >= SERVER
