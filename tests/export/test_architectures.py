"""Every architecture that a user may bring: exported, pruned, or refused in one line before any work.

What comes out is the table in docs/guide.md. To write it anew:
``PLUMBLINE_WRITE_DOCS=1 python -m pytest tests/export/test_architectures.py``
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from typer.testing import CliRunner

from export.judge import gate as gate_module
from export.measure.latency import Timed
from export.prune import step as step_module
from export.prune import table as table_module
from export.prune.architecture import ARCHITECTURES as PRUNABLE
from export.prune.architecture import layers_of
from export.search import variant as variant_module
from export.search import walk as walk_module
from plumbline import cli
from service.contract.bundle import Bundle, open_bundle
from service.contract.dataset import Dataset, write_jsonl
from service.contract.repository import live_bundle
from service.models.loaded import Resources, load
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
BEGIN, END = "<!-- architectures: made by tests/export/test_architectures.py -->", "<!-- /architectures -->"
LABELS = ("bad", "good", "neither")
SPECIAL = ["<s>", "</s>", "<unk>", "<pad>"]  # padding is not 0, with which padding by zeros would go unnoticed
BOS, EOS, UNKNOWN, PAD = range(4)
WORDS = [a + b + c for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]
SIZE = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "n_inner": 48}
STACKS = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "decoder_start_token_id": EOS,
    "num_layers": 2,
    "num_heads": 2,
    "d_ff": 48,
    "d_kv": 16,
}
XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "dropout": 0.0, "attention_dropout": 0.0, "pad_index": PAD}
MODERN = {
    "cls_token_id": BOS,
    "sep_token_id": EOS,
    "global_attn_every_n_layers": 1,
    "local_attention": 8,
    "reference_compile": False,
}
# Whatever differs from SIZE; None for what the type does not have.
ARCHITECTURES: dict[str, dict[str, object]] = {
    "albert": {"embedding_size": 16},
    "bart": STACKS,
    "bert": {},
    "big_bird": {},
    "bloom": {"n_layer": 2, "n_head": 2},
    "camembert": {},
    "convbert": {"embedding_size": 32, "head_ratio": 1},
    "data2vec-text": {},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "flaubert": XLM,
    "funnel": {
        "block_sizes": [1, 1],
        "d_model": 32,
        "n_head": 2,
        "d_head": 16,
        "d_inner": 48,
        "num_hidden_layers": None,
    },
    "gemma": {"num_key_value_heads": 1, "head_dim": 16},
    "gpt2": GPT,
    "gpt_neox": {},
    "llama": {"num_key_value_heads": 1},
    "longformer": {"attention_window": 4},
    "megatron-bert": {},
    "mistral": {"num_key_value_heads": 1},
    "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    "modernbert": MODERN,
    "mpnet": {},
    "nystromformer": {"num_landmarks": 64, "segment_means_seq_len": 64},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {},
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 16},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": {},
    "roformer": {"embedding_size": 32},
    "squeezebert": {"embedding_size": 32, "q_groups": 1, "k_groups": 1, "v_groups": 1},
    "t5": STACKS,
    "xlm": XLM,
    "xlm-roberta": {},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48, "max_position_embeddings": None},
}


@dataclass(frozen=True)
class Saved:
    """A checkpoint and files of rows, labelled with what it answers."""

    checkpoint: Path
    files: list[str]
    texts: list[str]


@dataclass(frozen=True)
class Outcome:
    """What ``export`` did: the bundle, or the line that refused it."""

    bundle: Bundle | None
    said: str


def config_of(kind: str) -> PretrainedConfig:
    names = dict(enumerate(LABELS))
    labels = {"id2label": names, "label2id": {name: row for row, name in names.items()}}
    settings = {**SIZE, **labels, **ARCHITECTURES[kind]}
    return CONFIG_MAPPING[kind](**{name: value for name, value in settings.items() if value is not None})


def write_tokenizer(folder: Path) -> None:
    vocabulary = {word: place for place, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def texts(rows: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 24))) for _ in range(rows)]


def answers(model: PreTrainedModel, folder: Path, rows: list[str]) -> np.ndarray:
    """(n, labels) logits, each text by itself and without padding, by the checkpoint's own tokenizer."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.no_grad():
        encoded = [tokenizer(text, truncation=True, return_tensors="pt") for text in rows]
        return np.concatenate(
            [model(input_ids=one["input_ids"], attention_mask=one["attention_mask"]).logits for one in encoded]
        )


def save(kind: str, folder: Path) -> Saved:
    checkpoint, rows = folder / "checkpoint", {"train": texts(120, 1), "eval": texts(60, 2)}
    write_tokenizer(checkpoint)
    for seed in range(20):
        model = random_model(kind, seed)
        given = {name: answers(model, checkpoint, part).argmax(axis=1) for name, part in rows.items()}
        if all(np.bincount(classes, minlength=3).max() < 0.8 * len(classes) for classes in given.values()):
            break
    model.save_pretrained(checkpoint)
    for name, part in rows.items():
        write_jsonl(folder / f"{name}.jsonl", Dataset(part, [LABELS[row] for row in given[name]]))
    files = [option for name in rows for option in (f"--{name}", str(folder / f"{name}.jsonl"))]
    return Saved(checkpoint, files, rows["eval"])


def random_model(kind: str, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config_of(kind)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that answers differ, and depend on every part
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.15)
        for module in model.modules():  # as it is in every trained model
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0
    return model


def export(saved: Saved, repo: Path, *options: str) -> Outcome:
    """The command itself, in this process."""
    call = ["export", str(saved.checkpoint), *saved.files, "--repo", str(repo), "--name", "tiny", "--max-drop", "100"]
    result = CliRunner().invoke(cli.build(), [*call, *options])
    if result.exit_code == 0:
        return Outcome(open_bundle(live_bundle(repo, "tiny").path), "")
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    (said,) = [line for line in result.stderr.splitlines() if line.startswith("plumbline: ")]
    assert result.stderr.splitlines()[-1] == said
    assert not list(repo.rglob("*"))
    return Outcome(None, said.removeprefix("plumbline: ").replace(str(saved.checkpoint), "It"))


def as_if(runs: Mapping[str, object], _tokens: object, **_options: object) -> dict[str, Timed]:
    """As if a pruned model were the fastest, and among the unpruned float32 as fast as int8 can be."""

    def p50(name: str) -> float:
        if name[0] in "123456789":
            return 1.0
        return 1.5 if "float32" in name else 2.0

    return {name: Timed(p50(name), (p50(name), p50(name)), p50(name)) for name in runs}


@pytest.fixture(scope="module", autouse=True)
def _without_measuring() -> Iterator[None]:
    """What is taken must not depend on measured times; layers are timed all the same, a few times."""
    real = table_module.measure_layer

    def measure(*given: object) -> table_module.LatencyTable:
        real(*given)  # type: ignore[arg-type]
        half = 0.4 / len(layers_of(given[0]))  # type: ignore[arg-type]  # of what a layer takes, all its runs together
        return table_module.LatencyTable(1.6, 2, 48, {0: 0.0, 2: half}, {0: 0.0, 48: half}, (8,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_module, "_ROUNDS", 1)
        patch.setattr(table_module, "_SHARES", (1 / 2,))
        patch.setattr(step_module, "measure_layer", measure)
        patch.setattr(step_module, "_speedup", lambda *_: 1.6)
        patch.setattr(walk_module, "_LEAST_UPDATES", 1)
        patch.setattr(gate_module, "MAX_BATCH_FLIPS", 1.0)  # int8 answers of random weights are near ties
        patch.setattr(walk_module, "sensitivity", lambda *_, **__: {})
        for module in (variant_module, walk_module):
            patch.setattr(module, "time_in_turns", as_if)
        yield


@pytest.fixture(scope="module")
def unpruned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Saved, Outcome]]:
    """The outcome of ``export --no-prune`` for a type of model, found out once."""
    known: dict[str, tuple[Saved, Outcome]] = {}

    def outcome(kind: str) -> tuple[Saved, Outcome]:
        if kind not in known:
            saved = save(kind, tmp_path_factory.mktemp(kind))
            known[kind] = saved, export(saved, saved.checkpoint.parent / "models", "--no-prune")
        return known[kind]

    return outcome


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_is_served_in_padded_batches_is_what_the_checkpoint_answers(
    kind: str, unpruned: Callable[[str], tuple[Saved, Outcome]]
) -> None:
    saved, outcome = unpruned(kind)
    if outcome.bundle is None:
        assert outcome.said
        return
    bundle = outcome.bundle
    assert bundle.manifest.variants["cpu"].precision == "fp32"
    model = AutoModelForSequenceClassification.from_pretrained(saved.checkpoint).eval()
    wanted = torch.softmax(torch.from_numpy(answers(model, saved.checkpoint, saved.texts)), dim=1).numpy()
    np.testing.assert_allclose(served(bundle, saved.texts), wanted, atol=1e-4)


@pytest.mark.parametrize("kind", sorted(PRUNABLE))
def test_what_can_be_pruned_is_pruned_by_default(kind: str, tmp_path: Path) -> None:
    saved = save(kind, tmp_path)
    given = ("--target-speedup", "1.6", "--time-budget", "2m")
    made = export(saved, tmp_path / "models", *given).bundle
    assert made is not None
    assert made.manifest.plan is not None
    assert made.manifest.plan.steps


def test_the_guide_says_for_each_type_what_becomes_of_it(
    unpruned: Callable[[str], tuple[Saved, Outcome]],
) -> None:
    rows = [f"| {kind} | {told(kind, unpruned(kind)[1])} |" for kind in ARCHITECTURES]
    table = "\n".join([BEGIN, "| type | what becomes of it |", "|---|---|", *rows, END])
    text = GUIDE.read_text()
    if os.environ.get("PLUMBLINE_WRITE_DOCS"):
        text = re.sub(f"{BEGIN}.*?{END}", lambda _: table, text, flags=re.DOTALL)
        GUIDE.write_text(text)
    assert table in text, "PLUMBLINE_WRITE_DOCS=1 writes the table anew"


def told(kind: str, outcome: Outcome) -> str:
    """One cell of the table; for a refusal what the command says, without the place and the figures."""
    if outcome.bundle is not None:
        return "exported, and pruned" if kind in PRUNABLE else "exported with `--no-prune`"
    reason = re.sub(rf"^(models|It is|It,) of type '{kind}',? ", "", outcome.said)
    reason = re.sub(r" by up to [0-9.e-]+", "", reason).split(". ")[0].rstrip(".")
    return f"refused: {reason}"


def served(bundle: Bundle, rows: list[str]) -> np.ndarray:
    """(n, labels) probabilities as the service gives them: several texts at once, padded."""
    live = load(bundle.path, Resources("cpu", 1, 512, 0, shares_core=True, cuda_graphs=False), Metrics())

    async def ask() -> list[list[float]]:
        batches = [await live.answer(rows[start : start + 7], math.inf) for start in range(0, len(rows), 7)]
        await live.retire()
        return [one.answer.probs for _, answered in batches for one in answered]

    return np.array(asyncio.run(ask()))
