from __future__ import annotations

import configparser
import importlib.util
import os
import re
import subprocess
import sys
from email import message_from_string
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

if TYPE_CHECKING:
    from email.message import Message

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without an isolated environment and so without a network."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, the build backend, is not installed here")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=100)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(contents: dict[str, bytes]) -> Message:
    return message_from_string(contents[dist_info(contents, "METADATA")].decode())


def dist_info(contents: dict[str, bytes], name: str) -> str:
    (found,) = (path for path in contents if re.fullmatch(rf"rowvec-[^/]+\.dist-info/{name}", path))
    return found


def test_it_is_pure_python(wheel: Path) -> None:
    assert re.fullmatch(r"rowvec-[0-9][^-]*-py3-none-any\.whl", wheel.name)


def test_only_the_package_and_its_metadata(contents: dict[str, bytes]) -> None:
    outside = [name for name in contents if not re.match(r"rowvec/|rowvec-[^/]+\.dist-info/", name)]
    assert outside == []
    assert not [name for name in contents if re.search(r"(^|/)(tests?|__pycache__|\.git)(/|$)|\.pyc$", name)]


def test_every_module_is_in_it(contents: dict[str, bytes]) -> None:
    modules = (REPOSITORY / "daemon" / "rowvec").rglob("*.py")
    expected = {f"rowvec/{path.relative_to(REPOSITORY / 'daemon' / 'rowvec').as_posix()}" for path in modules}
    assert {name for name in contents if name.endswith(".py")} == expected
    assert "rowvec/py.typed" in contents


@pytest.mark.parametrize("folder", ["migrations", "presets", "queries"])
def test_its_sql_is_that_of_the_repository(contents: dict[str, bytes], folder: str) -> None:
    files = {path.name: path.read_bytes() for path in (REPOSITORY / "sql" / folder).glob("*.sql")}
    prefix = f"rowvec/sql/{folder}/"
    packed = {
        name.removeprefix(prefix): data
        for name, data in contents.items()
        if name.startswith(prefix) and name.endswith(".sql")
    }
    assert packed
    assert packed == files


def test_the_rows_of_the_demo_are_in_it(contents: dict[str, bytes]) -> None:
    folder = "daemon/rowvec/cli/demo_data"
    files = {path.name: path.read_bytes() for path in (REPOSITORY / folder).iterdir()}
    prefix = "rowvec/cli/demo_data/"
    packed = {name.removeprefix(prefix): data for name, data in contents.items() if name.startswith(prefix)}
    assert packed
    assert packed == files


def test_the_command(contents: dict[str, bytes]) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(contents[dist_info(contents, "entry_points.txt")].decode())
    assert dict(entry_points["console_scripts"]) == {"rowvec": "rowvec.__main__:main"}


def test_the_licence(contents: dict[str, bytes], metadata: Message) -> None:
    assert contents[dist_info(contents, "licenses/LICENSE")] == (REPOSITORY / "LICENSE").read_bytes()
    assert metadata["License-Expression"] == "Apache-2.0"


def test_what_it_asks_of_its_surroundings(metadata: Message) -> None:
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"embedded", "dev"} <= set(metadata.get_all("Provides-Extra", []))
    assert metadata.get_payload()


def test_the_health_check_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "rowvec", "healthcheck", "--help"],
        env=os.environ | {"PYTHONPATH": str(wheel)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: rowvec healthcheck" in done.stdout
