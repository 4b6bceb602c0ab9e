"""Where Markdown may be cut: its lines sorted into blocks, and the blocks into breaks and spans.

Reading is by lines, with CommonMark's rules for what a line begins and with tables, and needs little memory of the
lines before: an open fence, and where the content of the last list item begins. No tree of quotes and lists is built.
HTML is read like any text, and a fence without an end reaches to the end of its quote or of the text.

A full parser (markdown-it-py 4.3, blocks only) was measured first: 0.3 s for a megabyte of ordinary Markdown, and time
in proportion to the text as long as the nesting is bounded. But a megabyte of the shortest lines (`#`, `- a`, rows of
a table) takes it 10 to 20 s and 600 MB of tokens, and a lazy quote twenty deep more than a minute: too much for one
row of a daemon whose memory is bounded. This reader and the cutter take three seconds at most, and keep a few numbers
a block (`tests/benchmarks/chunking.py`). The tests compare what the two read.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rowvec.domain.chunking import Span, Structure

_BLOCK, _ITEM, _INNER = 7, 8, 9
"""Ranks of blocks: headings have their level, 1 to 6; the inner ones stand inside a list item."""

_CODE_INDENT: Final = 4
_INNER_INDENT: Final = 2
# Linear in the line: repeats are possessive, but for the last one, which gives back white space only.
_LINE: Final = re.compile(
    r"""
    ^(?=[^\S\n]*+\S)
    (?P<quotes> (?:[ ]{0,3}>[ ]?){0,32}+)
    (?P<indent> [^\S\n]*+)
    (?P<items>  (?:(?:[-+*]|[0-9]{1,9}[.)])(?=\s|\Z)(?:[^\S\n]++(?=\S))?){0,32}+)
    (?: (?P<heading> \#{1,6}+)(?=\s|\Z)
      | (?P<fence>   `{3,}+(?=[^`\n]*+$)|~{3,}+)
      | (?=(?P<rule> [-=|:][-=|: \t\r]*+)$)
    )?
    (?:[^\n]*\S)?
    """,
    re.MULTILINE | re.VERBOSE,
)


@dataclass(slots=True)
class Block:
    """Lines that belong together, from the first visible character to the last.

    Attributes:
        begin, end: offsets.
        rank: how strong a cut before it is: the lower, the stronger.
        quotes: how many quotes it stands in.
        goes_on: whether a line that begins nothing else belongs to it.
        is_prose: whether a line under it may turn it into a heading or a table.
        is_whole: whether it should not be cut.
        is_nested: whether it stands in a quote or a list item: a heading there is above nothing outside.
    """

    begin: int
    end: int
    rank: int
    quotes: int
    goes_on: bool = True
    is_prose: bool = False
    is_whole: bool = False
    is_nested: bool = False


def read_structure(text: str) -> Structure:
    """Return where a text in Markdown is cut best, what is kept whole, and its headings.

    Before headings first, by their level; then between blocks, before list items, and inside the items. Fenced code
    and tables are kept whole, and headings with what they lead to: all of it when that is kept whole, or else its
    beginning. Every text is Markdown: there are no errors.
    """
    breaks = [array("Q") for _ in range(_INNER)]
    headings = [array("Q") for _ in range(_BLOCK - 1)]
    spans = []
    end = 0
    for group in _group_blocks(read_blocks(text)):
        if end:
            breaks[group[0].rank - 1].append(end)
        for block in group:
            if block.rank < _BLOCK and not block.is_nested:
                headings[block.rank - 1].append(block.begin)
        span = _span(group)
        if span.end > span.begin:
            spans.append(span)
        end = group[-1].end
    return Structure(breaks, spans, headings)


def read_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a text in Markdown, in its order."""
    reader = _Reader()
    for line in _LINE.finditer(text):
        before = reader.block
        reader.read(line)
        if before is not None and reader.block is not before:
            yield before
    if reader.block is not None:
        yield reader.block


def _group_blocks(blocks: Iterable[Block]) -> Iterator[Sequence[Block]]:
    """Yield each block together with the headings that lead to it; a heading does not lead to one of its own level."""
    group: list[Block] = []
    for block in blocks:
        if group and not group[-1].rank < min(block.rank, _BLOCK):
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _span(group: Sequence[Block]) -> Span:
    first, last = group[0], group[-1]
    tie = last.begin + 1 if len(group) > 1 else first.begin
    return Span(first.begin, tie, last.end if last.is_whole else tie)


class _Reader:
    """Reads one line after another; `block` is the one the last line belongs to."""

    def __init__(self) -> None:
        self.block: Block | None = None
        self._fence: re.Match[str] | None = None
        self._content = 0  # the column where what belongs to the last list item begins

    def read(self, line: re.Match[str]) -> None:
        """Begin a new block with the line, or make the last one longer."""
        if line.end() == line.end("indent"):
            return  # nothing but marks of quotes: an empty line
        last = self.block
        is_code = _width(line["indent"]) >= self._content + _CODE_INDENT
        if last is not None and self._is_inside_fence(line):
            last.end = line.end()
        elif last is None or _begins_block(last, line, is_code=is_code):
            self.block = self._begin(line, is_code=is_code)
        else:
            self._go_on(last, line)

    def _is_inside_fence(self, line: re.Match[str]) -> bool:
        if self._fence is None:
            return False
        is_inside = _quotes(line) >= _quotes(self._fence)
        if not is_inside or _closes(self._fence, line):
            self._fence = None
        return is_inside

    def _begin(self, line: re.Match[str], *, is_code: bool) -> Block:
        indent = _width(line["indent"])
        rank = _INNER if indent >= _INNER_INDENT else _ITEM if line["items"] else _BLOCK
        block = Block(line.end() - len(line[0].lstrip()), line.end(), rank, _quotes(line))
        block.is_nested = bool(block.quotes or line["items"] or (self._content and indent >= _INNER_INDENT))
        if is_code:
            return block
        self._content = _width(line["indent"] + line["items"]) if line["items"] else min(indent, self._content)
        if line["heading"]:
            block.rank, block.goes_on = len(line["heading"]), False
        elif line["fence"]:
            block.is_whole, block.goes_on, self._fence = True, False, line
        else:
            block.is_prose = not line["rule"]
        return block

    def _go_on(self, block: Block, line: re.Match[str]) -> None:
        """Make the block longer by the line, which may say what the block is."""
        if (
            block.is_prose
            and line["rule"]
            and _quotes(line) == block.quotes
            and _width(line["indent"]) >= self._content
        ):
            header = max(line.string.rfind("\n", block.begin, block.end), block.begin)
            marks = set(line["rule"].rstrip())
            if marks in ({"="}, {"-"}):
                block.rank, block.goes_on = 1 if "=" in marks else 2, False
            elif {"|", "-"} <= marks and "=" not in marks and "|" in line.string[header : block.end]:
                block.is_whole, block.is_prose = True, False
        block.end = line.end()


def _begins_block(last: Block, line: re.Match[str], *, is_code: bool) -> bool:
    if not last.goes_on or _quotes(line) > last.quotes or line.string.count("\n", last.end, line.start()) > 1:
        return True
    return not is_code and any((line["heading"], line["fence"], line["items"]))


def _closes(fence: re.Match[str], line: re.Match[str]) -> bool:
    """Whether the line ends the code that the fence begins."""
    return (
        (line["fence"] or "").startswith(fence["fence"])
        and line.end() == line.end("fence")
        and not line["items"]
        and _quotes(line) == _quotes(fence)
        and _width(line["indent"]) < _width(fence["indent"] + fence["items"]) + _CODE_INDENT
    )


def _quotes(line: re.Match[str]) -> int:
    return line["quotes"].count(">")


def _width(space: str) -> int:
    return len(space.expandtabs(_CODE_INDENT))
