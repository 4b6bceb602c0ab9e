"""Texts in Markdown for hypothesis: documents with everything in its place, and lines in no order."""

from __future__ import annotations

from hypothesis import strategies as st


def indented(lines: list[str], mark: str) -> list[str]:
    return [mark + lines[0], *(" " * len(mark) + line if line else "" for line in lines[1:])]


def quoted(lines: list[str]) -> list[str]:
    return [f"> {line}".rstrip() for line in lines]


def after_an_empty_line(blocks: list[list[str]]) -> list[str]:
    return [line for block in blocks for line in ["", *block]][1:]


words = st.sampled_from(["alpha", "beta.", "x # y", "a - b", "3 > 2", "`code`", "学习", "a | b"])
sentences = st.lists(words, min_size=1, max_size=5).map(lambda found: " ".join(["So", *found]))
paragraphs = st.lists(sentences, min_size=1, max_size=3)
leaves = st.one_of(
    paragraphs,
    st.builds(lambda level, line: ["#" * level + " " + line], st.integers(1, 6), sentences),
    st.builds(lambda line, rule: [line, rule], sentences, st.sampled_from(["===", "---", "-----", "="])),
    st.builds(
        lambda mark, info, lines: [mark + info, *lines, mark],
        st.sampled_from(["```", "~~~", "````"]),
        st.sampled_from(["", "py", " sh"]),
        st.lists(st.sampled_from(["# comment", "", "    # deep", "- x", "|-|", "``", "> q", "---", "# a"]), max_size=8),
    ),
    st.builds(lambda rows: ["| a | b |", "|---|:-:|", *["| 1 | 2 |"] * rows], st.integers(0, 8)),
)
blocks = st.recursive(
    leaves,
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(after_an_empty_line).flatmap(
        lambda lines: st.sampled_from(["- ", "* ", "1. ", "10. "]).map(lambda mark: indented(lines, mark))
    ),
    max_leaves=4,
)  # fmt: skip
documents = st.lists(
    st.one_of(blocks, st.lists(leaves, min_size=1, max_size=3).map(after_an_empty_line).map(quoted)),
    min_size=1,
    max_size=8,
).map(lambda found: "\n".join(after_an_empty_line(found)))
anything = [
    "# a",
    "## b",
    "text",
    "text | more",
    "```",
    "```py",
    "~~~",
    "- item",
    "  - sub",
    "1. one",
    "   three",
    "> q",
]
anything += [
    "> # q",
    "> ```",
    "---",
    "===",
    "| a |",
    "|---|",
    "",
    " ",
    "\t",
    "        eight",
    "***",
    "> - x",
    "- # h",
    ">",
]
lines_of_anything = st.lists(st.sampled_from(anything), max_size=40).map("\n".join)
texts = st.one_of(documents, lines_of_anything, st.text(st.sampled_from("#`~>-*|=1. \t\r\nab学\u0301"), max_size=300))
