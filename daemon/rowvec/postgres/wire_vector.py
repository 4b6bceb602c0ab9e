"""Embeddings on their way to Postgres."""

from __future__ import annotations

import struct
import sys
from array import array
from typing import Final

from pgvector import Vector

from rowvec.ports import Embedding

HEADER: Final = struct.Struct(">HH")
"""How pgvector's binary form begins: the number of dimensions and a zero; then the numbers, big end first."""


def wire_vector(embedding: Embedding) -> Vector:
    """Return an embedding as the codec of vectors takes it.

    `Vector(embedding.tolist())` is the same, by way of an object for every number: that takes six times as long.
    """
    numbers = array("f", embedding)
    if sys.byteorder == "little":
        numbers.byteswap()
    return Vector.from_binary(HEADER.pack(len(numbers), 0) + numbers.tobytes())
