"""The clock of the running program."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from rowvec.ports import Timer


class SystemClock:
    """The time of this machine, and the event loop's timers."""

    def seconds(self) -> float:
        """See `ports.Clock.seconds`."""
        return time.monotonic()

    def now(self) -> datetime:
        """See `ports.Clock.now`."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """See `ports.Clock.sleep`."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """See `ports.Clock.call_later`."""
        return asyncio.get_running_loop().call_later(seconds, callback)
