from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from rowvec.domain.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    RowvecError,
    SchemaNewerError,
    TryAgainError,
    UsageError,
)

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
UNIT = FOLDER / "rowvec.service"
PROGRAM = "/opt/rowvec/bin/rowvec"
OFFLINE_SINCE = 250
HIGHEST_EXPOSURE = 2.0

Unit = dict[str, dict[str, list[str]]]


def parse_unit(text: str) -> Unit:
    """Read a unit file: sections of directives, each with all its values in their order."""
    sections: Unit = {}
    current: dict[str, list[str]] = {}
    kept = [line for line in text.splitlines() if not line.lstrip().startswith(("#", ";"))]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(kept)).splitlines():
        if section := re.fullmatch(r"\[(.+)]", line.strip()):
            current = sections.setdefault(section[1], {})
        elif line.strip():
            name, _, value = line.partition("=")
            current.setdefault(name.strip(), []).append(value.strip())
    return sections


UNIT_SECTIONS = parse_unit(UNIT.read_text())
SERVICE = UNIT_SECTIONS["Service"]


def words(name: str) -> list[str]:
    return " ".join(SERVICE.get(name, [])).split()


@cache
def systemd_version() -> int:
    """The major version of systemd-analyze; 0 where there is none."""
    if not shutil.which("systemd-analyze"):
        return 0
    answer = analyze("--version").stdout
    version = re.match(r"systemd (\d+)", answer)
    return int(version[1]) if version else 0


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],  # noqa: S607 - the one of this machine
        env=os.environ | {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def analyzer() -> None:
    if systemd_version() == 0:
        pytest.skip("systemd-analyze is not installed")
    if systemd_version() < OFFLINE_SINCE:
        pytest.skip(f"systemd-analyze {systemd_version()} has no --offline, {OFFLINE_SINCE} has")


@pytest.mark.usefixtures("analyzer")
def test_systemd_takes_every_line() -> None:
    verified = analyze("verify", "--man=no", "--recursive-errors=no", str(UNIT))
    not_installed_here = f"rowvec.service: Command {PROGRAM} is not executable: No such file or directory"
    complaints = (verified.stdout + verified.stderr).splitlines()
    assert [complaint for complaint in complaints if complaint != not_installed_here] == []


@pytest.mark.usefixtures("analyzer")
def test_the_exposure_is_low() -> None:
    threshold = f"--threshold={HIGHEST_EXPOSURE * 10:.0f}"
    rated = analyze("security", "--offline=yes", threshold, "--no-pager", str(UNIT))
    overall = re.search(r"Overall exposure level for rowvec\.service: ([0-9.]+)", rated.stdout)
    assert overall, rated.stdout + rated.stderr
    assert float(overall[1]) <= HIGHEST_EXPOSURE
    assert rated.returncode == 0


@pytest.mark.usefixtures("analyzer")
def test_the_readme_shows_the_true_exposure() -> None:
    rated = analyze("security", "--offline=yes", "--no-pager", str(UNIT)).stdout
    overall = re.search(r"exposure level for rowvec\.service: [0-9.]+", rated)
    assert overall
    if systemd_version() != 252:
        pytest.skip("the rules of the score differ between versions; README.md shows those of systemd 252")
    assert overall[0] in (FOLDER / "README.md").read_text()


def test_the_parser_keeps_duplicates_and_joins_lines() -> None:
    text = "# c\n[A]\nx=1\n;c\nx = 2 \\\n# between\n   3\ny=\n[B]\nx=a=b\n[A]\nx=4\n"
    assert parse_unit(text) == {"A": {"x": ["1", "2  3", "4"], "y": [""]}, "B": {"x": ["a=b"]}}


def test_the_service_tells_when_it_is_ready() -> None:
    assert SERVICE["Type"] == ["notify"]
    assert SERVICE["NotifyAccess"] == ["main"]
    assert int(SERVICE["WatchdogSec"][0]) > 0


def test_the_commands() -> None:
    assert SERVICE["ExecStart"] == [f"{PROGRAM} run"]
    assert SERVICE["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_no_restart_after_what_a_restart_can_not_change() -> None:
    hopeless = {UsageError.exit_code, SchemaNewerError.exit_code, ConfigurationError.exit_code}
    assert {int(status) for status in words("RestartPreventExitStatus")} == hopeless


@pytest.mark.parametrize("error", [RowvecError, TryAgainError, DatabaseUnavailableError])
def test_a_restart_after_what_may_pass(error: type[RowvecError]) -> None:
    assert SERVICE["Restart"] == ["on-failure"]
    assert str(error.exit_code) not in words("RestartPreventExitStatus") + words("SuccessExitStatus")
    assert UNIT_SECTIONS["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert int(SERVICE["RestartSec"][0]) > 0


def test_the_database_is_wanted_but_not_required() -> None:
    unit = UNIT_SECTIONS["Unit"]
    assert unit["Wants"] == unit["After"] == ["network-online.target postgresql.service"]
    assert not unit.keys() & {"Requires", "Requisite", "BindsTo", "PartOf"}


def test_the_sandbox_leaves_what_the_daemon_needs() -> None:
    assert set(words("RestrictAddressFamilies")) == {"AF_INET", "AF_INET6", "AF_UNIX"}
    assert not SERVICE.keys() & {"ProcSubset", "PrivateNetwork", "IPAddressDeny"}
    assert SERVICE["StateDirectory"] == ["rowvec"]
    assert SERVICE["SystemCallErrorNumber"] == ["EPERM"]


def test_a_stop_leaves_the_embedded_database_to_the_daemon() -> None:
    assert SERVICE["KillMode"] == ["mixed"]
    assert int(SERVICE["TimeoutStopSec"][0]) > 0


def test_no_directive_is_given_twice_by_mistake() -> None:
    twice = {name for section in UNIT_SECTIONS.values() for name, given in section.items() if len(given) > 1}
    assert twice == {"SystemCallFilter"}


def test_the_file_of_settings_may_be_missing() -> None:
    assert SERVICE["EnvironmentFile"] == ["-/etc/rowvec/rowvec.env"]


def test_credentials_are_examples_named_like_their_setting() -> None:
    assert "LoadCredential" not in SERVICE
    examples = re.findall(r"^#LoadCredential=(\w+):(\S+)$", UNIT.read_text(), re.MULTILINE)
    assert {name for name, _ in examples} == {"DATABASE_URL", "ROWVEC_MODEL_BGE_M3_API_KEY"}
    assert all(path == f"/etc/rowvec/credentials/{name}" for name, path in examples)


def test_the_example_of_settings_holds_no_secret() -> None:
    text = (FOLDER / "rowvec.env.example").read_text()
    settings = dict(re.findall(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    assert settings["DATABASE_URL"]
    assert not [name for name in settings if re.search(r"TOKEN|_KEY$|PASSWORD|SECRET|DSN", name)]
    assert not [value for value in settings.values() if re.search(r"//[^/]*:[^/]*@", value)]
    assert not [value for value in settings.values() if "#" in value or value != value.strip()]
