"""Choices by name are fair and stable."""

from __future__ import annotations

import numpy as np
import pytest

from service.contract.sampling import share_of


@pytest.mark.parametrize(
    "names", [[str(n) for n in range(10_000)], [f"request-{n:08d}" for n in range(0, 10_000_000, 1000)]]
)
def test_names_that_differ_little_are_spread_evenly(names: list[str]) -> None:
    shares = np.sort([share_of(name) for name in names])
    assert np.abs(shares - np.linspace(0, 1, len(shares))).max() < 0.02


def test_the_choice_for_a_name_never_changes() -> None:
    assert share_of("01a2-reviews") == pytest.approx(0.9190192598183295)
    assert share_of("\ud800") == pytest.approx(0.25794173743860344)  # no name is refused
