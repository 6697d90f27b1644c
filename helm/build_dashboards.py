"""Writes the two Grafana dashboards: ``python helm/build_dashboards.py``.

Made with Grafana's own builders, so that every option is one that Grafana has. Latencies are rates over the interval
of a pixel; what is compared with a threshold is drawn with it; each panel says what it shows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d

FOLDER = Path(__file__).parent / "plumbline" / "dashboards"
SOURCE = d.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "text"
PROBES = 'route!~"/livez|/readyz|/startupz|/health|/ping|/metrics|/v2/health/.*|unmatched"'
MODEL = 'model=~"$model"'
RUNBOOK = "docs/operate.md"


@dataclass(frozen=True)
class Query:
    """A PromQL query and the name of its series; ``dashed`` for thresholds and limits."""

    expr: str
    legend: str
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    title: str
    meaning: str
    unit: str
    queries: Sequence[Query]
    width: int = 8
    height: int = 8
    stacked: bool = False
    steps: Sequence[tuple[float | None, str]] = ()
    least: float | None = 0
    most: float | None = None
    points: bool = False


@dataclass(frozen=True)
class Number:
    """One figure of the top row, coloured by what it means; ``words`` stand for values."""

    title: str
    meaning: str
    unit: str
    query: str
    steps: Sequence[tuple[float | None, str]]
    words: Sequence[tuple[float, str, str]] = ()
    legend: str = ""
    width: int = 4
    name_only: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Chart | Number]


def quantile(share: float, metric: str, by: str = "") -> str:
    grouped = f"le, {by}" if by else "le"
    return f'histogram_quantile({share}, sum by ({grouped}) (rate({metric}_bucket{{{MODEL}, model!=""}}[$__rate_interval])))'


def rate(metric: str, by: str, more: str = "") -> str:
    chosen = f"{MODEL}, {more}" if more else MODEL
    return f"sum by ({by}) (rate({metric}{{{chosen}}}[$__rate_interval]))"


def quantiles(metric: str, by: str = "") -> list[Query]:
    named = "{{" + by + "}} " if by else ""
    return [
        Query(quantile(share, metric, by), f"{named}{name}")
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    ]


FAILED = f'sum(rate(plumbline_requests_total{{{MODEL}, code=~"5..", {PROBES}}}[5m])) or vector(0)'
ASKED = f"sum(rate(plumbline_requests_total{{{MODEL}, {PROBES}}}[5m]))"

SERVING = [
    Row(
        "Healthy?",
        [
            Number(
                "Servers",
                "Servers that Prometheus reaches, of those it knows.",
                "percentunit",
                'avg(up{job="plumbline-serve"})',
                ((None, RED), (0.5, YELLOW), (1, GREEN)),
            ),
            Number(
                "Failed requests",
                "Share of predictions of the last five minutes that ended in a fault of the server (5xx). "
                "The objective allows 0.1 %.",
                "percentunit",
                f"({FAILED}) / {ASKED}",
                ((None, GREEN), (0.001, YELLOW), (0.0144, RED)),
            ),
            Number(
                "Error budget, 30 days",
                "What is left of the 0.1 % of requests that may fail, judged by the last three days.",
                "percentunit",
                'clamp_min(1 - max(plumbline:requests_failed:ratio_rate3d{model=~"$model"}) / 0.001, 0)',
                ((None, RED), (0.25, YELLOW), (0.5, GREEN)),
            ),
            Number(
                "p99",
                "99 of 100 requests are answered within this time (five minutes).",
                "s",
                f'histogram_quantile(0.99, sum by (le) (rate(plumbline_request_duration_seconds_bucket{{{MODEL}, model!=""}}[5m])))',
                ((None, GREEN), (0.25, YELLOW), (1, RED)),
            ),
            Number(
                "Queue",
                "How full the fullest queue is; from 100 % on requests are refused.",
                "percentunit",
                f"max(plumbline_queue_tokens{{{MODEL}}} / plumbline_queue_tokens_limit{{{MODEL}}})",
                ((None, GREEN), (0.5, YELLOW), (0.8, RED)),
            ),
            Number(
                "Live version",
                "The version that answers; two while servers follow a take-over.",
                "none",
                f'max by (model, version) (plumbline_model_info{{{MODEL}, version=~"$version"}})',
                ((None, BLUE),),
                legend="{{model}} {{version}}",
                name_only=True,
            ),
        ],
    ),
    Row(
        "Requests",
        [
            Chart(
                "Requests",
                "Answered requests a second by route, without probes and scrapes.",
                "reqps",
                [Query(rate("plumbline_requests_total", "route", PROBES), "{{route}}")],
                stacked=True,
            ),
            Chart(
                "Errors by code",
                "Answers a second that are no success: 4xx are the client's, 5xx the server's.",
                "reqps",
                [Query(rate("plumbline_requests_total", "code", f'code!~"2..", {PROBES}'), "{{code}}")],
            ),
            Chart(
                "Refused",
                "Requests a second that were refused: overloaded, body too large, not ready, too late.",
                "reqps",
                [Query(rate("plumbline_rejected_total", "reason"), "{{reason}}")],
            ),
            Chart(
                "Time to answer",
                "Of whole requests, with the limit of the objective.",
                "s",
                [*quantiles("plumbline_request_duration_seconds"), Query("vector(0.25)", "objective", dashed=True)],
            ),
            Chart(
                "Where the time goes",
                "Median of each part: waiting for a batch, tokenizing, running the batch.",
                "s",
                [
                    Query(quantile(0.5, f"plumbline_{part}_duration_seconds"), part)
                    for part in ("queue", "tokenization", "inference")
                ],
            ),
            Chart(
                "Wait in the queue",
                "Of inputs; grows before anything else when more comes in than is answered.",
                "s",
                quantiles("plumbline_queue_duration_seconds"),
            ),
        ],
    ),
    Row(
        "Batches and queue",
        [
            Chart(
                "Queue",
                "Tokens waiting or running, and how many are taken in.",
                "none",
                [
                    Query(f"sum by (model) (plumbline_queue_tokens{{{MODEL}}})", "{{model}}"),
                    Query(f"sum by (model) (plumbline_queue_tokens_limit{{{MODEL}}})", "{{model}} limit", dashed=True),
                ],
            ),
            Chart(
                "Batch size",
                "Inputs in a batch, and tokens that are no padding.",
                "none",
                [
                    Query(quantile(0.5, "plumbline_batch_size"), "inputs, median"),
                    Query(quantile(0.95, "plumbline_batch_size"), "inputs, p95"),
                    Query(quantile(0.5, "plumbline_batch_tokens"), "tokens, median"),
                ],
            ),
            Chart(
                "Padding",
                "Share of a batch that is padding: work for nothing.",
                "percentunit",
                [Query(quantile(0.5, "plumbline_batch_padding_ratio"), "median")],
                most=1,
            ),
        ],
    ),
    Row(
        "Inputs and answers",
        [
            Chart(
                "Answers by label",
                "Answered inputs a second.",
                "ops",
                [Query(rate("plumbline_predictions_total", "label"), "{{label}}")],
                width=6,
                stacked=True,
            ),
            Chart(
                "Confidence",
                "Of the answers: half are surer than the median, one in twenty less sure than p5.",
                "percentunit",
                [
                    Query(quantile(0.5, "plumbline_confidence"), "median"),
                    Query(quantile(0.05, "plumbline_confidence"), "p5"),
                ],
                width=6,
                most=1,
            ),
            Chart(
                "Input tokens",
                "Length of inputs.",
                "none",
                [
                    Query(quantile(0.5, "plumbline_input_tokens"), "median"),
                    Query(quantile(0.95, "plumbline_input_tokens"), "p95"),
                ],
                width=6,
            ),
            Chart(
                "Cut inputs",
                "Share of the inputs that were longer than the model reads.",
                "percentunit",
                [
                    Query(
                        f"{rate('plumbline_truncated_total', 'model')} / {rate('plumbline_predictions_total', 'model')}",
                        "{{model}}",
                    )
                ],
                width=6,
            ),
        ],
    ),
    Row(
        "Versions",
        [
            Chart(
                "Versions that answer",
                "Servers by live version and provider; a step is a take-over.",
                "none",
                [
                    Query(
                        f'count by (version, precision, provider) (plumbline_model_info{{{MODEL}, version=~"$version"}})',
                        "{{version}} {{precision}} {{provider}}",
                    )
                ],
                width=6,
            ),
            Chart(
                "Candidates",
                "Share of the requests that a canary answers, and that a shadow sees.",
                "percentunit",
                [Query(f"max by (role, version) (plumbline_candidate_share{{{MODEL}}})", "{{role}} {{version}}")],
                width=6,
                most=1,
            ),
            Chart(
                "How candidates do",
                "Requests that a version failed while there is a canary, and inputs on which a shadow "
                "agreed or differed, a second.",
                "ops",
                [
                    Query(rate("plumbline_version_errors_total", "version, code"), "{{version}} failed: {{code}}"),
                    Query(rate("plumbline_shadow_inputs_total", "outcome"), "shadow {{outcome}}"),
                ],
                width=6,
            ),
            Chart(
                "Needs a look",
                "Not 0: a model runs on the CPU instead of the GPU, is unproven, or could not be loaded "
                "(in the last hour).",
                "none",
                [
                    Query(f"max by (model) (plumbline_device_fallback{{{MODEL}}})", "{{model}} fell back to the CPU"),
                    Query(f"max by (model) (plumbline_model_unproven{{{MODEL}}})", "{{model}} unproven"),
                    Query(
                        f"sum by (model) (increase(plumbline_model_load_failures_total{{{MODEL}}}[1h]))",
                        "{{model}} not loaded",
                    ),
                ],
                width=6,
                steps=((None, GREEN), (0.5, RED)),
            ),
        ],
    ),
    Row(
        "Log",
        [
            Chart(
                "Records",
                "Written to the log, left out of its sample, and lost on the way, a second.",
                "ops",
                [
                    Query(rate("plumbline_records_total", "model"), "{{model}} written"),
                    Query(rate("plumbline_records_left_out_total", "model"), "{{model}} left out"),
                    Query(rate("plumbline_records_dropped_total", "reason"), "lost: {{reason}}"),
                ],
                width=6,
            ),
            Chart(
                "Segments without a copy",
                "Sealed parts of the log that wait to be copied to the object store.",
                "none",
                [Query("sum(plumbline_uploads_pending)", "waiting")],
                width=6,
            ),
            Chart(
                "Copies",
                "Attempts a second, by result.",
                "ops",
                [Query(rate("plumbline_uploads_total", "result"), "{{result}}")],
                width=6,
            ),
            Chart(
                "Feedback",
                "Labels that came back, a second, by whether the answer was right.",
                "ops",
                [Query(rate("plumbline_feedback_total", "correct"), "right: {{correct}}")],
                width=6,
                stacked=True,
            ),
        ],
    ),
]

DRIFT = [
    Row(
        "Healthy?",
        [
            Number(
                "Drift",
                "Severity of the live version's last window.",
                "none",
                f"max(plumbline_drift_severity{{{MODEL}}})",
                ((None, GREEN), (1, BLUE), (2, YELLOW), (3, RED)),
                ((0, "none", GREEN), (1, "notice", BLUE), (2, "warning", YELLOW), (3, "critical", RED)),
            ),
            Number(
                "Accuracy by labels",
                "Of the newest labelled answers of the live version.",
                "percentunit",
                f'min(plumbline_accuracy{{{MODEL}, kind="labelled"}})',
                ((None, BLUE),),
            ),
            Number(
                "Below the reference",
                "How many points the labelled, else the estimated accuracy is below that on the reference. "
                "5 points alert.",
                "percentunit",
                f'max(plumbline_accuracy{{{MODEL}, kind="reference"}} - ignoring (kind) '
                f'(plumbline_accuracy{{{MODEL}, kind="labelled"}} or ignoring (kind) plumbline_accuracy{{{MODEL}, kind="estimated"}}))',
                ((None, GREEN), (0.02, YELLOW), (0.05, RED)),
            ),
            Number(
                "Last window",
                "Age of the newest request that was judged.",
                "s",
                f"time() - max(plumbline_window_end_timestamp_seconds{{{MODEL}}})",
                ((None, GREEN), (3600, YELLOW), (7200, RED)),
            ),
            Number(
                "Monitor",
                "Age of its last finished round.",
                "s",
                "time() - max(plumbline_monitor_round_timestamp_seconds)",
                ((None, GREEN), (60, YELLOW), (300, RED)),
            ),
            Number(
                "Messages given up",
                "Deliveries that will not be tried again; replay them when the receiver is mended.",
                "none",
                "sum(plumbline_outbox_dead)",
                ((None, GREEN), (1, RED)),
            ),
        ],
    ),
    Row(
        "Drift",
        [
            Chart(
                "Effect of each signal, over its threshold",
                "Effect size in the last window divided by the one from which a "
                "signal counts; it must pass its test, too.",
                "none",
                [
                    Query(
                        f"max by (signal) (plumbline_drift_score{{{MODEL}}} / plumbline_drift_threshold{{{MODEL}}})",
                        "{{signal}}",
                    ),
                    Query("vector(1)", "threshold", dashed=True),
                ],
                width=12,
                height=9,
            ),
            Chart(
                "Effect of each signal",
                "As measured, with the threshold of each.",
                "none",
                [
                    Query(f"max by (signal) (plumbline_drift_score{{{MODEL}}})", "{{signal}}"),
                    Query(
                        f"max by (signal) (plumbline_drift_threshold{{{MODEL}}})", "{{signal}} threshold", dashed=True
                    ),
                ],
                width=12,
                height=9,
            ),
            Chart(
                "Evidence between windows",
                "Natural logarithm of the sequential statistic; over its threshold it is a notice.",
                "none",
                [
                    Query(f"max by (model) (plumbline_drift_evidence{{{MODEL}}})", "{{model}}"),
                    Query(
                        f"max by (model) (plumbline_drift_evidence_threshold{{{MODEL}}})",
                        "{{model}} threshold",
                        dashed=True,
                    ),
                ],
                width=6,
                least=None,
            ),
            Chart(
                "State",
                "0 none, 1 notice, 2 drift.",
                "none",
                [Query(f"max by (model) (plumbline_drift_state{{{MODEL}}})", "{{model}}")],
                width=6,
                most=2,
            ),
            Chart(
                "Windows",
                "Closed in an hour, by what became of them.",
                "none",
                [Query(f"sum by (outcome) (increase(plumbline_windows_total{{{MODEL}}}[1h]))", "{{outcome}}")],
                width=6,
            ),
            Chart(
                "Rows of the last window",
                "Fewer than PLUMBLINE_WINDOW_ROWS: its time was up.",
                "none",
                [Query(f"max by (model) (plumbline_window_rows{{{MODEL}}})", "{{model}}")],
                width=6,
            ),
        ],
    ),
    Row(
        "Model quality",
        [
            Chart(
                "Accuracy",
                "On the reference rows, estimated in each window from confidence, and by the labels that came back.",
                "percentunit",
                [
                    Query(f"max by (kind) (plumbline_accuracy{{{MODEL}}})", "{{kind}}"),
                    Query(f"min(plumbline_accuracy_trusted{{{MODEL}}})", "estimate can be trusted: 1, or 0"),
                ],
                width=12,
                least=None,
                most=1,
            ),
            Chart(
                "Labels that came back",
                "A second, by whether the answer was right.",
                "ops",
                [Query(rate("plumbline_feedback_total", "correct"), "right: {{correct}}")],
                width=12,
                stacked=True,
            ),
            Chart(
                "Answers by label",
                "Share of the answers; what drifts in *label* shows here.",
                "percentunit",
                [
                    Query(
                        f"{rate('plumbline_predictions_total', 'label')} / ignoring (label) group_left "
                        f"sum(rate(plumbline_predictions_total{{{MODEL}}}[$__rate_interval]))",
                        "{{label}}",
                    )
                ],
                width=12,
                stacked=True,
                most=1,
            ),
            Chart(
                "Confidence",
                "Of the answers: half are surer than the median, one in twenty less sure than p5.",
                "percentunit",
                [
                    Query(quantile(0.5, "plumbline_confidence"), "median"),
                    Query(quantile(0.05, "plumbline_confidence"), "p5"),
                ],
                width=12,
                most=1,
            ),
        ],
    ),
    Row(
        "Messages and retrains",
        [
            Chart(
                "Events",
                "Sent since the monitor started, by type.",
                "none",
                [Query(f"sum by (type) (plumbline_alerts_total{{{MODEL}}})", "{{type}}")],
            ),
            Chart(
                "Outbox",
                "Deliveries that wait, and those that were given up.",
                "none",
                [Query("sum(plumbline_outbox_pending)", "waiting"), Query("sum(plumbline_outbox_dead)", "given up")],
            ),
            Chart(
                "Retrains",
                "Since the monitor started, by what became of them.",
                "none",
                [Query(f"sum by (result) (plumbline_retrains_total{{{MODEL}}})", "{{result}}")],
            ),
            Chart(
                "Time since a retrain was asked for",
                "Of each model.",
                "s",
                [Query(f"time() - max by (model) (plumbline_retrain_timestamp_seconds{{{MODEL}}})", "{{model}}")],
                width=12,
            ),
            Chart(
                "Faults of the monitor",
                "Since it started, by part; and segments of the log that could not be read.",
                "none",
                [
                    Query("sum by (part) (plumbline_monitor_errors_total)", "{{part}}"),
                    Query(f"sum by (model) (plumbline_segments_lost_total{{{MODEL}}})", "segments of {{model}} lost"),
                ],
                width=12,
            ),
        ],
    ),
]

# Metrics of ours on no dashboard, and why.
LEFT_OUT = {
    "plumbline_version_duration_seconds": "the canary's times by version are for a comparison by hand, as docs/guide.md shows",
    "plumbline_shadow_duration_seconds": "a shadow keeps nobody waiting",
}


# What is marked in every chart: name, colour, query, words. Each query has a value for about a minute.
ANNOTATIONS = (
    (
        "Take-overs",
        BLUE,
        f"count by (model, version) (plumbline_model_info{{{MODEL}}}) unless count by (model, version) "
        f"(plumbline_model_info{{{MODEL}}} offset 1m)",
        "{{model}} version {{version}} answers",
    ),
    (
        "Deployments",
        "purple",
        'up{job=~"plumbline-.*"} unless up{job=~"plumbline-.*"} offset 1m',
        "{{job}} at {{instance}} started",
    ),
    (
        "Drift",
        RED,
        f"plumbline_drift_state{{{MODEL}}} == 2 unless plumbline_drift_state{{{MODEL}}} offset 1m == 2",
        "{{model}} drifts",
    ),
    (
        "Retrains",
        GREEN,
        f"changes(plumbline_retrain_timestamp_seconds{{{MODEL}}}[1m]) > 0 or (plumbline_retrain_timestamp_seconds{{{MODEL}}} "
        f"unless plumbline_retrain_timestamp_seconds{{{MODEL}}} offset 1m)",
        "retrain of {{model}} asked for",
    ),
    (
        "Alerts",
        "orange",
        'ALERTS{alertname=~"Plumbline.*", alertstate="firing"} unless ALERTS{alertname=~"Plumbline.*", alertstate="firing"} '
        "offset 1m",
        "{{alertname}}",
    ),
)


def serving() -> dashboard.Dashboard:
    return _dashboard(
        "Plumbline: serving",
        "plumbline-serving",
        SERVING,
        "Is the server well? Requests, batches, versions and the log.",
    )


def drift() -> dashboard.Dashboard:
    return _dashboard(
        "Plumbline: drift and model quality",
        "plumbline-drift",
        DRIFT,
        "Do requests still look like what the model was judged on, and is it still right?",
    )


def _dashboard(title: str, uid: str, rows: Sequence[Row], meaning: str) -> dashboard.Dashboard:
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(meaning)
        .tags(["plumbline"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(d.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            _variable("model", "Model", 'label_values({__name__=~"plumbline_model_info|plumbline_window_rows"}, model)')
        )
        .with_variable(_variable("version", "Version", 'label_values(plumbline_model_info{model=~"$model"}, version)'))
        .with_variable(
            dashboard.TextBoxVariable("monitor").label("Address of the monitor").default_value("http://localhost:8001")
        )
        .link(
            dashboard.DashboardLink("Drift reports")
            .type(d.DashboardLinkType.LINK)
            .url("${monitor}/reports/")
            .target_blank(True)
        )
        .link(
            dashboard.DashboardLink("Plumbline")
            .type(d.DashboardLinkType.DASHBOARDS)
            .tags(["plumbline"])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
    )
    for name, colour, expr, _ in ANNOTATIONS:
        board = board.annotation(_annotation(name, colour, expr))
    number = 0
    top = 0
    for row in rows:
        board = board.with_row(dashboard.Row(row.title))
        left, height = 0, 0
        top += 1
        for panel in row.panels:
            if left + panel.width > WIDTH:
                left, top = 0, top + height
            height = panel.height if isinstance(panel, Chart) else 4
            number += 1
            made = _chart(panel) if isinstance(panel, Chart) else _number(panel)
            board = board.with_panel(made.id(number).grid_pos(d.GridPos(h=height, w=panel.width, x=left, y=top)))
            left += panel.width
        top += height
    return board


def _variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(d.VariableOption(text="All", value="$__all"))
    )


def _annotation(name: str, colour: str, expr: str) -> dashboard.AnnotationQuery:
    return dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour).expr(expr)


def _thresholds(steps: Sequence[tuple[float | None, str]]) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(d.ThresholdsMode.ABSOLUTE)
        .steps([d.Threshold(value=value, color=colour) for value, colour in steps])
    )


def _number(panel: Number) -> stat.Panel:
    made = (
        stat.Panel()
        .title(panel.title)
        .description(panel.meaning)
        .datasource(SOURCE)
        .unit(panel.unit)
        .no_value("no data")
        .thresholds(_thresholds(panel.steps))
        .color_mode(c.BigValueColorMode.BACKGROUND)
        .graph_mode(c.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .text_mode(c.BigValueTextMode.NAME if panel.name_only else c.BigValueTextMode.VALUE)
        .with_target(_target(Query(panel.query, panel.legend), 0).instant())
        .links([_runbook()])
    )
    if panel.words:
        options = {str(value): d.ValueMappingResult(text=text, color=colour) for value, text, colour in panel.words}
        made = made.mappings([d.ValueMap(options=options)])
    return made


def _chart(panel: Chart) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.meaning)
        .datasource(SOURCE)
        .unit(panel.unit)
        .no_value("no data")
        .line_width(2)
        .fill_opacity(25 if panel.stacked else 0)
        .show_points(c.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(c.LegendDisplayMode.LIST)
            .placement(c.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
        .links([_runbook()])
    )
    if panel.least is not None:
        made = made.min(panel.least)
    if panel.most is not None:
        made = made.max(panel.most)
    if panel.stacked:
        made = made.stacking(common.StackingConfig().mode(c.StackingMode.NORMAL))
    if panel.steps:
        made = made.thresholds(_thresholds(panel.steps)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(c.GraphTresholdsStyleMode.DASHED)
        )
    for place, query in enumerate(panel.queries):
        made = made.with_target(_target(query, place))
        if query.dashed:
            made = made.override_by_query(
                chr(65 + place),
                [
                    d.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]}),
                    d.DynamicConfigValue(id_val="custom.lineWidth", value=1),
                    d.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
                ],
            )
    return made


def _target(query: Query, place: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend or "__auto")
        .ref_id(chr(65 + place))
        .datasource(SOURCE)
    )


def _runbook() -> dashboard.DashboardLink:
    return dashboard.DashboardLink("Runbook").type(d.DashboardLinkType.LINK).url(RUNBOOK).target_blank(True)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, board in (("serving", serving()), ("drift", drift())):
        (FOLDER / f"{name}.json").write_text(as_json(board), encoding="utf-8")
        print(FOLDER / f"{name}.json", file=sys.stderr)


def as_json(board: dashboard.Dashboard) -> str:
    """The file's content."""
    content = json.loads(JSONEncoder(sort_keys=True).encode(board.build()))
    words = {name: text for name, _, _, text in ANNOTATIONS}
    for annotation in content["annotations"]["list"]:  # Prometheus's own field, which the builders do not know
        annotation["titleFormat"] = words[annotation["name"]]
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    main()
