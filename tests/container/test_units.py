"""The systemd units of examples/systemd."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.settings import MonitorSettings
from plumbline import cli
from service.contract.settings import PREFIX, Settings, _is_secret
from service.settings import ServiceSettings
from tests.container.boxes import ROOT

FOLDER = ROOT / "examples" / "systemd"
UNITS: dict[str, type[Settings]] = {"plumbline-serve": ServiceSettings, "plumbline-monitor": MonitorSettings}
EACH = pytest.mark.parametrize("name", UNITS)


def lines(name: str) -> Iterator[tuple[str, str]]:
    """Each directive with its value; directives may come several times."""
    for line in (FOLDER / f"{name}.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            yield key, value


def values(name: str, key: str) -> list[str]:
    return [word for one, value in lines(name) if one == key for word in shlex.split(value)]


def environment(name: str) -> dict[str, str]:
    return {variable: value for variable, _, value in (one.partition("=") for one in values(name, "Environment"))}


@EACH
def test_it_starts_a_command_that_exists(name: str) -> None:
    program, command = values(name, "ExecStart")
    assert program.endswith("/bin/plumbline")
    assert command in cli.COMMANDS


@EACH
def test_every_variable_is_a_setting_and_every_secret_a_credential(name: str) -> None:
    fields = UNITS[name].model_fields
    credentials = {one.partition(":")[0] for one in values(name, "LoadCredential")}
    for variable, value in environment(name).items():
        setting = variable.removeprefix(PREFIX).lower()
        if variable.endswith("_FILE"):
            assert _is_secret(fields[setting.removesuffix("_file")]), variable
            credentials.remove(value.removeprefix("%d/"))
        else:
            assert setting in fields, variable
    assert not credentials


@EACH
def test_what_it_writes_is_in_its_state_directories(name: str) -> None:
    states = {f"/var/lib/{one}" for one in values(name, "StateDirectory")}
    assert dict(lines(name))["ProtectSystem"] == "strict"
    assert {value for value in environment(name).values() if value.startswith("/")} <= states


@EACH
def test_it_is_neither_root_nor_started_again_over_what_cannot_be_mended_so(name: str) -> None:
    found = dict(lines(name))
    assert found["User"] == "plumbline"
    assert found["CapabilityBoundingSet"] == ""
    assert found["NoNewPrivileges"] == "yes"
    assert found["RestartPreventExitStatus"] == "2"
    assert values(name, "EnvironmentFile") == ["/etc/plumbline/plumbline.env"]


def test_the_server_gets_the_time_that_its_drain_may_take() -> None:
    settings = ServiceSettings()
    assert int(dict(lines("plumbline-serve"))["TimeoutStopSec"]) > settings.grace_seconds + settings.drain_seconds


def test_the_environment_file_holds_settings_only_also_where_they_are_commented_out() -> None:
    text = (FOLDER / "plumbline.env").read_text()
    found = re.findall(rf"^(?:# )?{PREFIX}(\w+)=(.*)$", text, re.M)
    assert len(found) > 4
    for setting, value in found:
        allowed = [cls for cls in UNITS.values() if setting.lower() in cls.model_fields]
        assert allowed, setting
        for cls in allowed:
            cls.model_validate({setting.lower(): value})


@pytest.mark.platform
@EACH
def test_systemd_accepts_it_and_finds_it_well_shut(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is in Debian's systemd")
    text = (FOLDER / f"{name}.service").read_text()
    unit = tmp_path / f"{name}.service"
    unit.write_text(text.replace("/opt/plumbline/bin/plumbline", "/bin/true"))  # it has to exist
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=25", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
