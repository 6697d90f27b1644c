"""How bad a window is, by its consequence and not by how far anything moved.

``none``: like the reference. ``notice``: something moved, and accuracy seems to hold. ``warning``: accuracy may
suffer, or cannot be told. ``critical``: accuracy is below the reference's by more than the tolerance, or the input is
broken. Labels, where there are enough, outrank the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from monitoring.judging.accuracy import Estimate
from service.contract.events import Signal

Severity = Literal["none", "notice", "warning", "critical"]
LEVEL: dict[Severity, int] = {"none": 0, "notice": 1, "warning": 2, "critical": 3}


def severity_of(
    signals: Sequence[Signal],
    reference: float | None,
    estimate: Estimate | None,
    labelled: float | None,
    tolerance: float,
) -> tuple[Severity, str]:
    """The severity, and why in words.

    :param reference: accuracy measured on the reference.
    :param labelled: lower confidence bound of the accuracy by labels that came back since inputs moved.
    :param tolerance: share of answers; how much accuracy may be lost.
    """
    drifted = {signal.name: signal.direction for signal in signals if signal.drifted}
    if not drifted:
        return "none", "nothing drifted"
    if "constant" in drifted:
        return "critical", f"the input is broken: {drifted['constant']}"
    if "accuracy" in drifted:
        return "critical", f"labels say that accuracy fell: {drifted['accuracy']}"
    if reference is not None and labelled is not None and labelled >= reference - tolerance:
        return "notice", f"labels say that accuracy holds: at least {labelled:.3f}, {reference:.3f} on the reference"
    if reference is None or estimate is None:
        return "warning", "accuracy cannot be told: there are no labels or no confidence to estimate it from"
    said = f"{estimate.accuracy:.3f}, {reference:.3f} on the reference"
    if estimate.doubt is not None:
        return "warning", f"accuracy cannot be told: {estimate.doubt}"
    if estimate.high < reference - tolerance:
        return "critical", f"accuracy is estimated to have fallen: {said}"
    if estimate.accuracy < reference - tolerance:
        return "warning", f"accuracy may have fallen: estimated {said}"
    return "notice", f"accuracy seems to hold: estimated {said}"
