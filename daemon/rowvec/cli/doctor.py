"""`rowvec doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import uvloop
from rich.text import Text

from rowvec.cli.output import Json, console, print_json
from rowvec.domain.errors import ConfigurationError
from rowvec.domain.findings import Diagnosis, Finding, Level, problem
from rowvec.postgres.diagnosis import diagnose
from rowvec.settings import Settings, load_settings
from rowvec.version import VERSION

PROBLEMS_FOUND: Final = 3
STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


def doctor(json: Json = False) -> int:
    """Look at everything that would otherwise be found out the hard way, and say what to do.

    Exits with 0 when there are no problems (warnings alone are no reason to fail), with 3 when there are, and with
    78, 75 or 65 when the database can't be looked at. It changes nothing, and needs no running daemon.
    """
    settings = load_settings()
    found = uvloop.run(_examine(settings))
    if json:
        print_json(_as_json(found))
    else:
        _print(found)
    return PROBLEMS_FOUND if found.count(Level.PROBLEM) else 0


async def _examine(settings: Settings) -> Diagnosis:
    models = {name: model.dimensions for name, model in settings.active_models.items()}
    found = await diagnose(settings.dsn, settings.listen_dsn, models, VERSION)
    return Diagnosis((*found.findings, *await _examine_qstash(settings)), found.complete)


async def _examine_qstash(settings: Settings) -> Sequence[Finding]:
    """Look at QStash, where it is to carry the work."""
    # Only who uses QStash pays for the import of its client.
    from rowvec.cli.qstash_service import opened  # noqa: PLC0415
    from rowvec.qstash.checks import examine, token_missing  # noqa: PLC0415

    if not settings.means_qstash:
        return []
    if settings.qstash_token is None or not settings.qstash_token.get_secret_value():
        return [token_missing(settings)]
    try:
        async with opened(settings) as service:
            return await examine(settings, service)
    except ConfigurationError as error:
        return [problem("qstash token", error.message, error.hint)]


def _as_json(found: Diagnosis) -> dict[str, object]:
    return {
        "well": not found.count(Level.PROBLEM),
        "problems": found.count(Level.PROBLEM),
        "warnings": found.count(Level.WARNING),
        **asdict(found),
    }


def _print(found: Diagnosis) -> None:
    for finding in found.findings:
        _print_finding(finding)
    if not found.complete:
        console().print("The rest can be looked at when this is right.")
    console().print(_summary(found))


def _print_finding(finding: Finding) -> None:
    level = Text(f"{finding.level:<9}", style=STYLES[finding.level])
    console().print(level + Text(f"{finding.about}: {finding.message}"))
    if finding.hint:
        console().print(Text(" " * 9 + finding.hint))


def _summary(found: Diagnosis) -> str:
    problems, warnings = found.count(Level.PROBLEM), found.count(Level.WARNING)
    if not problems and not warnings:
        return "All is well."
    return f"Problems: {problems}, warnings: {warnings}."
