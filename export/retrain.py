"""Retrain: new labels make a challenger; it goes live only if it beats the champion."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from pydantic import JsonValue

from export.build import Draft, Order, build, manifest, write_card
from export.challenge import contest, decide
from export.checkpoint import (
    Checkpoint,
    checkpoint_digest,
    keep_checkpoint,
    kept_checkpoint,
    read_checkpoint,
)
from export.clean import clean, normalise, take
from export.errors import Busy, CheckpointError, disk_full_named
from export.finetune import Recipe, finetune
from export.harvest import Harvest, harvest
from export.pipeline import check_data, data_arguments
from export.predict import answer, load_engine
from export.preflight import preflight
from export.quantize import DYNAMIC
from export.reference import MAX_ROWS, choose_rows, fair_shares
from export.search.store import Store
from export.variants import Target
from service.contract.bundle import TOKENIZER, Bundle, Challenge, Champion, Plan, VariantName, open_bundle
from service.contract.dataset import SEPARATOR, Dataset
from service.contract.errors import DatasetError, Refused
from service.contract.repository import check_name, publish, read_serving, set_live, staging
from service.tokenizer import TextTokenizer

HELD_OUT = 0.25
NEW_CLASS_ROWS = 10
REPLAY_SHARE = 4
REPLAY_LEAST = 2_000
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


@dataclass(frozen=True)
class Rows:
    """What to train on, what the new rows are judged on, and what may stand in the reference beside both."""

    train: Dataset
    held_out: Dataset
    unlabelled: list[str]
    labels: tuple[str, ...]
    counts: dict[str, JsonValue]


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
) -> Retrained:
    """Train a challenger from the live checkpoint on base and newly labelled rows, and judge it; see ``challenge``.

    New labels come from the feedback in ``log`` and from ``labels``. A quarter of them is held out and never trained
    on. The challenger is published in any case, and made live if it is accepted. With ``strict`` each of its variants
    must be shown to be as good as its own checkpoint, too.

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
        found = harvest(log, name, labels, unlabelled=2 * MAX_ROWS)
        rows = prepare(found, train, evaluation, base, min_labels=min_labels, seed=recipe.seed)
        logger.info("rows: %s", ", ".join(f"{key} {value}" for key, value in rows.counts.items()))
        with staging(repo, name) as work, staging(repo, name) as stage:
            tuned = finetune(
                str(base.path), rows.train, evaluation, work / "checkpoint",
                replace(recipe, max_length=champion.manifest.max_length), labels=rows.labels, task=base.task,
            )  # fmt: skip
            order = _order(tuned.checkpoint, champion, rows, evaluation, train, max_drop, recipe)
            draft = build(stage, Store(work), order, gate=lambda _: None)
            challenge = judge(champion, draft, rows.held_out, evaluation, max_drop=max_drop, strict=strict)
            challenge = _still_champion(repo, name, challenge)
            files = write_card(stage, draft, name, challenge)
            keep_checkpoint(repo, name, tuned.checkpoint, order.digest)
            bundle = publish(repo, name, stage, lambda version: manifest(draft, files, name, version, challenge))
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
    return read_checkpoint(kept)


def prepare(
    found: Harvest, train: Dataset, evaluation: Dataset, base: Checkpoint, *, min_labels: int, seed: int
) -> Rows:
    """Clean the new rows, hold a quarter of them out, and mix the others with a replay of base rows.

    Which rows are held out depends on their text only, so a row once held out is so in every later retrain. Replay
    is four base rows for each new one, at least 2,000, drawn at random: enough to keep what was known, in a fraction
    of the time.
    """
    labelled, unusable = _usable_labels(found.labelled, base)
    new = clean(labelled, evaluation.texts)
    if len(new.data) < min_labels:
        raise DatasetError(
            f"{len(new.data)} new labelled rows are left of {len(found.labelled)} after cleaning, and {min_labels} are "
            f"needed (dropped: {_listed(new.dropped | unusable)}). Send more feedback, or give a file with --labels."
        )
    held = [row for row, text in enumerate(new.data.texts) if is_held_out(text)]
    held_out = take(new.data, held)
    learn = take(new.data, sorted(set(range(len(new.data))) - set(held)))
    both = Dataset([*learn.texts, *train.texts], [*learn.targets, *train.targets])
    mixed = clean(both, [*evaluation.texts, *held_out.texts])
    fresh = [place for place, row in enumerate(mixed.kept) if row < len(learn)]
    old = [place for place, row in enumerate(mixed.kept) if row >= len(learn)]
    replay = choose_rows(len(old), max(REPLAY_LEAST, REPLAY_SHARE * len(fresh)), seed)
    if not fresh or not held_out.texts:
        raise DatasetError(
            f"of {len(new.data)} new labelled rows {len(fresh)} are left to train on and {len(held_out)} to judge by; "
            "both are needed. Send more feedback."
        )
    known = {normalise(text) for text in (*both.texts, *held_out.texts, *evaluation.texts)}
    counts: dict[str, JsonValue] = {
        **found.counts, **unusable, **new.dropped, "new_train": len(fresh), "new_held_out": len(held_out),
        "base_train": len(old), "base_replayed": len(replay),
        "base_dropped": len(both) - len(mixed.kept) - (len(learn) - len(fresh)),
    }  # fmt: skip
    chosen = take(mixed.data, [*fresh, *(old[row] for row in replay)])
    unlabelled = [text for text in found.unlabelled if normalise(text) not in known]
    added = sorted({label for target in new.data.targets for label in target.split(SEPARATOR)} - set(base.labels))
    return Rows(chosen, held_out, unlabelled, (*base.labels, *added), counts)


def is_held_out(text: str) -> bool:
    """A quarter of all texts, by the hash of the normalised text."""
    return hashlib.sha256(normalise(text).encode()).digest()[0] < 256 * HELD_OUT


def judge(
    champion: Bundle, draft: Draft, held_out: Dataset, evaluation: Dataset, *, max_drop: float, strict: bool
) -> Challenge:
    """Let both answer the old and the new rows as they are served, and decide."""
    variant: VariantName = "cpu" if "cpu" in champion.manifest.variants else "cuda"
    answers = draft.answers[variant]
    before = champion_labels(champion, variant, answers.texts)
    after = answers.observed.labels
    rows = len(evaluation)
    old = contest(before[:rows], after[:rows], evaluation.targets)
    new = contest(before[rows:], after[rows:], held_out.targets)
    who = Champion(version=champion.manifest.version, digest=champion.digest)
    return decide(who, old, new, draft.quality, max_drop=max_drop, strict=strict)


def champion_labels(champion: Bundle, variant: VariantName, texts: list[str]) -> list[str]:
    """What the live bundle predicts for each text by itself."""
    made = champion.manifest
    engine = load_engine(
        champion.file(made.variants[variant].file), device=variant, threads=1, max_length=made.max_length,
        pad_id=made.pad_id,
    )  # fmt: skip
    tokenizer = TextTokenizer(champion.file(TOKENIZER), made.max_length, made.pad_id)
    return answer(engine, tokenizer, texts, made.labels, made.task).observed.labels


def _order(
    path: Path, champion: Bundle, rows: Rows, evaluation: Dataset, train: Dataset,
    max_drop: float, recipe: Recipe,
) -> Order:  # fmt: skip
    variants = set(champion.manifest.variants)
    target: Target = "both" if len(variants) == 2 else "cuda" if "cuda" in variants else "cpu"
    judged = Dataset([*evaluation.texts, *rows.held_out.texts], [*evaluation.targets, *rows.held_out.targets])
    arguments: dict[str, JsonValue] = {
        **data_arguments(train=rows.train, base_train=train, eval=evaluation), **rows.counts, "target": target,
        "max_drop": max_drop, "retrained_from": champion.digest,
        **{key: value for key, value in asdict(recipe).items() if key not in ("seed", "max_length")},
    }  # fmt: skip
    challenger = read_checkpoint(path)
    reading = preflight(challenger, rows.train, judged, max_length=champion.manifest.max_length)
    return Order(
        challenger, reading, checkpoint_digest(path), rows.train, judged,
        reference_rows(evaluation, rows, recipe.seed), plan_like(champion), target, max_drop,
        weak=True, seed=recipe.seed, arguments=arguments,
    )  # fmt: skip


def plan_like(champion: Bundle) -> Plan:
    """The challenger gets the champion's form: the same units, as much recovery, the same quantization.

    It was trained on from the same checkpoint, so that the same units matter, and it is judged in that form anyway.
    """
    plan = champion.manifest.plan or Plan(scheme=DYNAMIC, torch_threads=0)
    return plan.model_copy(update={"torch_threads": torch.get_num_threads()})


def reference_rows(evaluation: Dataset, rows: Rows, seed: int) -> list[tuple[str, str | None]]:
    """At most 5,000 rows, none trained on: old eval rows, held-out new rows, recent traffic; fair shares of each."""
    sizes = (len(evaluation), len(rows.held_out), len(rows.unlabelled))
    shares = fair_shares(sizes, MAX_ROWS)
    chosen: list[tuple[str, str | None]] = []
    for data, share in ((evaluation, shares[0]), (rows.held_out, shares[1])):
        chosen += [(data.texts[row], data.targets[row]) for row in choose_rows(len(data), share, seed)]
    return chosen + [(text, None) for text in rows.unlabelled[: shares[2]]]


def _usable_labels(new: Dataset, base: Checkpoint) -> tuple[Dataset, dict[str, int]]:
    """Leave out rows whose label cannot be learnt: several for a single-label model, or new and hardly ever seen."""
    told = [set(target.split(SEPARATOR)) for target in new.targets]
    counts = Counter(label for labels in told for label in labels)
    rare = {label for label, count in counts.items() if label not in base.labels and count < NEW_CLASS_ROWS}
    several = [base.task == "single-label" and len(labels) > 1 for labels in told]
    kept = [row for row, labels in enumerate(told) if not several[row] and not labels & rare and "" not in labels]
    left = len(new) - len(kept) - sum(several)
    return take(new, kept), {"several_labels": sum(several), "rare_new_label": left}


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
    with (folder / ".retrain.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"{name} is being retrained already. Wait for that to end.") from error
        yield


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items() if count) or "none"
