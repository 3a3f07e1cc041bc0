"""A better forecast: what a zone's own past adds to what its provider says.
In: a Forecast, measured points and earlier forecasts. Out: the same, corrected and extended, and how good that was.
Pure: no clock, no store, no HTTP. The refresher improves by it; `lowtide forecast --backtest` shows the accuracy.
"""

from orchestrator.predict.backtest import METHODS, Accuracy, Backtest, backtest
from orchestrator.predict.improve import improve
from orchestrator.predict.pairs import Earlier
from orchestrator.predict.series import Series, series_of

__all__ = ["METHODS", "Accuracy", "Backtest", "Earlier", "Series", "backtest", "improve", "series_of"]
