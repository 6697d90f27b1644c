"""compose.yaml and its configuration, read as Docker would; Docker itself is not to be had in tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from monitoring.settings import MonitorSettings
from service.contract.settings import PREFIX, Settings, _is_secret
from service.settings import ServiceSettings
from tests.container.boxes import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS: dict[str, type[Settings]] = {
    "server": ServiceSettings,
    "server-gpu": ServiceSettings,
    "monitor": MonitorSettings,
}
EACH = pytest.mark.parametrize("name", SERVICES)


def mounts(name: str) -> list[tuple[str, str, str]]:
    """(source, place, mode) of each volume of a service."""
    parts = [[*one.split(":"), "rw"][:3] for one in SERVICES[name].get("volumes", [])]
    return [(source, place, mode) for source, place, mode in parts]


def published(name: str) -> list[tuple[str, str, str]]:
    """(address, port of the host, port of the container) of each port of a service."""
    return [tuple(one.split(":")) for one in SERVICES[name].get("ports", [])]  # type: ignore[misc]


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


def test_it_follows_the_compose_specification() -> None:
    parsed = PyCompose.from_yaml(yaml.safe_dump(COMPOSE))  # without YAML's merge keys, which the parser does not know
    parsed.to_spec()
    assert sorted(parsed.service_names()) == sorted(SERVICES)


def test_what_the_compose_specification_does_not_know_is_refused() -> None:
    text = yaml.safe_dump(COMPOSE).replace("stop_grace_period", "stop_grace", 1)
    with pytest.raises(ValueError, match="stop_grace"):
        PyCompose.from_yaml(text)


@EACH
def test_every_service_is_read_only_without_capabilities_and_heard_on_loopback_only(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("user", "10001") != "0"
    assert all(address == "127.0.0.1" for address, _, _ in published(name))


def test_no_port_of_the_host_is_wanted_twice_in_one_profile() -> None:
    for profile in ("cpu", "gpu"):
        up = [name for name, one in SERVICES.items() if profile in one.get("profiles", [profile])]
        ports = [port for name in up for _, port, _ in published(name)]
        assert len(ports) == len(set(ports)), profile


@EACH
def test_every_file_that_is_mounted_exists(name: str) -> None:
    for source, _, _ in mounts(name):
        if source.startswith("./helm/") and not (ROOT / "helm").exists():
            pytest.skip("the chart, whose dashboards and rules these are, is not here")
        if source.startswith("./"):
            assert (ROOT / source).exists(), source


def test_every_volume_and_every_secret_is_used_and_declared() -> None:
    named = {source for name in SERVICES for source, _, _ in mounts(name) if not source.startswith(".")}
    assert named == set(COMPOSE["volumes"])
    assert {one for service in SERVICES.values() for one in service.get("secrets", [])} == set(COMPOSE["secrets"])


@EACH
def test_every_secret_of_a_service_is_read_by_it(name: str) -> None:
    read = {value for key, value in SERVICES[name].get("environment", {}).items() if key.endswith("_FILE")}
    assert read == {f"/run/secrets/{one}" for one in SERVICES[name].get("secrets", [])}


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_that_is_valid(name: str) -> None:
    fields = OURS[name].model_fields
    values: dict[str, str] = {}
    for variable, value in SERVICES[name]["environment"].items():
        setting = variable.removeprefix(PREFIX).lower()
        if variable.endswith("_FILE"):
            assert _is_secret(fields[setting.removesuffix("_file")]), variable
        else:
            assert setting in fields, variable
            values[setting] = value.removeprefix("${" + variable + ":-").removesuffix("}")
    OURS[name].model_validate(values)


def test_the_log_and_the_models_are_one_volume_for_all_and_servers_cannot_change_the_models() -> None:
    for name in ("server", "server-gpu", "monitor", "export"):
        places = {place: (source, mode) for source, place, mode in mounts(name)}
        assert places["/models"] == ("models", "rw" if name == "export" else "ro")
        assert places["/log"] == ("log", "ro" if name == "export" else "rw")


@pytest.mark.parametrize("name", ["server", "server-gpu", "monitor", "export"])
def test_what_is_built_is_a_target_of_the_dockerfile_and_its_arguments_exist(name: str) -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    build = SERVICES[name]["build"]
    assert any(line.startswith("FROM ") and line.endswith(f" AS {build['target']}") for line in lines)
    for argument in build.get("args", {}):
        assert any(line.startswith(f"ARG {argument}=") for line in lines), argument


@pytest.mark.parametrize("name", ["server", "server-gpu"])
def test_a_server_gets_the_time_that_its_drain_may_take(name: str) -> None:
    settings = ServiceSettings()
    assert seconds(SERVICES[name]["stop_grace_period"]) > settings.grace_seconds + settings.drain_seconds


def test_prometheus_scrapes_each_part_by_the_port_that_it_listens_on_and_tells_alertmanager() -> None:
    config = yaml.safe_load((ROOT / "compose" / "prometheus.yml").read_text())
    targets = {one["job_name"]: one["static_configs"][0]["targets"] for one in config["scrape_configs"]}
    assert targets == {
        "plumbline-serve": [f"server:{ServiceSettings().port}"],
        "plumbline-monitor": [f"monitor:{MonitorSettings().monitor_port}"],
    }
    assert SERVICES["server-gpu"]["networks"]["default"]["aliases"] == ["server"]
    (told,) = config["alerting"]["alertmanagers"]
    ((_, _, port),) = published("alertmanager")
    assert told["static_configs"][0]["targets"] == [f"alertmanager:{port}"]
    assert SERVICES["monitor"]["environment"]["PLUMBLINE_ALERTMANAGER_URL"] == f"http://alertmanager:{port}"
    rules = Path(config["rule_files"][0]).parent
    assert (str(rules), "ro") in [(place, mode) for _, place, mode in mounts("prometheus")]


def test_every_port_that_is_published_is_asked_by_the_health_check_or_is_the_image_s_own() -> None:
    for name in ("prometheus", "alertmanager", "grafana"):
        ((_, _, port),) = published(name)
        assert f"127.0.0.1:{port}/" in SERVICES[name]["healthcheck"]["test"][-1]
    exposed = [line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("EXPOSE ")]
    assert exposed == [published("server")[0][2], published("monitor")[0][2]]


def test_grafana_reads_the_dashboards_and_the_prometheus_that_are_there() -> None:
    places = {place for _, place, _ in mounts("grafana")}
    (provider,) = yaml.safe_load((ROOT / "compose" / "grafana" / "dashboards.yml").read_text())["providers"]
    assert provider["options"]["path"] in places
    (source,) = yaml.safe_load((ROOT / "compose" / "grafana" / "datasources.yml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{published('prometheus')[0][2]}"
    interval = yaml.safe_load((ROOT / "compose" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval


@pytest.mark.platform
@pytest.mark.parametrize(
    "command",
    [
        ("promtool", "check", "config", "--syntax-only", "compose/prometheus.yml"),
        ("amtool", "check-config", "compose/alertmanager.yml"),
    ],
    ids=lambda command: command[0],
)
def test_the_programs_themselves_accept_their_configuration(command: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is in Debian's prometheus and prometheus-alertmanager")
    assert done.returncode == 0, done.stdout + done.stderr
