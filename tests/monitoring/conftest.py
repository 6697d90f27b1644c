"""Fixtures of the monitor's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.monitoring.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """An empty repository and log; proxies of the machine do not apply to loopback."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    world = World(tmp_path)
    world.log.mkdir()
    return world
