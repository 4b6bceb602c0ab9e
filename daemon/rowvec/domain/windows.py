"""Whether a source's chunks fit into what a model takes at once, its window.

Models count tokens, sources count characters, and how many characters make a token depends on the script: about four
in Latin, about one in Han. So a source is refused only where not even Latin text fits; where Han does not, it is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rowvec.domain.findings import Finding, Level, problem

LATIN_CHARACTERS: Final = 4
"""About how many characters of Latin text make a token."""
DENSE_CHARACTERS: Final = 1
"""About how many characters of the densest scripts, Han among them, make a token."""
KNOWN_WINDOWS: Final[Mapping[str, int]] = {"e5_small": 512, "bge_m3": 8192}
"""The windows of the models that are known by their names, in tokens (their model cards)."""


def judge_window(
    content_type: str, chunking: str, chunk_characters: int, model: str, window_tokens: int | None
) -> Finding | None:
    """Return what is to be said of a source and a model; None where nothing is, or nothing is known.

    Args:
        content_type: the source.
        chunking: how it is cut; rows that are not cut at all may have any length, so nothing is said of them.
        chunk_characters: the most characters of its chunks, with what they stand under.
        model: its name.
        window_tokens: the most tokens of a text that the model takes; None: not known.
    """
    if chunking == "none" or window_tokens is None or chunk_characters <= window_tokens * DENSE_CHARACTERS:
        return None
    about, takes = f"source {content_type}", f"the model {model} takes {window_tokens:,}"
    again = "watch it again with chunk_characters => {} or fewer."
    if chunk_characters > window_tokens * LATIN_CHARACTERS:
        return problem(
            about,
            f"Chunks of {chunk_characters:,} characters are about {-(-chunk_characters // LATIN_CHARACTERS):,} tokens; "
            f"{takes}.",
            again.format(window_tokens * LATIN_CHARACTERS).capitalize(),
        )
    return Finding(
        Level.OK,
        about,
        f"Chunks of {chunk_characters:,} characters fit in Latin script, but in Chinese they are up to about "
        f"{chunk_characters // DENSE_CHARACTERS:,} tokens; {takes}.",
        f"If its rows have such text, {again.format(window_tokens * DENSE_CHARACTERS)}",
    )
