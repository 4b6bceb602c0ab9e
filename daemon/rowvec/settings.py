"""Settings: environment, TOML file, systemd credentials. The only module that knows pydantic-settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rowvec.domain.errors import ConfigurationError
from rowvec.domain.registered import RegisteredModel, check_dimensions
from rowvec.settings_qstash import QStashSettings

_MODEL_VARIABLE: Final = re.compile(
    r"^ROWVEC_MODEL_(.+)_(PROVIDER|DIMENSIONS|CONCURRENCY|DELAY_SECONDS|URL|API_KEY|TIMEOUT_SECONDS|REMOTE_NAME"
    r"|QUERY_PREFIX|PASSAGE_PREFIX|REQUEST_TEXTS|REQUEST_TOKENS|REQUESTS_PER_MINUTE)$"
)
_MODEL_NAME: Final = re.compile(r"^[a-z][a-z0-9_]{0,39}$")
_API_KEY: Final = re.compile(r"^[!-~]{1,4096}$")
_KNOWN_MODELS: Final[Mapping[str, Mapping[str, Any]]] = {
    "e5_small": {"provider": "embedded", "dimensions": 384},
    "bge_m3": {"provider": None, "dimensions": 1024},
}
"""What is set for these unless somebody says otherwise."""
UNASKED_MODELS: Final = frozenset(name for name, known in _KNOWN_MODELS.items() if known["provider"])
"""Those that are there unless somebody switches them off."""
_KNOWN_PREFIXES: Final[Mapping[str, Mapping[str, str]]] = {
    "e5_small": {"query_prefix": "query: ", "passage_prefix": "passage: "},
}
"""What these models were trained with, for servers that don't add it themselves."""
_SERVERS: Final = {"sentence_transformers", "openai", "tei", "ollama"}
_BARE_SERVERS: Final = _SERVERS - {"sentence_transformers"}
"""Those that embed a text as it is."""
_CATALOGUES: Final = {"openai", "ollama"}
"""Those that are told which of several models is meant."""


def _check_url(url: HttpUrl) -> HttpUrl:
    if url.username or url.password:
        raise ValueError("a user or password in an address ends in logs: give a key by ROWVEC_MODEL_<NAME>_API_KEY")
    if url.query or url.fragment:
        raise ValueError("it must end with its path: no ? and no #")
    return url


def _check_api_key(key: SecretStr) -> SecretStr:
    if not _API_KEY.match(key.get_secret_value()):
        raise ValueError("a key is at most 4096 letters, digits and signs of ASCII, without spaces")
    return key


Provider = Literal["embedded", "sentence_transformers", "openai", "tei", "ollama", "deterministic", "off"]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Url = Annotated[HttpUrl, AfterValidator(_check_url)]
ApiKey = Annotated[SecretStr, AfterValidator(_check_api_key)]
Prefix = Annotated[str, Field(max_length=1000)]


class ModelSettings(BaseModel):
    """One model: `ROWVEC_MODEL_<NAME>_PROVIDER` and so on, or `[models.<name>]` in the TOML file."""

    model_config = ConfigDict(extra="forbid")

    provider: Provider | None = None
    dimensions: Annotated[int, Field(ge=1, le=16000)] = 384
    concurrency: Annotated[int, Field(ge=1, le=64)] = 1
    delay_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    url: Url | None = None
    api_key: ApiKey | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    remote_name: Annotated[str, Field(max_length=200)] | None = None
    query_prefix: Prefix | None = None
    passage_prefix: Prefix | None = None
    request_texts: Annotated[int, Field(ge=1, le=2048)] | None = None
    request_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    requests_per_minute: Annotated[float, Field(gt=0, le=1_000_000)] | None = None

    @field_validator("url", "api_key", "remote_name", mode="before")
    @classmethod
    def _no_empty_text(cls, value: object) -> object:
        """Take an empty text for none, and leave out the line's end that a file has."""
        return value.strip() or None if isinstance(value, str) else value


class Settings(QStashSettings, BaseSettings):
    """Everything that can be set, with its default."""

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    database_url: SecretStr | None = Field(None, alias="DATABASE_URL")
    listen_database_url: SecretStr | None = Field(None, alias="ROWVEC_LISTEN_DATABASE_URL")
    http_host: str = Field("127.0.0.1", alias="ROWVEC_HTTP_HOST")
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(8480, alias="ROWVEC_HTTP_PORT")
    api_token: ApiKey | None = Field(None, alias="ROWVEC_API_TOKEN")
    batch_items: Annotated[int, Field(ge=1, le=5000)] = Field(128, alias="ROWVEC_BATCH_ITEMS")
    max_attempts: Annotated[int, Field(ge=1, le=100)] = Field(5, alias="ROWVEC_MAX_ATTEMPTS")
    poll_seconds: Seconds = Field(1.0, alias="ROWVEC_POLL_SECONDS")
    sweep_seconds: Seconds = Field(2.0, alias="ROWVEC_SWEEP_SECONDS")
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(10.0, alias="ROWVEC_DRAIN_SECONDS")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", alias="ROWVEC_LOG_LEVEL")
    log_format: Literal["json", "console"] = Field("json", alias="ROWVEC_LOG_FORMAT")
    models: dict[str, ModelSettings] = Field(default_factory=dict)

    @field_validator("database_url", "listen_database_url", mode="after")
    @classmethod
    def _no_empty_address(cls, value: SecretStr | None) -> SecretStr | None:
        """Take an empty address for none: the driver would take it for whatever server is near."""
        return value if value and value.get_secret_value().strip() else None

    @field_validator("models", mode="before")
    @classmethod
    def _default_models(cls, value: object) -> object:
        """Add the known models, and to each model what follows from its name and from what else is set."""
        if not isinstance(value, dict):
            return value
        return {name: _with_defaults(name, value.get(name, {})) for name in {**_KNOWN_MODELS, **value}}

    @field_validator("models")
    @classmethod
    def _check_models(cls, value: dict[str, ModelSettings]) -> dict[str, ModelSettings]:
        if problems := [problem for name, model in value.items() for problem in _problems(name, model)]:
            raise ValueError("; ".join(problems))
        return value

    @property
    def dsn(self) -> str:
        """The database's connection string.

        Raises:
            ConfigurationError: none is set.
        """
        if self.database_url is None:
            raise ConfigurationError(
                "No database is set.",
                "Set DATABASE_URL, or use `rowvec run --embedded DIR` to try rowvec out.",
            )
        return self.database_url.get_secret_value()

    @property
    def listen_dsn(self) -> str:
        """The listener's direct connection: the database's own unless a pooler stands before it."""
        return self.listen_database_url.get_secret_value() if self.listen_database_url else self.dsn

    @property
    def active_models(self) -> dict[str, ModelSettings]:
        """The models that have a provider, by name."""
        return {name: model for name, model in self.models.items() if model.provider not in {None, "off"}}

    def reach(self, model: RegisteredModel) -> ModelSettings | None:
        """Return how a registered model is reached from here; None when nobody here has to.

        What is set here comes first, and whole. What the database says is completed with what is set here beside it.

        Args:
            model: `served` is in the words of `ModelSettings`.

        Raises:
            ConfigurationError: it can't be reached as it is said; says why, never a value.
        """
        way = self.models.get(model.name, ModelSettings())
        if way.provider == "off":
            return None
        if way.provider is None:
            if model.served is None:
                return None
            way = _completed(model.name, {"dimensions": model.dimensions, **model.served}, way)
        check_dimensions(model.name, way.dimensions, model.dimensions)
        return way

    @property
    def models_off(self) -> list[str]:
        """The models that were switched off on purpose; others without a provider are not spoken of."""
        return [name for name, model in self.models.items() if model.provider == "off"]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then systemd's credentials, then the file."""
        sources = [init_settings, _Environment(settings_cls), _ModelVariables(settings_cls, os.environ)]
        if credentials := os.environ.get("CREDENTIALS_DIRECTORY"):
            sources.append(SecretsSettingsSource(settings_cls, secrets_dir=credentials))
            sources.append(_ModelVariables(settings_cls, _read_credentials(Path(credentials))))
        if file := os.environ.get("ROWVEC_CONFIG"):
            if not Path(file).is_file():
                raise ConfigurationError(f"ROWVEC_CONFIG names {file}, which is no file.")
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=file))
        return tuple(sources)


class _Environment(EnvSettingsSource):
    """Reads the variables by their full names: LOG_LEVEL without the prefix belongs to somebody else."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ANN401
        choices = field.validation_alias
        names = (
            [str(name) for name in choices.choices]
            if isinstance(choices, AliasChoices)
            else [field.alias or field_name]
        )
        given = {name.upper(): value for name, value in self.env_vars.items()}
        found = next((name for name in names if given.get(name)), names[0])
        return given.get(found), found, False

    def field_is_complex(self, field: Any) -> bool:  # noqa: ANN401, ARG002
        """Take every value as it is written: a list has commas and is no JSON."""
        return False


class _ModelVariables(PydanticBaseSettingsSource):
    """Collects `ROWVEC_MODEL_<NAME>_<WHAT>` into `models`; an empty one is none, as everywhere."""

    def __init__(self, settings_cls: type[BaseSettings], variables: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._variables = variables

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ANN401, ARG002
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        models: dict[str, dict[str, str]] = {}
        for variable, value in self._variables.items():
            if value and (match := _MODEL_VARIABLE.match(variable)):
                models.setdefault(match[1].lower(), {})[match[2].lower()] = value
        return {"models": models} if models else {}


def _read_credentials(folder: Path) -> dict[str, str]:
    """Return what the files say that are named like the variables of models."""
    files = folder.iterdir() if folder.is_dir() else ()
    return {file.name: _read_credential(file) for file in files if _MODEL_VARIABLE.match(file.name)}


def _read_credential(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"The credential {file.name} can't be read.", f"It is no text: {error}.") from None


def _with_defaults(name: str, given: object) -> object:
    """Return what is set for a model, and what follows from it: whoever names a server wants it used."""
    if not isinstance(given, dict):
        return given
    defaults = dict(_KNOWN_MODELS.get(name, {}))
    if str(given.get("url") or "").strip():
        defaults["provider"] = "sentence_transformers"
    if str(given.get("provider")) in _BARE_SERVERS:
        defaults |= _KNOWN_PREFIXES.get(name, {})
    return {**defaults, **given}


def _completed(name: str, served: Mapping[str, object], own: ModelSettings) -> ModelSettings:
    """Return how the database says that a model is reached, with what is set here for it beside its address."""
    if own.api_key and served.get("url"):
        raise ConfigurationError(
            f"Set ROWVEC_MODEL_{name.upper()}_URL too: a key goes only to an address that is set beside it.",
            "What is set counts whole: PROVIDER, DIMENSIONS, REMOTE_NAME and prefixes belong to it.",
        )
    return _read_served(name, {**served, **own.model_dump(exclude_unset=True, exclude_none=True, exclude={"api_key"})})


def _read_served(name: str, given: Mapping[str, object]) -> ModelSettings:
    """Check what a newer or a careless program may have written into the database."""
    if "api_key" in given:
        raise ConfigurationError("The database holds an API key.", f"Set it by ROWVEC_MODEL_{name.upper()}_API_KEY.")
    try:
        model = ModelSettings.model_validate(_with_defaults(name, dict(given)))
    except ValidationError as error:
        problems = _told(error, "models", name)
    else:
        problems = "; ".join(_problems(name, model)) or ("" if model.provider not in {None, "off"} else "no provider")
    if problems:
        raise ConfigurationError("What the database says about its server can't be used.", f"{problems}.")
    return model


def _problems(name: str, model: ModelSettings) -> Iterator[str]:
    """Say what does not go together."""
    variable = f"ROWVEC_MODEL_{name.upper()}"
    if not _MODEL_NAME.match(name):
        yield f'"{name}" is no name for a model: a small letter, then small letters, digits and _, at most 40'
    if model.provider == "embedded" and model.dimensions != 384:  # noqa: PLR2004 - what e5-small gives
        yield f'the embedded provider of "{name}" has 384 dimensions, not {model.dimensions}'
    if model.provider in {"embedded", "deterministic"} and model.url:
        yield f'"{name}" has a server, {variable}_URL, but its provider is {model.provider}: leave one of them out'
    if model.provider in _SERVERS and not model.url:
        yield f'the provider of "{name}" is a server: set its address, {variable}_URL'
    if model.provider in _SERVERS and "dimensions" not in model.model_fields_set:
        yield f'how long the vectors of "{name}" are is not known: set {variable}_DIMENSIONS'
    if model.remote_name and model.provider not in {*_CATALOGUES, "off", None}:
        yield f'the provider of "{name}", {model.provider}, has no names of models: leave {variable}_REMOTE_NAME out'
    if (model.query_prefix or model.passage_prefix) and model.provider not in {*_BARE_SERVERS, "off", None}:
        yield f'the provider of "{name}", {model.provider}, takes no prefixes: leave {variable}_*_PREFIX out'


def _variable(place: tuple[int | str, ...]) -> str:
    """Return the name by which a person can set what is wrong: in the file, and for models in the environment."""
    written = ".".join(map(str, place))
    if place[0] != "models" or len(place) == 1:
        return written
    return f"{written} ({'_'.join(['ROWVEC_MODEL', *(str(part).upper() for part in place[1:])])})"


def _told(error: ValidationError, *place: str) -> str:
    """Say what is wrong at a place, and never with what value."""
    said = ((_variable((*place, *item["loc"])), item["msg"].removeprefix("Value error, ")) for item in error.errors())
    return "; ".join(f"{name}: {what}" for name, what in said)


def load_settings(**given: object) -> Settings:
    """Read all settings.

    Args:
        **given: settings that take precedence, by their variable's name.

    Raises:
        ConfigurationError: one is wrong; says which and why, never its value.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError(f"Wrong settings: {_told(error)}.", "Correct them and start again.") from None
    except (ValueError, OSError) as error:
        raise ConfigurationError("The settings can't be read.", str(error)) from None
