from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from markdown_texts import documents, texts
from rowvec.domain.headings import Outline, join_path, read_label
from rowvec.domain.items import Chunk, Source
from rowvec.domain.markdown import read_blocks, read_structure
from rowvec.domain.text import render_text, split_text

GUIDE = """# Guide

About it.

## Install

How to.

#### Linux

With apt.

Use
---

Run it.

# Other

The end.
"""


def heading_at(text: str, words: str, title: str = "") -> str:
    """What a chunk that consists of these words stands under."""
    start = text.index(words)
    return Outline(text, read_structure(text), title).heading(start, start + len(words), 200)


# The path


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("# Guide", ""),
        ("About it.", "Guide"),
        ("## Install", "Guide"),
        ("How to.", "Guide > Install"),
        ("#### Linux", "Guide > Install"),
        ("With apt.", "Guide > Install > Linux"),
        ("Use", "Guide"),
        ("Run it.", "Guide > Use"),
        ("# Other", ""),
        ("The end.", "Other"),
    ],
)
def test_a_chunk_stands_under_the_headings_above_it_but_not_under_its_own(words: str, path: str) -> None:
    assert heading_at(GUIDE, words) == path


def test_a_chunk_that_begins_inside_a_heading_stands_under_it() -> None:
    assert heading_at(GUIDE, "Install") == "Guide > Install"


@pytest.mark.parametrize(
    "above",
    [
        "```\n# Code\n```",
        "> # Quoted",
        "> Quoted\n> ===",
        "- # Item",
        "- item\n\n  # Item",
        "    # Code",
        "#hashtag",
        "- item\n---",
        "| a |\n|---|",
    ],
)
def test_what_is_no_heading_of_the_text_is_above_nothing(above: str) -> None:
    assert heading_at(f"# Real\n\n{above}\n\nWords.", "Words.") == "Real"


def test_a_heading_after_a_list_or_quote_is_one_of_the_text() -> None:
    assert heading_at("- item\n\n# After\n\nWords.", "Words.") == "After"
    assert heading_at("> quote\n\n# After\n\nWords.", "Words.") == "After"


@given(documents)
def test_headings_are_the_outermost_ones_of_a_full_parser(text: str) -> None:
    expected = [
        (int(token.tag[1]), token.map[0])
        for token in MarkdownIt("commonmark").enable("table").parse(text)
        if token.type == "heading_open" and token.level == 0 and token.map
    ]
    found = [
        (level, text.count("\n", 0, begin))
        for level, begins in enumerate(read_structure(text).headings, start=1)
        for begin in begins
    ]
    assert sorted(found, key=lambda heading: heading[1]) == expected


@given(texts, st.integers(0, 300))
def test_the_path_is_what_a_stack_of_headings_would_hold(text: str, offset: int) -> None:
    stack: list[tuple[int, str]] = []
    for block in read_blocks(text):
        if block.rank <= 6 and not block.is_nested and block.begin <= offset:
            stack = [heading for heading in stack if heading[0] < block.rank]
            stack += [(block.rank, read_label(text, block.begin))] if block.begin < offset else []
    expected = " > ".join(label for _, label in stack if label)
    assert Outline(text, read_structure(text), "").heading(offset, offset, 1_000_000) == expected


# Its words


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("# One", "One"),
        ("######   Six \t words  ", "Six words"),
        ("## Closed ##", "Closed"),
        ("## Closed ##  \nwords", "Closed"),
        ("# C#", "C#"),
        ("# #", ""),
        ("#", ""),
        ("#\nwords", ""),
        ("One\n===\nwords", "One"),
        ("Two\nlines \n  ---  \r\nwords\n---", "Two lines"),
        ("#hashtag\n---", "#hashtag"),
        ("# One\r\nwords", "One"),
        ("# 学习 😀", "学习 😀"),
    ],
)
def test_a_label_is_the_words_of_a_heading(text: str, label: str) -> None:
    assert read_label(text, 0) == label


@pytest.mark.parametrize("text", ["# " + "a" * 100_000, "a" * 100_000 + "\n===", "a\n" + "=" * 100_000])
def test_of_a_heading_of_any_length_the_beginning_is_read(text: str) -> None:
    assert set(read_label(text, 0)) == {"a"}
    assert len(read_label(text, 0)) <= 1000


# Its length


@pytest.mark.parametrize(
    ("most", "line"),
    [
        (100, "Alpha > Beta > Gamma > Delta > Epsilon"),
        (37, "Alpha > Beta > … > Delta > Epsilon"),
        (33, "Alpha > Beta > … > Epsilon"),
        (25, "Alpha > … > Epsilon"),
        (18, "Alpha…Epsilon"),
        (11, "Alpha…silon"),
        (1, "…"),
    ],
)
def test_a_path_that_is_too_long_loses_its_middle(most: int, line: str) -> None:
    assert join_path(["Alpha", "Beta", "Gamma", "Delta", "Epsilon"], most) == line


@given(st.lists(st.text(min_size=1, max_size=30), max_size=7), st.integers(1, 100))
def test_a_path_of_any_headings_is_as_long_as_there_is_room_at_most(path: list[str], most: int) -> None:
    line = join_path(path, most)
    assert len(line) <= most
    if len(" > ".join(path)) <= most:
        assert line == " > ".join(path)


# The title


def test_the_title_is_the_outermost() -> None:
    assert heading_at("title: Pods\n\nbody:\n\n" + GUIDE, "How to.", "Pods") == "Pods > Guide > Install"


def test_the_chunk_in_which_the_title_stands_is_not_given_it() -> None:
    assert heading_at("title: Pods\nbody: words", "title: Pods", "Pods") == ""
    assert heading_at("title: Pods\nbody: words", "words", "Pods") == "Pods"
    assert heading_at("title: Pods\nbody: words", "title: Po", "Pods") == "Pods"


def test_a_title_that_is_the_first_heading_too_is_not_told_twice() -> None:
    assert heading_at("# Guide\n\n" + GUIDE, "About it.", "Guide") == "Guide"
    assert heading_at("title:  Guide\n\n" + GUIDE, "About it.", "Guide") == "Guide"


# Rows


def source(*labels: str, template: str | None = None, characters: int = 200, overlap: int = 0) -> Source:
    return Source("note", labels, template, "markdown", characters, overlap)


def chunks_of(cut: Source, *values: object) -> list[Chunk]:
    return split_text(cut, *render_text(cut, json.dumps(values)))


BODY = "# Guide\n\n" + "Some words. " * 30 + "\n\n## Install\n\n" + "More words. " * 30


def test_chunks_carry_title_and_headings_and_the_model_is_given_them() -> None:
    chunks = chunks_of(source("title", "body"), "Pods", BODY)
    assert chunks[0].heading == ""
    assert chunks[0].body.startswith("title: Pods\n\nbody:\n\n# Guide\n\nSome words.")
    assert chunks[0].text == chunks[0].body
    assert {chunk.heading for chunk in chunks[1:]} == {"Pods > Guide", "Pods > Guide > Install"}
    assert chunks[-1].text == "Pods > Guide > Install\n\n" + chunks[-1].body


def test_room_is_kept_only_where_something_may_be_above() -> None:
    words = "".join(f"{n:05}" for n in range(400))
    assert max(len(chunk.body) for chunk in split_text(source("body"), words)) > 158
    for title, text in [("Pods", words), ("", "# One\n" + words)]:
        chunks = split_text(source("body"), text, title)
        assert max(len(chunk.body) for chunk in chunks) <= 158


def test_a_text_that_fits_is_one_chunk_with_its_title_and_headings_in_it() -> None:
    text = "title: Pods\n\n# One\n\n" + "x" * 180
    assert len(text) == 200
    [chunk] = split_text(source("title", "body"), text, "Pods")
    assert (chunk.body, chunk.heading) == (text, "")
    assert len(split_text(source("title", "body"), text + "x", "Pods")) > 1


@given(texts, st.text(max_size=250), st.integers(50, 300), st.integers(0, 150))
def test_bodies_are_slices_of_the_text_and_fit_with_their_headings(
    text: str, title: str, characters: int, overlap: int
) -> None:
    cut = source("body", characters=characters, overlap=min(overlap, characters // 2))
    for chunk in split_text(cut, text, title):
        assert text[chunk.start : chunk.start + len(chunk.body)] == chunk.body
        assert chunk.text.endswith(chunk.body)
        assert len(chunk.text) <= characters
        assert chunk.hash == hashlib.sha256(chunk.text.encode()).digest()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=2, max_size=3), st.booleans())
def test_offsets_are_those_of_the_rendered_row(values: list[str], has_template: bool) -> None:  # noqa: FBT001
    labels = ["title", "body", "notes"][: len(values)]
    template = "{title}\n\n{body}" if has_template else None
    cut = source(*labels, template=template, characters=50, overlap=10)
    text, title = render_text(cut, json.dumps(values))
    for chunk in split_text(cut, text, title):
        assert text[chunk.start : chunk.start + len(chunk.body)] == chunk.body


def test_in_markdown_a_value_of_several_lines_begins_with_its_own_first_line() -> None:
    text, _ = render_text(source("title", "body", "tags"), json.dumps(["Pods", "# Guide\n\nWords", "a"]))
    assert text == "title: Pods\n\nbody:\n\n# Guide\n\nWords\n\ntags: a"
    assert heading_at(text, "Words") == "Guide"


# Edits


def sections(levels: list[int]) -> list[str]:
    return [
        "#" * level
        + f" Section {number}\n\n"
        + "\n\n".join(f"{number}.{n} " + "Some words of it. " * n for n in range(9))
        for number, level in enumerate(levels)
    ]


LEVELS = [1, 2, 3, 3, 2, 1, 2, 3, 2, 1] * 4


def hashes_under(parts: list[str], overlap: int) -> dict[bytes, str]:
    cut = source("title", "body", characters=500, overlap=overlap)
    return {chunk.hash: chunk.heading + chunk.body for chunk in chunks_of(cut, "Pods", "\n\n".join(parts))}


@pytest.mark.parametrize("overlap", [0, 60])
@pytest.mark.parametrize("place", range(len(LEVELS)))
def test_a_changed_heading_changes_the_chunks_under_it(place: int, overlap: int) -> None:
    parts = sections(LEVELS)
    before = hashes_under(parts, overlap)
    parts[place] = parts[place].replace(f"Section {place}\n", f"A new name for section {place}\n")
    after = hashes_under(parts, overlap)
    sent = [text for digest, text in after.items() if digest not in before]
    assert sent == [text for text in after.values() if f"A new name for section {place}" in text]
    end = next((n for n in range(place + 1, len(LEVELS)) if LEVELS[n] <= LEVELS[place]), len(LEVELS))
    assert end - place <= len(sent) <= 5 * (end - place)
    assert len(after) > 100


@pytest.mark.parametrize("overlap", [0, 60])
def test_a_changed_paragraph_changes_few_chunks_whatever_stands_above(overlap: int) -> None:
    parts = sections(LEVELS)
    before = hashes_under(parts, overlap)
    for place in range(len(parts)):
        edited = [*parts[:place], parts[place].replace(".5 Some", ".5 Some other"), *parts[place + 1 :]]
        assert len(hashes_under(edited, overlap).keys() - before.keys()) <= 3


@pytest.mark.parametrize(
    ("value", "heading"),
    [("Pods", "Pods"), ("x" * 200, "x" * 19), ("x" * 201, ""), ("Two\nlines", ""), ("Two\u2028lines", ""), ("", "")],
)
def test_the_title_is_the_first_column_where_that_is_a_short_line(value: str, heading: str) -> None:
    last = chunks_of(source("name", "body"), value, "Some words. " * 60)[-1]
    assert last.heading.startswith(heading)
    assert bool(last.heading) == bool(heading)


def test_the_only_column_is_no_title() -> None:
    assert {chunk.heading for chunk in chunks_of(source("body"), "word " * 40)} == {""}


def test_a_title_that_the_template_leaves_out_is_left_out() -> None:
    some = "Some words. " * 60
    assert chunks_of(source("title", "body", template="{body}"), "Pods", some)[-1].heading == ""
    assert chunks_of(source("title", "body", template="# {title}\n\n{body}"), "Pods", some)[-1].heading == "Pods"
    assert chunks_of(source("title", "body", template="{body}\n\n{title}"), "Pods", some)[0].heading == "Pods"


def test_other_ways_of_cutting_know_no_headings() -> None:
    for chunking in ("none", "characters"):
        cut = Source("note", ["title", "body"], None, chunking, 100, 0)
        chunks = chunks_of(cut, "Pods", BODY)
        assert {chunk.heading for chunk in chunks} == {""}
        assert chunks[0].body.startswith("title: Pods\nbody: # Guide")
