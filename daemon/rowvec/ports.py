"""The Protocols between rooms. `app.py` alone knows who stands behind them."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from rowvec.domain.errors import CarrierError
from rowvec.domain.items import (
    Claim,
    Dispatch,
    Dispatched,
    Document,
    EmbedderTraits,
    Floors,
    Fold,
    Held,
    Key,
    Outcome,
    Recalled,
    Row,
    Slot,
    Source,
)
from rowvec.domain.lanes import Lane
from rowvec.domain.load import ALL_HERE, CarrierLoad, ModelLoad
from rowvec.domain.messages import Asked, Message
from rowvec.domain.registered import RegisteredModel
from rowvec.domain.row_states import Delivered, Fingerprint, LaneCount, RowStanding
from rowvec.domain.tasks import Task

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


class Dispatchable(Protocol):
    """Items on their way into messages and out of them."""

    async def dispatch(
        self, claim: Claim, ids: Sequence[int], message: UUID, deadline_seconds: float, models: Collection[str]
    ) -> Dispatch:
        """Hand items of a claim to a message, with what other models have to do for the same rows just now.

        They are queued, and due here when the deadline has passed. Items whose token is no longer valid are left out,
        and so are those that have become immediate, or that would miss their lane's time if the message never came.

        Args:
            claim: holds the token.
            ids: of its items.
            message: its name.
            deadline_seconds: how long the message has time.
            models: the others whose items may go along: what a model that nobody has here must do is no message's.
        """

    async def recall(self, dispatch: Dispatch) -> Recalled:
        """Take back what a message that was not sent should have carried: it is due now."""

    async def claim_rows(self, models: Sequence[str], rows: Sequence[Key], token: UUID) -> Sequence[Claim]:
        """Lease what a message asks for, by all of these models; what waits for its next attempt goes on waiting.

        The claims have one token in common.
        """

    async def count_dispatched(self) -> Dispatched:
        """Count what is on its way in messages."""

    async def count_sent(self, messages: int, items: int) -> None:
        """Add to what was sent today: messages that were taken, and the items that were dispatched with them."""

    async def look_held(self, lane: Lane, models: Sequence[str], enough: int) -> Held:
        """Return what has been collected of a lane.

        Args:
            lane: is held.
            models: whose items count.
            enough: more items of one slot are not counted.
        """


class Carrier(Protocol):
    """What takes messages to a daemon of ours."""

    async def send(self, messages: Sequence[Message]) -> Sequence[CarrierError | None]:
        """Send messages, 1 or more; return for each, in their order, what it was refused for, None when it was taken.

        Returns within a few seconds, and raises nothing. A message whose answer was lost counts as refused.
        """


class TaskBook(Protocol):
    """What the daemons do by the clock, and whose turn it is."""

    async def begin(self, task: Task, due_at: datetime) -> bool:
        """Return whether this daemon is to do a task that was due then: no other has, or one began and is silent now.

        It is asked again for what it has begun and not ended.
        """

    async def end(self, task: Task) -> None:
        """Say that this daemon has done what it began."""


class RowStates(Protocol):
    """How rows stand, for whoever is asked about them by name."""

    async def show(self, rows: Sequence[Key]) -> Mapping[Key, RowStanding]:
        """Return how each row stands in the queue and among the changes."""

    async def fingerprints(self, model: str, rows: Sequence[Key]) -> Mapping[Key, Fingerprint]:
        """Return what a model's table holds for rows; those of which it holds nothing are left out."""

    async def enqueue(self, rows: Mapping[Key, int | None]) -> None:
        """Append a change for each row, with its priority or its source's own.

        Raises:
            UsageError: one is no key of its table, or is no longer watched.
        """

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> Sequence[Slot]:
        """Take rows back from a message that has died; return where they are due now."""

    async def count(self) -> Mapping[Lane, LaneCount]:
        """Return how many rows wait, whatever the number of models; unfolded changes are counted too."""


class Deliverer(Protocol):
    """What becomes of the rows that messages name."""

    async def deliver(self, rows: Mapping[Key, int | None], *, dispatched: bool) -> Delivered:
        """Bring rows up to date as far as the time of a delivery allows.

        Args:
            rows: each with its priority, None for its source's own.
            dispatched: whether the message is ours: then a row that is not in the queue has been done before.

        Raises:
            TryAgainError: as many messages as there may be are worked on.
            StoppingError: there is no model here that takes anything: the daemon starts or ends.
            DatabaseUnavailableError: Postgres is away, or too slow to answer in time.
        """

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> None:
        """Take rows back from a message that has died, and have them done here."""


class Undelivered(Protocol):
    """The way back from messages that have died."""

    async def lead_back(self, asked: Asked) -> Mapping[Key, str]:
        """Have the rows of a dead message done without it; return those for which that can't be, and why.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """


class Signatures(Protocol):
    """What QStash signs its requests with."""

    async def verify(self, signature: str, url: str, body: bytes) -> str:
        """Return the id of a signature, for the log.

        Args:
            signature: the header `Upstash-Signature`.
            url: the address that the message was published to.
            body: as it came.

        Raises:
            SignatureRefusedError: it is not QStash's, not for this address and body, or not of this time.
        """


class KeySource(Protocol):
    """Where the signing keys come from."""

    async def signing_keys(self) -> tuple[str, str]:
        """Return the current key and the next one.

        Raises:
            RowvecError: they can't be had.
        """


class Tasks(Protocol):
    """The tasks that all daemons do together, each once."""

    async def run(self, name: str) -> Mapping[str, int]:
        """Do a task now; return what it did, counted."""

    async def tick(self, task: Task) -> Mapping[str, int] | None:
        """Do a task whose time has come; return what it did, None when some daemon has done it already."""


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

    async def beat(
        self, resting: Sequence[str], load: Mapping[str, ModelLoad], carrier: CarrierLoad = ALL_HERE
    ) -> None:
        """Say that this daemon lives.

        Args:
            resting: which models and sources it lets alone, and why.
            load: what its models stand at, by their names.
            carrier: which way the work goes.
        """

    async def leave(self) -> None:
        """Give all leases back, and say that this daemon has ended in good order."""

    async def release_lost(self) -> int:
        """Give back the leases of silent daemons; return how many items."""

    async def renew(self, tokens: Collection[UUID]) -> None:
        """Prolong the leases of the claims under way; give back this daemon's older others."""
