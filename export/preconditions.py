"""What a command was given, checked before PyTorch and transformers are imported: that alone takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

from service.contract.errors import InvalidInput
from service.contract.user import this_user
from service.tasks import Task


def check_out(out: Path) -> None:
    """:raises InvalidInput: if a checkpoint cannot be written there, or something else is there already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput(f"{out} exists and is not an empty folder. Give another --out, or remove it.")
    check_writable(out.parent, "--out")


def check_writable(folder: Path, option: str) -> None:
    """:raises InvalidInput: if nothing can be written in ``folder``, which need not exist yet."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        raise InvalidInput(f"{folder} cannot be written: {there} is a file. Give another {option}.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InvalidInput(
            f"{folder} cannot be written: {there} does not let {this_user()} write. Give another {option}, or mount "
            "its volume writable."
        )


def check_log(log: Path) -> None:
    """:raises InvalidInput: if there is no folder of requests and feedback."""
    if not log.is_dir():
        raise InvalidInput(f"there is no log at {log}. Give the folder that `plumbline serve --log` writes.")


def check_trainable(task: Task) -> None:
    """:raises InvalidInput: if such models are not trained here."""
    if task.vector:
        raise InvalidInput(
            "embeddings are not trained here: train the model with sentence-transformers, and export the folder."
        )
