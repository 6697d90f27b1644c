"""The model repository: whole versions or none, and one answer to the question of what is live."""

from __future__ import annotations

import errno
import json
import multiprocessing
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.contract import files, repository
from service.contract.bundle import Manifest, open_bundle
from service.contract.errors import BundleError, InvalidInput
from service.contract.repository import (
    Canary,
    Serving,
    change_serving,
    check_name,
    live_bundle,
    model_names,
    publish,
    read_serving,
    set_live,
    staging,
    versions,
)
from tests.fakes import make_manifest
from tests.service.contract.conftest import publish_one, write_files


def left_in(root: Path, name: str = "reviews") -> set[str]:
    """What is in a model's folder, without its lock."""
    return {entry.name for entry in (root / name).iterdir()} - {".lock"}


class TestNames:
    @pytest.mark.parametrize("name", ["a", "0", "sst2-v1.2_x", "A" * 63])
    def test_allowed(self, name: str) -> None:
        assert check_name(name) == name

    @pytest.mark.parametrize(
        "name", ["", ".", "..", ".hidden", "-x", "a/b", "../a", "a b", "a\n", "é", "a\0", "A" * 64]
    )
    def test_not_allowed(self, name: str, tmp_path: Path) -> None:
        for use in (check_name, lambda it: versions(tmp_path, it), lambda it: set_live(tmp_path, it, "1")):
            with pytest.raises(InvalidInput, match="model name"):
                use(name)

    def test_models_are_those_with_a_version(self, tmp_path: Path) -> None:
        assert model_names(tmp_path / "none") == []
        publish_one(tmp_path, "b")
        publish_one(tmp_path, "a")
        (tmp_path / "empty").mkdir()
        (tmp_path / ".hidden").mkdir()
        (tmp_path / "file").write_text("")
        assert model_names(tmp_path) == ["a", "b"]


class TestVersions:
    def test_they_count_up_from_1(self, tmp_path: Path) -> None:
        assert [publish_one(tmp_path).manifest.version for _ in range(3)] == ["1", "2", "3"]
        assert versions(tmp_path, "reviews") == ["1", "2", "3"]

    def test_the_order_is_that_of_numbers(self, tmp_path: Path) -> None:
        for version in ("9", "10", "100"):
            (tmp_path / "reviews" / version).mkdir(parents=True)
        assert versions(tmp_path, "reviews") == ["9", "10", "100"]
        assert publish_one(tmp_path).manifest.version == "101"

    def test_other_things_in_the_folder_are_no_versions(self, tmp_path: Path) -> None:
        for entry in (".staging-1", "01", "0", "latest", "1.bak"):
            (tmp_path / "reviews" / entry).mkdir(parents=True)
        (tmp_path / "reviews" / "5").write_text("a file")
        assert versions(tmp_path, "reviews") == []

    def test_an_unknown_model_has_none(self, tmp_path: Path) -> None:
        assert versions(tmp_path, "nobody") == []


class TestPublish:
    def test_the_published_bundle_verifies(self, tmp_path: Path) -> None:
        bundle = publish_one(tmp_path)
        assert bundle.path == tmp_path / "reviews" / "1"
        assert open_bundle(bundle.path).digest == bundle.digest

    def test_others_may_read_it(self, tmp_path: Path) -> None:
        assert stat.S_IMODE(publish_one(tmp_path).path.stat().st_mode) == 0o755

    def test_it_is_not_live_until_somebody_says_so(self, tmp_path: Path) -> None:
        publish_one(tmp_path)
        with pytest.raises(BundleError, match="no live model"):
            read_serving(tmp_path, "reviews")

    def test_nothing_is_left_beside_it(self, tmp_path: Path) -> None:
        publish_one(tmp_path)
        assert left_in(tmp_path) == {"1"}

    def test_staging_is_hidden_and_removed_when_nothing_is_published(self, tmp_path: Path) -> None:
        with staging(tmp_path, "reviews") as stage:
            write_files(stage)
            assert versions(tmp_path, "reviews") == []
            assert stage.parent == tmp_path / "reviews"
        assert left_in(tmp_path) == set()

    def test_staging_is_removed_on_error(self, tmp_path: Path) -> None:
        def export() -> None:
            with staging(tmp_path, "reviews") as stage:
                write_files(stage)
                raise RuntimeError("export failed")

        with pytest.raises(RuntimeError, match="export failed"):
            export()
        assert left_in(tmp_path) == set()

    def test_a_manifest_that_cannot_be_made_publishes_nothing(self, tmp_path: Path) -> None:
        def broken(version: str) -> Manifest:
            raise ValueError(version)

        with pytest.raises(ValueError, match="1"), staging(tmp_path, "reviews") as stage:
            publish(tmp_path, "reviews", stage, broken)
        assert left_in(tmp_path) == set()

    @pytest.mark.parametrize("full_at", ["write", "fsync", "rename"])
    def test_a_full_disk_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str) -> None:
        publish_one(tmp_path)

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def publish_on_full_disk() -> None:
            with staging(tmp_path, "reviews") as stage:
                write_files(stage)
                manifest = make_manifest(stage, "2")
                with monkeypatch.context() as patch:
                    target: Any = repository if full_at == "fsync" else Path
                    patch.setattr(target, {"write": "write_bytes", "fsync": "fsync_path"}.get(full_at, full_at), full)
                    publish(tmp_path, "reviews", stage, lambda _: manifest)

        with pytest.raises(OSError, match="No space left"):
            publish_on_full_disk()
        assert left_in(tmp_path) == {"1"}
        assert publish_one(tmp_path).manifest.version == "2"

    def test_everything_is_on_the_disk_before_it_is_visible(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []

        def note(path: Path) -> None:
            if not versions(tmp_path, "reviews"):
                synced.append(path.name)
            files.fsync_path(path)

        monkeypatch.setattr(repository, "fsync_path", note)
        publish_one(tmp_path)
        assert {"manifest.json", "tokenizer.json", "model.int8.onnx", "golden.jsonl"} <= set(synced)

    def test_two_processes_get_different_versions(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(2)
        processes = [context.Process(target=_publish_some, args=(barrier, tmp_path, 5)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        assert versions(tmp_path, "reviews") == [str(number) for number in range(1, 11)]
        for version in versions(tmp_path, "reviews"):
            assert open_bundle(tmp_path / "reviews" / version).manifest.version == version
        assert left_in(tmp_path) == set(versions(tmp_path, "reviews"))


def _publish_some(barrier: Any, root: Path, count: int) -> None:
    barrier.wait(30)
    for _ in range(count):
        publish_one(root)


class TestLive:
    def test_the_first(self, tmp_path: Path) -> None:
        bundle = publish_one(tmp_path)
        assert set_live(tmp_path, "reviews", "1") == Serving(live="1")
        assert read_serving(tmp_path, "reviews") == Serving(live="1")
        assert live_bundle(tmp_path, "reviews").digest == bundle.digest

    def test_the_one_before_is_remembered_so_that_one_can_go_back(self, tmp_path: Path) -> None:
        for version in ("1", "2"):
            publish_one(tmp_path)
            set_live(tmp_path, "reviews", version)
        assert read_serving(tmp_path, "reviews") == Serving(live="2", previous="1")
        assert set_live(tmp_path, "reviews", "1") == Serving(live="1", previous="2")

    def test_saying_it_twice_changes_nothing(self, tmp_path: Path) -> None:
        for version in ("1", "2", "2"):
            publish_one(tmp_path)
            set_live(tmp_path, "reviews", version)
        assert read_serving(tmp_path, "reviews") == Serving(live="2", previous="1")

    @pytest.mark.parametrize("version", ["2", "latest", "", ".."])
    def test_a_version_that_does_not_exist(self, tmp_path: Path, version: str) -> None:
        publish_one(tmp_path)
        set_live(tmp_path, "reviews", "1")
        with pytest.raises(BundleError):
            set_live(tmp_path, "reviews", version)
        assert read_serving(tmp_path, "reviews") == Serving(live="1")

    def test_a_version_of_another_model(self, tmp_path: Path) -> None:
        publish_one(tmp_path)
        publish_one(tmp_path, "other")
        with pytest.raises(InvalidInput):
            set_live(tmp_path, "reviews", "../other/1")

    def test_a_misspelt_model_leaves_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError):
            set_live(tmp_path, "revuews", "1")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"live": "0"}', b'{"live": 1}', b'{"live": "1", "x": 1}'])
    def test_a_damaged_answer_is_said_to_be_damaged(self, tmp_path: Path, content: bytes) -> None:
        publish_one(tmp_path)
        path = tmp_path / "reviews" / "serving.json"
        path.write_bytes(content)
        with pytest.raises(BundleError, match="cannot be read") as caught:
            read_serving(tmp_path, "reviews")
        assert str(path) in str(caught.value)

    def test_a_damaged_answer_is_mended_by_giving_a_new_one(self, tmp_path: Path) -> None:
        publish_one(tmp_path)
        (tmp_path / "reviews" / "serving.json").write_text("{")
        assert set_live(tmp_path, "reviews", "1") == Serving(live="1")

    @pytest.mark.parametrize("read", [read_serving, live_bundle])
    def test_an_unknown_model(self, tmp_path: Path, read: Callable[[Path, str], object]) -> None:
        with pytest.raises(BundleError, match="Export one first"):
            read(tmp_path, "nobody")


class TestCandidates:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for _ in range(4):
            publish_one(tmp_path)
        set_live(tmp_path, "reviews", "1")
        return tmp_path

    def with_candidates(self, now: Serving | None) -> Serving:
        assert now is not None
        return now.model_copy(update={"canary": Canary(version="2", weight=0.25), "shadow": "3"})

    def test_they_stand_in_serving_json(self, root: Path) -> None:
        serving = change_serving(root, "reviews", self.with_candidates)
        assert read_serving(root, "reviews") == serving
        content = json.loads((root / "reviews" / "serving.json").read_text())
        assert content == {"live": "1", "canary": {"version": "2", "weight": 0.25}, "shadow": "3"}

    def test_a_file_from_before_there_were_candidates_is_read(self, root: Path) -> None:
        (root / "reviews" / "serving.json").write_text('{"live": "3", "previous": "2"}')
        assert read_serving(root, "reviews") == Serving(live="3", previous="2", canary=None, shadow=None)

    def test_they_stay_when_another_version_becomes_live(self, root: Path) -> None:
        before = change_serving(root, "reviews", self.with_candidates)
        serving = set_live(root, "reviews", "4")
        assert (serving.live, serving.previous) == ("4", "1")
        assert (serving.canary, serving.shadow) == (before.canary, before.shadow)

    def test_one_that_becomes_live_is_none_any_more(self, root: Path) -> None:
        change_serving(root, "reviews", self.with_candidates)
        assert set_live(root, "reviews", "2") == Serving(live="2", previous="1", shadow="3")
        assert set_live(root, "reviews", "3") == Serving(live="3", previous="2")

    @pytest.mark.parametrize(
        ("field", "value"), [("canary", Canary(version="9", weight=0.5)), ("shadow", "9"), ("live", "9")]
    )
    def test_a_version_that_does_not_exist_changes_nothing(self, root: Path, field: str, value: object) -> None:
        with pytest.raises(BundleError, match="no bundle at"):
            change_serving(root, "reviews", lambda now: now.model_copy(update={field: value}))  # type: ignore[union-attr]
        assert read_serving(root, "reviews") == Serving(live="1")

    @pytest.mark.parametrize("weight", [0, -0.1, 1.1, float("nan")])
    def test_a_weight_that_is_no_share_changes_nothing(self, root: Path, weight: float) -> None:
        with pytest.raises(BundleError, match="weight of reviews cannot be"):
            change_serving(root, "reviews", lambda now: Serving(live="1", canary=Canary(version="2", weight=weight)))
        assert read_serving(root, "reviews") == Serving(live="1")

    def test_writers_do_not_undo_each_other(self, root: Path) -> None:
        def slowly(now: Serving | None) -> Serving:
            other.start()
            other.join(0.2)  # it waits for the lock
            return self.with_candidates(now)

        other = threading.Thread(target=set_live, args=(root, "reviews", "4"))
        change_serving(root, "reviews", slowly)
        other.join()
        serving = read_serving(root, "reviews")
        assert (serving.live, serving.shadow) == ("4", "3")
