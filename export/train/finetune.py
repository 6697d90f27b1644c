"""Fine-tune a base checkpoint on labelled texts with transformers' Trainer."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import huggingface_hub.constants
import numpy as np
import numpy.typing as npt
import orjson
import torch
import transformers
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from export.checkpoint.load import NOTE, checkpoint_digest, new_folder, resolve_base
from export.checkpoint.tokenizer import CheckpointTokenizer, length_limit, load_tokenizer, pad_token, vocabulary_rows
from export.data.labels import check_labels, task_of
from export.errors import CheckpointError, disk_full_named
from export.hardware import has_native_bfloat16
from export.inference.predict import own_logits, own_tokens
from export.preconditions import check_out
from export.progress import StopOnLoss, TrainingProgress, logging_share
from export.tasks import training_of
from export.tasks.scores import Scores, doubts
from export.train.head import load_classifier
from export.train.resume import KeepOnSignal, newest, training_folder, training_key
from export.train.rows import Rows, check_units, counted, padded
from export.train.teaching import Teaching, joined_targets, taught_loss, true_part
from service.contract.dataset import Dataset
from service.engine import usable_cores
from service.tasks import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How to train. ``keep`` says which epoch's weights: the ``best`` on the eval rows, or the ``last``.

    With ``best``, training stops after the first epoch whose eval loss is not lower than the lowest before, unless a
    teacher is followed. The loss says when over-fitting begins; the accuracy, which all later judgements use, often
    still gains in that epoch.
    """

    epochs: int = 3
    learning_rate: float = 5e-5
    batch_size: int = 32
    max_length: int = 128
    seed: int = 0
    keep: Literal["best", "last"] = "best"


@dataclass(frozen=True)
class Finetuned:
    """A checkpoint that was written and how it does on the eval rows."""

    checkpoint: Path
    base_model: str
    task: Task
    labels: tuple[str, ...]
    train_rows: int
    seconds: float
    scores: Scores
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "checkpoint": str(self.checkpoint),
            "task": self.task.name,
            "scores": self.scores.to_dict(),
        }


def finetune(
    base: str | None,
    train: Dataset,
    evaluation: Dataset,
    out: Path,
    recipe: Recipe = Recipe(),
    *,
    labels: Sequence[str] | None = None,
    known: Sequence[str] | None = None,
    task: Task | None = None,
    teaching: Teaching | None = None,
    resumable: bool = False,
) -> Finetuned:
    """Fine-tune ``base`` (a folder, a hub name, or None for the packaged MiniLM) and write a checkpoint to ``out``.

    ``labels`` and ``task`` default to what the training rows hold, labels sorted. A base that already classifies
    keeps the rows of its head for the labels that it shares; ``known`` names its rows in place of its config.json. With
    ``teaching`` the loss is the distance from a teacher's answers too. The folder appears whole or not at all. With
    ``resumable`` Ctrl-C keeps what was learnt beside ``out``, and the same call goes on from there.

    :raises Interrupted: after Ctrl-C, if ``resumable``.
    :raises DatasetError: for a single class, or an eval label that training does not have.
    :raises CheckpointError: for a base that cannot be loaded or has no fast tokenizer.
    :raises InvalidInput: if ``out`` exists and is not an empty folder.
    """
    check_out(out)
    task = (task or task_of(train, evaluation)).fitted(train.targets)
    training = training_of(task)
    labels = tuple(labels) if labels is not None else training.label_names(train.targets)
    check_labels(labels, task, train, what="training", source="the label set")
    check_labels(labels, task, evaluation, what="eval", source="the training data")
    started = time.monotonic()
    where, base_model, local = resolve_base(base)
    silence()
    transformers.set_seed(recipe.seed)
    tokenizer = load_tokenizer(where, local=local)
    model = load_classifier(where, labels, task, local=local, known=known)
    hf_tokenizer = _reading(where, model, tokenizer, recipe.max_length)
    with ExitStack() as stack:
        stack.enter_context(disk_full_named(out.parent))
        folder = stack.enter_context(new_folder(out))
        scratch = folder / "trainer"
        if resumable:
            key = training_key(
                [train, evaluation],
                recipe=asdict(recipe),
                base=checkpoint_digest(Path(where)) if Path(where).is_dir() else where,
                labels=labels,
                task=task.name,
                teacher=teaching.teacher if teaching else None,
                half=half_precision(),
                libraries=[torch.__version__, transformers.__version__],
            )
            scratch = stack.enter_context(training_folder(out, key))
        both = (train, evaluation)
        tokens = [own_tokens(hf_tokenizer, data, task) for data in both]
        targets = [training.encode(data.targets, labels, read) for data, read in zip(both, tokens, strict=True)]
        if teaching is not None:
            shown = (teaching.train, teaching.evaluation)
            check_units(where, targets, shown)
            targets = [joined_targets(truth, one, task) for truth, one in zip(targets, shown, strict=True)]
        rows = [Rows(hf_tokenizer, data, wanted, task) for data, wanted in zip(both, targets, strict=True)]
        again = f"The same command goes on from there; what was learnt is in {scratch}." if resumable else None
        _train(model, tokenizer, rows[0], rows[1], recipe, scratch, task, teaching, again)
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        model.train(False)
        logits = own_logits(model, hf_tokenizer, evaluation.texts)
        predicted = task.answers(task.probabilities(logits), labels, tokens[1])
        scores = training.scores(predicted, evaluation.targets, labels)
        note = {"base_model": base_model, "recipe": asdict(recipe), "train_rows": len(train)}
        note |= {"paired": train.paired, "eval": scores.to_dict()}
        if teaching is not None:
            note["teacher"] = teaching.teacher
        (folder / NOTE).write_bytes(orjson.dumps(note, option=orjson.OPT_INDENT_2))
    seconds = time.monotonic() - started
    logger.info("wrote %s: %s on %d eval rows, %.0f s", out, scores, scores.rows, seconds)
    found = doubts(scores, list(map(task.as_labels, train.targets)))
    for doubt in found:
        logger.warning("%s", doubt)
    return Finetuned(out, base_model, task, labels, len(train), seconds, scores, found)


def half_precision() -> bool:
    """Whether to multiply in bfloat16 (weights stay float32): where the processor or GPU does that natively.

    On such a processor a step takes a third of the time; elsewhere bfloat16 is emulated and slower than float32.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return has_native_bfloat16()


def silence() -> None:
    """Keep transformers from printing, and the hub client from reporting, what nobody asked for."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True


def _reading(
    where: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, max_length: int
) -> CheckpointTokenizer:
    """How to read texts in training, as they will be served; tokenizer and model are told, and saved with it.

    Rows are padded on the right, with the model's token for it, or where none is named (GPT-2) the one that ends texts.
    Tokens that were added to the tokenizer alone get embeddings.
    """
    limit = length_limit(model, tokenizer)
    if limit is not None and max_length > limit:
        logger.warning("%s takes %d tokens at most: texts are cut to that, not to %d", where, limit, max_length)
        max_length = limit
    if (known := max(tokenizer.get_vocab().values()) + 1) > (rows := vocabulary_rows(model)):
        logger.info("%s has embeddings for %d tokens and its tokenizer %d: new ones are made", where, rows, known)
        model.resize_token_embeddings(known, mean_resizing=False)
    if model.config.pad_token_id is None and tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise CheckpointError(f"{where} has no token for padding. Name one (pad_token) in tokenizer_config.json.")
        logger.info("%s has no token for padding: %r stands in", where, tokenizer.eos_token)
        tokenizer.pad_token = tokenizer.eos_token
    pad_id = pad_token(where, model, tokenizer)
    model.config.pad_token_id = pad_id
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_id)
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = max_length
    return CheckpointTokenizer(tokenizer, max_length, pad_id)


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    train: Rows,
    evaluation: Rows,
    recipe: Recipe,
    scratch: Path,
    task: Task,
    teaching: Teaching | None,
    again: str | None,
) -> None:
    """Train in place; ``scratch`` holds the epochs' weights meanwhile and is removed.

    With ``again``, what to say about going on, signals interrupt it, and it goes on from what ``scratch`` holds.
    """
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    best, half = recipe.keep == "best", half_precision()
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=64,
        weight_decay=0.01,
        warmup_steps=0.06,  # below 1: of all steps
        seed=recipe.seed,
        bf16=half,
        use_cpu=half and not torch.cuda.is_available(),  # else the Trainer looks for bfloat16 on a GPU only
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch" if best else "no",
        save_strategy="epoch" if best else "no",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=best,
        metric_for_best_model="eval_score" if best else None,
        logging_strategy="steps",
        logging_steps=logging_share(),
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    progress = TrainingProgress()
    # A student hardly over-fits a teacher's answers: its loss wavers while the rate is high, and falls with it.
    callbacks = [progress, *([] if teaching else [StopOnLoss()])]
    keeper = KeepOnSignal(arguments, again) if again is not None else None
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=partial(padded, collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8), task=task),
        compute_metrics=partial(_score, task=task),
        compute_loss_func=_loss(task, teaching),
        callbacks=[*callbacks, *([keeper] if keeper else [])],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    with warnings.catch_warnings(), keeper.listening() if keeper else nullcontext(), closing(progress):
        warnings.filterwarnings("ignore", message="mtime may not be reliable")  # it then goes by the step numbers
        trainer.train(resume_from_checkpoint=str(before) if (before := newest(scratch)) else None)
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # else it goes on to multiply in bfloat16
    shutil.rmtree(scratch, ignore_errors=True)


class _Trainer(Trainer):
    """Batches of texts of one length, drawn by seed and epoch alone: an interrupted epoch is the same again."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return _ByLength(self.args.train_batch_size, dataset=self.train_dataset, seed=self.args.seed)


class _ByLength(LengthGroupedSampler):
    def __init__(self, batch_size: int, *, dataset: Any, seed: int) -> None:
        super().__init__(batch_size, dataset=dataset, model_input_name="input_ids")
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each."""
        self.generator = torch.Generator().manual_seed(self._seed + epoch)


def _taught(outputs: Any, targets: torch.Tensor, task: Task, label_share: float, **_: Any) -> torch.Tensor:
    """The distance from a teacher's answers and the true ones."""
    return taught_loss(*counted(outputs["logits"], targets), task, label_share)


def _loss(task: Task, teaching: Teaching | None) -> Callable[..., torch.Tensor] | None:
    """As the Trainer calls for it; None for the model's own, which its ``problem_type`` names."""
    if teaching is not None:
        return partial(_taught, task=task, label_share=teaching.label_share)
    return partial(_told, task=task) if task.problem_type is None else None


def _told(outputs: Any, targets: torch.Tensor, task: Task, **_: Any) -> torch.Tensor:
    logits, truth = counted(outputs["logits"], targets)
    return training_of(task).summed_loss(logits.float(), truth) / max(1, len(truth))


def _score(found: EvalPrediction, task: Task) -> dict[str, float]:
    logits, targets = counted(np.asarray(found.predictions), np.asarray(found.label_ids))
    truth: npt.NDArray[Any] = true_part(targets, logits.shape[1]) if targets.ndim == 2 else targets
    return {"score": training_of(task).quality(logits, truth)}
