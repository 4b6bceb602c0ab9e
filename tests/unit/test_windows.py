from __future__ import annotations

import pytest

from rowvec.domain.findings import Level
from rowvec.domain.windows import judge_window


def level(characters: int, tokens: int | None, chunking: str = "markdown") -> Level | None:
    found = judge_window("lesson", chunking, characters, "e5_small", tokens)
    return None if found is None else found.level


@pytest.mark.parametrize(
    ("characters", "tokens", "expected"),
    [
        (512, 512, None),
        (513, 512, Level.OK),
        (1500, 512, Level.OK),
        (2048, 512, Level.OK),
        (2049, 512, Level.PROBLEM),
        (100_000, 8192, Level.PROBLEM),
        (1500, 8192, None),
        (100_000, None, None),
    ],
)
def test_what_fits_in_which_script(characters: int, tokens: int | None, expected: Level | None) -> None:
    assert level(characters, tokens) == expected
    assert level(characters, tokens, "characters") == expected


def test_of_rows_that_are_not_cut_nothing_is_known() -> None:
    assert level(100_000, 512, "none") is None


def test_what_can_never_fit_is_told_with_the_figures() -> None:
    found = judge_window("lesson", "markdown", 4000, "e5_small", 512)
    assert found is not None
    assert found.about == "source lesson"
    assert found.message == "Chunks of 4,000 characters are about 1,000 tokens; the model e5_small takes 512."
    assert found.hint == "Watch it again with chunk_characters => 2048 or fewer."


def test_a_size_that_the_hint_names_is_no_problem() -> None:
    assert level(512 * 4, 512) is Level.OK
    assert level(512, 512) is None


def test_what_fits_in_some_scripts_only_is_told() -> None:
    found = judge_window("lesson", "characters", 1500, "e5_small", 512)
    assert found is not None
    assert found.message == (
        "Chunks of 1,500 characters fit in Latin script, but in Chinese they are up to about 1,500 tokens; "
        "the model e5_small takes 512."
    )
    assert found.hint == "If its rows have such text, watch it again with chunk_characters => 512 or fewer."
