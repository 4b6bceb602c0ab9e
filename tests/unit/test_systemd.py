from __future__ import annotations

import os
import secrets
import socket
import time
from typing import TYPE_CHECKING

import pytest

from rowvec.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def bound(address: str) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(address)
    receiver.settimeout(0)
    return receiver


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def manager(address: str) -> Iterator[socket.socket]:
    with bound(address) as receiver:
        yield receiver


@pytest.fixture
def notifier(address: str) -> Notifier:
    return Notifier.from_environment({"NOTIFY_SOCKET": address})


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(8192).decode().split("\n")


def test_ready_carries_its_status(manager: socket.socket, notifier: Notifier) -> None:
    assert notifier.ready("waiting for the database")
    assert heard(manager) == ["READY=1", "STATUS=waiting for the database"]


def test_status_alone(manager: socket.socket, notifier: Notifier) -> None:
    assert notifier.status("12 items waiting, 学习")
    assert heard(manager) == ["STATUS=12 items waiting, 学习"]


def test_watchdog(manager: socket.socket, notifier: Notifier) -> None:
    assert notifier.watchdog()
    assert heard(manager) == ["WATCHDOG=1"]


def test_stopping_carries_its_status(manager: socket.socket, notifier: Notifier) -> None:
    assert notifier.stopping("draining")
    assert heard(manager) == ["STOPPING=1", "STATUS=draining"]


def test_reloading_names_the_monotonic_time(manager: socket.socket, notifier: Notifier) -> None:
    earliest = time.monotonic_ns() // 1000
    assert notifier.reloading()
    latest = time.monotonic_ns() // 1000
    first, second = heard(manager)
    assert first == "RELOADING=1"
    assert earliest <= int(second.removeprefix("MONOTONIC_USEC=")) <= latest


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\t\n ", "\x00", "\x1b", "\x85", "\u2028", "\ud800"])
def test_status_is_one_line_and_smuggles_no_second_assignment(
    manager: socket.socket, notifier: Notifier, separator: str
) -> None:
    assert notifier.status(f"refused{separator}MAINPID=1")
    assert heard(manager) == ["STATUS=refused MAINPID=1"]


def test_a_long_status_stays_below_the_size_that_systemd_drops(manager: socket.socket, notifier: Notifier) -> None:
    assert notifier.ready("\U0001f9ed" * 10_000)
    assert 1000 < len(manager.recv(65_536)) < 4096


def test_abstract_socket() -> None:
    name = f"rowvec-test-{secrets.token_hex(8)}"
    with bound(f"\0{name}") as manager:
        assert Notifier.from_environment({"NOTIFY_SOCKET": f"@{name}"}).ready("up")
        assert heard(manager) == ["READY=1", "STATUS=up"]


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": "relative"}]
)
def test_without_a_socket_nothing_is_told(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environment(environ)
    told = [notifier.ready("up"), notifier.status("up"), notifier.watchdog(), notifier.reloading()]
    assert told == [False] * 4


@pytest.mark.parametrize("broken", ["/nonexistent/notify", "/" + "n" * 200, "@" + "n" * 200, "/no\0tify"])
def test_a_socket_that_can_not_be_reached_does_not_raise(broken: str) -> None:
    assert not Notifier(broken).ready("up")


def test_a_socket_that_vanished_does_not_raise_and_is_found_again(address: str, notifier: Notifier) -> None:
    with bound(address):
        assert notifier.watchdog()
    assert not notifier.watchdog()
    os.unlink(address)  # noqa: PTH108 - the address is the text a notifier gets
    assert not notifier.watchdog()
    with bound(address) as manager:
        assert notifier.watchdog()
        assert heard(manager) == ["WATCHDOG=1"]


@pytest.mark.usefixtures("manager")
def test_a_full_socket_buffer_does_not_block(notifier: Notifier) -> None:
    delivered = 0
    while notifier.watchdog():
        delivered += 1
        assert delivered < 1_000_000
    assert delivered
    assert not notifier.ready("nobody reads")


def test_a_drained_buffer_takes_messages_again(manager: socket.socket, notifier: Notifier) -> None:
    while notifier.watchdog():
        pass
    heard(manager)
    assert notifier.watchdog()


@pytest.mark.usefixtures("manager")
def test_telling_leaves_no_descriptor_open(notifier: Notifier) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only the count matters
    notifier.ready("up")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
)
def test_watchdog_seconds(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier.from_environment(environ).watchdog_seconds == seconds
