"""`rowvec qstash dead-letters list|retry|delete`: messages that QStash has given up."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias

import typer
import uvloop

from rowvec.cli.output import Json, console, print_json, print_table
from rowvec.cli.qstash_service import opened
from rowvec.domain.errors import CarrierError, CarrierTrouble, ConfigurationError, UsageError
from rowvec.domain.messages import Asked
from rowvec.qstash.answers import DeadLetter, without_secrets
from rowvec.qstash.dead_letters import is_ours, list_letters, list_ours, read_letter
from rowvec.qstash.service import Service
from rowvec.settings import Settings, load_settings

app = typer.Typer(
    help="Messages that QStash could not deliver. A daemon leads those to its own pages back by itself.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

NOTHING: Final = Asked(None, {})
COLUMNS: Final = ["id", "created_at", "url", "status", "answer", "rows", "note"]

Act: TypeAlias = Callable[[Service, str], Awaitable[bool]]
"""Does something to a message by its id; false when there is none."""
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="As shown by `list`.")]
All = Annotated[bool, typer.Option("--all", help="All that were meant for pages of rowvec at our public address.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=10000, help="The most to show.")] = 50, json: Json = False
) -> None:
    """Show messages that could not be delivered, those to other addresses too."""
    settings = load_settings()
    rows = [_shown(letter, str(settings.site_url)) for letter in uvloop.run(_list(settings, limit))]
    if json:
        print_json(rows)
        return
    print_table([{**row, "rows": len(row["rows"])} for row in rows], COLUMNS, "There are no dead letters.")


@app.command("retry")
def retry(ids: Ids = None, every: All = False, yes: Yes = False, json: Json = False) -> int:
    """Have QStash deliver messages again, as new ones. Exits with 1 when one of them is not there."""
    return _act(ids, _retry, "retried", "Have {} delivered again?", every=every, yes=yes, json=json)


@app.command("delete")
def delete(ids: Ids = None, every: All = False, yes: Yes = False, json: Json = False) -> int:
    """Forget messages. What rowvec has sent is done without them, what the application has sent itself is not.

    Exits with 1 when one of them is not there.
    """
    return _act(ids, _delete, "deleted", "Delete {}?", every=every, yes=yes, json=json)


async def _retry(service: Service, letter: str) -> bool:
    try:
        await service.retry_dead_letter(letter)
    except CarrierError as error:
        if error.status == HTTPStatus.NOT_FOUND and error.kind is CarrierTrouble.PERMANENT:
            return False
        raise
    return True


async def _delete(service: Service, letter: str) -> bool:
    return bool(await service.delete_dead_letters([letter]))


def _act(ids: list[str] | None, act: Act, done: str, question: str, *, every: bool, yes: bool, json: bool) -> int:
    settings = load_settings()
    named = _check(ids or [], every=every)
    if every:
        named = [letter.id for letter in uvloop.run(_ours(settings))]
        _ask(question.format(f"{len(named)} messages"), yes=yes or not named)
    found, missing = uvloop.run(_do(settings, act, named))
    if json:
        print_json({done: found, "missing": missing})
    else:
        console().print(f"{done.capitalize()}: {len(found)}.")
        for letter in missing:
            console().print(f"There is no dead letter {letter}.", markup=False)
    return int(bool(missing))


def _check(ids: Sequence[str], *, every: bool) -> Sequence[str]:
    """Refuse what would be about all of them by mistake: the service takes an empty id for every message.

    Raises:
        UsageError: it is not said which.
    """
    if bool(ids) == every:
        raise UsageError("Say which messages: either ids, or --all.", "`rowvec qstash dead-letters list` shows them.")
    if not all(part.strip() for part in ids):
        raise UsageError("An id is empty.", "`rowvec qstash dead-letters list` shows them.")
    return [part.strip() for part in ids]


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is there to answer.", "Add --yes, and it is done.")
    typer.confirm(question, abort=True, err=True)


async def _list(settings: Settings, limit: int) -> Sequence[DeadLetter]:
    async with opened(settings) as service:
        return (await list_letters(service, limit))[:limit]


async def _ours(settings: Settings) -> Sequence[DeadLetter]:
    if settings.site_url is None:
        raise ConfigurationError("Which messages are ours is not known: no public address is set.", "Set SITE_URL.")
    async with opened(settings) as service:
        return await list_ours(service, str(settings.site_url))


async def _do(settings: Settings, act: Act, ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the ids of those that were there, and of those that were not."""
    async with opened(settings) as service:
        there = {letter: await act(service, letter) for letter in dict.fromkeys(ids)}
    return [letter for letter, was in there.items() if was], [letter for letter, was in there.items() if not was]


def _shown(letter: DeadLetter, site: str) -> dict[str, Any]:
    """Return what may be seen of a letter, that may be somebody else's: neither its headers nor what it says."""
    asked, note = _asked(letter, site)
    return {
        "id": letter.id,
        "message_id": letter.message_id,
        "created_at": letter.created_at,
        "url": without_secrets(letter.url),
        "status": letter.status,
        "answer": letter.answer,
        "queue": letter.queue,
        "dispatch": asked.dispatch,
        "rows": [row._asdict() for row in asked.rows],
        "note": note,
    }


def _asked(letter: DeadLetter, site: str) -> tuple[Asked, str]:
    """Return what a letter asks for, and why that is nothing."""
    # Only who has letters pays for the import of what reads them.
    from rowvec.api.messages import read_asked  # noqa: PLC0415

    if not is_ours(letter, site):
        return NOTHING, "It was for no page of rowvec here."
    try:
        return read_letter(read_asked, letter), ""
    except ValueError as error:
        return NOTHING, f"It can't be read: {error}."
