"""Every type of model that can be pruned: cutting equals masking, and everything behind it takes the cut model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from export.graph.onnx import export_onnx
from export.graph.parity import check_parity
from export.graph.projections import join_projections
from export.graph.quantize import DYNAMIC, FLOAT, Quantized, quantize
from export.inference.predict import load_engine
from export.prune import table as table_module
from export.prune.architecture import ARCHITECTURES, layers_of
from export.prune.importance import mask_gradients
from export.prune.reconstruct import cut_and_reconstruct, input_moments
from export.prune.recover import RecoveryPlan, recover
from export.prune.surgery import Kept, Mask, cut, cut_layer, everything, masked
from export.prune.table import measure_layer
from service.tasks import SINGLE_LABEL
from service.tasks.tokenizer import Tokens
from tests.export.random_models import (
    ALL_HEADS,
    ALL_NEURONS,
    HEADS,
    LAYERS,
    MIXED,
    MODELS,
    NEURONS,
    hidden_states,
    logits,
    random_model,
    some_tokens,
)

WHOLE = Kept(ALL_HEADS, ALL_NEURONS)
CUTS = {
    "half of all": [Kept((1, 3), ALL_NEURONS[::2]), Kept((0, 1), ALL_NEURONS[16:]), Kept((0, 3), ALL_NEURONS[:16])],
    "all heads of a layer": [WHOLE, Kept((), ALL_NEURONS), WHOLE],
    "all neurons of a layer": [Kept(ALL_HEADS, ()), WHOLE, WHOLE],
    "mixed": MIXED,
    "all": [Kept((), ())] * LAYERS,
}


def as_masks(kept: Sequence[Kept]) -> list[Mask]:
    def ones(units: int, stays: Sequence[int]) -> torch.Tensor:
        factors = torch.zeros(1, units)
        factors[0, list(stays)] = 1.0
        return factors

    return [Mask(ones(HEADS, one.heads), ones(NEURONS, one.neurons)) for one in kept]


def test_every_known_architecture_is_tested() -> None:
    assert {kind.split(",")[0] for kind in MODELS} == ARCHITECTURES.keys()


@pytest.mark.parametrize("kept", CUTS.values(), ids=list(CUTS))
@pytest.mark.parametrize("kind", MODELS)
def test_a_cut_model_equals_the_masked_one_and_is_smaller(kind: str, kept: list[Kept]) -> None:
    model = random_model(kind)
    whole = logits(model)
    with masked(model, as_masks(kept)):
        expected = logits(model)
    pruned = cut(model, kept)
    torch.testing.assert_close(logits(pruned), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(model), whole)  # the original is left alone
    assert not torch.allclose(expected, whole, atol=1e-3)
    size = [sum(tensor.numel() for tensor in one.parameters()) for one in (model, pruned)]
    heads = sum(HEADS - len(one.heads) for one in kept)
    neurons = sum(NEURONS - len(one.neurons) for one in kept)
    # At least the weights of queries, keys, values and outputs, 8 to a head, and those around the activation.
    assert size[1] <= size[0] - 4 * 32 * 8 * heads - 2 * 32 * neurons + LAYERS * 2 * 32  # the biases that are new


@pytest.mark.parametrize("kind", MODELS)
def test_a_cut_model_is_exported_as_it_is(kind: str, tmp_path: Path) -> None:
    pruned = cut(random_model(kind), MIXED)
    graph = export_onnx(pruned, tmp_path)
    pad_id = int(pruned.config.pad_token_id)
    found = check_parity(pruned, graph, some_tokens()[:4], max_length=24, pad_id=pad_id, seed=0)
    assert found.largest_difference < 1e-4
    widths = {tuple(one.dims) for one in onnx.load(graph).graph.initializer if len(one.dims) == 2}
    assert {(16, 32), (3, 32), (2, 32), (8, 32)} <= widths  # of outputs and of what is behind the activation


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_a_cut_model_is_quantized(kind: str, tmp_path: Path) -> None:
    pruned = cut(random_model(kind), CUTS["half of all"])
    joined = tmp_path / "joined.onnx"
    join_projections(export_onnx(pruned, tmp_path), joined)
    made = quantize(joined, tmp_path, DYNAMIC, target="avx512_vnni")
    # A layer has at least four multiplications: what is before and behind the heads, and the activation.
    assert made.matmuls >= 4 * LAYERS
    pad_id, tokens = int(pruned.config.pad_token_id), some_tokens()[:8]
    answers = [
        load_engine(file, device="cpu", threads=1, max_length=32, pad_id=pad_id).run(tokens).logits
        for file in (joined, made.file)
    ]
    assert np.corrcoef(answers[0].ravel(), answers[1].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("kind", MODELS)
def test_a_cut_model_can_be_ranked_and_cut_again(kind: str) -> None:
    once = cut(random_model(kind), MIXED)
    texts = [Tokens([2, *range(5, 5 + count), 3], [0] * (count + 2), False, 0.0) for count in (3, 6, 2)]
    gradients = mask_gradients(once, texts, np.array([0, 2, 1]), SINGLE_LABEL)
    assert [(one.heads.shape, one.neurons.shape) for one in gradients] == [
        ((3, 2), (3, 3)),
        ((3, 0), (3, 2)),
        ((3, 1), (3, 0)),
    ]
    twice = cut(once, [Kept((1,), (0, 2)), Kept((), (1,)), Kept((), ())])
    at_once = cut(random_model(kind), [Kept((2,), (1, 30)), Kept((), (7,)), Kept((), ())])
    torch.testing.assert_close(logits(twice), logits(at_once))


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("gone", ["heads", "neurons", "all heads", "all neurons"])
def test_a_reconstructed_model_is_closer_than_one_that_was_only_cut(kind: str, gone: str) -> None:
    """The first layer's states, on texts that reconstruction did not see."""
    model, tokens = random_model(kind), some_tokens()
    heads, neurons = {
        "heads": ((0, 2, 3), ALL_NEURONS),
        "neurons": (ALL_HEADS, ALL_NEURONS[8:]),
        "all heads": ((), ALL_NEURONS),
        "all neurons": (ALL_HEADS, ()),
    }[gone]
    kept = [Kept(heads, neurons), *everything(model)[1:]]
    moments = input_moments(model, tokens[:50])
    before = [parameter.clone() for parameter in model.parameters()]
    wanted = hidden_states(model, tokens[50:])
    errors = [
        (hidden_states(smaller, tokens[50:]) - wanted).square().mean().item()
        for smaller in (cut(model, kept), cut_and_reconstruct(model, kept, moments))
    ]
    assert errors[1] < 0.95 * errors[0]
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_a_reconstructed_and_recovered_model_is_made_again_from_its_weights(kind: str) -> None:
    """As an interrupted export does: the cut itself is repeated, and all that was learnt is in the weights."""
    model, tokens = random_model(kind), some_tokens()
    pruned = cut_and_reconstruct(model, MIXED, input_moments(model, tokens))
    (offsets,) = (one for name, one in pruned.named_parameters() if "classifier" in name and one.shape == (3,))
    with torch.no_grad():
        offsets += torch.tensor([1.0, 0.0, -1.0])  # so that there is something to learn
    before = {name: tensor.clone() for name, tensor in pruned.state_dict().items()}
    did = recover(pruned, model, tokens, SINGLE_LABEL, RecoveryPlan(again=(20, 20), learning_rate=1e-3), seed=1)
    assert did.loss_after < did.loss_before
    learnt = {name for name, tensor in pruned.state_dict().items() if not torch.equal(tensor, before[name])}
    assert learnt
    assert not any(".embeddings." in name for name in learnt)
    again = cut(model, MIXED)
    again.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(logits(again), logits(pruned))


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_layers_are_timed_by_width_also_where_a_killed_export_left_off(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the attention that export loads: what a layer is called with depends on it."""
    monkeypatch.setattr(table_module, "_SHARES", (1 / 2,))
    monkeypatch.setattr(table_module, "_ROUNDS", 2)
    random_model(kind).save_pretrained(tmp_path / "saved")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", attn_implementation="eager")
    first, again = (
        measure_layer(model, lambda _: None, [8], tmp_path, itertools.count(0.0, 0.001).__next__) for _ in range(2)
    )
    assert first == again
    assert (first.model_ms, first.lengths) == (pytest.approx(1.0), (8,))
    assert list(first.head_ms) == [0, 2, 4]
    assert list(first.neuron_ms) == [0, 16, 32]


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_timed_is_the_cut_layer_for_texts_of_any_length(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its graph was traced with shorter ones; embeddings of positions are constants of it, as in a model's graph."""
    monkeypatch.setattr(table_module, "quantize", lambda joined, *_, **__: Quantized(joined, FLOAT, 0, 0))
    model = random_model(kind)
    model.set_attn_implementation("eager")
    layer, kept = layers_of(model)[0], CUTS["half of all"][0]
    short, longer, served = (table_module._calls(model, layer, length)[0] for length in (4, 5, 19))
    timed = table_module._session(layer, kept, [short, longer], tmp_path)
    fed = {one.name: served.tensors[one.name].numpy() for one in timed.get_inputs()}
    assert all(19 in array.shape for array in fed.values())
    with torch.no_grad():
        cut_layer(layer, kept)
        wanted = table_module._Replayed(layer.module, served, [])()
    np.testing.assert_allclose(timed.run(None, fed)[0], wanted, atol=1e-4, rtol=1e-3)


def test_a_layer_that_is_run_several_times_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ALBERT as it is published: one layer for all. What is cut is cut, masked and paid for in each of its runs."""
    model = random_model("albert", num_hidden_groups=1, num_hidden_layers=6)
    assert everything(model) == [WHOLE]
    with masked(model, as_masks([MIXED[0]])):
        expected = logits(model)
    torch.testing.assert_close(logits(cut(model, [MIXED[0]])), expected, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(table_module, "_SHARES", ())
    monkeypatch.setattr(table_module, "_time", lambda runs, _clock: np.arange(1.0, 1.0 + len(runs)))
    table = measure_layer(model, lambda _: None, [8], tmp_path)
    # The model takes 1 ms, the layer 2 when it is empty, 3 with all heads and 4 with all neurons; it is run six times.
    assert (table.model_ms, table.head_ms, table.neuron_ms) == (1.0, {0: 0.0, HEADS: 6.0}, {0: 0.0, NEURONS: 12.0})
