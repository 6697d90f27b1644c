"""What a smaller model probably costs in accuracy, from few rows.

A thousand labelled rows tell the difference of two accuracies to half a point, about what may be lost. But where the
smaller model answers otherwise, the checkpoint itself says how likely each of the two answers is: a flip between two
that it finds equally likely costs nothing on average. So with its probabilities calibrated by a temperature (Guo et
al. 2017, "On Calibration of Modern Neural Networks") the expected difference is known a few times as exactly, as far as
what made the model smaller knows nothing of the labels that the checkpoint does not. Both accounts are weighed by their
errors; the second one's is taken to be at least half of what it says. Where all answers are the same nothing is lost.

Measured on models cut and reconstructed without recovery, search rows against 3,000 others of CLINC150: the labels of
1,000 rows said -0.50, -1.40, -2.20 and -3.20 points, the checkpoint's probabilities for the same rows -0.79, -1.35,
-1.86 and -2.54, and the labels of the others -0.57, -1.50, -2.13 and -3.00 (standard errors 0.25 to 0.40).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from export.tasks import training_of
from export.tasks.training import Logits
from service.tasks import Task

_DOUBT = 0.5  # the least error of what the probabilities say, as a share of it
_LOG_TEMPERATURES = (-3.0, 3.0)

Booleans = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A difference in points and its standard error."""

    points: float
    error: float


@dataclass(frozen=True)
class Judge:
    """The checkpoint as a judge of other answers to the same rows.

    :param wanted: its (n, labels) logits. :param has: (n, labels), whether a row has a label; None where its answers
        have no probabilities, and only the labels can judge.
    """

    wanted: Logits
    has: Booleans | None
    task: Task

    def of_units(self, units: npt.NDArray[np.intp]) -> Judge:
        """The same for some of the rows of its logits only."""
        return Judge(self.wanted[units], None if self.has is None else self.has[units], self.task)

    def estimate(self, logits: Logits, labelled: Estimate) -> Estimate:
        """How much more accurate ``logits`` are than the checkpoint's; ``labelled`` is what the labels say of it."""
        if self.has is None:
            return labelled
        if np.array_equal(self._predicted(logits), self._predicted(self.wanted)):
            return Estimate(0.0, 0.0)
        gains = 100 * (self._chances(logits) - self._chances(self.wanted))
        points = float(gains.mean())
        variance = float(gains.var() / len(gains) + (_DOUBT * points) ** 2)
        share = labelled.error**2 / (labelled.error**2 + variance)
        return Estimate(share * points + (1 - share) * labelled.points, math.sqrt(share * variance))

    @cached_property
    def temperature(self) -> float:
        """What the checkpoint's logits are divided by, so that they explain the rows' labels best."""

        has = self.has
        assert has is not None

        def surprise(log_temperature: float) -> float:
            return -float(self._log_chances(has, math.exp(log_temperature)).mean())

        return math.exp(minimize_scalar(surprise, bounds=_LOG_TEMPERATURES, method="bounded").x)

    def _chances(self, logits: Logits) -> Doubles:
        """(n,) how likely each predicted label, or set of labels, is right by the checkpoint's probabilities."""
        return np.exp(self._log_chances(self._predicted(logits), self.temperature))

    def _predicted(self, logits: Logits) -> Booleans:
        """(n, labels), whether each label is predicted."""
        return self.task.decided(self.task.probabilities(logits))

    def _log_chances(self, has: Booleans, temperature: float) -> Doubles:
        """(n,) log-probabilities that rows have exactly these of the (n, labels)."""
        likelihood = training_of(self.task).likelihood
        assert likelihood is not None, "without probabilities nothing is calibrated"
        return likelihood.log_chances(self.wanted.astype(np.float64) / temperature, has)
