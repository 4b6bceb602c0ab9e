"""`rowvec healthcheck`: asks a running daemon whether it is well, for containers and scripts.

It runs every few seconds beside the daemon, so it imports the standard library alone and of that little: not
even `http.client`, whose timeout bounds each read but not the whole answer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import socket
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEALTHY: Final = 0
PROBLEMS_FOUND: Final = 3

_OK: Final = 200
_MAX_ANSWER_BYTES: Final = 262_144
_WHERE_TO_ASK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the daemon binds, we only ask
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([2-5][0-9]{2})[ \r]")
_CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*(?=\r\n|$)", re.IGNORECASE)


class Verdict(NamedTuple):
    """What asking brought: `status` is None when nobody answered, `error` is empty when all is well."""

    url: str
    status: int | None
    error: str
    answer: object

    @property
    def healthy(self) -> bool:
        """Whether the daemon answered 200."""
        return not self.error

    def as_json(self) -> str:
        """The verdict as one line of JSON, with the daemon's own words under `answer`."""
        return json.dumps({"healthy": self.healthy, **self._asdict()})


def main(argv: Sequence[str] | None = None) -> int:
    """Ask and print the verdict; the result goes to stdout, what is wrong to stderr.

    Args:
        argv: the arguments after `healthcheck`; those of the process when None.

    Returns:
        0 when the daemon answers 200, 3 when it answers anything else or can't be reached.

    Raises:
        SystemExit: with 2 when the arguments or the settings make no address, with 0 after `--help`.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        url = probe_url(options.url or daemon_url(os.environ), "/livez" if options.live else "/healthz")
    except ValueError as error:
        parser.error(f"no address to ask: {error}")
    return _print_verdict(check(url, options.timeout), as_json=options.json)


def check(url: str, timeout_seconds: float) -> Verdict:
    """Ask one URL once; redirects are not followed and proxies not used. Takes `timeout_seconds` at most."""
    try:
        status, body = _fetch(urlsplit(url), time.monotonic() + timeout_seconds)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that can't be one
        return Verdict(url, None, f"can't be reached: {getattr(error, 'strerror', None) or error}", None)
    return Verdict(url, status, "" if status == _OK else f"is not healthy: it answered {status}", _json(body))


def daemon_url(environ: Mapping[str, str]) -> str:
    """Where the daemon of these settings can be asked; a wildcard host means loopback."""
    host = environ.get("ROWVEC_HTTP_HOST", "").strip().strip("[]") or "127.0.0.1"
    host = _WHERE_TO_ASK.get(host, host)
    port = environ.get("ROWVEC_HTTP_PORT", "").strip() or "8480"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def probe_url(url: str, path: str) -> str:
    """Check a URL, and give it `path` if it has none.

    Raises:
        ValueError: it isn't a plain http URL with a host and, if any, a port from 1 to 65535.
    """
    parts = urlsplit(url)
    plain = re.fullmatch("[!-~]+", url) and parts.scheme == "http" and "@" not in parts.netloc
    if not (plain and parts.hostname and parts.port != 0):
        raise ValueError(f"{url!r} is not of the form http://host:port")
    return parts._replace(path=parts.path.rstrip("/") or path, fragment="").geturl()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rowvec healthcheck",
        description="Ask a running daemon whether it is well. Exit codes: 0 it is, 2 usage, 3 it is not.",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict and the answer as JSON")
    parser.add_argument("--live", action="store_true", help="ask /livez, which leaves the database out")
    parser.add_argument("--url", help="ask here (default: from ROWVEC_HTTP_HOST and ROWVEC_HTTP_PORT); a path is kept")
    parser.add_argument("--timeout", type=_seconds, default=5.0, help="seconds for it all (default: 5)")
    return parser


def _seconds(text: str) -> float:
    """Read a positive, finite number of seconds; argparse words the ValueError."""
    seconds = float(text)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError
    return seconds


def _print_verdict(verdict: Verdict, *, as_json: bool) -> int:
    if verdict.error:
        sys.stderr.write(f"rowvec at {verdict.url} {verdict.error}\n")
    if as_json:
        sys.stdout.write(f"{verdict.as_json()}\n")
    elif verdict.healthy:
        sys.stdout.write(f"rowvec at {verdict.url} is healthy\n")
    return HEALTHY if verdict.healthy else PROBLEMS_FOUND


def _fetch(url: SplitResult, deadline: float) -> tuple[int, bytes]:
    """GET over HTTP/1.0, where an answer comes in one piece and ends with the connection."""
    target = f"{url.path}?{url.query}" if url.query else url.path
    request = f"GET {target} HTTP/1.0\r\nHost: {url.netloc}\r\nAccept: application/json\r\n\r\n"
    with socket.create_connection((url.hostname, url.port or 80), _left(deadline)) as connection:
        connection.sendall(request.encode("ascii"))
        return _read_answer(connection, deadline)


def _read_answer(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    received = b""
    while not _is_complete(received):
        connection.settimeout(_left(deadline))
        piece = connection.recv(65_536)
        if not piece:
            return _parse(received)
        received += piece
    return _parse(received)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _is_complete(received: bytes) -> bool:
    """Tell whether the promised length has come, for a server that keeps the connection open."""
    if len(received) > _MAX_ANSWER_BYTES:
        raise ConnectionError(f"the answer is longer than {_MAX_ANSWER_BYTES} bytes")
    head, end, body = received.partition(b"\r\n\r\n")
    length = _CONTENT_LENGTH.search(head) if end else None
    return length is not None and len(body) >= int(length[1])


def _parse(received: bytes) -> tuple[int, bytes]:
    """Split an answer into its status and its body."""
    head, end, body = received.partition(b"\r\n\r\n")
    status, length = _STATUS_LINE.match(received), _CONTENT_LENGTH.search(head)
    if received and not status:
        raise ConnectionError("the answer is not HTTP")
    if not (status and end) or (length and len(body) < int(length[1])):
        raise ConnectionError("the answer was cut off")
    return int(status[1]), body


def _json(body: bytes) -> object:
    try:
        answer: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer


if __name__ == "__main__":
    raise SystemExit(main())
