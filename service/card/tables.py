"""The tables of a card. Cells are finished text."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from service.card.facts import fp32_row, ranked, served_row, times_as_fast
from service.contract.bundle import Challenge, ClassChange, Latency, Manifest, Search, VariantName
from service.tasks.of_bundle import task_of

_BRIEF_CLASSES = 10
_DIVERGENCE = "divergence"


@dataclass(frozen=True)
class Table:
    """A titled table. ``align`` has an ``l`` or ``r`` per column; ``marked`` are rows to stand out.

    ``note`` says how to read it. Where there is little room, as in a terminal, the columns in ``spare`` are left out
    and all rows after ``brief``.
    """

    title: str
    columns: tuple[str, ...]
    align: str
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    marked: frozenset[int] = frozenset()
    brief: int | None = None
    spare: frozenset[int] = frozenset()


def challenge_table(challenge: Challenge) -> Table:
    """How a retrained version did against the one that was live."""
    figures = [(_words(name), _plain(value)) for name, value in challenge.figures.items()]
    reasons = [("reason", reason) for reason in challenge.reasons]
    answer = "accepted" if challenge.accepted else "rejected"
    title = f"Against version {challenge.champion.version}: {answer}"
    return Table(title, ("judgement", "figures"), "ll", (*reasons, *figures))


def candidate_table(search: Search) -> Table:
    """Everything that the search tried, from fast to slow."""
    columns = (
        "#",
        "candidate",
        "",
        "p50, ms",
        "95 % interval",
        "p95, ms",
        search.metric,
        "points",
        "95 % bound",
        "expected",
        "size, MB",
        _DIVERGENCE,
    )
    order = ranked(search)
    rows = tuple(
        (
            str(rank),
            one.name,
            "chosen" if one.chosen else "front" if one.front else "",
            f"{one.p50_ms:.2f}",
            _range(one.p50_range_ms),
            f"{one.p95_ms:.2f}",
            f"{one.accuracy:.4f}",
            f"{one.difference:+.2f}",
            f"{one.lower_bound:+.2f}",
            f"{one.estimate:+.2f} ± {one.estimate_error:.2f}",
            f"{one.bytes / 1e6:.1f}",
            f"{one.divergence:.4f}",
        )
        for rank, one in enumerate(order, 1)
    )
    note = (
        f"On {search.rows:,} search rows. Points are against the checkpoint ({search.baseline:.4f}), of which "
        f"{search.max_drop:g} may be lost; the bound is the lower one, one-sided. Expected, with its standard error, "
        "is what the choice rests on: the points on other rows, by the labels of these and by how likely the "
        "checkpoint finds each answer that changed. Front: none is both faster and more accurate. Divergence is "
        "that of all answers from the checkpoint's: of probabilities Kullback and Leibler's, in nats; of numbers the "
        "mean square; of vectors 1 less the cosine."
    )
    marked = frozenset(row for row, one in enumerate(order) if one.chosen)
    left_out = {"95 % interval", "p95, ms", search.metric, _DIVERGENCE}
    spare = frozenset(column for column, name in enumerate(columns) if name in left_out)
    return Table("Candidates", columns, "rllrrrrrrrrr", rows, note, marked, spare=spare)


def latency_table(manifest: Manifest) -> Table:
    """What is served beside the baselines, measured in one run."""
    whole = fp32_row(manifest)
    served = [served_row(manifest, name) for name in manifest.variants]
    rows = tuple(
        (
            one.name,
            f"{one.p50_ms:.2f}",
            _range(one.p50_range_ms),
            f"{one.p95_ms:.2f}",
            f"{one.bytes / 1e6:.1f}",
            _ratio(one, whole),
        )
        for one in manifest.latency
    )
    settings = dict.fromkeys(
        f"Batch {one.batch}, {one.threads} thread{'s' if one.threads != 1 else ''}, {one.tokens} tokens (median), "
        f"{one.hardware}"
        for one in manifest.latency
    )
    marked = frozenset(row for row, one in enumerate(manifest.latency) if one in served)
    columns = ("model", "p50, ms", "95 % interval", "p95, ms", "size, MB", "speed against fp32")
    return Table("Speed and size", columns, "lrrrrr", rows, "; ".join(settings) + ".", marked)


def _begun_small(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def quality_table(manifest: Manifest) -> Table:
    """The gate's figures, a column per variant."""
    qualities = manifest.quality.values()
    rows: list[tuple[str, ...]] = [
        ("verdict", *(one.verdict for one in qualities)),
        ("metric", *(one.metric for one in qualities)),
        (_begun_small(task_of(manifest).trivial), *(f"{one.majority:.4f}" for one in qualities)),
        ("checkpoint", *(f"{one.baseline:.4f}" for one in qualities)),
        ("exported", *(f"{one.exported:.4f}" for one in qualities)),
        ("difference, points", *(f"{one.difference:+.2f}" for one in qualities)),
        ("one-sided 95 % bound", *(f"{one.lower_bound:+.2f}" for one in qualities)),
        ("allowed", *(f"-{one.max_drop:g}" for one in qualities)),
        ("rows", *(f"{one.rows:,}" for one in qualities)),
        ("labels that differ from the checkpoint's", *(f"{one.flips:,}" for one in qualities)),
        ("labels that change in a batch", *(f"{one.batch_flip_rate:.2%}" for one in qualities)),
    ]
    calibrations = [one.calibration for one in qualities]
    note = ""
    if any(calibrations):
        rows += [
            ("calibration error, checkpoint", *(f"{one.baseline:.3f}" if one else "" for one in calibrations)),
            ("calibration error, exported", *(f"{one.exported:.3f}" if one else "" for one in calibrations)),
        ]
        bins = next(one.bins for one in calibrations if one)
        note = (
            f"Calibration error: how far confidence and accuracy lie apart on average, over {bins} bins of confidence."
        )
    return Table(
        "Quality: what is served against its checkpoint",
        ("", *manifest.quality),
        "l" + "r" * len(manifest.quality),
        tuple(rows),
        note,
    )


def class_tables(manifest: Manifest) -> list[Table]:
    """Recall by label, a table per variant that has it."""
    several = len(manifest.quality) > 1
    return [
        _classes(quality.classes, name if several else None)
        for name, quality in manifest.quality.items()
        if quality.classes
    ]


def stage_table(manifest: Manifest) -> Table:
    """The pipeline in order. Lists and what is nested deeper stand in the manifest only."""
    rows = tuple(
        (
            one.name,
            f"{one.seconds:.1f}" if one.applied else "skipped",
            "; ".join(f"{_words(key)}: {_plain(value)}" for key, value in one.details.items() if _is_short(value)),
        )
        for one in manifest.pipeline
    )
    return Table("How it was made", ("stage", "seconds", "details"), "lrl", rows)


def source_table(manifest: Manifest) -> Table:
    """What it takes to make it again."""
    source = manifest.source
    arguments = [(_words(name), _plain(value)) for name, value in source.arguments.items()]
    rows = (("seed", str(source.seed)), *arguments, *source.libraries.items())
    return Table("With what", ("name", "value"), "ll", rows)


def _classes(classes: dict[str, ClassChange], variant: VariantName | None) -> Table:
    rows = tuple(
        (
            label,
            f"{one.rows:,}",
            f"{one.baseline:.3f}",
            f"{one.exported:.3f}",
            f"{100 * (one.exported - one.baseline):+.1f}",
        )
        for label, one in classes.items()
    )
    title = "Recall by label" + (f", {variant}" if variant else "")
    note = "Most changed first, and at most 50; on few rows a change says little."
    return Table(
        title, ("label", "rows", "checkpoint", "exported", "points"), "lrrrr", rows, note, brief=_BRIEF_CLASSES
    )


def _range(bounds: tuple[float, float] | None) -> str:
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else ""


def _ratio(row: Latency, whole: Latency | None) -> str:
    ratio = times_as_fast(row, whole) if whole else None
    return f"{ratio:.2f}x" if ratio else ""


def _words(name: str) -> str:
    return name.replace("_", " ")


def _is_short(value: JsonValue) -> bool:
    if isinstance(value, dict):
        return not any(isinstance(one, dict | list) for one in value.values())
    return not isinstance(value, list)


def _plain(value: JsonValue) -> str:
    """A value as people write it, one level of nesting deep."""
    if isinstance(value, dict):
        return ", ".join(f"{_words(key)} {_plain(one)}" for key, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
