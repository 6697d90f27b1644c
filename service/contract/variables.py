"""The names of all ``PLUMBLINE_…`` variables: one that nobody reads was misspelt, and would do nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from service.contract.errors import SettingsError

PREFIX = "PLUMBLINE_"

# Settings of the server and the monitor together: each is installed without the other, and they share their variables.
SETTINGS = frozenset(
    [
        "admin_keys",
        "alert_from",
        "alertmanager_url",
        "api_keys",
        "batch_tokens",
        "body_seconds",
        "compress_bytes",
        "confirm_windows",
        "cooldown_seconds",
        "cors_origins",
        "cuda_graphs",
        "device",
        "drain_seconds",
        "accuracy_alerts",
        "accuracy_tolerance",
        "drift_alpha",
        "drift_effect_scale",
        "evidence_threshold",
        "grace_seconds",
        "head_seconds",
        "host",
        "keep_alive_seconds",
        "log",
        "log_format",
        "log_fsync_seconds",
        "log_queue",
        "log_quota_bytes",
        "log_requests",
        "log_sample",
        "log_seal_bytes",
        "log_seal_seconds",
        "log_text",
        "log_upload",
        "log_upload_seconds",
        "max_bodies_bytes",
        "max_body_bytes",
        "max_connections",
        "max_connections_per_address",
        "max_head_bytes",
        "max_headers",
        "max_items",
        "min_body_rate",
        "min_rows",
        "model",
        "monitor_host",
        "monitor_poll_seconds",
        "monitor_port",
        "monitor_state",
        "monitor_url",
        "poll_seconds",
        "port",
        "public_url",
        "queue_tokens",
        "redact_rules",
        "repo",
        "reports_kept",
        "request_timeout_seconds",
        "resolve_seconds",
        "resolve_windows",
        "retrain",
        "retrain_airflow",
        "retrain_command",
        "retrain_daily_cap",
        "retrain_github",
        "retrain_github_api",
        "retrain_job",
        "retrain_timeout",
        "retrain_token",
        "retrain_url",
        "root_path",
        "threads",
        "tls_cert",
        "tls_key",
        "tracing",
        "trusted_hosts",
        "unix_socket",
        "webhook_backoff",
        "webhook_secret",
        "webhook_timeout",
        "webhook_unsigned",
        "webhook_urls",
        "window_rows",
        "window_seconds",
        "workers",
    ]
)
# What a retrain, the load test and tests are told.
OTHERS = frozenset(["event", "event_id", "model", "loadtest_key", "data", "write_docs"])
# Kubernetes and Docker tell of services called plumbline-… in such variables.
_OF_OTHERS = re.compile(r".*_SERVICE_(HOST|PORT(_.*)?)|(.*_)?PORT_\d+_(TCP|UDP)(_.*)?|.+_PORT")


def check_variables(given: Iterable[str], more: Iterable[str] = ()) -> None:
    """
    :param more: names of settings beside those that are known here.
    :raises SettingsError: naming the first variable that nobody reads, and the one that was probably meant.
    """
    known = SETTINGS | OTHERS | set(more)
    for variable in sorted(given):
        name = variable.removeprefix(PREFIX)
        if name == variable or name.lower().removesuffix("_file") in known or _OF_OTHERS.fullmatch(name):
            continue
        near = difflib.get_close_matches(name.lower().removesuffix("_file"), sorted(known), 1, 0.6)
        meant = f" Do you mean {PREFIX}{near[0].upper()}?" if near else ""
        raise SettingsError(
            f"{variable} is no setting.{meant} `plumbline config` shows all; unset it if it is not meant."
        )
