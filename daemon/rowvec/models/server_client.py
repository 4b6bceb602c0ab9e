"""The client of a model server: JSON over HTTP, bounded in time and size, and errors that a person can act on."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from typing import Any, Final, cast
from urllib.parse import urljoin

import aiohttp
import orjson

from rowvec.domain.errors import ModelMisbehavedError, ModelRefusesError, ModelUnavailableError
from rowvec.models.refusals import REFUSALS, refused, retry_after_seconds
from rowvec.ports import Answered, untold

CONNECT_SECONDS: Final = 5.0
HEALTH_SECONDS: Final = 5.0
HEALTH_BYTES: Final = 65536
KEEP_ALIVE_SECONDS: Final = 4.0
"""Shorter than uvicorn's 5 s: a request must not meet a connection that the server is just closing."""
PIECE_BYTES: Final = 65536
WORDS: Final = 200
NO_TEXTS: Final[Collection[str]] = ()
NO_SUCH_MODEL: Final = re.compile(r"\bmodel\b.*\b(?:not found|not exist|unknown)\b", re.IGNORECASE)
MOST_NESTED: Final = 10
GATEWAYS: Final = {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
"""What a proxy answers with when the server behind it breaks down or hangs."""
UNSAID: Final = "[...]"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a model is served.

    Attributes:
        url: what the paths of requests are appended to, http or https.
        api_key: is sent as a bearer token; empty for none.
        timeout_seconds: for a request as a whole.
    """

    url: str
    api_key: str = field(default="", repr=False)
    timeout_seconds: float = 60.0


class ServerClient:
    """Asks one model server; connections are made with the first request and kept.

    Args:
        model: the model's name, for the names of its settings in errors.
        address: where its server is.
    """

    def __init__(self, model: str, address: ServerAddress) -> None:
        self.variable = f"ROWVEC_MODEL_{model.upper()}"
        self._address = address
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self,
        path: str,
        body: Mapping[str, object],
        max_bytes: int,
        texts: Collection[str],
        answered: Answered = untold,
    ) -> object:
        """Send a request; return the answer's JSON.

        Args:
            path: begins with a slash.
            body: is sent as JSON.
            max_bytes: the most that the answer may have.
            texts: what no error may repeat.
            answered: is called when all is here and has still to be read.

        Raises:
            ModelUnavailableError: the server can't be reached, is not in order or does not know us.
            ModelMisbehavedError: the answer is too large or no JSON, or the server breaks at the texts.
            TextRejectedError: the server refuses the texts.
        """
        return await self._ask("POST", path, orjson.dumps(body), max_bytes, texts, answered)

    async def get(self, path: str, max_bytes: int) -> object:
        """Return the JSON of a page about the server; arguments and errors as of `post`."""
        return await self._ask("GET", path, None, max_bytes, NO_TEXTS)

    async def health(self, page: str, *, at_root: bool = False, lacking: Collection[int] = ()) -> object:
        """Ask a page for the server's health, for a short time; return its JSON, None where it has none.

        Args:
            page: begins with a slash.
            at_root: whether it stands at the server's root and not below the address that is set.
            lacking: the statuses that say that there is no such page; that is well too.

        Raises:
            ModelUnavailableError: the server can't be reached or is not in order.
        """
        url = urljoin(self._address.url, page) if at_root else self._address.url.rstrip("/") + page
        limit = min(HEALTH_SECONDS, self._address.timeout_seconds)
        status, headers, content = await self._answer("GET", url, None, HEALTH_BYTES, limit)
        if status in lacking:
            return None
        if status // 100 != HTTPStatus.OK // 100:
            wish = retry_after_seconds(headers, time.time())
            raise self._unavailable(status, page, self._said(_words(content, HEALTH_BYTES)), wish)
        try:
            return cast("object", orjson.loads(content))
        except orjson.JSONDecodeError:
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(  # noqa: PLR0913 - what `post` takes
        self,
        method: str,
        path: str,
        body: bytes | None,
        max_bytes: int,
        texts: Collection[str],
        answered: Answered = untold,
    ) -> object:
        url, limit = self._address.url.rstrip("/") + path, self._address.timeout_seconds
        status, headers, content = await self._answer(method, url, body, max_bytes, limit)
        if status // 100 == HTTPStatus.OK // 100:
            answered()
            return _parse(content, max_bytes)
        words = self._said(_words(content, max_bytes), texts)
        if status in REFUSALS:
            raise refused(status, words)
        raise self._unavailable(status, path, words, retry_after_seconds(headers, time.time()))

    async def _answer(
        self, method: str, url: str, body: bytes | None, max_bytes: int, limit_seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return the answer's status, its headers and its content; raise what keeps it from coming."""
        try:
            return await self._exchange(method, url, body, max_bytes, limit_seconds)
        except aiohttp.ConnectionTimeoutError:
            # Another limit than the one that can be set.
            raise ModelUnavailableError("The model server can't be reached.", "It takes no connection.") from None
        except TimeoutError:
            raise ModelUnavailableError(
                "The model server does not answer in time.", self._told(limit_seconds), unanswered=True
            ) from None
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # UnicodeError: no name of a host
            sent = not isinstance(error, aiohttp.ClientConnectorError)
            raise ModelUnavailableError(
                "The model server can't be reached.", self._said(_reason(error)), unanswered=sent
            ) from None

    async def _exchange(
        self, method: str, url: str, body: bytes | None, max_bytes: int, limit_seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return the answer's parts; of a content beyond the limit one piece is enough."""
        limits = aiohttp.ClientTimeout(total=limit_seconds, sock_connect=min(CONNECT_SECONDS, limit_seconds))
        session = self._connected()
        # As a file it is sent piece by piece: a large one must not hold up the event loop.
        data = None if body is None else BytesIO(body)
        async with session.request(method, url, data=data, allow_redirects=False, timeout=limits) as answer:
            content = bytearray()
            async for piece in answer.content.iter_chunked(PIECE_BYTES):
                content += piece
                if len(content) > max_bytes:
                    break
            return answer.status, answer.headers, bytes(content)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=KEEP_ALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers(),
                auto_decompress=False,
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        # Not gzip: vectors as JSON shrink by half only, and 700 kB of them (32 of 1,024) take the server 17 to 70 ms to
        # pack and us 5 to 10 ms to unpack, more than a fast network takes to carry the other half. And nothing is
        # unpacked, so that an answer takes no more memory than it has bytes.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._address.api_key:
            headers["Authorization"] = f"Bearer {self._address.api_key}"
        return headers

    def _unavailable(self, status: int, path: str, words: str, wish_seconds: float | None) -> ModelUnavailableError:
        kind: type[ModelUnavailableError] = ModelRefusesError
        match status:
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN if self._address.api_key:
                message, hint = "The model server refuses the API key", f"Correct {self.variable}_API_KEY."
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
                message, hint = "The model server wants an API key", f"Set {self.variable}_API_KEY."
            case HTTPStatus.NOT_FOUND if NO_SUCH_MODEL.search(words):
                message = "The model server does not know the model"
                hint = f"{words} Set {self.variable}_REMOTE_NAME to its name there."
            case HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED:
                message = f"The model server does not know {path}"
                hint = f"That is appended to {self.variable}_URL: is it the base address of such a server?"
            case _ if status // 100 == HTTPStatus.MULTIPLE_CHOICES // 100:
                message, hint = "The model server sends us elsewhere", f"Set {self.variable}_URL to where it is."
            case _:
                kind, message, hint = ModelUnavailableError, "The model server answers with an error", words
        if wish_seconds:
            hint = f"{hint} It asks for a pause of {wish_seconds:g} s.".lstrip()
        return kind(f"{message} ({status}).", hint, wish_seconds, unanswered=status in GATEWAYS and not wish_seconds)

    def _told(self, limit_seconds: float) -> str:
        """Return which limit it was."""
        if limit_seconds < self._address.timeout_seconds:
            return f"To be asked for its health it has {limit_seconds:g} s."
        return f"{self.variable}_TIMEOUT_SECONDS is {limit_seconds:g}."

    def _said(self, words: str, texts: Collection[str] = ()) -> str:
        """Return what the server said, shortened, without the key and the texts."""
        words = words.replace(self._address.api_key, UNSAID) if self._address.api_key else words
        for text in texts:
            if text in words:
                # Not inside of a word: the text "a" would take every letter a away.
                words = re.sub(rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])", UNSAID, words)
        words = " ".join(words.split())
        return words if len(words) <= WORDS else words[: WORDS - 3] + "..."


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _parse(content: bytes, max_bytes: int) -> Any:  # noqa: ANN401 - whatever JSON may be
    if len(content) > max_bytes:
        raise ModelMisbehavedError("The model server's answer is too large.", f"It has more than {max_bytes} bytes.")
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ModelMisbehavedError("The model server's answer is no JSON.", str(error)) from None


def _words(content: bytes, max_bytes: int) -> str:
    """Return a reason for people: plain text, or what JSON says in the usual places.

    Other JSON is left out: it may repeat the texts in any spelling (FastAPI's 422 has them as `input`).
    """
    if content.lstrip()[:1] not in {b"{", b"[", b'"'}:
        return content.decode(errors="replace")
    try:
        return "; ".join(_sentences(orjson.loads(content)) if len(content) <= max_bytes else ())
    except orjson.JSONDecodeError:
        return ""


def _sentences(told: Any, nested: int = 0) -> Iterator[str]:  # noqa: ANN401 - as above
    if isinstance(told, str):
        yield told
    elif nested == MOST_NESTED:
        return
    elif isinstance(told, list):
        for one in told:
            yield from _sentences(one, nested + 1)
    elif isinstance(told, dict):
        for place in ("detail", "error", "message", "msg"):
            yield from _sentences(told.get(place), nested + 1)
