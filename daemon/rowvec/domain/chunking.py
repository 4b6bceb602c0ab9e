"""Text cut by characters: linear in the text, whatever the script, and stable under edits.

A cut falls on the strongest separator in the second half of the longest chunk allowed. Of several equal ones it takes
the one whose following text has the smallest hash (content-defined chunking; Muthitacharoen et al., "A Low-bandwidth
Network File System", 2001): the choice depends on the text around it and not on where the chunk began, so after an edit
the cuts soon fall where they fell before, and later chunks keep their vectors.

Plain text and text with a structure (`rowvec.domain.markdown`) are cut by the same rule. A structure adds stronger
separators, and spans that stay whole: where one of them fills the whole second half, the cut falls before it.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

_VISIBLE: Final = re.compile(r"\S")
_SPACE: Final = re.compile(r"\s")
_SEPARATORS: Final = (
    re.compile(r"()\n[ \t\r]*\n"),  # paragraphs
    re.compile(r"()\n"),  # lines
    re.compile(r"([.!?])\s|([。！？；])"),  # sentences; the mark stays with what it ends  # noqa: RUF001
    re.compile(r"()\s"),  # words
)
_HASHED_CHARACTERS: Final = 32
_ZERO_WIDTH_JOINER: Final = "\u200d"
# They belong to the character before, and Unicode does not call them marks: the joiners, vowels of Thai and Lao,
# the vowels and ends of Korean syllables in parts, shades of skin, the letters of flags and their tags.
_TRAILING: Final = re.compile(
    "[\u200c\u200d\u0e33\u0eb3\u1160-\u11ff\U0001f3fb-\U0001f3ff\U0001f1e6-\U0001f1ff\U000e0020-\U000e007f]"
)


class Piece(NamedTuple):
    """A part of a text as it was cut.

    Attributes:
        start: the offset of its first character.
        text: its characters.
    """

    start: int
    text: str


class Span(NamedTuple):
    """A part of a text that is better not cut, by offsets.

    Attributes:
        begin: of the part; a cut may fall here.
        tie: up to here at least it stays in one piece, when not even the whole fits.
        end: of the part; a cut may fall here.
    """

    begin: int
    tie: int
    end: int

    def held(self, size: int) -> int:
        """Return up to where no cut may fall in pieces of `size`: `end`, `tie`, or `begin` when nothing fits."""
        return next((end for end in (self.end, self.tie) if end - self.begin <= size), self.begin)


@dataclass(frozen=True, slots=True)
class Structure:
    """What is known of a text beside its characters.

    Attributes:
        breaks: offsets where a cut is good, ascending; one sequence a strength, the strongest first.
        spans: ascending, without overlap; no break lies inside one.
        headings: offsets where headings begin, ascending; one sequence a level, the highest first.
    """

    breaks: Sequence[Sequence[int]] = ()
    spans: Sequence[Span] = ()
    headings: Sequence[Sequence[int]] = ()


_BEGIN: Final = attrgetter("begin")
PLAIN: Final = Structure()
"""Of a text of which nothing is known."""


def cut_text(text: str, size: int, overlap: int, structure: Structure = PLAIN) -> Iterator[Piece]:
    """Yield the pieces of a text, without white space at their ends.

    Args:
        text: any length, any script.
        size: the most characters of a piece, at least 1.
        overlap: how many characters before a cut the next piece begins, less than `size`; moved to the next word, and
            fewer where a span that stays whole would not fit otherwise.
        structure: of this text.
    """
    text = text.rstrip()
    overlap = min(overlap, size - 1)
    start = 0
    while (visible := _VISIBLE.search(text, start)) is not None:
        start = visible.start()
        if len(text) - start <= size:
            yield Piece(start, text[start:])
            return
        cut = _find_cut(text, structure, start + max(size // 2, overlap + 1), start + size, size)
        yield Piece(start, text[start:cut].rstrip())
        start = _step_back(text, cut, min(overlap, size - _held_after(text, structure, cut, size)))


def _find_cut(text: str, structure: Structure, earliest: int, latest: int, size: int) -> int:
    gaps = [gap for gap in _gaps(structure, earliest, latest, size) if gap]
    if not gaps:
        # One span holds them all. As it fits into a piece, it begins in this one, not before.
        return structure.spans[bisect_left(structure.spans, latest, key=_BEGIN) - 1].begin
    cuts = next(filter(None, _ranked_cuts(text, structure, gaps)))
    return min(cuts, key=lambda cut: zlib.crc32(text[cut : cut + _HASHED_CHARACTERS].encode()))


def _ranked_cuts(text: str, structure: Structure, gaps: Sequence[range]) -> Iterator[Sequence[int]]:
    """Yield where the text may be cut, the strongest first."""
    for breaks in structure.breaks:
        yield breaks[bisect_left(breaks, gaps[0].start) : bisect_left(breaks, gaps[-1].stop)]
    for separator in _SEPARATORS:
        yield [cut for gap in gaps for cut in _cuts_at(separator, text, gap)]
    yield [cut for gap in gaps for cut in gap if not _is_inside_character(text, cut)]
    yield [cut for gap in gaps for cut in gap]


def _cuts_at(separator: re.Pattern[str], text: str, gap: range) -> Iterator[int]:
    # Two characters more: a separator may begin where the longest piece ends.
    for match in separator.finditer(text, gap.start, gap.stop + 1):
        cut = match.end(match.lastindex or 0)
        if cut in gap and not _is_inside_character(text, cut):
            yield cut


def _is_inside_character(text: str, cut: int) -> bool:
    """Whether readers see the characters before and after the cut as one."""
    after = text[cut : cut + 1]
    if not after or after.isascii():
        return False
    return (
        unicodedata.category(after).startswith("M")
        or _TRAILING.match(after) is not None
        or text[cut - 1] == _ZERO_WIDTH_JOINER
    )


def _gaps(structure: Structure, earliest: int, latest: int, size: int) -> Iterator[range]:
    """Yield the offsets from `earliest` to `latest` that are not inside a span."""
    first = max(bisect_right(structure.spans, earliest, key=_BEGIN) - 1, 0)
    for span in structure.spans[first : bisect_left(structure.spans, latest, key=_BEGIN)]:
        held = span.held(size)
        if held > max(span.begin, earliest):
            yield range(earliest, span.begin + 1)
            earliest = held
    yield range(earliest, latest + 1)


def _held_after(text: str, structure: Structure, cut: int, size: int) -> int:
    """Return how many characters after the cut the next piece must have, for the span that begins it to be whole."""
    index = bisect_left(structure.spans, cut, key=_BEGIN)
    if index == len(structure.spans) or _VISIBLE.search(text, cut, structure.spans[index].begin):
        return 0
    return structure.spans[index].held(size) - cut


def _step_back(text: str, cut: int, overlap: int) -> int:
    if overlap <= 0:
        return cut
    space = _SPACE.search(text, cut - overlap, cut)
    if space:
        return space.end()
    return next((start for start in range(cut - overlap, cut) if not _is_inside_character(text, start)), cut)
