"""The dependency direction that ARCHITECTURE.md claims: what each folder may import, everything else it may not."""

from __future__ import annotations

from collections.abc import Iterator

import grimp
import pytest

PACKAGES = ("service", "export", "monitoring", "loadtest", "plumbline")
ANYONE = {"service"}  # the package itself: the version of all of it, and nothing else
ENTRY = {"service.contract", "service.tasks", "service.card", "service.engine", "service.terminal"}

# By the longest name that an importing module begins with; modules of the same folder import each other freely.
# Every folder's line names only folders on lines above it, so there is no cycle.
ALLOWED: dict[str, set[str]] = {
    "service.contract": set(),
    "service.terminal": {"service.contract"},
    "service.tasks": {"service.contract"},
    "service.card": {"service.contract", "service.tasks"},
    "service.errors": {"service.contract"},
    "service.settings": {"service.contract", "service.terminal"},
    "service.batching": {"service.errors"},
    "service.engine": {"service.contract", "service.batching.packing", "service.tasks"},
    "service.telemetry": set(),
    "service.log": {"service.contract", "service.terminal"},
    "service.models": {
        *("service.contract", "service.errors", "service.tasks", "service.card", "service.batching"),
        *("service.engine", "service.telemetry", "service.log"),
    },
    "service.workers": {
        *("service.contract", "service.errors", "service.settings", "service.engine", "service.telemetry"),
    },
    "service.http": {
        *("service.contract", "service.terminal", "service.tasks", "service.card", "service.errors"),
        *("service.settings", "service.engine", "service.telemetry", "service.log", "service.models"),
        "service.workers",
    },
    "service.cli": {"service"},
    "export.errors": {"service.contract"},
    "export.hardware": {"service.contract"},
    "export.preconditions": {"service.contract", "service.tasks"},
    "export.progress": set(),
    "export.stages": {"service.contract"},
    "export.checkpoint": {
        *("export.errors", "service.contract", "service.engine", "service.tasks", "service.terminal"),
    },
    "export.inference": {"export.checkpoint", "service.contract", "service.engine", "service.tasks"},
    "export.data": {"export.checkpoint", "export.inference", "service.contract", "service.tasks"},
    "export.tasks": {"export.checkpoint", "export.data", "service.contract", "service.tasks"},
    "export.graph": {
        *("export.errors", "export.hardware", "export.checkpoint", "export.inference", "export.tasks"),
        *("service.contract", "service.engine", "service.tasks"),
    },
    "export.judge": {
        *("export.errors", "export.checkpoint", "export.inference", "export.graph"),
        *("service.contract", "service.tasks", "service.card"),
    },
    "export.measure": {
        *("export.hardware", "export.checkpoint", "export.inference", "export.graph"),
        *("service.contract", "service.engine", "service.tasks"),
    },
    "export.train": {
        *("export.errors", "export.hardware", "export.preconditions", "export.progress", "export.checkpoint"),
        *("export.inference", "export.data", "export.tasks", "export.graph", "export.judge"),
        *("service.contract", "service.engine", "service.tasks"),
    },
    "export.prune": {
        *("export.hardware", "export.inference", "export.tasks", "export.graph", "export.measure"),
        *("service.contract", "service.engine", "service.tasks"),
    },
    "export.search": {
        *("export.errors", "export.hardware", "export.checkpoint", "export.inference"),
        *("export.tasks", "export.graph", "export.judge", "export.measure", "export.prune"),
        *("service.contract", "service.engine", "service.tasks"),
    },
    "export.card": {"service.contract", "service.card", "service.tasks"},
    "export": {"export", *ENTRY},  # the commands, which put it together
    "monitoring.errors": {"service.contract"},
    "monitoring.state": {"monitoring.errors", "service.contract"},
    "monitoring.signals": {"service.contract", "service.tasks"},
    "monitoring.windows": {
        *("monitoring.errors", "monitoring.state", "monitoring.signals"),
        *("service.contract", "service.tasks", "service.terminal"),
    },
    "monitoring.judging": {"monitoring.state", "monitoring.signals", "service.contract", "service.tasks"},
    "monitoring.delivery": {
        *("monitoring.errors", "monitoring.state", "monitoring.windows", "monitoring.judging", "service.contract"),
    },
    "monitoring.metrics": {"monitoring.judging", "service.contract"},
    "monitoring.pages": {
        *("monitoring.errors", "monitoring.state", "monitoring.judging", "monitoring.delivery", "monitoring.metrics"),
        *("service.contract", "service.card"),
    },
    "monitoring": {"monitoring", "service.contract", "service.tasks", "service.card", "service.terminal"},
    "plumbline.processes": {"service.contract"},
    "plumbline.demo": {"export", "monitoring", "plumbline.processes", "service.contract", "service.tasks"},
    "plumbline": {"plumbline", "service.contract", "service.terminal"},  # commands are found by name
    "loadtest.load": {"plumbline.processes", "service.contract", "service.card"},
    "loadtest": set(PACKAGES),
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def within(module: str, folders: set[str]) -> bool:
    return any(module == folder or module.startswith(f"{folder}.") for folder in folders)


def folder_of(module: str) -> str:
    return max((one for one in ALLOWED if within(module, {one})), key=len)


def wrong(graph: grimp.ImportGraph) -> Iterator[str]:
    for importer in sorted(graph.modules - ANYONE):
        folder = folder_of(importer)
        for imported in sorted(graph.find_modules_directly_imported_by(importer) - ANYONE):
            if not within(imported, ALLOWED[folder] | {folder}):
                yield f"{importer} imports {imported}"


def test_each_folder_imports_only_what_it_may(graph: grimp.ImportGraph) -> None:
    assert list(wrong(graph)) == []


def test_what_is_allowed_is_what_is_done(graph: grimp.ImportGraph) -> None:
    done: dict[str, set[str]] = {folder: set() for folder in ALLOWED}
    for importer in graph.modules - ANYONE:
        done[folder_of(importer)] |= graph.find_modules_directly_imported_by(importer)
    unused = [
        f"{folder}: {one}"
        for folder, allowed in ALLOWED.items()
        for one in allowed - set(PACKAGES)
        if not any(within(imported, {one}) for imported in done[folder])
    ]
    assert unused == []


def test_there_is_no_cycle_between_folders() -> None:
    above: list[str] = []
    for folder, allowed in ALLOWED.items():
        for one in allowed - set(PACKAGES):
            assert one in above or one == "service.batching.packing", f"{folder} stands above {one}"
        above.append(folder)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("service.contract.errors", "service.errors"),
        ("service.models.predictor", "service.http.keys"),
        ("service.batching.batcher", "service.engine.session"),
        ("service.http.app", "monitoring.app"),
        ("service.tasks.tokenizer", "service.models.loaded"),
        ("export.build", "service.http.app"),
        ("export.judge.gate", "export.search.walk"),
        ("monitoring.app", "service.http.keys"),
        ("monitoring.signals.columns", "monitoring.rounds"),
        ("service.cli", "plumbline.cli"),
    ],
)
def test_what_it_may_not_would_be_seen(importer: str, imported: str) -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    graph.add_import(importer=importer, imported=imported)
    assert list(wrong(graph)) == [f"{importer} imports {imported}"]
