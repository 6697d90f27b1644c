"""The alerting rules: Prometheus takes them, and each fires when it should and only then."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.metrics import Metrics as MonitorMetrics
from service.telemetry.metrics import Metrics as ServiceMetrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm" / "plumbline" / "rules" / "plumbline.rules.yaml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
BY_NAME = {rule["alert"]: rule for rule in ALERTS}

SERVE, MONITOR = '{job="plumbline-serve", instance="a"}', '{job="plumbline-monitor", instance="m"}'
PREDICT = 'route="/predict", model="reviews", job="plumbline-serve", instance="a"'
OF_SERVER = 'model="reviews", job="plumbline-serve", instance="a"'
OF_MONITOR = 'model="reviews", job="plumbline-monitor", instance="m"'


def requests(good: str, failed: str) -> dict[str, str]:
    """Counters of answers to predictions, and of probes that fail all the time, which is nobody's business."""
    return {
        f'plumbline_requests_total{{code="200", {PREDICT}}}': good,
        f'plumbline_requests_total{{code="500", {PREDICT}}}': failed,
        'plumbline_requests_total{code="503", route="/readyz", model="", instance="a"}': "0+60x9999",
    }


def queue(tokens: str) -> dict[str, str]:
    return {
        f"plumbline_queue_tokens{{{OF_SERVER}}}": tokens,
        f"plumbline_queue_tokens_limit{{{OF_SERVER}}}": "1000x60",
    }


def latency(fast: str, all_: str) -> dict[str, str]:
    return {
        f'plumbline_request_duration_seconds_bucket{{le="0.25", {OF_SERVER}}}': fast,
        f"plumbline_request_duration_seconds_count{{{OF_SERVER}}}": all_,
    }


def accuracy(reference: float, other: float, kind: str) -> dict[str, str]:
    return {
        f'plumbline_accuracy{{kind="reference", {OF_MONITOR}}}': f"{reference}x60",
        f'plumbline_accuracy{{kind="{kind}", {OF_MONITOR}}}': f"{other}x60",
    }


@dataclass(frozen=True)
class Case:
    """Series by minute in which an alert fires at ``at`` (minutes), and others in which it does not."""

    fires: dict[str, str]
    silent: dict[str, str]
    at: int = 30


# A counter that appears: the first failure of a fresh process, which no rate shows.
NEW = "_x10 1x60"

CASES = {
    "PlumblineServerDown": Case({f"up{SERVE}": "1x5 0x60"}, {f"up{SERVE}": "1x5 0x1 1x60", f"up{MONITOR}": "0x60"}),
    "PlumblineErrorBudgetBurnFast": Case(requests("0+98x99", "0+2x99"), requests("0+990x99", "0+10x99"), 70),
    "PlumblineErrorBudgetBurnSlow": Case(requests("0+990x999", "0+10x999"), requests("0+996x999", "0+4x999"), 500),
    "PlumblineErrorBudgetBurnLong": Case(requests("0+997x9999", "0+3x9999"), requests("0+9995x9999", "0+5x9999"), 5000),
    "PlumblineLatencyHigh": Case(latency("0+90x60", "0+100x60"), latency("0+96x60", "0+100x60")),
    "PlumblineQueueSaturated": Case(queue("900x60"), queue("900x2 0x60")),
    "PlumblineRequestsRefused": Case(
        requests("0+95x60", "0x60") | {f'plumbline_rejected_total{{reason="overloaded", {OF_SERVER}}}': "0+5x60"},
        requests("0+95x60", "0x60") | {f'plumbline_rejected_total{{reason="body_too_large", {OF_SERVER}}}': "0+5x60"},
    ),
    "PlumblineModelNotLoading": Case(
        {f"plumbline_model_load_failures_total{{{OF_SERVER}}}": "_x60 1x60"},
        {f"plumbline_model_load_failures_total{{{OF_SERVER}}}": "1x120"},
        at=90,
    ),
    "PlumblineGpuFallback": Case(
        {f"plumbline_device_fallback{{{OF_SERVER}}}": "1x60"}, {f"plumbline_device_fallback{{{OF_SERVER}}}": "0x60"}
    ),
    "PlumblineRecordsDropped": Case(
        {f'plumbline_records_dropped_total{{reason="disk", {OF_SERVER}}}': "0x20 5x60"},
        {f'plumbline_records_dropped_total{{reason="disk", {OF_SERVER}}}': "5x60"},
    ),
    "PlumblineUploadsFailing": Case(
        {
            f'plumbline_uploads_total{{result="failed", {OF_SERVER}}}': "0+1x99",
            f"plumbline_uploads_pending{SERVE}": "4x99",
        },
        {
            f'plumbline_uploads_total{{result="failed", {OF_SERVER}}}': "0+1x99",
            f"plumbline_uploads_pending{SERVE}": "0x99",
        },
        at=80,
    ),
    "PlumblineNoTraffic": Case(
        requests("0+10x120 1200x120", "0x300"), requests("0x300", "0x300") | requests("0+1x300", "0x300"), at=180
    ),
    "PlumblineMonitorStale": Case(
        {f"plumbline_monitor_round_timestamp_seconds{MONITOR}": "0x60", f"up{MONITOR}": "1x60"},
        {f"plumbline_monitor_round_timestamp_seconds{MONITOR}": "0+60x60", f"up{MONITOR}": "1x60"},
    ),
    "PlumblineWindowsStale": Case(
        {
            f"plumbline_records_total{{{OF_SERVER}}}": "0+60x300",
            f"plumbline_window_end_timestamp_seconds{{{OF_MONITOR}}}": "0x300",
        },
        {
            f"plumbline_records_total{{{OF_SERVER}}}": "0+60x300",
            f"plumbline_window_end_timestamp_seconds{{{OF_MONITOR}}}": "0+60x300",
        },
        at=240,
    ),
    "PlumblineDrift": Case(
        {f"plumbline_drift_state{{{OF_MONITOR}}}": "2x60"}, {f"plumbline_drift_state{{{OF_MONITOR}}}": "1x60"}
    ),
    "PlumblineAccuracyLow": Case(accuracy(0.9, 0.8, "labelled"), accuracy(0.9, 0.87, "labelled")),
    "PlumblineDriftCritical": Case(
        {f"plumbline_drift_severity{{{OF_MONITOR}}}": "3x60"}, {f"plumbline_drift_severity{{{OF_MONITOR}}}": "2x60"}
    ),
    "PlumblineAccuracyDoubtful": Case(
        {f"plumbline_drift_severity{{{OF_MONITOR}}}": "2x60", **accuracy(0.9, 0.8, "estimated")},
        {f"plumbline_drift_severity{{{OF_MONITOR}}}": "1x60", **accuracy(0.9, 0.8, "estimated")},
    ),
    "PlumblineOutboxStuck": Case(
        {f"plumbline_outbox_pending{MONITOR}": "1x99"}, {f"plumbline_outbox_pending{MONITOR}": "1x20 0x1 1x99"}, at=45
    ),
    "PlumblineDeadLetters": Case(
        {f"plumbline_outbox_dead{MONITOR}": "1x60"}, {f"plumbline_outbox_dead{MONITOR}": "0x60"}
    ),
    "PlumblineRetrainFailing": Case(
        {f'plumbline_retrains_total{{result="failed", {OF_MONITOR}}}': NEW},
        {f'plumbline_retrains_total{{result="rejected", {OF_MONITOR}}}': NEW},
    ),
    "PlumblineMonitorErrors": Case(
        {'plumbline_monitor_errors_total{part="rounds", instance="m"}': "0+1x60"},
        {'plumbline_monitor_errors_total{part="rounds", instance="m"}': "0x20 1x60"},
    ),
    "PlumblineSegmentsLost": Case(
        {f"plumbline_segments_lost_total{{{OF_MONITOR}}}": "0x20 1x60"},
        {f"plumbline_segments_lost_total{{{OF_MONITOR}}}": "0x60"},
    ),
}


def test_every_alert_is_tried_both_ways() -> None:
    assert CASES.keys() == BY_NAME.keys()


@pytest.mark.parametrize("rule", ALERTS, ids=BY_NAME)
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / page).read_text(), re.M)
    assert anchor in [heading.lower() for heading in headings]


def test_the_runbook_has_no_entry_without_an_alert() -> None:
    headings = re.findall(r"^### (Plumbline\w+)$", (ROOT / "docs" / "operate.md").read_text(), re.M)
    assert headings == list(BY_NAME)


def test_every_metric_in_the_rules_exists() -> None:
    declared = declared_series()
    for group in GROUPS:
        for rule in group["rules"]:
            for name in re.findall(r"\bplumbline_\w+", rule["expr"]):
                assert name in declared, rule


def declared_series() -> set[str]:
    """The names of all series that a server and a monitor can have."""
    found = set()
    for metrics in (ServiceMetrics(), MonitorMetrics()):
        for family in metrics.registry.collect():
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
            found |= {family.name + end for end in ends}
    return found


@pytest.mark.platform
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
class TestWithPromtool:
    def test_prometheus_takes_the_rules(self) -> None:
        ended = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr

    @pytest.mark.parametrize("name", BY_NAME)
    def test_it_fires_when_it_should_and_only_then(self, name: str, tmp_path: Path) -> None:
        case = CASES[name]
        tests = [_test(name, case.fires, case.at, fires=True), _test(name, case.silent, case.at, fires=False)]
        file = tmp_path / "test.yaml"
        file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
        ended = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def _test(name: str, series: dict[str, str], at: int, *, fires: bool) -> dict[str, Any]:
    expected = [{"labels": "{}", "value": 1}] if fires else []
    firing = f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
    return {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": f"{at}m", "exp_samples": expected}],
    }
