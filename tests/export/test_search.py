"""The search: what it tries, what it takes, what it leaves behind, and that it can be repeated."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from export import build as build_module
from export.checkpoint.load import checkpoint_digest, kept_checkpoint, read_checkpoint
from export.graph.onnx import load_model
from export.graph.quantize import DYNAMIC, Quantized
from export.inference.predict import checkpoint_logits
from export.measure.latency import Timed
from export.pipeline import Exported
from export.prune import step as step_module
from export.prune.recover import RecoveryPlan, recover
from export.prune.search import search
from export.prune.step import LEAST_ROWS
from export.prune.surgery import Kept, as_mask, cut, from_mask
from export.prune.table import LatencyTable
from export.reproduce import reproduce
from export.retrain import Rejected, retrain
from export.search import variant as variant_module
from export.search import walk as walk_module
from export.search.choice import LIKELY, choose, front, is_inside, is_provable
from export.search.progress import TimeBudget
from export.search.store import SearchStore, search_folder
from export.search.trial import Trial
from export.search.walk import Compressor, Walk
from service.contract.bundle import PruneStep, Quality, Scheme, open_bundle
from service.contract.errors import InvalidInput, Refused
from service.contract.repository import versions
from service.tasks import SINGLE_LABEL
from service.tasks.tokenizer import TextTokenizer, Tokens
from tests.export.conftest import NEW_BAD, NEW_GOOD, RECIPE, Trained, exported, sentences

PRUNE: dict[str, object] = {"prune": True, "target_speedup": 1.4, "max_drop": 20.0, "time_budget": 120.0}


def even_table(*_args: object) -> LatencyTable:
    """Half of the time is spent in heads and neurons, evenly."""
    return LatencyTable(1.6, 2, 64, {0: 0.0, 2: 0.2}, {0: 0.0, 64: 0.2}, (8,))


def by_size(runs: Mapping[str, object], _tokens: object, **_options: object) -> dict[str, Timed]:
    """What a model of ordinary size would show: int8 beats float, each step of pruning makes 1.4 times as fast."""

    def p50(name: str) -> float:
        step = int(name[0]) if name[0].isdigit() else 0
        return (0.5 if "int8" in name else 1.5) * 1.4**-step

    return {name: Timed(p50(name), (0.9 * p50(name), 1.1 * p50(name)), 2 * p50(name)) for name in runs}


@pytest.fixture
def as_if_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of two tiny layers is told to be faster by its smaller half."""
    pretend(monkeypatch)


def pretend(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(step_module, "measure_layer", even_table)
    patch.setattr(step_module, "_speedup", lambda _ground, model: 1.4 if size(model) > 8_000 else 2.0)
    for module in (variant_module, walk_module):
        patch.setattr(module, "time_in_turns", by_size)


def size(model: torch.nn.Module) -> int:
    return sum(tensor.numel() for tensor in model.parameters())


@pytest.fixture(scope="module")
def pruned(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Pruned in one step; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch)
        return exported(trained, tmp_path_factory.mktemp("pruned") / "models", **PRUNE)


def test_the_plan_says_what_was_kept(pruned: Exported) -> None:
    made = pruned.bundle.manifest
    assert made.plan is not None
    (step,) = made.plan.steps
    heads = [len(from_mask(mask)) for mask in step.heads]
    neurons = [len(from_mask(mask)) for mask in step.neurons]
    details = made.pipeline[0].details
    assert (details["heads_kept"], details["neurons_kept"]) == (heads, neurons)
    assert sum(heads) * 32 + sum(neurons) < 2 * 2 * 32 + 2 * 64
    assert 0 < step.train_steps <= step.planned_steps
    assert details["ended"] == "the last step was done (1.40 times the speed)"


def test_a_pruned_bundle_is_judged_against_the_unpruned_checkpoint(pruned: Exported, trained: Trained) -> None:
    bundle = open_bundle(pruned.bundle.path)
    made = bundle.manifest
    assert made.source.checkpoint_sha256 == checkpoint_digest(trained.checkpoint)
    assert made.quality["cpu"].rows + made.quality["cpu"].trained_on == len(trained.evaluation)
    assert made.quality["cpu"].baseline > 0.9
    sizes = {one.name: one.bytes for one in made.latency}
    assert sizes["cpu variant"] < sizes["unpruned int8"] < sizes["onnxruntime fp32"]
    assert sizes["cpu variant"] == made.files[made.variants["cpu"].file].bytes


def test_every_scheme_is_tried_unpruned_and_the_useful_ones_pruned(pruned: Exported) -> None:
    search_ = pruned.bundle.manifest.search
    assert search_ is not None
    unpruned = [one.scheme for one in search_.candidates if one.speedup == 1.0]
    assert {"float32", "dynamic int8 per channel", "dynamic int8 per tensor", "static int8"} <= set(unpruned)
    assert any("in float" in scheme for scheme in unpruned)
    later = [one for one in search_.candidates if one.speedup > 1.0]
    assert later
    assert {one.scheme for one in later} <= set(unpruned) - {"float32"}
    assert [one.chosen for one in search_.candidates].count(True) == 1
    assert all(one.quantized >= 4 for one in search_.candidates if one.scheme != "float32")
    assert (search_.rows, search_.cross_fitted) == (made_of(pruned).rows, True)


def made_of(done: Exported) -> Quality:
    return done.bundle.manifest.quality["cpu"]


@pytest.mark.parametrize(("processor", "tried"), [("avx2", True), ("avx512_vnni", False)])
def test_where_signed_bytes_overflow_unsigned_weights_are_tried_too(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processor: str, tried: bool
) -> None:
    monkeypatch.setattr(walk_module, "instruction_set", lambda: processor)
    made = exported(trained, tmp_path).bundle.manifest
    assert made.search is not None
    schemes = [one.scheme for one in made.search.candidates]
    assert ("dynamic int8 per channel, unsigned weights" in schemes) is tried


def test_the_front_holds_what_nothing_beats() -> None:
    assert front([(1.0, 5.0), (2.0, 3.0), (2.0, 4.0), (3.0, 3.0), (4.0, 1.0)]) == [True, True, False, False, True]
    assert front([(1.0, 1.0), (1.0, 1.0)]) == [True, False]
    assert front([]) == []


def trial(file: str, difference: float, lower: float, divergence: float = 0.1, flips: float = 0.0) -> Trial:
    rows = 300
    gained, lost = (max(0, round(sign * difference * rows / 100)) for sign in (1, -1))
    return Trial(
        file=file,
        rows=rows,
        gained=gained,
        lost=lost,
        step=0,
        model="unpruned",
        speedup=1.0,
        scheme=DYNAMIC,
        accuracy=0.9,
        difference=difference,
        lower_bound=lower,
        estimate=difference,
        error=(difference - lower) / 1.645,
        divergence=divergence,
        batch_flip_rate=flips,
        quantized=1,
        bytes=1,
    )


def timed(**p50: float) -> dict[str, Timed]:
    return {name: Timed(value, (value, value), value) for name, value in p50.items()}


def test_the_fastest_inside_the_tolerance_is_taken() -> None:
    trials = [trial("slow", 0.0, -0.2), trial("fast", -0.3, -0.6), trial("faster", -0.9, -1.2)]
    times = timed(slow=3.0, fast=2.0, faster=1.0)
    given = {"target_speedup": None, "unpruned": "slow"}
    assert choose(trials, times, max_drop=0.5, **given).file == "fast"  # type: ignore[arg-type]
    assert choose(trials, times, max_drop=2.0, **given).file == "faster"  # type: ignore[arg-type]
    assert choose(trials[2:], times, max_drop=0.5, **given).file == "faster"  # type: ignore[arg-type]


def test_what_is_expected_counts_and_not_how_sure_that_is() -> None:
    """Few rows are sure of nothing: float32 is not to be served for that."""
    trials = [trial("float32", 0.0, 0.0), trial("int8", -0.43, -0.92)]
    given = {"target_speedup": None, "unpruned": "int8", "max_drop": 0.5}
    times = timed(float32=17.9, int8=8.5)
    assert choose(trials, times, **given).file == "int8"  # type: ignore[arg-type]
    strict = given | {"provable": partial(is_provable, max_drop=0.5, gate_rows=290)}
    assert choose(trials, times, **strict).file == "float32"  # type: ignore[arg-type]


def test_of_those_whose_times_cannot_be_told_apart_the_most_faithful_is_taken() -> None:
    trials = [trial("tensor", -0.3, -1.0, divergence=0.0267), trial("channel", 0.0, -0.5, divergence=0.001)]
    given = {"target_speedup": None, "unpruned": "channel", "max_drop": 2.0}
    close = {"tensor": Timed(5.09, (4.9, 5.3), 6.0), "channel": Timed(5.35, (5.2, 5.5), 6.0)}
    assert choose(trials, close, **given).file == "channel"  # type: ignore[arg-type]
    apart = close | {"channel": Timed(5.35, (5.31, 5.5), 6.0)}
    assert choose(trials, apart, **given).file == "tensor"  # type: ignore[arg-type]


def test_a_lucky_estimate_on_few_rows_is_not_gone_on_from() -> None:
    assert is_inside(trial("sure", -0.4, -0.6), 0.5, errors=LIKELY)
    assert not is_inside(trial("unsure", -0.4, -3.0), 0.5, errors=LIKELY)
    assert is_inside(trial("unsure", -0.4, -3.0), 0.5, errors=0.0)
    assert is_inside(trial("better", 0.4, -1.0), 0.5, errors=LIKELY)


def test_a_candidate_whose_labels_depend_on_their_neighbours_is_not_inside() -> None:
    assert is_inside(trial("calm", 0.4, 0.0, flips=0.02), 0.5, errors=0.0)
    assert not is_inside(trial("nervous", 0.4, 0.0, flips=0.03), 0.5, errors=0.0)


def test_strictly_what_the_gate_can_prove_is_preferred_to_what_is_only_likely() -> None:
    """The same answers on 300 rows are proof on 600 gate rows, and one lost row is only on many more."""
    trials = [trial("same", 0.0, -0.1), trial("one lost", -1 / 3, -0.4)]
    times = timed(**{"same": 2.0, "one lost": 1.0})
    given = {"target_speedup": None, "unpruned": "same", "max_drop": 0.5}
    for gate_rows, taken in ((600, "same"), (60_000, "one lost")):
        provable = partial(is_provable, max_drop=0.5, gate_rows=gate_rows)
        assert choose(trials, times, provable=provable, **given).file == taken  # type: ignore[arg-type]
    assert not is_provable(trials[0], 0.5, gate_rows=500)
    assert choose(trials, times, provable=lambda _: False, **given).file == "one lost"  # type: ignore[arg-type]


def test_with_a_speed_up_the_fastest_of_those_about_as_accurate_as_the_best_is_taken() -> None:
    """Within a standard error: 0.1 points here."""
    trials = [
        trial("int8", 0.0, -0.2),
        trial("best", 0.3, 0.3 - 0.1645),
        trial("close", 0.25, 0.0),
        trial("far", 0.1, 0),
    ]
    times = timed(int8=3.0, best=1.5, close=1.2, far=1.0)
    assert choose(trials, times, max_drop=0.5, target_speedup=2.0, unpruned="int8").file == "close"


def test_with_a_speed_up_the_most_accurate_that_reaches_it_is_taken() -> None:
    trials = [trial("int8", 0.0, -0.2), trial("a", -0.8, -1.2), trial("b", -0.4, -0.9), trial("c", 0.3, 0.1)]
    times = timed(int8=3.0, a=1.0, b=1.5, c=2.9)
    assert choose(trials, times, max_drop=0.5, target_speedup=2.0, unpruned="int8").file == "b"
    assert choose(trials, times, max_drop=0.5, target_speedup=3.0, unpruned="int8").file == "a"
    with pytest.raises(Refused, match=r"no candidate is 4 times as fast.*3.00 times"):
        choose(trials, times, max_drop=0.5, target_speedup=4.0, unpruned="int8")


@pytest.mark.slow
@pytest.mark.usefixtures("as_if_larger")
def test_without_a_speed_up_the_walk_goes_on_until_nothing_is_faster(trained: Trained, tmp_path: Path) -> None:
    options = PRUNE | {"target_speedup": None, "max_drop": 60.0}
    made = exported(trained, tmp_path, **options).bundle.manifest
    assert made.search is not None
    assert made.search.ended in {
        "no model faster than 2.00 times was found",
        "no model faster than 1.40 times was found",
    }


def walked(tmp_path: Path, *steps: tuple[float, int], inside: Collection[int] = ()) -> Walk:
    """A walk that has made these steps, each with its speed-up and the step it began from."""
    walk = Walk(None, None, SearchStore(tmp_path), TimeBudget(600), max_drop=0.5)  # type: ignore[arg-type]
    made = tuple(PruneStep(speedup=speed, heads=(), neurons=(), planned_steps=1, train_steps=1) for speed, _ in steps)
    trials = tuple(
        trial(str(place), *((0.0, -0.2) if place in inside else (-2.0, -2.2))).model_copy(update={"step": place})
        for place in range(1, len(steps) + 1)
    )
    bases = tuple(base for _, base in steps)
    walk.progress = walk.progress.model_copy(update={"steps": made, "bases": bases, "trials": trials})
    return walk


def test_the_walk_goes_deeper_from_the_fastest_model_inside(tmp_path: Path) -> None:
    assert walked(tmp_path)._next() == (0, 1.4)
    assert walked(tmp_path, (1.4, 0), inside=[1])._next() == (1, 1.4 * 1.25)
    assert walked(tmp_path, (1.4, 0), (1.8, 1), inside=[1, 2])._next() == (2, 1.8 * 1.25)


def test_the_walk_goes_half_back_from_a_model_outside_and_then_lets_it_learn(tmp_path: Path) -> None:
    assert walked(tmp_path, (1.44, 0))._next() == (0, pytest.approx(1.2))
    halfway = walked(tmp_path, (1.4, 0), (1.8, 1), inside=[1])
    assert halfway._next() == (1, pytest.approx((1.4 * 1.8) ** 0.5))
    assert walked(tmp_path, (1.4, 0), (1.8, 1), (1.6, 1), inside=[1])._next() == (1, pytest.approx((1.4 * 1.6) ** 0.5))
    assert walked(tmp_path, (1.4, 0), (1.8, 1), (1.6, 1), inside=[1, 3])._next() == (3, pytest.approx(2.88**0.5))
    close = walked(tmp_path, (1.4, 0), (1.5, 1), inside=[1])
    assert close._next() == (2, None)
    learnt = walked(tmp_path, (1.4, 0), (1.5, 1), (1.5, 2), inside=[1])
    assert learnt._next() == (3, None)
    assert [step.speedup for step in learnt.progress.chain(3)] == [1.4, 1.5, 1.5]
    assert walked(tmp_path, (1.4, 0), (1.5, 1), (1.5, 2), inside=[1, 3])._next() == (3, 1.5 * 1.25)


def test_a_model_is_not_cut_for_ever(tmp_path: Path) -> None:
    """Units are coarse: three cuts aimed at less have given the same speed."""
    assert walked(tmp_path, (1.8, 0), (1.8, 0), (1.8, 0))._next() == (3, None)


@pytest.mark.slow
@pytest.mark.usefixtures("as_if_larger")
def test_a_branch_of_the_walk_is_reproducible(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step is called too inaccurate: the next begins from the unpruned model again, and learns on."""
    monkeypatch.setattr(walk_module, "is_inside", lambda trial, _, errors: trial.step not in (1, 2))
    monkeypatch.setattr(walk_module, "_CLOSE", 1.0)
    monkeypatch.setattr(walk_module, "_MOST_CUTS", 2)
    bundle = exported(trained, tmp_path, **(PRUNE | {"target_speedup": None, "max_drop": 60.0})).bundle
    made = bundle.manifest
    assert made.search is not None
    assert made.plan is not None
    names = [one.name.split(", dynamic")[0] for one in made.search.candidates if "dynamic" in one.name]
    assert any("recovered 2 times" in name for name in names)
    assert reproduce(bundle, trained.train).sha256 == made.files[made.variants["cpu"].file].sha256


@pytest.mark.slow
@pytest.mark.usefixtures("as_if_larger")
def test_the_walk_ends_where_learning_on_does_not_help(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_module, "is_inside", lambda trial, _, errors: trial.step == 0)
    monkeypatch.setattr(walk_module, "_MOST_CUTS", 1)
    monkeypatch.setattr(walk_module, "recover", lambda *args, **given: replace(recover(*args, **given), kept_step=0))
    made = exported(trained, tmp_path, **(PRUNE | {"target_speedup": None, "max_drop": 60.0})).bundle.manifest
    assert made.search is not None
    assert made.search.ended.startswith("at 1.40 times the speed too much accuracy was lost")
    assert {one.speedup for one in made.search.candidates} == {1.0, 1.4}


@pytest.mark.usefixtures("as_if_larger")
def test_without_time_nothing_is_pruned_and_the_search_says_so(trained: Trained, tmp_path: Path) -> None:
    made = exported(trained, tmp_path, **(PRUNE | {"target_speedup": None, "time_budget": 1.0})).bundle.manifest
    assert made.search is not None
    assert made.search.ended == "the time budget was used up"
    assert {one.speedup for one in made.search.candidates} == {1.0}
    assert made.plan is not None
    assert made.plan.steps == ()


@pytest.mark.slow
@pytest.mark.usefixtures("as_if_larger")
def test_a_speed_up_out_of_reach_is_refused_with_the_limit(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"about 2.2 times is the limit"):
        exported(trained, tmp_path, **(PRUNE | {"target_speedup": 9.0}))
    assert versions(tmp_path, "tiny") == []


def test_a_pruned_model_that_is_no_faster_is_refused(
    trained: Trained, tmp_path: Path, as_if_larger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "_speedup", lambda *_: 0.97)
    with pytest.raises(Refused, match=r"no pruned model is 1.4 times as fast here; 1.00 times was reached"):
        exported(trained, tmp_path, **PRUNE)
    assert versions(tmp_path, "tiny") == []


@pytest.mark.slow
def test_the_budget_is_corrected_by_what_the_graph_really_takes(
    trained: Trained, tmp_path: Path, as_if_larger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is made to promise half of what is true: the search has to aim lower."""
    budgets = []

    def spied(rankings: object, table: LatencyTable, budget: float) -> list[Kept] | None:
        budgets.append(budget)
        return search(rankings, table, budget)  # type: ignore[arg-type]

    true = iter([2.0, 1.6, 1.41, 1.41])
    monkeypatch.setattr(step_module, "search", spied)
    monkeypatch.setattr(step_module, "_speedup", lambda *_: next(true))
    made = exported(trained, tmp_path, **(PRUNE | {"max_drop": 60.0})).bundle.manifest
    assert made.plan is not None
    assert made.plan.steps[0].speedup in (2.0, 1.6, 1.41)
    assert budgets == sorted(budgets)
    assert len(budgets) > 1


class Interrupted:
    """Trying graphs until Ctrl-C comes: at the third one, or at the first of a pruned model."""

    def __init__(
        self, patch: pytest.MonkeyPatch, comes: Callable[[int, int], bool] = lambda _tried, _step: False
    ) -> None:
        self.tried = 0
        real = Compressor.quantized

        def quantized(compressor: Compressor, joined: Path, store: SearchStore, step: int, scheme: Scheme) -> Quantized:
            if comes(self.tried, step):
                raise KeyboardInterrupt
            self.tried += 1
            return real(compressor, joined, store, step, scheme)

        patch.setattr(Compressor, "quantized", quantized)


@pytest.mark.slow
@pytest.mark.usefixtures("as_if_larger")
@pytest.mark.parametrize("comes", [lambda tried, _: tried == 2, lambda _, step: step == 1], ids=["unpruned", "pruned"])
def test_an_interrupted_search_goes_on_where_it_was(
    trained: Trained, repo: Path, monkeypatch: pytest.MonkeyPatch, comes: Callable[[int, int], bool]
) -> None:
    before = sorted(path.name for path in (repo / "tiny").iterdir())
    with monkeypatch.context() as patch:
        first = Interrupted(patch, comes)
        with pytest.raises(KeyboardInterrupt):
            exported(trained, repo, **PRUNE)
    kept = [path.name for path in (repo / "tiny").iterdir() if path.name not in before]
    assert [name[:8] for name in kept if name != ".lock"] == [".search-"]
    again = Interrupted(monkeypatch)
    made = exported(trained, repo, **PRUNE).bundle.manifest
    assert made.search is not None
    assert first.tried >= 2
    assert again.tried == len(made.search.candidates) - first.tried
    assert [path for path in (repo / "tiny").iterdir() if path.name.startswith(".search-")] == []
    assert made.version == "2"


@pytest.mark.slow
@pytest.mark.usefixtures("as_if_larger")
def test_a_search_whose_export_fails_late_is_kept(
    trained: Trained, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        first = Interrupted(patch)
        patch.setattr(build_module, "golden_cases", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            exported(trained, repo, **PRUNE)
    again = Interrupted(monkeypatch)
    assert exported(trained, repo, **PRUNE).bundle.manifest.version == "2"
    assert (first.tried > 0, again.tried) == (True, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("as_if_larger")
def test_a_damaged_search_is_begun_anew(trained: Trained, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        Interrupted(patch, lambda tried, _: tried == 3)
        with pytest.raises(KeyboardInterrupt):
            exported(trained, repo, **PRUNE)
    (state,) = (repo / "tiny").glob(".search-*/search.json")
    state.write_bytes(state.read_bytes()[:100])
    assert exported(trained, repo, **PRUNE).bundle.manifest.version == "2"


def test_what_was_left_a_week_ago_is_removed(tmp_path: Path) -> None:
    for name, days in ((".search-old", 8), (".staging-old", 8), (".search-young", 6), ("1", 30)):
        folder = tmp_path / "tiny" / name
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - days * 86_400,) * 2)
    with search_folder(tmp_path, "tiny", "0123456789abcdef") as mine:
        assert mine.is_dir()
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == [".search-young", "1"]


def test_a_bundle_can_be_made_again_to_the_last_byte(pruned: Exported, trained: Trained) -> None:
    done = reproduce(open_bundle(pruned.bundle.path), trained.train)
    assert done.sha256 == pruned.bundle.manifest.files[done.file].sha256


def test_what_is_not_the_same_is_not_called_reproduced(pruned: Exported, trained: Trained, tmp_path: Path) -> None:
    bundle = open_bundle(pruned.bundle.path)
    with pytest.raises(InvalidInput, match=r"has other rows: 400 of digest .* was made with 400 rows of digest"):
        reproduce(bundle, sentences(400, 99))
    with pytest.raises(InvalidInput, match="is not there"):
        reproduce(bundle, trained.train, tmp_path / "nowhere")
    made = bundle.manifest
    assert made.plan is not None
    (step,) = made.plan.steps
    some = next(place for place, mask in enumerate(step.neurons) if from_mask(mask))
    less = as_mask(from_mask(step.neurons[some])[1:])
    one_less = *step.neurons[:some], less, *step.neurons[some + 1 :]
    other = made.plan.model_copy(update={"steps": (step.model_copy(update={"neurons": one_less}),)})
    altered = made.model_copy(update={"plan": other})
    with pytest.raises(Refused, match="nothing that is recorded"):
        reproduce(replace(bundle, manifest=altered), trained.train)


@pytest.mark.slow
@pytest.mark.usefixtures("as_if_larger")
def test_a_pruned_champion_gets_a_challenger_of_the_same_form(
    pruned: Exported, trained: Trained, tmp_path: Path
) -> None:
    repo = shutil.copytree(pruned.bundle.path.parent.parent, tmp_path / "models")
    recipe = replace(RECIPE, keep="last", epochs=1)
    new = sentences(300, 7, NEW_GOOD, NEW_BAD)
    try:
        done = retrain(
            repo, "tiny", tmp_path / "log", trained.train, trained.evaluation, labels=new, recipe=recipe, min_labels=20
        )
    except Rejected as rejected:  # who wins does not matter here
        done = rejected.outcome
    made, before = done.bundle.manifest, pruned.bundle.manifest
    assert (made.version, made.pipeline[0].name) == ("2", "plan")
    assert made.plan is not None
    assert before.plan is not None
    assert (made.plan.steps, made.plan.scheme) == (before.plan.steps, before.plan.scheme)
    assert made.pipeline[0].details["neurons_kept"] == before.pipeline[0].details["neurons_kept"]
    assert kept_checkpoint(repo, "tiny", made.source.checkpoint_sha256).is_dir()


def test_too_few_training_rows_are_refused_before_any_work(trained: Trained, tmp_path: Path) -> None:
    few = replace(trained, train=sentences(50, 1))
    with pytest.raises(InvalidInput, match=f"at least {LEAST_ROWS}"):
        exported(few, tmp_path, **PRUNE)


def lesson_for(trained: Trained, **changes: float) -> tuple[object, ...]:
    model = load_model(read_checkpoint(trained.checkpoint))
    student = cut(model, [Kept((0,), tuple(range(16)))] * 2)
    tokens: Sequence[Tokens] = TextTokenizer(trained.checkpoint / "tokenizer.json", 24)(trained.train.texts)
    done = recover(student, model, tokens, SINGLE_LABEL, replace(RecoveryPlan(minutes=1, epochs=2), **changes), seed=4)
    return done, student, tokens


def test_recovery_comes_closer_to_the_teacher_and_repeats(trained: Trained) -> None:
    done, student, tokens = lesson_for(trained, learning_rate=2e-3)
    again, twin, _ = lesson_for(trained, learning_rate=2e-3)
    assert done.loss_after < 0.5 * done.loss_before
    assert done.held_out_rows == 40
    assert replace(done, seconds=0.0) == replace(again, seconds=0.0)
    np.testing.assert_array_equal(checkpoint_logits(student, tokens[:40]), checkpoint_logits(twin, tokens[:40]))


def test_recovery_leaves_the_embeddings_alone(trained: Trained) -> None:
    done, student, _ = lesson_for(trained, learning_rate=2e-3)
    assert done.kept_step > 0
    before = load_model(read_checkpoint(trained.checkpoint)).get_input_embeddings().weight
    torch.testing.assert_close(student.get_input_embeddings().weight, before, rtol=0, atol=0)  # type: ignore[attr-defined]
    assert all(parameter.requires_grad for parameter in student.parameters())  # type: ignore[attr-defined]


def test_a_student_that_is_driven_away_goes_back_and_learns_slower(trained: Trained) -> None:
    """At a rate that is far too high nothing is learnt at first, and something after the rate has come down."""
    done, _, _ = lesson_for(trained, learning_rate=0.3, epochs=12)
    assert done.losses[1] > done.loss_before
    assert done.loss_after < 0.9 * done.loss_before


def test_recovery_that_only_harms_is_undone(trained: Trained) -> None:
    done, student, _ = lesson_for(trained, learning_rate=30.0)
    assert (done.kept_step, done.loss_after) == (0, done.loss_before)
    untouched = cut(load_model(read_checkpoint(trained.checkpoint)), [Kept((0,), tuple(range(16)))] * 2)
    for one, other in zip(student.parameters(), untouched.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_learnt_until_time_runs_out_is_judged(trained: Trained, caplog: pytest.LogCaptureFixture) -> None:
    """A clock that a quarter of a second passes on at each look: the limit comes long before all epochs."""
    model = load_model(read_checkpoint(trained.checkpoint))
    student = cut(model, [Kept((0,), tuple(range(16)))] * 2)
    tokens = TextTokenizer(trained.checkpoint / "tokenizer.json", 24)(trained.train.texts)
    recovery = RecoveryPlan(minutes=0.1, epochs=50, learning_rate=1e-3)
    ticks = itertools.count(0, 0.25)
    with caplog.at_level("INFO"):
        done = recover(student, model, tokens, SINGLE_LABEL, recovery, seed=4, clock=lambda: next(ticks))
    assert 0 < done.steps == done.planned_steps < 50 * 12
    assert f"step {done.steps} of {done.steps}, held-out loss {done.losses[-1]:.4f}" in caplog.text


def test_the_same_steps_are_the_same_recovery(trained: Trained) -> None:
    """What the clock decided once can be done again without a clock, to the last bit."""
    model = load_model(read_checkpoint(trained.checkpoint))
    tokens = TextTokenizer(trained.checkpoint / "tokenizer.json", 24)(trained.train.texts)
    ticks = itertools.count(0, 0.25)
    students = [cut(model, [Kept((0,), tuple(range(16)))] * 2) for _ in range(2)]
    recovery = RecoveryPlan(minutes=0.1, epochs=50, learning_rate=1e-3)
    done = recover(students[0], model, tokens, SINGLE_LABEL, recovery, seed=4, clock=lambda: next(ticks))
    exact = replace(recovery, minutes=0.0, again=(done.planned_steps, done.steps))
    again = recover(students[1], model, tokens, SINGLE_LABEL, exact, seed=4)
    assert (again.steps, again.kept_step, again.losses) == (done.steps, done.kept_step, done.losses)
    for one, other in zip(students[0].parameters(), students[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_recovery_keeps_to_its_time(trained: Trained) -> None:
    done, _, _ = lesson_for(trained, minutes=0.0)
    assert (done.steps, done.loss_after) == (0, done.loss_before)
