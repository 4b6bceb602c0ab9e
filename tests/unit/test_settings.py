from __future__ import annotations

import os
from pathlib import Path

import pytest

from rowvec.domain.errors import ConfigurationError
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
    assert found.models == {"e5_small": ModelSettings(provider="embedded", dimensions=384)}


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
    assert load_settings().models == {"e5_small": ModelSettings(concurrency=4)}


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
