"""The commands ``finetune``, ``distill``, ``export`` and ``retrain``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.output import (
    Reading,
    print_bundle,
    print_json,
    print_retrained,
    print_warnings,
    summary,
    to_export,
    to_judge,
)
from service.terminal.commands import plumbline, say_next, to_serve

if TYPE_CHECKING:
    from service.contract.dataset import Dataset

Train = Annotated[Path, typer.Option("--train", help="Training rows: CSV, JSONL, Parquet or CoNLL.")]
Eval = Annotated[Path, typer.Option("--eval", help="Evaluation rows that are not trained on.")]
TextColumn = Annotated[str, typer.Option(help="Column with the text; its number in a CSV file without a header.")]
PairColumn = Annotated[
    str | None,
    typer.Option(help="Column with the second text of each pair. Without it: text_pair, where a file has such a one."),
]
LabelColumn = Annotated[str, typer.Option(help="Column with the label; several joined by '|', or a list.")]
AllowSimilar = Annotated[
    bool,
    typer.Option("--allow-similar-labels", help="Labels that differ by case or spaces only are different classes."),
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same data, same machine: same result.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Repo = Annotated[Path, typer.Option(help="The model repository.")]
Name = Annotated[str, typer.Option(help="The model's name in the repository.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse what the eval rows are too few to prove.")]


def finetune(
    train: Train,
    eval_: Eval,
    out: Annotated[Path, typer.Option(help="Folder for the new checkpoint; must not exist or be empty.")],
    base: Annotated[
        str | None, typer.Argument(help="A checkpoint folder or hub name; without it the packaged MiniLM.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="single-label, multi-label, regression or token-classification; else what the labels say."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs; stops early when the eval loss rises.")] = 3,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step.")] = 32,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens per text; longer ones are cut.")] = 128,
    seed: Seed = 0,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    pair_column: PairColumn = None,
    allow_similar_labels: AllowSimilar = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a base model on labelled texts.

    Writes an ordinary Hugging Face checkpoint. After Ctrl-C the same command goes on from where it was.

    \b
    Examples:
      plumbline finetune --train train.csv --eval eval.csv --out checkpoint
      plumbline finetune ./my-bert --train train.csv --eval eval.csv \\
        --out checkpoint
    """
    from export.checkpoint.load import resolve_base
    from export.preconditions import check_out, check_trainable
    from service.contract.errors import InvalidInput
    from service.tasks import TASKS, task_named

    if task is not None and task not in TASKS:
        raise InvalidInput(f"--task {task!r} is not known; choose {', '.join(TASKS)}.")
    check_out(out)
    reading = Reading(text_column, label_column, pair_column, allow_similar_labels)
    given = None if task is None else task_named(task)
    if given is not None:
        check_trainable(given)
    files = _rows([train, eval_], reading, several=given is not None and given.several)
    resolve_base(base)
    _share_the_processor()
    from export.train import finetune as module

    recipe = module.Recipe(epochs, learning_rate, batch_size, max_length, seed)
    done = module.finetune(base, files[0], files[1], out, recipe, task=given, resumable=True)
    if as_json:
        print_json(done.to_dict())
        return
    print(f"{done.checkpoint}: {done.scores}, {done.scores.rows} eval rows, {done.seconds:.0f} s")
    if done.scores.classes:
        print(f"{'label':<24} {'precision':>9} {'recall':>9} {'F1':>9} {'rows':>7}")
    for label, one in done.scores.classes.items():
        print(f"{label[:24]:<24} {one.precision:>9.3f} {one.recall:>9.3f} {one.f1:>9.3f} {one.support:>7}")
    print_warnings(done.warnings)
    say_next(to_export(out, train, eval_, reading))


def distill(
    teacher: Annotated[Path, typer.Argument(help="Folder of the fine-tuned checkpoint to learn from.")],
    student: Annotated[str, typer.Argument(help="A smaller checkpoint: a folder or a hub name, of any architecture.")],
    train: Train,
    eval_: Eval,
    out: Annotated[Path, typer.Option(help="Folder for the new checkpoint; must not exist or be empty.")],
    epochs: Annotated[int, typer.Option(min=1, help="Epochs; the one with the best eval accuracy is kept.")] = 5,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step.")] = 32,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens per text that the student reads.")] = 128,
    label_share: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of the loss that the true labels have; the teacher has the rest."),
    ] = 0.1,
    seed: Seed = 0,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    pair_column: PairColumn = None,
    allow_similar_labels: AllowSimilar = False,
    as_json: Json = False,
) -> None:
    """Let a smaller model learn what a fine-tuned one answers.

    Writes an ordinary Hugging Face checkpoint. After Ctrl-C the same command goes on from where it was.

    \b
    Examples:
      plumbline distill checkpoint ./tiny-bert --train train.csv --eval eval.csv \\
        --out student
    """
    from dataclasses import replace

    from export.checkpoint.load import read_checkpoint, resolve_base
    from export.preconditions import check_out, check_trainable

    check_out(out)
    check_trainable(read_checkpoint(teacher).task)
    reading = Reading(text_column, label_column, pair_column, allow_similar_labels)
    files = _rows([train, eval_], reading)
    resolve_base(student)
    _share_the_processor()
    from export.train import distill as module

    recipe = replace(
        module.DEFAULT,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
    )
    done = module.distill(teacher, student, files[0], files[1], out, recipe, label_share=label_share, resumable=True)
    if as_json:
        print_json(done.to_dict())
        return
    print(f"{done.made.checkpoint}: {done.made.seconds:.0f} s")
    print(f"{'':<8} {done.made.task.metric:>9} {'parameters':>12} {'weights, MB':>12}")
    for name, one in (("teacher", done.teacher), ("student", done.student)):
        print(f"{name:<8} {one.score:>9.4f} {one.parameters:>12,} {one.bytes / 1e6:>12.1f}")
    print(
        f"student minus teacher on {done.paired.rows} eval rows: {100 * done.paired.difference:+.2f} points, "
        f"95 % sure of no worse than {100 * done.paired.lower:+.2f}"
    )
    print_warnings(done.made.warnings)
    say_next(to_export(out, train, eval_, reading))


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a fine-tuned checkpoint.")],
    train: Train,
    eval_: Eval,
    repo: Repo,
    name: Name,
    search: Annotated[
        Path | None,
        typer.Option(help="Rows to compare candidates on, not trained on. Without it: the eval rows, cross-fitted."),
    ] = None,
    target: Annotated[str, typer.Option(help="Which variants to make: cpu, cuda or both.")] = "cpu",
    max_drop: Annotated[
        float, typer.Option(min=0.0, help="Points of the metric that may be lost, accuracy for one.")
    ] = 0.5,
    time_budget: Annotated[str, typer.Option(help="About how long everything may take, as 90s, 10m or 1h.")] = "10m",
    target_speedup: Annotated[
        float | None,
        typer.Option(help="Prune to so many times the unpruned int8's speed. Without it: as fast as --max-drop lets."),
    ] = None,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Only quantize.")] = False,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Tokens per text. Without it: what the checkpoint takes, but beyond 512 only what the rows need.",
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="Make what this version is, as 1, once more instead of searching: to judge it by more rows."),
    ] = None,
    strict: Strict = False,
    allow_weak: Annotated[
        bool, typer.Option("--allow-weak", help="Also a checkpoint that is no better than what takes no model.")
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(help="Names of the labels, joined by commas, in place of the checkpoint's own id2label."),
    ] = None,
    live: Annotated[
        bool | None,
        typer.Option("--live/--not-live", help="Serve the new version. By default if it is proven, or the first."),
    ] = None,
    seed: Seed = 0,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    pair_column: PairColumn = None,
    allow_similar_labels: AllowSimilar = False,
    as_json: Json = False,
) -> None:
    """Prune, quantize, judge and publish a checkpoint as a bundle.

    The bundle becomes the next version of the model in the repository. An interrupted search goes on where it was.

    \b
    Examples:
      plumbline export checkpoint --train train.csv --eval eval.csv \\
        --repo models --name reviews
      plumbline export checkpoint --train train.csv --eval eval.csv \\
        --repo models --name reviews --no-prune --time-budget 2m
    """
    from export.checkpoint.load import read_checkpoint
    from export.preconditions import check_writable
    from service.contract.bundle import open_bundle
    from service.contract.errors import InvalidInput
    from service.contract.repository import check_name
    from service.tasks.of_bundle import task_of

    if target not in ("cpu", "cuda", "both"):
        raise InvalidInput(f"--target {target!r} is not known; choose cpu, cuda or both.")
    check_writable(repo / check_name(name), "--repo")
    names = None if labels is None else [one.strip() for one in labels.split(",")]
    if like is None or names is not None:  # otherwise the names are those of that version
        task = read_checkpoint(checkpoint, names).task
    else:
        task = task_of(open_bundle(repo / name / like).manifest)
    reading = Reading(text_column, label_column, pair_column, allow_similar_labels)
    files = _rows([train, eval_, *([search] if search else [])], reading, several=task.several, told=not task.vector)
    _share_the_processor()
    from export import pipeline

    options = pipeline.Options(
        target=target,  # type: ignore[arg-type]
        max_drop=max_drop,
        time_budget=_seconds(time_budget),
        target_speedup=target_speedup,
        prune=not no_prune,
        strict=strict,
        weak=allow_weak,
        like=like,
        seed=seed,
        labels=names,
        max_length=max_length,
    )
    done = pipeline.export_checkpoint(
        checkpoint, files[0], files[1], repo, name, options, search_rows=files[2] if search else None, live=live
    )
    if as_json:
        print_json(summary(done.bundle, live=done.live))
    else:
        print_bundle(done.bundle, live=done.live)
        if done.bundle.manifest.unproven:
            more = to_judge(done.bundle, checkpoint, train, reading)
            print(f"unproven; to judge it by more rows: {more}")
        say_next(to_serve(done.bundle.path, done.bundle.manifest))


def reproduce(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle, as models/sst2/1.")],
    train: Annotated[
        Path | None, typer.Option(help="The rows it was made with. Without it: those that a retrain kept.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="What it was made from. Without it: the one that the repository keeps.")
    ] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    pair_column: PairColumn = None,
    as_json: Json = False,
) -> None:
    """Make a bundle's CPU file once more and compare every byte.

    It follows the plan in the manifest and publishes nothing. What a retrain trained on is kept: --train is not
    needed then.

    \b
    Examples:
      plumbline reproduce models/reviews/1 --train train.csv
    """
    from export.checkpoint.load import read_checkpoint
    from service.contract.bundle import open_bundle
    from service.tasks.of_bundle import task_of

    opened = open_bundle(bundle)
    if checkpoint is not None:
        read_checkpoint(checkpoint)
    task = task_of(opened.manifest)
    reading = Reading(text_column, label_column, pair_column, allow_similar_labels=True)
    rows = None if train is None else _rows([train], reading, several=task.several, told=not task.vector)[0]
    _share_the_processor()
    from export import reproduce as module

    done = module.reproduce(opened, rows, checkpoint)
    if as_json:
        print_json({"file": done.file, "sha256": done.sha256, "seconds": done.seconds})
    else:
        print(f"{done.file}: the same {done.sha256}, made again in {done.seconds:.0f} s")
        say_next(plumbline("inspect", bundle))


def retrain(
    repo: Repo,
    name: Name,
    log: Annotated[Path, typer.Option(help="Where the service logs requests and feedback.")],
    train: Train,
    eval_: Eval,
    labels: Annotated[Path | None, typer.Option(help="More newly labelled rows, beside the feedback.")] = None,
    max_drop: Annotated[float, typer.Option(min=0.0, help="Points that may be lost on the eval rows.")] = 1.0,
    min_labels: Annotated[int, typer.Option(min=1, help="Fewest new labelled rows to begin with.")] = 50,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs; all are trained.")] = 2,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step.")] = 32,
    seed: Seed = 0,
    strict: Strict = False,
    new_labels: Annotated[
        bool, typer.Option("--new-labels/--no-new-labels", help="Whether labels nobody knows yet become classes.")
    ] = True,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    pair_column: PairColumn = None,
    allow_similar_labels: AllowSimilar = False,
    as_json: Json = False,
) -> None:
    """Train a challenger on new labels.

    It goes live only if it beats the live version. New labels come from the feedback in the log and from --labels.

    \b
    Examples:
      plumbline retrain --repo models --name reviews --log log \\
        --train train.csv --eval eval.csv
    """
    from dataclasses import replace

    from export.preconditions import check_log, check_trainable, check_writable
    from service.contract.repository import live_bundle
    from service.tasks.of_bundle import task_of

    task = task_of(live_bundle(repo, name).manifest)
    check_trainable(task)
    check_writable(repo / name, "--repo")
    if labels is None:
        check_log(log)
    reading = Reading(text_column, label_column, pair_column, allow_similar_labels)
    files = _rows([train, eval_, *([labels] if labels else [])], reading, several=task.several)
    _share_the_processor()
    from export import retrain as module
    from export.data.retraining import Policy

    recipe = replace(module.DEFAULT, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed)
    try:
        done = module.retrain(
            repo,
            name,
            log,
            files[0],
            files[1],
            labels=files[2] if labels else None,
            recipe=recipe,
            max_drop=max_drop,
            min_labels=min_labels,
            strict=strict,
            policy=Policy(new_labels=new_labels, similar_labels=allow_similar_labels),
        )
    except module.Rejected as rejected:
        print_retrained(rejected.outcome, as_json=as_json)
        raise
    print_retrained(done, as_json=as_json)


def _rows(paths: list[Path], reading: Reading, *, several: bool = False, told: bool = True) -> list[Dataset]:
    """The files' rows; with ``several`` the task is known to give a row any number of labels, or none.

    Without ``told`` texts alone are read.
    """
    from export.data.labels import read_labelled, read_unlabelled

    if not told:
        return read_unlabelled(paths, text_column=reading.text_column)
    return read_labelled(
        paths,
        text_column=reading.text_column,
        label_column=reading.label_column,
        pair_column=reading.pair_column,
        allow_similar=reading.allow_similar_labels,
        several_labels=several,
    )


def _seconds(duration: str) -> float:
    """Seconds of a duration such as ``90s``, ``10m`` or ``1.5h``. :raises InvalidInput: if it is none."""
    from service.contract.errors import InvalidInput

    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", duration.strip())
    if found is None:
        raise InvalidInput(f"{duration!r} is not a duration; give a number and a unit, as 90s, 10m or 1h.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def _share_the_processor() -> None:
    """Let idle threads sleep: those of PyTorch's OpenMP spin, and beside a busy server training then crawls.

    Read when PyTorch is first imported, so it must come before.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
