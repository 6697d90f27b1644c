"""What a bundle's manifest says about its task and how its texts are read."""

from __future__ import annotations

from service.contract.bundle import TOKENIZER, Bundle, Manifest
from service.tasks import Task, task_named
from service.tasks.tokenizer import TextTokenizer


def task_of(manifest: Manifest) -> Task:
    """The task with its settings. :raises BundleError: as :func:`service.tasks.task_named`."""
    return task_named(manifest.task, manifest.task_settings)


def tokenizer_of(bundle: Bundle) -> TextTokenizer:
    """How the bundle reads texts. :raises BundleError: if its tokenizer is damaged."""
    made = bundle.manifest
    return TextTokenizer(bundle.file(TOKENIZER), made.max_length, made.pad_id, placed=task_of(made).per_token)
