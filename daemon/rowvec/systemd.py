"""What the daemon tells systemd, by the protocol of sd_notify(3), without a library.

A message is a datagram of `NAME=value` lines to the socket in `NOTIFY_SOCKET`. Telling is never worth a
failure: without a socket, or with one that is gone or full, the methods do nothing and return False.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUS_CHARACTERS: Final = 500
"""systemd drops a message above 4,096 bytes; this many characters of four bytes stay well below."""


class Notifier:
    """Tells the service manager how the daemon is.

    Args:
        address: `NOTIFY_SOCKET` as it stands: a path, `@name` for an abstract socket, or "" to tell nobody.
        watchdog_seconds: the time within which the manager wants to hear of us, or None.
    """

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        self._address = _socket_address(address)
        self._watchdog_seconds = watchdog_seconds

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier:
        """Read `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, as sd_watchdog_enabled(3) says."""
        return cls(environ.get("NOTIFY_SOCKET", ""), _watchdog_seconds(environ))

    @property
    def watchdog_seconds(self) -> float | None:
        """Seconds of silence after which systemd kills us (call `watchdog` twice in that time), or None."""
        return self._watchdog_seconds

    def ready(self, status: str) -> bool:
        """Say that the start, or a reload, is finished."""
        return self._send("READY=1", _status_line(status))

    def status(self, text: str) -> bool:
        """Set the line that `systemctl status` shows; line breaks and control characters become spaces."""
        return self._send(_status_line(text))

    def watchdog(self) -> bool:
        """Say that the daemon is alive."""
        return self._send("WATCHDOG=1")

    def stopping(self, status: str) -> bool:
        """Say that the daemon drains and will end."""
        return self._send("STOPPING=1", _status_line(status))

    def reloading(self) -> bool:
        """Say that a reload begins; `ready` ends it."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _send(self, *lines: str) -> bool:
        """Send one datagram without blocking; a new socket each time, for systemd may have been restarted."""
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(0)
                sender.sendto("\n".join(lines).encode(), self._address)
        except (OSError, ValueError):
            return False
        return True


def _socket_address(address: str) -> str | None:
    """Translate `@name` to an abstract address; what is neither that nor a path (a vsock) is left alone."""
    if address.startswith("@"):
        return "\0" + address[1:]
    return address if address.startswith("/") else None


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Seconds of `WATCHDOG_USEC`, when they are meant for this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit()):
        return None
    return int(microseconds) / 1_000_000 or None


def _status_line(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return f"STATUS={' '.join(printable.split())[:_STATUS_CHARACTERS]}"
