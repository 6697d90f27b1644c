"""Pruning: units go by what they cost, the search keeps to its budget, and what cannot be pruned is told so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import SqueezeBertConfig, SqueezeBertForSequenceClassification

from export.prune.architecture import layers_of
from export.prune.importance import Removal, mask_gradients, removal
from export.prune.reconstruct import cut_and_reconstruct, input_moments
from export.prune.search import Ranking, choose, search
from export.prune.step import LEAST_ROWS, check_pruning
from export.prune.surgery import Kept, as_mask, cut, everything, from_mask
from export.prune.table import LatencyTable
from service.contract.dataset import Dataset
from service.contract.errors import InvalidInput
from service.tasks import MULTI_LABEL, SINGLE_LABEL
from service.tasks.tokenizer import Tokens
from tests.export.conftest import sentences
from tests.export.random_models import HEADS, LAYERS, MIXED, NEURONS, hidden_states, logits, random_model, some_tokens


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


def test_an_unknown_architecture_is_named_with_the_way_out() -> None:
    config = SqueezeBertConfig(vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    config.embedding_size = config.hidden_size
    with pytest.raises(InvalidInput, match=r"'squeezebert' cannot be pruned.*--no-prune"):
        check_pruning(SqueezeBertForSequenceClassification(config), sentences(200, 1), None)


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
