"""`rowvec qstash`: the carrier between machines; each of its commands has a file of its own."""

from __future__ import annotations

from typing import Final

import typer

from rowvec.cli.commands import group_of

_MODULES: Final = {
    "setup": "qstash_setup",
    "status": "qstash_status",
    "pause": "qstash_setup",
    "resume": "qstash_setup",
    "dead-letters": "qstash_dead_letters",
    "dev": "qstash_dev",
}
app = typer.Typer(cls=group_of(_MODULES), no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def qstash_commands() -> None:
    """QStash, which carries work between machines."""
