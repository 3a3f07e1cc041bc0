"""How good a forecast is: its errors, and what a plan made by it saves.
In: forecasts beside what came, in g/kWh. Out: a percentage error, or the saving of a plan.
`helps` judges a correction by both; the benchmark prints both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.predict.series import FloatArray

TAIL = 0.1
"""Share of outcomes below an interval, and above it."""
LENGTHS_H = (4, 8, 12)
"""Lengths of the interruptible jobs that a day's plan is scored by."""


@dataclass(frozen=True)
class Saving:
    """Sum over a job's hours in g/kWh: what the first hours take less what the chosen ones take, and the best could."""

    saved: float
    possible: float


def ape_percent(forecast: FloatArray, actual: FloatArray) -> FloatArray:
    """Absolute percentage errors (Makridakis, Int. J. Forecasting 9 (1993)); NaN where unknown or nothing came."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(actual > 0, 100.0 * np.abs(forecast - actual) / actual, np.nan)


def saving(forecast: FloatArray, actual: FloatArray, length_h: int) -> Saving:
    """An interruptible job of so many hours in the forecast's cheapest, against its running at once.

    Equal hours are taken in their order; unknown hours of the forecast come last. `actual` must be known throughout.
    """
    at_once = actual[:length_h].sum()
    chosen = np.argsort(forecast, kind="stable")[:length_h]
    best = np.sort(actual)[:length_h]
    return Saving(float(at_once - actual[chosen].sum()), float(at_once - best.sum()))


def tenths(errors: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """The quantiles of errors that leave a tenth below and a tenth above."""
    order = np.argsort(errors)
    weight = np.ones(len(errors)) if weights is None else weights[order]
    middle = np.cumsum(weight) - 0.5 * weight
    quantiles: FloatArray = np.interp(np.array([TAIL, 1.0 - TAIL]) * weight.sum(), middle, errors[order])
    return quantiles
