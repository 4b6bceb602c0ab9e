"""Every statement in sql/queries against the real schema, and against the code that uses it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from database import Server, copied_database
from rowvec.postgres.connections import connect as connect_directly
from rowvec.postgres.statements import statement, vector_table

REPOSITORY: Final = Path(__file__).resolve().parents[2]
QUERIES: Final = sorted((REPOSITORY / "sql" / "queries").glob("*.sql"))
NAMES: Final = [path.stem for path in QUERIES]
SCRIPTS: Final = {"create_schema"}
"""Several statements in one file: they can be run, without parameters, but not be prepared."""

_CATALOG_NAMES: Final = {
    "integer": "int4",
    "bigint": "int8",
    "smallint": "int2",
    "double precision": "float8",
    "boolean": "bool",
}
_PARAMETER: Final = re.compile(r"\$(\d+) (\w+): ([a-z][a-z0-9 ]*[a-z0-9](?:\[\])?)")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_USE: Final = re.compile(r'\b(?:_?fetch|_patiently|_row|sql|statement)\(\s*(?:\w+, )?"(\w+)"')


def comment_of(name: str) -> str:
    """The comment lines at the head of a file, as one line."""
    lines = (REPOSITORY / "sql" / "queries" / f"{name}.sql").read_text().splitlines()
    head = []
    for line in lines:
        if not line.startswith("-- "):
            break
        head.append(line.removeprefix("-- "))
    return " ".join(head)


def code_of(name: str) -> str:
    """The file without its comments."""
    text = (REPOSITORY / "sql" / "queries" / f"{name}.sql").read_text()
    return re.sub(r"^\s*--.*$", "", text, flags=re.MULTILINE)


def documented_types(name: str) -> list[str]:
    """The types of $1, $2 and so on by the comment, as the catalog names them."""
    found = _PARAMETER.findall(comment_of(name))
    assert [int(number) for number, _, _ in found] == list(range(1, len(found) + 1)), "numbers in their order"
    return [catalog_name(type_) for _, _, type_ in found]


def catalog_name(type_: str) -> str:
    element = type_.removesuffix("[]")
    return _CATALOG_NAMES.get(element, element) + type_[len(element) :]


def test_there_are_statements_and_only_statements() -> None:
    assert NAMES
    assert [path.name for path in (REPOSITORY / "sql" / "queries").iterdir() if path.suffix != ".sql"] == []
    assert [name for name in NAMES if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_says_the_purpose(name: str) -> None:
    first = statement(name).splitlines()[0]
    assert re.match(r"-- [A-Z]\w+ \w+", first), first


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_documented_and_used_with_a_type(name: str) -> None:
    numbers = {int(number) for number in re.findall(r"\$(\d+)", code_of(name))}
    assert numbers == set(range(1, len(documented_types(name)) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_placeholders_are_those_that_are_known_and_documented(name: str) -> None:
    used = set(_PLACEHOLDER.findall(code_of(name)))
    assert used <= {"table", "vector"}
    assert ("table" in used) == ("{table}: " in comment_of(name))
    assert ("vector" in used) == bool({"vector", "vector[]"} & set(documented_types(name)))
    filled = statement(name, table="rowvec.vector_first", vector="public.vector")
    assert "{" not in re.sub(r"^--.*$", "", filled, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def prepared_dsn(server: Server, template: str) -> Iterator[str]:
    """One database for all statements that are prepared and never run."""
    with asyncio.Runner() as runner:
        copied = copied_database(server, template)
        yield runner.run(copied.__aenter__())
        runner.run(copied.__aexit__(None, None, None))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SCRIPTS])
async def test_it_fits_the_schema_and_its_documented_types(prepared_dsn: str, name: str) -> None:
    connection = await connect_directly(prepared_dsn)
    try:
        text = statement(name, table=vector_table("first"), vector="public.vector")
        prepared = await connection.prepare(text)
        assert [parameter.name for parameter in prepared.get_parameters()] == documented_types(name)
    finally:
        await connection.close()


@pytest.mark.parametrize("name", sorted(SCRIPTS))
async def test_a_script_runs_on_what_it_made_before(app: asyncpg.Connection, name: str) -> None:
    assert documented_types(name) == []
    with pytest.raises(asyncpg.PostgresSyntaxError, match="multiple commands"):
        await app.prepare(statement(name))
    async with app.transaction():
        await app.execute("DROP SCHEMA rowvec CASCADE")
        await app.execute(statement(name))
        await app.execute(statement(name))
        assert await app.fetchval("SELECT count(*) FROM rowvec.schema_migration") == 0


async def test_statements_over_any_vectors_fit_the_parent_table_too(app: asyncpg.Connection) -> None:
    over_any = [name for name in NAMES if "or the parent of all" in comment_of(name)]
    assert over_any
    for name in over_any:
        await app.prepare(statement(name, table="rowvec.vector"))


def test_every_statement_is_used_and_every_use_has_its_statement() -> None:
    sources = [path.read_text() for path in (REPOSITORY / "daemon" / "rowvec").rglob("*.py")]
    used = {name for source in sources for name in _USE.findall(source)}
    assert used == set(NAMES)
