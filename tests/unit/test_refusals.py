from __future__ import annotations

import pytest

from rowvec.domain.errors import ModelMisbehavedError, TextRejectedError
from rowvec.models.refusals import CURE, REFUSALS, refused


@pytest.mark.parametrize(
    ("words", "detail"),
    [
        (
            (
                "This model's maximum context length is 8192 tokens, however you requested 8308 tokens (8308 in your "
                "prompt; 0 for the completion). Please reduce your prompt; or completion length."
            ),
            "It has 8308 tokens, the model takes 8192.",
        ),
        ("Invalid 'input[0]': maximum input length is 8192 tokens.", "The model takes 8192 tokens."),
        (
            (
                "This model's maximum context length is 512 tokens. However, you requested 600 tokens in the input for "
                "embedding generation. Please reduce the length of the input."
            ),
            "It has 600 tokens, the model takes 512.",
        ),
        (
            "This model's maximum context length is 512 tokens. However, your request has 600 input tokens.",
            "It has 600 tokens, the model takes 512.",
        ),
        ("This model's maximum context length is 512 tokens. Yours is longer.", "The model takes 512 tokens."),
        ("`inputs` must have less than 512 tokens. Given: 600", "It has 600 tokens, the model takes 512."),
        (
            "input (600 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
            "It has 600 tokens, the model takes 512.",
        ),
        (
            "input is too large to process. increase the physical batch size",
            "input is too large to process. increase the physical batch size",
        ),
        (
            "request (600 tokens) exceeds the available context size (512 tokens), try increasing it",
            "It has 600 tokens, the model takes 512.",
        ),
        ("the input length exceeds the context length", "the input length exceeds the context length"),
        ("input length exceeds maximum context length", "input length exceeds maximum context length"),
        ("input exceeds maximum context length", "input exceeds maximum context length"),
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_text_that_is_too_long_is_so_for_good_in_all_words(status: int, words: str, detail: str) -> None:
    error = refused(status, words)
    assert isinstance(error, TextRejectedError)
    assert error.message == "The text is too long for the model."
    assert error.hint == f"{detail} {CURE}"


@pytest.mark.parametrize(
    "words", ["", "batch size 64 > maximum allowed batch size 32", "too many tokens", "CUDA error"]
)
@pytest.mark.parametrize("status", REFUSALS)
def test_other_refusals_are_told_as_they_are(status: int, words: str) -> None:
    error = refused(status, words)
    assert isinstance(error, ModelMisbehavedError if status in {424, 500} else TextRejectedError)
    assert f"({int(status)})" in error.message
    assert error.hint == words
