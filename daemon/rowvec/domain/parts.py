"""Long lists, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Value = TypeVar("Value")


def in_parts(values: Sequence[Value], most: int) -> Iterator[Sequence[Value]]:
    """Yield values in their order, in parts of so many at most; nothing for none."""
    for start in range(0, len(values), most):
        yield values[start : start + most]
