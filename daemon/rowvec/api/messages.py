"""What QStash brings: the bodies of its requests."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Final, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from rowvec.domain.items import Key
from rowvec.domain.messages import PROCESS, PROCESS_ONE, Asked

ROWS_MOST: Final = 1000
"""Of one message."""
ID_BYTES_MOST: Final = 1000
"""As in `rowvec.enqueue`."""
PROBLEMS_MOST: Final = 5
"""Of a body, that are told."""

Form = TypeVar("Form")


class UnreadableError(ValueError):
    """A body that is not of its form, and never will be."""


def _as_text(value: object) -> object:
    """Take the number that many keys are for its text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _storable(value: str) -> str:
    if "\x00" in value or len(value.encode()) > ID_BYTES_MOST:
        raise ValueError(f"it must have at most {ID_BYTES_MOST} bytes, none of them 0")
    return value


Text = Annotated[str, BeforeValidator(_as_text), AfterValidator(_storable)]
"""Of a key: an empty text may be one."""


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class AskedRow(_Form):
    """A row that is to be brought up to date."""

    content_type: Text = Field(alias="contentType", min_length=1)
    content_id: Text = Field(alias="contentId")
    priority: Annotated[int, Field(ge=1, le=100)] | None = None
    dispatch: UUID | None = None


Rows = Annotated[list[AskedRow], Field(max_length=ROWS_MOST)]


class Message(_Form):
    """A message of ours: which it is, and the rows that it asks for."""

    dispatch: UUID | None = None
    items: Rows = Field(default_factory=list)

    @property
    def rows(self) -> Mapping[Key, int | None]:
        """The rows, each once, with the most urgent priority that is named."""
        rows: dict[Key, int | None] = {}
        for row in self.items:
            key = Key(row.content_type, row.content_id)
            named = [priority for priority in (rows.get(key), row.priority) if priority is not None]
            rows[key] = min(named, default=None)
        return rows


class TaskRequest(_Form):
    """What is to be done for maintenance."""

    task: str


class Attempt(_Form):
    """What QStash says of a delivery, or of one that has failed for good."""

    source_body: str | None = Field("", alias="sourceBody")
    source_message_id: str = Field("", alias="sourceMessageId")
    status: int | None = None
    url: str = ""

    @property
    def asked(self) -> Asked:
        """What was to be delivered; raises as `read_asked`."""
        try:
            body = base64.b64decode(self.source_body or "", validate=True)
        except ValueError as error:
            raise UnreadableError("sourceBody: it is no base64") from error
        # Where the page is not named, it shows in the form.
        return read_asked(self.url or (PROCESS if b'"items"' in body else PROCESS_ONE), body)


_ROWS: Final = TypeAdapter(Annotated[list[AskedRow], Field(min_length=1, max_length=ROWS_MOST)])


def read(form: type[Form], body: bytes) -> Form:
    """Read a body of one form.

    Raises:
        UnreadableError: it is of another; says where and why, without what was given.
    """
    return _validated(TypeAdapter(form), body)


def read_rows(body: bytes) -> Message:
    """Read one row, or a list of them; raises as `read`."""
    rows = read_list(body) if body.lstrip().startswith(b"[") else [read(AskedRow, body)]
    # Of several rows from several messages, none is known to have been queued.
    dispatches = {row.dispatch for row in rows}
    return Message(dispatch=dispatches.pop() if len(dispatches) == 1 else None, items=rows)


def read_list(body: bytes) -> list[AskedRow]:
    """Read a list of rows; raises as `read`."""
    return _validated(_ROWS, body)


def read_batch(body: bytes) -> Message:
    """Read a message of ours, or nothing, which asks for no row; raises as `read`."""
    return read(Message, body) if body.strip() else Message()


def read_asked(url: str, body: bytes) -> Asked:
    """Read what a message asks for that was to go to one of our pages, as that page does.

    Raises:
        UnreadableError: it is of another form, or the page takes no rows.
    """
    if url.endswith(PROCESS):
        message = read_batch(body)
    elif url.endswith(PROCESS_ONE):
        message = read_rows(body)
    else:
        raise UnreadableError("url: it leads to no page that takes rows")
    return Asked(message.dispatch, message.rows)


def _validated(adapter: TypeAdapter[Form], body: bytes) -> Form:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)[:PROBLEMS_MOST]
        said = ((".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in problems)
        raise UnreadableError("; ".join(f"{place or 'body'}: {what}" for place, what in said)) from None
