"""From a row's columns to the text that is embedded, and from the text to its chunks."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from rowvec.domain.chunking import Piece, cut_text
from rowvec.domain.errors import TextRejectedError
from rowvec.domain.headings import Outline
from rowvec.domain.items import HEADING_GAP, Chunk, Source, embedded_text
from rowvec.domain.markdown import read_structure
from rowvec.domain.storable import storable

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_SPACE_RUN: Final = re.compile(r"\n{3,}")
_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str)
"""Made once: `json.loads` makes one for each row, which takes longer than to read a short one."""

TITLE_CHARACTERS: Final = 200
HEADING_CHARACTERS: Final = 200
"""The most of what a chunk of Markdown stands under; of small chunks a fifth."""
_HEADING_SHARE: Final = 5


class RowText(NamedTuple):
    """What a row has to say.

    Attributes:
        text: all of it, stripped; empty when no column has anything to say.
        title: of a row of several columns the first one, where that is a short line; empty: it has none.
    """

    text: str
    title: str


def render_text(source: Source, fields: str) -> RowText:
    """Return the text of a row.

    Without a template each column that has a value stands on a line of its own behind its label; in Markdown a value
    of several lines stands below it, so that its first line is read as what it is. With a template, the values replace
    `{column}`; one filled with nothing but empty values gives no text at all.

    Args:
        source: names the columns and the template.
        fields: the columns' values as a JSON array, in the order of `source.labels`.

    Raises:
        TextRejectedError: the array can't be read (a `json` column may hold broken escapes).
    """
    try:
        values = dict(zip(source.labels, map(_plain, _decode(fields)), strict=True))
    except RecursionError as error:
        raise TextRejectedError("The row's columns are nested too deeply.", str(error)) from error
    if not any(values.values()):
        return RowText("", "")
    if source.template is None:
        text = "\n".join(_labelled(source, label, value) for label, value in values.items() if value)
    else:
        text = _PLACEHOLDER.sub(lambda match: values[match.group(1)], source.template)
        text = _SPACE_RUN.sub("\n\n", text)
    return RowText(text.strip(), _title(source, values))


def split_text(source: Source, text: str, title: str = "") -> list[Chunk]:
    """Cut a row's text into chunks by the source's own settings, so that all models share the boundaries.

    Args:
        source: says how; sizes and overlap are in characters.
        text: a row's whole text; an empty one gives no chunks.
        title: goes with the chunks of Markdown that it does not stand in.
    """
    if not text:
        return []
    if source.chunking == "none":
        return _number([("", Piece(0, text))])
    if source.chunking == "markdown" and len(text) > source.chunk_characters:
        return _number(_pieces_of_markdown(source, text, title))
    return _number(("", piece) for piece in cut_text(text, source.chunk_characters, source.chunk_overlap))


def _number(pieces: Iterable[tuple[str, Piece]]) -> list[Chunk]:
    """Return the chunks that pieces make, each below its heading."""
    seen: Counter[bytes] = Counter()
    chunks = []
    for index, (heading, piece) in enumerate(pieces):
        digest = hashlib.sha256(embedded_text(heading, piece.text).encode()).digest()
        chunks.append(Chunk(index, piece.text, digest, seen[digest], piece.start, heading))
        seen[digest] += 1
    return chunks


def _pieces_of_markdown(source: Source, text: str, title: str) -> Iterator[tuple[str, Piece]]:
    """Cut Markdown so that there is room for what each piece stands under.

    The room does not depend on how long that is: another heading moves no cut of what stands under it.
    """
    structure = read_structure(text)
    outline = Outline(text, structure, title)
    most = min(HEADING_CHARACTERS, source.chunk_characters // _HEADING_SHARE)
    size = source.chunk_characters - (most + len(HEADING_GAP) if outline else 0)
    for piece in cut_text(text, size, source.chunk_overlap, structure):
        yield outline.heading(piece.start, piece.start + len(piece.text), most), piece


def _labelled(source: Source, label: str, value: str) -> str:
    if source.chunking == "markdown" and "\n" in value:
        return f"\n{label}:\n\n{value}\n"
    return f"{label}: {value}"


def _title(source: Source, values: Mapping[str, str]) -> str:
    first = source.labels[0]
    value = values[first]
    is_in_text = source.template is None or f"{{{first}}}" in source.template
    is_short_line = len(value) <= TITLE_CHARACTERS and len(value.splitlines()) == 1
    return value if len(values) > 1 and is_in_text and is_short_line else ""


def _decode(fields: str) -> list[Any]:
    # The standard parser: a column of type `json` may hold duplicate keys, huge numbers and lone surrogates
    # that Postgres accepts, and so must we.
    try:
        values: list[Any] = _DECODER.decode(fields)
    except ValueError as error:
        raise TextRejectedError("The row's columns can't be read as JSON.", str(error)) from error
    return values


def _plain(value: object) -> str:
    """Return a JSON value as words: no brackets, no quotes; keys before values."""
    if value is None:
        return ""
    if isinstance(value, str):
        return storable(value).strip()
    if isinstance(value, list):
        return ", ".join(filter(None, map(_plain, value)))
    if isinstance(value, dict):
        words = ((key, _plain(inner)) for key, inner in value.items())
        return "; ".join(f"{_plain(key)}: {inner}" for key, inner in words if inner)
    return json.dumps(value)
