"""The walk over degrees of pruning and ways to quantize, within a time budget.

First the unpruned model is tried with every scheme, or with as many as leave time to prune. Then it is pruned step by
step, each step starting from the fastest model inside the tolerance that was found, as recovery left it; each step's
model is tried with the schemes that were worth their time on the unpruned one. If it is not inside, the next one is
cut halfway to it, until both are close; then the faster one goes on learning. The walk ends where that brings nothing
more, at the speed-up asked for, or with the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedModel

from export.errors import ParityError
from export.graph.files import weights_file
from export.graph.onnx import export_onnx
from export.graph.projections import join_projections
from export.graph.quantize import DYNAMIC, FIRST, FLOAT, SCHEMES, UNSIGNED, Feeds, Quantized, quantize
from export.hardware import instruction_set, saturates
from export.inference.predict import torch_inputs
from export.inference.reference import choose_rows
from export.measure.latency import graph_run, time_in_turns
from export.prune.reconstruct import cut_and_reconstruct, input_moments
from export.prune.recover import Recovered, RecoveryPlan, recover
from export.prune.step import PrunedModel, PruningBasis, measure_basis, prune_to_speedup, sample
from export.prune.surgery import as_mask, everything
from export.search.choice import LIKELY, front, is_inside
from export.search.progress import ProgressReporter, TimeBudget
from export.search.sensitivity import ROWS, mixed_schemes, sensitivity
from export.search.store import Progress, SearchStore, kept_units
from export.search.trial import SearchRows
from service.contract.bundle import Plan, PruneStep, Scheme
from service.contract.dataset import Dataset
from service.contract.errors import Refused
from service.tasks import Task
from service.tasks.tokenizer import TextTokenizer, Tokens

_FIRST, _GROWTH = 1.4, 1.25  # how fast the first step aims to be, and how much faster each next one
_CLOSE = 1.1  # times as fast as a model inside the tolerance is one that is not: no other is cut between
_MOST_CUTS = 3  # of one model
_LEAST_UPDATES = 300
_GOOD_SECONDS, _LEAST_SECONDS = 75.0, 15.0  # of recovery: fewer steps rather than less; no step with less
_SCHEMES = 3  # that pruned models are tried with
_CALIBRATION_ROWS = 128
_SENSITIVITY_SHARE = 0.15
_TRYING_SHARE = 0.5  # of a step's time beside recovery that comes after it
_OUT_OF_TIME = "the time budget was used up"
_SECONDS = 1.0


@dataclass(frozen=True)
class Compressor:
    """The model to make smaller, and the data to do it with: ``train`` ranks units and teaches recovery."""

    model: PreTrainedModel
    tokenizer: TextTokenizer
    train: Dataset
    labels: Sequence[str]
    task: Task
    seed: int

    def joined(self, model: PreTrainedModel, store: SearchStore, step: int) -> Path:
        """The float32 graph of ``model``, the subject's own or a pruned one."""
        folder = store.folder_for(step, "float")
        raw, joined = export_onnx(model, folder), folder / "joined.onnx"
        join_projections(raw, joined)
        raw.unlink()
        weights_file(raw).unlink(missing_ok=True)
        return joined

    def quantized(self, joined: Path, store: SearchStore, step: int, scheme: Scheme) -> Quantized:
        calibration = self._calibration if scheme.method == "static" else []
        folder = store.folder_for(step, scheme.name)
        return quantize(joined, folder, scheme, target=instruction_set(), calibration=calibration)

    def recover(self, student: PreTrainedModel, recovery: RecoveryPlan, step: int) -> Recovered:
        return recover(student, self.model, self._train_tokens, self.task, recovery, seed=self.seed + step)

    @cached_property
    def _train_tokens(self) -> list[Tokens]:
        return self.tokenizer(self.train.texts)

    @cached_property
    def _calibration(self) -> list[Feeds]:
        rows = choose_rows(len(self.train), _CALIBRATION_ROWS, self.seed)
        tokens = self.tokenizer([self.train.texts[row] for row in rows])
        return [{name: one.numpy() for name, one in torch_inputs(self.model, [text]).items()} for text in tokens]


def execute_plan(compressor: Compressor, plan: Plan, store: SearchStore) -> Quantized:
    """Do what ``plan`` says, without measuring anything: the same subject gives the same file."""
    model, threads = compressor.model, torch.get_num_threads()
    seen = compressor.tokenizer(sample(compressor.train, compressor.seed).texts)
    torch.set_num_threads(plan.torch_threads)
    try:
        for number, step in enumerate(plan.steps, 1):
            model = cut_and_reconstruct(model, kept_units(step), input_moments(model, seen))
            compressor.recover(model, RecoveryPlan(again=(step.planned_steps, step.train_steps)), number)
            store.keep_weights(model, number)
    finally:
        torch.set_num_threads(threads)
    joined = compressor.joined(model, store, len(plan.steps))
    return compressor.quantized(joined, store, len(plan.steps), plan.scheme)


@dataclass
class Walk:
    """One walk; every finding is in ``progress`` and saved in ``store`` at once.

    ``target_speedup`` is against the unpruned int8 model, None for as fast as ``max_drop`` (points) allows.
    """

    compressor: Compressor
    rows: SearchRows
    store: SearchStore
    budget: TimeBudget
    max_drop: float
    target_speedup: float | None = None
    prune: bool = True

    def __post_init__(self) -> None:
        self.progress = self.store.load()
        if self.progress.ended == _OUT_OF_TIME:  # there may be more time now
            self._save(ended=None)
        self._teller = ProgressReporter(self.budget)
        if self.target_speedup is not None:
            steps = max(1, round(math.log(self.target_speedup) / math.log(_FIRST)))
            self._goals = [self.target_speedup ** ((step + 1) / steps) for step in range(steps)]

    def run(self) -> Progress:
        """Try candidates until the walk ends.

        :raises Refused: if ``target_speedup`` is beyond what pruning can give on this machine.
        """
        with self._teller.showing():
            if not self.progress.schemes:
                self._try_unpruned()
            if not self.prune:
                self._save(ended="pruning was not wanted")
            elif self.progress.ended is None:
                self._prune_on()
        return self.progress

    def _try_unpruned(self) -> None:
        """Schemes on the unpruned model; those on the front of speed and divergence go on to pruned ones.

        All of them, unless that would leave too little time to prune: a step gains more than another scheme.
        """
        compressor, store, rows = self.compressor, self.store, self.rows
        joined = compressor.joined(compressor.model, store, 0)
        self._teller.trying("each multiplication in int8 alone")
        scratch = store.folder_for(0, "sensitivity")
        hurt = sensitivity(
            joined,
            rows.tokens[:ROWS],
            compressor.task,
            scratch,
            pad_id=rows.pad_id,
            target=instruction_set(),
            seconds=_SENSITIVITY_SHARE * self.budget.seconds,
        )
        useless = () if saturates(instruction_set()) else (UNSIGNED,)
        longest = 0.0
        for scheme in (*FIRST, *mixed_schemes(hurt), *(one for one in SCHEMES[len(FIRST) :] if one not in useless)):
            short = self.prune and self.budget.left - longest < self.progress.overhead + _LEAST_SECONDS
            if short and scheme not in FIRST:
                break
            begun = self.budget.spent
            self._try(joined, scheme, 0, "unpruned", 1.0)
            longest = max(longest, self.budget.spent - begun)
        int8 = [trial for trial in self.progress.trials if trial.scheme != FLOAT]
        runs = {trial.file: graph_run(store.folder / trial.file) for trial in int8}
        timed = time_in_turns(runs, rows.tokens, seconds=_SECONDS)
        on_front = front([(timed[trial.file].p50, trial.divergence) for trial in int8])
        useful = [trial for trial, kept in zip(int8, on_front, strict=True) if kept]
        fastest = sorted(useful, key=lambda trial: timed[trial.file].p50)[:_SCHEMES]
        self._save(schemes=tuple(trial.scheme for trial in fastest))

    def _prune_on(self) -> None:
        """Step by step, until there is a reason to end."""
        basis: PruningBasis | None = None
        while self.progress.ended is None:
            if self.budget.left < self.progress.overhead + _LEAST_SECONDS:
                self._save(ended=_OUT_OF_TIME)
                return
            begun, step = self.budget.spent, len(self.progress.steps) + 1
            base, goal = self._next()
            chain = self.progress.chain(base)
            model = self.store.model_after(self.compressor.model, chain, base)
            if goal is None:
                shrunk: PrunedModel | None = PrunedModel(model, everything(model), chain[-1].speedup)
            else:
                basis = basis or self._measure_basis()
                shrunk = self._prune_to(basis, model, goal, chain[-1].speedup if chain else 1.0)
            if shrunk is None:
                return
            model, what = shrunk.model, self._name(shrunk.speedup)
            self._teller.trying(f"recovery, {what}")
            did = self.compressor.recover(model, self._recovery_plan(self._recovery_seconds()), len(chain) + 1)
            self.store.keep_weights(model, step)
            joined = self.compressor.joined(model, self.store, step)
            for scheme in self.progress.schemes:
                self._try(joined, scheme, step, what, shrunk.speedup)
            overhead = self.budget.spent - begun - did.seconds
            steps, bases = (*self.progress.steps, _record(shrunk, did)), (*self.progress.bases, base)
            self.progress = self.progress.model_copy(update={"steps": steps, "bases": bases})
            self._save(overhead=overhead, ended=self._reason_to_end(learnt=goal is not None or did.kept_step > 0))

    def _next(self) -> tuple[int, float | None]:
        """Which step to go on from, and what speed to cut its model to; None to let it learn on as it is."""
        if self.target_speedup is not None:
            return len(self.progress.steps), self._goals[len(self.progress.steps)]
        speeds = {0: 1.0} | {number: step.speedup for number, step in enumerate(self.progress.steps, 1)}
        good = max((number for number in speeds if not number or self._is_inside(number)), key=lambda one: speeds[one])
        bad = [number for number in speeds if speeds[number] > speeds[good]]
        goal = speeds[good] * (_GROWTH if good else _FIRST)
        if not bad:
            return good, goal
        slowest = min(speeds[number] for number in bad)
        if slowest > _CLOSE * speeds[good] and self.progress.bases.count(good) < _MOST_CUTS:
            return good, min(goal, math.sqrt(speeds[good] * slowest))
        return max(number for number in bad if speeds[number] == slowest), None

    def _is_inside(self, step: int) -> bool:
        """Whether some trial of the model after this step is likely inside the tolerance."""
        trials = [trial for trial in self.progress.trials if trial.step == step]
        return any(is_inside(trial, self.max_drop, errors=LIKELY) for trial in trials)

    def _measure_basis(self) -> PruningBasis:
        self._teller.trying("how long layers of several widths take")
        unpruned = next(one for one in self.progress.trials if one.step == 0 and one.scheme == DYNAMIC)
        compressor = self.compressor
        return measure_basis(
            compressor.model,
            compressor.tokenizer,
            compressor.train,
            compressor.labels,
            compressor.task,
            self.store.folder / unpruned.file,
            self.store.folder_for(0, "survey"),
            seed=compressor.seed,
        )

    def _prune_to(self, basis: PruningBasis, model: PreTrainedModel, goal: float, reached: float) -> PrunedModel | None:
        """A smaller model; None, with the reason, if there is none that is faster than ``reached``."""
        self._teller.trying(f"pruning to {goal:.2f} times the speed")
        shrunk = prune_to_speedup(basis, model, goal, exactly=goal == self.target_speedup)
        if shrunk is not None and shrunk.speedup > reached:
            return shrunk
        if self.target_speedup is not None:
            raise Refused(
                f"no pruned model is {self.target_speedup:g} times as fast here; {reached:.2f} times was reached, and "
                f"about {basis.limit:.1f} times is the limit, without any heads and neurons. "
                "Give a lower --target-speedup."
            )
        self._save(ended=f"no model faster than {reached:.2f} times was found")
        return None

    def _name(self, speedup: float) -> str:
        """What the model of the step that begins is called."""
        times = 1 + sum(step.speedup == speedup for step in self.progress.steps)
        return f"pruned {speedup:.2f}x" + (f", recovered {times} times" if times > 1 else "")

    def _recovery_seconds(self) -> float:
        """An equal part of the time left for each step to a given speed-up, or for as many as good recovery allows."""
        overhead, left = self.progress.overhead, self.budget.left
        if self.target_speedup is not None:
            steps = len(self._goals) - len(self.progress.steps)
        else:
            steps = int(left / (overhead + _GOOD_SECONDS))
        steps = max(1, steps)
        return max(_LEAST_SECONDS, (left - (steps - 1 + _TRYING_SHARE) * overhead) / steps)

    def _recovery_plan(self, seconds: float) -> RecoveryPlan:
        """Three epochs, or as many as give a few hundred updates, within the seconds."""
        epoch = max(1, len(self.compressor.train) // RecoveryPlan.batch_size)
        return RecoveryPlan(minutes=seconds / 60, epochs=max(RecoveryPlan.epochs, math.ceil(_LEAST_UPDATES / epoch)))

    def _try(self, joined: Path, scheme: Scheme, step: int, model: str, speedup: float) -> None:
        if any((trial.step, trial.scheme) == (step, scheme) for trial in self.progress.trials):
            return  # it was tried before an interruption
        self._teller.trying(f"{model}, {scheme.name}")
        try:
            made = self.compressor.quantized(joined, self.store, step, scheme)
        except ParityError:
            if not scheme.float_nodes:
                raise
            return  # so much was cut away that only those were left
        trial = self.rows.trial(made, self.store.folder, step=step, model=model, speedup=speedup)
        self._teller.found(trial)
        self._save(trials=(*self.progress.trials, trial))

    def _reason_to_end(self, *, learnt: bool) -> str | None:
        speed = f"{self.progress.steps[-1].speedup:.2f} times the speed"
        if self.target_speedup is not None:
            return f"the last step was done ({speed})" if len(self.progress.steps) == len(self._goals) else None
        if not learnt:
            return f"at {speed} too much accuracy was lost, and learning on brought no more of it back"
        return None

    def _save(self, **found: object) -> None:
        self.progress = self.progress.model_copy(update={**found, "seconds": self.budget.spent})
        self.store.save(self.progress)


def _record(shrunk: PrunedModel, did: Recovered) -> PruneStep:
    return PruneStep(
        speedup=shrunk.speedup,
        heads=tuple(as_mask(one.heads) for one in shrunk.kept),
        neurons=tuple(as_mask(one.neurons) for one in shrunk.kept),
        planned_steps=did.planned_steps,
        train_steps=did.steps,
    )
