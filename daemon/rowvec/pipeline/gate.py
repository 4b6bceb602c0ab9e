"""The gate to a model: every request to it goes through here, as its breaker, its pace and its permits allow."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from rowvec.domain.budget import estimate_tokens
from rowvec.domain.errors import (
    ModelGoneError,
    ModelMisbehavedError,
    ModelUnavailableError,
    StoppingError,
    TextRejectedError,
)
from rowvec.domain.lanes import Lane
from rowvec.domain.load import BreakerState, ModelLoad
from rowvec.domain.retry import describe
from rowvec.pipeline.breaker import Breaker
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.lane_semaphore import LaneSemaphore
from rowvec.pipeline.pace import LastMinute, Pace
from rowvec.ports import Answered, Clock, Embedder, Embedding, untold
from rowvec.telemetry import Metrics

HARMLESS: Final = "hello"

log = structlog.get_logger(__name__)


class Gate:
    """One model's gate, shared by its lanes.

    After an outage it is shut: the board gives out no items of the model, and requests end at once with the reason.
    When the rest is over the gate itself looks at the model, first at its server's health, then with a harmless text,
    and opens for all or rests again.

    Args:
        embedder: the model.
        board: is told while nothing of the model may be claimed.
        clock: the time.
        chance: for the jitter of rests.
        metrics: counts requests and what they carried.
    """

    def __init__(
        self, embedder: Embedder, board: DueBoard, clock: Clock, chance: random.Random, metrics: Metrics
    ) -> None:
        self.embedder = embedder
        self._board = board
        self._clock = clock
        self._metrics = metrics
        self._breaker = Breaker(clock, chance)
        self._shut = asyncio.Event()
        self._texts = LastMinute(clock)
        waits = metrics.rate_limit_waits.labels(embedder.name)
        self.permits = LaneSemaphore(embedder.concurrency, Pace(embedder.requests_per_minute, clock), clock, waits.inc)
        self._show_state()

    async def run(self) -> None:
        """Look after the model whenever the gate is shut, until `close`."""
        with suppress(StoppingError):
            while True:
                await self._shut.wait()
                while (left := self._breaker.rest_seconds()) > 0:
                    await self._clock.sleep(left)
                await self._look()

    def close(self) -> None:
        """Let no new request begin; those that wait for their turn end with StoppingError."""
        self.permits.close()

    def shut(self, error: ModelUnavailableError) -> None:
        """Let the model alone for something that no request to it has shown."""
        self._shut_for(error, self._breaker.openings)

    def forget(self) -> None:
        """Show the state of the breaker no longer: a model that is gone must alarm nobody."""
        for state in BreakerState:
            self._metrics.breaker_state.remove(self.embedder.name, state.value)

    def load(self) -> ModelLoad:
        """Return what the model stands at."""
        breaker = self._breaker
        return ModelLoad(breaker.state, breaker.why, breaker.since, self._texts.per_second(), self.permits.held)

    async def ready(self) -> None:
        """Have the embedder learn what it must know.

        Raises:
            ModelUnavailableError: the gate is shut, or the model as a whole does not answer.
        """
        self._breaker.check()
        openings = self._breaker.openings
        try:
            await self.embedder.ready()
        except ModelUnavailableError as error:
            self._shut_for(error, openings)
            raise

    async def ask(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:
        """Send one request for texts of rows; the caller holds a permit until `answered` is called.

        Raises:
            ModelUnavailableError: the gate is shut, or the model as a whole does not answer.
            Exception: the model fails at the texts.
        """
        self._check_open()
        openings = self._breaker.openings
        try:
            vectors = await self._send(texts, answered)
        except ModelUnavailableError as error:
            self._shut_for(error, openings)
            raise
        self._breaker.succeed()
        self._texts.add(len(texts))
        return vectors

    async def prove(self, lane: Lane) -> None:
        """See that the model embeds another text: one that is broken or of another kind fails at all of them.

        Raises:
            ModelUnavailableError: it does not.
        """
        async with self.permits.permit(lane):
            self._check_open()
            openings = self._breaker.openings
            try:
                await self._send_harmless()
            except ModelUnavailableError as error:
                self._shut_for(error, openings)
                raise

    def _check_open(self) -> None:
        """Let the holder of a permit pass, or take its start back: the next look at the model waits for no other."""
        try:
            self._breaker.check()
        except ModelUnavailableError:
            self.permits.give_start_back()
            raise

    async def _look(self) -> None:
        """Look at the model once, while nobody else may."""
        self._breaker.try_once()
        self._show_state()
        openings = self._breaker.openings
        try:
            await self.embedder.probe()
            await self.embedder.ready()
            async with self.permits.permit(Lane.IMMEDIATE):
                await self._send_harmless()
        except ModelUnavailableError as error:
            self._shut_for(error, openings)
        else:
            self._open()

    async def _send_harmless(self) -> None:
        try:
            await self._send([HARMLESS])
        except ModelUnavailableError:
            raise
        except Exception as error:
            said = " ".join(describe(error)).strip()
            raise ModelUnavailableError("The model fails at every text.", said) from error

    async def _send(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:
        """Send one request, count it, and check that the answer is what was asked for."""
        name, outcome = self.embedder.name, "cancelled"
        self._metrics.tokens_sent.labels(name).inc(sum(map(estimate_tokens, texts)))
        began = time.perf_counter()
        try:
            vectors = await self.embedder.embed(texts, answered)
            self._check(texts, vectors)
            outcome = "answered"
        except ModelUnavailableError:
            outcome = "unavailable"
            raise
        except TextRejectedError:
            outcome = "rejected"
            raise
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._metrics.requests.labels(name, outcome).inc()
        self._metrics.request_seconds.labels(name).observe(time.perf_counter() - began)
        self._metrics.texts_sent.labels(name).inc(len(texts))
        return vectors

    def _check(self, texts: Sequence[str], vectors: Sequence[Embedding]) -> None:
        if len(vectors) != len(texts):
            raise ModelMisbehavedError(
                "The model answered with the wrong number of vectors.", f"{len(vectors)} for {len(texts)} texts"
            )
        for vector in vectors:
            if len(vector) != self.embedder.dimensions:
                raise ModelMisbehavedError(
                    "The model answered with vectors of the wrong length.",
                    f"{len(vector)} dimensions instead of {self.embedder.dimensions}",
                )

    def _shut_for(self, error: ModelUnavailableError, openings: int) -> None:
        """Shut the gate, if the error is news, and turn away whoever waits before it."""
        if not self._breaker.fail(error, openings):
            return
        self._board.rest_model(self.embedder.name, self._breaker.why)
        self.permits.turn_away(error)
        if not self._shut.is_set():
            # A model that was dropped is no trouble: it is about to be ended.
            tell = log.info if isinstance(error, ModelGoneError) else log.warning
            tell("breaker.opened", model=self.embedder.name, why=self._breaker.why)
        self._shut.set()
        self._show_state()

    def _open(self) -> None:
        self._breaker.close()
        if self._breaker.state is BreakerState.CLOSED:
            self._shut.clear()
            self._board.wake_model(self.embedder.name)
            log.info("breaker.closed", model=self.embedder.name)
        self._show_state()

    def _show_state(self) -> None:
        for state in BreakerState:
            shown = self._metrics.breaker_state.labels(self.embedder.name, state.value)
            shown.set(state is self._breaker.state)
