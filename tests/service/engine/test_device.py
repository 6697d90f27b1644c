"""Where a model runs: as asked, or not at all; ``auto`` falls back, loudly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import service.models.loaded
from service.contract.errors import PlumblineError
from service.engine import Engine, EngineError
from service.http.app import create_app
from service.settings import ServiceSettings
from tests.fakes import make_bundle
from tests.processes import until

Start = Callable[..., TestClient]
REASON = "no driver was found"
METRIC = 'plumbline_device_fallback{model="reviews"}'


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(file: Path, *, device: str, **options: Any) -> Engine:
        if device == "cuda":
            raise EngineError(f"{file} cannot be loaded on cuda: {REASON}.")
        return Engine(file, device="cpu", **options)

    monkeypatch.setattr(service.models.loaded, "Engine", make)


@pytest.mark.usefixtures("_no_gpu")
def test_a_fallback_is_in_the_log_the_metrics_and_on_the_page_in_red(
    start: Start, repo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_bundle(repo, variants=("cpu", "cuda"))
    client = start(device="auto")
    (said,) = (one for one in caplog.records if "fell back from the GPU" in one.getMessage())
    assert said.levelname == "WARNING"
    assert REASON in said.getMessage()
    assert f"{METRIC} 1.0" in client.get("/metrics").text
    page = client.get("/").text
    assert '<span class="badge bad">fell back from the GPU</span>' in page
    assert str(repo) not in page  # it asks for no key
    assert client.post("/predict", json={"inputs": "good"}).status_code == 200
    make_bundle(repo)  # a version for the CPU only: nothing falls back
    until(lambda: f"{METRIC} 0.0" in client.get("/metrics").text)
    assert "fell back" not in client.get("/").text
    client.post("/v2/repository/models/reviews/unload")
    assert METRIC not in client.get("/metrics").text


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize(("device", "variants"), [("cpu", ("cpu", "cuda")), ("auto", ("cpu",))])
def test_the_cpu_where_it_is_meant_is_no_fallback(
    start: Start, repo: Path, device: str, variants: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make_bundle(repo, variants=variants)
    client = start(device=device)
    assert "fell back" not in caplog.text + client.get("/").text
    assert f"{METRIC} 0.0" in client.get("/metrics").text


@pytest.mark.usefixtures("_no_gpu")
def test_a_gpu_that_was_demanded_is_not_replaced(repo: Path) -> None:
    make_bundle(repo, variants=("cpu", "cuda"))
    failures: list[PlumblineError] = []
    with TestClient(
        create_app(ServiceSettings(repo=repo, device="cuda"), on_failure=failures.append), base_url="http://localhost"
    ) as client:
        until(lambda: failures)
        assert client.get("/readyz").status_code == 503
    assert REASON in str(failures[0])


def test_onnx_runtime_that_falls_back_by_itself_is_an_error(repo: Path) -> None:
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers() and Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    with pytest.raises(EngineError, match="cuda"):
        Engine(repo / "reviews" / "1" / "model.int8.onnx", device="cuda", threads=1, max_length=16)


@pytest.mark.parametrize(("here", "told"), [("avx512_vnni", True), ("avx2", False)])
def test_another_instruction_set_than_the_measured_one_is_in_the_log(
    start: Start, repo: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, here: str, told: bool
) -> None:
    monkeypatch.setattr(service.models.loaded, "instruction_set", lambda: here)
    make_bundle(repo)  # measured on avx2
    start()
    assert ("were measured on avx2; this machine has avx512_vnni" in caplog.text) is told
