"""The alert state machine, transition by transition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitoring.alerts import Alert, Change, advance, notice
from monitoring.decision import Severity


def walk(
    *severities: Severity, confirm: int = 1, resolve: int = 2, digests: str = ""
) -> tuple[str, list[Change | None]]:
    """The last state and each window's message; ``digests`` has one letter for each window."""
    alert, changes = Alert(), []
    for number, severity in enumerate(severities):
        digest = digests[number] if digests else "a"
        alert, change = advance(alert, severity, digest, float(number), confirm=confirm, resolve=resolve)
        changes.append(change)
    return alert.state, changes


def test_a_notice_tells_nobody_and_passes() -> None:
    assert walk("notice") == ("notice", [None])
    assert walk("notice", "none") == ("ok", [None, None])


def test_drift_is_told_once_and_its_end_once() -> None:
    assert walk("alert", "alert", "none", "none", "none") == ("ok", ["detected", None, None, "resolved", None])


def test_clean_windows_must_follow_one_another() -> None:
    assert walk("alert", "none", "notice", "none") == ("drift", ["detected", None, None, None])
    assert walk("alert", "none", "alert", "none", "none")[1][-1] == "resolved"


def test_an_unconfirmed_alert_is_a_notice() -> None:
    assert walk("alert", "none", "alert", confirm=2) == ("notice", [None, None, None])
    assert walk("alert", "alert", confirm=2) == ("drift", [None, "detected"])


def test_the_first_clean_window_of_a_new_version_resolves() -> None:
    assert walk("alert", "none", digests="ab") == ("ok", ["detected", "resolved"])
    assert walk("alert", "alert", "none", digests="abb") == ("ok", ["detected", None, "resolved"])


def test_the_sequential_detector_only_lifts_ok_to_notice() -> None:
    assert notice(Alert(), 5.0).state == "notice"
    assert notice(Alert(state="drift"), 5.0).state == "drift"


@given(st.lists(st.sampled_from(["none", "notice", "alert"]), max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_messages_alternate_whatever_happens(severities: list[Severity], confirm: int, resolve: int) -> None:
    told = [change for change in walk(*severities, confirm=confirm, resolve=resolve)[1] if change]
    assert told == [("detected", "resolved")[index % 2] for index in range(len(told))]
