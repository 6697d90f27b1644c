"""The command itself: against a real server, and what it says of everything that cannot be measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loadtest.load.result import read_result
from plumbline import cli
from service.http.keys import digest_of_key
from tests.fakes import make_bundle
from tests.loadtest.load.results import latencies, result, stage_result
from tests.loadtest.load.stub import Asked, stub
from tests.processes import free_port, plumbline, running

KEY = "plb_a-key-of-somebody"
SHORT = ("--duration", "1s", "--warm-up", "200ms")


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(cli.build(), ["loadtest", *map(str, arguments)])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a process of its own that wants a key."""
    root = tmp_path_factory.mktemp("models")
    make_bundle(root)
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = plumbline("serve", "--repo", root, "--port", str(port))
    with running(command, ready=f"{url}/readyz", PLUMBLINE_API_KEYS=digest_of_key(KEY)):
        yield url


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text(f"{KEY}\n")
    return tmp_path / "key"


def test_a_run_is_written_as_table_file_and_page(guarded: str, key_file: Path, tmp_path: Path) -> None:
    files = tmp_path / "a.json", tmp_path / "a.html"
    done = run(
        *(guarded, "--rate", 50, "--rate", 80, *SHORT, "--p99", "9s", "--key-file", key_file),
        *("--json", files[0], "--html", files[1]),
    )
    assert done.exit_code == 0, done.output
    assert "50/s" in done.stdout
    assert "Against a server that does nothing the generator makes" in done.stdout
    assert "The objective, p99 within 9000 ms of all requests, was kept." in done.stdout
    found = read_result(files[0])
    assert [stage.stage.rate for stage in found.stages] == [50, 80]
    assert all(stage.failed == 0 and stage.server is not None for stage in found.stages)
    assert found.stages[0].server.spreads["batch_size"].mean >= 1
    assert KEY not in files[0].read_text() + files[1].read_text()
    assert "<figure>" in files[1].read_text()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["tei", "oip", "oip-binary"])
def test_other_protocols_find_the_model_by_themselves(guarded: str, key_file: Path, protocol: str) -> None:
    options = "--protocol", protocol, "--batch", 3, "--clients", 2, *SHORT, "--json", "-"
    done = run(guarded, *options, PLUMBLINE_LOADTEST_KEY=KEY)
    assert done.exit_code in (0, 1), done.output  # 1: a machine so busy that the generator is the limit
    found = json.loads(done.stdout)
    assert found["protocol"] == protocol
    assert found["stages"][0]["failures"] == {}
    assert found["stages"][0]["requests"] > 10


def test_an_objective_that_is_missed_is_exit_code_3() -> None:
    def refuse(asked: Asked) -> tuple[int, bytes]:
        first = len(server.posts) == 1
        return (200, b"[]") if first else (429, b'{"code": "overloaded"}')

    with stub(refuse) as server:
        done = run(server.url, "--rate", 20, *SHORT, "--p99", "9s")
    assert done.exit_code == 3, done.output  # also where a busy machine made the generator late
    assert "was missed" in done.stdout
    assert "HTTP 429 overloaded" in done.stdout


def test_results_are_compared(tmp_path: Path) -> None:
    files = []
    for name, median in (("before", 10), ("after", 14)):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(result([stage_result(latencies(median))]).model_dump_json())
    before, after = files
    done = run("compare", before, before)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("no difference\n")
    assert json.loads(run("compare", after, before, "--json").stdout)["verdict"] == "better"
    done = run("compare", before, after)
    assert done.exit_code == 3
    assert done.stdout.endswith("worse\n")


def test_a_key_that_is_wanted_is_asked_for(guarded: str, tmp_path: Path) -> None:
    done = run(guarded, "--rate", 10)
    assert done.exit_code == 2
    assert "The server wants an API key: give a file that holds it with --key-file" in done.stderr
    (tmp_path / "key").write_text("plb_another-key")
    done = run(guarded, "--rate", 10, "--key-file", tmp_path / "key")
    assert done.exit_code == 2
    assert "The key is not one that may ask" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["localhost:8000"], "'localhost:8000' is not the URL of a server; give one as http://"),
        (["http://"], "is not the URL of a server"),
        (["http://127.0.0.1:99999"], "is not a URL"),
        (["http://127.0.0.1:8000/predict?x=1"], "more than a server's URL"),
        (["URL", "--texts", "no.csv"], "no.csv"),
        (["URL", "--protocol", "grpc"], "there is no protocol 'grpc'. There are predict: POST /predict"),
        (["URL", "--rate", "0"], "a rate must be above 0"),
        (["URL", "--ramp-to", "5"], "give one with --rate"),
        (["URL", "--rate", "1", "--burst", "x"], "is not a burst"),
        (["URL", "--find-max"], "--find-max needs the objective"),
        (["URL", "--find-max", "--p99", "1s", "--rate", "5"], "chooses the rates itself"),
        (["URL", "--p99", "50"], "'50' is not a duration"),
        (["URL", "--clients", "1", "--workers", "2"], "2 workers need as many --clients"),
        (["URL", "--json", "no/where.json"], "no/where.json cannot be written"),
        (["URL", "--key-file", "no"], "the key file no cannot be read"),
        (["compare", "no.json", "no.json"], "no.json cannot be read"),
        (["worker", "here"], "'here' is no address"),
    ],
)
def test_what_was_given_wrongly_is_told_at_once(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*("http://127.0.0.1:9" if one == "URL" else one for one in arguments))
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_result_is_told(tmp_path: Path) -> None:
    for content in ("", "{}", "[1]", "no json"):
        (tmp_path / "a.json").write_text(content)
        done = run("compare", tmp_path / "a.json", tmp_path / "a.json")
        assert done.exit_code == 2
        assert "is no result of `plumbline loadtest --json`" in done.stderr


def test_a_load_in_which_nothing_is_due_is_told() -> None:
    with stub() as server:
        done = run(server.url, "--rate", 0.001, *SHORT)
    assert done.exit_code == 1
    assert "in the 1 s of 0.001/s no request was due" in done.stderr


def test_a_server_that_is_not_there_is_told() -> None:
    done = run(f"http://127.0.0.1:{free_port()}", "--rate", 10)
    assert done.exit_code == 1
    assert "no server answers at http://127.0.0.1:" in done.stderr


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (500, b"oops", 1, "was answered with 500: oops"),
        (503, b'{"error": "not ready"}', 1, "not ready"),
        (404, b"", 2, "Is predict what this server speaks? --protocol has others."),
        (422, b'{"error": "no inputs"}', 2, "no inputs"),
    ],
)
def test_a_server_that_answers_errors_is_told(status: int, body: bytes, code: int, message: str) -> None:
    with stub(lambda asked: (status, body)) as server:
        done = run(server.url, "--rate", 10)
    assert done.exit_code == code
    assert message in done.stderr
    assert len(server.posts) == 1


def test_a_model_that_is_not_named_is_asked_for() -> None:
    with stub(lambda asked: (404, b"")) as server:
        done = run(server.url, "--protocol", "oip")
    assert done.exit_code == 2
    assert "Give one with --model" in done.stderr


def test_the_command_line_imports_no_generator() -> None:
    script = """
import sys
from plumbline import cli
cli.build()
print(sorted({"locust", "gevent", "geventhttpclient", "msgpack"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
