"""QStash as a carrier of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rowvec.domain.errors import CarrierError
from rowvec.domain.messages import Message
from rowvec.qstash.client import Outgoing, QStashClient

FAILURE: Final = "/api/qstash/failure"
RETRY_DELAY: Final = "1000 * (1 + retried)"
"""In milliseconds, by QStash's formula. Short: a message that is tried again blocks its queue, and after half an hour,
as by default, its items have long been done here."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How messages are delivered.

    Attributes:
        site_url: the public address that we are reached at.
        queue: through which they go.
        retries: of a delivery that failed.
    """

    site_url: str
    queue: str
    retries: int


class QStashCarrier:
    """See `ports.Carrier`. Asks for no callback of what was delivered: each would be paid for like a message.

    Args:
        client: the way there.
        delivery: how messages are delivered.
    """

    def __init__(self, client: QStashClient, delivery: Delivery) -> None:
        self._client = client
        self._delivery = delivery
        self._site = delivery.site_url.rstrip("/")

    async def send(self, messages: Sequence[Message]) -> Sequence[CarrierError | None]:
        """See `ports.Carrier.send`."""
        results = await self._client.publish([self._outgoing(message) for message in messages])
        return [result if isinstance(result, CarrierError) else None for result in results]

    def _outgoing(self, message: Message) -> Outgoing:
        body, headers = message.body.decode(), self._headers(message)
        return Outgoing(self._site + message.path, body, headers, self._delivery.queue)

    def _headers(self, message: Message) -> Mapping[str, str]:
        return {
            "Content-Type": "application/json",
            "Upstash-Method": "POST",
            "Upstash-Deduplication-Id": str(message.name),
            "Upstash-Retries": str(self._delivery.retries),
            "Upstash-Retry-Delay": RETRY_DELAY,
            "Upstash-Timeout": f"{message.timeout_seconds:.0f}s",
            "Upstash-Failure-Callback": self._site + FAILURE,
            "Upstash-Label": message.label,
        }
