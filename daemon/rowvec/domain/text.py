"""From a row's columns to the text that is embedded, and from the text to its chunks."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from rowvec.domain.chunking import PLAIN, cut_text
from rowvec.domain.errors import TextRejectedError
from rowvec.domain.items import Chunk, Source
from rowvec.domain.markdown import read_structure

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_SPACE_RUN: Final = re.compile(r"\n{3,}")


def render_text(source: Source, fields: str) -> str:
    """Return the text of a row, stripped; empty when no column has anything to say.

    Without a template each column that has a value stands on a line of its own behind its label. With one, the
    values replace `{column}`; a template filled with nothing but empty values gives no text at all.

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
        return ""
    if source.template is None:
        text = "\n".join(f"{label}: {value}" for label, value in values.items() if value)
    else:
        text = _PLACEHOLDER.sub(lambda match: values[match.group(1)], source.template)
        text = _SPACE_RUN.sub("\n\n", text)
    return text.strip()


def split_text(source: Source, text: str) -> list[Chunk]:
    """Cut a row's text into chunks by the source's own settings, so that all models share the boundaries.

    Args:
        source: says how; sizes and overlap are in characters.
        text: a row's whole text; an empty one gives no chunks.
    """
    if not text:
        return []
    seen: Counter[bytes] = Counter()
    chunks = []
    for index, piece in enumerate(_pieces(source, text)):
        digest = hashlib.sha256(piece.encode()).digest()
        chunks.append(Chunk(index, piece, digest, seen[digest]))
        seen[digest] += 1
    return chunks


def _pieces(source: Source, text: str) -> Iterable[str]:
    if source.chunking == "none":
        return [text]
    structure = read_structure(text) if source.chunking == "markdown" else PLAIN
    return cut_text(text, source.chunk_characters, source.chunk_overlap, structure)


def _decode(fields: str) -> list[Any]:
    # The standard parser: a column of type `json` may hold duplicate keys, huge numbers and lone surrogates
    # that Postgres accepts, and so must we.
    try:
        values: list[Any] = json.loads(fields, parse_int=str, parse_float=str)
    except ValueError as error:
        raise TextRejectedError("The row's columns can't be read as JSON.", str(error)) from error
    return values


def _plain(value: object) -> str:
    """Return a JSON value as words: no brackets, no quotes; keys before values."""
    if value is None:
        return ""
    if isinstance(value, str):
        return _UNSTORABLE.sub("", value).strip()
    if isinstance(value, list):
        return ", ".join(filter(None, map(_plain, value)))
    if isinstance(value, dict):
        words = ((key, _plain(inner)) for key, inner in value.items())
        return "; ".join(f"{_plain(key)}: {inner}" for key, inner in words if inner)
    return json.dumps(value)
