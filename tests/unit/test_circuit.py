from __future__ import annotations

import random
from datetime import timedelta

import pytest

from clocks import NOON, FakeClock
from rowvec.domain.errors import CarrierError, CarrierTrouble
from rowvec.domain.load import BreakerState
from rowvec.pipeline.circuit import LEAST_REST, LONGEST_REST_SECONDS, LONGEST_WISH_SECONDS, CarrierCircuit

AWAY = CarrierError("QStash can't be reached.", "Connection refused.")
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def circuit(clock: FakeClock) -> CarrierCircuit:
    return CarrierCircuit(clock, random.Random(0))  # noqa: S311 - jitter


def failed(circuit: CarrierCircuit, error: CarrierError = AWAY) -> float:
    """Let a message fail; return the rest that follows."""
    assert circuit.fail(error, circuit.openings)
    return circuit.rest_seconds()


async def test_one_failure_opens_it_and_after_the_rest_one_may_try(circuit: CarrierCircuit, clock: FakeClock) -> None:
    assert (circuit.admit(), circuit.why) == (CLOSED, "")
    rest = failed(circuit)
    assert (circuit.admit(), circuit.why) == (OPEN, "QStash can't be reached. Connection refused.")
    await clock.pass_by(rest - 0.01)
    assert circuit.admit() is OPEN
    await clock.pass_by(0.02)
    assert [circuit.admit() for _ in range(3)] == [HALF_OPEN, OPEN, OPEN]
    assert circuit.succeed()
    assert (circuit.admit(), circuit.why) == (CLOSED, "")
    assert circuit.since == NOON + timedelta(seconds=rest + 0.01)


async def test_the_rests_double_from_a_second_to_a_minute_until_a_message_is_taken(
    circuit: CarrierCircuit, clock: FakeClock
) -> None:
    for step in (1, 2, 4, 8, 16, 32, LONGEST_REST_SECONDS, LONGEST_REST_SECONDS):
        rest = failed(circuit)
        assert LEAST_REST * step <= rest <= step
        await clock.pass_by(rest)
        assert circuit.admit() is HALF_OPEN
    assert circuit.since == NOON
    circuit.succeed()
    assert failed(circuit) <= 1


async def test_who_desists_leaves_the_try_to_the_next(circuit: CarrierCircuit, clock: FakeClock) -> None:
    await clock.pass_by(failed(circuit))
    assert circuit.admit() is HALF_OPEN
    circuit.desist()
    assert circuit.admit() is HALF_OPEN
    circuit.succeed()
    circuit.desist()
    assert circuit.state is CLOSED


def test_what_fails_together_is_one_outage(circuit: CarrierCircuit) -> None:
    openings = circuit.openings
    assert circuit.fail(AWAY, openings)
    assert not circuit.fail(AWAY, openings)
    assert circuit.rest_seconds() <= 1


def test_a_late_success_does_not_close_it(circuit: CarrierCircuit) -> None:
    failed(circuit)
    assert not circuit.succeed()
    assert circuit.admit() is OPEN


@pytest.mark.parametrize("kind", [CarrierTrouble.CONFIGURATION, CarrierTrouble.QUOTA])
def test_what_does_not_mend_itself_rests_for_long(circuit: CarrierCircuit, kind: CarrierTrouble) -> None:
    assert failed(circuit, CarrierError("It is refused.", kind=kind)) == LONGEST_REST_SECONDS


@pytest.mark.parametrize(("wish", "rest"), [(300.0, 300.0), (-5.0, 1.0), (1e6, LONGEST_WISH_SECONDS)])
def test_a_quota_rests_until_it_is_there_again(circuit: CarrierCircuit, wish: float, rest: float) -> None:
    until = NOON + timedelta(seconds=wish)
    assert failed(circuit, CarrierError("Used up.", kind=CarrierTrouble.QUOTA, until=until)) == rest
