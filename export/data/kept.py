"""The rows that a retrain trained on, kept in the repository: ``MODELS/<name>/rows/<digest>.jsonl``.

No user has them as a file, for they are a mixture of old rows and of what the log held then. They are wanted by
``plumbline reproduce`` only, and may be deleted. Serving ignores the folder.
"""

from __future__ import annotations

from pathlib import Path

from service.contract.dataset import Dataset, jsonl_lines
from service.contract.files import write_atomic
from service.contract.repository import check_name


def rows_file(root: Path, name: str, digest: str) -> Path:
    """Where the repository keeps the rows with this digest, see ``export.pipeline.data_arguments``."""
    return root / check_name(name) / "rows" / f"{digest[:16]}.jsonl"


def keep_rows(root: Path, name: str, rows: Dataset, digest: str) -> Path:
    """Write the rows there, if they are not there yet."""
    file = rows_file(root, name, digest)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, b"".join(jsonl_lines(rows)))
    return file
