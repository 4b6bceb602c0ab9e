"""The client of QStash: the one module that knows its official SDK, and keeps the traps of it from the others.

No retries of the SDK's (they block for half a minute), our own time limit (its own is ten minutes), nothing that could
be meant for a whole collection, and answers read where its parsers lose something.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias, TypeVar

import orjson
from qstash import AsyncQStash
from qstash.errors import DailyMessageLimitExceededError, QStashError, RateLimitExceededError

from rowvec.domain.errors import CarrierError, CarrierTrouble, ConfigurationError, UsageError
from rowvec.qstash.answers import (
    DeadLetter,
    QueueState,
    Schedule,
    SigningKeys,
    read_dead_letter,
    read_keys,
    read_queue,
    read_schedule,
)
from rowvec.qstash.refusals import nonsense, refused, refused_in_batch, shape, too_many, unreachable, words

TIMEOUT_SECONDS: Final = 5.0
BATCH_MESSAGES: Final = 100
PAGES: Final = (100, 10, 1)
"""How many dead letters are asked for at once: fewer when so many are too long for one answer."""
ANSWER_BYTES_MOST: Final = 8 * 1024**2
"""Of an answer: a page of dead letters as long as our messages can be. What is longer is somebody else's, and whatever
is read is held in memory and parsed while everything else waits."""
Method: TypeAlias = Literal["GET", "POST", "DELETE"]

JSON: Final = {"Content-Type": "application/json"}
_NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,500}")
"""Of what stands in a path: an empty one would mean all of them."""
_TOKEN: Final = re.compile(r"[!-~]{1,4096}")
_MISREAD: Final = (LookupError, TypeError, ValueError, AttributeError)
_SAID: Final = re.compile(r"status: (\d{3}), body: (.*)", re.DOTALL)


T = TypeVar("T")


class _TooLongError(CarrierError):
    """An answer that is longer than is taken."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message as QStash takes it.

    Attributes:
        destination: the address that it is delivered to.
        body: a text.
        headers: what it is forwarded with, and how: `Upstash-...`.
        queue: through which it goes; None for none.
    """

    destination: str
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)
    queue: str | None = None


@asynccontextmanager
async def connected(token: str, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> AsyncIterator[QStashClient]:
    """Yield a client, whose connections are closed at the end.

    Args:
        token: of the account.
        url: the base address of the service, or of a stand-in.
        timeout_seconds: the longest that a call may take.

    Raises:
        ConfigurationError: the token can't be one, or a proxy or the certificates can't be used.
    """
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError("QSTASH_TOKEN is no token.", "It is letters, digits and signs of ASCII, no spaces.")
    # It loads the certificates of all authorities, and that takes a while.
    try:
        sdk = await asyncio.to_thread(AsyncQStash, token, retry=False, base_url=url)
    except (ImportError, ValueError, OSError) as error:
        raise ConfigurationError(
            "QStash can't be asked from here.", f"Proxies and certificates are set in the environment: {error}"
        ) from None
    http = sdk.http._client  # noqa: SLF001 - there is no public way to bound what it reads, or to close it
    http.event_hooks = {"response": [_read_answer]}
    try:
        yield QStashClient(sdk, token, timeout_seconds)
    finally:
        await http.aclose()


async def _read_answer(response: Any) -> None:  # noqa: ANN401 - of the SDK's HTTP library, that is none of ours
    """Read an answer, which would else be read whatever its length."""
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > ANSWER_BYTES_MOST:
            most = f"It has more than {ANSWER_BYTES_MOST // 1024**2} MiB. Is QSTASH_URL its address?"
            raise _TooLongError("QStash's answer is too long.", most, status=response.status_code)
    response._content = bytes(content)  # noqa: SLF001 - where it looks for what was read


class QStashClient:
    """Calls of QStash. Each ends within the time limit, and raises CarrierError when it did not do what it was for.

    Args:
        sdk: without retries.
        token: never appears in an error.
        timeout_seconds: the longest that a call may take.
    """

    def __init__(self, sdk: AsyncQStash, token: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._sdk = sdk
        self._token = token
        self._timeout_seconds = timeout_seconds

    # --- Messages

    async def publish(self, messages: Sequence[Outgoing]) -> list[str | CarrierError]:
        """Send messages; return for each its id at the service, or what it was refused for.

        Not by the SDK: its parser loses the ids of the others when one message is refused. When a whole request is
        refused, so are all messages of it and those behind.
        """
        results: list[str | CarrierError] = []
        while len(results) < len(messages):
            part = messages[len(results) : len(results) + BATCH_MESSAGES]
            try:
                results += await self._publish_some(part)
            except CarrierError as error:
                results += [error] * (len(messages) - len(results))
        return results

    async def enqueue(self, message: Outgoing) -> str:
        """Send one message; return its id at the service. In a batch too: an address in a path has rules of its own."""
        (result,) = await self.publish([message])
        if isinstance(result, CarrierError):
            raise result
        return result

    async def cancel(self, message_ids: Sequence[str]) -> int:
        """Have messages not delivered that are not yet; return how many.

        Raises:
            UsageError: there is no id, or an empty one: the service would take that for all messages.
        """
        answer = await self._call("DELETE", "/v2/messages", orjson.dumps({"messageIds": _names(message_ids)}))
        return self._read(lambda found: int(found["cancelled"]), answer)

    # --- Queues

    async def queue(self, name: str) -> QueueState | None:
        """Return a queue; None when there is none of that name."""
        found = await self._find(f"/v2/queues/{_name(name)}")
        return None if found is None else self._read(read_queue, found)

    async def put_queue(self, name: str, parallelism: int, *, paused: bool | None = None) -> None:
        """Make or change a queue.

        Args:
            name: its name.
            parallelism: how many deliveries it makes at once.
            paused: None leaves it as it is, which the SDK can't.
        """
        body: dict[str, object] = {"queueName": _name(name), "parallelism": parallelism}
        body |= {} if paused is None else {"paused": paused}
        await self._ask("POST", "/v2/queues", orjson.dumps(body))

    async def pause_queue(self, name: str) -> None:
        """Let a queue deliver nothing."""
        await self._ask("POST", f"/v2/queues/{_name(name)}/pause")

    async def resume_queue(self, name: str) -> None:
        """Let a queue deliver again."""
        await self._ask("POST", f"/v2/queues/{_name(name)}/resume")

    # --- Schedules

    async def schedules(self) -> list[Schedule]:
        """Return all schedules of the account."""
        return [self._read(read_schedule, one) for one in self._list(await self._call("GET", "/v2/schedules"))]

    async def schedule(self, id_: str) -> Schedule | None:
        """Return a schedule; None when there is none of that id."""
        found = await self._find(f"/v2/schedules/{_name(id_)}")
        return None if found is None else self._read(read_schedule, found)

    async def put_schedule(self, schedule: Schedule) -> None:
        """Make a schedule, or replace the whole of the one that has its id; whether it is paused can't be said."""
        with self._translated():
            async with asyncio.timeout(self._timeout_seconds):
                await self._sdk.schedule.create(
                    destination=schedule.destination,
                    cron=schedule.cron,
                    body=schedule.body,
                    content_type=JSON["Content-Type"],
                    retries=schedule.retries,
                    failure_callback=schedule.failure_callback or None,
                    schedule_id=_name(schedule.id),
                    queue=_name(schedule.queue) if schedule.queue else None,
                    label=schedule.label or None,
                )

    async def delete_schedule(self, id_: str) -> None:
        """Remove a schedule."""
        await self._ask("DELETE", f"/v2/schedules/{_name(id_)}")

    async def pause_schedule(self, id_: str) -> None:
        """Let a schedule skip its ticks."""
        with self._translated():
            async with asyncio.timeout(self._timeout_seconds):
                await self._sdk.schedule.pause(_name(id_))

    async def resume_schedule(self, id_: str) -> None:
        """Let a schedule call again."""
        with self._translated():
            async with asyncio.timeout(self._timeout_seconds):
                await self._sdk.schedule.resume(_name(id_))

    # --- Dead letters

    async def dead_letters(self, cursor: str = "", label: str = "", url: str = "") -> tuple[list[DeadLetter], str]:
        """Return a page of dead letters, and where the next one begins: empty at the end.

        Args:
            cursor: where the page begins; empty for the first.
            label: only those that are marked so; empty for all.
            url: only those that were to go there; empty for all.
        """
        asked = {"cursor": cursor, "label": label, "url": url}
        page = await self._page("/v2/dlq", {name: value for name, value in asked.items() if value})
        letters, following = self._read(lambda found: (found["messages"], found.get("cursor")), page)
        return [self._read(read_dead_letter, one) for one in self._list(letters)], following or ""

    async def dead_letter(self, id_: str) -> DeadLetter | None:
        """Return a dead letter; None when there is none of that id."""
        found = await self._find(f"/v2/dlq/{_name(id_)}")
        return None if found is None else self._read(lambda one: read_dead_letter({"dlqId": id_, **one}), found)

    async def delete_dead_letters(self, ids: Sequence[str]) -> int:
        """Remove dead letters; return how many. UsageError as of `cancel`."""
        answer = await self._call("DELETE", "/v2/dlq", orjson.dumps({"dlqIds": _names(ids)}))
        return self._read(lambda found: int(found["deleted"]), answer)

    async def retry_dead_letter(self, id_: str) -> str:
        """Send a dead letter once more; return the new message's id. The SDK can't."""
        answer = await self._call("POST", f"/v2/dlq/retry/{_name(id_)}")
        return self._read(lambda found: str(found["messageId"]), answer)

    # --- Keys

    async def signing_keys(self) -> SigningKeys:
        """Return what deliveries are signed with."""
        return self._read(read_keys, await self._call("GET", "/v2/keys"))

    # --- How

    async def _publish_some(self, messages: Sequence[Outgoing]) -> list[str | CarrierError]:
        batch = [
            {"destination": one.destination, "headers": one.headers, "body": one.body, "queue": one.queue}
            for one in messages
        ]
        answer = await self._call("POST", "/v2/batch", orjson.dumps(batch))
        # One message alone may be answered without a list.
        entries = answer if isinstance(answer, list) else [answer]
        lost = CarrierError("QStash's answer makes no sense.", "It does not speak of all messages.")
        results: list[str | CarrierError] = [self._result(entry) for entry in entries[: len(messages)]]
        return results + [lost] * (len(messages) - len(results))

    def _result(self, entry: Any) -> str | CarrierError:  # noqa: ANN401 - whatever it may have answered
        if isinstance(entry, dict) and isinstance(entry.get("messageId"), str):
            return str(entry["messageId"])
        return refused_in_batch(entry, words(_shown(entry), self._token))

    async def _find(self, path: str) -> Any | None:  # noqa: ANN401 - as above
        """Return what is there; None when there is nothing."""
        try:
            return await self._call("GET", path)
        except CarrierError as error:
            if error.status == HTTPStatus.NOT_FOUND and error.kind is CarrierTrouble.PERMANENT:
                return None
            raise

    async def _page(self, path: str, asked: Mapping[str, str]) -> Any:  # noqa: ANN401 - as above
        """Return a page, one of fewer entries when it would be too long."""
        *larger, smallest = PAGES
        for count in larger:
            with suppress(_TooLongError):
                return await self._call("GET", path, params={"count": str(count), **asked})
        return await self._call("GET", path, params={"count": str(smallest), **asked})

    async def _call(
        self, method: Method, path: str, body: bytes | None = None, params: dict[str, str] | None = None
    ) -> Any:  # noqa: ANN401 - as above
        """Return what is answered, as JSON says it. Not by orjson, which takes no halves of characters."""
        answer = await self._ask(method, path, body, params)
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise nonsense(f"no JSON: {words(answer, self._token)}" if answer else "empty") from None

    async def _ask(
        self, method: Method, path: str, body: bytes | None = None, params: dict[str, str] | None = None
    ) -> str:
        headers = JSON if body is not None else None
        with self._translated():
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._sdk.http.request(
                    path=path, method=method, headers=headers, body=body, params=params, parse_response=False
                )
        return str(answer)

    def _list(self, answer: Any) -> list[Any]:  # noqa: ANN401 - as above
        if not isinstance(answer, list):
            raise nonsense(words(shape(answer), self._token))
        return answer

    def _read(self, read: Callable[[Any], T], answer: Any) -> T:  # noqa: ANN401 - as above
        try:
            return read(answer)
        except _MISREAD:
            raise nonsense(words(shape(answer), self._token)) from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise our own errors in place of the SDK's, and of the network's below it."""
        try:
            yield
        except (CarrierError, UsageError):
            raise
        except DailyMessageLimitExceededError as error:
            raise too_many(error.reset, daily=True) from None
        except RateLimitExceededError as error:
            raise too_many(error.reset, daily=False) from None
        except QStashError as error:
            raise self._refused(str(error)) from None
        except UnicodeError as error:  # of the address
            raise unreachable(error, self._token) from None
        except _MISREAD:
            raise nonsense("of another form than its SDK knows") from None
        except Exception as error:  # noqa: BLE001 - the SDK lets everything through that its libraries raise
            raise unreachable(error, self._token) from None

    def _refused(self, told: str) -> CarrierError:
        """Return the meaning of an answer, which the SDK tells in one sentence."""
        if (match := _SAID.search(told)) is None:
            return CarrierError("QStash refuses what it is asked for.", words(told, self._token))
        return refused(int(match[1]), words(match[2], self._token))


def _shown(entry: Any) -> str:  # noqa: ANN401 - as above
    """Return an entry for a log, whatever it may be: halves of characters, numbers of any size, lists in lists."""
    try:
        return orjson.dumps(entry).decode()
    except (TypeError, ValueError, RecursionError):
        return "It can't be shown."


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f'"{name[:40]}" is no name or id of QStash\'s.', "Letters, digits, dots, _ and - it has.")
    return name


def _names(names: Sequence[str]) -> list[str]:
    """Refuse what would be taken for all that there is."""
    if not names:
        raise UsageError("Name at least one id.", "QStash takes none for all of them.")
    return [_name(name) for name in names]
