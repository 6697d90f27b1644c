"""Export: a checkpoint becomes the next version of a model in the repository, or nothing does."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import orjson
from pydantic import JsonValue

from export.build import ExportRequest, build, finish, libraries
from export.checkpoint.load import checkpoint_digest, keep_checkpoint, read_checkpoint
from export.data.clean import normalise, take
from export.data.labels import check_data
from export.errors import disk_full_named
from export.graph.onnx import load_model
from export.hardware import instruction_set
from export.inference.reference import MAX_ROWS, choose_rows
from export.judge.gate import refuse_unless_published
from export.judge.preflight import preflight
from export.prune.step import check_pruning
from export.search.store import SearchStore, search_folder
from export.search.variant import SearchRequest
from export.train.finetune import silence
from export.variants import Target, check_target
from service.card.warnings import warnings_of
from service.contract.bundle import Bundle, Plan, open_bundle
from service.contract.dataset import Dataset
from service.contract.errors import DatasetError, InvalidInput
from service.contract.inputs import Input, parts
from service.contract.repository import SERVING, check_name, publish, set_live, staging

logger = logging.getLogger(__name__)

_SEARCH_SHARE = 0.9  # of the time budget; the gate and the last measurements need the rest
_SEARCH_ROWS = 1_000
_LEAST_ROWS = 3
# What may differ between calls that search the same: how long it takes, and what is accepted later.
_LATER = ("time_budget", "strict", "weak")


@dataclass(frozen=True)
class Exported:
    """A version that was published, and whether it is live."""

    bundle: Bundle
    live: bool


@dataclass(frozen=True)
class Options:
    """How to export. ``time_budget`` is for everything, in seconds; ``max_drop`` in points of accuracy.

    ``target_speedup`` is against the unpruned int8 model: without it the fastest within ``max_drop`` is taken.
    ``strict`` refuses what is not shown to be within it; ``weak`` accepts a checkpoint that is no better than its most
    frequent label. ``like`` is a version of the same checkpoint whose plan is followed instead of a search, with the
    length of its texts. ``labels`` name the head's rows, in their order, in place of the checkpoint's ``id2label``.
    ``max_length`` in tokens is as ``wanted`` of :func:`export.checkpoint.tokenizer.read_texts`.
    """

    target: Target = "cpu"
    max_drop: float = 0.5
    time_budget: float = 600.0
    target_speedup: float | None = None
    prune: bool = True
    strict: bool = False
    weak: bool = False
    like: str | None = None
    seed: int = 0
    labels: Sequence[str] | None = None
    max_length: int | None = None


def export_checkpoint(
    path: Path,
    train: Dataset,
    evaluation: Dataset,
    repo: Path,
    name: str,
    options: Options = Options(),
    *,
    search_rows: Dataset | None = None,
    live: bool | None = None,
) -> Exported:
    """Search for the best form of the checkpoint in ``path``, gate it, publish it and make it live.

    ``train`` is what the checkpoint was trained on: it ranks what to prune, teaches recovery, and eval rows that occur
    in it do not judge. Candidates are compared on ``search_rows``; without them on at most 1,000 rows of ``evaluation``
    (see ``SearchRequest.cross_fit``). With ``live`` None a version that is proven, or the first one, becomes live. On
    any failure the repository is as it was; what the search found is kept in a hidden folder, and the same call goes on
    from there.

    :raises Refused: if a variant is shown to be worse than allowed (or, if that is ``strict``, not shown to be as
        good), the checkpoint is no better than its most frequent label, or pruning cannot give the speed-up; nothing is
        published.
    :raises InvalidInput: if the checkpoint cannot be used or pruned, or its labels disagree with the data.
    """
    check_name(name)
    check_target(options.target, options.target_speedup)
    example = None if options.like is None else open_bundle(repo / name / options.like)
    if example is not None:
        options = _as_for(example, options)
    checkpoint = read_checkpoint(path, options.labels)
    for data, what in ((train, "training"), (evaluation, "eval"), (search_rows, "search")):
        if data is not None:
            check_data(checkpoint, data, what)
    checkpoint = replace(checkpoint, task=checkpoint.task.fitted(train.targets))
    silence()
    digest, gate_rows = checkpoint_digest(path), untrained(train, evaluation, "eval")
    if search_rows is not None:
        search_rows = untrained(train, search_rows, "search")
    cpu = _wish(options, gate_rows, search_rows) if example is None else plan_of(example, digest, train)
    model = load_model(checkpoint)
    if isinstance(cpu, SearchRequest) and cpu.prune and options.target != "cuda":
        check_pruning(model, train, options.target_speedup)
    length = options.max_length or checkpoint.max_length
    hf_tokenizer = preflight(model, checkpoint, train, evaluation, max_length=length, seed=options.seed)
    request = ExportRequest(
        checkpoint=checkpoint,
        hf_tokenizer=hf_tokenizer,
        digest=digest,
        train=train,
        gate_rows=gate_rows,
        reference_rows=reference_rows(gate_rows, options.seed, told=not checkpoint.task.vector),
        cpu=cpu,
        target=options.target,
        max_drop=options.max_drop,
        weak=options.weak,
        trained_on=len(evaluation) - len(gate_rows),
        seed=options.seed,
        arguments=data_arguments(train=train, eval=evaluation, search=search_rows) | asdict(options),
    )
    bundle = _publish(repo, name, path, request, strict=options.strict)
    made = bundle.manifest
    for warning in warnings_of(made):
        logger.warning("version %s of %s: %s", made.version, name, warning)
    if live is None:
        live = not made.unproven or not (repo / name / SERVING).exists()
    if live:
        set_live(repo, name, made.version)
    logger.info("published %s version %s%s", name, made.version, ", live" if live else ", not live")
    return Exported(bundle, live)


def _as_for(example: Bundle, options: Options) -> Options:
    """What the plan of ``example`` rests on: its seed, and unless told otherwise its labels and the length of texts."""
    made = example.manifest
    return replace(
        options,
        seed=made.source.seed,
        labels=options.labels or list(made.labels),
        max_length=options.max_length or made.max_length,
    )


def plan_of(example: Bundle, digest: str, train: Dataset) -> Plan:
    """How an earlier version of the same checkpoint was made for the CPU.

    :raises InvalidInput: if it was made of another checkpoint or with other training rows, or has no such plan.
    """
    made = example.manifest
    if made.plan is None:
        raise InvalidInput(f"{example.path} has no CPU variant with a plan that could be followed.")
    if made.source.checkpoint_sha256 != digest:
        raise InvalidInput(
            f"{example.path} was made of another checkpoint ({made.source.checkpoint_sha256[:16]}…, this one is "
            f"{digest[:16]}…). Leave out --like to search anew."
        )
    if made.source.arguments.get("train_sha256") != data_arguments(train=train)["train_sha256"]:
        raise InvalidInput(f"{example.path} was made with other training rows. Give the same --train.")
    return made.plan


def _wish(options: Options, gate_rows: Dataset, search_rows: Dataset | None) -> SearchRequest:
    """What to search for, and the rows to compare candidates on: those that were given, or some of the gate's own."""
    rows = search_rows or some_rows(gate_rows)
    judging = {normalise(text) for text in gate_rows.texts}
    return SearchRequest(
        rows=rows,
        gate_rows=len(gate_rows),
        time_budget=_SEARCH_SHARE * options.time_budget,
        target_speedup=options.target_speedup,
        prune=options.prune,
        must_prove=options.strict,
        cross_fit=any(normalise(text) in judging for text in rows.texts),
    )


def _publish(repo: Path, name: str, path: Path, request: ExportRequest, *, strict: bool) -> Bundle:
    with (
        disk_full_named(repo),
        search_folder(repo, name, _search_key(request)) as folder,
        staging(repo, name) as staging_folder,
    ):
        content = build(
            staging_folder, SearchStore(folder), request, gate=partial(refuse_unless_published, strict=strict)
        )
        keep_checkpoint(repo, name, path, request.digest)
        return publish(repo, name, staging_folder, lambda version: finish(staging_folder, content, name, version))


def untrained(train: Dataset, data: Dataset, what: str) -> Dataset:
    """The rows of ``data`` (``what``) whose text was not trained on.

    :raises DatasetError: if there are none, or fewer than three.
    """
    trained = {normalise(text) for text in train.texts}
    rows = [row for row, text in enumerate(data.texts) if normalise(text) not in trained]
    if left_out := len(data) - len(rows):
        logger.warning("%d of %d %s rows also occur in training and do not judge", left_out, len(data), what)
    if not rows:
        raise DatasetError(f"every {what} row also occurs in the training data. Hold some rows back from training.")
    if len(rows) < _LEAST_ROWS:
        raise DatasetError(
            f"{len(rows)} of the {what} rows were not trained on; at least {_LEAST_ROWS} are needed, and hundreds "
            "prove more."
        )
    return take(data, rows)


def reference_rows(rows: Dataset, seed: int, *, told: bool = True) -> list[tuple[Input, str | None]]:
    """At most 5,000 (text, label) of the rows, whose labels may not be ``told``."""
    chosen = choose_rows(len(rows), MAX_ROWS, seed)
    return [(rows.texts[row], rows.targets[row] if told else None) for row in chosen]


def some_rows(data: Dataset) -> Dataset:
    """At most 1,000 of the rows, by the hash of the text."""
    hashes = [hashlib.sha256(normalise(text).encode()).digest() for text in data.texts]
    order = sorted(range(len(hashes)), key=lambda row: hashes[row])
    return take(data, sorted(order[:_SEARCH_ROWS]))


def data_arguments(**data: Dataset | None) -> dict[str, JsonValue]:
    """What identifies the data in a manifest: rows and a digest of their content."""
    found: dict[str, JsonValue] = {}
    for what, rows in data.items():
        if rows is not None:
            digest = hashlib.sha256()
            for text, label in zip(rows.texts, rows.targets, strict=True):
                digest.update("\0".join((*parts(text), f"{label}\n")).encode())
            found |= {f"{what}_rows": len(rows), f"{what}_sha256": digest.hexdigest()}
    return found


def _search_key(request: ExportRequest) -> str:
    kept = {key: value for key, value in request.arguments.items() if key not in _LATER}
    parts = {"checkpoint": request.digest, "on": instruction_set(), "libraries": libraries(), **kept}
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
