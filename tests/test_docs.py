"""The documentation says what is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import build_pages
from monitoring.metrics import Metrics as MonitorMetrics
from plumbline import cli
from service.telemetry.metrics import Metrics as ServiceMetrics

ROOT = Path(__file__).parents[1]


def test_pages_that_are_made_are_what_would_be_made() -> None:
    for path, content in build_pages.files().items():
        assert path.read_text() == content, "run make docs"


@pytest.mark.parametrize(("metrics", "page"), [(ServiceMetrics(), "http.md"), (MonitorMetrics(), "monitoring.md")])
def test_every_metric_is_documented(metrics: ServiceMetrics | MonitorMetrics, page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    for family in metrics.registry.collect():
        assert family.name in text


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_every_link_and_command_in_the_documentation_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target
    for command in re.findall(r"(?:^|`|\$ )plumbline ([a-z]+)", text, re.M):
        assert command in cli.COMMANDS, command
    for command in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M):
        assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.M), command


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "check", "test-all", "setup", "help"):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_no_module_docstring_is_missing() -> None:
    for package in ("service", "export", "monitoring", "loadtest", "examples"):
        for module in (ROOT / package).rglob("*.py"):
            source = module.read_text()
            assert not source or source.startswith('"""'), module
