"""Everything that depends on the task, without PyTorch: tokens in, answers out. ``export.tasks`` has the other half.

One more task is one more class with the methods of :class:`service.tasks.task.Task`, and its line in ``TASKS``.
"""

from collections.abc import Mapping
from typing import Any

from service.contract.errors import BundleError
from service.tasks.embeddings import Embeddings
from service.tasks.multi_label import MultiLabel
from service.tasks.regression import Regression
from service.tasks.single_label import SingleLabel
from service.tasks.task import Task
from service.tasks.token_classification import TokenClassification

__all__ = ["EMBEDDINGS", "MULTI_LABEL", "REGRESSION", "SINGLE_LABEL", "TASKS", "TOKENS", "Task", "task_named"]

SINGLE_LABEL, MULTI_LABEL, REGRESSION = SingleLabel(), MultiLabel(), Regression()
TOKENS, EMBEDDINGS = TokenClassification(), Embeddings()
TASKS: dict[str, Task] = {task.name: task for task in (SINGLE_LABEL, MULTI_LABEL, REGRESSION, TOKENS, EMBEDDINGS)}


def task_named(name: str, settings: Mapping[str, Any] | None = None) -> Task:
    """The task that a manifest names, with its settings.

    :raises BundleError: if this version knows none of that name, or not its settings.
    """
    known = TASKS.get(name)
    try:
        if known is not None:
            return type(known)(**settings) if settings else known
    except TypeError:
        known = None
    raise BundleError(
        f"the bundle is for the task {name!r}{f' with {dict(settings)}' if settings else ''}, and this version of "
        f"Plumbline knows {', '.join(TASKS)}. Serve it with the version that made it."
    )
