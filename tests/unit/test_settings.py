from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest

from rowvec.app.embedders import make_embedder
from rowvec.domain.errors import ConfigurationError
from rowvec.domain.registered import RegisteredModel
from rowvec.settings import ModelSettings, load_settings

SECRET = "hunter2-very-secret"  # noqa: S105 - that it is never shown is what is tested
DSN = f"postgresql://rowvec:{SECRET}@db.example/app"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.upper().startswith(("ROWVEC_", "DATABASE_", "CREDENTIALS_", "MODELS", "LOG_", "HTTP_")):
            monkeypatch.delenv(variable)


@pytest.fixture
def write_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "rowvec.toml"
    monkeypatch.setenv("ROWVEC_CONFIG", str(path))
    return path


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "credentials"
    path.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path))
    return path


def refusal(**given: object) -> str:
    """Return what a person reads of a refusal; the secret is in no part of it."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**given)
    assert caught.value.exit_code == 78
    text = f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert SECRET not in text
    return str(caught.value)


def test_the_defaults() -> None:
    found = load_settings()
    assert (found.http_host, found.http_port) == ("127.0.0.1", 8480)
    assert found.max_attempts == 5
    assert (found.log_level, found.log_format) == ("info", "json")
    assert found.models == {
        "e5_small": ModelSettings(provider="embedded", dimensions=384),
        "bge_m3": ModelSettings(provider=None, dimensions=1024),
    }
    assert set(found.active_models) == {"e5_small"}


def test_without_a_database_its_address_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        _ = load_settings().dsn
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        _ = load_settings().listen_dsn


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {
        "DATABASE_URL": DSN,
        "ROWVEC_HTTP_HOST": "::1",
        "ROWVEC_HTTP_PORT": "0",
        "ROWVEC_BATCH_ITEMS": "7",
        "ROWVEC_MAX_ATTEMPTS": "2",
        "ROWVEC_POLL_SECONDS": "0.5",
        "ROWVEC_SWEEP_SECONDS": "3",
        "ROWVEC_DRAIN_SECONDS": "0",
        "ROWVEC_LOG_LEVEL": "debug",
        "ROWVEC_LOG_FORMAT": "console",
    }.items():
        monkeypatch.setenv(variable, value)
    found = load_settings()
    assert found.dsn == found.listen_dsn == DSN
    assert (found.http_host, found.http_port, found.batch_items, found.max_attempts) == ("::1", 0, 7, 2)
    assert (found.poll_seconds, found.sweep_seconds, found.drain_seconds) == (0.5, 3.0, 0.0)
    assert (found.log_level, found.log_format) == ("debug", "console")


def test_the_listener_may_have_an_address_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DSN)
    monkeypatch.setenv("ROWVEC_LISTEN_DATABASE_URL", "postgresql://direct/app")
    assert load_settings().listen_dsn == "postgresql://direct/app"
    monkeypatch.setenv("ROWVEC_LISTEN_DATABASE_URL", "")
    assert load_settings().listen_dsn == DSN


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DSN)
    monkeypatch.setenv("ROWVEC_LISTEN_DATABASE_URL", DSN)
    assert SECRET not in f"{load_settings()} {load_settings()!r} {load_settings().model_dump()}"


def test_a_toml_file(write_config: Path) -> None:
    write_config.write_text(
        f'DATABASE_URL = "{DSN}"\nROWVEC_HTTP_PORT = 9000\nbatch_items = 9\n'
        '[models.first]\nprovider = "deterministic"\ndimensions = 8\ndelay_seconds = 0.5\n'
    )
    found = load_settings()
    assert (found.dsn, found.http_port, found.batch_items) == (DSN, 9000, 9)
    assert found.models["first"] == ModelSettings(provider="deterministic", dimensions=8, delay_seconds=0.5)
    assert found.models["e5_small"].provider == "embedded"


def test_a_toml_file_that_is_not_there_is_refused(write_config: Path) -> None:
    assert str(write_config) in refusal()


@pytest.mark.parametrize(
    "content", [f"DATABASE_URL = {SECRET}\n", f'DATABASE_URL = "{SECRET}\n', f"[{SECRET}", f'a = "{SECRET}"\na = 2\n']
)
def test_a_toml_file_that_is_none_is_refused_without_showing_it(write_config: Path, content: str) -> None:
    write_config.write_text(content)
    refusal()


def test_a_toml_file_that_is_no_text_is_refused(write_config: Path) -> None:
    write_config.write_bytes(b'DATABASE_URL = "\xff\xfe"')
    refusal()


def test_systemds_credentials(credentials: Path) -> None:
    (credentials / "DATABASE_URL").write_text(DSN + "\n")
    (credentials / "rowvec_http_port").write_text("77\n")
    found = load_settings()
    assert (found.dsn, found.http_port) == (DSN, 77)


@pytest.mark.parametrize("name", ["DATABASE_URL", "database_url"])
def test_credentials_are_found_in_either_case(credentials: Path, name: str) -> None:
    (credentials / name).write_text(DSN)
    assert load_settings().dsn == DSN


def test_precedence(write_config: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given, the environment, the credentials, the file, the default."""
    write_config.write_text(
        "ROWVEC_HTTP_PORT = 1\nROWVEC_BATCH_ITEMS = 1\nROWVEC_MAX_ATTEMPTS = 1\nROWVEC_SWEEP_SECONDS = 1\n"
    )
    (credentials / "ROWVEC_HTTP_PORT").write_text("2")
    (credentials / "ROWVEC_BATCH_ITEMS").write_text("2")
    (credentials / "ROWVEC_MAX_ATTEMPTS").write_text("2")
    monkeypatch.setenv("ROWVEC_HTTP_PORT", "3")
    monkeypatch.setenv("ROWVEC_BATCH_ITEMS", "3")
    found = load_settings(ROWVEC_HTTP_PORT=4)
    assert (found.http_port, found.batch_items, found.max_attempts, found.sweep_seconds, found.poll_seconds) == (
        4,
        3,
        2,
        1.0,
        1.0,
    )


@pytest.mark.parametrize("key", ["http_port", "ROWVEC_HTTP_PORT"])
def test_the_environment_goes_before_the_file_however_it_spells_the_name(
    write_config: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    write_config.write_text(f"{key} = 1\n")
    assert load_settings().http_port == 1
    monkeypatch.setenv("ROWVEC_HTTP_PORT", "3")
    assert load_settings().http_port == 3


def test_model_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_PROVIDER", "deterministic")
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_DIMENSIONS", "1024")
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_CONCURRENCY", "3")
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_DELAY_SECONDS", "0.25")
    found = load_settings()
    assert found.models["bge_m3"] == ModelSettings(
        provider="deterministic", dimensions=1024, concurrency=3, delay_seconds=0.25
    )
    assert set(found.active_models) == {"e5_small", "bge_m3"}


def test_model_variables_go_before_the_file_one_by_one(write_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config.write_text('[models.first]\nprovider = "deterministic"\ndimensions = 8\nconcurrency = 2\n')
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_DIMENSIONS", "9")
    first = load_settings().models["first"]
    assert (first.provider, first.dimensions, first.concurrency) == ("deterministic", 9, 2)


def test_the_default_model_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_E5_SMALL_CONCURRENCY", "4")
    assert load_settings().active_models == {"e5_small": ModelSettings(provider="embedded", concurrency=4)}


def test_the_default_model_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_E5_SMALL_PROVIDER", "off")
    found = load_settings()
    assert found.active_models == {}
    assert found.models["e5_small"].provider == "off"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ROWVEC_HTTP_PORT", SECRET),
        ("ROWVEC_HTTP_PORT", "65536"),
        ("ROWVEC_HTTP_PORT", "-1"),
        ("ROWVEC_BATCH_ITEMS", "0"),
        ("ROWVEC_BATCH_ITEMS", "5001"),
        ("ROWVEC_MAX_ATTEMPTS", "0"),
        ("ROWVEC_POLL_SECONDS", "0"),
        ("ROWVEC_POLL_SECONDS", "nan"),
        ("ROWVEC_SWEEP_SECONDS", "-1"),
        ("ROWVEC_DRAIN_SECONDS", "a while"),
        ("ROWVEC_LOG_LEVEL", SECRET),
        ("ROWVEC_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", DSN)
    monkeypatch.setenv(variable, value)
    assert variable in refusal()


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_HTTP_PORT", "x")
    monkeypatch.setenv("ROWVEC_LOG_LEVEL", "x")
    text = refusal()
    assert "ROWVEC_HTTP_PORT" in text
    assert "ROWVEC_LOG_LEVEL" in text


@pytest.mark.parametrize("variable", ["ROWVEC_POLL_SECONDS", "ROWVEC_SWEEP_SECONDS"])
def test_times_have_an_end(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "inf")
    assert variable in refusal()


def test_a_wrong_type_in_the_file_is_refused_by_name(write_config: Path) -> None:
    write_config.write_text(f'DATABASE_URL = 5\nROWVEC_HTTP_PORT = "{SECRET}"\nmodels = "{SECRET}"\n')
    text = refusal()
    assert "DATABASE_URL" in text
    assert "ROWVEC_HTTP_PORT" in text
    assert "models" in text


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("PROVIDER", SECRET),
        ("DIMENSIONS", SECRET),
        ("DIMENSIONS", "0"),
        ("DIMENSIONS", "16001"),
        ("CONCURRENCY", "0"),
        ("DELAY_SECONDS", "-1"),
        ("TIMEOUT_SECONDS", "0"),
        ("TIMEOUT_SECONDS", "inf"),
        ("URL", SECRET),
        ("API_KEY", f"{SECRET}\r\nHost: elsewhere"),
        ("API_KEY", f"{SECRET} {SECRET}"),
        ("API_KEY", f"{SECRET}ä"),
        ("API_KEY", SECRET * 300),
        ("REMOTE_NAME", SECRET * 20),
        ("QUERY_PREFIX", SECRET * 60),
        ("PASSAGE_PREFIX", SECRET * 60),
    ],
)
def test_a_wrong_model_variable_is_refused_by_model_and_field(
    monkeypatch: pytest.MonkeyPatch, what: str, value: str
) -> None:
    monkeypatch.setenv(f"ROWVEC_MODEL_FIRST_{what}", value)
    text = refusal()
    assert f"models.first.{what.lower()}" in text


def test_a_wrong_model_variable_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_DIMENSIONS", "x")
    assert "ROWVEC_MODEL_FIRST_DIMENSIONS" in refusal()


def test_the_embedded_model_has_its_own_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_E5_SMALL_DIMENSIONS", "1024")
    text = refusal()
    assert "e5_small" in text
    assert "384" in text


@pytest.mark.parametrize("name", ["1st", "drop-table", "x" * 41, 'a"b', "Ü"])
def test_a_name_that_could_be_no_table_is_refused(write_config: Path, name: str) -> None:
    quoted = name.replace('"', '\\"')
    write_config.write_text(f'[models."{quoted}"]\nprovider = "deterministic"\n')
    assert "is no name for a model" in refusal()


def test_an_unknown_field_of_a_model_is_refused(write_config: Path) -> None:
    write_config.write_text(f'[models.first]\nprovidr = "{SECRET}"\n')
    assert "models.first.providr" in refusal()


@pytest.mark.parametrize(
    ("variable", "value"), [("LOG_LEVEL", "DEBUG"), ("HTTP_PORT", "99"), ("MODELS", "gpt-5"), ("MODELS", '["a"]')]
)
def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    expected = load_settings()
    monkeypatch.setenv(variable, value)
    assert load_settings() == expected


def test_an_empty_database_url_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        _ = load_settings().dsn


# Models behind a server.


@pytest.mark.parametrize(("name", "dimensions"), [("bge_m3", 1024), ("e5_small", 384)])
def test_the_address_of_a_server_is_all_that_a_known_model_needs(
    monkeypatch: pytest.MonkeyPatch, name: str, dimensions: int
) -> None:
    monkeypatch.setenv(f"ROWVEC_MODEL_{name.upper()}_URL", "http://models:8080/")
    found = load_settings()
    model = found.active_models[name]
    assert (model.provider, model.dimensions, str(model.url)) == (
        "sentence_transformers",
        dimensions,
        "http://models:8080/",
    )
    assert (model.api_key, model.timeout_seconds, model.concurrency) == (None, 60.0, 1)
    assert set(found.active_models) == {"e5_small", name}


def test_all_of_a_server_can_be_set_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for what, value in {
        "PROVIDER": "sentence_transformers",
        "URL": "https://models.example/first",
        "API_KEY": SECRET,
        "TIMEOUT_SECONDS": "2.5",
        "DIMENSIONS": "8",
    }.items():
        monkeypatch.setenv(f"ROWVEC_MODEL_FIRST_{what}", value)
    first = load_settings().active_models["first"]
    assert (first.provider, first.dimensions, first.timeout_seconds) == ("sentence_transformers", 8, 2.5)
    assert str(first.url) == "https://models.example/first"
    assert first.api_key is not None
    assert first.api_key.get_secret_value() == SECRET
    assert SECRET not in f"{load_settings()} {load_settings()!r} {load_settings().model_dump()}"


def test_all_of_a_server_can_be_set_in_the_file(write_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config.write_text(f'[models.bge_m3]\nurl = "http://models:8080"\napi_key = "{SECRET}"\ntimeout_seconds = 5\n')
    found = load_settings().active_models["bge_m3"]
    assert (found.provider, found.timeout_seconds) == ("sentence_transformers", 5.0)
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == SECRET
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_API_KEY", "another")
    changed = load_settings().active_models["bge_m3"]
    assert changed.url == found.url
    assert changed.api_key is not None
    assert changed.api_key.get_secret_value() == "another"


def test_a_key_can_be_a_credential(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (credentials / "ROWVEC_MODEL_BGE_M3_API_KEY").write_text(f"{SECRET}\n")
    (credentials / "ROWVEC_MODEL_BGE_M3_URL").write_text("http://credential:1\n")
    (credentials / "another.file").write_bytes(b"\xff")
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_URL", "http://environment:1")
    found = load_settings().active_models["bge_m3"]
    assert str(found.url) == "http://environment:1/"
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == SECRET


def test_a_credential_that_is_no_text_is_refused_by_its_name(credentials: Path) -> None:
    (credentials / "ROWVEC_MODEL_BGE_M3_API_KEY").write_bytes(b"\xff\xfesecret")
    assert "ROWVEC_MODEL_BGE_M3_API_KEY" in refusal()
    assert "secret" not in refusal()


def test_a_credential_that_is_no_file_is_refused(credentials: Path) -> None:
    (credentials / "ROWVEC_MODEL_BGE_M3_API_KEY").mkdir()
    assert "ROWVEC_MODEL_BGE_M3_API_KEY" in refusal()


def test_a_credential_goes_before_the_file(credentials: Path, write_config: Path) -> None:
    write_config.write_text('[models.bge_m3]\nurl = "http://models:8080"\napi_key = "file"\n')
    (credentials / "ROWVEC_MODEL_BGE_M3_API_KEY").write_text("credential")
    key = load_settings().models["bge_m3"].api_key
    assert key is not None
    assert key.get_secret_value() == "credential"


def test_a_provider_that_is_off_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BGE_M3", "E5_SMALL", "FIRST"):
        monkeypatch.setenv(f"ROWVEC_MODEL_{name}_URL", "http://models:8080")
        monkeypatch.setenv(f"ROWVEC_MODEL_{name}_PROVIDER", "off")
    assert load_settings().active_models == {}


@pytest.mark.parametrize("what", ["URL", "API_KEY", "PROVIDER", "DIMENSIONS", "TIMEOUT_SECONDS"])
def test_an_empty_variable_of_a_model_is_none(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    expected = load_settings()
    monkeypatch.setenv(f"ROWVEC_MODEL_BGE_M3_{what}", "")
    assert load_settings() == expected


def test_a_blank_address_is_none(write_config: Path) -> None:
    write_config.write_text('[models.bge_m3]\nurl = " "\napi_key = ""\n')
    assert load_settings().models["bge_m3"] == ModelSettings(provider=None, dimensions=1024)


SERVERS = ["sentence_transformers", "openai", "tei", "ollama"]


@pytest.mark.parametrize("provider", SERVERS)
def test_a_server_without_address_is_refused(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_PROVIDER", provider)
    assert "ROWVEC_MODEL_BGE_M3_URL" in refusal()


@pytest.mark.parametrize("provider", SERVERS)
def test_a_server_of_a_known_model_needs_its_address_alone(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_PROVIDER", provider)
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_URL", "http://models:8080")
    found = load_settings().active_models["bge_m3"]
    assert (found.provider, found.dimensions) == (provider, 1024)
    assert (found.remote_name, found.query_prefix, found.passage_prefix) == (None, None, None)


@pytest.mark.parametrize("provider", ["openai", "ollama"])
def test_the_name_of_a_model_at_its_server(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_PROVIDER", provider)
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_URL", "http://models:8080")
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_REMOTE_NAME", "BAAI/bge-m3")
    assert load_settings().active_models["bge_m3"].remote_name == "BAAI/bge-m3"


@pytest.mark.parametrize("provider", ["sentence_transformers", "tei", "deterministic"])
def test_a_name_that_nobody_asks_for_is_refused(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_PROVIDER", provider)
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_REMOTE_NAME", "BAAI/bge-m3")
    assert "ROWVEC_MODEL_BGE_M3_REMOTE_NAME" in refusal()


@pytest.mark.parametrize("provider", ["openai", "tei", "ollama"])
def test_e5_has_its_prefixes_where_a_server_adds_none(
    monkeypatch: pytest.MonkeyPatch, write_config: Path, provider: str
) -> None:
    write_config.write_text(f'[models.e5_small]\nurl = "http://models:8080"\nprovider = "{provider}"\n')
    e5 = load_settings().active_models["e5_small"]
    assert (e5.query_prefix, e5.passage_prefix) == ("query: ", "passage: ")
    monkeypatch.setenv("ROWVEC_MODEL_E5_SMALL_QUERY_PREFIX", "question: ")
    e5 = load_settings().active_models["e5_small"]
    assert (e5.query_prefix, e5.passage_prefix) == ("question: ", "passage: ")


def test_a_prefix_keeps_its_spaces(credentials: Path, write_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config.write_text('[models.first]\nurl = "http://models:8080"\nprovider = "tei"\ndimensions = 8\n')
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_QUERY_PREFIX", " query: ")
    (credentials / "ROWVEC_MODEL_FIRST_PASSAGE_PREFIX").write_text("passage: \n")
    first = load_settings().active_models["first"]
    assert (first.query_prefix, first.passage_prefix) == (" query: ", "passage: ")


@pytest.mark.parametrize("provider", ["embedded", "sentence_transformers", "deterministic"])
@pytest.mark.parametrize("what", ["QUERY_PREFIX", "PASSAGE_PREFIX"])
def test_a_prefix_that_nobody_adds_is_refused(monkeypatch: pytest.MonkeyPatch, provider: str, what: str) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_E5_SMALL_PROVIDER", provider)
    monkeypatch.setenv(f"ROWVEC_MODEL_E5_SMALL_{what}", "query: ")
    assert "ROWVEC_MODEL_E5_SMALL_*_PREFIX" in refusal()


@pytest.mark.parametrize("provider", ["embedded", "deterministic"])
def test_an_address_of_a_model_that_needs_none_is_refused(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_E5_SMALL_URL", "http://models:8080")
    monkeypatch.setenv("ROWVEC_MODEL_E5_SMALL_PROVIDER", provider)
    text = refusal()
    assert "ROWVEC_MODEL_E5_SMALL_URL" in text
    assert provider in text


def test_the_length_of_an_unknown_models_vectors_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_URL", "http://models:8080")
    assert "ROWVEC_MODEL_FIRST_DIMENSIONS" in refusal()
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_DIMENSIONS", "384")
    assert load_settings().active_models["first"].dimensions == 384


@pytest.mark.parametrize(
    "url",
    [
        "models:8080",
        "ftp://models",
        "http://",
        "http://models:99999",
        f"http://rowvec:{SECRET}@models",
        f"http://{SECRET}@models",
        f"http://models/?key={SECRET}",
        f"http://models/#{SECRET}",
        f"http://models/{SECRET * 150}",
        "5",
    ],
)
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_URL", url)
    assert "ROWVEC_MODEL_BGE_M3_URL" in refusal()


def test_a_secret_in_an_address_is_sent_to_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_URL", f"http://rowvec:{SECRET}@models")
    assert "_API_KEY" in refusal()


@pytest.mark.parametrize("url", ["http://bge_m3:8000", "http://127.0.0.1:8000", "http://[::1]:8000/", "https://models"])
def test_addresses_of_all_kinds_are_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_URL", url)
    assert str(load_settings().models["bge_m3"].url).rstrip("/") == url.rstrip("/")


def test_the_deterministic_model_takes_the_length_of_the_model_that_it_stands_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_PROVIDER", "deterministic")
    assert load_settings().models["bge_m3"] == ModelSettings(provider="deterministic", dimensions=1024)


def test_the_embedded_model_does_not_stand_for_another_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_PROVIDER", "embedded")
    assert "1024" in refusal()


def test_limits_of_requests_are_the_providers_unless_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_URL", "http://localhost:1")
    found = load_settings().active_models["bge_m3"]
    assert (found.request_texts, found.request_tokens, found.requests_per_minute) == (None, None, None)
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_REQUEST_TEXTS", "16")
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_REQUEST_TOKENS", "8192")
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_REQUESTS_PER_MINUTE", "90.5")
    found = load_settings().active_models["bge_m3"]
    assert (found.request_texts, found.request_tokens, found.requests_per_minute) == (16, 8192, 90.5)
    embedder = make_embedder("bge_m3", found)
    assert (embedder.request_texts, embedder.request_tokens, embedder.requests_per_minute) == (16, 8192, 90.5)


@pytest.mark.parametrize("what", ["REQUEST_TEXTS", "REQUEST_TOKENS", "REQUESTS_PER_MINUTE"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_limits_that_let_nothing_pass_are_refused(monkeypatch: pytest.MonkeyPatch, what: str, value: str) -> None:
    monkeypatch.setenv(f"ROWVEC_MODEL_E5_SMALL_{what}", value)
    assert f"ROWVEC_MODEL_E5_SMALL_{what}" in refusal()


# --- Models that the database serves ---------------------------------------------------------------------

SERVED: Final = {"provider": "tei", "url": "http://registry:8080"}


def reached(served: dict[str, Any] | None, name: str = "first", dimensions: int = 8) -> ModelSettings | None:
    return load_settings().reach(RegisteredModel(name, dimensions, served))


def unreachable(served: dict[str, Any], name: str = "first", dimensions: int = 8) -> str:
    with pytest.raises(ConfigurationError) as caught:
        reached(served, name, dimensions)
    return str(caught.value)


def test_a_model_of_the_database_is_reached_as_it_says() -> None:
    found = reached({**SERVED, "concurrency": 3, "query_prefix": "query: "})
    assert found is not None
    assert (found.provider, str(found.url), found.dimensions) == ("tei", "http://registry:8080/", 8)
    assert (found.concurrency, found.query_prefix) == (3, "query: ")


def test_an_address_in_the_database_makes_the_same_provider_as_one_that_is_set() -> None:
    found = reached({"url": "http://registry:8080"})
    assert found is not None
    assert found.provider == "sentence_transformers"


def test_a_model_that_nobody_serves_is_none_of_ours() -> None:
    assert reached(None) is None


def test_a_model_that_is_off_here_is_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_PROVIDER", "off")
    assert reached(SERVED) is None


def test_what_is_set_here_comes_first_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for what, value in {"PROVIDER": "openai", "URL": "http://ours:1/v1", "DIMENSIONS": "8", "API_KEY": "ours"}.items():
        monkeypatch.setenv(f"ROWVEC_MODEL_FIRST_{what}", value)
    found = reached({**SERVED, "concurrency": 3})
    assert found == load_settings().models["first"]
    assert found is not None
    assert (found.provider, str(found.url), found.concurrency) == ("openai", "http://ours:1/v1", 1)


def test_what_is_set_here_beside_the_address_completes_what_the_database_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_CONCURRENCY", "5")
    found = reached({**SERVED, "concurrency": 3, "timeout_seconds": 7})
    assert found is not None
    assert (found.provider, found.concurrency, found.timeout_seconds) == ("tei", 5, 7.0)


def test_a_key_goes_to_no_address_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_API_KEY", "hidden")
    said = unreachable(SERVED)
    assert "Set ROWVEC_MODEL_FIRST_URL too: a key goes only to an address that is set beside it." in said
    assert "hidden" not in said


def test_a_key_is_not_taken_along_where_there_is_no_address_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_API_KEY", "hidden")
    found = reached({"provider": "deterministic"})
    assert found is not None
    assert found.api_key is None


def test_a_key_alone_makes_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_API_KEY", "hidden")
    assert "first" not in load_settings().active_models
    assert reached(None) is None


@pytest.mark.parametrize(
    ("served", "said"),
    [
        ({**SERVED, "window": 512}, "ROWVEC_MODEL_FIRST_WINDOW"),
        ({"provider": "a_newer_one", "url": "http://registry:8080"}, "ROWVEC_MODEL_FIRST_PROVIDER"),
        ({"provider": "tei"}, "ROWVEC_MODEL_FIRST_URL"),
        ({**SERVED, "provider": ["tei"]}, "ROWVEC_MODEL_FIRST_PROVIDER"),
        ({**SERVED, "url": "http://user:hidden@registry"}, "ROWVEC_MODEL_FIRST_URL"),
        ({**SERVED, "url": ["hidden"]}, "ROWVEC_MODEL_FIRST_URL"),
        ({**SERVED, "api_key": "hidden"}, "ROWVEC_MODEL_FIRST_API_KEY"),
        ({**SERVED, "dimensions": 16}, "is set to 16 dimensions, but its table holds 8"),
        ({"provider": "off"}, "no provider"),
        ({}, "no provider"),
    ],
)
def test_what_the_database_says_is_checked_like_a_setting(served: dict[str, Any], said: str) -> None:
    told = unreachable(served)
    assert said in told
    assert "hidden" not in told


def test_a_model_of_another_length_is_refused_whoever_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_PROVIDER", "deterministic")
    monkeypatch.setenv("ROWVEC_MODEL_FIRST_DIMENSIONS", "16")
    assert "is set to 16 dimensions, but its table holds 8" in unreachable(SERVED)


def test_the_prefixes_of_a_known_model_are_known_for_the_database_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_BGE_M3_CONCURRENCY", "2")
    found = reached(SERVED, "bge_m3", 1024)
    assert found is not None
    assert (found.provider, found.concurrency) == ("tei", 2)


# --- The token of the pages for operators ----------------------------------------------------------------


def test_the_token_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().api_token is None
    monkeypatch.setenv("ROWVEC_API_TOKEN", "hidden")
    found = load_settings()
    assert found.api_token is not None
    assert found.api_token.get_secret_value() == "hidden"
    assert "hidden" not in repr(found)


def test_the_token_may_be_a_credential(credentials: Path) -> None:
    (credentials / "ROWVEC_API_TOKEN").write_text("hidden\n")
    found = load_settings()
    assert found.api_token is not None
    assert found.api_token.get_secret_value() == "hidden"


def test_a_token_that_no_header_can_bear_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_API_TOKEN", "two words")
    assert "ROWVEC_API_TOKEN" in refusal()
