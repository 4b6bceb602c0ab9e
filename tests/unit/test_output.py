from __future__ import annotations

import re

import pytest

from rowvec.cli.output import print_table

UUID = "5d1f0000-0000-4000-8000-000000000007"
LONG = "word " * 60
ROWS = [{"content_type": "auth_user", "content_id": UUID, "retry_count": 1, "error_message": LONG.strip()}]


def test_outside_a_terminal_each_row_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(ROWS, list(ROWS[0]), "None.")
    head, row = capsys.readouterr().out.splitlines()
    assert head == f"content type  {'content id':36}  retry count  error message"
    assert row == f"auth_user     {UUID}            1  {LONG.strip()}"


def test_a_narrow_terminal_folds_what_is_long_and_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    print_table(ROWS, list(ROWS[0]), "None.")
    out = capsys.readouterr().out
    assert len(out.splitlines()) > 2
    words = set(re.sub(r"\x1b\[[\d;]*m", "", out).split())
    assert words == {"content", "type", "id", "retry", "count", "error", "message", "auth_user", UUID, "1", "word"}
