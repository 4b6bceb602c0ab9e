from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from rowvec.domain.chunk_diff import ChunkDiff, diff_chunks
from rowvec.domain.items import Chunk, Document, EmbedderTraits, Item, StoredChunk

NOW = EmbedderTraits("revision-2", "passage")
BEFORE = EmbedderTraits("revision-1", "passage")
OTHER_PREFIX = EmbedderTraits("revision-2", "query")

texts = st.lists(st.sampled_from("abcde"), max_size=6)
owners = st.sampled_from([None, "ann", "bob"])
rows = st.dictionaries(st.sampled_from(["1", "2", "3"]), st.tuples(owners, texts))
rows_and_traits = st.dictionaries(
    st.sampled_from(["1", "2", "3"]), st.tuples(owners, texts, st.sampled_from([NOW, BEFORE, OTHER_PREFIX]))
)


def document(content_id: str, owner: str | None, pieces: list[str]) -> Document:
    seen: Counter[str] = Counter()
    chunks = []
    for index, piece in enumerate(pieces):
        chunks.append(Chunk(index, piece, hashlib.sha256(piece.encode()).digest(), seen[piece], index * 2))
        seen[piece] += 1
    return Document(Item(int(content_id), content_id, 1, 0, datetime(2026, 1, 1, tzinfo=UTC)), owner, chunks)


def stored(found: Document, traits: EmbedderTraits = NOW) -> list[StoredChunk]:
    return [as_stored(found, chunk, traits) for chunk in found.chunks]


def as_stored(found: Document, chunk: Chunk, traits: EmbedderTraits = NOW) -> StoredChunk:
    place = (chunk.index, found.step(chunk), chunk.heading)
    return StoredChunk(found.item.content_id, chunk.hash, chunk.repeat, *place, found.owner, *traits)


def applied(diff: ChunkDiff, held: list[StoredChunk]) -> list[StoredChunk]:
    """Do what the store does: delete what is gone, move what moved, insert what is new."""
    table = [chunk for chunk in held if chunk not in diff.gone]
    for found, chunk in diff.moved:
        [before] = [row for row in table if row[:3] == (found.item.content_id, chunk.hash, chunk.repeat)]
        table[table.index(before)] = before._replace(position=chunk.index, step=found.step(chunk), owner=found.owner)
    return table + [as_stored(found, chunk) for found, chunk in diff.new]


@given(rows, rows_and_traits)
def test_applying_the_diff_gives_just_the_wanted_chunks(
    wanted: dict[str, tuple[str | None, list[str]]],
    held: dict[str, tuple[str | None, list[str], EmbedderTraits]],
) -> None:
    documents = [document(key, *wanted.get(key, (None, []))) for key in wanted.keys() | held.keys()]
    table = [
        chunk for key, (owner, pieces, traits) in held.items() for chunk in stored(document(key, owner, pieces), traits)
    ]
    diff = diff_chunks(documents, table, NOW)
    assert Counter(applied(diff, table)) == Counter(chunk for found in documents for chunk in stored(found))


@given(rows, rows)
def test_what_did_not_change_is_left_alone(
    wanted: dict[str, tuple[str | None, list[str]]], held: dict[str, tuple[str | None, list[str]]]
) -> None:
    documents = [document(key, *wanted.get(key, (None, []))) for key in wanted.keys() | held.keys()]
    table = [chunk for key, row in held.items() for chunk in stored(document(key, *row))]
    diff = diff_chunks(documents, table, NOW)
    keys = {chunk[:3] for chunk in table}
    assert not keys & {(found.item.content_id, chunk.hash, chunk.repeat) for found, chunk in diff.new}
    assert not {chunk for found in documents for chunk in stored(found)} & set(diff.gone)
    unchanged = set(table) & {chunk for found in documents for chunk in stored(found)}
    assert not unchanged & {as_stored(found, chunk) for found, chunk in diff.moved}


@given(rows)
def test_rows_as_they_are_need_nothing(held: dict[str, tuple[str | None, list[str]]]) -> None:
    documents = [document(key, *row) for key, row in held.items()]
    diff = diff_chunks(documents, [chunk for found in documents for chunk in stored(found)], NOW)
    assert diff == ChunkDiff()


def test_a_new_first_paragraph_moves_the_others() -> None:
    before, after = document("1", None, ["a", "b"]), document("1", None, ["c", "a", "b"])
    diff = diff_chunks([after], stored(before), NOW)
    assert diff.new == [(after, after.chunks[0])]
    assert diff.moved == [(after, after.chunks[1]), (after, after.chunks[2])]
    assert diff.gone == []


def test_a_new_owner_moves_all_chunks() -> None:
    before, after = document("1", "ann", ["a", "b"]), document("1", "bob", ["a", "b"])
    diff = diff_chunks([after], stored(before), NOW)
    assert [chunk.text for _, chunk in diff.moved] == ["a", "b"]
    assert (diff.new, diff.gone) == ([], [])


def test_chunks_behind_a_longer_one_are_left_alone() -> None:
    before, after = document("1", None, ["a", "b", "c", "d"]), document("1", None, ["a", "B", "c", "d"])
    behind = [replace(chunk, start=chunk.start + 5) for chunk in after.chunks[2:]]
    after = replace(after, chunks=[*after.chunks[:2], *behind])
    diff = diff_chunks([after], stored(before), NOW)
    assert (diff.new, diff.moved) == ([(after, after.chunks[1])], [])


def test_a_chunk_with_more_behind_it_than_before_is_told_so() -> None:
    before = document("1", None, ["a", "b"])
    after = replace(before, chunks=[before.chunks[0], replace(before.chunks[1], start=3)])
    assert diff_chunks([after], stored(before), NOW).moved == [(after, after.chunks[0])]
    longer = document("1", None, ["a", "b", "c"])
    assert diff_chunks([longer], stored(before), NOW).moved == [(longer, longer.chunks[1])]


def test_a_chunk_stored_without_its_step_is_given_it() -> None:
    found = document("1", None, ["a"])
    diff = diff_chunks([found], [chunk._replace(step=None) for chunk in stored(found)], NOW)
    assert (diff.new, diff.moved, diff.gone) == ([], [(found, found.chunks[0])], [])


def test_the_same_text_with_another_part_of_it_as_heading_is_stored_anew() -> None:
    plain = document("1", None, ["Guide\n\nwords"])
    [chunk] = plain.chunks
    headed = replace(plain, chunks=[replace(chunk, body="words", heading="Guide")])
    assert headed.chunks[0].text == chunk.text
    diff = diff_chunks([headed], stored(plain), NOW)
    assert (diff.new, diff.moved, diff.gone) == ([(headed, headed.chunks[0])], [], stored(plain))


def test_a_row_that_is_gone_loses_all_its_chunks() -> None:
    before = document("1", None, ["a", "a"])
    diff = diff_chunks([document("1", None, [])], stored(before), NOW)
    assert (diff.new, diff.moved, diff.gone) == ([], [], stored(before))


def test_one_repeat_fewer_removes_the_last_repeat() -> None:
    before, after = document("1", None, ["a", "a", "a"]), document("1", None, ["a", "a"])
    assert [chunk.repeat for chunk in diff_chunks([after], stored(before), NOW).gone] == [2]


def test_the_same_text_in_two_rows_is_two_chunks() -> None:
    first, second = document("1", None, ["a"]), document("2", None, ["a"])
    diff = diff_chunks([first, second], stored(first), NOW)
    assert (diff.new, diff.moved, diff.gone) == ([(second, second.chunks[0])], [], [])


def test_vectors_of_another_revision_or_prefix_are_stored_anew() -> None:
    for traits in (BEFORE, OTHER_PREFIX):
        found = document("1", None, ["a", "b"])
        diff = diff_chunks([found], stored(found, traits), NOW)
        assert diff.new == [(found, chunk) for chunk in found.chunks]
        assert diff.gone == stored(found, traits)
        assert diff.moved == []
