"""KServe's client runs unchanged against the server; it lives in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

VERSION = "0.21.0"
CLIENT = Path(__file__).with_name("kserve_client.py")


@pytest.fixture(scope="module")
def interpreter(pytestconfig: pytest.Config) -> Path:
    """A Python with ``kserve``, made once and kept in pytest's cache; needs a package index the first time."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"kserve-{VERSION}")
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        installed = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", f"kserve=={VERSION}"], capture_output=True, text=True
        )
        if installed.returncode:
            pytest.skip(f"kserve cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
        done.touch()
    return python


@pytest.mark.slow
def test_it_asks_for_health_and_infers_in_json_and_binary(interpreter: Path, url: str) -> None:
    ended = subprocess.run([interpreter, CLIENT, f"http://{url}"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    got = json.loads(ended.stdout)
    assert (got["live"], got["ready"], got["model"], got["other"]) == (True, True, True, False)
    texts = ["a great film", "awful 😀", ""]
    ours = httpx.post(f"http://{url}/predict", json={"inputs": texts, "parameters": {"top_k": 2}}).json()
    probabilities = [{one["label"]: one["score"] for one in row} for row in ours]
    for encoding in ("json", "binary"):
        answer = got[encoding]
        assert (answer["model"], answer["id"]) == ("reviews", "mine")
        assert answer["labels"] == [row[0]["label"] for row in ours]
        for row, expected in zip(answer["probabilities"], probabilities, strict=True):
            assert row == pytest.approx([expected["negative"], expected["positive"]], abs=1e-6)
    assert got["plain"] == ["positive"]
    assert "inputs: List should have at least 1 item" in got["error"]
