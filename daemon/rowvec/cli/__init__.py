"""The command `rowvec`: one file a group of commands."""

from __future__ import annotations

import click

from rowvec.cli.commands import app
from rowvec.cli.output import explain
from rowvec.domain.errors import RowvecError


def main() -> int:
    """Run the command line; return its exit code (the table is in README.md)."""
    try:
        code = app(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except RowvecError as error:
        return explain(error)
    return int(code or 0)


__all__ = ["main"]
