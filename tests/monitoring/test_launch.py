"""Retrains that run elsewhere, asked for over HTTP of real servers that play the other side."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.delivery.kubernetes_job import job_for, read_job
from monitoring.delivery.launch import airflow_sender, cluster_address, github_sender, job_sender
from monitoring.delivery.messages import retrain_event
from monitoring.delivery.outbox import Delivery, Kind, Outcome
from monitoring.settings import MonitorSettings
from service.contract.errors import SettingsError
from service.contract.settings import load_settings
from tests.monitoring.test_outbox import NOW, data

JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "retrain", "labels": {"app": "plumbline"}},
    "spec": {
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "initContainers": [{"name": "fetch", "image": "fetch"}],
                "containers": [
                    {
                        "name": "retrain",
                        "image": "export",
                        "env": [{"name": "A", "value": "1"}, {"name": "PLUMBLINE_EVENT"}],
                    }
                ],
            }
        }
    },
}
TOKEN = "token-of-the-account"
EVENT = retrain_event(data(), NOW)


def delivery(kind: Kind, target: str) -> Delivery:
    return Delivery(1, EVENT.id, EVENT.type, "tickets", kind, target, EVENT.to_json(), 0)


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Api:
    """A server on loopback that keeps what it is asked and answers as it is told."""

    address: str = ""
    status: int = 201
    answer: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    asked: list[Asked] = field(default_factory=list)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1 that is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "ca.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=api"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", made),
        ],
        check=True,
        capture_output=True,
    )
    return key, made


def serve(api: Api, context: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            api.asked.append(Asked("POST", self.path, headers, json.loads(body)))
            time.sleep(api.delay)
            answer = json.dumps(api.answer).encode()
            self.send_response(api.status)
            for name, value in {**api.headers, "content-length": str(len(answer))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    api.address = f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
    return server


@pytest.fixture
def api() -> Iterator[Api]:
    found = Api()
    server = serve(found)
    yield found
    server.shutdown()
    server.server_close()


Create = Callable[[], Outcome]


class TestKubernetes:
    @pytest.fixture
    def cluster(self, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
        key, made = certificate
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made, key)
        found = Api()
        server = serve(found, context)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_address[1]))
        yield found
        server.shutdown()
        server.server_close()

    @pytest.fixture
    def create(self, tmp_path: Path, certificate: tuple[Path, Path]) -> Create:
        """Asks for the Job, with the pod's account in a folder of the test."""
        (tmp_path / "token").write_text(TOKEN + "\n")
        (tmp_path / "namespace").write_text("models")
        (tmp_path / "ca.crt").write_bytes(certificate[1].read_bytes())
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
        send = job_sender(1.0, tmp_path)
        return lambda: send(delivery("retrain-job", str(tmp_path / "job.yaml")))

    def test_a_job_is_created_with_the_event_in_its_environment(self, cluster: Api, create: Create) -> None:
        assert create() == Outcome("delivered")
        (asked,) = cluster.asked
        assert asked.path == "/apis/batch/v1/namespaces/models/jobs"
        assert asked.headers["authorization"] == f"Bearer {TOKEN}"
        assert asked.headers["content-type"] == "application/json"
        job = asked.body
        assert job["metadata"]["name"].startswith("retrain-")
        assert job["metadata"]["labels"] == {"app": "plumbline"}
        assert job["metadata"]["annotations"] == {"plumbline/event": EVENT.id}
        pod = job["spec"]["template"]["spec"]
        for container in (*pod["containers"], *pod["initContainers"]):
            environment = {one["name"]: one.get("value") for one in container["env"]}
            assert json.loads(environment["PLUMBLINE_EVENT"] or "")["id"] == EVENT.id
            assert environment["PLUMBLINE_EVENT_ID"] == EVENT.id
            assert environment["PLUMBLINE_MODEL"] == "tickets"
        assert len(pod["containers"][0]["env"]) == 4  # its own variable, and each of ours once
        assert pod["containers"][0]["env"][0] == {"name": "A", "value": "1"}

    def test_the_same_event_asks_for_the_same_job_and_one_that_exists_is_fine(
        self, cluster: Api, create: Create
    ) -> None:
        create()
        cluster.status, cluster.answer = 409, {"kind": "Status", "reason": "AlreadyExists", "message": "it exists"}
        assert create() == Outcome("delivered")
        assert cluster.asked[0].body == cluster.asked[1].body

    def test_a_token_that_was_rotated_is_used(self, cluster: Api, create: Create, tmp_path: Path) -> None:
        create()
        (tmp_path / "token").write_text("the next one")
        create()
        assert cluster.asked[1].headers["authorization"] == "Bearer the next one"

    def test_what_is_forbidden_is_not_tried_again_and_says_what_is_missing(self, cluster: Api, create: Create) -> None:
        cluster.status, cluster.answer = 403, {"kind": "Status", "message": 'jobs.batch is forbidden: User "x"'}
        outcome = create()
        assert outcome.result == "refused"
        assert outcome.error == (
            'may not or cannot create jobs.batch in namespace models: 403 jobs.batch is forbidden: User "x"'
        )
        assert TOKEN not in str(outcome)

    @pytest.mark.parametrize("status", [500, 503, 429])
    def test_a_fault_of_the_api_is_tried_again(self, cluster: Api, create: Create, status: int) -> None:
        cluster.status, cluster.headers = status, {"retry-after": "7"}
        outcome = create()
        assert (outcome.result, outcome.retry_after) == ("failed", 7)

    def test_an_api_that_hangs_is_tried_again(self, cluster: Api, create: Create) -> None:
        cluster.delay = 1.5
        outcome = create()
        assert outcome.result == "failed"
        assert "no answer within 1 s" in (outcome.error or "")

    def test_a_server_that_the_authority_does_not_know_gets_no_token(
        self, cluster: Api, create: Create, tmp_path: Path
    ) -> None:
        made = ("-subj", "/CN=x", "-keyout", tmp_path / "key", "-out", tmp_path / "ca.crt")
        openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made]
        subprocess.run(openssl, check=True, capture_output=True)
        outcome = create()
        assert outcome.result == "failed"
        assert "CERTIFICATE_VERIFY_FAILED" in (outcome.error or "")
        assert cluster.asked == []

    def test_a_missing_account_is_said(self, cluster: Api, create: Create, tmp_path: Path) -> None:
        (tmp_path / "token").unlink()
        assert "token" in (create().error or "")

    @pytest.mark.parametrize(
        ("name", "wanted"),
        [("retrain", "retrain-"), ("A_Model.x", "a-model-x-"), ("x" * 80, "x" * 41 + "-"), (None, "retrain-")],
    )
    def test_names_are_what_kubernetes_takes(self, name: str | None, wanted: str) -> None:
        made = job_for({**JOB, "metadata": {"name": name}}, EVENT.id, "tickets", b"{}")["metadata"]["name"]
        assert made.startswith(wanted)
        assert len(made) <= 52

    def test_outside_of_a_cluster_it_does_not_start(self) -> None:
        with pytest.raises(
            SettingsError, match=r"KUBERNETES_SERVICE_HOST here\. Elsewhere use PLUMBLINE_RETRAIN_COMMAND"
        ):
            cluster_address({})
        assert cluster_address({"KUBERNETES_SERVICE_HOST": "fd00::1"}) == "https://[fd00::1]:443"

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("kind: Deployment", "give the manifest of one Job"),
            ("{", "neither YAML nor JSON"),
            ("", "give the manifest of one Job"),
            ("apiVersion: batch/v1\nkind: Job\nspec: {}", "no spec.template.spec.containers"),
        ],
    )
    def test_a_file_that_is_no_job_is_refused(self, tmp_path: Path, content: str, says: str) -> None:
        (tmp_path / "job.yaml").write_text(content)
        with pytest.raises(ValueError, match=says):
            read_job(tmp_path / "job.yaml")


class TestGitHub:
    def send(self, api: Api) -> Outcome:
        return github_sender(TOKEN, api.address, 1.0)(delivery("retrain-github", "some/repository"))

    def test_a_workflow_is_dispatched(self, api: Api) -> None:
        api.status = 204
        assert self.send(api) == Outcome("delivered")
        (asked,) = api.asked
        assert asked.path == "/repos/some/repository/dispatches"
        assert asked.headers["accept"] == "application/vnd.github+json"
        assert asked.headers["x-github-api-version"] == "2022-11-28"
        assert asked.headers["authorization"] == f"Bearer {TOKEN}"
        assert asked.headers["user-agent"] == "plumbline-monitor"
        assert asked.body["event_type"] == "plumbline-retrain"
        payload = asked.body["client_payload"]
        assert len(payload) <= 10
        assert payload["event_id"] == EVENT.id
        assert payload["model"]["model"] == "tickets"
        assert payload["event"]["id"] == EVENT.id

    @pytest.mark.parametrize(
        ("status", "headers", "result"),
        [
            (404, {}, "refused"),
            (401, {}, "refused"),
            (422, {}, "refused"),
            (403, {}, "refused"),
            (403, {"x-ratelimit-remaining": "0"}, "failed"),
            (429, {"retry-after": "60"}, "failed"),
            (502, {}, "failed"),
        ],
    )
    def test_only_what_may_change_is_tried_again(
        self, api: Api, status: int, headers: dict[str, str], result: str
    ) -> None:
        api.status, api.headers, api.answer = status, headers, {"message": "Not Found"}
        outcome = self.send(api)
        assert outcome.result == result
        assert f"dispatch to some/repository: {status} Not Found" in (outcome.error or "")


class TestAirflow:
    def send(self, api: Api, version: str) -> Outcome:
        target = f"{api.address}/api/{version}/dags/retrain/dagRuns"
        return airflow_sender(TOKEN, 1.0)(delivery("retrain-airflow", target))

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_a_run_is_started_under_the_events_name(self, api: Api, version: str) -> None:
        api.status = 200
        assert self.send(api, version) == Outcome("delivered")
        (asked,) = api.asked
        assert asked.path == f"/api/{version}/dags/retrain/dagRuns"
        assert asked.headers["authorization"] == f"Bearer {TOKEN}"
        assert asked.body["dag_run_id"] == f"plumbline-{EVENT.id}"
        assert asked.body["conf"]["event"]["id"] == EVENT.id
        assert ("logical_date" in asked.body) == (version == "v2")

    def test_a_run_that_exists_is_fine(self, api: Api) -> None:
        api.status, api.answer = 409, {"detail": "exists"}
        assert self.send(api, "v2") == Outcome("delivered")

    def test_a_dag_that_is_not_there_is_refused(self, api: Api) -> None:
        api.status, api.answer = 404, {"detail": "DAG retrain not found"}
        assert self.send(api, "v2") == Outcome(
            "refused", "may not or cannot start a DAG run: 404 DAG retrain not found"
        )


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"RETRAIN_GITHUB": "here"}, "PLUMBLINE_RETRAIN_GITHUB is 'here': give owner/repository"),
            ({"RETRAIN_AIRFLOW": "https://airflow/dags", "RETRAIN_TOKEN": "x"}, "give the whole URL"),
            ({"RETRAIN_GITHUB": "a/b"}, "PLUMBLINE_RETRAIN_GITHUB needs PLUMBLINE_RETRAIN_TOKEN"),
            ({"RETRAIN_JOB": "/no/such/file"}, "PLUMBLINE_RETRAIN_JOB is '/no/such/file': the file cannot be read"),
            (
                {"RETRAIN_COMMAND": "true", "RETRAIN_URL": "http://x/"},
                "PLUMBLINE_RETRAIN_COMMAND and PLUMBLINE_RETRAIN_URL are set. Keep one of them",
            ),
        ],
    )
    def test_what_cannot_work_is_refused_at_start(
        self, given: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in given.items():
            monkeypatch.setenv(f"PLUMBLINE_{name}", value)
        with pytest.raises(SettingsError) as error:
            load_settings(MonitorSettings)
        assert says in str(error.value)

    def test_the_token_may_lie_in_a_file_and_is_not_shown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "token").write_text(TOKEN + "\n")
        monkeypatch.setenv("PLUMBLINE_RETRAIN_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("PLUMBLINE_RETRAIN_GITHUB", "some/repository")
        settings = load_settings(MonitorSettings)
        assert settings.retrain_target == ("retrain-github", "some/repository")
        assert TOKEN not in repr(settings)
