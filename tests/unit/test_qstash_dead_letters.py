"""From messages that died back to their rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import pytest
import structlog

from qstash_account import Account
from rowvec.domain.errors import CarrierError, DatabaseUnavailableError
from rowvec.domain.items import Key
from rowvec.qstash.answers import DeadLetter
from rowvec.qstash.dead_letters import DeadLetters, carried, is_ours, list_letters

SITE: Final = "https://app.example"
NAME: Final = UUID("11111111-2222-3333-4444-555555555555")
ONE: Final = {"contentType": "course", "contentId": "7", "priority": 2}
TWO: Final = {"contentType": "post", "contentId": "a b", "priority": 3}
BATCH: Final = json.dumps({"dispatch": str(NAME), "items": [ONE, TWO]})
SINGLE: Final = json.dumps({**ONE, "dispatch": str(NAME)})


class Rows:
    """Attributes:
    recalled: what was taken back.
    away: whether Postgres is.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self.recalled: list[tuple[UUID, Sequence[Key]]] = []
        self.letters_then: list[int] = []
        self.away = False

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> None:
        if self.away:
            raise DatabaseUnavailableError("Postgres can't be reached.")
        self.recalled.append((message, rows))
        self.letters_then.append(len(self._account.letters))


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def rows(account: Account) -> Rows:
    return Rows(account)


def drain(account: Account, rows: Rows) -> DeadLetters:
    return DeadLetters(account, rows, SITE + "/")


def test_a_row_that_postgres_can_t_hold_is_none_of_ours() -> None:
    assert carried(json.dumps({**ONE, "contentId": "a\x00", "dispatch": str(NAME)})) is None
    assert carried(json.dumps({**ONE, "contentType": "\ud800", "dispatch": str(NAME)})) is None


def test_a_message_names_its_rows_in_either_form() -> None:
    assert carried(BATCH) == (NAME, [Key("course", "7"), Key("post", "a b")])
    assert carried(SINGLE) == (NAME, [Key("course", "7")])


@pytest.mark.parametrize(
    "body",
    [
        None,
        "",
        "{",
        "[]",
        "7",
        "null",
        "{}",
        '{"task": "cleanup"}',
        json.dumps({"dispatch": "7", "items": []}),
        json.dumps({"dispatch": 7, "items": [ONE]}),
        json.dumps({"dispatch": str(NAME), "items": 7}),
        json.dumps({"dispatch": str(NAME), "items": [7]}),
        json.dumps({"dispatch": str(NAME), "items": [{"contentType": 7, "contentId": "7"}]}),
        json.dumps({"items": [ONE]}),
    ],
)
def test_what_is_no_message_of_ours_names_none(body: str | None) -> None:
    assert carried(body) is None


def test_whose_a_letter_is_follows_from_where_it_was_to_go(account: Account) -> None:
    ours = account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    theirs = account.put_letter(f"{SITE}.evil.example/api/embeddings/process", BATCH)
    assert [is_ours(account.letters[id_], SITE) for id_ in (ours, theirs)] == [True, False]


async def test_all_pages_are_read_but_not_without_end(account: Account) -> None:
    for _ in range(7):
        account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    assert len(await list_letters(account)) == 7
    assert len(await list_letters(account, most=3)) == 4


async def test_rows_are_back_before_their_letter_is_gone(account: Account, rows: Rows) -> None:
    account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    account.put_letter(f"{SITE}/api/embeddings/process-webhook", SINGLE)
    with structlog.testing.capture_logs() as logs:
        assert await drain(account, rows).drain() == {"dead_letters": 2}
    assert rows.recalled == [(NAME, [Key("course", "7"), Key("post", "a b")]), (NAME, [Key("course", "7")])]
    assert rows.letters_then == [2, 1]
    assert account.letters == {}
    died = [line for line in logs if line["event"] == "letter.drained"]
    assert [(line["message"], line["rows"], line["status"], line["answer"]) for line in died] == [
        (str(NAME), 2, 503, "busy"),
        (str(NAME), 1, 503, "busy"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/api/embeddings/queue-monitor",
        "/api/embeddings/maintenance",
        "/api/qstash/callback",
        "/api/qstash/failure",
    ],
)
async def test_what_carries_nothing_is_forgotten(account: Account, rows: Rows, path: str) -> None:
    account.put_letter(SITE + path, BATCH)
    assert await drain(account, rows).drain() == {"dead_letters": 1}
    assert (account.letters, rows.recalled) == ({}, [])


async def test_letters_of_others_and_riddles_are_left_for_a_person(account: Account, rows: Rows) -> None:
    account.put_letter("https://else.example/api/embeddings/process", BATCH)
    account.put_letter(f"{SITE}/api/v4/process", BATCH)
    account.put_letter(f"{SITE}/api/embeddings/process", "?")
    assert await drain(account, rows).drain() == {"dead_letters": 0}
    assert (len(account.letters), rows.recalled) == (3, [])


class Contested(Account):
    """Somebody else takes every letter between the look and the deletion."""

    async def dead_letters(self, cursor: str = "") -> tuple[Sequence[DeadLetter], str]:
        found = await super().dead_letters(cursor)
        self.letters.clear()
        return found


async def test_a_letter_that_another_daemon_took_is_not_counted(rows: Rows) -> None:
    account = Contested()
    account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    assert await drain(account, rows).drain() == {"dead_letters": 0}
    assert len(rows.recalled) == 1


async def test_without_postgres_the_letters_stay(account: Account, rows: Rows) -> None:
    account.put_letter(f"{SITE}/api/embeddings/process", BATCH)
    rows.away = True
    with pytest.raises(DatabaseUnavailableError):
        await drain(account, rows).drain()
    assert len(account.letters) == 1


async def test_without_qstash_there_is_nothing_to_do(account: Account, rows: Rows) -> None:
    account.outage = CarrierError("QStash can't be reached.")
    with structlog.testing.capture_logs() as logs:
        assert await drain(account, rows).drain() == {"dead_letters": 0}
    assert [(line["event"], line["log_level"]) for line in logs] == [("dead_letters.interrupted", "warning")]
