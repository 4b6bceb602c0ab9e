from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rowvec.domain.chunking import cut_text
from rowvec.domain.errors import TextRejectedError
from rowvec.domain.items import Chunk, Source
from rowvec.domain.text import render_text, split_text

STORABLE = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
PROSE = st.text(st.one_of(st.sampled_from("ab 学.,;()\n\t\r\u00a0\u2028"), STORABLE), max_size=400).map(str.strip)


def source(
    *labels: str, template: str | None = None, chunking: str = "characters", characters: int = 1000, overlap: int = 0
) -> Source:
    return Source("note", labels or ("body",), template, chunking, characters, overlap)


def rendered(*values: object, template: str | None = None, labels: tuple[str, ...] = ("title", "body")) -> str:
    return render_text(source(*labels, template=template), json.dumps(values)).text


def visible(text: str) -> str:
    return "".join(text.split())


def test_each_column_stands_behind_its_label() -> None:
    assert rendered("Pods", "How to run them") == "title: Pods\nbody: How to run them"


def test_a_column_without_a_value_is_left_out() -> None:
    assert rendered(None, "How to run them") == "body: How to run them"
    assert rendered("", "How to run them") == "body: How to run them"
    assert rendered(" \n\t", "How to run them") == "body: How to run them"


@pytest.mark.parametrize("values", [(None, None), ("", "  "), ([], {}), ([None, ""], {"a": None}), ("\x00", "\ud800")])
@pytest.mark.parametrize("template", [None, "Course {title}: {body}"])
def test_a_row_with_nothing_to_say_has_no_text(values: tuple[object, ...], template: str | None) -> None:
    assert not rendered(*values, template=template)


def test_zero_and_false_are_something_to_say() -> None:
    assert rendered(0, False) == "title: 0\nbody: false"  # noqa: FBT003 - a column's value


def test_a_template_places_the_values() -> None:
    assert rendered("Pods", "Run them", template="# {title}\n\n{body}") == "# Pods\n\nRun them"


def test_a_template_may_name_a_column_twice_and_leave_one_out() -> None:
    assert rendered("Pods", "Run them", template="{title}, again {title}") == "Pods, again Pods"


def test_braces_inside_a_value_are_not_placeholders() -> None:
    assert rendered("{body}", "{nothing}", template="{title} {body}") == "{body} {nothing}"


def test_backslashes_inside_a_value_stay() -> None:
    assert rendered(r"a\1\g<0>", "x", template="{title}") == r"a\1\g<0>"


def test_the_gap_of_an_empty_value_in_a_template_is_closed() -> None:
    assert rendered("Pods", None, template="{title}\n\n{body}\n\nend") == "Pods\n\nend"


def test_arrays_become_a_list_of_words() -> None:
    assert rendered(["kubernetes", None, "", "学习"], None) == "title: kubernetes, 学习"


def test_nested_json_becomes_words_without_brackets_or_quotes() -> None:
    value = {"level": "beginner", "topics": ["pods", {"name": "services", "hours": 2.5}], "none": None, "open": True}
    assert rendered(value, None) == "title: level: beginner; topics: pods, name: services; hours: 2.5; open: true"


def test_nul_and_lone_surrogates_are_removed_from_values_and_keys() -> None:
    assert rendered("a\x00b\ud83dc\udc00", {"k\x00\udfff": "v"}) == "title: abc\nbody: k: v"


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert render_text(source(), r'["\ud83d\ude00"]').text == "body: 😀"


def test_a_surrogate_pair_split_over_two_columns_is_removed() -> None:
    both = render_text(source("a", "b", template="{a}{b}x"), r'["1\ud83d", "\ude002"]').text
    assert both == "12x"
    both.encode()


def test_of_duplicate_keys_the_last_counts() -> None:
    assert render_text(source(), '[{"a": 1, "b": 2, "a": 3}]').text == "body: a: 3; b: 2"


@pytest.mark.parametrize(
    "number", ["9" * 5000, "-" + "7" * 4301, "1e400", "0.12345678901234567890", "12345678901234567890.5", "1.50"]
)
def test_numbers_are_told_as_postgres_told_them(number: str) -> None:
    assert render_text(source(), f"[{number}]").text == f"body: {number}"


@pytest.mark.parametrize("broken", ['["\\ud83"]', '["a', "", "[1,]", '["a\nb"]', "[\\u0000]"])
def test_what_is_no_json_is_rejected(broken: str) -> None:
    with pytest.raises(TextRejectedError) as caught:
        render_text(source(), broken)
    assert caught.value.message == "The row's columns can't be read as JSON."


@pytest.mark.parametrize("depth", [600, 6000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_json_nested_too_deeply_is_rejected(opening: str, closing: str, depth: int) -> None:
    with pytest.raises(TextRejectedError):
        render_text(source(), f"[{opening * depth}1{closing * depth}]")


def test_json_nested_reasonably_is_read() -> None:
    assert render_text(source(), "[" * 61 + '"deep"' + "]" * 61).text == "body: deep"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(json_values, min_size=2, max_size=2), st.sampled_from([None, "{title} {body}", "{title}\n\n\n{body}"]))
def test_whatever_json_holds_the_text_can_be_stored(values: list[Any], template: str | None) -> None:
    text = rendered(*values, template=template)
    text.encode()
    assert "\x00" not in text
    assert text == text.strip()


def test_an_empty_text_has_no_chunks() -> None:
    assert split_text(source(), "") == []


def test_a_short_text_is_one_chunk_with_the_hash_of_its_bytes() -> None:
    [chunk] = split_text(source(), "学习 pods")
    assert chunk == Chunk(0, "学习 pods", hashlib.sha256("学习 pods".encode()).digest(), 0)


def test_without_chunking_the_text_stays_whole() -> None:
    text = "word " * 1000 + "end"
    assert [chunk.text for chunk in split_text(source(chunking="none", characters=100), text)] == [text]


def test_repeats_of_the_same_text_are_counted() -> None:
    chunks = split_text(source(characters=4), "same\nsame\nelse\nsame")
    assert [(chunk.index, chunk.text, chunk.repeat) for chunk in chunks] == [
        (0, "same", 0),
        (1, "same", 1),
        (2, "else", 0),
        (3, "same", 2),
    ]


def test_overlap_repeats_the_end_of_the_chunk_before() -> None:
    words = [f"word{number}" for number in range(40)]
    chunks = [chunk.text.split() for chunk in split_text(source(characters=60, overlap=20), " ".join(words))]
    assert len(chunks) > 2
    assert all(before[-1] in after for before, after in itertools.pairwise(chunks))
    assert set(itertools.chain(*chunks)) == set(words)


@given(PROSE, st.integers(1, 60))
@example("a" * 61, 60)
@example("é" * 7 + " " * 90 + "b", 5)
def test_without_overlap_no_visible_character_is_lost_or_doubled(text: str, characters: int) -> None:
    chunks = split_text(source(characters=characters), text)
    assert "".join(visible(chunk.text) for chunk in chunks) == visible(text)


@given(PROSE, st.integers(1, 60))
def test_without_overlap_chunks_are_within_their_size(text: str, characters: int) -> None:
    assert all(len(chunk.text) <= characters for chunk in split_text(source(characters=characters), text))


@pytest.mark.parametrize("overlap", [100, 750])
def test_with_overlap_chunks_are_within_their_size(overlap: int) -> None:
    text = "a" + " " * 10_000 + "b c d " * 400 + "end"
    assert all(len(chunk.text) <= 1500 for chunk in split_text(source(characters=1500, overlap=overlap), text))


@given(PROSE, st.integers(1, 60), st.integers(0, 80))
def test_chunks_are_numbered_and_told_apart(text: str, characters: int, overlap: int) -> None:
    chunks = split_text(source(characters=characters, overlap=overlap), text)
    assert all(chunk.text.strip() for chunk in chunks)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert len({(chunk.hash, chunk.repeat) for chunk in chunks}) == len(chunks)
    assert all(chunk.hash == hashlib.sha256(chunk.text.encode()).digest() for chunk in chunks)
    assert bool(chunks) == bool(text)


@given(PROSE, st.integers(1, 60), st.integers(1, 80))
def test_with_overlap_no_visible_character_is_lost(text: str, characters: int, overlap: int) -> None:
    joined = {
        character
        for chunk in split_text(source(characters=characters, overlap=overlap), text)
        for character in chunk.text
    }
    assert set(visible(text)) <= joined


@given(PROSE, st.integers(1, 60), st.integers(0, 80))
def test_the_same_text_gives_the_same_chunks(text: str, characters: int, overlap: int) -> None:
    settings_of_source = source(characters=characters, overlap=overlap)
    assert split_text(settings_of_source, text) == split_text(settings_of_source, text)


@settings(max_examples=20, deadline=None)
@given(st.text(st.sampled_from("ab .,;:\n\t学"), min_size=200, max_size=400))
def test_a_changed_end_leaves_the_chunks_of_distant_paragraphs_alone(paragraph: str) -> None:
    text = "\n\n".join(f"{number} {paragraph}" for number in range(8))
    before = {chunk.hash for chunk in split_text(source(characters=500), text)}
    after = {chunk.hash for chunk in split_text(source(characters=500), f"{text} and more")}
    assert before & after


@pytest.mark.parametrize("piece", ["x", "word ", "A sentence of some words. ", "line\n", "a\n\nb c\td, ", "学"])
@pytest.mark.parametrize("overlap", [0, 100])
def test_each_chunk_goes_on_by_half_a_chunk_at_least_so_the_work_grows_with_the_text(piece: str, overlap: int) -> None:
    text = (piece * 200_000)[:200_000]
    assert len(split_text(source(characters=1000, overlap=overlap), text)) <= len(text) / (500 - overlap) + 1


def test_an_edit_in_the_middle_leaves_almost_all_chunks_as_they_were() -> None:
    paragraphs = [f"Paragraph {n}. " + "Some words of it. " * (5 + n * 7 % 11) for n in range(300)]
    before = {chunk.hash for chunk in split_text(source(), "\n\n".join(paragraphs))}
    paragraphs[150] += "And a few more."
    paragraphs.insert(0, "A new first paragraph.")
    after = {chunk.hash for chunk in split_text(source(), "\n\n".join(paragraphs))}
    assert len(before) > 50
    assert len(after - before) <= 8


def test_line_breaks_of_many_kinds_are_cut_like_any_text() -> None:
    text = "".join("a" + "".join(breaks) for breaks in itertools.product("\r\n", repeat=11))
    chunks = split_text(source(), text)
    assert "".join(visible(chunk.text) for chunk in chunks) == visible(text)


CLUSTERS = {
    "an accent of its own": "e\u0301",
    "many accents": "a\u0300\u0301\u0302\u0323",
    "Arabic with vowels": "\u0645\u064f",
    "Thai with a tone": "\u0e01\u0e34\u0e48",
    "Thai with a vowel that is a letter": "\u0e19\u0e49\u0e33",
    "Hindi": "\u0915\u094d\u200d",
    "Korean in parts": "\u1112\u1161\u11ab",
    "a family": "👩\u200d👩\u200d👧",
    "a shade of skin": "👍🏽",
    "a red heart": "❤\ufe0f",
    "a key": "1\ufe0f\u20e3",
    "a flag": "🇩🇪",
    "a flag of tags": "🏴\U000e0067\U000e0062\U000e007f",
}


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS.keys())
@pytest.mark.parametrize("overlap", [0, 7])
def test_what_readers_see_as_one_character_is_not_cut(cluster: str, overlap: int) -> None:
    text = f"学{cluster}" * 200
    pieces = [chunk.text for chunk in split_text(source(characters=30, overlap=overlap), text)]
    assert all(len(piece) <= 30 for piece in pieces)
    assert all(piece.startswith(("学", cluster)) and piece.endswith(("学", cluster)) for piece in pieces)


@pytest.mark.parametrize("text", ["a" + "\u0301" * 1000, "\u200d" * 1000, "🇩🇪" * 500, "\u0301 " * 500])
def test_a_character_longer_than_a_chunk_is_cut_all_the_same(text: str) -> None:
    chunks = split_text(source(characters=50), text.strip())
    assert "".join(visible(chunk.text) for chunk in chunks) == visible(text)
    assert all(len(chunk.text) <= 50 for chunk in chunks)


def test_white_space_at_the_end_makes_no_piece_of_overlap_alone() -> None:
    assert list(cut_text("aaaa bbbb" + " " * 20, 9, 4)) == [(0, "aaaa bbbb")]


def test_repeated_paragraphs_are_told_apart_and_most_keep_their_chunks_under_an_edit() -> None:
    paragraph = "The same words again, and once more. " * 4
    before = split_text(source(characters=300), "\n\n".join([paragraph] * 50))
    after = split_text(source(characters=300), "\n\n".join(["A new first one.", *[paragraph] * 50]))
    known = {(chunk.hash, chunk.repeat) for chunk in before}
    assert len(known) == len(before)
    assert len({(chunk.hash, chunk.repeat) for chunk in after} - known) <= 2


SCRIPTS = [
    "学习如何运行容器，然后把它们连接起来。再看看会发生什么！",  # noqa: RUF001
    "ภาษาไทยเขียนติดกันโดยไม่มีช่องว่างระหว่างคำ",
    "تعلم كيفية تشغيل الحاويات، ثم اربط بينها. ماذا يحدث؟",
    "👩\u200d👩\u200d👧👍🏽❤\ufe0f🇩🇪",
    "한국어는 낱말 사이를 띄어 쓴다. ",
]


@pytest.mark.parametrize("phrase", SCRIPTS)
@pytest.mark.parametrize("chunking", ["characters", "markdown"])
def test_in_any_script_an_edit_changes_few_chunks(phrase: str, chunking: str) -> None:
    text = "".join(f"{number}{phrase * (1 + number % 3)}" for number in range(300))
    cutting = source(chunking=chunking, characters=200)
    before = {chunk.text for chunk in split_text(cutting, text)}
    after = {chunk.text for chunk in split_text(cutting, "新" + text.replace("150", "新", 1))}
    assert len(after - before) <= 8
