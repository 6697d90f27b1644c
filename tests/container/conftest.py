"""The images, each built once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.boxes import Image, Workshop
from tests.fakes import make_bundle


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    made = Workshop(tmp_path_factory.mktemp("workshop"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def serve(workshop: Workshop) -> Image:
    return workshop.build("serve")


@pytest.fixture(scope="session")
def monitor(workshop: Workshop) -> Image:
    return workshop.build("monitor")


@pytest.fixture(scope="session")
def export(workshop: Workshop) -> Image:
    return workshop.build("export")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def writable(tmp_path: Path) -> Path:
    """A folder that the image's user may write by its group, as with Kubernetes' fsGroup."""
    folder = tmp_path / "volume"
    folder.mkdir()
    folder.chmod(0o2775)
    return folder
