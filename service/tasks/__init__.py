"""Everything that depends on the task, without PyTorch: tokens in, answers out. ``export.tasks`` has the other half.

One more task is one more class with the methods of :class:`service.tasks.task.Task`, and its line in ``TASKS``.
"""

from service.contract.errors import BundleError
from service.tasks.multi_label import MultiLabel
from service.tasks.single_label import SingleLabel
from service.tasks.task import Task

__all__ = ["MULTI_LABEL", "SINGLE_LABEL", "TASKS", "Task", "task_named"]

SINGLE_LABEL, MULTI_LABEL = SingleLabel(), MultiLabel()
TASKS: dict[str, Task] = {task.name: task for task in (SINGLE_LABEL, MULTI_LABEL)}


def task_named(name: str) -> Task:
    """The task that a manifest names. :raises BundleError: if this version knows none of that name."""
    if name not in TASKS:
        raise BundleError(
            f"the bundle is for the task {name!r}, and this version of Plumbline knows {', '.join(TASKS)}. "
            "Serve it with the version that made it."
        )
    return TASKS[name]
