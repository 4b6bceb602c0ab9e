"""Dead letters: messages that QStash has given up, and the way back from them to their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import structlog

from rowvec.domain.errors import DatabaseUnavailableError, RowvecError
from rowvec.domain.messages import LABEL, PROCESS, PROCESS_ONE, Asked
from rowvec.ports import Undelivered
from rowvec.qstash.answers import DeadLetter
from rowvec.qstash.service import Service

MOST_LETTERS: Final = 1000
"""Of one question: a drain takes the rest the next time."""
_CARRIERS: Final = (PROCESS, PROCESS_ONE)
_SIGNALS: Final = (
    "/api/embeddings/queue-monitor",
    "/api/embeddings/maintenance",
    "/api/qstash/callback",
    "/api/qstash/failure",
)
"""What says something and carries nothing: the daemons' own clock and the rows' deadlines have made up for it."""

Read: TypeAlias = Callable[[str, bytes], Asked]
"""Reads a body as the page at an address of ours does; raises ValueError for what that page would refuse."""

log = structlog.get_logger(__name__)


async def list_letters(service: Service, most: int = MOST_LETTERS, label: str = "", url: str = "") -> list[DeadLetter]:
    """Return dead letters of the account, up to about so many.

    Args:
        service: QStash.
        most: after so many no further page is asked for.
        label: only those that are marked so; empty for all.
        url: only those that were to go there; empty for all.
    """
    found, cursor = await service.dead_letters("", label, url)
    letters = list(found)
    while cursor and found and len(letters) < most:
        found, cursor = await service.dead_letters(cursor, label, url)
        letters += found
    return letters


async def list_ours(service: Service, site: str) -> list[DeadLetter]:
    """Return the dead letters that were meant for our pages, however many others the account has.

    What the application and the schedules send there has no label of ours: it is found by where it was to go.

    Args:
        service: QStash.
        site: our public address.
    """
    found = await list_letters(service, label=LABEL)
    for path in _CARRIERS + _SIGNALS:
        found += await list_letters(service, url=site.rstrip("/") + path)
    return list({letter.id: letter for letter in found if is_ours(letter, site)}.values())


def is_ours(letter: DeadLetter, site: str) -> bool:
    """Return whether a letter was meant for one of our pages.

    Args:
        letter: of an account that others may use too.
        site: our public address, at which the application may have pages of its own.
    """
    root = site.rstrip("/")
    return letter.url.startswith(root) and letter.url.removeprefix(root) in _CARRIERS + _SIGNALS


def read_letter(read: Read, letter: DeadLetter) -> Asked:
    """Return what one of our letters asks for: no row, if it is a signal.

    Raises:
        ValueError: it can't be read; says why.
    """
    if letter.url.endswith(_SIGNALS):
        return Asked(None, {})
    if letter.body is None:
        raise ValueError("body: it is no text")
    return read(letter.url, letter.body.encode())


class DeadLetters:
    """Leads messages that died back to their rows, and forgets them.

    Args:
        service: QStash.
        undelivered: the way back.
        read: reads what a message asks for.
        site: our public address: letters to others are none of our concern.
    """

    def __init__(self, service: Service, undelivered: Undelivered, read: Read, site: str) -> None:
        self._service = service
        self._undelivered = undelivered
        self._read = read
        self._site = site
        self._told: set[str] = set()

    async def drain(self) -> Mapping[str, int]:
        """Take all that are ours; return how many there were.

        A letter is forgotten after its rows are back, so that whatever cuts this off loses nothing. One that can't be
        read, or of whose rows none is watched, stays for a person. Without QStash nothing is done.

        Raises:
            DatabaseUnavailableError: the rows can't be led back.
        """
        try:
            letters = await list_ours(self._service, self._site)
        except RowvecError as error:
            log.warning("dead_letters.interrupted", error=str(error))
            return {"dead_letters": 0}
        self._told &= {letter.id for letter in letters}
        return {"dead_letters": sum([await self._try(letter) for letter in letters])}

    async def _try(self, letter: DeadLetter) -> int:
        """Lead one letter back; return 1 when that was it, 0 when it is gone already or stays, and keeps no other."""
        try:
            return await self._drain(letter)
        except DatabaseUnavailableError:
            raise
        except RowvecError as error:
            self._leave(letter, str(error))
            return 0

    async def _drain(self, letter: DeadLetter) -> int:
        try:
            asked = read_letter(self._read, letter)
        except ValueError as error:
            self._leave(letter, f"It can't be read: {error}.")
            return 0
        lost = await self._undelivered.lead_back(asked) if asked.rows else {}
        if lost and len(lost) == len(asked.rows):
            self._leave(letter, next(iter(lost.values())))
            return 0
        if lost:
            log.warning("message.lost", message=letter.message_id, rows=len(lost), why=next(iter(lost.values())))
        return await self._forget(letter, asked, len(asked.rows) - len(lost))

    async def _forget(self, letter: DeadLetter, asked: Asked, rows: int) -> int:
        taken = await self._service.delete_dead_letters([letter.id])
        log.info(
            "letter.drained",
            message=letter.message_id,
            dispatch=str(asked.dispatch or ""),
            rows=rows,
            status=letter.status,
            answer=letter.answer,
        )
        return taken

    def _leave(self, letter: DeadLetter, why: str) -> None:
        """Say once of a letter that it stays: it is met again at every look."""
        if letter.id not in self._told:
            self._told.add(letter.id)
            log.warning("letter.left", letter=letter.id, url=letter.url, why=why)
