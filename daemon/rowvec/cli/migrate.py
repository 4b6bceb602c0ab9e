"""`rowvec migrate`: the schema, the models' tables and the daemon's role."""

from __future__ import annotations

from typing import Annotated

import typer
import uvloop

from rowvec.cli.output import Json, console, print_json
from rowvec.postgres.administration import migrate_database
from rowvec.postgres.presets import Installed, install_preset, load_preset
from rowvec.postgres.roles import PreparedRole, prepare_role
from rowvec.settings import load_settings

Preset = Annotated[
    str | None, typer.Option("--preset", metavar="NAME", help="Install an application's tables, watches and views too.")
]


def migrate(preset: Preset = None, json: Json = False) -> None:
    """Bring schema, models' tables and the daemon's role up to this program."""
    settings = load_settings()
    models = {name: model.dimensions for name, model in settings.active_models.items()}
    # Before anything is changed: its name may be wrong.
    wanted = None if preset is None else load_preset(preset)
    done = uvloop.run(migrate_database(settings.dsn, models, settings.models_off))
    installed = Installed([], []) if wanted is None else uvloop.run(install_preset(settings.dsn, wanted))
    role = uvloop.run(prepare_role(settings.dsn))
    names = [f"{migration.version:04} {migration.name}" for migration in done.migrations]
    if json:
        models_done = {
            "models": [*done.added, *installed.models],
            "activated": done.activated,
            "deactivated": done.deactivated,
        }
        preset_done = {"preset": preset, "sources": installed.sources}
        role_done = {"role": role.name, "left_to_administrator": role.left}
        print_json({"migrations": names, **models_done, **preset_done, **role_done})
        return
    for name in names:
        console().print(f"applied {name}")
    for name in done.added:
        console().print(f"added model {name}, {models[name]} dimensions")
    for name in done.activated:
        console().print(f"activated model {name}: all rows are queued for it")
    for name in done.deactivated:
        console().print(f"switched off model {name}: it has no items")
    for name in installed.models:
        console().print(f"added model {name}, inactive: nothing embeds with it yet")
    if wanted is not None:
        changed = f"; watched from now on: {', '.join(installed.sources)}" if installed.sources else ""
        console().print(f"The preset {wanted.name} is installed{changed}.")
    if not (names or done.added or done.activated or done.deactivated or installed.sources or role.created):
        console().print("Nothing to do: the schema is up to date.")
    tell_of_role(role)


def tell_of_role(role: PreparedRole) -> None:
    """Say what became of the role."""
    if role.created:
        console().print(f"created role {role.name}, for the daemon; where it needs a password: \\password {role.name}")
    if role.left:
        remark = console(aside=True)
        remark.print(f"The role {role.name} is not complete: that takes rights that this role lacks.")
        remark.print("The daemon can run as the schema's owner too. For a role of its own, let an administrator run\n")
        for statement in role.left:
            remark.print(f"  {statement}", markup=False)
        remark.print("\nand then `rowvec migrate` once more.")
