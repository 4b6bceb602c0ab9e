from __future__ import annotations

import json
import re
import socket
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from rowvec import healthcheck

REPOSITORY = Path(__file__).resolve().parents[2]


class Instruction(NamedTuple):
    name: str
    value: str


def parse_dockerfile(text: str) -> list[Instruction]:
    """Read the instructions; comments inside a continued line are dropped, as the builder does."""
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(kept))
    pairs = (line.strip().split(None, 1) for line in joined.splitlines())
    return [Instruction(name.upper(), value.strip()) for name, value in pairs]


def stages_of(instructions: list[Instruction]) -> list[list[Instruction]]:
    starts = [at for at, instruction in enumerate(instructions) if instruction.name == "FROM"]
    return [instructions[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


class Ignored:
    """The rules of a .dockerignore: the last one that matches a path or a folder above it decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        rules = [line for line in lines if line and not line.startswith("#")]
        self._rules = [(rule.startswith("!"), _pattern(rule.lstrip("!"))) for rule in rules]

    def __contains__(self, path: str) -> bool:
        ignored = False
        candidates = [path, *(str(parent) for parent in PurePosixPath(path).parents)][:-1]
        for keeps, pattern in self._rules:
            if any(pattern.fullmatch(candidate) for candidate in candidates):
                ignored = not keeps
        return ignored


def _pattern(rule: str) -> re.Pattern[str]:
    """Translate a rule: `**` stands for any folders, `*` and `?` stay within one name."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+])", rule.strip("/"))
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wild.get(part, part if part.startswith("[") else re.escape(part)) for part in parts))


INSTRUCTIONS = parse_dockerfile((REPOSITORY / "Dockerfile").read_text())
STAGES = stages_of(INSTRUCTIONS)
FINAL = STAGES[-1]
IGNORED = Ignored((REPOSITORY / ".dockerignore").read_text())


def values(name: str, instructions: list[Instruction]) -> list[str]:
    return [instruction.value for instruction in instructions if instruction.name == name]


def copied_from_the_repository() -> list[str]:
    copies = [value.split() for value in values("COPY", INSTRUCTIONS) if not value.startswith("--from=")]
    return [source for *sources, _ in copies for source in sources]


def test_the_parser_joins_lines_and_drops_comments_between() -> None:
    text = '# a\nFROM x AS y\nrun a \\\n# b\n    && c\n\nCMD ["d"]\n'
    assert parse_dockerfile(text) == [("FROM", "x AS y"), ("RUN", "a  && c"), ("CMD", '["d"]')]


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("a", True),
        ("keep", False),
        ("keep/b", False),
        ("keep/x/c.pyc", True),
        ("c.pyc", True),
        ("keep/old", True),
    ],
)
def test_the_last_ignore_rule_decides(path: str, ignored: bool) -> None:  # noqa: FBT001 - a row of the table
    assert (path in Ignored("# c\n*\n!keep\n**/*.py[co]\nkeep/old/\n")) is ignored


def test_two_stages_and_the_last_takes_the_first_ones_work() -> None:
    assert len(STAGES) == 2
    assert values("FROM", STAGES[0])[0].endswith(" AS builder")
    assert values("COPY", FINAL) == ["--from=builder /opt/rowvec /opt/rowvec"]


def test_the_base_image_names_no_registry() -> None:
    assert INSTRUCTIONS[0] == ("ARG", "PYTHON_IMAGE=python:3.13-slim")
    assert {value.split()[0] for value in values("FROM", INSTRUCTIONS)} == {"${PYTHON_IMAGE}"}


def test_the_process_is_not_root() -> None:
    user = re.fullmatch(r"(\d+):(\d+)", values("USER", FINAL)[-1])
    assert user
    assert "0" not in user.groups()
    assert f"--uid {user[1]} " in " ".join(values("RUN", FINAL))


def test_the_health_check_is_the_light_command() -> None:
    exec_form = re.search(r"CMD (\[.*])$", values("HEALTHCHECK", FINAL)[-1])
    assert exec_form
    program, command, *options = json.loads(exec_form[1])
    assert (program, command) == ("rowvec", "healthcheck")
    with socket.socket() as bound_only:
        bound_only.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound_only.getsockname()[1]}"
        assert healthcheck.main([*options, "--url", url]) == 3


def test_the_health_check_has_time_to_say_what_is_wrong() -> None:
    timeout = re.search(r"--timeout=(\d+)s", values("HEALTHCHECK", FINAL)[-1])
    assert timeout
    assert int(timeout[1]) > 5


def test_what_runs() -> None:
    assert json.loads(values("ENTRYPOINT", FINAL)[-1]) == ["rowvec"]
    assert json.loads(values("CMD", FINAL)[-1]) == ["run"]
    assert values("STOPSIGNAL", FINAL) == ["SIGTERM"]


def test_the_port_is_the_default_one_and_can_be_reached() -> None:
    assert healthcheck.daemon_url({}).endswith(f":{values('EXPOSE', FINAL)[-1]}")
    assert "ROWVEC_HTTP_HOST=0.0.0.0" in values("ENV", FINAL)[-1].split()


def test_extras_can_be_chosen_and_none_is_the_default() -> None:
    assert 'EXTRAS=""' in values("ARG", STAGES[0])
    assert "${EXTRAS:+[${EXTRAS}]}" in " ".join(values("RUN", STAGES[0]))


def test_pip_keeps_no_cache() -> None:
    commands = [part for value in values("RUN", INSTRUCTIONS) for part in value.split("&&") if "pip " in part]
    installing = [command for command in commands if re.search(r" (wheel|install) ", command)]
    assert installing
    assert all("--no-cache-dir" in command for command in installing)


@pytest.mark.parametrize("source", copied_from_the_repository())
def test_what_is_copied_is_there_and_not_ignored(source: str) -> None:
    assert (REPOSITORY / source).exists()
    assert source not in IGNORED


def test_every_file_of_the_package_reaches_the_builder() -> None:
    files = [path for folder in ("daemon", "sql") for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    names = [path.relative_to(REPOSITORY).as_posix() for path in files if "__pycache__" not in path.parts]
    assert "daemon/rowvec/py.typed" in names
    assert [name for name in names if name in IGNORED] == []


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".venv/bin/python",
        ".rowvec/postgres/PG_VERSION",
        "tests/unit/test_systemd.py",
        "deploy/systemd/rowvec.env",
        "daemon/rowvec/__pycache__/app.cpython-313.pyc",
    ],
)
def test_nothing_else_leaves_the_machine(path: str) -> None:
    assert path in IGNORED
