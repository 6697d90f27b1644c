"""Everything that depends on the task and needs PyTorch or scipy; ``service.tasks`` has the other half.

One more task is one more class with the methods of :class:`export.tasks.training.TrainingTask`, and its line here.
"""

from export.tasks.embeddings import EmbeddingsTraining
from export.tasks.multi_label import MultiLabelTraining
from export.tasks.regression import RegressionTraining
from export.tasks.single_label import SingleLabelTraining
from export.tasks.token_classification import TokenClassificationTraining
from export.tasks.training import TrainingTask
from service.tasks import Task

__all__ = ["TRAINING", "TrainingTask", "training_of"]

TRAINING = {
    one().task.name: one
    for one in (
        SingleLabelTraining,
        MultiLabelTraining,
        RegressionTraining,
        TokenClassificationTraining,
        EmbeddingsTraining,
    )
}


def training_of(task: Task) -> TrainingTask:
    """The half of a task that trains and judges."""
    return TRAINING[task.name](task)
