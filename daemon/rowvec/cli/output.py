"""Results on stdout, as tables for people or as JSON for scripts; errors on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rowvec.domain.errors import RowvecError

UNFOLDED: Final = 1_000_000
SHORT: Final = 36

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def console(*, aside: bool = False) -> Console:
    """Return the console of results; aside, that of remarks, which is stderr."""
    return Console(stderr=aside, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Print a value as one JSON document."""
    sys.stdout.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode() + "\n")


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str], empty: str) -> None:
    """Print rows as a table, or a sentence when there are none.

    In a terminal long values are folded, headings and short ones (up to a uuid's length) are not. Elsewhere each row is
    one line, for `grep` and files.

    Args:
        rows: what to show.
        columns: keys of the rows, which are also the headings.
        empty: what to say about no rows.
    """
    if not rows:
        console().print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        number = _is_number(rows[0][column])
        longest = max(len(_plain(row[column])) for row in rows)
        table.add_column(
            column.replace("_", " "),
            justify="right" if number else "left",
            overflow="fold",
            min_width=max(*map(len, column.split("_")), longest if longest <= SHORT else 0),
        )
    for row in rows:
        table.add_row(*(Text(_plain(row[column])) for column in columns))
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    for line in out.render_lines(table, out.options.update(width=UNFOLDED), pad=False):
        out.print("".join(segment.text for segment in line).rstrip(), markup=False)


def size(octets: int) -> str:
    """Return a number of bytes in the unit that suits it: 812 kB, 1.4 GB."""
    amount, unit = octets / 1024, "kB"
    for larger in ("MB", "GB", "TB"):
        if amount < 1000:  # noqa: PLR2004 - at most three digits
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}" if amount < 10 and unit != "kB" else f"{amount:,.0f} {unit}"  # noqa: PLR2004 - two


def explain(error: RowvecError) -> int:
    """Say what is wrong and what to do about it; return the exit code."""
    out = console(aside=True)
    out.print(Text("error: ", style="bold red") + Text(error.message))
    if error.hint:
        out.print(Text(error.hint))
    return error.exit_code


def cause_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what was raised on purpose, to be told like any other error; what was not, ends in a traceback."""
    ours = group.subgroup(RowvecError)
    error: BaseException = ours or group
    while ours and isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
