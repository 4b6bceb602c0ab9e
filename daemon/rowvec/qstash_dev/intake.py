"""What is accepted, and what not: everything is looked at before any of it is sent."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from rowvec.qstash_dev.carry import Carrier, new_id
from rowvec.qstash_dev.flow import FlowKeys
from rowvec.qstash_dev.groups import Endpoint, Groups
from rowvec.qstash_dev.messages import Message
from rowvec.qstash_dev.options import Given, Options, check_name, read_options
from rowvec.qstash_dev.refusals import RefusalError, quota
from rowvec.qstash_dev.world import World

DEDUPLICATION_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Letter:
    """What was handed in.

    Attributes:
        destination: an address, or the name of a URL group.
        given: the options as they were sent.
        body: raw.
        caller_ip: who sent it.
        queue: that it is to go through.
        schedule_id: what made it.
    """

    destination: str
    given: Given
    body: bytes
    caller_ip: str
    queue: str | None = None
    schedule_id: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A letter that can be sent."""

    letter: Letter
    options: Options
    group: str | None
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was made of a letter for one destination."""

    message_id: str
    url: str
    deduplicated: bool

    def show(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"messageId": self.message_id, **({"deduplicated": True} if self.deduplicated else {})}


@dataclass(frozen=True, slots=True)
class Receipts:
    """What was made of a letter for each of its destinations."""

    receipts: tuple[Receipt, ...]
    of_group: bool

    def show(self) -> dict[str, Any] | list[dict[str, Any]]:
        """Return it as JSON: a list for a URL group."""
        if self.of_group:
            return [{**receipt.show(), "url": receipt.url} for receipt in self.receipts]
        return self.receipts[0].show()

    @property
    def status(self) -> int:
        """Of the answer to this letter alone."""
        return 202 if all(receipt.deduplicated for receipt in self.receipts) else 200


class Intake:
    """Accepts letters.

    Args:
        carrier: carries them.
        groups: that they may be addressed to.
        flow: learns what they say of their keys.
        world: the circumstances.
    """

    def __init__(self, carrier: Carrier, groups: Groups, flow: FlowKeys, world: World) -> None:
        self._carrier = carrier
        self._groups = groups
        self._flow = flow
        self._world = world
        self._seen: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def accept(self, letters: Sequence[Letter]) -> list[Receipts]:
        """Send letters: all or none.

        Raises:
            RefusalError: one can't be sent, or they are too many for today.
        """
        checked = [self.check(letter) for letter in letters]
        self._world.usage.check(sum(len(one.endpoints) for one in checked))
        return [self._send(one) for one in checked]

    def check(self, letter: Letter) -> Checked:
        """See whether a letter can be sent.

        Raises:
            RefusalError: 400 and 412, it can't.
        """
        group = self._groups.find(letter.destination)
        options = read_options({**group.headers, **letter.given} if group else letter.given)
        read_options(options.callback_given), read_options(options.failure_callback_given)
        self._check_quotas(letter, options)
        if letter.queue is not None:
            self.check_queue(letter.queue)
        if group is not None:
            return Checked(letter, options, group.name, tuple(group.endpoints))
        check_url(letter.destination)
        return Checked(letter, options, None, (Endpoint(letter.destination),))

    def check_queue(self, name: str) -> None:
        """See whether there is a queue of this name, or one more may be made.

        Raises:
            RefusalError: 400 and 412.
        """
        check_name(name, "queue name")
        if name not in self._carrier.lines and len(self._carrier.lines) >= self._world.plan.queues:
            raise quota("maxQueues", self._world.plan.queues)

    def _check_quotas(self, letter: Letter, options: Options) -> None:
        now, plan = self._world.clock.now(), self._world.plan
        if len(letter.body) > plan.message_bytes:
            raise quota("maxMessageSize", plan.message_bytes)
        if plan.retries is not None and options.retries > plan.retries:
            raise quota("maxRetries", plan.retries)
        if max(options.delay, (options.not_before or now) - now) > plan.delay_seconds:
            raise quota("maxDelay", plan.delay_seconds)

    def _send(self, checked: Checked) -> Receipts:
        self._flow.learn(checked.options.flow)
        receipts = tuple(self._send_to(checked, endpoint) for endpoint in checked.endpoints)
        return Receipts(receipts, checked.group is not None)

    def _send_to(self, checked: Checked, endpoint: Endpoint) -> Receipt:
        key, now = _deduplication_key(checked, endpoint), self._world.clock.now()
        if key is not None and (known := self._known(key)) is not None:
            self._world.record.count("deduplicated")
            return Receipt(known, endpoint.url, deduplicated=True)
        options, letter = checked.options, checked.letter
        message = Message(
            id=new_id(),
            url=endpoint.url,
            body=letter.body,
            options=options,
            created_at=now,
            not_before=options.not_before or now + options.delay,
            caller_ip=letter.caller_ip,
            queue=letter.queue,
            group=checked.group,
            endpoint=endpoint.name or None,
            schedule_id=letter.schedule_id,
        )
        if key is not None:
            self._seen[key] = (message.id, now + DEDUPLICATION_SECONDS)
        self._world.record.count("published")
        self._carrier.send(message)
        return Receipt(message.id, endpoint.url, deduplicated=False)

    def _known(self, key: str) -> str | None:
        """Return the message of a key that is in the window; what has left it is forgotten."""
        now = self._world.clock.now()
        while self._seen and next(iter(self._seen.values()))[1] <= now:
            self._seen.popitem(last=False)
        return self._seen[key][0] if key in self._seen else None


def check_url(url: str) -> None:
    """See whether a destination that is no URL group is an address.

    Raises:
        RefusalError: 400, it is none.
    """
    if not url.startswith(("http://", "https://")):
        raise RefusalError(400, "invalid destination url: endpoint has invalid scheme, add http:// or https://")
    try:
        host = urlsplit(url).netloc
    except ValueError as error:
        raise RefusalError(400, f"invalid destination url: {error}") from error
    if not host:
        raise RefusalError(400, "invalid destination url: endpoint has no host")


def _deduplication_key(checked: Checked, endpoint: Endpoint) -> str | None:
    """Return what a message has in common with its doubles; each endpoint of a group gets one."""
    options = checked.options
    place = endpoint.url if checked.group is not None else ""
    if options.deduplication_id is not None:
        return f"id {options.deduplication_id} {place}"
    if not options.by_content:
        return None
    content = repr((endpoint.url, checked.letter.body, sorted(options.headers.items())))
    return f"content {hashlib.sha256(content.encode()).hexdigest()}"
