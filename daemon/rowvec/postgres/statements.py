"""SQL from files: one named statement a file, its purpose in the first line."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def sql_folder() -> Traversable:
    """Return the folder `sql/`: in an installed package inside it, in a checkout beside `daemon/`."""
    installed = files("rowvec") / "sql"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "sql"


@cache
def statement(name: str, *, table: str = "", vector: str = "") -> str:
    """Return the text of `sql/queries/NAME.sql`.

    Args:
        name: the file's stem.
        table: a quoted name that takes the place of `{table}`.
        vector: the quoted name of the type `vector` that takes the place of `{vector}`.

    Raises:
        FileNotFoundError: there is no such statement.
    """
    text = (sql_folder() / "queries" / f"{name}.sql").read_text()
    return text.replace("{table}", table).replace("{vector}", vector)


def quote_identifier(name: str) -> str:
    """Return a name that is safe inside SQL text."""
    return '"' + name.replace('"', '""') + '"'


def vector_table(model: str) -> str:
    """Return the quoted name of a model's table."""
    return "rowvec." + quote_identifier(f"vector_{model}")
