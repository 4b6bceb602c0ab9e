"""What a chunk of Markdown stands under: the row's title and headings, from the outermost, in one line."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from rowvec.domain.chunking import Structure

_BETWEEN: Final = " > "
_LEFT_OUT: Final = "…"
_EDGES: Final = _BETWEEN + _LEFT_OUT
_READ_CHARACTERS: Final = 1000
_HASHES: Final = re.compile(r"#{1,6}(?=\s|\Z)")
_UNDERLINE: Final = re.compile(r"\n[ \t]*+(?:=+|-+)[ \t\r]*$", re.MULTILINE)


class Outline:
    """The title and the headings of one text.

    Args:
        text: in Markdown.
        structure: of this text.
        title: of the row; empty: it has none.
    """

    def __init__(self, text: str, structure: Structure, title: str) -> None:
        self._text = text
        self._headings = structure.headings
        self._title = " ".join(title.split())
        self._title_start = text.find(title)
        self._title_end = self._title_start + len(title)

    def __bool__(self) -> bool:
        return bool(self._title) or any(self._headings)

    def heading(self, start: int, end: int, most: int) -> str:
        """Return what a chunk stands under, in `most` characters; what begins or stands in it is no part of that.

        Args:
            start: the offset of the chunk.
            end: the offset behind it.
            most: at least 1.
        """
        path = self._path(start)
        has_title = start <= self._title_start and self._title_end <= end
        if self._title and not has_title and self._title not in path[:1]:
            path.insert(0, self._title)
        return join_path(path, most)

    def _path(self, offset: int) -> list[str]:
        """Return the headings above, the outermost first: of each level the last, unless a higher one follows it."""
        begins: list[int] = []
        for level in self._headings:
            index = bisect_left(level, offset)
            if index < len(level) and level[index] == offset:
                break  # a heading begins here: it ends those of its level and below
            if index and level[index - 1] > (begins[-1] if begins else -1):
                begins.append(level[index - 1])
        return [label for begin in begins if (label := read_label(self._text, begin))]


def read_label(text: str, begin: int) -> str:
    """Return the words of the heading that begins at an offset, as far as they stand in its first 1,000 characters."""
    end = begin + _READ_CHARACTERS
    if not (hashes := _HASHES.match(text, begin)):
        return " ".join(_UNDERLINE.split(text[begin:end], maxsplit=1)[0].split())
    newline = text.find("\n", begin, end)
    words = text[hashes.end() : end if newline < 0 else newline].strip()
    bare = words.rstrip("#")
    return " ".join((words if bare and bare == bare.rstrip() else bare).split())


def join_path(path: Sequence[str], most: int) -> str:
    """Return a path as one line of `most` characters.

    What is too much is left out from its middle: the outermost says what it is about, the innermost what just here.
    """
    kept = list(path)
    line = _BETWEEN.join(kept)
    while len(line) > most and len(kept) > 2:  # noqa: PLR2004 - its two ends
        middle = len(kept) // 2
        del kept[middle]
        line = _BETWEEN.join([*kept[:middle], _LEFT_OUT, *kept[middle:]])
    if len(line) <= most:
        return line
    ahead = most // 2
    behind = len(line) - (most - ahead - len(_LEFT_OUT))
    return line[:ahead].rstrip(_EDGES) + _LEFT_OUT + line[behind:].lstrip(_EDGES)
