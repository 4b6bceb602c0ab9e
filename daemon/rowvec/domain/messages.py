"""What a carrier is given: messages that name rows, never their text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson

from rowvec.domain.items import Key

PROCESS: Final = "/api/embeddings/process"
PROCESS_ONE: Final = "/api/embeddings/process-webhook"
LABEL: Final = "rowvec"
DELIVERY_TIMEOUT_SECONDS: Final = 30.0
"""How long a delivery may take; whoever receives it answers before."""


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery to be made to a daemon of ours.

    Attributes:
        name: given by us; a message that is sent twice by mistake is delivered once by it.
        path: where on our side it goes, beginning with a slash.
        body: what it says, JSON.
        timeout_seconds: how long a delivery may take.
        label: what it is found by at the carrier.
    """

    name: UUID
    path: str
    body: bytes
    timeout_seconds: float
    label: str = LABEL


@dataclass(frozen=True, slots=True)
class Asked:
    """What a message asks for, whoever sent it.

    Attributes:
        dispatch: its name, if it is ours: then its rows wait in the queue. None for one of somebody else.
        rows: to be brought up to date, each with its priority; None for its source's own.
    """

    dispatch: UUID | None
    rows: Mapping[Key, int | None]


def ask_for_batch(name: UUID, rows: Mapping[Key, int], timeout_seconds: float) -> Message:
    """Return the message that has rows, each with its priority, brought up to date."""
    items = [_item(key, priority) for key, priority in rows.items()]
    return Message(name, PROCESS, orjson.dumps({"dispatch": str(name), "items": items}), timeout_seconds)


def ask_for_one(name: UUID, row: Key, priority: int, timeout_seconds: float) -> Message:
    """Return the message that has one row brought up to date, in the form of the original application."""
    body = orjson.dumps({**_item(row, priority), "dispatch": str(name)})
    return Message(name, PROCESS_ONE, body, timeout_seconds)


def _item(key: Key, priority: int) -> dict[str, str | int]:
    return {"contentType": key.content_type, "contentId": key.content_id, "priority": priority}
