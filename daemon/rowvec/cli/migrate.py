"""`rowvec migrate`: the schema, the models' tables and the daemon's role."""

from __future__ import annotations

import uvloop

from rowvec.cli.output import Json, console, print_json
from rowvec.postgres.administration import migrate_database
from rowvec.postgres.roles import PreparedRole, prepare_role
from rowvec.settings import load_settings


def migrate(json: Json = False) -> None:
    """Bring schema, models' tables and the daemon's role up to this program."""
    settings = load_settings()
    models = {name: model.dimensions for name, model in settings.active_models.items()}
    done = uvloop.run(migrate_database(settings.dsn, models, settings.models_off))
    role = uvloop.run(prepare_role(settings.dsn))
    names = [f"{migration.version:04} {migration.name}" for migration in done.migrations]
    if json:
        models_done = {"models": done.added, "activated": done.activated, "deactivated": done.deactivated}
        print_json({"migrations": names, **models_done, "role": role.name, "left_to_administrator": role.left})
        return
    for name in names:
        console().print(f"applied {name}")
    for name in done.added:
        console().print(f"added model {name}, {models[name]} dimensions")
    for name in done.activated:
        console().print(f"activated model {name}: all rows are queued for it")
    for name in done.deactivated:
        console().print(f"switched off model {name}: it has no items")
    if not (names or done.added or done.activated or done.deactivated):
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
