"""The newest judged drift window of a model, ``LOG/<model>/drift.json``: the monitor writes it, the server shows it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from service.contract.errors import InvalidInput
from service.contract.events import DriftData
from service.contract.files import write_atomic
from service.contract.repository import check_name

LAST_WINDOW = "drift.json"


def write_last_window(log: Path, data: DriftData) -> None:
    """Replace the model's file. :raises OSError: if the log cannot be written."""
    write_atomic(log / check_name(data.model.model) / LAST_WINDOW, data.model_dump_json(by_alias=True).encode() + b"\n")


def read_last_window(log: Path, model: str) -> DriftData | None:
    """What was last judged, or None if nothing was. :raises InvalidInput: if the file cannot be read."""
    path = log / check_name(model) / LAST_WINDOW
    try:
        return DriftData.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {error}. The monitor writes it anew with its next window."
        ) from error
