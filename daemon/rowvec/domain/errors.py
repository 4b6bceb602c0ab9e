"""The one error tree. What to do with an error is decided in `retry.py`, what to exit with stands here."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar


class RowvecError(Exception):
    """Root of every error that rowvec raises on purpose.

    Args:
        message: what is wrong, one sentence, stable enough to group by.
        hint: what the reader can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class ConfigurationError(RowvecError):
    """A setting, a right or an installation is wrong; starting again won't help."""

    exit_code = 78


class SchemaOutdatedError(ConfigurationError):
    """The database has no rowvec schema, or an older one than the program needs."""


class SchemaNewerError(RowvecError):
    """The database's schema was made by a newer program that marked the change as breaking."""

    exit_code = 65


class UsageError(RowvecError):
    """What was asked for can't be done as asked: an unknown source, a table without a key."""

    exit_code = 2


class TryAgainError(RowvecError):
    """Nothing is wrong but something is in the way: a lock, a busy folder."""

    exit_code = 75


class DatabaseUnavailableError(RowvecError):
    """Postgres can't be reached at the moment, or the connection was cut."""

    exit_code = 75


class LockedError(DatabaseUnavailableError):
    """A lock was not had in time."""


class StatementTimeoutError(DatabaseUnavailableError):
    """The server gave a statement up: it was too much at once, or the server is overloaded."""


class SourceUnreadableError(RowvecError):
    """A source's rows can't be read (dropped table, missing right); its items wait."""


class ModelUnavailableError(RowvecError):
    """The model as a whole does not answer; its items wait and no retry is counted.

    Args:
        message: as of every error.
        hint: as of every error.
        retry_after_seconds: how long the model wants to be let alone; None when it does not say.
        unanswered: whether a request went out and found no end, or none that came from the model: it may be that one of
            its texts brought the outage about.
    """

    exit_code = 75

    def __init__(
        self, message: str, hint: str = "", retry_after_seconds: float | None = None, *, unanswered: bool = False
    ) -> None:
        super().__init__(message, hint)
        self.retry_after_seconds = retry_after_seconds
        self.unanswered = unanswered


class ModelGoneError(ModelUnavailableError):
    """The model's table is gone, and with it whatever waited for the model."""


class ModelRefusesError(ModelUnavailableError):
    """The model's server does not take us as we are set: the key, the address or the model's name there is wrong."""

    exit_code = 78


class StoppingError(RowvecError):
    """The daemon stops and begins no new work; the items go back as they were."""


class ModelMisbehavedError(RowvecError):
    """The model answered with something that is no set of vectors for the texts; counted as an attempt.

    Args:
        message: as of every error.
        hint: as of every error.
        dimensions: how long its vectors are, where that is what is wrong with them.
    """

    def __init__(self, message: str, hint: str = "", dimensions: int | None = None) -> None:
        super().__init__(message, hint)
        self.dimensions = dimensions


class TextRejectedError(RowvecError):
    """The model refuses this text for good; the item fails at once."""


class CarrierTrouble(StrEnum):
    """Why a carrier takes no message, and so for how long it makes no sense to ask again."""

    CONFIGURATION = "configuration"
    """We are not known there, or what is set here is wrong: a person has to act."""
    QUOTA = "quota"
    """What the plan allows is used up, for a while or as long as it is this plan."""
    PASSING = "passing"
    """The network or the service is in trouble; it may be over in a second."""
    PERMANENT = "permanent"
    """It refuses what we ask for, and will again."""


class CarrierError(RowvecError):
    """A carrier did not do what it was asked for; for messages: the items go back and are worked on here.

    Args:
        message: as of every error.
        hint: the service's own words, shortened.
        kind: why.
        until: when it says that it will do so again; None when it does not say.
        status: of its answer; None when there was none.
    """

    exit_code = 75

    def __init__(
        self,
        message: str,
        hint: str = "",
        kind: CarrierTrouble = CarrierTrouble.PASSING,
        until: datetime | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.kind = kind
        self.until = until
        self.status = status


class SignatureRefusedError(RowvecError):
    """A request is not signed as QStash signs what it sends to this address; why is for the log, not for the caller."""
