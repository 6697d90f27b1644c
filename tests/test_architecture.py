"""The dependency direction that ARCHITECTURE.md claims: what each folder may import, everything else it may not."""

from __future__ import annotations

from collections.abc import Iterator

import grimp
import pytest

PACKAGES = ("service", "export", "monitoring", "loadtest", "examples")
# By the longest name that an importing module begins with; of the packages above.
VERSION = "service"  # of all of it; the package itself holds nothing else
ALLOWED: dict[str, set[str]] = {
    "service.contract": {"service.contract"},
    "service.engine": {"service.contract", "service.engine", "service.packing", "service.tokenizer"},
    "service.packing": set(),
    "service.tokenizer": {"service.contract"},
    "service": {"service"},
    "export": {"export", "service.contract", "service.engine", "service.tokenizer"},
    "monitoring": {"monitoring", "service.contract"},
    "examples": {"examples", "export", "monitoring", "service.contract"},
    "loadtest": set(PACKAGES),
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def within(module: str, folders: set[str]) -> bool:
    return any(module == folder or module.startswith(f"{folder}.") for folder in folders)


def wrong(graph: grimp.ImportGraph) -> Iterator[str]:
    for importer in sorted(graph.modules):
        folder = max((one for one in ALLOWED if within(importer, {one})), key=len)
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            if imported != VERSION and not within(imported, ALLOWED[folder]):
                yield f"{importer} imports {imported}"


def test_each_folder_imports_only_what_it_may(graph: grimp.ImportGraph) -> None:
    assert list(wrong(graph)) == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("service.contract.errors", "service.errors"),
        ("monitoring.app", "service.keys"),
        ("export.build", "service.app"),
        ("service.app", "monitoring.app"),
        ("service.tokenizer", "service.live"),
    ],
)
def test_what_it_may_not_would_be_seen(importer: str, imported: str) -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    graph.add_import(importer=importer, imported=imported)
    assert list(wrong(graph)) == [f"{importer} imports {imported}"]
