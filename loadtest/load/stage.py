"""A stage of a load test: how requests arrive, for how long.

An **open** stage has a rate: requests arrive as a Poisson process whether or not earlier ones were answered, as they do
from many users who know nothing of each other. A **closed** one has clients, each of which sends its next request when
the last was answered; it slows down with the server, and so never shows what a queue does (Schroeder, Wierman and
Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006).
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from service.contract.errors import InvalidInput

Floats = npt.NDArray[np.float64]

_STEP = 0.01  # seconds between two points of a rate that changes
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"


class Burst(BaseModel):
    """``factor`` times the rate in the last ``seconds`` of every ``every`` seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: float
    seconds: float
    every: float


class Stage(BaseModel):
    """Either ``clients`` or ``rate`` (requests a second), which may go to ``ramp_to`` in a line, with bursts on top.

    What arrives in the ``warm_up`` before the ``seconds`` is sent and not counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    warm_up: float
    clients: int | None = None
    rate: float | None = None
    ramp_to: float | None = None
    burst: Burst | None = None

    @property
    def open(self) -> bool:
        return self.clients is None

    @property
    def name(self) -> str:
        if self.rate is None:
            return f"{self.clients} client{'' if self.clients == 1 else 's'}"
        ramp = f" to {self.ramp_to:,.6g}" if self.ramp_to is not None else ""
        burst = f", bursts of {self.burst.factor:g}x" if self.burst is not None else ""
        return f"{self.rate:,.6g}{ramp}/s{burst}"

    def rates(self, moments: Floats) -> Floats:
        """Requests a second at moments in seconds; those before 0 are the warm-up's."""
        rate = self.rate or 0.0
        rates = np.full(len(moments), rate)
        counted = moments >= 0
        if self.ramp_to is not None:
            rates[counted] += (self.ramp_to - rate) * moments[counted] / self.seconds
        if self.burst is not None:
            into = moments % self.burst.every
            rates[counted & (into >= self.burst.every - self.burst.seconds)] *= self.burst.factor
        return rates


def arrivals(stage: Stage, share: float, rng: np.random.Generator) -> Floats:
    """The moments at which requests of an open stage are meant to start: a Poisson process, from ``-warm_up`` on.

    Where the rate changes it is a process of rate 1 in the time of the rate's integral (Çinlar, "Introduction to
    Stochastic Processes", 1975, section 4.7). Processes of several generators add up to one.

    :param share: the part of the rate that this generator sends.
    """
    moments = np.arange(-stage.warm_up, stage.seconds + _STEP, _STEP)
    expected = np.concatenate([[0.0], np.cumsum(share * stage.rates(moments[:-1] + _STEP / 2) * _STEP)])
    gaps = rng.exponential(size=int(expected[-1] + 10 * np.sqrt(expected[-1]) + 50))
    at = np.cumsum(gaps)
    found: Floats = np.interp(at[at < expected[-1]], expected, moments)
    return found[found < stage.seconds]


def read_duration(given: str, *, none: bool = False) -> float:
    """Seconds of a duration such as ``50ms``, ``30s`` or ``10m``.

    :param none: whether it may be 0. :raises InvalidInput: if it is no duration.
    """
    found = re.fullmatch(rf"{_NUMBER}(ms|s|m|h)", given.strip())
    if found is None or (float(found[1]) == 0 and not none):
        raise InvalidInput(f"{given!r} is not a duration; give a number and a unit, as 50ms, 30s or 10m.")
    return float(found[1]) * _UNITS[found[2]]


def read_burst(given: str) -> Burst:
    """A burst such as ``5x2s/10s``: five times the rate for 2 of every 10 s. :raises InvalidInput: if it is none."""
    found = re.fullmatch(rf"{_NUMBER}x([^/]+)/(.+)", given.strip())
    if found is None:
        raise InvalidInput(f"{given!r} is not a burst; 5x2s/10s is five times the rate for 2 s of every 10 s.")
    burst = Burst(factor=float(found[1]), seconds=read_duration(found[2]), every=read_duration(found[3]))
    if burst.seconds >= burst.every:
        raise InvalidInput(f"the bursts of {given!r} never end; they must be shorter than the time between them.")
    return burst
