"""The command line: help, errors, exit codes, settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plumbline import cli
from service.contract.errors import PlumblineError, Refused
from tests.fakes import make_bundle

runner = CliRunner()


def test_help_loads_no_machine_learning_library() -> None:
    import subprocess

    script = (
        "import sys; from plumbline.cli import build; build();"
        "heavy = ('torch', 'transformers', 'onnxruntime', 'evidently', 'pandas', 'fastapi');"
        "print([name for name in heavy if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_help_lists_every_command() -> None:
    shown = runner.invoke(cli.build(), ["--help"])
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in cli.COMMANDS)


def test_inspect_shows_the_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    shown = runner.invoke(cli.build(), ["inspect", str(bundle.path)])
    assert shown.exit_code == 0
    assert bundle.digest in shown.stdout
    assert "accuracy 0.9000 -> 0.9000 on 1000 rows" in shown.stdout
    as_json = runner.invoke(cli.build(), ["inspect", str(bundle.path), "--json"])
    assert json.loads(as_json.stdout)["labels"] == ["negative", "positive"]


def test_inspect_of_a_damaged_bundle_is_bad_input(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    bundle.file("golden.jsonl").write_text("")
    shown = runner.invoke(cli.build(), ["inspect", str(bundle.path)])
    assert shown.exit_code == 2
    assert "golden.jsonl" in shown.stderr


@pytest.mark.parametrize(("error", "code"), [(PlumblineError("broken"), 1), (Refused("no"), 3)])
def test_the_error_class_decides_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: PlumblineError, code: int
) -> None:
    def fail(as_json: bool = False) -> None:
        raise error

    monkeypatch.setattr(cli, "config", fail)
    shown = runner.invoke(cli.build(), ["config"])
    assert shown.exit_code == code
    assert shown.stderr.strip() == f"plumbline: {error}"
    assert runner.invoke(cli.build(), ["--debug", "config"]).exception is error


def test_a_missing_extra_names_the_pip_install_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(as_json: bool = False) -> None:
        raise ModuleNotFoundError("no torch", name="torch")

    monkeypatch.setitem(cli.COMMANDS, "config", ("plumbline.cli", "export"))
    monkeypatch.setattr(cli, "config", fail)
    shown = runner.invoke(cli.build(), ["config"])
    assert shown.exit_code == 2
    assert "pip install --constraint constraints.txt -e '.[export]'" in shown.stderr


def test_config_says_where_each_value_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_PORT", "9000")
    rows = {row["variable"]: row for row in json.loads(runner.invoke(cli.build(), ["config", "--json"]).stdout)}
    assert (rows["PLUMBLINE_PORT"]["value"], rows["PLUMBLINE_PORT"]["origin"]) == ("9000", "environment")
    assert rows["PLUMBLINE_HOST"]["origin"] == "default"


def test_a_bad_setting_names_the_variable_the_value_and_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_PORT", "99999")
    shown = runner.invoke(cli.build(), ["serve", "--device", "cpu"])
    assert shown.exit_code == 2
    assert "PLUMBLINE_PORT is '99999'" in shown.stderr
    assert "65535" in shown.stderr
