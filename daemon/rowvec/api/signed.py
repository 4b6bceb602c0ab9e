"""Requests that QStash has signed: read, verified, and answered so that QStash knows whether to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeAlias

import structlog
from aiohttp import web

from rowvec.api.answers import Bearer, refusal
from rowvec.api.messages import UnreadableError
from rowvec.domain.errors import RowvecError, SignatureRefusedError, TryAgainError
from rowvec.ports import Signatures
from rowvec.telemetry import Metrics

SIGNATURE: Final = "Upstash-Signature"
READ_SECONDS: Final = 10.0
NEVER: Final = 489
"""Not in the standard: QStash's word for what it need not try again, together with the header."""
NEVER_HEADERS: Final = {"Upstash-NonRetryable-Error": "true"}
AGAIN_HEADERS: Final = {"Retry-After": "5"}
NOT_SIGNED: Final = "The signature is not accepted."
NOT_SET: Final = "Messages of QStash are taken only where its keys and the public address are set. Missing: {}."

Work: TypeAlias = Callable[[bytes], Awaitable[web.Response]]
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SignedRequests:
    """Lets through what QStash has signed.

    Attributes:
        address: the public one, without a slash at its end: a request's own headers say nothing about it.
        signatures: verifies; None: nothing is let through.
        missing: what would have to be set.
        metrics: counts the answers.
    """

    address: str
    signatures: Signatures | None
    missing: Sequence[str]
    metrics: Metrics

    def only(self, work: Work) -> Handler:
        """Return the handler of a page for QStash alone."""

        async def handle(request: web.Request) -> web.Response:
            response = await self._receive(request, work)
            self.metrics.deliveries.labels(str(response.status)).inc()
            return response

        return handle

    def or_bearer(self, bearer: Bearer, work: Work, ticked: Work | None = None) -> Handler:
        """Return the handler of a page for QStash and for operators: who sends a signature is judged by it.

        Args:
            bearer: lets operators through.
            work: what is done.
            ticked: what is done instead when it is QStash that asks.
        """
        signed = self.only(ticked or work)

        async def handle(request: web.Request) -> web.Response:
            if SIGNATURE in request.headers:
                return await signed(request)
            if refused := bearer.refusal(request):
                return refused
            body = await _read(request)
            return body if isinstance(body, web.Response) else await finished(work, body, HTTPStatus.BAD_REQUEST)

        return handle

    async def _receive(self, request: web.Request, work: Work) -> web.Response:
        if self.signatures is None:
            return refusal(HTTPStatus.FORBIDDEN, NOT_SET.format(", ".join(self.missing)))
        body = await _read(request)
        if isinstance(body, web.Response):
            return body
        try:
            given = ",".join(request.headers.getall(SIGNATURE, []))
            signature = await self.signatures.verify(given, self.address + request.raw_path, body)
        except SignatureRefusedError as error:
            log.warning("message.refused", why=error.message, detail=error.hint, message=_id(request))
            return refusal(HTTPStatus.UNAUTHORIZED, NOT_SIGNED)
        log.debug("message.received", signature=signature, message=_id(request), retried=_retried(request))
        return await finished(work, body, NEVER)


async def _read(request: web.Request) -> bytes | web.Response:
    """Return the raw body, within the server's bound of its size."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error.text or error.reason)
    except TimeoutError:
        return refusal(HTTPStatus.REQUEST_TIMEOUT, "The body does not come.")
    except ConnectionError:
        return refusal(HTTPStatus.BAD_REQUEST, "The body was cut off.")


async def finished(work: Work, body: bytes, unreadable: int) -> web.Response:
    """Do the work for a body; what stands in its way is told in the status.

    Args:
        work: what is to be done.
        body: as it came.
        unreadable: the status of what can never succeed.
    """
    try:
        return await work(body)
    except UnreadableError as error:
        log.warning("message.unreadable", why=str(error))
        return refusal(unreadable, f"It can't be read: {error}.", NEVER_HEADERS)
    except TryAgainError as error:
        return refusal(HTTPStatus.TOO_MANY_REQUESTS, str(error), AGAIN_HEADERS)
    except RowvecError as error:
        log.warning("message.put_off", why=str(error))
        return refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error), AGAIN_HEADERS)


def _id(request: web.Request) -> str:
    return request.headers.get("Upstash-Message-Id", "")[:100]


def _retried(request: web.Request) -> str:
    return request.headers.get("Upstash-Retried", "")[:10]
