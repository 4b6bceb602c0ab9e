"""Plain text cut by characters: linear in the text, whatever the script, and stable under edits.

A cut falls on the strongest separator in the second half of the longest chunk allowed. Of several equal ones it takes
the one whose following text has the smallest hash (content-defined chunking; Muthitacharoen et al., "A Low-bandwidth
Network File System", 2001): the choice depends on the text around it and not on where the chunk began, so after an edit
the cuts soon fall where they fell before, and later chunks keep their vectors.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final

_VISIBLE: Final = re.compile(r"\S")
_SEPARATORS: Final = (
    re.compile(r"()\n[ \t\r]*\n"),  # paragraphs
    re.compile(r"()\n"),  # lines
    re.compile(r"([.!?])\s|([。！？；])"),  # sentences; the mark stays with what it ends  # noqa: RUF001
    re.compile(r"()\s"),  # words
    re.compile(r"()"),  # anywhere
)
_HASHED_CHARACTERS: Final = 32


def cut_text(text: str, size: int, overlap: int) -> Iterator[str]:
    """Yield the pieces of a text, without white space at their ends.

    Args:
        text: any length, any script.
        size: the most characters of a piece, at least 1.
        overlap: how many characters before a cut the next piece begins, less than `size`; moved to the next word.
    """
    overlap = min(overlap, size - 1)
    start = 0
    while (visible := _VISIBLE.search(text, start)) is not None:
        start = visible.start()
        if len(text) - start <= size:
            yield text[start:].rstrip()
            return
        cut = _find_cut(text, start + max(size // 2, overlap + 1), start + size)
        yield text[start:cut].rstrip()
        start = _step_back(text, cut, overlap)


def _find_cut(text: str, earliest: int, latest: int) -> int:
    for separator in _SEPARATORS:
        # Two characters more: a separator may begin where the longest piece ends.
        found = (_end_of_mark(match) for match in separator.finditer(text, earliest, latest + 2))
        cuts = [cut for cut in found if cut <= latest]
        if cuts:
            return min(cuts, key=lambda cut: zlib.crc32(text[cut : cut + _HASHED_CHARACTERS].encode()))
    raise AssertionError("the last separator is everywhere")


def _end_of_mark(match: re.Match[str]) -> int:
    return match.end(match.lastindex or 0)


def _step_back(text: str, cut: int, overlap: int) -> int:
    if not overlap:
        return cut
    space = re.compile(r"\s").search(text, cut - overlap, cut)
    return space.end() if space else cut - overlap
