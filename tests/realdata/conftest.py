"""Real labelled text with real drift, found by PLUMBLINE_DATA or beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("PLUMBLINE_DATA", root.parent / "shared" / "data"))
    if not (folder / "sst2" / "train.csv").exists():
        pytest.skip(f"no labelled data at {folder}; set PLUMBLINE_DATA to its folder")
    return folder
