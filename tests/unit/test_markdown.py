from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import SupportsIndex

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from markdown_texts import documents, texts
from rowvec.domain.chunking import cut_text
from rowvec.domain.items import Chunk, Source
from rowvec.domain.markdown import read_blocks, read_structure
from rowvec.domain.text import split_text


def cut(text: str, size: int, overlap: int = 0) -> list[str]:
    return [piece.text for piece in cut_text(text, size, overlap, read_structure(text))]


def visible(text: str) -> str:
    return "".join(text.split())


def headings(text: str) -> list[tuple[int, str]]:
    return [(block.rank, text[block.begin : block.end]) for block in read_blocks(text) if block.rank <= 6]


def wholes(text: str) -> list[str]:
    return [text[block.begin : block.end] for block in read_blocks(text) if block.is_whole]


# What a line is


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# One", [(1, "# One")]),
        ("###### Six\n", [(6, "###### Six")]),
        ("####### seven", []),
        ("#hashtag", []),
        ("#", [(1, "#")]),
        ("   ## Indented ##  ", [(2, "## Indented ##")]),
        ("    # code", []),
        ("\t# code", []),
        ("words\n# One\nwords", [(1, "# One")]),
        ("One\n===", [(1, "One\n===")]),
        ("Two\nlines\n---\nwords", [(2, "Two\nlines\n---")]),
        ("words\n\n---\n\nwords", []),
        ("- item\n---", []),
        ("```\n# code\n```\n# One", [(1, "# One")]),
        ("~~~\n# code\n```\n# code", []),
        ("````\n```\n# code\n````\n# One", [(1, "# One")]),
        ("``` a ` b\n# One", [(1, "# One")]),
        ("```\n    ```\n# code", []),
        ("> # One\n> words", [(1, "> # One")]),
        ("> ```\n> # code\n\n# One", [(1, "# One")]),
        ("- a\n\n      # code\n\n  # One", [(1, "# One")]),
        ("1. a\n   ```\n   # code\n   ```\n2. b", []),
        ("a | b\n--|--\n# One", [(1, "# One")]),
        ("# One\r\n\r\nTwo\r\n---\r\n", [(1, "# One"), (2, "Two\r\n---")]),
    ],
)
def test_headings(text: str, found: list[tuple[int, str]]) -> None:
    assert headings(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\n```py\n\nb\n```\nc", ["```py\n\nb\n```"]),
        ("```\nno end\n\n# code", ["```\nno end\n\n# code"]),
        ("~~~ `\na\n~~~~\nb", ["~~~ `\na\n~~~~"]),
        ("```a```\nb", []),
        ("1. a\n\n    ```\n    b\n    ```\n\nc", ["```\n    b\n    ```"]),
        ("> ```\n> a\nb", ["> ```\n> a"]),
        ("| a | b |\n|---|:-:|\n| 1 | 2 |\n\nc", ["| a | b |\n|---|:-:|\n| 1 | 2 |"]),
        ("a | b\n- | -\n1 | 2", []),
        ("a | b\n-- | --\n1 | 2", ["a | b\n-- | --\n1 | 2"]),
        ("a\n|---|", []),
        ("- | a |\n  |---|", ["- | a |\n  |---|"]),
        ("    ```\n    code", []),
    ],
)
def test_what_is_kept_whole(text: str, found: list[str]) -> None:
    assert wholes(text) == found


def test_offsets_are_those_of_the_text() -> None:
    text = "\r\n\n  # 学习\n\n\t- pods\n> words  \n\n"
    assert [text[block.begin : block.end] for block in read_blocks(text)] == ["# 学习", "- pods", "> words"]


PARSER = MarkdownIt("zero", {"maxNesting": 50})
PARSER.block.ruler.enableOnly(
    ["table", "code", "fence", "blockquote", "hr", "list", "heading", "lheading", "paragraph"]
)


@settings(deadline=None)
@given(documents)
def test_headings_fences_and_tables_are_those_of_a_full_parser(text: str) -> None:
    kinds = {"heading_open": "heading", "fence": "whole", "table_open": "whole"}
    expected = [
        (token.map[0], token.tag if token.type == "heading_open" else "whole")
        for token in PARSER.parse(text)
        if token.type in kinds and token.map
    ]
    assert expected == [
        (text.count("\n", 0, block.begin), "whole" if block.is_whole else f"h{block.rank}")
        for block in read_blocks(text)
        if block.is_whole or block.rank <= 6
    ]


# Where it is cut


def test_a_heading_of_a_higher_level_is_the_stronger_cut() -> None:
    filler = "\n\n".join(["words " * 10] * 3)
    text = f"# A\n\n{filler}\n\n### B\n\n{filler}\n\n## C\n\n{filler}\n\n### D\n\n{filler}"
    assert [piece.split("\n")[0] for piece in cut(text, 650)] == ["# A", "## C"]


def test_blocks_are_cut_before_items_items_before_lines_and_lines_before_sentences() -> None:
    text = "Words\nand more.\n\n- one\n  more. And more\n- two\n  more\n\nThe end.\nOf it."
    assert cut(text, 60)[1] == "The end.\nOf it."
    assert cut(text, 45)[1].startswith("- two")
    assert cut("A line. Two of them.\nWords. And words.", 30)[1].startswith("Words.")


def test_code_and_tables_that_fit_are_not_cut_however_little_stands_before_them() -> None:
    code = "```\n" + "\n\n".join(["# line"] * 11) + "\n```"
    assert 75 < len(code) < 100
    assert cut(f"Words.\n\n{code}\n\nMore words.", 100) == ["Words.", code, "More words."]
    assert cut(f"Words.\n{code}\nMore words.", 100) == ["Words.", code, "More words."]


def test_code_that_does_not_fit_is_cut_at_its_empty_lines() -> None:
    code = "```\n" + "\n\n".join(["a\nb\nc"] * 30) + "\n```"
    pieces = cut(code, 60)
    assert len(pieces) > 2
    assert all(piece.startswith("a") for piece in pieces[1:])


def test_an_overlap_is_smaller_where_code_would_not_fit_otherwise() -> None:
    code = "```\n" + "x" * 80 + "\n```"
    pieces = cut("words " * 30 + f"\n\n{code}\n\n" + "words " * 30, 100, 40)
    assert any(code in piece for piece in pieces)


def test_headings_go_with_what_follows_them() -> None:
    text = "Words. " * 12 + "\n\n# A\n\n## B\n\n" + "More words. " * 20
    assert next(piece for piece in cut(text, 100) if "#" in piece).startswith("# A\n\n## B\n\nMore")


def test_a_heading_is_not_the_end_even_where_its_empty_line_is_the_strongest_separator() -> None:
    heading = "# A heading that is longer than the half of a chunk, or nearly so"
    assert cut("Words.\n\n" + heading + "\n\n" + "学" * 200, 100)[0].startswith(f"Words.\n\n{heading}\n\n学")
    assert cut("Words.\n\n" + heading + "\n\n" + "学" * 200, 75)[0] == "Words."


def test_a_heading_goes_with_all_of_its_code_if_both_fit_and_with_its_beginning_otherwise() -> None:
    code = "```\n" + "line\n" * 17 + "```"
    assert f"# A\n{code}" in cut(f"Words.\n\n# A\n{code}\n\nMore.", 100)
    assert cut("Words. " * 8 + f"\n\n# A heading\n{code}\n\nMore.", 94)[1].startswith("# A heading\n```\nline")


def test_a_heading_without_a_text_stands_where_it_stands() -> None:
    assert "".join(map(visible, cut("# A\n" * 100, 50))) == "#A" * 100


sizes = st.integers(1, 200)


@settings(deadline=None)
@given(texts, sizes)
@example("# a\n" + "`" * 40 + "\n" + "b" * 40, 10)
def test_nothing_but_white_space_is_lost_and_no_piece_is_too_long(text: str, size: int) -> None:
    pieces = cut(text, size)
    assert "".join(map(visible, pieces)) == visible(text)
    assert all(piece and piece == piece.strip() and len(piece) <= size for piece in pieces)


@settings(deadline=None)
@given(texts, st.integers(2, 200), st.data())
def test_with_overlap_the_pieces_cover_the_text_in_its_order(text: str, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(1, size // 2))
    covered = 0
    for piece in cut(text, size, overlap):
        assert piece == piece.strip()
        assert 0 < len(piece) <= size
        begin = len(text) - len(text[covered:].lstrip())
        covered = max(covered, text.rindex(piece, 0, begin + len(piece)) + len(piece))
    assert not text[covered:].strip()


@settings(deadline=None)
@given(documents, st.integers(100, 300), st.integers(0, 50))
def test_code_and_tables_are_in_one_piece_when_they_fit(text: str, size: int, overlap: int) -> None:
    pieces = cut(text, size, overlap)
    for span in read_structure(text).spans:
        assert any(text[span.begin : span.held(size)] in piece for piece in pieces)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=30),
    st.integers(120, 250),
    st.integers(0, 60),
)
@example([(0, 1), (1, 9), (0, 60)], 120, 0)
def test_no_piece_ends_with_a_heading_whose_text_is_in_the_next(
    kinds: list[tuple[int, int]], size: int, overlap: int
) -> None:
    found = [
        "#" * level + f" Heading {number}" + " on" * (count % 8) if level else "word " * count + f"and {number}."
        for number, (level, count) in enumerate(kinds)
    ]
    leading = {
        block
        for (block, following), (this, other) in zip(pairwise(found), pairwise(kinds), strict=True)
        if this[0] and (not other[0] or other[0] > this[0]) and following
    }
    for piece in cut("\n\n".join(found), size, overlap):
        assert piece.split("\n\n")[-1] not in leading


def section(number: int) -> str:
    some = 5 + number * 7 % 11
    kinds = [
        f"{'#' * (1 + number % 3)} Section {number}",
        f"Paragraph {number}. " + "Some words of it. " * some,
        f"- item {number}\n" + "- and another\n" * some,
        f"```\ncode {number}\n" + "more of it\n" * some + "```",
        f"| table {number} |\n|---|\n" + "| row |\n" * some,
    ]
    return kinds[number % 5] if number % 2 else kinds[1]


@pytest.mark.parametrize("place", range(1, 300, 13))
@pytest.mark.parametrize("overlap", [0, 100])
def test_an_edit_changes_few_chunks(place: int, overlap: int) -> None:
    sections = [section(number) for number in range(300)]
    before = set(cut("\n\n".join(sections), 1000, overlap))
    sections[place] = sections[place].replace(str(place), f"{place} (edited)")
    assert len(set(cut("\n\n".join(sections), 1000, overlap)) - before) <= 4
    sections.insert(0, "A new first paragraph. " * (place % 9))
    assert len(set(cut("\n\n".join(sections), 1000, overlap)) - before) <= 8
    assert len(before) > 50


# The work grows with the text


class CountedText(str):
    """A text that counts its characters that are looked at, but for those that regular expressions look at."""

    __slots__ = ("seen",)
    seen: int

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        found = super().__getitem__(key)
        self.seen += len(found)
        return found

    def count(self, part: str, start: SupportsIndex | None = 0, end: SupportsIndex | None = None) -> int:
        self.seen += len(range(len(self))[start:end])
        return super().count(part, start, end)

    def rfind(self, part: str, start: SupportsIndex | None = 0, end: SupportsIndex | None = None) -> int:
        found = super().rfind(part, start, end)
        self.seen += len(range(len(self))[start if found < 0 else found : end])
        return found

    def rstrip(self, characters: str | None = None) -> CountedText:
        return counted(super().rstrip(characters))


def counted(text: str) -> CountedText:
    made = CountedText(text)
    made.seen = 0
    return made


def work(text: str, act: Callable[[str], object]) -> int:
    """Count the functions called, Python's own too, and the characters seen: nothing that a busy machine changes."""
    calls = 0
    watched = counted(text)

    def tick(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(tick)
    try:
        act(watched)
    finally:
        sys.setprofile(before)
    return calls + watched.seen


ADVERSARIES = [
    *["#", "# ", "#\n", "# a\n", "# a\nb\n", "#\n##\n###\n####\n", "`", "```\n", "```\n~~~\n", "[", ">", "> ", ">\n"],
    *["> a\nb\n", "> > > a\nb\n", "*", "* ", "* a\n", "- a\n  - b\n    - c\n", "1. ", "|", "|\n", "|a|\n|-|\n", "=\n"],
    *[
        "-\n",
        "a\n-\n",
        "a\n\n",
        "    a\n",
        "a|b\n|-|-|\n\n",
        "a\n=|\n",
        "\t",
        "a",
        "a ",
        "学",
        "\u0301",
        "<div>\n",
        "- ```\n",
        "> ```\n",
        "***\n",
        "# a\n## b\n### c\n#### d\nwords\n\n",
        "a\n===\nb\n---\nc\n\n",
        "- # a\n\n  ## b\n\n",
        "> # a\n",
        "## " + "word " * 20 + "\n",
        "👩\u200d👩\u200d👧",
    ],
]


def split(text: str) -> list[Chunk]:
    return split_text(Source("note", ["title", "body"], None, "markdown", 200, 50), text, "The title")


@pytest.mark.parametrize("pattern", ADVERSARIES)
@pytest.mark.parametrize("act", [read_structure, partial(cut, size=200, overlap=50), split])
def test_twice_the_text_is_twice_the_work(pattern: str, act: Callable[[str], object]) -> None:
    texts = ["word " + pattern * (characters // len(pattern)) for characters in (3_000, 6_000)]
    once, twice = (work(text, act) for text in texts)
    assert twice <= once * 2.2 + 500


@pytest.mark.parametrize(
    "pattern", ["#", "`", "~", ">", "> ", "*", "* ", "- ", "1. ", "|", "| ", "-", "- -", "=", "\t"]
)
@pytest.mark.parametrize("end", ["", "x", "\n```\n# a\n", "\n---\n|-|\n"])
def test_a_line_of_any_length_is_read_in_one_go(pattern: str, end: str) -> None:
    # What looked at each character once for each other would take hours.
    text = "a" + end + pattern * (300_000 // len(pattern)) + end
    assert sum(block.end - block.begin for block in read_blocks(text)) <= len(text)


@pytest.mark.parametrize("pattern", ADVERSARIES)
def test_each_two_pieces_go_on_by_half_a_chunk_at_least(pattern: str) -> None:
    text = "word " + pattern * (20_000 // len(pattern))
    assert len(cut(text, 500)) <= 2 * len(text) / 250 + 2


# Sources


def test_a_source_may_be_cut_as_markdown() -> None:
    text = "# A\n\n" + "Some words. " * 6 + "\n\n# B\n\n" + "Some words. " * 6
    found = split_text(Source("note", ["body"], None, "markdown", 130, 0), text)
    assert [chunk.text[:3] for chunk in found] == ["# A", "# B"]


@settings(max_examples=30, deadline=None)
@given(texts)
def test_without_anything_to_say_there_are_no_chunks(text: str) -> None:
    chunks = split_text(Source("note", ["body"], None, "markdown", 50, 10), text)
    assert bool(chunks) == bool(text.strip())
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
