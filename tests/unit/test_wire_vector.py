"""Embeddings as pgvector's codec takes them."""

from __future__ import annotations

import struct
from array import array

from hypothesis import given
from hypothesis import strategies as st
from pgvector import Vector

from rowvec.postgres.wire_vector import wire_vector

numbers = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50)


@given(numbers)
def test_it_is_the_vector_that_its_numbers_make(given: list[float]) -> None:
    assert wire_vector(array("f", given)) == Vector(given)


def test_the_embedding_itself_stays_as_it_is() -> None:
    embedding = array("f", [1.0, -0.5])
    assert wire_vector(embedding).to_binary() == struct.pack(">HHff", 2, 0, 1.0, -0.5)
    assert embedding == array("f", [1.0, -0.5])
