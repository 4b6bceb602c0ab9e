from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import types
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

import rowvec
from rowvec import __main__ as entry
from rowvec.healthcheck import daemon_url, main, probe_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE_ROOT = Path(rowvec.__file__).parents[1]


@dataclass
class Daemon:
    """A real HTTP server with an answer for each path; it remembers what it was asked."""

    url: str = ""
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    location: str = ""
    asked: list[str] = field(default_factory=list)


def handler_of(daemon: Daemon) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            daemon.asked.append(self.path)
            status, body = daemon.answers.get(self.path, (404, "{}"))
            self.send_response(status)
            if daemon.location:
                self.send_header("Location", daemon.location)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            del format, args

    return Handler


class IPv6Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    state = Daemon(answers={"/healthz": (200, '{"status":"pass"}'), "/livez": (200, '{"status":"pass"}')})
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))) as port:
        state.url = f"http://127.0.0.1:{port}"
        yield state


@contextmanager
def behaving(behaviour: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads one request and then does as it likes."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            behaviour(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def answering(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer)


def test_healthy(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", daemon.url]) == 0
    assert daemon.asked == ["/healthz"]
    assert capsys.readouterr() == (f"rowvec at {daemon.url}/healthz is healthy\n", "")


def test_unhealthy(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["/healthz"] = (503, '{"status":"fail"}')
    assert main(["--url", daemon.url]) == 3
    assert capsys.readouterr() == ("", f"rowvec at {daemon.url}/healthz is not healthy: it answered 503\n")


def test_live_asks_livez_only(daemon: Daemon) -> None:
    daemon.answers["/healthz"] = (503, "{}")
    assert main(["--live", "--url", daemon.url + "/"]) == 0
    assert daemon.asked == ["/livez"]


def test_a_path_and_a_query_in_the_url_are_kept(daemon: Daemon) -> None:
    daemon.answers["/behind/readyz?a=1"] = (200, "{}")
    assert main(["--url", daemon.url + "/behind/readyz?a=1#top"]) == 0


def test_json_carries_the_answer(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["/healthz"] = (503, '{"status":"fail","checks":{"postgres":"下"}}')
    assert main(["--json", "--url", daemon.url]) == 3
    assert json.loads(capsys.readouterr().out) == {
        "healthy": False,
        "url": f"{daemon.url}/healthz",
        "status": 503,
        "error": "is not healthy: it answered 503",
        "answer": {"status": "fail", "checks": {"postgres": "下"}},
    }


@pytest.mark.parametrize("body", ["", "plain", "\x1b[2J", "[" * 100_000])
def test_an_answer_that_is_no_json_is_left_out(daemon: Daemon, capsys: pytest.CaptureFixture[str], body: str) -> None:
    daemon.answers["/healthz"] = (200, body)
    assert main(["--json", "--url", daemon.url]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["healthy"], verdict["status"], verdict["answer"]) == (True, 200, None)


def test_a_redirect_is_not_followed(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.location, daemon.answers["/healthz"] = f"{daemon.url}/livez", (302, "")
    assert main(["--url", daemon.url]) == 3
    assert daemon.asked == ["/healthz"]
    assert "it answered 302" in capsys.readouterr().err


def test_proxies_are_not_used(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert main(["--url", daemon.url]) == 0


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as bound_only:
        bound_only.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound_only.getsockname()[1]}"
        assert main(["--json", "--url", url]) == 3
    out, err = capsys.readouterr()
    assert err == f"rowvec at {url}/healthz can't be reached: Connection refused\n"
    assert json.loads(out)["status"] is None


def test_a_host_without_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://" + "a" * 64 + ".invalid:8480"]) == 3
    assert "can't be reached" in capsys.readouterr().err


def test_a_daemon_that_hangs(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as never_accepts:
        url = f"http://127.0.0.1:{never_accepts.getsockname()[1]}"
        assert main(["--timeout", "0.05", "--url", url]) == 3
    assert "can't be reached: timed out" in capsys.readouterr().err


def test_a_daemon_that_drips_gets_no_more_time(capsys: pytest.CaptureFixture[str]) -> None:
    never, hung_up = threading.Event(), threading.Event()

    def drip(connection: socket.socket) -> None:
        try:
            while not never.wait(0.01):
                connection.sendall(b"H")
        except ConnectionError:
            hung_up.set()

    with behaving(drip) as url:
        assert main(["--timeout", "0.2", "--url", url]) == 3
    assert hung_up.is_set()
    assert "can't be reached: timed out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "the answer was cut off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2", "the answer was cut off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "the answer was cut off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
        (b"\x16\x03\x01\x00\xff\x00", "the answer is not HTTP"),
        (b"HTTP/1.1 999 Odd\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 400_000, "the answer is longer than 262144 bytes"),
    ],
)
def test_what_is_no_answer(capsys: pytest.CaptureFixture[str], answer: bytes, complaint: str) -> None:
    def send(connection: socket.socket) -> None:
        try:
            connection.sendall(answer)
        except OSError:
            assert len(answer) > 262_144

    with behaving(send) as url:
        assert main(["--url", url]) == 3
    assert capsys.readouterr().err == f"rowvec at {url}/healthz can't be reached: {complaint}\n"


def test_a_reset_connection(capsys: pytest.CaptureFixture[str]) -> None:
    linger_none = b"\x01\x00\x00\x00\x00\x00\x00\x00"

    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)

    with behaving(reset) as url:
        assert main(["--url", url]) == 3
    assert "can't be reached" in capsys.readouterr().err


def test_a_connection_that_stays_open_is_no_reason_to_wait() -> None:
    asked = threading.Event()

    def keep_open(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        assert asked.wait(30)

    with behaving(keep_open) as url:
        assert main(["--timeout", "25", "--url", url]) == 0
        asked.set()


def test_an_answer_in_pieces() -> None:
    def send(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (b"HTTP/1.1 2", b"00 OK\r\nContent-Le", b"ngth: 4\r\n\r", b"\n{", b"  }"):
            connection.sendall(piece)

    with behaving(send) as url:
        assert main(["--url", url]) == 0


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200\r\nServer: x\r\n\r\n"])
def test_an_answer_without_a_length_ends_with_the_connection(head: bytes) -> None:
    with behaving(answering(head + b"{}")) as url:
        assert main(["--url", url]) == 0


async def test_the_server_that_the_daemon_uses() -> None:
    async def healthz(request: web.Request) -> web.Response:
        assert request.headers["Host"] == f"127.0.0.1:{port}"
        return web.json_response({"status": "fail"}, status=503)

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    assert await asyncio.to_thread(main, ["--url", f"http://127.0.0.1:{port}"]) == 3
    await runner.cleanup()


def test_host_and_port_come_from_the_settings(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_HTTP_HOST", "0.0.0.0")  # noqa: S104 - nothing is bound
    monkeypatch.setenv("ROWVEC_HTTP_PORT", daemon.url.rpartition(":")[2])
    assert main([]) == 0


def test_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    state = Daemon(answers={"/healthz": (200, "{}")})
    try:
        server = IPv6Server(("::1", 0), handler_of(state))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with serving(server) as port:
        monkeypatch.setenv("ROWVEC_HTTP_HOST", "::")
        monkeypatch.setenv("ROWVEC_HTTP_PORT", str(port))
        assert main([]) == 0
        assert main(["--url", f"http://[::1]:{port}"]) == 0


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:8480"),
        ({"ROWVEC_HTTP_HOST": "", "ROWVEC_HTTP_PORT": ""}, "http://127.0.0.1:8480"),
        ({"ROWVEC_HTTP_HOST": "0.0.0.0", "ROWVEC_HTTP_PORT": "9000"}, "http://127.0.0.1:9000"),  # noqa: S104
        ({"ROWVEC_HTTP_HOST": "::"}, "http://[::1]:8480"),
        ({"ROWVEC_HTTP_HOST": "[::]"}, "http://[::1]:8480"),
        ({"ROWVEC_HTTP_HOST": "fd00::7"}, "http://[fd00::7]:8480"),
        ({"ROWVEC_HTTP_HOST": "rowvec.internal"}, "http://rowvec.internal:8480"),
    ],
)
def test_where_the_daemon_is(environ: dict[str, str], url: str) -> None:
    assert daemon_url(environ) == url


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8480",
        "https://127.0.0.1",
        "file:///etc/passwd",
        "http://",
        "http://:8480",
        "http://h:port",
        "http://h:0",
        "http://h:65536",
        "http://[::1",
        "http://user:secret@h",
        "http://h/a b",
        "http://h/a\r\nX: y",
        "http://hé",
    ],
)
def test_a_url_that_can_not_be_asked(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        probe_url(url, "/healthz")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "nonsense"],
        ["--timeout", "0"],
        ["--timeout", "-1"],
        ["--timeout", "inf"],
        ["--timeout", "nan"],
        ["--timeout", "soon"],
        ["--what"],
        ["extra"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: rowvec healthcheck" in capsys.readouterr().err


def test_a_port_setting_that_is_no_port_is_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_HTTP_PORT", "many")
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(PACKAGE_ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], env=environ, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_real_command(daemon: Daemon) -> None:
    assert run_python("-m", "rowvec", "healthcheck", "--url", daemon.url).returncode == 0
    daemon.answers["/healthz"] = (503, "{}")
    assert run_python("-m", "rowvec", "healthcheck", "--url", daemon.url).returncode == 3
    assert run_python("-m", "rowvec", "healthcheck", "--nonsense").returncode == 2


def test_the_command_imports_the_standard_library_only(daemon: Daemon) -> None:
    script = (
        "import json, sys; before = set(sys.modules); from rowvec.__main__ import main; code = main();"
        "print(json.dumps([code, sorted(set(sys.modules) - before)]))"
    )
    done = run_python("-c", script, "healthcheck", "--url", daemon.url)
    code, imported = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names | {"rowvec"}
    assert [name for name in imported if name.startswith("rowvec")] == [
        "rowvec",
        "rowvec.__main__",
        "rowvec.healthcheck",
    ]


def test_any_other_command_goes_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in: Any = types.ModuleType("rowvec.cli")
    stand_in.main = lambda: 75
    monkeypatch.setitem(sys.modules, "rowvec.cli", stand_in)
    monkeypatch.setattr(rowvec, "cli", stand_in, raising=False)
    monkeypatch.setattr(sys, "argv", ["rowvec", "status", "healthcheck"])
    assert entry.main() == 75
