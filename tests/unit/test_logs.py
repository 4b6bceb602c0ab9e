from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import structlog

from rowvec.logs import configure_logs


@pytest.fixture(autouse=True)
def logs_are_put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])  # pytest's own: basicConfig would close them
    yield
    structlog.reset_defaults()
    root.setLevel(level)


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_json_is_a_line_each_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    log = structlog.get_logger("test")
    log.info("items.stored", items=3, model="e5_small")
    log.warning("item.failed", why='several\nlines and "quotes" 学习')
    first, second = logged(capsys)
    assert (first["event"], first["level"], first["items"], first["model"]) == ("items.stored", "info", 3, "e5_small")
    assert (second["level"], second["why"]) == ("warning", 'several\nlines and "quotes" 学习')
    assert datetime.fromisoformat(first["timestamp"]).tzinfo == UTC


def test_values_that_json_does_not_know_are_told_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    token = UUID(int=7)
    structlog.get_logger().info("claim.made", token=token, error=ValueError("a bug"), lanes={1})
    [line] = logged(capsys)
    assert (line["token"], line["error"], line["lanes"]) == (str(token), "a bug", "{1}")


@pytest.mark.parametrize("value", ["half a pair: \ud83d", 2**64, {1: 2}, {"deep": "\udcff"}], ids=repr)
def test_no_value_makes_a_log_call_fail(capsys: pytest.CaptureFixture[str], value: object) -> None:
    configure_logs("info", "json")
    structlog.get_logger().warning("item.failed", detail=value)
    [line] = logged(capsys)
    assert line["event"] == "item.failed"


def test_an_exception_is_told_in_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("room.crashed")
    [line] = logged(capsys)
    assert line["level"] == "error"
    assert "ZeroDivisionError" in line["exception"]


def test_the_context_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    with structlog.contextvars.bound_contextvars(claim=7):
        structlog.get_logger().info("claim.made")
    assert logged(capsys)[0]["claim"] == 7


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("form", ["json", "console"])
def test_levels(capsys: pytest.CaptureFixture[str], level: str, expected: list[str], form: str) -> None:
    configure_logs(level, form)
    log = structlog.get_logger()
    for method in ("debug", "info", "warning", "error"):
        getattr(log, method)(f"said.{method}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(expected)
    assert all(f"said.{method}" in line for method, line in zip(expected, lines, strict=True))


def test_console_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    structlog.get_logger().info("items.stored", items=3)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "items.stored" in captured.err
    assert not captured.err.startswith("{")


def test_the_last_configuration_counts_for_loggers_made_before(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger("made.before")
    configure_logs("error", "json")
    log.info("not.said")
    configure_logs("info", "json")
    log.info("said")
    assert [line["event"] for line in logged(capsys)] == ["said"]


def test_libraries_are_heard_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("debug", "console")
    logging.getLogger("asyncio").info("not said")
    logging.getLogger("asyncio").warning("said by a library")
    captured = capsys.readouterr()
    assert "said by a library" in captured.err
    assert "not said" not in captured.err


def test_libraries_log_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    logging.getLogger("asyncio").warning("said by a library")
    [line] = logged(capsys)
    assert line["event"] == "said by a library"
