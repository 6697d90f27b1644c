"""The alert state machine, transition by transition; windows end a second after one another."""

from __future__ import annotations

import random
from itertools import groupby, pairwise

from hypothesis import given
from hypothesis import strategies as st

from monitoring.judging.alerts import Alert, Change, advance, notice
from monitoring.judging.severity import LEVEL, Severity


def walk(
    *severities: Severity,
    confirm: int = 1,
    resolve: int = 2,
    quiet: float = 0.0,
    digests: str = "",
    least: Severity = "warning",
) -> tuple[str, list[Change | None]]:
    """The last state and each window's message; ``digests`` has one letter for each window."""
    alert, changes = Alert(), []
    for number, severity in enumerate(severities):
        digest = digests[number] if digests else "a"
        alert, change = advance(
            alert, severity, digest, float(number), confirm=confirm, resolve=resolve, quiet=quiet, least=least
        )
        changes.append(change)
    return alert.state, changes


def test_a_notice_tells_nobody_and_passes() -> None:
    assert walk("notice") == ("notice", [None])
    assert walk("notice", "none") == ("ok", [None, None])


def test_drift_is_told_once_and_its_end_once() -> None:
    assert walk("warning", "warning", "none", "none", "none") == ("ok", ["detected", None, None, "resolved", None])


def test_what_becomes_critical_is_told_once_more() -> None:
    assert walk("warning", "critical", "critical", "warning", "critical")[1] == ["detected", "worse", None, None, None]
    assert walk("critical", "warning", "critical")[1] == ["detected", None, None]
    assert walk("warning", "critical", "none", "none", "warning", "critical")[1][2:] == [
        *(None, "resolved", "detected", "worse"),
    ]


def test_people_are_told_from_the_severity_that_is_set() -> None:
    assert walk("notice", least="notice")[1] == ["detected"]
    assert walk("warning", "critical", least="critical") == ("drift", [None, "detected"])


def test_clean_windows_must_follow_one_another() -> None:
    assert walk("warning", "none", "notice", "none") == ("drift", ["detected", None, None, None])
    assert walk("warning", "none", "warning", "none", "none")[1][-1] == "resolved"


def test_an_unconfirmed_alert_is_a_notice() -> None:
    assert walk("warning", "none", "warning", confirm=2) == ("notice", [None, None, None])
    assert walk("warning", "warning", confirm=2) == ("drift", [None, "detected"])


def test_the_first_clean_window_of_a_new_version_resolves() -> None:
    assert walk("warning", "none", digests="ab") == ("ok", ["detected", "resolved"])
    assert walk("warning", "warning", "none", digests="abb") == ("ok", ["detected", None, "resolved"])


def test_clean_windows_must_also_go_on_for_long_enough() -> None:
    assert walk("warning", "none", "none", "none", quiet=3.0)[1] == ["detected", None, None, "resolved"]
    assert walk("warning", "none", "none", "notice", "none", "none", quiet=3.0)[1][1:] == [None] * 5


def test_a_new_version_need_not_wait() -> None:
    assert walk("warning", "none", digests="ab", quiet=1e9) == ("ok", ["detected", "resolved"])


def test_the_sequential_detector_only_lifts_ok_to_notice() -> None:
    assert notice(Alert()).state == "notice"
    assert notice(Alert(state="drift")).state == "drift"


severities_ = st.lists(st.sampled_from(["none", "notice", "warning", "critical"]), max_size=60)
counts = st.integers(1, 4)
seconds = st.integers(0, 12)


@given(severities_, st.text("ab", min_size=60, max_size=60), counts, counts, seconds)
def test_messages_alternate_whatever_happens(
    severities: list[Severity], digests: str, confirm: int, resolve: int, quiet: int
) -> None:
    changes = walk(*severities, digests=digests, confirm=confirm, resolve=resolve, quiet=quiet)[1]
    told = [change for change in changes if change and change != "worse"]
    assert told == [("detected", "resolved")[index % 2] for index in range(len(told))]


@given(severities_, counts, counts, seconds)
def test_two_drifts_of_one_version_are_further_apart_than_the_quiet_time(
    severities: list[Severity], confirm: int, resolve: int, quiet: int
) -> None:
    changes = walk(*severities, confirm=confirm, resolve=resolve, quiet=quiet)[1]
    detected = [number for number, change in enumerate(changes) if change == "detected"]
    assert all(later - earlier > quiet for earlier, later in pairwise(detected))


@given(counts, counts, st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_a_cycle_whose_clean_part_is_shorter_than_the_quiet_time_is_one_drift(
    confirm: int, resolve: int, drifted: int, clean: int, cycles: int
) -> None:
    stream: list[Severity] = [*["warning"] * drifted, *["none"] * clean] * cycles  # type: ignore[list-item]
    changes = walk(*stream, confirm=confirm, resolve=resolve, quiet=clean + 1)[1]
    assert [change for change in changes if change] == (["detected"] if drifted >= confirm else [])


@given(severities_, counts, counts, seconds)
def test_a_first_drift_is_told_as_soon_as_it_is_confirmed(
    severities: list[Severity], confirm: int, resolve: int, quiet: int
) -> None:
    changes = walk(*severities, confirm=confirm, resolve=resolve, quiet=quiet)[1]
    runs = [list(group) for _, group in groupby(range(len(severities)), lambda number: LEVEL[severities[number]] >= 2)]
    confirmed = [run[confirm - 1] for run in runs if LEVEL[severities[run[0]]] >= 2 and len(run) >= confirm]
    assert [number for number, change in enumerate(changes) if change == "detected"][:1] == confirmed[:1]


@given(severities_, counts, counts, seconds)
def test_an_end_is_told_once_windows_were_clean_for_long_enough(
    severities: list[Severity], confirm: int, resolve: int, quiet: int
) -> None:
    enough = max(resolve, quiet)
    stream: list[Severity] = [*severities, *["warning"] * confirm, *["none"] * enough]  # type: ignore[list-item]
    state, changes = walk(*stream, confirm=confirm, resolve=resolve, quiet=quiet)
    assert state == "ok"
    assert [change for change in changes[-enough:] if change] == ["resolved"]


def test_a_false_alarm_now_and_then_does_not_keep_a_drift_from_ending() -> None:
    """Windows every five seconds, of which 1.5 % are called drifted without being so: about an hour of them ends it."""
    rng, late = random.Random(0), 0
    for _ in range(100):
        alert, told, number = advance(Alert(), "warning", "a", 0.0, confirm=1, resolve=2, quiet=3600.0)[0], None, 0
        while told != "resolved":
            number += 1
            severity: Severity = "warning" if rng.random() < 0.015 else "none"
            alert, told = advance(alert, severity, "a", 5.0 * number, confirm=1, resolve=2, quiet=3600.0)
        late += 5 * number > 2 * 3600
    assert late <= 5


def test_a_tenth_of_drifted_windows_is_no_end() -> None:
    stream: list[Severity] = [*["warning"], *["none"] * 9] * 200
    assert walk(*stream, quiet=50.0)[1].count("resolved") == 0
