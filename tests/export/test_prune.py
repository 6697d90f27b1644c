"""Pruning: surgery equals masking, the search keeps to its budget, and what cannot be pruned is told so."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    CamembertConfig,
    CamembertForSequenceClassification,
    Data2VecTextConfig,
    Data2VecTextForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MegatronBertConfig,
    MegatronBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from export.graph.onnx import export_onnx
from export.graph.parity import check_parity
from export.inference.predict import torch_inputs
from export.prune import table as table_module
from export.prune.architecture import ARCHITECTURES, layers_of
from export.prune.importance import Removal, mask_gradients, removal
from export.prune.reconstruct import cut_and_reconstruct, input_moments
from export.prune.search import Ranking, choose, search
from export.prune.step import LEAST_ROWS, check_pruning
from export.prune.surgery import Kept, Mask, as_mask, cut, everything, from_mask, masked
from export.prune.table import LatencyTable, measure_layer
from service.contract.dataset import Dataset
from service.contract.errors import InvalidInput
from service.tasks import MULTI_LABEL, SINGLE_LABEL
from service.tasks.tokenizer import Tokens
from tests.export.conftest import sentences

HEADS, NEURONS, LAYERS = 4, 32, 3
SHAPE = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": NEURONS,
    "max_position_embeddings": 40,
    "num_labels": 3,
}
SMALL = {
    "vocab_size": 40,
    "dim": 32,
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "hidden_dim": NEURONS,
    "max_position_embeddings": 40,
    "num_labels": 3,
}
MODELS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SHAPE)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SHAPE)),
    "xlm-roberta": lambda: XLMRobertaForSequenceClassification(XLMRobertaConfig(**SHAPE)),
    "camembert": lambda: CamembertForSequenceClassification(CamembertConfig(**SHAPE)),
    "data2vec-text": lambda: Data2VecTextForSequenceClassification(Data2VecTextConfig(**SHAPE)),
    "megatron-bert": lambda: MegatronBertForSequenceClassification(MegatronBertConfig(**SHAPE)),
    "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**SHAPE, embedding_size=16)),
    "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(**SMALL)),
}
# One ordinary layer, one without heads, one without neurons.
MIXED = [Kept((0, 2), (1, 5, 30)), Kept((), (0, 7)), Kept((3,), ())]


def random_model(kind: str) -> PreTrainedModel:
    torch.manual_seed(3)
    model = MODELS[kind]()
    for parameter in model.parameters():  # zero biases would hide a lost one
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 6:], mask[2, 3:] = 0, 0
    return {"input_ids": torch.where(mask == 1, ids, torch.tensor(1)), "attention_mask": mask}


def as_masks(kept: Sequence[Kept]) -> list[Mask]:
    def ones(units: int, stays: Sequence[int]) -> torch.Tensor:
        factors = torch.zeros(1, units)
        factors[0, list(stays)] = 1.0
        return factors

    return [Mask(ones(HEADS, one.heads), ones(NEURONS, one.neurons)) for one in kept]


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch()).logits


def test_every_known_architecture_is_tested() -> None:
    assert MODELS.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("kind", MODELS)
def test_a_cut_model_equals_the_masked_one_and_is_smaller(kind: str) -> None:
    model = random_model(kind)
    whole = logits(model)
    with masked(model, as_masks(MIXED)):
        expected = logits(model)
    pruned = cut(model, MIXED)
    torch.testing.assert_close(logits(pruned), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(model), whole)  # the original is left alone
    assert not torch.allclose(expected, whole, atol=1e-3)
    size = [sum(tensor.numel() for tensor in one.parameters()) for one in (model, pruned)]
    gone = 2 * (32 * 32 + 32 * 24 + 32 * 8)  # at least this many weights of queries and outputs
    assert size[1] < size[0] - gone


@pytest.mark.parametrize("kind", MODELS)
def test_a_cut_model_is_exported_as_it_is(kind: str, tmp_path: Path) -> None:
    pruned = cut(random_model(kind), MIXED)
    graph = export_onnx(pruned, tmp_path)
    pad_id = int(pruned.config.pad_token_id)
    found = check_parity(pruned, graph, some_tokens()[:4], max_length=24, pad_id=pad_id, seed=0)
    assert found.largest_difference < 1e-4
    widths = {tuple(one.dims) for one in onnx.load(graph).graph.initializer if len(one.dims) == 2}
    assert {(32, 16), (16, 32), (32, 3), (3, 32)} <= widths


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


def some_tokens() -> list[Tokens]:
    rng = np.random.default_rng(5)
    ids = [[2, *rng.integers(5, 40, size=count).tolist(), 3] for count in rng.integers(2, 20, size=70)]
    return [Tokens(one, [0] * len(one), False, 0.0) for one in ids]


def hidden_states(model: PreTrainedModel, tokens: Sequence[Tokens]) -> torch.Tensor:
    with torch.no_grad():
        told = [model(**torch_inputs(model, [one]), output_hidden_states=True).hidden_states[1][0] for one in tokens]
    return torch.cat(told)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("gone", ["heads", "neurons", "all heads", "all neurons"])
def test_a_reconstructed_model_is_closer_than_one_that_was_only_cut(kind: str, gone: str) -> None:
    """The first layer's states, on texts that reconstruction did not see."""
    model, tokens = random_model(kind), some_tokens()
    heads, neurons = {
        "heads": ((0, 2, 3), tuple(range(NEURONS))),
        "neurons": (tuple(range(HEADS)), tuple(range(8, NEURONS))),
        "all heads": ((), tuple(range(NEURONS))),
        "all neurons": (tuple(range(HEADS)), ()),
    }[gone]
    kept = [Kept(heads, neurons), *everything(model)[1:]]
    moments = input_moments(model, tokens[:50])
    before = [parameter.clone() for parameter in model.parameters()]
    wanted = hidden_states(model, tokens[50:])
    errors = [
        (hidden_states(smaller, tokens[50:]) - wanted).square().mean().item()
        for smaller in (cut(model, kept), cut_and_reconstruct(model, kept, moments))
    ]
    assert errors[1] < 0.9 * errors[0]
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_a_unit_that_another_can_stand_in_for_costs_nothing() -> None:
    """Neuron 1 is made three times neuron 0, so that neuron 0 can do the work of both."""
    model, tokens = random_model("bert"), some_tokens()
    up = layers_of(model)[0].module.intermediate
    with torch.no_grad():
        up.intermediate_act_fn = torch.nn.ReLU()
        up.dense.weight[1], up.dense.bias[1] = 3 * up.dense.weight[0], 3 * up.dense.bias[0]
    kept = [Kept(tuple(range(HEADS)), (0, *range(2, NEURONS))), *everything(model)[1:]]
    wanted = hidden_states(model, tokens[50:])
    errors = [
        (hidden_states(smaller, tokens[50:]) - wanted).square().mean().item()
        for smaller in (cut(model, kept), cut_and_reconstruct(model, kept, input_moments(model, tokens[:50])))
    ]
    assert errors[1] < 0.03 * errors[0]


def test_reconstruction_does_not_see_padding() -> None:
    """Texts of one length, with no padding, and the same among longer ones give sums that add up."""
    model, tokens = random_model("bert"), some_tokens()
    together = input_moments(model, tokens[:20])
    alone = [input_moments(model, [one]) for one in tokens[:20]]
    for layer in range(LAYERS):
        for part in ("heads", "neurons"):
            summed = sum(getattr(one[layer], part) for one in alone)
            torch.testing.assert_close(getattr(together[layer], part), summed, atol=1e-2, rtol=1e-4)


def test_a_block_that_was_cut_away_has_no_moments_and_stays_away() -> None:
    once = cut(random_model("distilbert"), MIXED)
    moments = input_moments(once, some_tokens())
    assert [(one.heads is None, one.neurons is None) for one in moments] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    again = cut_and_reconstruct(once, everything(once), moments)
    torch.testing.assert_close(logits(again), logits(once))


def test_kept_units_are_written_as_a_bit_mask() -> None:
    assert [as_mask(units) for units in ((), (0,), (0, 2, 5))] == ["0", "1", "25"]
    assert from_mask(as_mask((0, 7, 1535))) == (0, 7, 1535)


def test_a_layer_whose_heads_all_go_keeps_its_bias() -> None:
    model = random_model("bert")
    pruned = cut(model, [Kept((), tuple(range(NEURONS)))] * LAYERS)
    before, after = layers_of(model)[0].output, pruned.base_model.encoder.layer[0].attention.output.dense
    torch.testing.assert_close(after.bias, before.bias)
    assert [name for name, _ in after.named_parameters()] == ["bias"]


def test_nothing_is_cut_when_all_is_kept() -> None:
    model = random_model("distilbert")
    assert everything(model) == [Kept(tuple(range(HEADS)), tuple(range(NEURONS)))] * LAYERS
    torch.testing.assert_close(logits(cut(model, everything(model))), logits(model))


@pytest.mark.parametrize(("task", "targets"), [(SINGLE_LABEL, [0, 2, 1]), (MULTI_LABEL, [[1, 0, 1]] * 3)])
def test_mask_gradients_are_those_of_each_example_alone(task: str, targets: list[object]) -> None:
    model = random_model("bert")
    texts = [Tokens([2, *range(5, 5 + count), 3], [0] * (count + 2), False, 0.0) for count in (3, 6, 2)]
    wanted = np.array(targets, dtype=np.int64 if task == SINGLE_LABEL else np.float32)
    together = mask_gradients(model, texts, wanted, task)  # type: ignore[arg-type]
    alone = [mask_gradients(model, [texts[row]], wanted[[row]], task) for row in (2, 0, 1)]  # type: ignore[arg-type]
    for layer in range(LAYERS):
        for part in ("heads", "neurons"):
            one_by_one = np.concatenate([getattr(one[layer], part) for one in alone])
            np.testing.assert_allclose(getattr(together[layer], part), one_by_one, atol=1e-4, rtol=1e-3)


def test_units_go_in_the_order_of_their_importance() -> None:
    gradients = np.array([[3.0, 0.1, 1.0], [-3.0, 0.1, 1.0]], dtype=np.float32)
    found = removal(gradients, correlated=0.0)
    assert found.order == (1, 2, 0)
    assert found.kept(1) == (0,)
    np.testing.assert_allclose(found.loss, [0, 0.005, 0.505, 5.005], rtol=1e-5)


def test_the_last_of_two_that_stand_in_for_each_other_is_dear() -> None:
    twins = np.array([[1.0, 1.0, 1.2], [1.0, 1.0, -1.2]], dtype=np.float32)
    assert removal(twins, correlated=0.0).order == (0, 1, 2)
    assert removal(twins, correlated=1.0).order == (0, 2, 1)


def test_the_search_finds_the_best_within_the_budget() -> None:
    rng = np.random.default_rng(5)
    costs = [np.sort(rng.uniform(0, 1, 4)) for _ in range(4)]
    losses = [np.sort(rng.uniform(0, 1, 4))[::-1] for _ in range(4)]
    budget = 2.0
    grid = np.indices((4, 4, 4, 4)).reshape(4, -1).T
    spent = sum(cost[grid[:, place]] for place, cost in enumerate(costs))
    lost = sum(loss[grid[:, place]] for place, loss in enumerate(losses))
    chosen = choose(losses, costs, budget)
    assert chosen is not None
    assert sum(cost[one] for cost, one in zip(costs, chosen, strict=True)) <= budget
    reached = sum(loss[one] for loss, one in zip(losses, chosen, strict=True))
    assert reached == pytest.approx(lost[spent <= budget * 0.998].min(), abs=0.01)
    assert choose(losses, costs, 0.001) is None


def test_the_search_keeps_what_matters_and_says_when_nothing_fits() -> None:
    table = LatencyTable(1.0, 4, 64, {0: 0.0, 4: 0.4}, {0: 0.0, 64: 0.4}, (16,))
    much, little = (Removal(tuple(range(4)), scale * np.arange(5.0)) for scale in (10.0, 0.1))
    neurons = Removal(tuple(range(64)), np.linspace(0, 1, 65))
    kept = search([Ranking(much, neurons), Ranking(little, neurons)], table, 0.8)
    assert kept is not None
    assert kept[0].heads == (0, 1, 2, 3)
    assert len(kept[1].heads) < 4
    assert all(len(one.neurons) % 16 == 0 for one in kept)
    assert search([Ranking(much, neurons)], table, -0.1) is None


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


def test_an_unknown_architecture_is_named_with_the_way_out() -> None:
    config = MPNetConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    with pytest.raises(InvalidInput, match=r"'mpnet' cannot be pruned.*--no-prune"):
        check_pruning(MPNetForSequenceClassification(config), sentences(200, 1), None)


@pytest.mark.parametrize(
    ("rows", "speedup", "told"),
    [
        (sentences(LEAST_ROWS - 1, 1), 1.5, f"at least {LEAST_ROWS} labelled training rows.*{LEAST_ROWS - 1}"),
        (sentences(200, 1), 1.0, "no speed-up"),
        (sentences(200, 1), float("nan"), "no speed-up"),
    ],
)
def test_pruning_needs_rows_and_a_speed_up(rows: Dataset, speedup: float, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        check_pruning(random_model("bert"), rows, speedup)
