"""The key ring, while the service rolls its keys."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest
from structlog.testing import capture_logs

from clocks import NOON, FakeClock, settle
from qstash_signing import CURRENT, NEXT, signature
from rowvec.domain.errors import ConfigurationError, DatabaseUnavailableError, SignatureRefusedError
from rowvec.qstash.keys import ASK_PAUSE_SECONDS, KEEP_SECONDS, KeyRing

URL: Final = "https://app.example.com/x"
THIRD: Final = "sig_the_third_key_that_there_is__"
FOURTH: Final = "sig_the_fourth_key_that_there_is_"
FIFTH: Final = "sig_the_fifth_key_that_there_is__"


class StubService:
    """See `ports.KeySource`."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.asked = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def signing_keys(self) -> tuple[str, str]:
        self.asked += 1
        await self.answers.wait()
        if self.error:
            raise self.error
        return self.keys[0], self.keys[1]


class Ring:
    def __init__(self, service: StubService | None, *untrusted: str) -> None:
        self.clock = FakeClock()
        self.ring = KeyRing(CURRENT, NEXT, service, self.clock, untrusted)

    async def takes(self, key: str) -> bool:
        token = signature(URL, b"x", key, self.clock.now().timestamp())
        try:
            return await self.ring.verify(token, URL, b"x") == "jwt_test"
        except SignatureRefusedError:
            return False


async def test_both_keys_are_taken_and_no_other() -> None:
    ring = Ring(None)
    assert [await ring.takes(key) for key in (CURRENT, NEXT, THIRD)] == [True, True, False]


@pytest.mark.parametrize("keys", [("", NEXT), (CURRENT, ""), (CURRENT, NEXT)])
def test_keys_that_are_empty_or_public_are_refused(keys: tuple[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        KeyRing(*keys, None, FakeClock(), untrusted=[CURRENT])


async def test_while_the_current_key_signs_nobody_is_asked() -> None:
    service = StubService(CURRENT, NEXT)
    assert await Ring(service).takes(CURRENT)
    await settle()
    assert service.asked == 0


async def test_a_signature_by_the_next_key_tells_of_a_rotation_before_it_matters() -> None:
    service = StubService(NEXT, THIRD)
    ring = Ring(service)
    assert await ring.takes(NEXT)
    await settle()
    assert service.asked == 1
    service.keys = ("unreachable", "now")
    # The second rotation, too soon after the first for another question.
    assert await ring.takes(THIRD)


async def test_two_rotations_at_once_refuse_no_genuine_message() -> None:
    service = StubService(THIRD, FOURTH)
    ring = Ring(service)
    assert all(await asyncio.gather(*(ring.takes(key) for key in (THIRD, FOURTH, CURRENT, NEXT, THIRD))))
    assert service.asked == 1


async def test_replaced_keys_are_taken_for_a_while() -> None:
    ring = Ring(StubService(THIRD, FOURTH))
    assert await ring.takes(THIRD)
    await ring.clock.pass_by(KEEP_SECONDS - 1)
    assert await ring.takes(CURRENT)
    await ring.clock.pass_by(1)
    assert not await ring.takes(CURRENT)
    assert await ring.takes(FOURTH)


async def test_forged_signatures_have_the_service_asked_no_more_often() -> None:
    service = StubService(CURRENT, NEXT)
    ring = Ring(service)
    assert not any([await ring.takes(FIFTH) for _ in range(50)])
    assert service.asked == 1
    await ring.clock.pass_by(ASK_PAUSE_SECONDS)
    assert not await ring.takes(FIFTH)
    assert service.asked == 2


async def test_what_known_keys_have_signed_waits_for_no_answer() -> None:
    service = StubService(THIRD, FOURTH)
    service.answers.clear()
    ring = Ring(service)
    unknown = asyncio.create_task(ring.takes(THIRD))
    await settle()
    assert await ring.takes(CURRENT)
    assert await ring.takes(NEXT)
    assert not unknown.done()
    service.answers.set()
    assert await unknown


async def test_whoever_gives_up_waiting_does_not_end_the_question_for_the_others() -> None:
    service = StubService(THIRD, FOURTH)
    service.answers.clear()
    ring = Ring(service)
    impatient, patient = asyncio.create_task(ring.takes(THIRD)), asyncio.create_task(ring.takes(THIRD))
    await settle()
    impatient.cancel()
    service.answers.set()
    assert await patient


async def test_a_service_that_is_away_changes_nothing() -> None:
    service = StubService(THIRD, FOURTH)
    service.error = DatabaseUnavailableError("It is away.")
    ring = Ring(service)
    with capture_logs() as logs:
        assert not await ring.takes(THIRD)
    assert [(log["event"], log["why"]) for log in logs] == [("keys.unlearned", "It is away.")]
    assert await ring.takes(CURRENT)


@pytest.mark.parametrize("keys", [("", THIRD), (THIRD, ""), (FIFTH, THIRD)])
async def test_keys_of_the_service_that_are_empty_or_public_are_not_learned(keys: tuple[str, str]) -> None:
    ring = Ring(StubService(*keys), FIFTH)
    with capture_logs() as logs:
        assert not await ring.takes(THIRD)
    assert [log["event"] for log in logs] == ["keys.refused"]
    assert await ring.takes(CURRENT)


async def test_the_time_is_the_clocks() -> None:
    ring = Ring(None)
    token = signature(URL, b"x", CURRENT, NOON.timestamp())
    assert await ring.ring.verify(token, URL, b"x")
    await ring.clock.pass_by(360)
    with pytest.raises(SignatureRefusedError, match="expired"):
        await ring.ring.verify(token, URL, b"x")
