"""A model of each type that can be pruned, tiny and with random weights, and what to ask and to cut it by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from export.inference.predict import torch_inputs
from export.prune.surgery import Kept
from service.tasks.tokenizer import Tokens

HEADS, NEURONS, LAYERS = 4, 32, 3
SHAPE = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": NEURONS,
    "max_position_embeddings": 40,
    "num_labels": 3,
    "pad_token_id": 1,
}
# Whatever differs from SHAPE, by type; behind a comma what tells models of one type apart.
MODELS: dict[str, dict[str, object]] = {
    "albert": {"embedding_size": 16, "num_hidden_groups": LAYERS},
    "bert": {},
    "camembert": {},
    "data2vec-text": {},
    "deberta-v2, keys of positions": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "conv_kernel_size": 3,
    },
    "deberta-v2, as of version 3": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_buckets": 8,
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "distilbert": {"dim": 32, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": NEURONS},
    "electra": {"embedding_size": 16},
    "megatron-bert": {},
    "modernbert": {
        "global_attn_every_n_layers": 2,
        "local_attention": 4,
        "bos_token_id": 2,
        "cls_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
    },
    "mpnet": {},
    "roberta": {},
    "xlm-roberta": {},
}
ALL_HEADS, ALL_NEURONS = tuple(range(HEADS)), tuple(range(NEURONS))
# One ordinary layer, one without heads, one without neurons.
MIXED = [Kept((0, 2), (1, 5, 30)), Kept((), (0, 7)), Kept((3,), ())]


def random_model(kind: str, **settings: object) -> PreTrainedModel:
    torch.manual_seed(3)
    config = CONFIG_MAPPING[kind.split(",")[0]](**SHAPE | MODELS[kind] | settings)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():  # zero biases would hide a lost one
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 6:], mask[2, 3:] = 0, 0
    return {"input_ids": torch.where(mask == 1, ids, torch.tensor(1)), "attention_mask": mask}


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        given: torch.Tensor = model(**batch()).logits
    return given


def some_tokens() -> list[Tokens]:
    rng = np.random.default_rng(5)
    ids = [[2, *rng.integers(5, 40, size=count).tolist(), 3] for count in rng.integers(2, 20, size=70)]
    return [Tokens(one, [0] * len(one), False, 0.0) for one in ids]


def hidden_states(model: PreTrainedModel, tokens: Sequence[Tokens]) -> torch.Tensor:
    """(tokens, hidden) after the first layer, each text by itself."""
    with torch.no_grad():
        told = [model(**torch_inputs(model, [one]), output_hidden_states=True).hidden_states[1][0] for one in tokens]
    return torch.cat(told)
