"""A bundle is trusted only if every byte is what its manifest says, and nothing leads out of its folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import orjson
import pytest

from service.contract.bundle import Bundle, Manifest, file_entries, open_bundle, read_bundle
from service.contract.errors import BundleError
from tests.fakes import MODEL, make_manifest
from tests.service.contract.conftest import write_manifest

OUTSIDE = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    return str(caught.value)


class TestValid:
    def test_the_digest_is_the_hash_of_the_manifest(self, bundle: Bundle) -> None:
        raw = (bundle.path / "manifest.json").read_bytes()
        assert bundle.digest == hashlib.sha256(raw).hexdigest()

    def test_the_manifest_survives_json(self, bundle: Bundle) -> None:
        assert Manifest.model_validate_json(bundle.manifest.to_json()) == bundle.manifest
        assert bundle.manifest.to_json() == (bundle.path / "manifest.json").read_bytes()

    def test_every_file_is_listed_with_its_hash(self, bundle: Bundle) -> None:
        assert set(bundle.manifest.files) == {MODEL, "tokenizer.json", "reference.parquet", "golden.jsonl"}
        entry = bundle.manifest.files[MODEL]
        assert entry.sha256 == hashlib.sha256(bundle.file(MODEL).read_bytes()).hexdigest()
        assert entry.bytes == len(bundle.file(MODEL).read_bytes())

    def test_files_in_folders_are_listed_by_their_path(self, bundle: Bundle) -> None:
        (bundle.path / "sub").mkdir()
        (bundle.path / "sub" / "more.txt").write_text("more")
        assert "sub/more.txt" in file_entries(bundle.path)

    def test_golden_cases_come_in_file_order(self, bundle: Bundle) -> None:
        first, second = bundle.golden()
        assert first.text == "שלום 😀"
        assert first.logits == {"cpu": (0.5, -0.5)}
        assert second.text == "two\nlines\u2028"

    def test_damaged_golden_cases(self, bundle: Bundle) -> None:
        bundle.file("golden.jsonl").write_text('{"text": "cut')
        with pytest.raises(BundleError, match="golden"):
            bundle.golden()


class TestFiles:
    @pytest.mark.parametrize("name", [MODEL, "tokenizer.json", "reference.parquet", "golden.jsonl"])
    def test_an_altered_file(self, bundle: Bundle, name: str) -> None:
        content = bytearray(bundle.file(name).read_bytes())
        content[-1] ^= 1
        bundle.file(name).write_bytes(content)
        message = refusal(bundle.path)
        assert "digest mismatch" in message
        assert name in message

    @pytest.mark.parametrize("name", [MODEL, "tokenizer.json", "reference.parquet", "golden.jsonl"])
    def test_a_truncated_file(self, bundle: Bundle, name: str) -> None:
        size = bundle.file(name).stat().st_size
        bundle.file(name).write_bytes(bundle.file(name).read_bytes()[:-1])
        assert f"{name} has {size - 1} bytes, the manifest says {size}" in refusal(bundle.path)

    @pytest.mark.parametrize("name", [MODEL, "tokenizer.json", "reference.parquet", "golden.jsonl"])
    def test_a_missing_file(self, bundle: Bundle, name: str) -> None:
        bundle.file(name).unlink()
        assert f"{name} cannot be read" in refusal(bundle.path)

    def test_a_folder_in_place_of_a_file(self, bundle: Bundle) -> None:
        bundle.file(MODEL).unlink()
        bundle.file(MODEL).mkdir()
        refusal(bundle.path)

    def test_inspection_does_not_read_the_files(self, bundle: Bundle) -> None:
        bundle.file(MODEL).unlink()
        assert read_bundle(bundle.path).digest == bundle.digest


class TestPathsOutside:
    @pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "/etc/hostname", "..\\secret", "manifest.json"])
    def test_a_path_that_leaves_the_folder(self, bundle: Bundle, name: str) -> None:
        (bundle.path.parent / "secret").write_text("secret")
        write_manifest(bundle.path, files={**_files(bundle), name: OUTSIDE})
        assert "not a file inside the bundle" in refusal(bundle.path)

    def test_a_link_that_leaves_the_folder(self, bundle: Bundle) -> None:
        (bundle.path.parent / "secret").write_text("secret")
        (bundle.path / "link").symlink_to(bundle.path.parent / "secret")
        write_manifest(bundle.path, files={**_files(bundle), "link": OUTSIDE})
        assert "leads outside the bundle" in refusal(bundle.path)

    def test_a_linked_folder_that_leaves_the_folder(self, bundle: Bundle) -> None:
        outside = bundle.path.parent / "outside"
        outside.mkdir()
        (outside / "secret").write_text("secret")
        (bundle.path / "sub").symlink_to(outside)
        write_manifest(bundle.path, files={**_files(bundle), "sub/secret": OUTSIDE})
        assert "leads outside the bundle" in refusal(bundle.path)

    def test_a_bundle_reached_through_a_link_is_fine(self, bundle: Bundle) -> None:
        (bundle.path.parent / "latest").symlink_to(bundle.path)
        assert open_bundle(bundle.path.parent / "latest").digest == bundle.digest

    def test_a_link_that_leads_to_itself(self, bundle: Bundle) -> None:
        (bundle.path / "loop").symlink_to("loop")
        write_manifest(bundle.path, files={**_files(bundle), "loop": OUTSIDE})
        refusal(bundle.path)

    def test_a_null_character_in_a_path(self, bundle: Bundle) -> None:
        write_manifest(bundle.path, files={**_files(bundle), "a\0b": OUTSIDE})
        refusal(bundle.path)


class TestManifest:
    def test_no_bundle_there(self, tmp_path: Path) -> None:
        assert "no bundle at" in refusal(tmp_path / "none")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
    def test_no_json_object(self, bundle: Bundle, content: bytes) -> None:
        (bundle.path / "manifest.json").write_bytes(content)
        assert "not a valid manifest" in refusal(bundle.path)

    def test_a_truncated_manifest(self, bundle: Bundle) -> None:
        whole = (bundle.path / "manifest.json").read_bytes()
        (bundle.path / "manifest.json").write_bytes(whole[: len(whole) // 2])
        assert "not a valid manifest" in refusal(bundle.path)

    def test_an_unknown_field(self, bundle: Bundle) -> None:
        write_manifest(bundle.path, colour="blue")
        assert "colour" in refusal(bundle.path)

    @pytest.mark.parametrize("version", [0, 1, 3, "1", None])
    def test_an_unknown_schema_version(self, bundle: Bundle, version: object) -> None:
        write_manifest(bundle.path, schema_version=version)
        assert f"has schema version {version}, this Plumbline reads 2" in refusal(bundle.path)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("version", "0"),
            ("version", "../1"),
            ("labels", []),
            ("variants", {}),
            ("variants", {"tpu": {}}),
            ("max_length", 1),
            ("created", "yesterday"),
        ],
    )
    def test_a_value_that_is_not_allowed_is_named(self, bundle: Bundle, field: str, value: object) -> None:
        write_manifest(bundle.path, **{field: value})
        assert f": {field}" in refusal(bundle.path)

    def test_a_file_that_is_needed_and_not_listed(self, bundle: Bundle) -> None:
        files = _files(bundle)
        del files["tokenizer.json"]
        write_manifest(bundle.path, files=files)
        assert "files lacks tokenizer.json" in refusal(bundle.path)

    def test_not_a_number_is_no_figure(self, bundle: Bundle) -> None:
        text = (bundle.path / "manifest.json").read_text().replace('"baseline": 0.9', '"baseline": NaN')
        (bundle.path / "manifest.json").write_text(text)
        refusal(bundle.path)

    def test_a_manifest_does_not_change(self, bundle: Bundle) -> None:
        with pytest.raises(ValueError, match="frozen"):
            bundle.manifest.name = "other"  # type: ignore[misc]

    def test_a_version_is_what_its_writer_was_allotted(self, bundle: Bundle) -> None:
        assert orjson.loads(make_manifest(bundle.path, "7").to_json())["version"] == "7"


def _files(bundle: Bundle) -> dict[str, object]:
    return {name: entry.model_dump() for name, entry in bundle.manifest.files.items()}
