"""The tables that the demo makes: those of the preset, marked as its own, and made anew at each start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rowvec.cli.demo_rows import TABLES, DemoTable, Row, as_json
from rowvec.domain.errors import ConfigurationError
from rowvec.postgres.administration import Administration
from rowvec.postgres.presets import load_preset

PRESET: Final = "studify"

MARK: Final = "Made by rowvec demo."
"""The comment on each table, by which the demo knows its own: it drops no other."""

_NAMES: Final = [table.name for table in TABLES]

# Tables of these names that somebody else has made.
_FIND_STRANGERS: Final = """
SELECT c.oid::regclass::text AS name
FROM unnest($1::text[]) AS name JOIN pg_class c ON c.oid = to_regclass(name)
WHERE obj_description(c.oid, 'pg_class') IS DISTINCT FROM $2
ORDER BY c.oid
"""
_LIST_OWN_SOURCES: Final = """
SELECT s.content_type FROM rowvec.source s JOIN unnest($1::text[]) AS name ON s.relation = to_regclass(name)
"""
# Functions that take a row of such a table go first; whatever else was built on one stops it: nothing cascades.
_DROP_OWN: Final = f"""
DO $drop$
DECLARE
    own oid[] := ARRAY(SELECT c.oid FROM unnest('{{{",".join(_NAMES)}}}'::text[]) AS name
                       JOIN pg_class c ON c.oid = to_regclass(name)
                       WHERE obj_description(c.oid, 'pg_class') = '{MARK}');
    called text;
    built text;
BEGIN
    FOR called IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_class c ON c.reltype = ANY (p.proargtypes)
                  WHERE c.oid = ANY (own) LOOP
        EXECUTE format('DROP FUNCTION %s', called);
    END LOOP;
    IF own <> '{{}}' THEN
        EXECUTE (SELECT 'DROP TABLE ' || string_agg(made::regclass::text, ', ') FROM unnest(own) AS made);
    END IF;
EXCEPTION WHEN dependent_objects_still_exist THEN
    GET STACKED DIAGNOSTICS built = PG_EXCEPTION_DETAIL;
    RAISE EXCEPTION 'Something was built on the demo''s tables: %.', built
        USING ERRCODE = 'RV001', HINT = 'Remove it, or choose another folder with --folder.';
END $drop$;
"""  # noqa: S608 - the names and the mark are constants


async def make_tables(database: Administration) -> None:
    """Make the application's tables anew, with the rows that are there before the preset watches them.

    Raises:
        ConfigurationError: a table of that name exists that is not the demo's.
        UsageError: something that is not the demo's was built on one of its tables.
    """
    if strangers := await database.execute(_FIND_STRANGERS, _NAMES, MARK):
        raise ConfigurationError(
            f'This database has a table "{strangers[0]["name"]}" that the demo did not make.',
            "Choose another folder with --folder.",
        )
    for source in await database.execute(_LIST_OWN_SOURCES, _NAMES):
        await database.unwatch(source["content_type"])
    marks = [f"COMMENT ON TABLE {table.name} IS '{MARK}';" for table in TABLES]
    # One script, one transaction: no table of ours is ever without its mark.
    await database.execute_script("\n".join([_DROP_OWN, _application_tables(), *marks]))
    for table in TABLES:
        await _insert(database, table, table.early)


async def write_late_rows(database: Administration) -> None:
    """Write the rows that come under the watch."""
    for table in TABLES:
        await _insert(database, table, table.late)


def _application_tables() -> str:
    """Return the first section of the preset: the tables as the application makes them, without what watches them."""
    _, _, rest = load_preset(PRESET).sql.partition("\n-- 1. ")
    tables, _, _ = rest.partition("\n-- 2. ")
    return f"-- {tables}"


async def _insert(database: Administration, table: DemoTable, rows: Sequence[Row]) -> None:
    await database.execute(table.insert, as_json(rows))
