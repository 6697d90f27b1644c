"""Retrain: new labels make a challenger; it goes live only if it beats the champion."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from pydantic import JsonValue

from export.build import BundleContent, ExportRequest, build, finish
from export.checkpoint.load import (
    Checkpoint,
    checkpoint_digest,
    keep_checkpoint,
    kept_checkpoint,
    read_checkpoint,
)
from export.data.harvest import harvest
from export.data.kept import keep_rows
from export.data.labels import check_data
from export.data.retraining import OPEN, Policy, Rows, named, prepare
from export.errors import Busy, CheckpointError, disk_full_named
from export.graph.onnx import load_model
from export.graph.quantize import DYNAMIC
from export.inference.predict import answer, load_engine
from export.inference.reference import MAX_ROWS, choose_rows, fair_shares
from export.judge.challenge import contest, decide
from export.judge.preflight import preflight
from export.pipeline import data_arguments
from export.search.store import SearchStore
from export.train.finetune import Recipe, finetune
from export.variants import Target
from service.contract.bundle import Bundle, Challenge, Champion, Plan, VariantName, open_bundle
from service.contract.dataset import Dataset
from service.contract.errors import Refused
from service.contract.files import held
from service.contract.inputs import Input
from service.contract.repository import check_name, publish, read_serving, set_live, staging
from service.tasks.of_bundle import task_of, tokenizer_of

DEFAULT = Recipe(epochs=2, learning_rate=5e-5, keep="last")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retrained:
    """A challenger that was judged and published. ``data`` counts the rows and where they went."""

    bundle: Bundle
    champion: Champion
    challenge: Challenge
    data: dict[str, JsonValue]
    seconds: float

    @property
    def accepted(self) -> bool:
        return self.challenge.accepted


class Rejected(Refused):
    """The challenger lost; it was published, not live, and ``outcome`` tells all about it."""

    code = "challenger_rejected"

    def __init__(self, message: str, outcome: Retrained) -> None:
        super().__init__(message)
        self.outcome = outcome


def retrain(
    repo: Path,
    name: str,
    log: Path,
    train: Dataset,
    evaluation: Dataset,
    *,
    labels: Dataset | None = None,
    recipe: Recipe = DEFAULT,
    max_drop: float = 1.0,
    min_labels: int = 50,
    strict: bool = False,
    policy: Policy = OPEN,
) -> Retrained:
    """Train a challenger from the live checkpoint on base and newly labelled rows, and judge it; see ``challenge``.

    New labels come from the feedback in ``log`` and from ``labels``. A quarter of them is held out and never trained
    on. ``policy`` says what becomes of labels that the champion does not know; each is named in the log and in the
    outcome. The challenger is published in any case, and made live if it is accepted. With ``strict`` each of its
    variants must be shown to be as good as its own checkpoint, too.

    :raises Rejected: if it is not; the message has the reasons.
    :raises DatasetError: if fewer than ``min_labels`` new rows are left after cleaning.
    :raises Busy: if the same model is being retrained already.
    """
    started = time.monotonic()
    with _alone(repo, name), disk_full_named(repo):
        champion = open_bundle(repo / check_name(name) / read_serving(repo, name).live)
        base = champion_checkpoint(repo, champion)
        check_data(base, train, "training")
        check_data(base, evaluation, "eval")
        found = harvest(log, name, labels, unlabelled=2 * MAX_ROWS, placed=base.task.per_token)
        rows = prepare(found, train, evaluation, base, min_labels=min_labels, seed=recipe.seed, policy=policy)
        logger.info(
            "rows: %s", ", ".join(f"{key} {value}" for key, value in rows.counts.items() if isinstance(value, int))
        )
        with staging(repo, name) as work, staging(repo, name) as staging_folder:
            tuned = finetune(
                str(base.path),
                rows.train,
                evaluation,
                work / "checkpoint",
                replace(recipe, max_length=champion.manifest.max_length),
                labels=rows.labels,
                task=base.task,
                known=base.labels,
            )
            request = _request(tuned.checkpoint, champion, rows, evaluation, train, max_drop, recipe)
            content = build(staging_folder, SearchStore(work), request, gate=lambda _: None)
            challenge = judge(champion, content, rows.held_out, evaluation, max_drop=max_drop, strict=strict)
            challenge = _still_champion(repo, name, _with_new_classes(challenge, rows))
            keep_checkpoint(repo, name, tuned.checkpoint, request.digest)
            keep_rows(repo, name, rows.train, str(request.arguments["train_sha256"]))
            bundle = publish(
                repo, name, staging_folder, lambda version: finish(staging_folder, content, name, version, challenge)
            )
        if challenge.accepted:
            set_live(repo, name, bundle.manifest.version)
    seconds = time.monotonic() - started
    outcome = Retrained(bundle, challenge.champion, challenge, rows.counts, seconds)
    reasons = "; ".join(challenge.reasons)
    if not challenge.accepted:
        raise Rejected(
            f"version {bundle.manifest.version} of {name} was trained and is not live: {reasons}. "
            f"Version {challenge.champion.version} stays.",
            outcome,
        )
    logger.info("version %s of %s is live: %s (%.0f s)", bundle.manifest.version, name, reasons, seconds)
    return outcome


def champion_checkpoint(repo: Path, champion: Bundle) -> Checkpoint:
    """The checkpoint that the live bundle was made from, verified.

    :raises CheckpointError: if the repository does not keep it, or it was altered.
    """
    wanted = champion.manifest.source.checkpoint_sha256
    kept = kept_checkpoint(repo, champion.manifest.name, wanted)
    if not kept.is_dir():
        raise CheckpointError(
            f"{kept} is not there: the checkpoint of version {champion.manifest.version} was not kept. "
            "Export it again into this repository."
        )
    if (actual := checkpoint_digest(kept)) != wanted:
        raise CheckpointError(f"{kept} was altered: its digest is {actual[:16]}…, the manifest says {wanted[:16]}….")
    made = champion.manifest
    task = task_of(made)
    return replace(read_checkpoint(kept, made.labels), paired=made.paired, task=task)


def judge(
    champion: Bundle, content: BundleContent, held_out: Dataset, evaluation: Dataset, *, max_drop: float, strict: bool
) -> Challenge:
    """Let both answer the old and the new rows as they are served, and decide."""
    variant: VariantName = "cpu" if "cpu" in champion.manifest.variants else "cuda"
    answers = content.answers[variant]
    before = champion_labels(champion, variant, answers.texts)
    after = answers.observed.labels
    rows = len(evaluation)
    task = task_of(champion.manifest)
    old = contest(task, before[:rows], after[:rows], evaluation.targets)
    new = contest(task, before[rows:], after[rows:], held_out.targets)
    who = Champion(version=champion.manifest.version, digest=champion.digest)
    return decide(who, old, new, content.quality, max_drop=max_drop, strict=strict)


def champion_labels(champion: Bundle, variant: VariantName, texts: Sequence[Input]) -> list[str]:
    """What the live bundle predicts for each text by itself."""
    made = champion.manifest
    engine = load_engine(
        champion.file(made.variants[variant].file),
        device=variant,
        threads=1,
        max_length=made.max_length,
        pad_id=made.pad_id,
    )
    return answer(engine, tokenizer_of(champion), texts, made.labels, task_of(made)).observed.labels


def _request(
    path: Path,
    champion: Bundle,
    rows: Rows,
    evaluation: Dataset,
    train: Dataset,
    max_drop: float,
    recipe: Recipe,
) -> ExportRequest:
    variants = set(champion.manifest.variants)
    target: Target = "both" if len(variants) == 2 else "cuda" if "cuda" in variants else "cpu"
    judged = Dataset([*evaluation.texts, *rows.held_out.texts], [*evaluation.targets, *rows.held_out.targets])
    arguments: dict[str, JsonValue] = {
        **data_arguments(train=rows.train, base_train=train, eval=evaluation),
        **rows.counts,
        "target": target,
        "max_drop": max_drop,
        "retrained_from": champion.digest,
        **{key: value for key, value in asdict(recipe).items() if key not in ("seed", "max_length")},
    }
    made = champion.manifest
    challenger = replace(read_checkpoint(path), task=task_of(made))
    hf_tokenizer = preflight(
        load_model(challenger),
        challenger,
        rows.train,
        judged,
        max_length=champion.manifest.max_length,
        seed=recipe.seed,
    )
    return ExportRequest(
        challenger,
        hf_tokenizer,
        checkpoint_digest(path),
        rows.train,
        judged,
        reference_rows(evaluation, rows, recipe.seed),
        plan_like(champion),
        target,
        max_drop,
        weak=True,
        seed=recipe.seed,
        arguments=arguments,
    )


def plan_like(champion: Bundle) -> Plan:
    """The challenger gets the champion's form: the same units, as much recovery, the same quantization.

    It was trained on from the same checkpoint, so that the same units matter, and it is judged in that form anyway.
    """
    plan = champion.manifest.plan or Plan(scheme=DYNAMIC, torch_threads=0)
    return plan.model_copy(update={"torch_threads": torch.get_num_threads()})


def reference_rows(evaluation: Dataset, rows: Rows, seed: int) -> list[tuple[Input, str | None]]:
    """At most 5,000 rows, none trained on: old eval rows, held-out new rows, recent traffic; fair shares of each."""
    sizes = (len(evaluation), len(rows.held_out), len(rows.unlabelled))
    shares = fair_shares(sizes, MAX_ROWS)
    chosen: list[tuple[Input, str | None]] = []
    for data, share in ((evaluation, shares[0]), (rows.held_out, shares[1])):
        chosen += [(data.texts[row], data.targets[row]) for row in choose_rows(len(data), share, seed)]
    return chosen + [(text, None) for text in rows.unlabelled[: shares[2]]]


def _with_new_classes(challenge: Challenge, rows: Rows) -> Challenge:
    """A version that gives other labels than the one before says so wherever its judgement is told."""
    if not rows.added:
        return challenge
    return challenge.model_copy(update={"reasons": (*challenge.reasons, f"new classes: {named(rows.added)}")})


def _still_champion(repo: Path, name: str, challenge: Challenge) -> Challenge:
    """Somebody may have changed what is live while the challenger trained; then it was judged against the wrong one."""
    live = read_serving(repo, name).live
    if live == challenge.champion.version:
        return challenge
    reason = f"version {live} went live meanwhile, and the challenger was judged against {challenge.champion.version}"
    return challenge.model_copy(update={"accepted": False, "reasons": (reason, *challenge.reasons)})


@contextmanager
def _alone(repo: Path, name: str) -> Iterator[None]:
    """One retrain of a model at a time, also between processes; the lock goes with the process."""
    folder = repo / check_name(name)
    read_serving(repo, name)
    with held(folder / ".retrain.lock") as alone:
        if not alone:
            raise Busy(f"{name} is being retrained already. Wait for that to end.")
        yield
