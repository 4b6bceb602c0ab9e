"""What is set about QStash, and which way the work goes by it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field, HttpUrl, SecretStr

from rowvec.domain.errors import ConfigurationError
from rowvec.domain.lanes import Lane
from rowvec.domain.tasks import Cron, Task, check_cron_line, check_zone

PUBLIC_KEYS: Final = frozenset({"sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r", "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"})
"""Those of the official development server: everybody knows them, so whoever likes can sign with them."""
_PUBLIC_ADDRESS: Final = ("SITE_URL", "BASE_URL", "NEXT_PUBLIC_SITE_URL", "NEXT_PUBLIC_APP_URL")


def _bare_address(url: HttpUrl) -> HttpUrl:
    if url.username or url.password or url.query or url.fragment:
        raise ValueError("it must be a bare address: no user, no password, no ? and no #")
    return url


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
Secret = Annotated[SecretStr, BeforeValidator(lambda value: value.strip() if isinstance(value, str) else value)]
Address = Annotated[HttpUrl, AfterValidator(_bare_address)]
CronLine = Annotated[str, AfterValidator(check_cron_line)]
Zone = Annotated[str, AfterValidator(check_zone)]
Lanes = Annotated[frozenset[Lane], BeforeValidator(_split)]
Strategy = Literal["auto", "database", "qstash"]


class QStashSettings(BaseModel):
    """The part of `Settings` that is about QStash, by the names of the original application where it had some."""

    strategy: Strategy = Field("auto", alias="EMBEDDING_QUEUE_STRATEGY")
    qstash_url: Address = Field(HttpUrl("https://qstash.upstash.io"), alias="QSTASH_URL")
    qstash_token: Secret | None = Field(None, alias="QSTASH_TOKEN")
    qstash_current_signing_key: Secret | None = Field(None, alias="QSTASH_CURRENT_SIGNING_KEY")
    qstash_next_signing_key: Secret | None = Field(None, alias="QSTASH_NEXT_SIGNING_KEY")
    qstash_queue_name: Name = Field("embedding-processor", alias="QSTASH_QUEUE_NAME")
    qstash_concurrency: Annotated[int, Field(ge=1, le=1000)] = Field(2, alias="QSTASH_CONCURRENCY")
    qstash_max_retries: Annotated[int, Field(ge=0, le=5)] = Field(3, alias="QSTASH_MAX_RETRIES")
    site_url: Address | None = Field(None, validation_alias=AliasChoices(*_PUBLIC_ADDRESS))
    qstash_lanes: Lanes = Field(frozenset({Lane.STANDARD, Lane.BULK}), alias="ROWVEC_QSTASH_LANES")
    qstash_message_items: Annotated[int, Field(ge=1, le=500)] = Field(32, alias="ROWVEC_QSTASH_MESSAGE_ITEMS")
    dispatch_deadline_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        30.0, alias="ROWVEC_DISPATCH_DEADLINE_SECONDS"
    )
    monitor_cron: CronLine = Field("*/5 * * * *", alias="ROWVEC_MONITOR_CRON")
    cleanup_cron: CronLine = Field("0 2 * * *", alias="ROWVEC_CLEANUP_CRON")
    retry_cron: CronLine = Field("0 3 * * 0", alias="ROWVEC_RETRY_CRON")
    cron_timezone: Zone = Field("UTC", alias="ROWVEC_CRON_TIMEZONE")
    keep_sent_days: Annotated[int, Field(ge=1, le=3650)] = Field(90, alias="ROWVEC_KEEP_SENT_DAYS")
    qstash_schedule_prefix: Name = Field("rowvec", alias="ROWVEC_QSTASH_SCHEDULE_PREFIX")
    development: bool = Field(default=False, alias="ROWVEC_DEVELOPMENT")

    @property
    def crons(self) -> dict[Task, Cron]:
        """When the daemons' tasks are due."""
        lines = {
            Task.MONITOR: self.monitor_cron,
            Task.CLEANUP: self.cleanup_cron,
            Task.RETRY_FAILED: self.retry_cron,
        }
        return {task: Cron(line, self.cron_timezone) for task, line in lines.items()}

    @property
    def missing_for_qstash(self) -> list[str]:
        """What keeps QStash from carrying the work, by the names of the variables."""
        token = self.qstash_token
        return ([] if token and token.get_secret_value() else ["QSTASH_TOKEN"]) + self.missing_for_messages

    @property
    def means_qstash(self) -> bool:
        """Whether anything shows that QStash is to carry the work, be it complete or not."""
        secrets = (self.qstash_token, self.qstash_current_signing_key, self.qstash_next_signing_key)
        begun = any(secret and secret.get_secret_value() for secret in secrets)
        return self.strategy == "qstash" or (self.strategy == "auto" and begun)

    @property
    def missing_for_messages(self) -> list[str]:
        """What keeps its messages from being taken: who sends them needs a token, who takes them does not."""
        keys = {
            "QSTASH_CURRENT_SIGNING_KEY": self.qstash_current_signing_key,
            "QSTASH_NEXT_SIGNING_KEY": self.qstash_next_signing_key,
        }
        missing = [name for name, secret in keys.items() if secret is None or not secret.get_secret_value()]
        missing += [] if self.site_url else [_PUBLIC_ADDRESS[0]]
        public = [name for name, key in keys.items() if key and key.get_secret_value() in PUBLIC_KEYS]
        return missing + ([] if self.development else [f"{name} (a public one is set)" for name in public])

    @property
    def uses_qstash(self) -> bool:
        """Whether QStash carries the work.

        Raises:
            ConfigurationError: it was asked for outright, and something is missing.
        """
        missing = self.missing_for_qstash
        if self.strategy == "qstash" and missing:
            raise ConfigurationError(
                f"QStash can't carry the work: {', '.join(missing)} missing.",
                "Set what is missing, or EMBEDDING_QUEUE_STRATEGY=database. The keys of the development server are "
                "taken with ROWVEC_DEVELOPMENT=true alone.",
            )
        return self.strategy == "qstash" or (self.strategy == "auto" and not missing)

    @property
    def why_not_qstash(self) -> str:
        """What keeps QStash from carrying the work; empty when it was asked not to, or when nothing does."""
        missing = self.missing_for_qstash if self.strategy == "auto" else []
        return f"For QStash to carry the work, set {', '.join(missing)}." if missing else ""
