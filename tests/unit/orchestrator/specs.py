"""The smallest job that a store takes, and a site whose zones keep checkpoints in folders and at a URL.
In: what a test wants otherwise. Out: a JobSpec; a Site.
Nothing of them runs: they are stored, planned and accounted for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.spec import JobSpec
from orchestrator.site import Site

PLACES = Site.model_validate(
    {
        "state": Path("/state"),
        "zones": {
            "DE": {"provider": "demo", "checkpoints": "s3://de"},
            "FR": {"provider": "demo", "checkpoints": "/fr"},
            "GB": {"provider": "demo", "checkpoints": "/gb"},
            "PL": {"provider": "demo", "checkpoints": "s3://de"},
        },
    }
)
"""Two zones that share a URL, two with a folder each."""


def tiny(steps: int = 10, **changes: Any) -> JobSpec:
    """A job of so many steps on CPUs."""
    document: dict[str, Any] = {
        "name": "tiny",
        "job": "train",
        "model": {"config": {"model_type": "llama"}},
        "data": {"files": ["x.txt"]},
        "training": {"steps": steps, "batch_size": 8},
        "workers": {"gpus": 0},
    }
    return JobSpec.model_validate({**document, **changes})
