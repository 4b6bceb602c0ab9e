"""One attempt: a signed request to a receiver."""

from __future__ import annotations

import asyncio
import string
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from rowvec.qstash_dev.flow import FlowKeys
from rowvec.qstash_dev.messages import Answer, Delivery, Journey, Message
from rowvec.qstash_dev.signing import Keys, new_key, sign
from rowvec.qstash_dev.world import World

_NOT_FORWARDED: Final = frozenset({"Connection", "Content-Length", "Host", "Transfer-Encoding"})
_SENDABLE: Final = string.punctuation
REGION: Final = "EU-CENTRAL-1"
ANOTHER: Final = "https://another.example.com/"


@dataclass(frozen=True, slots=True)
class Deliverer:
    """Makes attempts, each with a signature of its own.

    Args:
        session: to the receivers.
        keys: that sign.
        flow: how many at a time.
        world: the circumstances.
    """

    session: aiohttp.ClientSession
    keys: Keys
    flow: FlowKeys
    world: World

    async def attempt(self, journey: Journey) -> Answer | None:
        """Make an attempt, when its turn has come; None: it never happens, and nobody hears of it."""
        await self._dawdle(journey.message)
        async with self.flow.turn(journey.message.options.flow):
            if self.world.mishaps.happens(self.world.mishaps.faults.drop):
                self.world.record.count("dropped")
                return None
            if self.world.mishaps.happens(self.world.mishaps.faults.duplicate):
                self.world.record.count("duplicated")
                return (await asyncio.gather(self._send(journey), self._send(journey)))[0]
            return await self._send(journey)

    async def _dawdle(self, message: Message) -> None:
        faults = self.world.mishaps.faults
        by_chance = self.world.mishaps.dice.random() if faults.reorder and message.queue is None else 0.0
        if faults.delay or by_chance:
            await self.world.clock.sleep(faults.delay + by_chance)

    async def _send(self, journey: Journey) -> Answer:
        message, headers = journey.message, self._headers(journey)
        self.world.record.count("attempts")
        answer = await self._ask(message, headers)
        if self.world.mishaps.happens(self.world.mishaps.faults.lose_answer):
            self.world.record.count("lost_answers")
            answer = Answer(None, error="the answer was lost")
        self.world.record.keep(
            Delivery(
                message_id=message.id,
                url=message.url,
                method=message.options.method,
                headers=dict(headers),
                body=message.body,
                retried=journey.retried,
                queue=message.queue,
                at=self.world.clock.now(),
                answer=answer,
            )
        )
        return answer

    async def _ask(self, message: Message, headers: list[tuple[str, str]]) -> Answer:
        most = self.world.plan.response_seconds
        seconds = min(message.options.timeout or most, most)
        try:
            async with (
                self.world.clock.timeout(seconds),
                self.session.request(
                    message.options.method,
                    _target(message.url),
                    data=message.body,
                    headers=headers,
                    skip_auto_headers=("Content-Type", "Accept"),
                    allow_redirects=False,
                ) as response,
            ):
                body = (await response.read())[: self.world.plan.message_bytes]
                found = {name: tuple(response.headers.getall(name)) for name in response.headers}
                return Answer(response.status, found, body)
        except TimeoutError:
            return Answer(None, error=f"no answer within {seconds:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, error=str(error) or type(error).__name__)

    def _headers(self, journey: Journey) -> list[tuple[str, str]]:
        message = journey.message
        ours = {
            "User-Agent": "Upstash-QStash",
            "Accept-Encoding": "gzip",
            "Upstash-Message-Id": message.id,
            "Upstash-Retried": str(journey.retried),
            "Upstash-Signature": self._signature(message),
            "Upstash-Region": REGION,
            "Upstash-Caller-Ip": message.caller_ip,
            **({"Upstash-Schedule-Id": message.schedule_id} if message.schedule_id else {}),
            **({"Upstash-Topic-Name": message.group} if message.group else {}),
        }
        forwarded = [
            (name, value)
            for name, values in message.options.headers.items()
            for value in values
            if name not in ours and name not in _NOT_FORWARDED
        ]
        return [*forwarded, *ours.items()]

    def _signature(self, message: Message) -> str:
        faults, made = self.world.mishaps.faults, self.world.record.counts["signed"]
        if faults.rotate_every and made and made % faults.rotate_every == 0:
            self.keys.rotate()
        self.world.record.count("signed")
        forged = self.world.mishaps.happens(faults.forge)
        if forged:
            self.world.record.count("forged")
        return sign(
            new_key() if forged else self.keys.current,
            ANOTHER if faults.wrong_subject else message.url,
            message.body,
            self.world.clock.wall() + faults.skew,
            padded=not faults.unpadded,
        )


def _target(url: str) -> URL:
    """Return the address as it was published; only what no request can carry is encoded."""
    return URL(quote(url, safe=_SENDABLE), encoded=True)
