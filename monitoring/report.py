"""The report that a person reads: Evidently's charts under our verdict, as HTML and JSON.

The only module that imports Evidently, and only when the first report is written: the import takes seconds.
Evidently's own drift tests are not calibrated, so each of its columns shows our signal's effect, threshold and
verdict, registered as a statistical test of its own; report and decision cannot disagree.
"""

from __future__ import annotations

import functools
import html
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from service.contract.events import DriftData, Moved, Signal
from service.contract.files import write_atomic

CATEGORICAL = ("label",)
NUMERICAL = ("confidence", "n_tokens", "unk_share")
_SAMPLE = 5000  # rows of each side that charts are drawn from


def write_report(folder: Path, name: str, reference: pa.Table, window: pa.Table, data: DriftData, keep: int) -> Path:
    """Write ``folder/<name>.html`` and ``.json``, remove all but the newest ``keep``; returns the HTML's path.

    Raises whatever Evidently or the disk raises: the caller goes on without a report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, figures = render(reference, window, data)
    target = folder / f"{name}.html"
    write_atomic(folder / f"{name}.json", orjson.dumps({"verdict": data.model_dump(mode="json"), "evidently": figures}))
    write_atomic(target, page)
    pages = sorted(folder.glob("*.html"), key=lambda page: (page.stat().st_mtime_ns, page.name), reverse=True)
    for old in pages[keep:]:
        old.unlink(missing_ok=True)
        old.with_suffix(".json").unlink(missing_ok=True)
    return target


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
    page: str = snapshot.get_html_str(as_iframe=False)
    return _with_verdict(page, data).encode(), orjson.loads(snapshot.json())


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


def _with_verdict(page: str, data: DriftData) -> str:
    start = page.find("<body")
    end = page.find(">", start) + 1 if start >= 0 else 0
    return page[:end] + verdict_html(data) + page[end:]


def verdict_html(data: DriftData) -> str:
    """Our verdict as a block of HTML; every text from outside is escaped."""
    heading = {"none": "No drift", "notice": "Notice: moderate drift", "alert": "Alert: drift"}[data.severity]
    rows = "".join(
        f"<tr><td>{html.escape(s.name)}<td>{html.escape(s.method)}<td>{s.effect:.3f}<td>{s.effect_threshold:.3f}"
        f"<td>{s.p_value:.3g}<td>{s.alpha:g}<td>{html.escape(s.direction)}<td>{'<b>drifted</b>' if s.drifted else ''}"
        for s in data.signals
    )
    accuracy = ""
    if data.accuracy_reference is not None and data.accuracy_estimated is not None:
        accuracy = (
            f"<p>Accuracy: {data.accuracy_reference:.3f} measured on the reference, "
            f"{data.accuracy_estimated:.3f} estimated here from confidence."
        )
    window = data.window
    return (
        "<section style='font-family:sans-serif;max-width:70em;margin:2em auto'>"
        f"<h1>{heading}</h1><p>Model {html.escape(data.model.model)} version {html.escape(data.model.version)} "
        f"({html.escape(data.model.digest[:12])}), {window.rows} requests from {window.start:%Y-%m-%d %H:%M:%S} to "
        f"{window.end:%Y-%m-%d %H:%M:%S} UTC. A signal has drifted if its effect and its corrected p-value both "
        "pass.</p><table cellpadding=6><tr><th>signal<th>test<th>effect<th>threshold<th>p<th>alpha<th>direction<th>"
        f"{rows}</table>{accuracy}{_moved_html('Words that moved most', data.tokens)}"
        f"{_moved_html('Labels that moved most', data.labels)}</section>"
    )


def _moved_html(title: str, rows: tuple[Moved, ...]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td>{html.escape(row.value)}<td>{row.reference_share:.1%}<td>{row.window_share:.1%}" for row in rows
    )
    return f"<h2>{title}</h2><table cellpadding=6><tr><th><th>reference<th>window{cells}</table>"
