from __future__ import annotations

import asyncio
from array import array

import pytest

from clocks import settle
from rowvec.domain.items import EmbedderTraits
from rowvec.pipeline.recent import ENTRY_BYTES, RecentEmbeddings
from rowvec.ports import Embedding

TRAITS = EmbedderTraits("revision-1", "passage")
VECTOR_BYTES = 8
ROOM_FOR_THREE = 3 * (VECTOR_BYTES + ENTRY_BYTES)


def vector(number: float) -> Embedding:
    return array("f", [number, number])


def kept(recent: RecentEmbeddings) -> set[bytes]:
    return set(recent.find(TRAITS, [b"a", b"b", b"c", b"d", b"e"]))


def test_what_is_kept_is_found_under_its_traits_alone() -> None:
    recent = RecentEmbeddings()
    recent.keep(TRAITS, {b"a": vector(1), b"b": vector(2)})
    assert recent.find(TRAITS, [b"a", b"c"]) == {b"a": vector(1)}
    assert recent.find(EmbedderTraits("revision-2", "passage"), [b"a"]) == {}
    assert recent.find(EmbedderTraits("revision-1", "query"), [b"a"]) == {}


def test_the_oldest_make_room() -> None:
    recent = RecentEmbeddings(ROOM_FOR_THREE)
    for number, digest in enumerate([b"a", b"b", b"c", b"d"]):
        recent.keep(TRAITS, {digest: vector(number)})
    assert kept(recent) == {b"b", b"c", b"d"}


def test_what_was_used_last_stays() -> None:
    recent = RecentEmbeddings(ROOM_FOR_THREE)
    recent.keep(TRAITS, {b"a": vector(1), b"b": vector(2), b"c": vector(3)})
    recent.find(TRAITS, [b"a"])
    recent.keep(TRAITS, {b"d": vector(4)})
    assert kept(recent) == {b"a", b"c", b"d"}


def test_keeping_the_same_again_takes_no_more_room() -> None:
    recent = RecentEmbeddings(ROOM_FOR_THREE)
    recent.keep(TRAITS, {b"a": vector(1), b"b": vector(2)})
    for number in range(10):
        recent.keep(TRAITS, {b"c": vector(number)})
    assert recent.find(TRAITS, [b"a", b"b", b"c"]) == {b"a": vector(1), b"b": vector(2), b"c": vector(9)}


def test_what_is_larger_than_all_room_is_not_kept() -> None:
    recent = RecentEmbeddings(ROOM_FOR_THREE)
    recent.keep(TRAITS, {b"a": array("f", [0.0]) * 10_000})
    assert kept(recent) == set()


def test_what_is_forgotten_makes_room() -> None:
    recent = RecentEmbeddings(ROOM_FOR_THREE)
    recent.keep(TRAITS, {b"a": vector(1), b"b": vector(2), b"c": vector(3)})
    recent.forget(TRAITS, [b"b", b"unknown"])
    recent.keep(TRAITS, {b"d": vector(4)})
    assert kept(recent) == {b"a", b"c", b"d"}


async def test_what_one_sends_another_does_not_until_the_first_has_ended() -> None:
    recent = RecentEmbeddings()
    with recent.sending(TRAITS, [b"a", b"b"]) as mine:
        assert mine == [b"a", b"b"]
        with recent.sending(TRAITS, [b"b", b"c"]) as others:
            assert others == [b"c"]
        with recent.sending(EmbedderTraits("revision-2", ""), [b"a"]) as others:
            assert others == [b"a"]
    with recent.sending(TRAITS, [b"a", b"b", b"c"]) as mine:
        assert mine == [b"a", b"b", b"c"]


@pytest.mark.parametrize("fails", [False, True])
async def test_whoever_waits_goes_on_when_the_request_ends_well_or_not(*, fails: bool) -> None:
    recent = RecentEmbeddings()
    sending = recent.sending(TRAITS, [b"a"])
    sending.__enter__()
    waiting = asyncio.create_task(recent.settled(TRAITS, [b"a", b"b"]))
    await settle()
    assert not waiting.done()
    error = ValueError("a bug") if fails else None
    sending.__exit__(type(error) if error else None, error, None)
    await waiting


async def test_nobody_waits_for_what_nobody_sends() -> None:
    async with asyncio.timeout(5):
        await RecentEmbeddings().settled(TRAITS, [b"a"])
