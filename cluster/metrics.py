"""The cluster's metrics: what the controller publishes, as gauges that Ray exports to dashboard and Prometheus.
In: the samples of one controller pass. Out: ray.util.metrics gauges named `lowtide_*`.
The control actor owns the one exporter, so that each figure is exported once however many controllers ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.api import Gauge


class Exporter:
    """Keeps one Ray gauge per name, and sets a series that is published no more to zero.

    Ray offers no way to take a series back: zero is what its own gauges show for what has ended.
    """

    def __init__(self) -> None:
        self._gauges: dict[str, Any] = {}
        self._keys: dict[str, tuple[str, ...]] = {}
        self._shown: set[tuple[str, tuple[tuple[str, str], ...]]] = set()

    def publish(self, samples: Sequence[Gauge]) -> None:
        """Set every sample, and zero each series of the call before that has none now."""
        now = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
        for name, labels in self._shown - now.keys():
            # A counter's total must never fall: its last value stays where it is.
            if not name.endswith("_total"):
                self._set(name, dict(labels), 0.0)
        for (name, labels), value in now.items():
            self._set(name, dict(labels), value)
        self._shown = set(now)

    def _set(self, name: str, labels: dict[str, str], value: float) -> None:
        if name not in self._gauges:
            from ray.util.metrics import Gauge as RayGauge

            self._keys[name] = tuple(sorted(labels))
            self._gauges[name] = RayGauge(name, description=_words(name), tag_keys=self._keys[name])
        known = self._keys[name]
        self._gauges[name].set(value, tags={key: labels.get(key, "") for key in known})


def _words(name: str) -> str:
    """A description for people: `lowtide_job_power_w` is `job power w`."""
    return name.removeprefix("lowtide_").replace("_", " ")
