"""What `rowvec doctor` looks at where QStash is to carry the work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import aiohttp

from rowvec.domain.errors import CarrierError, CarrierTrouble
from rowvec.domain.findings import Finding, Level, problem, warning
from rowvec.qstash.dead_letters import list_ours
from rowvec.qstash.schedules import Wanted, differences, find_schedules, parallelism_differs, wanted_by
from rowvec.qstash.service import Service
from rowvec.settings_qstash import QStashSettings

ANSWER_SECONDS: Final = 5.0
MOST_SKEW_SECONDS: Final = 30.0
"""Signatures are valid for five minutes, and for a minute before the time that they name."""
OWN_CLOCK: Final = "The daemons' own clock does what it would wake them for."
SETUP: Final = "Run `rowvec qstash setup`."

_UNASKABLE: Final = (OSError, TimeoutError, aiohttp.ClientError, UnicodeError)
"""What a request raises; the last for a host that is no name: `http://a..b`."""


async def examine(settings: QStashSettings, service: Service) -> Sequence[Finding]:
    """Look at all that QStash needs from us and we from it.

    Args:
        settings: with a token.
        service: QStash.
    """
    found = [*_look_at_settings(settings), *await _look_at_clock(str(settings.qstash_url))]
    if settings.site_url is not None:
        found += await _look_at_address(str(settings.site_url).rstrip("/") + "/startupz")
    try:
        return [*found, *await _look_at_service(settings, service)]
    except CarrierError as error:
        return [*found, _unasked(error)]


def _unasked(error: CarrierError) -> Finding:
    """Return what is wrong when QStash does not answer us: what it does not know today it will not know tomorrow."""
    level = Level.PROBLEM if error.kind is CarrierTrouble.CONFIGURATION else Level.WARNING
    return Finding(level, "qstash", f"It could not be asked: {error.message}", error.hint)


def token_missing(settings: QStashSettings) -> Finding:
    """Return what is wrong when QStash is meant to carry the work and there is no token.

    Args:
        settings: which say so.
    """
    hint = "Set QSTASH_TOKEN, from QStash's console; or EMBEDDING_QUEUE_STRATEGY=database."
    if settings.strategy == "qstash":
        return problem("qstash token", "QStash is to carry the work, but no token is set.", hint)
    return warning("qstash token", "The work goes by the database alone: keys of QStash are set, but no token.", hint)


def _look_at_settings(settings: QStashSettings) -> Sequence[Finding]:
    missing = ", ".join(settings.missing_for_qstash)
    if not missing:
        return [Finding(Level.OK, "qstash settings", "Token, keys and public address are set.")]
    hint = "Set what is missing. The keys of the development server are taken with ROWVEC_DEVELOPMENT=true alone."
    if settings.strategy == "qstash":
        return [problem("qstash settings", f"`rowvec run` refuses to start: {missing} missing.", hint)]
    return [warning("qstash settings", f"The work goes by the database alone: {missing} missing.", hint)]


async def _look_at_clock(url: str) -> Sequence[Finding]:
    """Compare our clock with the service's: by too much, and every signature looks expired or not yet valid."""
    try:
        _, date = await _ask(url)
    except _UNASKABLE:
        return []  # that the service is away is said by the one who has something to ask it
    if (skew := _ahead_seconds(date)) is None:
        return []
    if abs(skew) <= MOST_SKEW_SECONDS:
        return [Finding(Level.OK, "qstash clock", "This machine's clock agrees with that of QStash.")]
    said = f"This machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of QStash."
    return [problem("qstash clock", f"{said} Genuine messages are refused.", "Set it by NTP.")]


def _ahead_seconds(date: str) -> float | None:
    """Return by how much our clock is ahead of a date as HTTP writes it; None when it is none."""
    try:
        then = parsedate_to_datetime(date)
        # What was written with the zone -0000 comes without one, and would be taken for a time of this machine's zone.
        return time.time() - (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


async def _look_at_address(url: str) -> Sequence[Finding]:
    """Go the way that QStash goes. It follows no redirection, so neither do we."""
    hint = "Set SITE_URL to the address at which the daemon is reached from outside, without a redirection."
    try:
        status, _ = await _ask(url)
    except _UNASKABLE as error:
        why = str(error) or "no answer in time"
        return [problem("qstash address", f"{url} can't be reached: {why}.", hint)]
    if status == HTTPStatus.OK:
        return [Finding(Level.OK, "qstash address", f"{url} answers.")]
    return [problem("qstash address", f"{url} answers {status}, and a daemon would answer 200.", hint)]


async def _ask(url: str) -> tuple[int, str]:
    """Return status and date of an answer."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Date", "")


async def _look_at_service(settings: QStashSettings, service: Service) -> Sequence[Finding]:
    found = [*await _look_at_keys(settings, service)]
    if settings.site_url is None:
        return found
    wanted = wanted_by(settings)
    found += await _look_at_queue(service, wanted)
    found += await _look_at_schedules(service, wanted)
    return [*found, *await _look_at_letters(service, str(settings.site_url))]


async def _look_at_keys(settings: QStashSettings, service: Service) -> Sequence[Finding]:
    current, following = await service.signing_keys()
    secrets = (settings.qstash_current_signing_key, settings.qstash_next_signing_key)
    ours = [secret.get_secret_value() for secret in secrets if secret is not None]
    if ours == [current, following]:
        return [Finding(Level.OK, "qstash keys", "They are those that QStash signs with.")]
    hint = "Set QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY anew, from QStash's console."
    if not ours:
        return []
    if ours == [following, current]:
        return [problem("qstash keys", "The current and the next one are exchanged.", hint)]
    if current in ours:
        return [warning("qstash keys", "They were rotated: after the next rotation they would be refused.", hint)]
    return [problem("qstash keys", "QStash signs with another key than those that are set.", hint)]


async def _look_at_queue(service: Service, wanted: Wanted) -> Sequence[Finding]:
    about, queue = f"qstash queue {wanted.queue}", await service.queue(wanted.queue)
    if queue is None:
        return [warning(about, "There is no such queue: the first message would make one of parallelism 1.", SETUP)]
    if queue.paused:
        resume = "`rowvec qstash resume`, when the maintenance is over."
        return [warning(about, "It is paused: what it holds is done here when its time is over.", resume)]
    if differs := parallelism_differs(queue, wanted.parallelism):
        return [warning(about, f"It differs: {differs}.", SETUP)]
    return [Finding(Level.OK, about, f"It is there, with parallelism {queue.parallelism}.")]


async def _look_at_schedules(service: Service, wanted: Wanted) -> Sequence[Finding]:
    found = []
    for schedule, state in zip(wanted.schedules, await find_schedules(service, wanted), strict=True):
        about = f"qstash schedule {schedule.id}"
        if state is None:
            found.append(warning(about, f"It is not there. {OWN_CLOCK}", SETUP))
        elif state.paused:
            found.append(warning(about, f"It is paused. {OWN_CLOCK}", "Resume it in QStash's console."))
        elif differs := differences(schedule, state):
            found.append(warning(about, f"It differs: {differs}.", SETUP))
    return found or [Finding(Level.OK, "qstash schedules", f"All {len(wanted.schedules)} are there.")]


async def _look_at_letters(service: Service, site: str) -> Sequence[Finding]:
    letters = await list_ours(service, site)
    if not letters:
        return [Finding(Level.OK, "qstash dead letters", "There are none.")]
    said = f"Messages that QStash could not deliver: {len(letters)}. A daemon leads back what it can read."
    return [warning("qstash dead letters", said, "See `rowvec qstash dead-letters list`: the rest stays there.")]
