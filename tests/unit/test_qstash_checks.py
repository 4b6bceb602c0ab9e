"""What the doctor looks at, with addresses and clocks as odd as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from typing import Final

import pytest

from qstash_account import Account
from qstash_service import serving
from rowvec.domain.findings import Finding, Level
from rowvec.qstash.checks import examine
from rowvec.settings import load_settings

HOUR: Final = 3600.0


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine is in Japan."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


async def found(**settings: object) -> Mapping[str, Finding]:
    given = {"QSTASH_TOKEN": "token", "SITE_URL": "http://127.0.0.1:9", **settings}
    return {finding.about: finding for finding in await examine(load_settings(**given), Account())}


@pytest.mark.parametrize("url", ["http://a..b", "http://.", f"http://{'a' * 64}.example", "http://127.0.0.1:0"])
async def test_an_odd_address_is_a_finding(url: str) -> None:
    findings = await found(SITE_URL=url, QSTASH_URL=url)
    assert findings["qstash address"].level is Level.PROBLEM
    assert "can't be reached" in findings["qstash address"].message
    assert "qstash clock" not in findings


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("ahead", "told"), [(0, "agrees with"), (HOUR, "is 3600 s behind that of"), (-HOUR, "is 3600 s ahead of that of")]
)
@pytest.mark.parametrize("zone", ["GMT", "-0000"])
async def test_clocks_are_compared_whatever_the_zone(ahead: float, told: str, zone: str) -> None:
    async with serving() as service:
        service.headers["Date"] = formatdate(time.time() + ahead, usegmt=True).replace("GMT", zone)
        findings = await found(QSTASH_URL=service.url)
    assert told in findings["qstash clock"].message.replace("3599", "3600").replace("3601", "3600")


@pytest.mark.parametrize("date", ["soon", "Sun, 22 Nov 2026 16:24:27 +99999999999999", "1 Jan 99999999999 1:1:1 GMT"])
async def test_what_is_no_date_says_nothing_of_the_clock(date: str) -> None:
    async with serving() as service:
        service.headers["Date"] = date
        assert "qstash clock" not in await found(QSTASH_URL=service.url)
