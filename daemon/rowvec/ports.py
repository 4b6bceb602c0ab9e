"""The Protocols between rooms. `app.py` alone knows who stands behind them."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from rowvec.domain.items import (
    Claim,
    Document,
    EmbedderTraits,
    Floors,
    Fold,
    Outcome,
    Row,
    Slot,
    Source,
)
from rowvec.domain.load import ModelLoad
from rowvec.domain.registered import RegisteredModel

Embedding: TypeAlias = "array[float]"
"""A vector as 32-bit floats (type code `f`), as long as its model has dimensions."""

Answered: TypeAlias = Callable[[], None]
"""Is called when a model could take the next request, at the latest when its vectors are returned."""


def untold() -> None:
    """Tell nobody that a model has answered."""


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Call it off."""


class Clock(Protocol):
    """The time, and what waits for it."""

    def seconds(self) -> float:
        """Return the monotonic time."""

    def now(self) -> datetime:
        """Return the time of day, with its zone."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Have a function called in a while."""


class Embedder(Protocol):
    """A model that turns texts into vectors."""

    @property
    def name(self) -> str:
        """The model's name, as in `rowvec.model`."""

    @property
    def dimensions(self) -> int:
        """The length of its vectors."""

    @property
    def traits(self) -> EmbedderTraits:
        """What its stored vectors are marked with."""

    @property
    def concurrency(self) -> int:
        """How many requests it may have at once."""

    @property
    def request_texts(self) -> int:
        """The most texts of one request."""

    @property
    def request_tokens(self) -> int:
        """The most tokens of one request, as `domain.budget` estimates them; a text with more goes alone."""

    @property
    def requests_per_minute(self) -> float | None:
        """How many requests may begin in a minute; None for any number."""

    async def ready(self) -> None:
        """Learn what has to be known before `embed`: `traits`, `request_texts` and `request_tokens` hold from then on.

        Raises:
            ModelUnavailableError: the model as a whole does not answer.
        """

    async def probe(self) -> None:
        """Ask whether the model is in order, at little cost and without a text; also one that can't tell returns.

        Raises:
            ModelUnavailableError: it is not.
        """

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:
        """Embed texts of rows, 1 to `request_texts` of them; one vector a text, in their order.

        Args:
            texts: of rows.
            answered: is called when the model is done with them, where it takes time to read its answer.

        Raises:
            ModelUnavailableError: the model as a whole does not answer.
            ModelMisbehavedError: the answer is no set of vectors for the texts.
            TextRejectedError: the model refuses a text for good, or texts that are too many or too large together.
        """

    async def embed_query(self, text: str) -> Embedding:
        """Embed the text of a search; raises as `embed`."""

    async def close(self) -> None:
        """Free threads and connections."""


class ModelRegistry(Protocol):
    """The models that the database knows."""

    async def active(self) -> Sequence[RegisteredModel]:
        """Return those that have items, by name."""


class ChangeLog(Protocol):
    """The changes that triggers append, and their way into the queue."""

    async def fold(self, floors: Floors, batch: int) -> Fold:
        """Turn the oldest changes into items, in one transaction.

        Args:
            floors: change ids below them are not looked at.
            batch: the most changes to take of each urgency.
        """

    async def unfilled(self, max_waiting: int) -> Sequence[tuple[str, str | None]]:
        """Return the sources, by content type, that have work in the background.

        With a model: rows to be queued for it, unless so many bulk items wait. Without: vectors to be looked through
        for rows that are gone.
        """

    async def append_backfill(self, content_type: str, model: str | None) -> int:
        """Do the next page of what `unfilled` told; return how many rows or vectors it was about.

        Raises:
            RowvecError: the table can't be read.
        """


class ItemQueue(Protocol):
    """Items and their leases."""

    async def probe(self, models: Sequence[str], since: datetime) -> Mapping[Slot, datetime]:
        """Return the slots with due items, of those due at or after `since`, and when the oldest of each became due."""

    async def claim(self, slot: Slot, token: UUID, limit: int, since: datetime) -> Claim:
        """Lease up to `limit` items of a slot, of those due at or after `since`."""

    async def release(self, claim: Claim, ids: Sequence[int], delay_seconds: float) -> None:
        """Give leases back without counting an attempt."""

    async def demote(self, claim: Claim, ids: Sequence[int]) -> None:
        """Give leases back in the lane bulk, without counting an attempt."""

    async def fail(self, claim: Claim, delays: Mapping[int, float | None], message: str, detail: str) -> None:
        """Count a failed attempt of items.

        Args:
            claim: the items and their token.
            delays: item id to seconds until the next attempt, None to give the item up.
            message: a stable sentence.
            detail: whatever helps a person.
        """


class RowReader(Protocol):
    """The application's rows as they are now."""

    async def read(self, content_type: str, content_ids: Sequence[str]) -> tuple[Source, Sequence[Row]] | None:
        """Return the source and those of its rows that exist, as of one moment; None when it is not watched.

        Raises:
            SourceUnreadableError: the table is gone or may not be read.
        """


class VectorStore(Protocol):
    """The vectors of all models."""

    async def find(self, model: str, traits: EmbedderTraits, hashes: Collection[bytes]) -> Mapping[bytes, Embedding]:
        """Return the vectors that the model holds already, by chunk hash."""

    async def store(
        self,
        claim: Claim,
        traits: EmbedderTraits,
        documents: Sequence[Document],
        embeddings: Mapping[bytes, Embedding],
    ) -> Outcome:
        """Bring the vectors of rows up to date and end their items, in one transaction.

        Args:
            claim: holds the token that must still be valid.
            traits: what new vectors are marked with.
            documents: the rows as they were read.
            embeddings: a vector for each chunk, by hash.
        """


class WakeSource(Protocol):
    """NOTIFY, and the mark that spares writers from sending it."""

    def listen(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Listen on a connection of its own; yields once for each wake-up.

        Raises:
            DatabaseUnavailableError: while connecting, or from the iterator when the connection is lost.
        """

    async def mark_awake(self, seconds: float) -> None:
        """Tell writers that they need not notify for a while."""

    async def clear_awake(self) -> None:
        """Tell writers to notify."""

    async def notify(self) -> None:
        """Wake the other daemons."""


class Overview(Protocol):
    """What waits and who works, as of one moment."""

    async def look(self) -> Mapping[str, Any]:
        """Return `daemons`, `models`, `sources`, `changes` and `items`, as `rowvec status --json` has them.

        Raises:
            RowvecError: the database is away, takes too long or is not in order.
        """


class Presence(Protocol):
    """This daemon among the others."""

    async def beat(self, resting: Sequence[str], load: Mapping[str, ModelLoad]) -> None:
        """Say that this daemon lives.

        Args:
            resting: which models and sources it lets alone, and why.
            load: what its models stand at, by their names.
        """

    async def leave(self) -> None:
        """Give all leases back, and say that this daemon has ended in good order."""

    async def release_lost(self) -> int:
        """Give back the leases of silent daemons; return how many items."""

    async def renew(self, tokens: Collection[UUID]) -> None:
        """Prolong the leases of the claims under way; give back this daemon's older others."""
