"""Everything about the monitor that can be set, by ``PLUMBLINE_…`` variables or the command line."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from monitoring.delivery.kubernetes_job import read_job
from monitoring.judging.thresholds import ALPHA, TOLERANCE, Thresholds
from service.contract.errors import SettingsError
from service.contract.settings import Settings
from service.terminal.logs import LogFormat

if TYPE_CHECKING:
    from monitoring.delivery.outbox import Kind

_ALLOWED = "give whsec_ and the base64 of 24 to 64 bytes; `plumbline webhook secret` makes one"
BACKOFF = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0)


class MonitorSettings(Settings):
    """Settings of ``plumbline monitor``; durations are in seconds."""

    repo: Path = Field(default=Path("models"), description="the model repository")
    log: Path | None = Field(default=None, description="the folder that the server logs to")
    monitor_state: Path | None = Field(
        default=None, description="folder for state and reports; without it, `monitor` beside the log"
    )
    log_format: LogFormat = Field(default="text", description="lines on stderr: for people, or one JSON object each")
    monitor_host: str = Field(default="127.0.0.1", description="address that metrics and reports are served on")
    monitor_port: int = Field(
        default=8001, ge=0, le=65535, description="port that metrics and reports are served on; 0 picks a free one"
    )
    monitor_poll_seconds: float = Field(default=5.0, gt=0, description="pause between two looks at the log")
    window_rows: int = Field(default=500, ge=20, description="rows that make a window")
    window_seconds: float = Field(default=3600.0, gt=0, description="age at which a smaller window is judged")
    min_rows: int = Field(default=100, ge=20, description="fewest rows that are ever judged")
    drift_alpha: float = Field(default=ALPHA, ge=0.001, le=0.2, description="family-wise error rate of one window")
    drift_effect_scale: float = Field(default=1.0, gt=0, description="multiplies every signal's least effect")
    accuracy_tolerance: float = Field(
        default=100 * TOLERANCE, gt=0, le=100, description="points of accuracy that may be lost before it is critical"
    )
    alert_from: Literal["notice", "warning", "critical"] = Field(
        default="warning", description="least severity of a window that is told to people and asks for a retrain"
    )
    accuracy_alerts: bool = Field(
        default=True,
        description="whether labels that come back judge a window; false where mostly wrong answers are reported",
    )
    confirm_windows: int = Field(default=1, ge=1, description="drifted windows in a row before people are told")
    resolve_windows: int = Field(default=2, ge=1, description="fewest clean windows before drift is over")
    resolve_seconds: float = Field(
        default=3600.0,
        ge=0,
        description="time in which nearly all windows must be clean; drift that pauses for less is told once",
    )
    evidence_threshold: float = Field(
        default=10_000.0, gt=1, description="requests between two false alarms of the sequential detector, on average"
    )
    reports_kept: int = Field(default=50, ge=0, description="newest reports kept for each model; 0 writes none")
    public_url: str | None = Field(default=None, description="where this monitor's reports can be reached by people")
    webhook_urls: tuple[str, ...] = Field(default=(), description="URLs that events are sent to, separated by commas")
    webhook_secret: SecretStr | None = Field(
        default=None, description="signing secret whsec_…; several, separated by spaces, sign while one is replaced"
    )
    webhook_unsigned: bool = Field(
        default=False, description="whether events may go out without a signature where no secret is set"
    )
    webhook_timeout: float = Field(default=10.0, gt=0, description="longest wait for a receiver")
    webhook_backoff: tuple[float, ...] = Field(
        default=BACKOFF, description="waits between attempts of a delivery, separated by commas; then it is dead"
    )
    alertmanager_url: str | None = Field(default=None, description="an Alertmanager that gets drift as an alert")
    retrain: Literal["on", "dry-run", "off"] = Field(
        default="on", description="whether drift asks for a retrain; dry-run only says that it would"
    )
    retrain_command: str | None = Field(default=None, description="command run on a retrain request, without a shell")
    retrain_url: str | None = Field(default=None, description="URL that gets retrain requests as a signed POST")
    retrain_job: Path | None = Field(
        default=None, description="manifest of a Kubernetes Job that is created on a retrain request, in YAML or JSON"
    )
    retrain_github: str | None = Field(
        default=None, description="owner/repository that gets retrain requests as a repository_dispatch"
    )
    retrain_github_api: str = Field(
        default="https://api.github.com", description="GitHub's API; of an own server https://HOST/api/v3"
    )
    retrain_airflow: str | None = Field(
        default=None, description="URL of an Airflow DAG's runs, …/api/v2/dags/NAME/dagRuns, that gets retrain requests"
    )
    retrain_token: SecretStr | None = Field(default=None, description="token for GitHub or Airflow")
    cooldown_seconds: float = Field(default=21_600.0, ge=0, description="least time between two retrain requests")
    retrain_daily_cap: int = Field(default=4, ge=0, description="most retrain requests of a model in 24 hours")
    retrain_timeout: float = Field(default=86_400.0, gt=0, description="longest run of the retrain command")

    @property
    def log_folder(self) -> Path:
        """The log. :raises SettingsError: if none was given."""
        if self.log is None:
            raise SettingsError("the monitor needs the log: give --log or PLUMBLINE_LOG, as to `plumbline serve`.")
        return self.log

    @property
    def state_folder(self) -> Path:
        """Where state and reports are kept."""
        if self.monitor_state is not None:
            return self.monitor_state
        return self.log.absolute().parent / "monitor" if self.log is not None else Path("plumbline-monitor")

    @property
    def thresholds(self) -> Thresholds:
        """What decisions are made by."""
        return Thresholds(self.drift_alpha, self.drift_effect_scale, self.accuracy_tolerance / 100)

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The signing keys, newest first; empty if events are not signed."""
        if self.webhook_secret is None:
            return ()
        return tuple(decode_secret(secret) for secret in self.webhook_secret.get_secret_value().split())

    @property
    def unsigned(self) -> tuple[str, ...]:
        """The receivers that get events without a signature, because no secret is set."""
        if self.webhook_secret is not None:
            return ()
        return (*self.webhook_urls, *([self.retrain_url] if self.retrain_url else []))

    def check_signing(self) -> None:
        """:raises SettingsError: if events would go out unsigned and nobody said that they may."""
        if self.unsigned and not self.webhook_unsigned:
            raise SettingsError(
                f"events to {', '.join(self.unsigned)} would go out unsigned, so the receiver could not tell them from "
                "forged ones: no PLUMBLINE_WEBHOOK_SECRET is set. `plumbline webhook secret` makes one; "
                "PLUMBLINE_WEBHOOK_UNSIGNED=true sends them all the same."
            )

    @property
    def retrain_target(self) -> tuple[Kind, str] | None:
        """Where retrain requests go, as the outbox names it."""
        offered: tuple[tuple[Kind, object], ...] = (
            ("retrain-command", self.retrain_command),
            ("retrain-http", self.retrain_url),
            ("retrain-job", self.retrain_job),
            ("retrain-github", self.retrain_github),
            ("retrain-airflow", self.retrain_airflow),
        )
        return next(((kind, str(address)) for kind, address in offered if address is not None), None)

    @property
    def command(self) -> tuple[str, ...]:
        """The retrain command split into words; empty if there is none."""
        return tuple(shlex.split(self.retrain_command or ""))

    @field_validator("webhook_urls", "webhook_backoff", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator(
        "webhook_urls", "alertmanager_url", "retrain_url", "public_url", "retrain_github_api", "retrain_airflow"
    )
    @classmethod
    def _http(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for url in value if isinstance(value, tuple) else (value,):
            if url is not None:
                check_url(url)
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _decodable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            if not value.get_secret_value().split():
                raise ValueError(_ALLOWED)
            for secret in value.get_secret_value().split():
                decode_secret(secret)
        return value

    @field_validator("retrain_airflow")
    @classmethod
    def _runs(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/]+/.*dags/[^/]+/dagRuns", value):
            raise ValueError("give the whole URL, https://HOST/api/v2/dags/NAME/dagRuns")
        return value

    @field_validator("retrain_github")
    @classmethod
    def _repository(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            raise ValueError("give owner/repository")
        return value

    @field_validator("retrain_job")
    @classmethod
    def _job(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_job(value)
        return value

    @model_validator(mode="after")
    def _one_retrain(self) -> MonitorSettings:
        names = ("retrain_command", "retrain_url", "retrain_job", "retrain_github", "retrain_airflow")
        given = [f"PLUMBLINE_{name.upper()}" for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"a retrain is asked for in one way, and {' and '.join(given)} are set. Keep one of them")
        if self.retrain_token is None and (self.retrain_github or self.retrain_airflow):
            raise ValueError(
                f"{given[0]} needs PLUMBLINE_RETRAIN_TOKEN, or PLUMBLINE_RETRAIN_TOKEN_FILE that names its file"
            )
        return self

    @field_validator("retrain_command")
    @classmethod
    def _splittable(cls, value: str | None) -> str | None:
        if value is not None and not shlex.split(value):
            raise ValueError("give a command")
        return value


def check_url(url: str) -> None:
    """:raises ValueError: if nothing can be sent there, whoever listens."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme not in ("http", "https") or not host or port == 0 or re.search(r"[\x00-\x20\x7f]", url):
            raise ValueError
        if ":" not in host:  # no IPv6 address
            host.rstrip(".").encode("idna")  # no empty label, none over 63 characters
    except (ValueError, UnicodeError):
        raise ValueError("give a whole URL, http:// or https:// with a host that can exist") from None


def decode_secret(secret: str) -> bytes:
    """The key of ``whsec_`` + base64 (Standard Webhooks 1.0). :raises ValueError: if it is not 24 to 64 bytes."""
    try:
        if not secret.startswith("whsec_"):
            raise ValueError
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        if not 24 <= len(key) <= 64:
            raise ValueError
    except (ValueError, binascii.Error):
        raise ValueError(_ALLOWED) from None
    return key


def new_secret() -> str:
    """A random signing secret of 256 bits."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
