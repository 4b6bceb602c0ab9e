"""From messages that died back to their rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import pytest
import structlog

from qstash_account import Account
from rowvec.api.messages import read_asked
from rowvec.domain.errors import CarrierError, DatabaseUnavailableError
from rowvec.domain.items import Key
from rowvec.domain.messages import Asked
from rowvec.qstash.answers import DeadLetter
from rowvec.qstash.dead_letters import DeadLetters, is_ours, list_letters

SITE: Final = "https://app.example"
NAME: Final = UUID("11111111-2222-3333-4444-555555555555")
ONE: Final = {"contentType": "course", "contentId": "7", "priority": 2}
TWO: Final = {"contentType": "post", "contentId": "a b", "priority": 3}
BATCH: Final = json.dumps({"dispatch": str(NAME), "items": [ONE, TWO]})
SINGLE: Final = json.dumps({**ONE, "dispatch": str(NAME)})


class Undelivered:
    """See `ports.Undelivered`.

    Attributes:
        asked: what was led back.
        letters_then: how many letters there were at those times.
        watched: the content types that are.
        error: is raised when set.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self.asked: list[Asked] = []
        self.letters_then: list[int] = []
        self.watched = {"course", "post"}
        self.error: Exception | None = None

    async def lead_back(self, asked: Asked) -> Mapping[Key, str]:
        if self.error:
            raise self.error
        self.asked.append(asked)
        self.letters_then.append(len(self._account.letters))
        return {row: f"Not watched: {row.content_type}." for row in asked.rows if row.content_type not in self.watched}


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def back(account: Account) -> Undelivered:
    return Undelivered(account)


def letters_of(account: Account, back: Undelivered) -> DeadLetters:
    return DeadLetters(account, back, read_asked, SITE + "/")


def test_whose_a_letter_is_follows_from_where_it_was_to_go(account: Account) -> None:
    ours = account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    theirs = account.put_letter(f"{SITE}.evil.example/api/embeddings/process", BATCH)
    assert [is_ours(account.letters[id_], SITE) for id_ in (ours, theirs)] == [True, False]


async def test_all_pages_are_read_but_not_without_end(account: Account) -> None:
    for _ in range(7):
        account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    assert len(await list_letters(account)) == 7
    assert len(await list_letters(account, most=3)) == 4


async def test_rows_are_back_before_their_letter_is_gone(account: Account, back: Undelivered) -> None:
    account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    account.put_letter(f"{SITE}/api/embeddings/process-webhook", SINGLE)
    with structlog.testing.capture_logs() as logs:
        assert await letters_of(account, back).drain() == {"dead_letters": 2}
    assert back.asked == [
        Asked(NAME, {Key("course", "7"): 2, Key("post", "a b"): 3}),
        Asked(NAME, {Key("course", "7"): 2}),
    ]
    assert back.letters_then == [2, 1]
    assert account.letters == {}
    died = [line for line in logs if line["event"] == "letter.drained"]
    assert [(line["dispatch"], line["rows"], line["status"], line["answer"]) for line in died] == [
        (str(NAME), 2, 503, "busy"),
        (str(NAME), 1, 503, "busy"),
    ]


@pytest.mark.parametrize("label", ["", "theirs"])
@pytest.mark.parametrize(
    ("path", "body", "rows"),
    [
        ("process-webhook", json.dumps(ONE), {Key("course", "7"): 2}),
        ("process-webhook", json.dumps([ONE, TWO]), {Key("course", "7"): 2, Key("post", "a b"): 3}),
        ("process-webhook", '{"contentType": "post", "contentId": ""}', {Key("post", ""): None}),
        ("process", json.dumps({"items": [ONE]}), {Key("course", "7"): 2}),
    ],
)
async def test_what_the_application_has_sent_itself_leads_back_too(
    account: Account, back: Undelivered, path: str, body: str, rows: Mapping[Key, int | None], label: str
) -> None:
    account.put_letter(f"{SITE}/api/embeddings/{path}", body, label)
    assert await letters_of(account, back).drain() == {"dead_letters": 1}
    assert (back.asked, account.letters) == ([Asked(None, rows)], {})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/embeddings/queue-monitor", ""),
        ("/api/embeddings/maintenance", '{"task": "cleanup"}'),
        ("/api/qstash/callback", BATCH),
        ("/api/qstash/failure", None),
        ("/api/embeddings/process", "{}"),
    ],
)
async def test_what_carries_nothing_is_forgotten(
    account: Account, back: Undelivered, path: str, body: str | None
) -> None:
    account.put_letter(SITE + path, body, label="")
    assert await letters_of(account, back).drain() == {"dead_letters": 1}
    assert (account.letters, back.asked) == ({}, [])


async def test_letters_of_others_are_not_even_asked_for(account: Account, back: Undelivered) -> None:
    account.put_letter("https://else.example/api/embeddings/process", BATCH, label="")
    account.put_letter(f"{SITE}/api/other", BATCH, label="")
    staging = account.put_letter("https://staging.example/api/embeddings/process", BATCH)
    assert await letters_of(account, back).drain() == {"dead_letters": 0}
    assert (len(account.letters), account.seen, back.asked) == (3, {staging}, [])


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("process", "?", "It can't be read: body: Invalid JSON"),
        ("process", None, "It can't be read: body: it is no text."),
        ("process-webhook", "", "It can't be read: body: Invalid JSON"),
        ("process-webhook", BATCH, "It can't be read: contentType: Field required"),
        ("process-webhook", '{"contentType": "post", "contentId": "a\\u0000"}', "It can't be read: contentId: "),
        ("process-webhook", "\ud800", "It can't be read: 'utf-8' codec"),
        ("process-webhook", '{"contentType": "pets", "contentId": "1"}', "Not watched: pets."),
    ],
)
async def test_what_leads_nowhere_stays_and_is_told_once(
    account: Account, back: Undelivered, path: str, body: str | None, why: str
) -> None:
    id_ = account.put_letter(f"{SITE}/api/embeddings/{path}", body)
    draining = letters_of(account, back)
    with structlog.testing.capture_logs() as logs:
        assert [await draining.drain() for _ in range(3)] == [{"dead_letters": 0}] * 3
    assert list(account.letters) == [id_]
    (told,) = logs
    assert (told["event"], told["log_level"], told["letter"]) == ("letter.left", "warning", id_)
    assert told["why"].startswith(why)


async def test_of_rows_that_are_watched_in_part_the_others_are_told_of(account: Account, back: Undelivered) -> None:
    account.put_letter(f"{SITE}/api/embeddings/process-webhook", json.dumps([ONE, {**TWO, "contentType": "pets"}]))
    with structlog.testing.capture_logs() as logs:
        assert await letters_of(account, back).drain() == {"dead_letters": 1}
    assert account.letters == {}
    lost = [line for line in logs if line["event"] == "message.lost"]
    assert [(line["rows"], line["why"], line["log_level"]) for line in lost] == [(1, "Not watched: pets.", "warning")]


async def test_one_that_can_t_be_deleted_keeps_no_other(account: Account, back: Undelivered) -> None:
    stuck = account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    account.stuck = stuck
    assert await letters_of(account, back).drain() == {"dead_letters": 1}
    assert list(account.letters) == [stuck]


class Contested(Account):
    """Somebody else takes every letter between the look and the deletion."""

    async def dead_letters(self, cursor: str = "", label: str = "", url: str = "") -> tuple[Sequence[DeadLetter], str]:
        found = await super().dead_letters(cursor, label, url)
        self.letters.clear()
        return found


async def test_a_letter_that_another_daemon_took_is_not_counted() -> None:
    account = Contested()
    back = Undelivered(account)
    account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    assert await letters_of(account, back).drain() == {"dead_letters": 0}
    assert len(back.asked) == 1


async def test_without_postgres_the_letters_stay(account: Account, back: Undelivered) -> None:
    account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    back.error = DatabaseUnavailableError("Postgres can't be reached.")
    with pytest.raises(DatabaseUnavailableError):
        await letters_of(account, back).drain()
    assert len(account.letters) == 1


async def test_without_qstash_there_is_nothing_to_do(account: Account, back: Undelivered) -> None:
    account.outage = CarrierError("QStash can't be reached.")
    with structlog.testing.capture_logs() as logs:
        assert await letters_of(account, back).drain() == {"dead_letters": 0}
    assert [(line["event"], line["log_level"]) for line in logs] == [("dead_letters.interrupted", "warning")]
