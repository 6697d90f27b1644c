from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.http.app import create_app
from service.settings import ServiceSettings
from tests.fakes import make_bundle
from tests.processes import free_port, plumbline, running, until


@pytest.fixture(scope="session", autouse=True)
def _described_once() -> Iterator[None]:
    """All applications have the same routes: describing them takes a tenth of a second, and hundreds are started."""
    known: dict[str, dict[str, Any]] = {}
    describe = FastAPI.openapi

    def openapi(self: FastAPI) -> dict[str, Any]:
        key = str(self.servers)
        if key not in known:
            known[key] = describe(self)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FastAPI, "openapi", openapi)
        yield


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with one live version of the model ``reviews``."""
    root = tmp_path / "models"
    make_bundle(root)
    return root


@pytest.fixture
def start(repo: Path, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Starts the app in this process and waits until it is ready; options override the settings."""
    with ExitStack() as stack:

        def run(*, ready: bool = True, **options: object) -> TestClient:
            settings = ServiceSettings(
                repo=repo, log=tmp_path / "log", threads=1, poll_seconds=0.02, log_fsync_seconds=0.01, **options
            )
            client = stack.enter_context(
                TestClient(create_app(settings), base_url="http://localhost", raise_server_exceptions=False)
            )
            if ready:
                until(lambda: client.get("/readyz").status_code == 200)
            return client

        yield run


@pytest.fixture
def client(start: Callable[..., TestClient]) -> TestClient:
    return start()


@pytest.fixture
def url(repo: Path) -> Iterator[str]:
    """A server in a process of its own, as clients meet it."""
    address = f"127.0.0.1:{(port := free_port())}"
    with running(plumbline("serve", "--repo", repo, "--port", str(port)), ready=f"http://{address}/readyz"):
        yield address
