"""Send: gives messages to the carrier, and knows whether it takes any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from rowvec.domain.errors import CarrierError, DatabaseUnavailableError
from rowvec.domain.load import BreakerState
from rowvec.domain.messages import Message
from rowvec.pipeline.circuit import CarrierCircuit
from rowvec.ports import Carrier, Dispatchable
from rowvec.telemetry import Metrics

log = structlog.get_logger(__name__)


class Sender:
    """The one way to the carrier, behind a circuit.

    Args:
        carrier: takes messages.
        circuit: of the carrier.
        dispatches: keeps the count of what was sent.
        metrics: counts messages by what became of them.
        opened: is called when the circuit opens: all work is done here from then on.
    """

    def __init__(
        self,
        carrier: Carrier,
        circuit: CarrierCircuit,
        dispatches: Dispatchable,
        metrics: Metrics,
        opened: Callable[[], None],
    ) -> None:
        self._carrier = carrier
        self._circuit = circuit
        self._dispatches = dispatches
        self._metrics = metrics
        self._opened = opened
        self._show()

    @property
    def circuit(self) -> CarrierCircuit:
        """What it stands at."""
        return self._circuit

    def admit(self) -> BreakerState:
        """Say whether messages may be sent, as `CarrierCircuit.admit`; who is to try ends it by `send` or `desist`."""
        admitted = self._circuit.admit()
        self._show()
        return admitted

    def desist(self) -> None:
        """Leave the try to somebody else, if nobody has made it."""
        self._circuit.desist()
        self._show()

    async def send(self, messages: Sequence[Message], items: Sequence[int]) -> Sequence[CarrierError | None]:
        """Send messages; return for each what it was refused for, None for those that are on their way.

        Args:
            messages: at least one.
            items: how many were dispatched with each.
        """
        openings = self._circuit.openings
        results = await self._carrier.send(messages)
        self._note(results, openings)
        await self._count([carried for carried, error in zip(items, results, strict=True) if error is None])
        return results

    def _note(self, results: Iterable[CarrierError | None], openings: int) -> None:
        """Open the circuit at the first refusal, however many messages were taken: these few are done here."""
        refusals = []
        for error in results:
            self._metrics.messages.labels(error.kind.value if error else "sent").inc()
            refusals += [error] if error else []
        if refusals:
            self._open(refusals[0], openings)
        elif self._circuit.succeed():
            log.info("carrier.closed")
        self._show()

    def _open(self, error: CarrierError, openings: int) -> None:
        known = self._circuit.why
        if not self._circuit.fail(error, openings):
            return
        self._opened()
        tell = log.debug if known == self._circuit.why else log.warning
        rest = round(self._circuit.rest_seconds(), 1)
        tell("carrier.opened", kind=error.kind.value, why=self._circuit.why, again_in_seconds=rest)

    async def _count(self, carried: Sequence[int]) -> None:
        """Add to what was sent today; a count that is missed is worth no trouble."""
        if not carried:
            return
        self._metrics.dispatched_items.inc(sum(carried))
        try:
            await self._dispatches.count_sent(len(carried), sum(carried))
        except DatabaseUnavailableError as error:
            log.debug("sent.uncounted", error=str(error))

    def _show(self) -> None:
        for state in BreakerState:
            self._metrics.carrier_state.labels(state.value).set(state is self._circuit.state)
