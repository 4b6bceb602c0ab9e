"""The words of the design as values: what flows from a changed row to its vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from rowvec.domain.lanes import Lane

HEADING_GAP: Final = "\n\n"
"""What stands between the heading of a chunk and its body."""


class Slot(NamedTuple):
    """Where due items can be claimed: one index range of the queue."""

    model: str
    lane: Lane
    content_type: str


BROUGHT: Final = UUID(int=0)
"""In the place of a message that has brought an item, which then came back undone."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row that a model's vectors must be brought up to date with.

    Attributes:
        id: of the queue row.
        content_id: the row's key as text.
        generation: tells older work from newer.
        retry_count: failed attempts since the last change.
        due_at: since when it has been due.
        message_id: the message that carried it, if one did; `BROUGHT` when one has brought it before, and it came back.
    """

    id: int
    content_id: str
    generation: int
    retry_count: int
    due_at: datetime
    message_id: UUID | None = None

    @property
    def fresh(self) -> bool:
        """Whether it has been in no message yet: what has been in one goes into no other."""
        return self.message_id is None

    @property
    def overdue(self) -> bool:
        """Whether its message has been waited for until its deadline, in vain."""
        return self.message_id is not None and self.message_id != BROUGHT


@dataclass(frozen=True, slots=True)
class Claim:
    """Items leased together: one slot, one token."""

    slot: Slot
    token: UUID
    items: Sequence[Item]


class Key(NamedTuple):
    """A row, wherever it is spoken of without its text."""

    content_type: str
    content_id: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Items that are handed to one message.

    Attributes:
        message: its name, given by us; part of its body, and what the items are marked with.
        ids: of the items, of all models.
        rows: what the message asks for, each with its priority.
    """

    message: UUID
    ids: Sequence[int]
    rows: Mapping[Key, int]


class Recalled(NamedTuple):
    """What was taken back from a message.

    Attributes:
        slots: where it is due now.
        held: how many items are still in the message: somebody was holding them.
    """

    slots: Sequence[Slot]
    held: int


class Dispatched(NamedTuple):
    """What all daemons together have dispatched.

    Attributes:
        outstanding: items that are on their way in messages, and not past their deadline.
        sent: all items that were ever sent.
    """

    outstanding: int
    sent: int


class Held(NamedTuple):
    """What is due in a lane whose items are collected.

    Attributes:
        oldest_seconds: since when something has been; 0 when there is nothing.
        full: whether as many wait in one slot as were asked for.
        overdue: whether a message has left something undone past its deadline.
    """

    oldest_seconds: float
    full: bool
    overdue: bool


@dataclass(frozen=True, slots=True)
class Source:
    """A watched table, as far as the way of the data needs it."""

    content_type: str
    labels: Sequence[str]
    template: str | None
    chunking: str
    chunk_characters: int
    chunk_overlap: int
    urgent_rows: int = 500


@dataclass(frozen=True, slots=True)
class Watch:
    """What a watch is asked to be, as `rowvec.watch` takes it.

    Attributes:
        table: its name, with its schema if need be.
        content_type: what its rows are called.
        columns: those that are embedded.
        priority: 1 to 100.
        template: how the columns become a text; None: labelled, one below another.
        owner_column: whose rows they are.
        chunking: "none", "characters" or "markdown".
        chunk_characters: the most characters of a chunk.
        chunk_overlap: how many characters chunks share.
        notify: whether writers may send NOTIFY.
        key: the columns of the key; None for the primary key, or the only other one.
        condition: which rows are embedded, in SQL over their own columns; None for all.
        text_function: makes the text of a row in place of the columns.
        depends_on: the other tables that it reads, as JSON.
        urgent_rows: how many rows one transaction, or one owner within the lane's time, may bring at this priority.
        trigger_name: what the triggers' names begin with; None for names of ours.
        function_name: what the names of their functions begin with; None for names of ours.
    """

    table: str
    content_type: str
    columns: Sequence[str]
    priority: int = 3
    template: str | None = None
    owner_column: str | None = None
    chunking: str = "none"
    chunk_characters: int = 1500
    chunk_overlap: int = 0
    notify: bool = True
    key: Sequence[str] | None = None
    condition: str | None = None
    text_function: str | None = None
    depends_on: str = "[]"
    urgent_rows: int = 500
    trigger_name: str | None = None
    function_name: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is now: the watched columns as a JSON array, in the order of `Source.labels`."""

    content_id: str
    owner: str | None
    fields: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a row's text; the unit that is embedded.

    Attributes:
        index: position in the row, from 0.
        body: its own characters, just as they stand in the row's text.
        hash: SHA-256 of `text` in UTF-8, 32 bytes.
        repeat: how many times the same `text` stood in this row before.
        start: the offset in the row's text where `body` begins, in characters.
        heading: the row's title and the headings that it stands under, in one line; empty outside Markdown.
    """

    index: int
    body: str
    hash: bytes
    repeat: int
    start: int = 0
    heading: str = ""

    @property
    def text(self) -> str:
        """What is embedded."""
        return embedded_text(self.heading, self.body)


def embedded_text(heading: str, body: str) -> str:
    """Return what a model is given of a chunk: its body, below the heading if it has one."""
    return f"{heading}{HEADING_GAP}{body}" if heading else body


@dataclass(frozen=True, slots=True)
class Document:
    """An item with the text it has now. No chunks: the row is gone or has nothing to say.

    Attributes:
        item: what was claimed.
        owner: whose row it is.
        chunks: its text.
        floods: its owner has brought more rows than its share: it goes in as bulk.
    """

    item: Item
    owner: str | None = None
    chunks: Sequence[Chunk] = ()
    floods: bool = False

    def step(self, chunk: Chunk) -> int:
        """Return how many characters after one of its chunks the next one begins; of the last one, its length.

        This is what is stored of a place: an edit changes no step but that of the chunk in which it was made.
        """
        if chunk.index + 1 == len(self.chunks):
            return len(chunk.body)
        return self.chunks[chunk.index + 1].start - chunk.start


class Floors(NamedTuple):
    """The change ids below which a fold need not look, for each urgency."""

    removal: int = 0
    immediate: int = 0
    other: int = 0


@dataclass(frozen=True, slots=True)
class Fold:
    """What one fold did.

    Attributes:
        locked: false when another daemon is folding; then nothing was done.
        floors: behind the last changes that were looked at, None when there were none.
        folded: how many changes became items and are gone.
        slots: where the items went.
        refused: content types and beginnings of keys that are too long (over 1,000 bytes) and were left out.
    """

    locked: bool
    floors: Floors | None = None
    folded: int = 0
    slots: Sequence[Slot] = ()
    refused: Sequence[str] = ()


class StoredChunk(NamedTuple):
    """A chunk that a model's table holds for a row, without its body and embedding; `step` is None when unknown."""

    content_id: str
    hash: bytes
    repeat: int
    position: int
    step: int | None
    heading: str
    owner: str | None
    provider_revision: str
    prefix: str


class EmbedderTraits(NamedTuple):
    """What makes two vectors of a model comparable: recorded with each, and part of what may be reused."""

    provider_revision: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the items of one store.

    Attributes:
        current: ids whose vectors now hold the last change.
        superseded: ids stored, and queued again because the row changed meanwhile.
        refused: ids whose token was no longer valid, or that a writer was holding: nothing was stored.
    """

    current: Sequence[int] = ()
    superseded: Sequence[int] = ()
    refused: Sequence[int] = ()
