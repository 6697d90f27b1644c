"""The chart, rendered by Helm's own engine: each object is valid, and what it names is there."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from helm_python import HelmError, HelmValuesError

from export import cli as export_cli
from helm import build_chart
from monitoring.delivery.kubernetes_job import job_for, read_job
from monitoring.settings import MonitorSettings
from service.contract.settings import PREFIX, Settings, _is_secret
from service.http.app import create_app
from service.http.keys import digest_of_key
from service.settings import ServiceSettings
from service.telemetry.metrics import Metrics
from tests.fakes import make_bundle
from tests.helm.chart import FOLDER, PROFILES, ROOT, SPECS, Object, Release, containers, profile, restricted
from tests.processes import free_port, plumbline, running

EACH = pytest.mark.parametrize("release", [profile(name) for name in PROFILES], ids=PROFILES)
OURS: dict[str, type[Settings]] = {"serve": ServiceSettings, "monitor": MonitorSettings}


def test_schema_and_readme_are_written_from_the_values() -> None:
    for path, content in build_chart.files().items():
        assert path.read_text() == content, "run make docs"


def test_a_value_without_a_comment_is_noticed() -> None:
    with pytest.raises(ValueError, match=r"serve\.new has no comment"):
        build_chart.read_values("# Servers.\nserve:\n  new: 1\n")


def test_helm_finds_nothing_wrong() -> None:
    found = helm_python.lint(str(FOLDER))
    assert not found["errors"]
    assert [one["error"] for one in found["messages"]] == ["icon is recommended"]


@EACH
def test_kubernetes_and_the_operators_accept_every_object(release: Release) -> None:
    for one in [*release.objects, *([release.job] if release.job else [])]:
        assert one["metadata"]["namespace"] == "ml"
        if one["kind"] in SPECS:
            jsonschema.validate(one["spec"], SPECS[one["kind"]])
        else:
            kubernetes_validate.validate(one, "1.31", strict=True)


def test_everything_that_the_chart_can_make_is_in_some_profile() -> None:
    made = {path.rpartition("templates/")[2] for name in PROFILES for path in profile(name).files}
    written = {str(path.relative_to(FOLDER / "templates")) for path in (FOLDER / "templates").rglob("*.yaml")}
    assert made - {"NOTES.txt"} == written


@EACH
def test_names_and_selectors_lead_to_just_one_kind_of_pod(release: Release) -> None:
    for one in release.all("Deployment"):
        assert release.selected(one["spec"]["selector"]["matchLabels"]) == [one["metadata"]["name"]]
    for kind, where in (
        ("Service", ("selector",)),
        ("PodDisruptionBudget", ("selector", "matchLabels")),
        ("NetworkPolicy", ("podSelector", "matchLabels")),
    ):
        for one in release.all(kind):
            selector: Any = one["spec"]
            for key in where:
                selector = selector[key]
            part = one["metadata"]["name"].rpartition("-")[2]
            assert release.selected(selector) == ["job" if part == "retrain" else one["metadata"]["name"]]
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for one in release.all(kind):
            assert release.get("Deployment", "serve")["metadata"]["name"] == one["spec"]["scaleTargetRef"]["name"]
            assert "replicas" not in release.get("Deployment", "serve")["spec"]
    for one in release.all("ServiceMonitor"):
        (service,) = [
            two
            for two in release.all("Service")
            if one["spec"]["selector"]["matchLabels"].items() <= two["metadata"]["labels"].items()
        ]
        (endpoint,) = one["spec"]["endpoints"]
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        assert endpoint["relabelings"][0]["replacement"] == service["metadata"]["name"]
    for kind, ask in (("Ingress", "service"), ("HTTPRoute", "backendRefs")):
        for one in release.all(kind):
            assert release.get("Service", "serve")["metadata"]["name"] in str(one["spec"])
            assert ask in str(one["spec"])


@EACH
def test_ports_and_probes_are_those_of_the_programs(release: Release, tmp_path: Path) -> None:
    routes = create_app(ServiceSettings(repo=tmp_path)).api.openapi()["paths"]
    pages = (ROOT / "monitoring" / "pages" / "server.py").read_text()
    for one in release.all("Deployment"):
        part = one["metadata"]["name"].rpartition("-")[2]
        (container,) = one["spec"]["template"]["spec"]["containers"]
        (port,) = container["ports"]
        settings = release.get("ConfigMap", part)["data"]
        assert settings[f"{PREFIX}{'MONITOR_' * (part == 'monitor')}PORT"] == str(port["containerPort"])
        assert settings[f"{PREFIX}{'MONITOR_' * (part == 'monitor')}HOST"] == "0.0.0.0"
        (reached,) = release.get("Service", part)["spec"]["ports"]
        assert reached["targetPort"] == port["name"]
        assert reached["port"] == port["containerPort"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == port["name"]
            assert asked["path"] in routes if part == "serve" else f'"{asked["path"]}"' in pages
        assert container["args"] == [part]
        assert f'CMD ["{part}"]' in (ROOT / "Dockerfile").read_text().splitlines()


@EACH
def test_every_variable_is_a_setting_and_the_program_takes_its_value(release: Release) -> None:
    for part, settings in OURS.items():
        for config in release.all("ConfigMap"):
            if config["metadata"]["name"] != f"plumbline-{part}":
                continue
            plain = {}
            for variable, value in config["data"].items():
                assert isinstance(value, str)
                name = variable.removeprefix(PREFIX).lower()
                if name not in settings.model_fields and name.endswith("_file"):
                    assert _is_secret(settings.model_fields[name.removesuffix("_file")])
                elif name not in ("retrain_job", "redact_rules"):  # whose files are in the pod
                    assert name in settings.model_fields, variable
                    plain[name] = value
            settings.model_validate(plain | ({"webhook_unsigned": True} if part == "monitor" else {}))


@EACH
def test_every_volume_is_there_and_used_and_every_file_in_one(release: Release) -> None:
    ours = {
        "persistentVolumeClaim": {one["metadata"]["name"] for one in release.all("PersistentVolumeClaim")},
        "configMap": {one["metadata"]["name"] for one in release.all("ConfigMap")} | {"kube-root-ca.crt"},
    }
    theirs = {str(value) for value in _leaves(release.values)}
    for name, _, spec in release.pods():
        volumes = {one["name"]: one for one in spec.get("volumes", [])}
        mounted = {mount["name"] for one in containers(spec) for mount in one.get("volumeMounts", [])}
        assert mounted == volumes.keys(), name
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in ours["persistentVolumeClaim"] | theirs
            assert volume.get("configMap", {}).get("name", "kube-root-ca.crt") in ours["configMap"]
            assert volume.get("secret", {}).get("secretName") in theirs | {None}
        for container in spec["containers"]:
            places = {mount["mountPath"]: volumes[mount["name"]] for mount in container.get("volumeMounts", [])}
            variables = {
                variable: value
                for source in container.get("envFrom", [])
                if "configMapRef" in source
                for variable, value in next(
                    one for one in release.all("ConfigMap") if one["metadata"]["name"] == source["configMapRef"]["name"]
                )["data"].items()
            }
            named = {str(Path(value).parent) for key, value in variables.items() if key.endswith("_FILE")}
            assert named == {place for place, volume in places.items() if "secret" in volume}
            for variable in ("REPO", "LOG", "MONITOR_STATE"):
                assert variables.get(PREFIX + variable) in {*places, None}
            for variable in ("REDACT_RULES", "RETRAIN_JOB"):
                if (found := variables.get(PREFIX + variable)) is not None:
                    config = places[str(Path(found).parent)]["configMap"]["name"]
                    assert Path(found).name in release.get("ConfigMap", config.removeprefix("plumbline-"))["data"]


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in _leaves(one)]
    if isinstance(value, list):
        return [leaf for one in value for leaf in _leaves(one)]
    return [value]


@EACH
def test_pods_pass_the_restricted_pod_security_standard(release: Release) -> None:
    for name, _, spec in release.pods():
        assert restricted(spec) == [], name
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        for container in containers(spec):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
            assert "limits" in container.get("resources", {"limits": {}})
    assert restricted({"containers": [{"name": "a"}]})  # it can say no


@EACH
def test_only_a_monitor_that_retrains_has_a_token_and_it_may_only_create_jobs(release: Release) -> None:
    with_token = [
        name
        for name, _, spec in release.pods()
        for volume in spec.get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    ]
    assert with_token == (["plumbline-monitor"] if release.job else [])
    assert all(one["automountServiceAccountToken"] is False for one in release.all("ServiceAccount"))
    accounts = {one["metadata"]["name"] for one in release.all("ServiceAccount")}
    assert {spec["serviceAccountName"] for _, _, spec in release.pods()} == accounts
    for role in release.all("Role"):
        assert role["rules"] == [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}]
    for binding in release.all("RoleBinding"):
        assert binding["roleRef"]["name"] in [one["metadata"]["name"] for one in release.all("Role")]
        (subject,) = binding["subjects"]
        assert subject["name"] == release.get("Deployment", "monitor")["spec"]["template"]["spec"]["serviceAccountName"]


@EACH
def test_a_server_gets_the_time_that_its_end_may_take(release: Release) -> None:
    spec = release.get("Deployment", "serve")["spec"]["template"]["spec"]
    chosen = release.values.get("serve", {}).get("settings", {})
    settings = ServiceSettings.model_validate({"log": "/log", **chosen})
    (sleep,) = re.findall(r"sleep\((\d+)\)", str(spec["containers"][0]["lifecycle"]["preStop"]))
    assert spec["terminationGracePeriodSeconds"] >= int(sleep) + settings.grace_seconds + settings.drain_seconds + 5


def test_a_longer_drain_is_given_more_time() -> None:
    settings = {"grace_seconds": 7.5, "drain_seconds": 60}
    spec = Release({"serve": {"settings": settings}}).get("Deployment", "serve")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 5 + math.ceil(7.5) + 60 + 10


def test_what_lies_on_one_node_keeps_pods_there_and_what_is_shared_spreads_them() -> None:
    alone, shared = profile("gpu"), profile("production")
    here = {"app.kubernetes.io/component": "serve"}
    for name, _, spec in alone.pods():
        if name in ("plumbline-monitor", "job"):
            (term,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            assert alone.selected(term["labelSelector"]["matchLabels"]) == ["plumbline-serve"]
            assert here.items() <= term["labelSelector"]["matchLabels"].items()
    assert alone.get("Deployment", "serve")["spec"]["strategy"]["type"] == "Recreate"
    assert all("affinity" not in spec for _, _, spec in shared.pods())
    serve = shared.get("Deployment", "serve")["spec"]
    assert serve["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    (spread,) = serve["template"]["spec"]["topologySpreadConstraints"]
    assert shared.selected(spread["labelSelector"]["matchLabels"]) == ["plumbline-serve"]


def test_a_change_of_settings_restarts_the_part_that_it_is_for_and_no_other() -> None:
    def pods(**values: Any) -> list[Any]:
        release = Release(values)
        return [release.get("Deployment", part)["spec"]["template"] for part in ("serve", "monitor")]

    serve, monitor = pods()
    changed, same = pods(serve={"settings": {"max_items": 7}})
    assert (changed != serve, same == monitor) == (True, True)
    same, changed = pods(monitor={"settings": {"window_rows": 700}})
    assert (same == serve, changed != monitor) == (True, True)


def test_numbers_reach_the_programs_as_they_were_written() -> None:
    settings = {"log_quota_bytes": 16_000_000_000, "request_timeout_seconds": 2.5, "log_requests": True, "model": "1"}
    data = Release({"serve": {"settings": settings}}).get("ConfigMap", "serve")["data"]
    assert data["PLUMBLINE_LOG_QUOTA_BYTES"] == "16000000000"
    assert data["PLUMBLINE_REQUEST_TIMEOUT_SECONDS"] == "2.5"
    assert data["PLUMBLINE_LOG_REQUESTS"] == "true"
    assert data["PLUMBLINE_MODEL"] == "1"
    sent = {
        "webhook_unsigned": True,
        "webhook_urls": ["http://a.example", "http://b.example"],
        "webhook_backoff": [1, 2],
    }
    data = Release({"monitor": {"settings": sent}}).get("ConfigMap", "monitor")["data"]
    assert data["PLUMBLINE_WEBHOOK_URLS"] == "http://a.example,http://b.example"
    assert data["PLUMBLINE_WEBHOOK_BACKOFF"] == "1,2"


def test_images_are_found_by_registry_tag_and_digest() -> None:
    digest = "sha256:" + "a" * 64
    values = {"image": {"registry": "r.example/team", "tag": "7"}, "monitor": {"digest": digest}}
    images = {name: spec["containers"][0]["image"] for name, _, spec in Release(values).pods()}
    assert images == {
        "plumbline-serve": "r.example/team/plumbline-serve:7",
        "plumbline-monitor": f"r.example/team/plumbline-monitor@{digest}",
        "plumbline-test": "r.example/team/plumbline-serve:7",
    }


def test_a_gpu_is_asked_for_and_used() -> None:
    release = profile("gpu")
    spec = release.get("Deployment", "serve")["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "2Gi", "nvidia.com/gpu": 1}
    assert release.get("ConfigMap", "serve")["data"]["PLUMBLINE_DEVICE"] == "cuda"
    assert spec["runtimeClassName"] == "nvidia"
    assert "PLUMBLINE_DEVICE" not in profile("default").get("ConfigMap", "serve")["data"]


def test_the_job_is_one_that_the_monitor_can_make_and_the_command_takes_its_arguments(tmp_path: Path) -> None:
    release = profile("production")
    manifest = tmp_path / "job.json"
    manifest.write_text(release.get("ConfigMap", "retrain")["data"]["job.json"])
    job = job_for(read_job(manifest), "plumbline.retrain.requested 1", "reviews", b"{}")
    kubernetes_validate.validate(job, "1.31", strict=True)
    assert job["metadata"]["name"].startswith("plumbline-retrain-")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["name"] == job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"]
    assert {one["name"] for one in container["env"]} == {"PLUMBLINE_EVENT", "PLUMBLINE_EVENT_ID", "PLUMBLINE_MODEL"}
    command, *arguments = container["args"]
    parsed = _parsed(command, arguments)
    places = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert places == {"/models": False, "/log": False, "/data": True, "/tmp": False}
    assert str(parsed["repo"]) == "/models"
    assert str(parsed["log"]) == "/log"
    assert parsed["train"].parent == parsed["eval_"].parent == Path("/data")
    assert (parsed["name"], parsed["epochs"]) == ("reviews", 3)


def _parsed(command: str, arguments: list[str]) -> dict[str, Any]:
    import typer

    app = typer.Typer()
    app.command(command)(getattr(export_cli, command))
    found = typer.main.get_command(app)
    return found.make_context(command, arguments).params


def ports(policy: Object) -> list[int]:
    return [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]


def test_network_policies_let_through_what_must_pass_and_nothing_else() -> None:
    release = profile("production")
    serve, monitor, retrain = (release.get("NetworkPolicy", part) for part in ("serve", "monitor", "retrain"))
    assert {one["metadata"]["name"] for one in release.all("NetworkPolicy")} == {
        f"plumbline-{part}" for part in ("serve", "monitor", "retrain")
    }
    (rule,) = serve["spec"]["ingress"]
    *others, test = rule["from"]
    network = release.values["networkPolicy"]
    assert others == [*network["clients"], *network["watchers"]]
    assert release.selected(test["podSelector"]["matchLabels"]) == ["plumbline-test"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]
    assert monitor["spec"]["ingress"] == [{"from": network["watchers"], "ports": [{"protocol": "TCP", "port": 8001}]}]
    assert "ingress" not in retrain["spec"]
    assert sorted(ports(serve)) == [53, 53, 4318]
    assert sorted(ports(monitor)) == [53, 53, 443, 6443, 8443, 9093]
    assert ports(retrain) == [53, 53]
    assert all(one["spec"]["policyTypes"] == ["Ingress", "Egress"] for one in release.all("NetworkPolicy"))


def test_network_policies_know_the_object_store_and_who_is_asked_for_retrains() -> None:
    stored = profile("object-storage")
    assert sorted(ports(stored.get("NetworkPolicy", "serve"))) == [53, 53, 443]
    assert sorted(ports(stored.get("NetworkPolicy", "monitor"))) == [53, 53, 443]
    for settings, port in (
        ({"retrain_github": "a/b"}, 443),
        ({"retrain_airflow": "http://airflow:8080/api/v2/dags/retrain/dagRuns"}, 8080),
    ):
        values = {
            "networkPolicy": {"enabled": True},
            "monitor": {"settings": settings, "retrainTokenSecret": "token"},
        }
        assert sorted(ports(Release(values).get("NetworkPolicy", "monitor"))) == [53, 53, port]


def test_an_empty_answer_is_not_taken_for_no_load() -> None:
    release = profile("keda")
    (scaled,) = release.all("ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert scaled["spec"]["fallback"]["replicas"] > 0
    assert scaled["spec"]["minReplicaCount"] == 0
    shared = {"log": {"accessMode": "ReadWriteMany"}, "repository": {"accessMode": "ReadWriteMany"}}
    (scaled,) = Release({"keda": {"enabled": True}, **shared}).all("ScaledObject")
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert query == 'sum(plumbline_queue_tokens{namespace="ml", service="plumbline-serve"})'
    assert "plumbline_queue_tokens" in {family.name for family in Metrics().registry.collect()}


def test_the_autoscaler_looks_at_what_the_adapter_offers() -> None:
    (scaler,) = profile("production").all("HorizontalPodAutoscaler")
    asked = {one["pods"]["metric"]["name"]: one["pods"]["target"] for one in scaler["spec"]["metrics"] if "pods" in one}
    rules = yaml.safe_load((ROOT / "examples" / "kubernetes" / "prometheus-adapter.yaml").read_text())["rules"][
        "custom"
    ]
    series = {re.match(r"\w+", rule["seriesQuery"]).group(): rule for rule in rules}  # type: ignore[union-attr]
    assert asked.keys() == {rule.get("name", {}).get("as", name) for name, rule in series.items()}
    ours = {family.name for family in Metrics().registry.collect()}
    assert {name.removesuffix("_bucket") for name in series} <= ours
    assert asked["plumbline_request_p95_seconds"]["averageValue"] == "250m"
    assert asked["plumbline_queue_tokens"]["averageValue"] == "2000"


def test_rules_and_dashboards_are_those_of_the_files() -> None:
    release = profile("production")
    rules = yaml.safe_load((FOLDER / "rules" / "plumbline.rules.yaml").read_text())
    (made,) = release.all("PrometheusRule")
    links = [one["annotations"].pop("runbook_url") for one in _alerts(made["spec"]["groups"])]
    named = [one["annotations"].pop("runbook_url") for one in _alerts(rules["groups"])]
    assert made["spec"] == rules
    assert links == [link.replace("docs/", "https://docs.example.com/plumbline/", 1) for link in named]
    dashboards = release.get("ConfigMap", "dashboards")["data"]
    assert dashboards == {f"plumbline-{one.name}": one.read_text() for one in (FOLDER / "dashboards").glob("*.json")}
    assert sum(map(len, dashboards.values())) < 2**20  # of a ConfigMap
    for kind, label in (("PrometheusRule", "release"), ("ServiceMonitor", "release")):
        assert all(one["metadata"]["labels"][label] == "prometheus" for one in release.all(kind))
    assert release.get("ConfigMap", "dashboards")["metadata"]["labels"]["grafana_dashboard"] == "1"


def _alerts(groups: list[Object]) -> list[Object]:
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


RETRAIN = {"enabled": True, "model": "m", "dataClaim": "d"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"autoscaling": {"enabled": True}, "keda": {"enabled": True}}, "exclude each other"),
    ({"serve": {"replicas": 3}}, "accessMode"),
    ({"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 2}}, "autoscaling.minReplicas is 3"),
    ({"autoscaling": {"enabled": True, "cpu": 0}}, "something to look at"),
    ({"keda": {"enabled": True, "minReplicas": 3, "maxReplicas": 2}}, "keda.minReplicas is 3"),
    ({"keda": {"enabled": True, "minReplicas": 0}}, "keda.query is empty"),
    ({"pdb": {"enabled": True}}, "pdb.minAvailable is 1 and there may be only 1"),
    ({"serve": {"settings": {"device": "cuda"}}}, "serve.gpus is 0"),
    ({"serve": {"gpus": 1, "settings": {"device": "cpu"}}}, "device is cpu"),
    ({"log": {"enabled": False}}, "monitor.enabled needs the log"),
    (
        {"log": {"enabled": False}, "monitor": {"enabled": False}, "serve": {"settings": {"log_upload": "s3://b"}}},
        "log_upload copies the log",
    ),
    ({"monitor": {"settings": {"webhook_urls": "https://a.example"}}}, "monitor.webhookSecret is empty"),
    ({"monitor": {"settings": {"retrain_github": "a/b"}}}, "retrainTokenSecret is empty"),
    ({"retrain": {"enabled": True}}, "retrain.model"),
    ({"retrain": {"enabled": True, "model": "m"}}, "retrain.dataClaim"),
    ({"retrain": RETRAIN, "monitor": {"enabled": False}}, "needs the monitor"),
    ({"retrain": RETRAIN, "monitor": {"settings": {"retrain_command": "x"}}}, "monitor.settings.retrain_command out"),
    (
        {"retrain": RETRAIN, "repository": {"sync": {"enabled": True, "image": "i", "command": ["c"]}}},
        "each pod has its own",
    ),
    ({"repository": {"sync": {"enabled": True}}}, "repository.sync.image"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.gateway"),
]


@pytest.mark.parametrize(("values", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_work_together_is_refused_with_what_to_change(values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmError, match=re.escape(said)) as refused:
        assert Release(values).files
    assert "set " in str(refused.value) or "needs " in str(refused.value) or "name a " in str(refused.value)


def test_every_refusal_of_the_chart_is_tried() -> None:
    written = (FOLDER / "templates" / "_checks.tpl").read_text().count("{{- fail ")
    assert len(REFUSED) == written


@pytest.mark.parametrize(
    ("values", "key", "allowed"),
    [
        ({"serve": {"replicas": "two"}}, "/serve/replicas", "integer"),
        ({"serve": {"replicas": -1}}, "/serve/replicas", "minimum"),
        ({"serve": {"replica": 2}}, "/serve", "replica"),
        ({"serve": {"settings": {"batch_token": 1}}}, "/serve/settings", "batch_token"),
        ({"serve": {"settings": {"device": "gpu"}}}, "/serve/settings/device", "'auto', 'cpu', 'cuda'"),
        ({"serve": {"settings": {"api_keys": "x"}}}, "/serve/settings", "api_keys"),
        ({"serve": {"settings": {"port": 80}}}, "/serve/settings", "port"),
        ({"serve": {"digest": "latest"}}, "/serve/digest", "sha256:"),
        ({"monitor": {"settings": {"drift_alpha": 2}}}, "/monitor/settings/drift_alpha", "0.2"),
        ({"monitor": {"enabled": "yes"}}, "/monitor/enabled", "boolean"),
        ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'"),
        ({"log": {"accessMode": "ReadOnlyMany"}}, "/log/accessMode", "'ReadWriteMany', 'ReadWriteOnce'"),
        ({"log": {"size": "20 GB"}}, "/log/size", "EPTGMK"),
        ({"networkPolicy": {"serveEgressPorts": [0]}}, "/networkPolicy/serveEgressPorts/0", "minimum"),
        ({"keda": {"prometheus": "prometheus:9090"}}, "/keda/prometheus", "https?"),
        ({"surprise": 1}, "", "surprise"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_value_is_refused_by_its_key_and_with_what_is_allowed(
    values: dict[str, Any], key: str, allowed: str
) -> None:
    with pytest.raises(HelmValuesError) as refused:
        assert Release(values).files
    assert key in str(refused.value)
    assert allowed in str(refused.value)


def test_the_notes_say_what_is_missing() -> None:
    notes = profile("default").notes
    for said in ("is new and empty", "may use them", "Nobody is told"):
        assert said in notes
        assert said not in profile("production").notes.replace("is new and empty", "", said == "is new and empty")
    assert "https://reviews.example.com" in profile("production").notes


def test_names_stay_short_enough_whatever_the_release_is_called() -> None:
    release = Release({}, name="a-very-long-name-of-a-release-as-it-may-be-in-some-places")
    assert all(len(one["metadata"]["name"]) <= 52 for one in release.objects)
    assert Release({}, name="reviews").get("Service", "plumbline-serve")
    named = Release({"fullnameOverride": "classifier"})
    assert "classifier-serve" in {one["metadata"]["name"] for one in named.all("Service")}


def test_what_a_release_leaves_behind_is_said() -> None:
    for claim in profile("default").all("PersistentVolumeClaim"):
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_examples_for_kubernetes_are_accepted() -> None:
    pod = yaml.safe_load((ROOT / "examples" / "kubernetes" / "import.yaml").read_text())
    kubernetes_validate.validate(pod, "1.31", strict=True)
    assert restricted(pod["spec"]) == []
    release = profile("default")
    claims = [one["metadata"]["name"] for one in release.all("PersistentVolumeClaim")]
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] in claims
    assert pod["spec"]["containers"][0]["image"] == next(
        spec["containers"][0]["image"] for name, _, spec in release.pods() if name == "plumbline-serve"
    )


def helm_test(url: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    (pod,) = profile("default").all("Pod")
    _, *command = pod["spec"]["containers"][0]["command"]
    environment = {**os.environ, "SERVER": url} | ({"API_KEY": key} if key else {})
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_helm_test_runs_gets_a_prediction_and_says_what_is_wrong(tmp_path: Path) -> None:
    make_bundle(tmp_path / "models")
    address = f"http://127.0.0.1:{(port := free_port())}"
    assert "cannot be reached" in helm_test(address).stderr
    command = plumbline("serve", "--repo", tmp_path / "models", "--port", str(port))
    with running(command, ready=f"{address}/readyz", PLUMBLINE_API_KEYS=digest_of_key("key")):
        done = helm_test(address)
        assert done.returncode == 1
        assert "test.apiKeySecret" in done.stdout
        done = helm_test(address, "key")
        assert done.returncode == 0, done.stdout + done.stderr
        assert '"label"' in done.stdout


def test_the_guide_s_values_render_and_what_its_commands_name_is_there() -> None:
    guide = (ROOT / "docs" / "install.md").read_text().partition("\n## Kubernetes\n")[2]
    (text,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    release = Release(yaml.safe_load(text))
    made = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in release.objects}
    for named in re.findall(r"(?:deployment|service)/[a-z-]+", guide):
        assert named in made, named
    secrets = dict(re.findall(r"create secret generic (\S+) --from-(?:literal|file)=(\w+)", guide))
    pods = str(list(release.pods()))
    mounted = str([one["data"] for one in release.all("ConfigMap")]) + pods
    for name, key in secrets.items():
        assert name in pods, name
        assert key in mounted, key
    for example in re.findall(r"(?:helm|examples)/[\w/.-]+", guide):
        assert (ROOT / example.rstrip(".,:;")).exists(), example
