"""Which way the work goes, by what is set."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from rowvec.app.daemon import Daemon
from rowvec.domain.errors import ConfigurationError
from rowvec.domain.lanes import Lane
from rowvec.settings import Settings, load_settings
from rowvec.settings_qstash import PUBLIC_KEYS
from rowvec.systemd import Notifier

SECRET = "very-secret-token"  # noqa: S105 - that it is never shown is what is tested
ALL = {
    "QSTASH_TOKEN": SECRET,
    "QSTASH_CURRENT_SIGNING_KEY": "sig_current",
    "QSTASH_NEXT_SIGNING_KEY": "sig_next",
    "SITE_URL": "https://app.example",
}
Read = Callable[..., Settings]
CURRENT, NEXT = sorted(PUBLIC_KEYS)
PUBLIC = {**ALL, "QSTASH_CURRENT_SIGNING_KEY": CURRENT, "QSTASH_NEXT_SIGNING_KEY": NEXT}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes = ("ROWVEC_", "QSTASH_", "EMBEDDING_", "SITE_", "BASE_", "NEXT_", "DATABASE_")
    for variable in list(os.environ):
        if variable.upper().startswith(prefixes):
            monkeypatch.delenv(variable)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read settings from the environment, with this in it."""

    def read_with(**variables: str) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return read_with


def refusal(settings: Settings) -> str:
    with pytest.raises(ConfigurationError) as caught:
        _ = settings.uses_qstash
    assert caught.value.exit_code == 78
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_nothing_set_is_the_database_and_says_what_is_missing(read: Read) -> None:
    found = read()
    assert (found.strategy, found.uses_qstash) == ("auto", False)
    assert found.why_not_qstash == (
        "For QStash to carry the work, set QSTASH_TOKEN, QSTASH_CURRENT_SIGNING_KEY, QSTASH_NEXT_SIGNING_KEY, SITE_URL."
    )
    assert (found.qstash_queue_name, found.qstash_concurrency, found.qstash_max_retries) == (
        "embedding-processor",
        2,
        3,
    )
    assert found.qstash_lanes == {Lane.STANDARD, Lane.BULK}


def test_all_set_is_qstash_unless_it_is_not_wanted(read: Read) -> None:
    found = read(**ALL)
    assert (found.uses_qstash, found.why_not_qstash) == (True, "")
    found = read(EMBEDDING_QUEUE_STRATEGY="database")
    assert (found.uses_qstash, found.why_not_qstash) == (False, "")


@pytest.mark.parametrize("missing", ALL)
@pytest.mark.parametrize("empty", ["", "  ", None])
def test_under_auto_what_is_missing_or_empty_is_named_and_asked_for_outright_it_is_refused(
    read: Read, missing: str, empty: str | None
) -> None:
    given = {name: value for name, value in ALL.items() if name != missing}
    if empty is not None:
        if missing == "SITE_URL" and empty:
            return  # no address at all: refused as such
        given[missing] = empty
    found = read(**given)
    assert not found.uses_qstash
    assert found.why_not_qstash == f"For QStash to carry the work, set {missing}."
    assert missing in refusal(read(EMBEDDING_QUEUE_STRATEGY="qstash"))


def test_the_public_keys_are_for_development_alone(read: Read) -> None:
    found = read(**PUBLIC)
    assert not found.uses_qstash
    assert "QSTASH_NEXT_SIGNING_KEY (a public one is set)" in found.why_not_qstash
    assert "a public one is set" in refusal(read(EMBEDDING_QUEUE_STRATEGY="qstash"))
    assert read(ROWVEC_DEVELOPMENT="true").uses_qstash


@pytest.mark.parametrize("name", ["SITE_URL", "BASE_URL", "NEXT_PUBLIC_SITE_URL", "NEXT_PUBLIC_APP_URL"])
def test_the_public_address_has_several_names(read: Read, name: str) -> None:
    given = {key: value for key, value in ALL.items() if key != "SITE_URL"}
    found = read(**given, **{name: "https://other.example"})
    assert (found.uses_qstash, str(found.site_url)) == (True, "https://other.example/")


def test_of_several_addresses_the_first_that_is_not_empty_counts(read: Read) -> None:
    found = read(SITE_URL="", BASE_URL="https://base.example", NEXT_PUBLIC_APP_URL="https://app.example")
    assert str(found.site_url) == "https://base.example/"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMBEDDING_QUEUE_STRATEGY", "kafka"),
        ("QSTASH_URL", "https://user:secret@qstash.example"),
        ("SITE_URL", "https://app.example/?a=b"),
        ("QSTASH_QUEUE_NAME", "a/b"),
        ("QSTASH_CONCURRENCY", "0"),
        ("QSTASH_MAX_RETRIES", "6"),
        ("ROWVEC_QSTASH_LANES", "standard,fast"),
        ("ROWVEC_QSTASH_MESSAGE_ITEMS", "0"),
        ("ROWVEC_DISPATCH_DEADLINE_SECONDS", "0"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(read: Read, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match="Wrong settings"):
        read(**{name: value})


def test_the_lanes_are_a_list(read: Read) -> None:
    assert read(ROWVEC_QSTASH_LANES="immediate, standard,bulk").qstash_lanes == set(Lane)
    assert read(ROWVEC_QSTASH_LANES="bulk").qstash_lanes == {Lane.BULK}


def test_a_daemon_without_what_qstash_needs_does_not_begin(read: Read) -> None:
    settings = read(DATABASE_URL="postgresql://localhost/app", EMBEDDING_QUEUE_STRATEGY="qstash")
    with pytest.raises(ConfigurationError, match="QSTASH_TOKEN"):
        Daemon(settings, Notifier())
