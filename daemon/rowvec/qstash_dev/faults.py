"""What may go wrong with a QStash, on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any, Final, Literal, get_args

Trouble = Literal["none", "refuse", "hang", "cut", "burst", "daily"]
TROUBLES: Final = frozenset(get_args(Trouble))


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """All faults that are on; to change some, put another in its place (`dataclasses.replace`).

    What is done with calls is the same for `publish` and `manage`: `refuse` closes the connection and accepts nothing,
    `hang` never answers and accepts nothing, `cut` does what was asked for and closes the connection instead of
    answering, `burst` and `daily` are the two kinds of 429, and a number is a status to answer with.

    Attributes:
        publish: what is done with publish, enqueue and batch.
        manage: what is done with all other calls.
        batch_item: the place of an item in every batch that comes back as an error while the others are accepted.
        drop: the share (0 to 1) of attempts that never happen: their messages are accepted and never heard of again.
        duplicate: the share of attempts that happen twice, at the same time.
        lose_answer: the share of attempts whose answers get lost: they are tried again, whatever the receiver has done.
        reorder: whether queues are served in any order, and other messages after a random part of a second.
        delay: how many seconds each attempt waits first.
        skew: by how many seconds the clock that signs is ahead (below 0: behind).
        forge: the share of attempts that are signed with a key that nobody has.
        rotate_every: after how many attempts the keys rotate by themselves, 0 for never.
        wrong_subject: whether signatures name another destination.
        unpadded: whether the hash of the body comes without its `=`.
    """

    publish: Trouble | int = "none"
    manage: Trouble | int = "none"
    batch_item: int | None = None
    drop: float = 0.0
    duplicate: float = 0.0
    lose_answer: float = 0.0
    reorder: bool = False
    delay: float = 0.0
    skew: float = 0.0
    forge: float = 0.0
    rotate_every: int = 0
    wrong_subject: bool = False
    unpadded: bool = False

    def __post_init__(self) -> None:
        """Refuse what is none of these: a fault that is misspelt would be tested by nobody."""
        for trouble in (self.publish, self.manage):
            if not (_is_status(trouble) or (isinstance(trouble, str) and trouble in TROUBLES)):
                raise ValueError(f"{trouble!r} is neither a status nor one of {', '.join(sorted(TROUBLES))}")
        for known in fields(self):
            value = getattr(self, known.name)
            if isinstance(known.default, bool | float) and not _fits(value, known.default):
                raise ValueError(f"{known.name} can't be {value!r}")


@dataclass(slots=True)
class Mishaps:
    """The faults of now, and the dice for those that only happen sometimes."""

    faults: Faults = field(default_factory=Faults)
    dice: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - the same dice in every run

    def happens(self, share: float) -> bool:
        """Return whether something happens this time; a share of 1 is always, of 0 never."""
        return self.dice.random() < share


def read_faults(given: Mapping[str, Any]) -> Faults:
    """Return the faults of a JSON object; what it does not name is off.

    Raises:
        ValueError: it names something else, or gives what does not fit.
    """
    known = {known.name for known in fields(Faults)}
    if unknown := sorted(set(given) - known):
        raise ValueError(f"no such fault: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return Faults(**given)


def _is_status(trouble: object) -> bool:
    return isinstance(trouble, int) and not isinstance(trouble, bool) and 400 <= trouble <= 599  # noqa: PLR2004


def _fits(value: object, default: bool | float) -> bool:  # noqa: FBT001 - a default of a flag is a flag
    return isinstance(value, bool) if isinstance(default, bool) else isinstance(value, int | float)
