"""The command `rowvec`: one file a group of commands."""

from __future__ import annotations

from typing import Any, Final

import typer

from rowvec.cli.commands import app
from rowvec.cli.output import explain
from rowvec.domain.errors import RowvecError

# Typer carries a click of its own; older versions use the package: the class is found by the
# one public name that both have. Catching that of the package let a traceback through.
_CommandLineError: Final[Any] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main() -> int:
    """Run the command line; return its exit code (the table is in README.md)."""
    try:
        code = app(standalone_mode=False)
    except _CommandLineError as error:
        error.show()
        return int(error.exit_code)
    except typer.Abort:
        return 130
    except RowvecError as error:
        return explain(error)
    return int(code or 0)


__all__ = ["main"]
