"""What a reader of a card should be careful with."""

from __future__ import annotations

from collections.abc import Callable

from service.card.facts import chosen, fp32_row, served_row
from service.contract.bundle import Manifest, Quality
from service.contract.hardware import saturates

BATCH_FLIPS = 0.005
CALIBRATION_GROWTH = 0.02
_CLASS_DROP, _CLASS_ROWS = 0.10, 30
_NAMED = 5
_SEARCH_ROWS = 200


def warnings_of(manifest: Manifest, here: str | None = None) -> list[str]:
    """One sentence for each thing to be careful with, the gravest kinds first.

    ``here`` is the instruction set of the machine where this is read, if the model may be served there.
    """
    qualities = manifest.quality.items()
    found = [warning for name, quality in qualities for warning in _quality(name, quality, manifest.unproven)]
    rules: tuple[Callable[[Manifest], list[str]], ...] = (_fallback, _no_faster, _search)
    return [*found, *(warning for rule in rules for warning in rule(manifest)), *elsewhere(manifest, here)]


def _quality(name: str, quality: Quality, unproven: bool) -> list[str]:
    found = []
    if quality.verdict == "fail":
        found.append(f"{name}: the accuracy gate failed; do not serve this.")
    if quality.verdict == "inconclusive" and unproven:
        found.append(
            f"{name}: unproven. {quality.rows} rows could not show that at most {quality.max_drop:g} points were lost, "
            "nor that more were."
        )
    if quality.exported <= quality.majority:
        found.append(f"{name}: no better than the same answer to every text, which scores {quality.majority:.4f}.")
    if quality.trained_on:
        found.append(
            f"{name}: {quality.trained_on} eval rows also occur in the training data; they did not judge. Rows that "
            "are alike but not the same may flatter the figures."
        )
    if quality.missed:
        labels = [f"{label} ({rows} rows)" for label, rows in quality.missed.items()]
        found.append(f"{name}: never right on {_some(labels)}.")
    if quality.batch_flip_rate > BATCH_FLIPS:
        found.append(
            f"{name}: {quality.batch_flip_rate:.2%} of the labels change when a text is batched with others. Answers "
            "of a busy server differ from those of a quiet one."
        )
    calibration = quality.calibration
    if calibration and calibration.exported - calibration.baseline > CALIBRATION_GROWTH:
        found.append(
            f"{name}: the confidence can be trusted less than the checkpoint's; its calibration error grew from "
            f"{calibration.baseline:.3f} to {calibration.exported:.3f}. Set thresholds on it anew."
        )
    fallen = [
        f"{label} ({one.baseline:.2f} -> {one.exported:.2f} on {one.rows} rows)"
        for label, one in quality.classes.items()
        if one.rows >= _CLASS_ROWS and one.baseline - one.exported >= _CLASS_DROP
    ]
    if fallen:
        found.append(f"{name}: the recall of some labels fell by 10 points or more: {_some(fallen)}.")
    return found


def _some(named: list[str]) -> str:
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


def _fallback(manifest: Manifest) -> list[str]:
    variant = manifest.variants.get("cpu")
    if variant is None or variant.precision != "fp32":
        return []
    return ["cpu: nothing is quantized; the model is served in fp32, which was preferred to every int8 model tried."]


def _no_faster(manifest: Manifest) -> list[str]:
    if "cpu" not in manifest.variants or manifest.variants["cpu"].precision == "fp32":
        return []
    row, whole = served_row(manifest, "cpu"), fp32_row(manifest)
    if row is None or whole is None or row.p50_ms < whole.p50_ms:
        return []
    return [
        f"cpu: {manifest.variants['cpu'].precision} is no faster than fp32 on this processor ({row.p50_ms:.2f} against "
        f"{whole.p50_ms:.2f} ms); only the size speaks for it."
    ]


def _search(manifest: Manifest) -> list[str]:
    search, choice = manifest.search, chosen(manifest)
    if search is None:
        return []
    found = []
    if search.rows < _SEARCH_ROWS:
        found.append(f"cpu: the candidates were compared on {search.rows} rows only; another draw may favour another.")
    if choice and choice.estimate < -search.max_drop:
        found.append(
            f"cpu: the chosen model is expected to lose {-choice.estimate:.2f} points, more than the "
            f"{search.max_drop:g} allowed; none that was fast enough loses less."
        )
    return found


def elsewhere(manifest: Manifest, here: str | None) -> list[str]:
    """What int8 means on a processor with another instruction set than the measured one, onnxruntime#6004."""
    variant = manifest.variants.get("cpu")
    if variant is None or variant.precision != "int8":
        return []
    measured = variant.instruction_set
    if here == measured:
        return []
    if saturates(measured):
        risk = "its weights keep to 7 bits, so that nothing can overflow elsewhere either; the times will differ"
    elif here is not None and not saturates(here):
        risk = "8-bit products are exact here too; the times will differ"
    else:
        risk = (
            "on an x86 processor without VNNI its 8-bit products can overflow, which changes answers, and it is "
            "slower. Export on the kind of processor that serves"
        )
    place = f"; this machine has {here}" if here else ""
    return [f"cpu: accuracy and speed were measured on {measured}{place}: {risk}."]
