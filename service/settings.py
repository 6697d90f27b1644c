"""Settings of the service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from service.contract.settings import Settings
from service.terminal.logs import LogFormat


class ServiceSettings(Settings):
    """Everything that ``plumbline serve`` can be told, by option or ``PLUMBLINE_…`` variable."""

    repo: Path = Field(default=Path("models"), description="the model repository to serve from")
    api_keys: SecretStr | None = Field(
        default=None, description="SHA-256 of each key that may predict, hex, separated by spaces; see `plumbline key`"
    )
    admin_keys: SecretStr | None = Field(
        default=None, description="the same for keys that may also load and unload models"
    )
    log: Path | None = Field(default=None, description="folder of the inference log; nothing is logged without it")
    model: str | None = Field(
        default=None,
        description="model that answers where a request names none; without it the one that was published first",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    trusted_hosts: tuple[str, ...] = Field(
        default=(),
        description="names the server is asked by, beside IP addresses and localhost, separated by commas; * for any. "
        "Without it, others are refused on loopback only",
    )
    unix_socket: Path | None = Field(
        default=None, description="socket to listen on instead of address and port, for a proxy on the same machine"
    )
    tls_cert: Path | None = Field(
        default=None, description="PEM file of the certificate with its chain; read again when it changes"
    )
    tls_key: Path | None = Field(default=None, description="PEM file of its key, without a password")
    root_path: str = Field(
        default="",
        description="prefix under which a proxy shows the server, as /plumbline; taken off if it is left on",
    )
    cors_origins: tuple[str, ...] = Field(
        default=(),
        description="origins whose pages may use the server, https://app.example.com, separated by commas; * for any",
    )
    monitor_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="where people reach the monitor; the status page links there",
    )
    compress_bytes: int = Field(
        default=16 * 2**10, ge=0, description="size from which answers go as gzip to clients that take it; 0 for never"
    )
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where models run")
    workers: int = Field(
        default=1, ge=1, le=256, description="processes on one port; on a GPU each has a session there"
    )
    threads: int = Field(
        default=0, ge=0, le=256, description="inference threads of each worker; 0 shares the usable cores among them"
    )
    cuda_graphs: bool = Field(
        default=False,
        description="on CUDA, capture a graph for each shape of a batch: a slower start, faster small batches",
    )
    poll_seconds: float = Field(default=1.0, gt=0, le=3600, description="how often the repository is looked at")
    log_format: LogFormat = Field(default="text", description="lines on stderr: for people, or one JSON object each")
    log_requests: bool = Field(default=False, description="a line on stderr for each request")
    tracing: bool = Field(
        default=False, description="send OpenTelemetry traces by OTLP, as the standard OTEL_… variables say"
    )
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024, description="largest request body")
    max_items: int = Field(default=256, ge=1, le=65536, description="most texts in one request")
    batch_tokens: int = Field(
        default=0, ge=0, description="most padded tokens in one batch; 0 takes what was measured at warm-up"
    )
    queue_tokens: int = Field(
        default=0,
        ge=0,
        description="tokens waiting or running before requests are refused; 0 takes a second's work, as measured, and "
        "four requests in any case",
    )
    request_timeout_seconds: float = Field(default=30.0, gt=0, description="deadline of a request that names none")
    keep_alive_seconds: int = Field(
        default=120,
        ge=1,
        le=3600,
        description="how long an idle connection stays open; let it be longer than with the proxy or client in front",
    )
    max_connections: int = Field(
        default=1000, ge=1, le=100_000, description="most connections of each worker; the silent ones make room first"
    )
    max_connections_per_address: int = Field(
        default=0, ge=0, description="most connections from one address; 0 for no limit, as behind a proxy"
    )
    max_head_bytes: int = Field(
        default=32 * 2**10, ge=2048, le=2**20, description="largest head of a request; one line may have half of it"
    )
    max_headers: int = Field(default=100, ge=8, le=10_000, description="most headers of a request")
    head_seconds: float = Field(
        default=20.0, gt=0, le=3600, description="how long a head may take, and the first on a new connection to come"
    )
    body_seconds: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="time in which the least rate of a body, and of a client that takes its answer, is looked at",
    )
    min_body_rate: int = Field(
        default=16 * 2**10,
        ge=1,
        description="fewest bytes a second of a body that goes on, and of an answer that is taken",
    )
    max_bodies_bytes: int = Field(
        default=64 * 2**20,
        ge=2**20,
        description="bytes of all bodies that a worker holds, beside the first 65536 of each; beyond them 503",
    )
    grace_seconds: float = Field(default=5.0, ge=0, description="work after SIGTERM, while readiness fails already")
    drain_seconds: int = Field(default=20, ge=0, description="how long answers may take after a signal to stop")
    log_text: Literal["redacted", "raw", "off"] = Field(
        default="redacted",
        description="how texts are logged: without emails, numbers and keys; as they are; not at all",
    )
    redact_rules: Path | None = Field(
        default=None, description="file of further patterns to redact, a line each: KIND, a space, a regular expression"
    )
    log_sample: float = Field(
        default=1.0, gt=0, le=1, description="share of the predictions that are logged, chosen by their ids"
    )
    log_upload: str | None = Field(
        default=None, description="URL that sealed segments are copied to: s3://bucket/folder, or any that fsspec knows"
    )
    log_upload_seconds: float = Field(default=30.0, gt=0, description="how often segments to copy are looked for")
    log_queue: int = Field(default=10_000, ge=1, description="records waiting for the disk before more are dropped")
    log_fsync_seconds: float = Field(default=0.1, gt=0, description="how often written records are forced to the disk")
    log_quota_bytes: int = Field(
        default=10 * 2**30,
        ge=2**20,
        description="size of the sealed log from which files are deleted, those with a copy first",
    )
    log_seal_seconds: float = Field(default=60.0, gt=0, description="age at which an open segment is sealed")
    log_seal_bytes: int = Field(default=64 * 2**20, ge=4096, description="size at which an open segment is sealed")

    @field_validator("api_keys", "admin_keys")
    @classmethod
    def _digests(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not digests(value):
            raise ValueError("it is empty, which would open the server; give digests or leave it unset")
        if not all(re.fullmatch("[0-9a-f]{64}", one) for one in digests(value)):
            raise ValueError("give SHA-256 digests of keys, 64 hex digits each, not the keys themselves")
        return value

    @field_validator("root_path")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if value and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value):
            raise ValueError("give a path that begins with / and does not end with one")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _pages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"{origin!r} is no origin; give scheme and host, as https://app.example.com, or *")
        return value

    @model_validator(mode="after")
    def _where_to_listen(self) -> ServiceSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("PLUMBLINE_TLS_CERT and PLUMBLINE_TLS_KEY belong together. Give both or neither")
        if self.unix_socket is not None and self.workers > 1:
            raise ValueError("workers share a port, and PLUMBLINE_UNIX_SOCKET is none. Set PLUMBLINE_WORKERS to 1")
        return self

    @field_validator("trusted_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("trusted_hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != "*" and not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
                raise ValueError(f"{name!r} is no name; give names without scheme, port or path, or * for any")
        return value

    @model_validator(mode="after")
    def _one_body_fits(self) -> ServiceSettings:
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ValueError("PLUMBLINE_MAX_BODIES_BYTES holds no body of PLUMBLINE_MAX_BODY_BYTES")
        return self

    @model_validator(mode="after")
    def _log_to_upload(self) -> ServiceSettings:
        if self.log_upload is not None and self.log is None:
            raise ValueError("PLUMBLINE_LOG_UPLOAD copies the log, and PLUMBLINE_LOG names none")
        return self


def digests(value: SecretStr | None) -> list[str]:
    """The digests in a setting."""
    return value.get_secret_value().lower().split() if value is not None else []
