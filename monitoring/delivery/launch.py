"""Retrains that run elsewhere: as a Kubernetes Job, a GitHub workflow or an Airflow DAG run.

Each gets what the retrain command gets: the event, its id and the model. All are asked for at least once: a repeated
request for a Job or a DAG run meets the one that is there (409) and is done; GitHub starts a second workflow, which its
``concurrency`` can keep from running.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from monitoring.delivery.http_post import Answered, NotAnswered, post
from monitoring.delivery.kubernetes_job import job_for, read_job
from monitoring.delivery.outbox import Delivery, Kind, Outcome, Sender
from monitoring.delivery.webhook import USER_AGENT, retry_after_seconds
from service.contract.errors import SettingsError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MOST_PAYLOAD = 60_000  # bytes; GitHub takes a little more in client_payload
_REFUSED = range(400, 500)  # what no retry changes, but for those in _LATER
_LATER = (408, 425, 429)
_EXISTS = 409


def launchers(token: str, github_api: str, timeout: float) -> dict[Kind, Sender]:
    """A sender for each way to have a retrain run elsewhere; ``timeout`` in seconds."""
    return {
        "retrain-job": job_sender(timeout),
        "retrain-github": github_sender(token, github_api, timeout),
        "retrain-airflow": airflow_sender(token, timeout),
    }


def cluster_address(environment: Mapping[str, str] = os.environ) -> str:
    """The API server's address as a pod knows it. :raises SettingsError: outside of a cluster."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise SettingsError(
            "PLUMBLINE_RETRAIN_JOB creates Jobs in the cluster that the monitor runs in, and there is no "
            "KUBERNETES_SERVICE_HOST here. Elsewhere use PLUMBLINE_RETRAIN_COMMAND."
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def job_sender(timeout: float, account: Path = ACCOUNT) -> Sender:
    """Creates a Job with the pod's own service account; its token is read anew each time, since it is rotated."""

    def send(delivery: Delivery) -> Outcome:
        try:
            job = job_for(read_job(Path(delivery.target)), delivery.event, delivery.model, delivery.body)
            token = (account / "token").read_text().strip()
            namespace = job["metadata"].get("namespace") or (account / "namespace").read_text().strip()
            trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
            address = cluster_address()
        except (ValueError, OSError, SettingsError) as error:
            return Outcome("failed", f"no Job can be created: {error}"[:300])
        url = f"{address}/apis/batch/v1/namespaces/{namespace}/jobs"
        return _post(url, job, token, f"create jobs.batch in namespace {namespace}", timeout, trusted=trusted)

    return send


def github_sender(token: str, api: str, timeout: float) -> Sender:
    """Starts the workflows of ``owner/repository`` that listen to ``repository_dispatch`` of our type."""

    def send(delivery: Delivery) -> Outcome:
        event = orjson.loads(delivery.body)
        data = event["data"]
        payload = {"event_id": delivery.event, "model": data["model"], "reason": data["reason"], "time": event["time"]}
        whole = payload | {"event": event}
        fits = len(orjson.dumps(whole)) <= _MOST_PAYLOAD
        body = {"event_type": "plumbline-retrain", "client_payload": whole if fits else payload}
        headers = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}
        url = f"{api.rstrip('/')}/repos/{delivery.target}/dispatches"
        return _post(url, body, token, f"dispatch to {delivery.target}", timeout, headers, _is_rate_limit)

    return send


def airflow_sender(token: str, timeout: float) -> Sender:
    """Starts a run of the DAG whose ``…/dags/NAME/dagRuns`` the target is, by Airflow's stable API v1 or v2."""

    def send(delivery: Delivery) -> Outcome:
        body: dict[str, Any] = {
            "dag_run_id": f"plumbline-{delivery.event}",
            "conf": {"event": orjson.loads(delivery.body), "event_id": delivery.event, "model": delivery.model},
        }
        if "/api/v1/" not in delivery.target:
            body["logical_date"] = None  # which the second version asks for
        return _post(delivery.target, body, token, "start a DAG run", timeout)

    return send


def _is_rate_limit(response: Answered) -> bool:
    """GitHub answers 403 for that, too."""
    return "retry-after" in response.headers or response.headers.get("x-ratelimit-remaining") == "0"


def _post(
    url: str,
    body: Mapping[str, Any],
    token: str,
    what: str,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    later: Callable[[Answered], bool] = lambda response: False,
    trusted: ssl.SSLContext | None = None,
) -> Outcome:
    """One request; ``later`` says which refusals are only for now."""
    sent = {"user-agent": USER_AGENT, "authorization": f"Bearer {token}", "content-type": "application/json"}
    try:
        response = post(url, orjson.dumps(body), sent | dict(headers or {}), timeout, trusted)
    except NotAnswered as error:
        return Outcome("failed", str(error))
    status = response.status
    if 200 <= status < 300 or status == _EXISTS:
        return Outcome("delivered")
    error_text = f"may not or cannot {what}: {status} {_said(response)}"[:300]
    if status in _REFUSED and status not in _LATER and not later(response):
        return Outcome("refused", error_text)
    return Outcome("failed", error_text, retry_after_seconds(response.headers.get("retry-after"), datetime.now(UTC)))


def _said(response: Answered) -> str:
    """What the other side gives as its reason."""
    try:
        content = orjson.loads(response.content)
    except ValueError:
        return " ".join(response.content.decode(errors="replace").split())[:200]
    found = content.get("message") or content.get("detail") or content.get("title") if isinstance(content, dict) else ""
    return str(found or "")[:200]
