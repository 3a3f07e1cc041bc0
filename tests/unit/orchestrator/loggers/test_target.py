"""How a logger is named, and what is said where it is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs.spec import InputError, Unavailable
from orchestrator.loggers import KINDS, open_logger
from orchestrator.site import LoggersSite, resolve_site


@pytest.mark.parametrize("text", ["", "tensorboard", "tensorboard:", "comet:place"])
def test_an_unknown_logger_or_a_missing_place_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InputError, match="tensorboard:FOLDER, wandb:PROJECT, mlflow:URI"):
        open_logger(text, Path())


@pytest.mark.parametrize(
    ("kind", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    kind: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"orchestrator.loggers.{kind}", raising=False)
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unavailable, match=rf"needs the package {package}, .*pip install 'lowtide\[{kind}\]'"):
        open_logger(f"{kind}:somewhere", Path())


def test_the_site_file_names_the_same_kinds_and_folders_from_its_own(tmp_path: Path) -> None:
    assert set(LoggersSite.model_fields) == set(KINDS)
    loggers = {"tensorboard": "runs", "mlflow": "sqlite:///m.db"}
    site = resolve_site({"zones": {"DE": {"provider": "demo"}}, "loggers": loggers}, tmp_path, "test")
    assert site.loggers.targets == [f"tensorboard:{tmp_path / 'runs'}", "mlflow:sqlite:///m.db"]
    assert resolve_site({"zones": {"DE": {"provider": "demo"}}}, tmp_path, "test").loggers.targets == []
    with pytest.raises(InputError, match="loggers"):
        resolve_site({"zones": {"DE": {"provider": "demo"}}, "loggers": {"comet": "x"}}, tmp_path, "test")
