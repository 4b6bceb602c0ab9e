"""`rowvec migrate`: the schema and the models' tables."""

from __future__ import annotations

import uvloop

from rowvec.cli.output import Json, console, print_json
from rowvec.postgres.administration import migrate_database
from rowvec.settings import load_settings


def migrate(json: Json = False) -> None:
    """Bring schema and models' tables up to this program."""
    settings = load_settings()
    models = {name: model.dimensions for name, model in settings.active_models.items()}
    applied, added = uvloop.run(migrate_database(settings.dsn, models))
    names = [f"{migration.version:04} {migration.name}" for migration in applied]
    if json:
        print_json({"migrations": names, "models": added})
        return
    for name in names:
        console().print(f"applied {name}")
    for name in added:
        console().print(f"added model {name}, {models[name]} dimensions")
    if not names and not added:
        console().print("Nothing to do: the schema is up to date.")
