"""Dead letters: messages that QStash has given up, and the way back from them to their rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

import orjson
import structlog

from rowvec.domain.errors import DatabaseUnavailableError, RowvecError
from rowvec.domain.items import Key
from rowvec.domain.storable import storable
from rowvec.qstash.answers import DeadLetter
from rowvec.qstash.service import Service

MOST_LETTERS: Final = 1000
"""Of one look: a drain takes the rest the next time."""
_CARRIERS: Final = ("/api/embeddings/process", "/api/embeddings/process-webhook")
_SIGNALS: Final = (
    "/api/embeddings/queue-monitor",
    "/api/embeddings/maintenance",
    "/api/qstash/callback",
    "/api/qstash/failure",
)
"""What says something and carries nothing: the daemons' own clock and the rows' deadlines have made up for it."""

log = structlog.get_logger(__name__)


class Rows(Protocol):
    """What messages carried."""

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> object:
        """Make due now what a message that has died still carries of these rows."""


async def list_letters(service: Service, most: int = MOST_LETTERS) -> Sequence[DeadLetter]:
    """Return the dead letters of the account, up to about so many.

    Args:
        service: QStash.
        most: after so many no further page is asked for.
    """
    found, cursor = await service.dead_letters()
    letters = list(found)
    while cursor and found and len(letters) < most:
        found, cursor = await service.dead_letters(cursor)
        letters += found
    return letters


def is_ours(letter: DeadLetter, site: str) -> bool:
    """Return whether a letter was meant for us.

    Args:
        letter: of an account that others may use too.
        site: our public address.
    """
    return letter.url.startswith(site.rstrip("/") + "/")


def carried(body: str | None) -> tuple[UUID, Sequence[Key]] | None:
    """Return a message's name and rows; None when it is none of ours.

    Args:
        body: `{"dispatch": UUID, "items": [{"contentType", "contentId"}]}`, or one such item with "dispatch" in it.
    """
    try:
        said = orjson.loads(body or "")
        items: Collection[Mapping[str, Any]] = said.get("items", [said])
        rows = [Key(item["contentType"], str(item["contentId"])) for item in items]
        # What Postgres takes for no text is no row of ours.
        whole = all(storable(part) == part for row in rows for part in row)
        return (UUID(said["dispatch"]), rows) if whole else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


class DeadLetters:
    """Leads messages that died back to their rows, and forgets them.

    Args:
        service: QStash.
        rows: takes back what a message carried.
        site: our public address: letters to others are none of our concern.
    """

    def __init__(self, service: Service, rows: Rows, site: str) -> None:
        self._service = service
        self._rows = rows
        self._site = site.rstrip("/")

    async def drain(self) -> Mapping[str, int]:
        """Take all that are ours; return how many there were.

        A letter is forgotten after its rows are back, so that whatever cuts this off loses nothing. Without QStash
        nothing is done: the rows are due at their deadlines anyway.

        Raises:
            DatabaseUnavailableError: the rows can't be taken back.
        """
        try:
            letters = await list_letters(self._service)
        except RowvecError as error:
            log.warning("dead_letters.interrupted", error=str(error))
            return {"dead_letters": 0}
        return {"dead_letters": sum([await self._try(letter) for letter in letters])}

    async def _try(self, letter: DeadLetter) -> int:
        """Lead one letter back; one that makes trouble stays and keeps no other."""
        try:
            return await self._drain(letter)
        except DatabaseUnavailableError:
            raise
        except RowvecError as error:
            log.warning("letter.left", letter=letter.id, error=str(error))
            return 0

    async def _drain(self, letter: DeadLetter) -> int:
        """Lead one letter back to its rows; return 1 when that was it, 0 when it stays or is gone already."""
        path = letter.url.removeprefix(self._site)
        if not is_ours(letter, self._site) or path not in _CARRIERS + _SIGNALS:
            return 0
        if path in _CARRIERS:
            if (message := carried(letter.body)) is None:
                return 0
            name, rows = message
            await self._rows.take_back(name, rows)
            log.info("letter.drained", message=str(name), rows=len(rows), status=letter.status, answer=letter.answer)
        return await self._service.delete_dead_letters([letter.id])
