"""`rowvec model add`: a model is looked at where it is served, then made, then filled."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal

import typer
import uvloop

from rowvec.app.embedders import make_embedder
from rowvec.cli.backfill import INTERRUPTED, Asked, Filling, follow, told
from rowvec.cli.output import Json, console, print_json
from rowvec.domain.errors import ConfigurationError, ModelMisbehavedError, TextRejectedError, UsageError
from rowvec.domain.hnsw import MOST_DIMENSIONS
from rowvec.domain.windows import KNOWN_WINDOWS
from rowvec.ports import Embedder
from rowvec.postgres.administration import Administration, administration
from rowvec.postgres.model_life import ModelLife, NewModel
from rowvec.settings import ModelSettings, Settings, load_settings

ANY_LENGTH: Final = 16000
"""The most there is: the server's vectors say how long they are."""
TEXTS: Final = ("The river rises in spring.", "A teacher explains algebra.")
QUERY: Final = "When is the water high?"
NOT_SERVED: Final = {"api_key", "dimensions"}
"""A key stays out of the database, the length of the vectors has its own column."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A model as it was asked for.

    Attributes:
        name: it is to go by.
        given: its settings out of the options, by their names in the settings.
        distance: cosine, l2 or ip.
        storage: vector or halfvec.
        window_tokens: the longest text that it takes; None: not said.
    """

    name: str
    given: Mapping[str, object]
    distance: str
    storage: str
    window_tokens: int | None

    @property
    def window(self) -> int | None:
        """The longest text that it takes, as far as anybody knows."""
        return self.window_tokens or KNOWN_WINDOWS.get(self.name)


def add(
    name: Annotated[str, typer.Argument(help="What it is called here: small letters, digits and _.")],
    provider: Annotated[
        str | None, typer.Option(help="sentence_transformers, openai, tei, ollama, embedded or deterministic.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The base address of its server.")] = None,
    dimensions: Annotated[
        int | None, typer.Option(help="How long its vectors are; without it, as the server gives them.")
    ] = None,
    distance: Annotated[Literal["cosine", "l2", "ip"], typer.Option(help="By which vectors are compared.")] = "cosine",
    storage: Annotated[Literal["vector", "halfvec"], typer.Option(help="32 or 16 bits a dimension.")] = "vector",
    remote_name: Annotated[str | None, typer.Option(help="What it is called at its server.")] = None,
    query_prefix: Annotated[str | None, typer.Option(help="What goes before the text of a search.")] = None,
    passage_prefix: Annotated[str | None, typer.Option(help="What goes before the text of a row.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at once.")] = None,
    window_tokens: Annotated[int | None, typer.Option(min=1, help="The longest text that it takes whole.")] = None,
    wait: Annotated[bool, typer.Option(help="Show the backfill until it has come to its end.")] = True,
    json: Json = False,
) -> int:
    """Add a model: look at it where it is served, make its table, queue all rows for it.

    What is not given comes from ROWVEC_MODEL_<NAME>_..., the API key from there alone. Searches go on with the model
    they had: `rowvec model promote` changes that when this one is complete. This command may be ended at will.
    """
    options = {
        "provider": provider,
        "url": url,
        "dimensions": dimensions,
        "remote_name": remote_name,
        "query_prefix": query_prefix,
        "passage_prefix": passage_prefix,
        "concurrency": concurrency,
    }
    given = {option: value for option, value in options.items() if value is not None}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it comes ignored
    added = _Added(json=json)
    try:
        found = uvloop.run(added.run(_Wanted(name, given, distance, storage, window_tokens), wait=wait))
    except KeyboardInterrupt:
        added.tell_of_interrupt(name)
        return INTERRUPTED
    if json:
        print_json({**added.as_json(), "backfill": [asdict(row) for row in found]})
    else:
        console().print(told(found, stop=False), markup=False)
        added.tell_of_promotion(name)
    return 0


class _Added:
    """What has become of a model that is being added.

    Args:
        json: nothing but the result goes to stdout.
    """

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._made: NewModel | None = None
        self._searched: str | None = None

    async def run(self, wanted: _Wanted, *, wait: bool) -> Sequence[Filling]:
        settings, known = _load(wanted)
        model = _model(settings, wanted.name)
        async with administration(settings.dsn) as database:
            await _refuse_known(database, wanted.name)
            dimensions = await _look_at(wanted.name, model, known=known)
            made = NewModel(wanted.name, dimensions, wanted.distance, wanted.storage, wanted.window, _served(model))
            _warn_of_length(made)
            await ModelLife(database).add(made)
            self._made = made
            self._searched = next((row["name"] for row in await database.models() if row["is_default"]), None)
            self._tell(made)
            await _tell_of_daemons(database, made, model)
            asked = Asked(None, made.name)
            begun = await asked.look(database, {})
            return await follow(database, asked, begun, aside=self._json) if wait and begun else begun

    def as_json(self) -> dict[str, Any]:
        assert self._made is not None  # noqa: S101 - it ran to its end
        return asdict(self._made)

    def tell_of_interrupt(self, name: str) -> None:
        if self._made is None:
            console(aside=True).print("\nNothing was made.")
        else:
            more = f"`rowvec backfill --model {name}` shows it again, `rowvec model drop {name}` undoes it."
            console(aside=True).print(f"\nThe model is added, and its backfill goes on in the background. {more}")

    def tell_of_promotion(self, name: str) -> None:
        """Say what is to be done until it is searched, if another one is."""
        if self._searched != name:
            what = f"Searches go on with {self._searched}."
            console().print(f"{what} Next: `rowvec model index {name}`, then `rowvec model promote {name}`.")

    def _tell(self, made: NewModel) -> None:
        kind = f"{made.dimensions:,} dimensions, {made.distance}, {made.storage}"
        console(aside=self._json).print(f"Added the model {made.name}: {kind}.", markup=False)


def _load(wanted: _Wanted) -> tuple[Settings, bool]:
    """Return all settings, and whether it is known how long the model's vectors are.

    Raises:
        ConfigurationError: they are wrong without the options, too.
        UsageError: the options make them so.
    """
    given = dict(wanted.given)
    try:
        return load_settings(models={wanted.name: given}), True
    except ConfigurationError as error:
        refusal = error
    if "dimensions" not in given:
        try:
            # If any length will do, nothing but the length is missing: the server has it.
            return load_settings(models={wanted.name: {**given, "dimensions": ANY_LENGTH}}), False
        except ConfigurationError as error:
            refusal = error
    load_settings()
    raise UsageError(refusal.message, _hint(wanted.name))


def _model(settings: Settings, name: str) -> ModelSettings:
    model = settings.models[name]
    if model.provider in {None, "off"} or "provider" not in model.model_fields_set:
        raise UsageError(f'How the model "{name}" is reached is not said.', _hint(name))
    return model


def _hint(name: str) -> str:
    variable = f"ROWVEC_MODEL_{name.upper()}"
    return f"Options say the same as settings: --url as {variable}_URL, --provider as {variable}_PROVIDER and so on."


async def _refuse_known(database: Administration, name: str) -> None:
    """Refuse a name that is taken before anything is asked of a server."""
    row = next((row for row in await database.models() if row["name"] == name), None)
    if row is None:
        return
    if row["active"]:
        hint = "Give the new one another name: searches go on with the old one meanwhile."
    else:
        hint = f"It is inactive: a daemon that starts with ROWVEC_MODEL_{name.upper()}_URL wakes it."
    raise UsageError(f'There is a model "{name}" already.', hint)


async def _look_at(name: str, model: ModelSettings, *, known: bool) -> int:
    """Have harmless texts embedded; return how long the vectors are.

    Raises:
        UsageError: their length is not that which was said, or has to be said.
        RowvecError: the model does not answer as it should.
    """
    embedder = make_embedder(name, model)
    try:
        await _embed(embedder)
    except ModelMisbehavedError as error:
        if error.dimensions is None:
            raise
        if known:
            raise _other_length(name, error.dimensions, model.dimensions) from None
        return await _look_at(name, model.model_copy(update={"dimensions": error.dimensions}), known=True)
    except TextRejectedError as error:
        hint = "" if known else " Is it --dimensions that it wants to be told?"
        raise ConfigurationError(
            f"The model server refuses a harmless text: {error.message}", f"{error.hint}{hint}".lstrip()
        ) from None
    finally:
        await embedder.close()
    return embedder.dimensions


async def _embed(embedder: Embedder) -> None:
    """Ask for the vectors of rows and of a search, whose number, length and numbers the embedder looks at."""
    await embedder.ready()
    first, second = await embedder.embed(TEXTS)
    await embedder.embed_query(QUERY)
    if first == second:
        raise ModelMisbehavedError(
            "The model server answers two different texts with the same vector.", "Is it an embedding model?"
        )


def _other_length(name: str, served: int, said: int) -> UsageError:
    return UsageError(
        f'The vectors of "{name}" have {served:,} dimensions at its server, not {said:,}.',
        f"Add --dimensions {served}, if that is the model you mean.",
    )


def _served(model: ModelSettings) -> Mapping[str, object]:
    return model.model_dump(mode="json", exclude=NOT_SERVED, exclude_unset=True, exclude_none=True)


def _warn_of_length(made: NewModel) -> None:
    """Say before it is made that there can't be an index."""
    most, longest = MOST_DIMENSIONS[made.storage], MOST_DIMENSIONS["halfvec"]
    if made.dimensions <= most:
        return
    advice = (
        f"--storage halfvec allows {longest:,}."
        if made.dimensions <= longest
        else "Its searches compare all vectors, however many there are."
    )
    console(aside=True).print(
        f"warning: an HNSW index takes at most {most:,} dimensions of {made.storage}, this model has "
        f"{made.dimensions:,}. {advice}"
    )


async def _tell_of_daemons(database: Administration, made: NewModel, model: ModelSettings) -> None:
    """Say what keeps daemons from the work."""
    remark = console(aside=True)
    if model.api_key is not None:
        remark.print(
            "Its server has a key, which daemons send to no address but one of their own settings. What they have "
            "set for a model counts whole: give them all of this, and start them anew.",
            markup=False,
        )
        for line in _variables(made):
            remark.print(f"  {line}", markup=False)
    if not (await database.status())["daemons"]:
        remark.print("No daemon is running: the backfill begins when one does.")


def _variables(made: NewModel) -> Iterator[str]:
    """Return what is to be set for a daemon that has the key; without one of these it would reach another model."""
    for name, value in {"api_key": "...", **made.served, "dimensions": made.dimensions}.items():
        yield f"ROWVEC_MODEL_{made.name.upper()}_{name.upper()}={shlex.quote(str(value))}"
