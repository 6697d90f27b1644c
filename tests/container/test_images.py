"""The three images: what they hold, and that each does its work as nobody in particular, on read-only files."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import httpx
import pytest

from monitoring.delivery.webhook import verify
from service.contract.bundle import open_bundle
from service.contract.hardware import instruction_set
from service.contract.repository import read_serving
from service.contract.segments import sealed_segments
from tests.container.boxes import ROOT, SOMEBODY, Image, Workshop, box, run
from tests.fakes import make_bundle
from tests.monitoring.receiver import receiver
from tests.monitoring.world import DRIFTED, World
from tests.processes import answers, free_port, until

pytestmark = [pytest.mark.platform, pytest.mark.timeout(900)]

KEY = b"key" * 10
SECRET = "whsec_" + "a2V5" * 10
MOST_BYTES = 600e6  # of the image that serves on a CPU
MOST_SECONDS = 5  # from the start to ready

_LOOK = """
import importlib.util, json, os, pathlib
def writable(folder):
    try:
        (pathlib.Path(folder) / "probe").write_text("")
        return True
    except OSError:
        return False
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "modules": [one for one in (
        "torch", "transformers", "evidently", "pandas", "pip", "setuptools", "ensurepip", "onnxruntime", "pyarrow",
        "service", "monitoring", "export", "loadtest", "examples") if importlib.util.find_spec(one)],
    "writable": [one for one in ("/", "/opt/plumbline", "/etc", "/models", "/tmp") if writable(one)],
    "user": [os.geteuid(), os.getegid()], "capabilities": int(status["CapEff"], 16),
}))
"""

SHARED = {"service", "onnxruntime", "pyarrow"}


@pytest.mark.parametrize(
    ("target", "modules"),
    [
        ("serve", SHARED),
        ("monitor", SHARED | {"monitoring", "evidently", "pandas"}),
        ("export", SHARED | {"export", "torch", "transformers", "setuptools"}),  # torch asks for setuptools
    ],
)
def test_an_image_holds_its_part_and_runs_as_anybody_on_read_only_files(
    target: str, modules: set[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    image: Image = request.getfixturevalue(target)
    print(f"\nimage {target}: {image.size / 1e6:.0f} MB, built in {image.seconds:.0f} s")
    code, output = run(image, tmp_path / "log", "-c", _LOOK, entrypoint=["python"])
    assert code == 0, output
    found = json.loads(output)
    assert set(found.pop("modules")) == modules
    assert found == {"writable": ["/tmp"], "user": [SOMEBODY, 0], "capabilities": 0}


@pytest.mark.parametrize("target", ["serve", "monitor", "export"])
def test_an_image_has_the_pinned_versions_no_compiler_and_nothing_setuid(
    target: str, request: pytest.FixtureRequest
) -> None:
    image: Image = request.getfixturevalue(target)
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {
        name.lower().replace("_", "-").replace(".", "-"): version
        for name, version in (one.split("==") for one in lines)
    }
    installed = {
        one.metadata["Name"].lower().replace("_", "-").replace(".", "-"): one.version.partition("+")[0]
        for one in distributions(path=[str(image.site_packages)])
    }
    assert len(installed) > 20
    assert {name: version for name, version in installed.items() if pinned.get(name) != version} == {}
    programs = {
        path.name
        for folder in ("bin", "usr/bin", "usr/local/bin", "opt/plumbline/bin")
        for path in (image.files / folder).iterdir()
    }
    assert "python3" in programs
    assert programs.isdisjoint({"gcc", "cc", "c++", "g++", "clang", "make", "pip", "pip3"})
    found = subprocess.run(
        ["find", image.files, "-xdev", "-perm", "/6000", "-type", "f"], capture_output=True, text=True, check=True
    )
    assert found.stdout == ""


@pytest.mark.parametrize("target", ["serve", "monitor", "export"])
def test_an_image_says_what_it_is_and_starts_plumbline_as_a_number(target: str, request: pytest.FixtureRequest) -> None:
    config = request.getfixturevalue(target).config
    assert config["Entrypoint"] == ["plumbline"]
    assert all(part.isdigit() and int(part) > 0 for part in config["User"].split(":"))
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.title"] == f"plumbline-{target}"
    assert ("Healthcheck" in config) == (target != "export")


def test_serve_is_small(serve: Image) -> None:
    assert serve.size <= MOST_BYTES


def _serving(port: int) -> dict[str, str]:
    return {"PLUMBLINE_HOST": "127.0.0.1", "PLUMBLINE_PORT": str(port), "PLUMBLINE_GRACE_SECONDS": "1"}


def test_serve_predicts_and_on_sigterm_it_answers_what_it_has_and_ends_with_0(
    serve: Image, repo: Path, writable: Path, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    volumes = {"/models": (repo, "ro"), "/log": (writable, "rw")}
    environment = {**_serving(port), "PLUMBLINE_LOG": "/log"}
    seconds: list[float] = []
    for attempt in range(2):  # the first one brings the files into the page cache
        started = time.monotonic()
        with box(serve, tmp_path / f"log{attempt}", volumes=volumes, environment=environment) as server:
            until(lambda: server.outside.poll() is not None or answers(f"{url}/readyz"), 120, "ready")
            assert server.outside.poll() is None, server.log.read_text()
            seconds.append(time.monotonic() - started)
            answer = httpx.post(f"{url}/predict", json={"inputs": "a good film"})
            assert answer.status_code == 200
            assert "positive" in answer.text
            health = subprocess.run(
                [
                    "chroot",
                    serve.files,
                    "env",
                    *serve.config["Env"],
                    *(f"{k}={v}" for k, v in environment.items()),
                    *serve.config["Healthcheck"]["Test"][1:],
                ],
                check=False,
            )
            assert health.returncode == 0
            memory = server.memory()
            statuses: list[int] = []
            stop = threading.Event()

            def traffic(statuses: list[int] = statuses, stop: threading.Event = stop) -> None:
                with httpx.Client(timeout=30) as client:
                    while not stop.is_set():
                        try:
                            statuses.append(client.post(f"{url}/predict", json={"inputs": ["bad"] * 8}).status_code)
                        except httpx.TransportError:
                            return

            thread = threading.Thread(target=traffic)
            thread.start()
            try:
                until(lambda: len(statuses) > 5, what="traffic")  # noqa: B023
                server.send(signal.SIGTERM)
                until(lambda: httpx.get(f"{url}/readyz").status_code == 503, what="readiness to fail")
                assert server.outside.wait(60) == 0, server.log.read_text()
            finally:
                stop.set()
                thread.join()
            assert set(statuses) == {200}
    print(
        f"\n{instruction_set()}: serve from its start to ready {seconds[0]:.2f} s, once more {seconds[1]:.2f} s; "
        f"resident {memory:.0f} MB"
    )
    assert seconds[1] <= MOST_SECONDS
    segments = sealed_segments(writable, "reviews", "predictions")
    assert segments
    assert {path.stat().st_uid for path in segments} == {SOMEBODY}


def test_monitor_finds_drift_and_sends_the_signed_event(monitor: Image, writable: Path, tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    bundle = world.publish()
    world.write_log(bundle, 500, DRIFTED)
    for folder in (world.log, *world.log.rglob("*/")):
        folder.chmod(0o2777)
    secret = tmp_path / "secrets"
    secret.mkdir()
    (secret / "webhook").write_text(SECRET)
    volumes = {
        "/models": (world.repo, "ro"),
        "/log": (world.log, "rw"),
        "/state": (writable, "rw"),
        "/run/secrets": (secret, "ro"),
    }
    with receiver() as hook:
        environment = {
            "PLUMBLINE_WEBHOOK_URLS": hook.url(),
            "PLUMBLINE_WEBHOOK_SECRET_FILE": "/run/secrets/webhook",
            "PLUMBLINE_MONITOR_HOST": "127.0.0.1",
            "PLUMBLINE_MONITOR_PORT": str(port := free_port()),
            "PLUMBLINE_MONITOR_POLL_SECONDS": "0.2",
        }
        with box(monitor, tmp_path / "output", volumes=volumes, environment=environment) as watching:
            until(lambda: watching.outside.poll() is not None or _drift(hook.received), 120, "the event")
            assert watching.outside.poll() is None, watching.log.read_text()
            assert answers(f"http://127.0.0.1:{port}/readyz")
            print(f"\n{instruction_set()}: monitor after its first window, resident {watching.memory():.0f} MB")
            watching.send(signal.SIGTERM)
            assert watching.outside.wait(60) == 0, watching.log.read_text()
    (headers, body) = _drift(hook.received)[0]
    verify((KEY,), headers, body)
    assert list(writable.rglob("reports/tickets/*.html"))


def _drift(received: list[tuple[str, dict[str, str], bytes]]) -> list[tuple[dict[str, str], bytes]]:
    return [(headers, body) for _, headers, body in received if b"plumbline.drift.detected" in body]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Path]:
    """A checkpoint of two tiny layers, random, with files of texts for its two labels."""
    import torch
    from transformers import BertForSequenceClassification

    from tests.export.conftest import make_base, sentences

    folder = tmp_path / "work"
    base = make_base(folder / "base")
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(
        base, num_labels=2, id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1}
    )
    model.save_pretrained(folder / "checkpoint")
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (base / name).exists():
            (folder / "checkpoint" / name).write_bytes((base / name).read_bytes())
    for name, seed in (("train", 1), ("eval", 2)):
        rows = sentences(300, seed)
        (folder / f"{name}.csv").write_text(
            "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(rows.texts, rows.labels, strict=True))
        )
    for file in folder.rglob("*"):  # safetensors writes for its own user only, and the image runs as another
        file.chmod(file.stat().st_mode | 0o555 if file.is_dir() else 0o644)
    return folder


def test_export_publishes_a_bundle_without_a_network(
    export: Image, checkpoint: Path, writable: Path, tmp_path: Path
) -> None:
    arguments = (
        "export",
        "/data/checkpoint",
        "--train",
        "/data/train.csv",
        "--eval",
        "/data/eval.csv",
        "--repo",
        "/models",
        "--name",
        "tiny",
        "--no-prune",
        "--allow-weak",
        "--json",
    )
    started = time.monotonic()
    code, output = run(
        export,
        tmp_path / "output",
        *arguments,
        seconds=400,
        volumes={"/models": (writable, "rw"), "/data": (checkpoint, "ro")},
        network=False,
    )
    assert code == 0, output
    print(f"\n{instruction_set()}: export of a tiny checkpoint {time.monotonic() - started:.0f} s")
    assert open_bundle(writable / "tiny" / "1").manifest.variants.keys() == {"cpu"}  # every file is what it says
    assert read_serving(writable, "tiny").live == "1"


@pytest.mark.parametrize(
    ("target", "command", "volumes", "environment", "messages"),
    [
        ("serve", (), {"/models": "empty"}, {}, ["/models holds no model", "plumbline export", "mount"]),
        ("serve", (), {"/models": "closed"}, {}, ["/models cannot be read", f"user {SOMEBODY}"]),
        (
            "serve",
            (),
            {"/models": "repo"},
            {"PLUMBLINE_LOG": "/log"},
            ["PLUMBLINE_LOG", "/log", "mount", f"user {SOMEBODY}"],
        ),
        (
            "serve",
            (),
            {"/models": "repo"},
            {"PLUMBLINE_API_KEYS_FILE": "/run/secrets/keys"},
            ["PLUMBLINE_API_KEYS_FILE", "/run/secrets/keys", "No such file", "mount"],
        ),
        (
            "serve",
            (),
            {"/models": "both"},
            {"PLUMBLINE_DEVICE": "cuda"},
            ["cuda", "CPUExecutionProvider", "--device cpu"],
        ),
        ("monitor", (), {}, {}, ["/state", "Read-only file system", f"user {SOMEBODY}", "mount"]),
        (
            "monitor",
            (),
            {},
            {"PLUMBLINE_WEBHOOK_SECRET_FILE": "/run/secrets/webhook"},
            ["PLUMBLINE_WEBHOOK_SECRET_FILE", "/run/secrets/webhook", "mount"],
        ),
        (
            "export",
            ("export", "/models", "--train", "/models", "--eval", "/models", "--repo", "/models", "--name", "x"),
            {"/models": "empty"},
            {},
            ["/models", "cannot be written", f"user {SOMEBODY}", "mount"],
        ),
    ],
)
def test_what_is_wrong_with_a_volume_or_a_secret_is_told_with_its_mend(
    target: str,
    command: tuple[str, ...],
    volumes: dict[str, str],
    environment: dict[str, str],
    messages: list[str],
    repo: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    folders = {"empty": tmp_path / "empty", "closed": tmp_path / "closed", "both": tmp_path / "both", "repo": repo}
    make_bundle(folders["both"], variants=("cpu", "cuda"))
    folders["empty"].mkdir()
    folders["closed"].mkdir(mode=0o700)
    mounted = {place: (folders[name], "ro") for place, name in volumes.items()}
    code, output = run(
        request.getfixturevalue(target),
        tmp_path / "output",
        *command,
        volumes=mounted,
        environment={**_serving(free_port()), **environment},
    )
    assert code in (1, 2), output
    assert "Traceback" not in output
    for message in messages:
        assert message in output


def test_an_image_started_as_root_says_so_and_works(serve: Image, repo: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    with box(
        serve, tmp_path / "output", volumes={"/models": (repo, "ro")}, environment=_serving(port), user=0
    ) as server:
        until(lambda: server.outside.poll() is not None or answers(f"{url}/readyz"), 120, "ready")
        assert server.outside.poll() is None, server.log.read_text()
        said = server.log.read_text()
    assert "runs as root" in said
    assert "runAsNonRoot" in said


def test_a_change_of_code_installs_nothing_again(workshop: Workshop, serve: Image, tmp_path: Path) -> None:
    steps = workshop.steps_after_a_change("serve", tmp_path / "changed", "service/__init__.py")
    assert any("compileall" in step for step in steps)
    assert not any("install" in step for step in steps)
