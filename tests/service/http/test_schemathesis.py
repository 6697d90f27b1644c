"""What the OpenAPI description promises, the server keeps; and nothing that it allows brings the server down."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes import make_bundle
from tests.processes import free_port, plumbline, running

UNLOAD, INFER = "/unload$", "/infer$"
# Who gives a request one millisecond may well be answered that it is over.
CONFIG = '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("schemathesis")
    make_bundle(folder / "models")
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = ("--repo", folder / "models", "--log", folder / "log", "--port", str(port), "--threads", "1")
    with running(plumbline("serve", *options), ready=f"{url}/readyz", log=folder / "stderr"):
        yield url
    errors = [line for line in (folder / "stderr").read_text().splitlines() if re.search("ERROR|Traceback", line)]
    assert errors == []


def find(server: str, folder: Path, *options: str) -> str:
    """What schemathesis finds, as its own words; empty if it finds nothing."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    ended = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"),
            *(f"{server}/openapi.json", "--max-time", "25", "--seed", "1", "--continue-on-failure", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert re.search(r"Tested: [1-9]", ended.stdout), ended.stdout + ended.stderr
    return "" if ended.returncode == 0 else ended.stdout


@pytest.mark.slow
def test_it_finds_nothing(server: str, tmp_path: Path) -> None:
    # After an unload everything is 503, as it should be; that has its own run, the last.
    assert find(server, tmp_path, "--exclude-path-regex", f"{UNLOAD}|{INFER}") == ""
    assert httpx.get(f"{server}/readyz").status_code == 200


@pytest.mark.slow
def test_it_finds_nothing_in_inference(server: str, tmp_path: Path) -> None:
    assert find(server, tmp_path, "--include-path-regex", INFER) == ""


@pytest.mark.slow
def test_it_finds_nothing_in_unload(server: str, tmp_path: Path) -> None:
    assert find(server, tmp_path, "--include-path-regex", UNLOAD) == ""
