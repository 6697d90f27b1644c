"""A model that gives vectors, against transformers' own, from the folder to what is served."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from export.checkpoint.load import checkpoint_digest, kept_checkpoint, read_checkpoint
from export.checkpoint.sentence import MODULES
from export.checkpoint.tokenizer import read_texts
from export.data.labels import read_unlabelled
from export.errors import CheckpointError
from export.graph.onnx import export_onnx, load_model
from export.inference.predict import answer, load_engine
from export.judge.paired import compared
from export.pipeline import Exported, Options, export_checkpoint
from service.contract.dataset import Dataset
from service.contract.errors import DatasetError, InvalidInput
from service.tasks import EMBEDDINGS
from service.tasks.embeddings import Embeddings, as_text, neighbours, normalized
from tests.export.conftest import sentences

POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}


def as_sentence_model(
    base: Path, folder: Path, pooling: str = "mean", *, normalize: bool = True, length: int = 16
) -> Path:
    """The folder that sentence-transformers would write."""
    shutil.copytree(base, folder)
    steps = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{step}" if index else "",
            "type": f"sentence_transformers.models.{step}",
        }
        for index, step in enumerate(steps)
    ]
    (folder / MODULES).write_bytes(orjson.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {name: name == POOLINGS[pooling] for name in POOLINGS.values()}
    (folder / "1_Pooling" / "config.json").write_bytes(orjson.dumps(modes))
    (folder / "sentence_bert_config.json").write_bytes(orjson.dumps({"max_seq_length": 16, "do_lower_case": False}))
    return folder


def texts(rows: int, seed: int) -> Dataset:
    made = dict.fromkeys(map(str, sentences(rows, seed).texts))
    return Dataset(list(made), [""] * len(made))


@pytest.fixture(scope="module", params=["mean", "cls", "max"])
def model(base: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param, as_sentence_model(base, tmp_path_factory.mktemp("st") / request.param, request.param)


Vectors = Callable[[str], np.ndarray]


@pytest.fixture(scope="module")
def served(model: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """The float32 graph, by the tokenizer that serves."""
    checkpoint, folder = read_checkpoint(model[1]), tmp_path_factory.mktemp("graph")
    loaded = load_model(checkpoint)
    reading = read_texts(checkpoint.path, loaded, [], checkpoint.max_length)
    reading.write(folder / "tokenizer.json")
    engine = load_engine(export_onnx(loaded, folder), device="cpu", threads=1, max_length=16, pad_id=reading.pad_id)
    tokenizer = reading.served(folder / "tokenizer.json")
    return lambda text: checkpoint.task.probabilities(
        answer(engine, tokenizer, [text], checkpoint.labels, checkpoint.task).outputs.logits
    )[0]


@pytest.fixture(scope="module")
def theirs(model: tuple[str, Path]) -> Vectors:
    """transformers' model, pooled as sentence-transformers does."""
    pooling, folder = model
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def run(text: str) -> np.ndarray:
        read = tokenizer([text], truncation=True, max_length=16, return_tensors="pt")
        with torch.no_grad():
            hidden = encoder(**read).last_hidden_state[0]
        pooled = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0).values}[pooling]
        return torch.nn.functional.normalize(pooled, dim=0).numpy()

    return run


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=60), st.sampled_from(["🏳️‍🌈 שלום e\u0301", "fine " * 200_000])))
def test_vectors_are_those_of_transformers(served: Vectors, theirs: Vectors, text: str) -> None:
    np.testing.assert_allclose(served(text), theirs(text), atol=1e-4)


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset, Exported]:
    folder = tmp_path_factory.mktemp("embeddings")
    checkpoint = as_sentence_model(base, folder / "model")
    train, evaluation = texts(300, 1), texts(150, 2)
    return (
        folder,
        evaluation,
        export_checkpoint(
            checkpoint, train, evaluation, folder / "models", "vectors", Options(max_drop=30.0, time_budget=20)
        ),
    )


def test_it_is_judged_by_the_neighbours_that_the_checkpoint_finds(made: tuple[Path, Dataset, Exported]) -> None:
    folder, _, done = made
    manifest = done.bundle.manifest
    assert (manifest.task, manifest.labels, manifest.max_length) == (EMBEDDINGS.name, ("embedding",), 16)
    assert manifest.task_settings == {"pooling": "mean", "normalized": True, "dimensions": 32}
    quality = manifest.quality["cpu"]
    assert (quality.metric, quality.baseline) == ("recall@10", 1.0)
    assert 0.7 < quality.exported <= 1.0
    assert quality.majority == pytest.approx(10 / (quality.rows - 1))
    assert quality.lower_bound <= quality.difference
    assert "sentence embedding model of 32 dimensions (mean pooling)" in done.bundle.file("card.md").read_text()
    kept = kept_checkpoint(folder / "models", "vectors", manifest.source.checkpoint_sha256)
    assert checkpoint_digest(kept) == manifest.source.checkpoint_sha256
    assert read_checkpoint(kept).task == read_checkpoint(folder / "model").task


def test_neighbours_are_those_of_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    vectors = normalized(rng.normal(size=(1_300, 8)).astype(np.float32))
    found = neighbours(vectors, 10)
    for row in (0, 999, 1_000, 1_299):
        similar = vectors @ vectors[row]
        similar[row] = -np.inf
        assert set(found[row]) == set(np.argsort(-similar)[:10])


def test_its_merits_are_the_share_of_neighbours_that_are_found() -> None:
    task, rng = Embeddings(dimensions=4), np.random.default_rng(0)
    wanted = rng.normal(size=(50, 4)).astype(np.float32)
    answers, other = ([as_text(row) for row in rows] for rows in (wanted, rng.normal(size=(50, 4)).astype(np.float32)))
    assert task.score(task.merits(answers, answers)) == 1.0
    assert task.score(task.merits(other, answers)) == pytest.approx(10 / 49, abs=0.06)
    assert task.same(answers, answers).all()
    assert not task.same(other, answers).any()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (MODULES, [{"type": "sentence_transformers.models.Transformer"}], "has the steps Transformer; served are"),
        (MODULES, [{"type": f"a.{one}"} for one in ("Transformer", "Pooling", "Dense")], "Transformer, Pooling, Dense"),
        (MODULES, {}, "is not a list of steps"),
        ("1_Pooling/config.json", {"pooling_mode_lasttoken": True}, "pools by pooling_mode_lasttoken; served is one"),
        ("1_Pooling/config.json", dict.fromkeys(POOLINGS.values(), True), "pools by mean and cls and max"),
        ("1_Pooling/config.json", {}, "pools by nothing"),
    ],
)
def test_steps_that_are_not_served_are_refused(
    base: Path, tmp_path: Path, file: str, content: object, said: str
) -> None:
    folder = as_sentence_model(base, tmp_path / "model")
    (folder / file).write_bytes(orjson.dumps(content))
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("step", "place"), [(0, "0_Transformer"), (1, "pool"), (1, "../outside"), (1, "/etc"), (1, None)]
)
def test_steps_elsewhere_are_refused(base: Path, tmp_path: Path, step: int, place: str | None) -> None:
    """What they say would be in no digest, and in no copy."""
    folder = as_sentence_model(base, tmp_path / "model")
    modules = orjson.loads((folder / MODULES).read_bytes())
    modules[step]["path"] = place
    (folder / MODULES).write_bytes(orjson.dumps(modules))
    with pytest.raises(CheckpointError, match="and it is looked for in"):
        read_checkpoint(folder)


def test_texts_in_lower_case_are_the_tokenizers_business(base: Path, tmp_path: Path) -> None:
    folder = as_sentence_model(base, tmp_path / "model")
    (folder / "sentence_bert_config.json").write_bytes(orjson.dumps({"do_lower_case": True}))
    config = folder / "tokenizer_config.json"
    told = orjson.loads(config.read_bytes())
    config.write_bytes(orjson.dumps(told | {"do_lower_case": False}))
    with pytest.raises(CheckpointError, match="asks for texts in lower case"):
        read_checkpoint(folder)
    config.write_bytes(orjson.dumps(told | {"do_lower_case": True}))
    assert read_checkpoint(folder).task.vector


def test_another_pooling_is_another_checkpoint(base: Path, tmp_path: Path) -> None:
    folders = [as_sentence_model(base, tmp_path / pooling, pooling) for pooling in ("mean", "cls")]
    assert len({checkpoint_digest(folder) for folder in folders}) == 2


def test_few_rows_that_agree_prove_little() -> None:
    """All neighbours found among 30 texts leaves room for a loss that 1,000 do not."""
    task = Embeddings(dimensions=4)
    few, many = (compared(task, np.ones((rows, 1)), np.ones((rows, 1))).lower for rows in (30, 1_000))
    assert few < -0.005 < many < 0


def test_large_numbers_are_vectors_too() -> None:
    task, rng = Embeddings(normalized=False, dimensions=4), np.random.default_rng(0)
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    answers = task.answers(task.probabilities(1e6 * vectors), (), ())
    assert task.score(task.merits(answers, task.answers(task.probabilities(vectors), (), ()))) > 0.99


def test_a_plain_encoder_is_told_what_it_lacks(base: Path) -> None:
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        read_checkpoint(base)


def test_data_needs_texts_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\none\ntwo\n")
    (data,) = read_unlabelled([tmp_path / "a.csv"], text_column="text")
    assert (list(data.texts), data.targets) == (["one", "two"], ["", ""])


def test_pairs_are_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,text_pair\n" + "".join(f"one {row},two\n" for row in range(30)))
    pairs = read_unlabelled([tmp_path / "a.csv", tmp_path / "a.csv"], text_column="text")
    folder = as_sentence_model(base, tmp_path / "model")
    with pytest.raises((DatasetError, InvalidInput), match="pairs of texts"):
        export_checkpoint(folder, *pairs, tmp_path / "models", "x", Options(prune=False))
