"""What `rowvec doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: a problem keeps rows from their vectors, a warning may do so or soon will."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: how bad it is.
        about: what was looked at: "schema", "source course".
        message: what is wrong, or that nothing is.
        hint: what to do about it; empty when nothing is to be done.
    """

    level: Level
    about: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found.

    Attributes:
        findings: in the order of the checks.
        complete: false when the rest could not be looked at before the problems found are solved.
    """

    findings: tuple[Finding, ...]
    complete: bool

    def count(self, level: Level) -> int:
        """Return how many findings are of a level."""
        return sum(finding.level == level for finding in self.findings)


def problem(about: str, message: str, hint: str) -> Finding:
    """Return a finding that keeps rows from their vectors."""
    return Finding(Level.PROBLEM, about, message, hint)


def warning(about: str, message: str, hint: str) -> Finding:
    """Return a finding that may keep rows from their vectors, or soon will."""
    return Finding(Level.WARNING, about, message, hint)
