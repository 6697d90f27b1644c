"""What the command line says to a newcomer: help, errors, wrong paths, and the next command to type."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main
from typer.testing import CliRunner

from plumbline import __version__, cli
from service.terminal.commands import plumbline as command_line
from tests.fakes import make_bundle
from tests.processes import free_port, plumbline, running, until


def commands(group: Any = None, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, the subcommands too, by the words that call it."""
    group = group or typer.main.get_command(cli.build())
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


COMMANDS = dict(commands())
by_name = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


def run(*arguments: object, **environment: str) -> Any:
    runner = CliRunner(env={"COLUMNS": "80", **environment})
    return runner.invoke(cli.build(), [str(one) for one in arguments])


def next_command(output: str) -> list[str]:
    """The words of the last line, which says what to type next."""
    last = output.splitlines()[-1]
    assert last.startswith("next: ")
    return shlex.split(last.removeprefix("next: "))


@by_name
def test_every_option_is_whole_in_a_terminal_of_80_columns(words: tuple[str, ...]) -> None:
    shown = run(*words, "--help").stdout
    assert max(map(len, shown.splitlines())) <= 80
    for parameter in COMMANDS[words].params:
        for option in [*parameter.opts, *parameter.secondary_opts]:
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", shown), option


@by_name
def test_every_help_has_examples_that_parse(words: tuple[str, ...]) -> None:
    shown = run(*words, "--help").stdout.replace("\\\n", " ")
    examples = re.findall(r"^ +(?:.*\$\()?(plumbline .*?)\)?(?: [<>] .*)?$", shown, re.M)
    mine = [shlex.split(one)[1 + len(words) :] for one in examples if shlex.split(one)[1 : 1 + len(words)] == [*words]]
    assert mine
    for arguments in mine:
        COMMANDS[words].make_context(" ".join(words), arguments)


def test_the_list_of_commands_is_not_cut() -> None:
    shown = run("--help").stdout
    assert "..." not in shown[shown.index("Commands:") :]
    assert max(map(len, shown.splitlines())) <= 80


def test_the_version() -> None:
    assert run("--version").stdout == f"plumbline {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["exprt"], "Did you mean 'export'?"),
        (["serve", "--prot", "1"], "--port"),
    ],
)
def test_what_is_misspelt_is_answered_with_the_nearest(arguments: list[str], message: str) -> None:
    shown = run(*arguments)
    assert shown.exit_code == 2
    assert message in shown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "finetune --train no.csv --eval no.csv --out out",
        "finetune ./no --train t.csv --eval t.csv --out out",
        "finetune --train t.csv --eval t.csv --out t.csv/out",
        "distill no ./no --train no.csv --eval no.csv --out out",
        "export no --train no.csv --eval no.csv --repo models --name x",
        "reproduce no --train no.csv",
        "retrain --repo no --name x --log no --train no.csv --eval no.csv",
        "drift no no.csv",
        "inspect no",
        "serve --repo no",
        "rollout --repo no --name x",
    ],
)
def test_a_wrong_path_is_told_before_what_is_slow_to_import(arguments: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,y\n")
    script = f"""
import sys
from plumbline import cli
try:
    cli.build()({arguments.split()!r})
except SystemExit as ended:
    slow = {{"torch", "transformers", "scipy", "pandas", "evidently", "sklearn", "onnxruntime", "fastapi"}}
    print(ended.code, sorted(slow & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "2 []\n", done.stderr
    assert done.stderr.startswith("plumbline: ")
    assert done.stderr.count("\n") == 1


def test_a_hub_name_without_a_network_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,y\n")
    files = [f"--train={tmp_path / 't.csv'}", f"--eval={tmp_path / 't.csv'}", f"--out={tmp_path / 'out'}"]
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        plumbline("finetune", "someone/some-bert", *files), capture_output=True, text=True, env=os.environ | nowhere
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the hub cannot be reached" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "models/x"), 1, "models/x: Permission denied"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("odd\nmore"), 1, "unexpected RuntimeError: odd"),
    ],
)
def test_no_error_shows_a_traceback(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def fail(as_json: bool = False) -> None:
        raise error

    monkeypatch.setattr(cli, "config", fail)
    shown = run("config")
    assert shown.exit_code == code
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_closed_pipe_ends_in_silence() -> None:
    words = shlex.join(plumbline("config"))
    done = subprocess.run(["bash", "-c", f"{words} | true"], capture_output=True, text=True)
    assert done.stderr == ""


def test_a_command_line_is_read_back_as_given() -> None:
    line = command_line("export", "my model", train="it's.csv", prune=False, no_prune=True, search=None)
    assert shlex.split(line) == ["plumbline", "export", "my model", "--train", "it's.csv", "--no-prune"]


def test_inspect_leads_to_rollout_and_that_to_inspect_and_serve(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "my models", live=False)
    shown = run("inspect", bundle.path)
    then = next_command(shown.stdout)
    assert then[:2] == ["plumbline", "rollout"]
    rolled = run(*then[1:])
    assert rolled.exit_code == 0
    assert run(*next_command(rolled.stdout)[1:]).exit_code == 0
    serving = next_command(run("inspect", bundle.path).stdout)
    assert serving == ["plumbline", "serve", "--repo", str(tmp_path / "my models"), "--log", str(tmp_path / "log")]
    assert "next:" not in run("inspect", bundle.path, "--json").stdout


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_says_where_it_is_when_it_is_ready_with_a_request_that_works(tmp_path: Path, workers: str) -> None:
    make_bundle(tmp_path / "models")
    said = tmp_path / "stderr"
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = ["--repo", tmp_path / "models", "--port", str(port), "--threads", "1", "--workers", workers]
    with running(plumbline("serve", *options), log=said):
        until(lambda: "next: " in said.read_text(), 60, "the next command")
        assert httpx.get(f"{url}/readyz").status_code == 200
        lines = said.read_text().splitlines()
        assert f"serving reviews version 1 on {url}" in lines
        assert f"  status page {url}/" in lines
        (line,) = [one for one in lines if one.startswith("next: ")]
        answer = subprocess.run(shlex.split(line.removeprefix("next: ")), capture_output=True, text=True)
        assert json.loads(answer.stdout)[0]["label"] in ("negative", "positive")
        assert not any("running on" in one for one in lines)


def test_monitor_says_where_it_is_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    make_bundle(tmp_path / "models")
    said = tmp_path / "stderr"
    options = ["--repo", tmp_path / "models", "--log", tmp_path / "log", "--port", "0"]
    with running(plumbline("monitor", *options), log=said) as process:
        until(lambda: "no row waits" in said.read_text(), 60, "the first round")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    text = said.read_text()
    assert re.search(r"^monitor on http://127.0.0.1:\d+: reports", text, re.M)
    assert "(reviews)" in text
    assert f"there is no log at {tmp_path / 'log'}; waiting for" in text
    assert "Traceback" not in text
