"""The report that a person reads: Evidently's charts under our verdict, as HTML and JSON.

The only module that imports Evidently, and only when the first report is written: the import takes seconds.
Evidently's own drift tests are not calibrated, so each of its columns shows our signal's effect, threshold and
verdict, registered as a statistical test of its own; report and decision cannot disagree.
"""

from __future__ import annotations

import functools
import html
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from monitoring.signals.columns import texts_of
from service.card.page import badge, figures, page, table, verdict
from service.contract.events import DriftData, Moved, Signal
from service.contract.features import words
from service.contract.files import write_atomic
from service.contract.redact import Redactor
from service.tasks import SINGLE_LABEL, Task

CATEGORICAL = ("label",)
NUMERICAL = ("confidence", "n_tokens", "unk_share")
_SAMPLE = 5000  # rows of each side that charts are drawn from
_EXAMPLES = 8
_LONGEST = 300  # characters of an example


def write_report(
    folder: Path,
    name: str,
    reference: pa.Table,
    window: pa.Table,
    data: DriftData,
    keep: int,
    task: Task = SINGLE_LABEL,
) -> Path:
    """Write ``folder/<name>.html`` and ``.json``, remove all but the newest ``keep``; returns the HTML's path.

    Raises whatever Evidently or the disk raises: the caller goes on without a report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content, numbers = render(_with_labels(reference, task), _with_labels(window, task), data)
    target = folder / f"{name}.html"
    write_atomic(folder / f"{name}.json", orjson.dumps({"verdict": data.model_dump(mode="json"), "evidently": numbers}))
    write_atomic(target, content)
    pages = sorted(folder.glob("*.html"), key=lambda page: (page.stat().st_mtime_ns, page.name), reverse=True)
    for old in pages[keep:]:
        old.unlink(missing_ok=True)
        old.with_suffix(".json").unlink(missing_ok=True)
    return target


def _with_labels(table: pa.Table, task: Task) -> pa.Table:
    """The table with the classes in its answers in place of these, which may say more, as where an entity is."""
    if not task.categorical or "label" not in table.column_names:
        return table
    found = [None if one is None else task.as_labels(one) for one in table.column("label").to_pylist()]
    return table.set_column(table.column_names.index("label"), "label", pa.array(found, pa.string()))


def render(reference: pa.Table, window: pa.Table, data: DriftData) -> tuple[bytes, Any]:
    """The report as an HTML page and as Evidently's own JSON document."""
    evidently = _evidently()
    signals = {signal.name: signal for signal in data.signals}
    columns = [name for name in (*CATEGORICAL, *NUMERICAL) if name in signals]
    metrics: list[Any] = [
        evidently.RowCount(tests=[]),  # its default test wants as many rows as the reference has
        *(
            evidently.ValueDrift(
                column=name,
                method=evidently.register(signals[name]),
                threshold=signals[name].effect_threshold,
            )
            for name in columns
        ),
    ]
    definition = evidently.DataDefinition(
        categorical_columns=[name for name in columns if name in CATEGORICAL],
        numerical_columns=[name for name in columns if name in NUMERICAL],
    )
    sides = [
        evidently.Dataset.from_pandas(_frame(table, columns), data_definition=definition)
        for table in (window, reference)
    ]
    snapshot = evidently.Report(metrics, include_tests=True).run(current_data=sides[0], reference_data=sides[1])
    charts: str = snapshot.get_html_str(as_iframe=False)
    return report_page(window, data, charts).encode(), orjson.loads(snapshot.json())


def _frame(table: pa.Table, columns: list[str]) -> Any:
    """The columns as plain object and float64 columns: Evidently skips Arrow's and nullable types."""
    import pandas as pd

    step = max(1, table.num_rows // _SAMPLE)
    frame = {
        name: pd.Series(table.column(name).to_pylist()[::step], dtype="object" if name in CATEGORICAL else "float64")
        for name in columns
    }
    return pd.DataFrame(frame) if frame else pd.DataFrame({"row": range(table.num_rows)})


class _Evidently:
    """The names used of Evidently, imported once."""

    def __init__(self) -> None:
        os.environ["DO_NOT_TRACK"] = "1"  # read on import
        from evidently import DataDefinition, Dataset, Report
        from evidently.legacy.calculations.stattests import registry
        from evidently.legacy.core import ColumnType
        from evidently.metrics import RowCount, ValueDrift

        self.DataDefinition, self.Dataset, self.Report = DataDefinition, Dataset, Report
        self.RowCount, self.ValueDrift = RowCount, ValueDrift
        self._registry, self._types = registry, [ColumnType.Categorical, ColumnType.Numerical]

    def register(self, signal: Signal) -> str:
        """Register a test that answers with this signal's effect and verdict; returns its name."""
        test = self._registry.StatTest(
            name=f"plumbline_{signal.name}",
            display_name=f"{signal.method}: effect (p = {signal.p_value:.2g} of {signal.alpha:g})",
            allowed_feature_types=self._types,
            default_threshold=signal.effect_threshold,
        )
        self._registry.register_stattest(test, default_impl=_answer(signal))
        return str(test.name)


@functools.cache
def _evidently() -> _Evidently:
    return _Evidently()


def _answer(signal: Signal) -> Callable[[Any, Any, Any, float], tuple[float, bool]]:
    def answer(_reference: Any, _window: Any, _kind: Any, _threshold: float) -> tuple[float, bool]:
        return signal.effect, signal.drifted

    return answer


def report_page(window: pa.Table, data: DriftData, charts: str) -> str:
    """Our verdict, then Evidently's page in a frame of its own: it needs scripts, and is wider than a phone."""
    model = data.model
    frame = (
        "<h2>Distributions</h2>\n<p class='note'>Drawn by Evidently; effects, thresholds and verdicts are ours.</p>\n"
        f'<iframe title="Distributions, drawn by Evidently" sandbox="allow-scripts" height="1400" '
        f'srcdoc="{html.escape(charts)}"></iframe>'
    )
    title = f"{_HEADINGS[data.severity]}: {model.model} version {model.version}"
    return page(title, [*verdict_html(data), *_examples(window, data), frame], heading=html.escape(title))


_HEADINGS = {"none": "No drift", "notice": "Moved", "warning": "Drift", "critical": "Critical"}


def verdict_html(data: DriftData) -> Iterator[str]:
    """Our verdict as HTML; every text from outside is escaped."""
    window = data.window
    drifted = ", ".join(signal.name for signal in data.signals if signal.drifted) or "nothing"
    yield f"<p>{verdict(data.severity)} {html.escape(drifted)} drifted. {html.escape(data.reason)}</p>"
    shown = [(f"{window.rows}", f"requests until {window.end:%Y-%m-%d %H:%M} UTC")]
    if data.accuracy_reference is not None:
        shown.append((f"{data.accuracy_reference:.3f}", "accuracy measured on the reference"))
    if data.accuracy_estimated is not None:
        what = "accuracy estimated here, from confidence"
        if data.accuracy_interval is not None:
            what += f", {data.accuracy_interval[0]:.3f} to {data.accuracy_interval[1]:.3f}"
        shown.append(
            (f"{data.accuracy_estimated:.3f}", what + ("" if data.accuracy_trusted else "; not to be trusted"))
        )
    yield figures(shown)
    yield (
        f"<p class='note'>From {window.start:%Y-%m-%d %H:%M:%S} to {window.end:%Y-%m-%d %H:%M:%S} UTC, against the "
        f"reference of digest {html.escape(data.model.digest[:12])}. A signal has drifted if its effect and its "
        "corrected p-value both pass.</p>"
    )
    columns = ("signal", "", "effect", "counts from", "p", "alpha", "direction", "test")
    rows = [
        (
            html.escape(one.name),
            badge("drifted", "bad") if one.drifted else "",
            f"{one.effect:.3f}",
            f"{one.effect_threshold:.3f}",
            f"{one.p_value:.2g}",
            f"{one.alpha:g}",
            html.escape(one.direction),
            html.escape(one.method),
        )
        for one in data.signals
    ]
    yield table(columns, rows, right=[2, 3, 4, 5])
    yield _moved_html("Words that moved most", data.tokens)
    yield _moved_html("Labels that moved most", data.labels)


def _moved_html(title: str, rows: tuple[Moved, ...]) -> str:
    if not rows:
        return ""
    cells = [
        (html.escape(row.value) or "(none)", f"{row.reference_share:.1%}", f"{row.window_share:.1%}") for row in rows
    ]
    return f"<h2>{title}</h2>\n{table(('', 'reference', 'window'), cells, right=[1, 2])}"


def _examples(window: pa.Table, data: DriftData) -> list[str]:
    """Texts of the window that hold most of the words that became more frequent."""
    more = {row.value for row in data.tokens if row.window_share > row.reference_share}
    if not more or "text" not in window.column_names:
        return []
    redact = Redactor()
    texts = [text for text in dict.fromkeys(texts_of(window)) if text]
    scored = [(len(more & set(words(text))), redact(text)) for text in texts]
    best = [text for score, text in sorted(scored, key=lambda one: -one[0])[:_EXAMPLES] if score]
    if not best:
        return []
    quotes = "".join(f"<blockquote>{html.escape(text[:_LONGEST])}</blockquote>" for text in best)
    return [f"<h2>Texts that carry it</h2>\n<p class='note'>As they were logged, redacted.</p>\n{quotes}"]
